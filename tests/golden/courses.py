"""Courses of runs whose histories are kept for every release: each shipped procedure, and the main one also in trouble.

They are carried out by the real commands on a table, so that nothing in them depends on a clock or on chance.
"""

from dataclasses import replace

from tests.domain.scene import ANNA, BOTH, ORDINARY, REASON, SERVERS, Scene
from tests.domain.site import Site, agents, pair, server
from tests.domain.test_going_over import BACKUP, CSM, NOT_ANNOUNCED, SameSchema
from tests.domain.test_texts import (
    ALONE,
    BOTH_DOWN,
    FOLDERS,
    MIGRATION,
    OPERATIONAL,
    SERVER,
    back,
    dormant,
    listed,
    proxy,
    standalone,
)
from tests.domain.walk import Walk
from upgrades.domain import run


def ended(scene):
    """The run behind its last step, people and servers doing what is due; Anna takes over what is owed then."""
    while scene.state.current is not None:
        here = (scene.state.current, scene.visit)
        scene.satisfy()
        if (scene.state.current, scene.state.current and scene.visit) == here:
            scene.see(*ORDINARY[scene.state.current](scene.state.facts.get("database-upgraded")))
        if (scene.state.current, scene.state.current and scene.visit) == here:
            scene.satisfy()
            scene.complete()
    for burden in scene.state.unowned:
        scene.act(run.TakeOver(burden=burden.id, reason=REASON), ANNA)
    return scene


def walked(walk):
    walk.walk()
    return ended(walk)


def pair_clean():
    return ended(Scene())


def pair_upgraded():
    """The database is upgraded: another branch, and a duty that outlives the run."""
    return ended(Scene(database_upgraded=True))


def pair_rollback():
    """Given up before the point of no return; another run takes back what was done."""
    scene = Scene().go_to("stop-old")
    scene.act(run.RollBack(by_run=8, procedure="rollback-both-down", reason=REASON))
    return scene


def pair_faults():
    """The wrong database, a server that goes away, a line that nobody can read, a contradiction, and all set right."""
    scene = Scene().go_to("launch-new")
    scene.see("new", "00-05060", "21-22911", "21-25301", "21-22902", "21-22171")
    scene.resume()
    scene.end_of("new")
    scene.restart()
    scene.see("new", "00-05060", "21-22911")
    scene.end_of("new")
    scene.restart()
    scene.see("new", "00-05060", "21-25301", "gap", "21-22170")
    [doubt] = [item.seq for item in scene.history if item.event.kind == "log.doubtful"]
    scene.deviate("doubt", gate="initialized", doubt=doubt, second=BOTH)
    scene.act(run.AddNote(text="The disk of fra-cfg-02 was full for a minute."))
    scene.see("new", "21-22171")
    scene.resume()
    return ended(scene)


class Announced(SameSchema):
    """Its history says of itself which text it follows, as that of a real run does."""

    def record(self, events, by):
        if self.state is None:
            own = {"procedure": CSM.id, "procedure_version": CSM.version, "procedure_hash": CSM.text_hash}
            events = [replace(events[0], title=CSM.title, **own), *events[1:]]
        super().record(events, by)


def same_schema_clean():
    return ended(Announced().launch(*BACKUP))


def same_schema_gone_over():
    return ended(Announced().launch(*NOT_ANNOUNCED))


def proxies_clean():
    kind = "ConfigurationServerProxy"
    servers = {
        "new": (SERVERS["new"], kind, "muc-prx-02", "8.1.3"),
        "old": (SERVERS["old"], kind, "muc-prx-01", "8.1.3"),
    }
    facts = {"environment.masters-current": True, "environment.proxies-may-go-first": False}
    return ended(Walk("config-server-proxy-ha", servers, **{"target": "8.5.101", **facts}))


def lca_clean():
    servers = [*agents("one", "two"), *pair("scs_1", "scs_2", ("one", "two"))]
    return ended(Site("lca", servers, **{"disconnect-switchover-timeout": "600"}))


def management_clean():
    servers = pair("a", "b", ("one", "two"), "MessageServer")
    return ended(Site("management-layer", servers, {"server": "a"}, **{"log-schema": False}))


def management_alone():
    servers = [server("a", "one", "SCS", mode="primary")]
    return ended(Site("management-layer", servers, {"server": "a"}, **{"log-schema": False}))


COURSES = {
    "config-server-ha-clean": pair_clean,
    "config-server-ha-upgraded": pair_upgraded,
    "config-server-ha-rollback": pair_rollback,
    "config-server-ha-faults": pair_faults,
    "config-server-ha-same-schema-clean": same_schema_clean,
    "config-server-ha-same-schema-over": same_schema_gone_over,
    "config-server-standalone-clean": lambda: walked(standalone()),
    "config-server-proxy-clean": lambda: walked(proxy()),
    "config-server-proxy-ha-clean": proxies_clean,
    "lca-clean": lca_clean,
    "management-layer-clean": management_clean,
    "management-layer-alone": management_alone,
    "disaster-recovery-clean": lambda: walked(dormant()),
    "database-migration-clean": lambda: walked(listed("database-migration", **MIGRATION)),
    "log-database-schema-clean": lambda: walked(listed("log-database-schema", target_schema="8.5.1")),
    "lrm-removal-clean": lambda: walked(listed("lrm-removal")),
    "rollback-operational-clean": lambda: walked(back("rollback-operational", **OPERATIONAL)),
    "rollback-both-down-clean": lambda: walked(back("rollback-both-down", **BOTH_DOWN)),
    "rollback-immediate-clean": lambda: walked(back("rollback-immediate", former_database=False)),
    "rollback-folders-clean": lambda: walked(back("rollback-folders", **FOLDERS)),
    "rollback-standalone-clean": lambda: walked(back("rollback-standalone", SERVER, **ALONE)),
}
