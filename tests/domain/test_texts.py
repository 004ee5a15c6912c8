"""What the shipped texts demand, row by row: each test walks the text and fails when the demand is gone from it."""

import pytest

from tests.domain.walk import CONFSERV, PROXY, Walk, pair
from upgrades.domain import run
from upgrades.domain.procedure import ApprovalGate, ProbeGate, WayBackGate
from upgrades.domain.refusal import GateClosed

requirement = pytest.mark.requirement


def standalone(**facts):
    answers = {"target": "8.5.101", "database-upgraded": False, "keep-database-until": None}
    return Walk("config-server-standalone", {"server": CONFSERV}, **{**answers, **facts})


def proxy(**facts):
    known = {
        "target": "8.5.101",
        "environment.masters-current": True,
        "environment.proxies-may-go-first": False,
    }
    return Walk("config-server-proxy", {"server": PROXY}, **{**known, **facts})


def proxy_pair(**facts):
    known = {
        "target": "8.5.101",
        "environment.masters-current": True,
        "environment.proxies-may-go-first": False,
    }
    kind = "ConfigurationServerProxy"
    servers = {
        "new": ("csproxy_b", kind, "muc-prx-02", "8.1.3"),
        "old": ("csproxy", kind, "muc-prx-01", "8.1.3"),
    }
    return Walk("config-server-proxy-ha", servers, **{**known, **facts})


def back(name, servers=None, **answers):
    facts = {"back-to": "8.5.100", **{key.replace("_", "-"): value for key, value in answers.items()}}
    return Walk(name, servers or pair(), **facts)


def sources(walk, step):
    found = walk.procedure.step(step)
    return {source for part in (found, *found.all_gates, *found.notices) for source in part.source}


# A single Configuration Server (CSS).


@requirement("CSS-1")
@requirement("CSS-2")
@requirement("CSS-4")
@requirement("CSS-5")
@requirement("CSS-6")
def test_a_single_server_is_backed_up_installed_stopped_replaced_and_launched_in_this_order():
    walk = standalone()
    walk.walk()
    assert walk.done() == [
        "prerequisites",
        "backup-database",
        "install-instance",
        "stop-server",
        "replace-server-folder",
        "launch-server",
    ]
    assert walk.state.ending == "completed"
    assert walk.state.facts["server.version"] == "8.5.101"


@requirement("CSS-4x")
@requirement("CSS-6x")
def test_the_downtime_lasts_from_the_stop_until_the_new_version_is_initialized():
    seen = standalone().walk()
    assert [step for step, is_open in seen.items() if "client-downtime" in is_open] == [
        "stop-server",
        "replace-server-folder",
    ]


@requirement("CSS-2a")
@requirement("CSS-2b")
def test_three_names_are_compared_by_the_agent_before_the_stop_and_after_the_exchange():
    walk = standalone()
    for step, folder in (("install-instance", "prepared"), ("replace-server-folder", "current")):
        gate = walk.procedure.step(step).gate("names-equal")
        assert isinstance(gate, ProbeGate)
        assert (gate.probe, gate.folder) == ("names-equal", folder)
    walk.go_to("install-instance")
    walk.probe("names-equal", "failed")
    with pytest.raises(GateClosed):
        walk.complete()


@requirement("CSS-3")
@pytest.mark.parametrize("upgraded", [True, False])
def test_the_database_is_migrated_only_where_its_schema_goes(upgraded):
    walk = standalone(**{"database-upgraded": upgraded, "keep-database-until": "2030-12-31"})
    walk.go_to("stop-server")
    assert ("migrate-database" in walk.done()) is upgraded


@requirement("CSS-5")
def test_the_former_folder_must_be_seen_before_the_new_version_is_launched():
    walk = standalone().go_to("replace-server-folder")
    walk.begin()
    walk.probe("names-equal")
    with pytest.raises(GateClosed, match="former folder"):
        walk.complete()


@requirement("CSS-6dr")
@requirement("INT-5")
@pytest.mark.parametrize(
    ("upgraded", "recovery", "asked"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_the_migrated_database_is_replicated_where_another_site_stands_by(upgraded, recovery, asked):
    facts = {"database-upgraded": upgraded, "environment.disaster-recovery": recovery}
    walk = standalone(**{**facts, "keep-database-until": "2030-12-31"}).go_to("launch-server")
    assert ("replicated" in walk.gates()) is asked


@requirement("CS-R1")
def test_an_upgraded_database_leaves_the_duty_to_keep_the_former_one():
    walk = standalone(**{"database-upgraded": True, "keep-database-until": "2030-12-31"})
    walk.walk()
    assert "duty:keep-legacy-database" in walk.state.burdens


@requirement("CS-P1")
@requirement("CS-P2")
@requirement("CS-P3")
@requirement("CS-W3")
@pytest.mark.parametrize("make", [standalone, proxy])
def test_nothing_begins_before_packages_lca_scs_and_related_components_are_there(make):
    walk = make()
    assert {"packages-delivered", "lca-current", "scs-current", "related-components"} <= set(walk.gates())
    for fact in ("environment.lca-current", "environment.scs-current"):
        assert not make(**{fact: None}).gates()[fact.partition(".")[2]].is_met


# Proxies (PRX).


@requirement("PRX-0")
def test_a_proxy_goes_the_way_of_what_it_is():
    assert [step.id for step in proxy().procedure.steps] == [
        step.id for step in standalone().procedure.steps if step.id != "migrate-database"
    ]
    steps = [step.id for step in proxy_pair().procedure.steps]
    assert steps[3:5] == ["replace-folder", "launch-new"]
    assert "stop-upgrade-mode" in steps


@requirement("PRX-1")
@requirement("INT-1")
@pytest.mark.parametrize("make", [proxy, proxy_pair])
@pytest.mark.parametrize(
    ("masters", "exception", "opens"),
    [(True, False, True), (False, True, True), (False, False, False), (None, None, False)],
)
def test_the_master_goes_first_but_for_the_one_exception(make, masters, exception, opens):
    walk = make(**{"environment.masters-current": masters, "environment.proxies-may-go-first": exception})
    assert walk.gates()["master-first"].is_met is opens


@requirement("PRX-2")
@pytest.mark.parametrize("make", [proxy, proxy_pair])
def test_no_read_only_mode_but_nobody_may_have_a_change_pending(make):
    walk = make()
    assert "read-only" not in [step.id for step in walk.procedure.steps]
    assert "read-only" not in [kind.id for kind in walk.procedure.exposures]
    assert not walk.gates()["no-change-pending"].is_met
    assert not any(
        gate.id.startswith("read-only") for step in walk.procedure.steps for gate in step.all_gates
    )


@requirement("PRX-3")
@pytest.mark.parametrize(("make", "step"), [(proxy, "replace-server-folder"), (proxy_pair, "replace-folder")])
def test_no_configuration_file_is_carried_over(make, step):
    told = [notice.text for notice in make().procedure.step(step).notices if "PRX-3" in notice.source]
    assert told
    assert "*.conf" in told[0]
    assert not any("names-equal" in gate.id for one in make().procedure.steps for gate in one.all_gates)


@requirement("PRX-4")
@pytest.mark.parametrize("make", [proxy, proxy_pair])
def test_the_options_of_the_application_objects_are_exported(make):
    gate = make().procedure.step("backup-database").gate("options-export")
    assert "PRX-4" in gate.source
    assert "XML" in gate.ask


@requirement("PRX-5")
@pytest.mark.parametrize(
    ("make", "steps"), [(proxy, ["install-instance"]), (proxy_pair, ["install-new", "install-remaining"])]
)
def test_the_new_proxy_has_the_application_object_of_the_replaced_one(make, steps):
    for step in steps:
        gate = make().procedure.step(step).gate("same-name")
        assert "PRX-5" in gate.source
        assert "on the master" in gate.ask


def test_a_proxy_is_carried_through():
    walk = proxy()
    walk.walk()
    assert walk.state.ending == "completed"


# Rolling back (RB).

OPERATIONAL = {"second_replaced": True}
BOTH_DOWN = {"master_operational": True, "second_replaced": True, "former_database": False}
FOLDERS = {"database_restore": False, "second_replaced": True}
ALONE = {"master_operational": True, "former_database": False, "database_restore": False}
SERVER = {"server": ("confserv", "ConfigurationServer", "ess-cfg-01", "8.5.101")}
ROLLBACKS = [
    ("rollback-operational", None, OPERATIONAL),
    ("rollback-both-down", None, BOTH_DOWN),
    ("rollback-immediate", None, {"former_database": False}),
    ("rollback-folders", None, FOLDERS),
    ("rollback-standalone", SERVER, ALONE),
]


@requirement("RB-0")
@pytest.mark.parametrize(("name", "servers", "answers"), ROLLBACKS)
def test_every_rollback_begins_with_an_agent_that_sees_the_old_instance(name, servers, answers):
    walk = back(name, servers, **answers)
    looked = [gate for gate in walk.step.gates if isinstance(gate, ProbeGate) and "RB-0" in gate.source]
    assert looked
    assert all(gate.probe == "folder-exists" for gate in looked)
    walk.probe(looked[0].id, "failed")
    for gate in walk.gates():
        if gate not in [one.id for one in looked] and gate != "new-enough":
            walk.attach(gate) if gate == "database-copy" else walk.confirm(gate)
    with pytest.raises(GateClosed):
        walk.complete()


@requirement("RB-N10")
@requirement("RB-7")
@pytest.mark.parametrize(("name", "servers", "answers"), ROLLBACKS)
def test_every_rollback_ends_with_its_windows_closed_and_the_old_version_in_place(name, servers, answers):
    walk = back(name, servers, **answers)
    walk.walk()
    assert walk.state.ending == "completed"
    assert walk.open_now() == set()
    roles = [role.name for role in walk.procedure.roles]
    assert {walk.state.facts[f"{role}.version"] for role in roles} == {"8.5.100"}


@pytest.mark.parametrize(("name", "servers", "answers"), ROLLBACKS)
def test_each_step_that_destroys_shows_what_there_is_to_go_back_to(name, servers, answers):
    for step in back(name, servers, **answers).procedure.steps:
        assert not step.destroys or any(isinstance(gate, WayBackGate) for gate in step.needs)


@requirement("RB-1")
@requirement("RB-2")
@requirement("RB-3")
@requirement("RB-4")
@requirement("RB-5")
@requirement("RB-6")
def test_a_master_that_works_goes_back_one_server_after_the_other():
    walk = back("rollback-operational", **OPERATIONAL)
    walk.walk()
    assert walk.done()[1:] == [
        "stop-first",
        "reset-first",
        "start-first",
        "stop-second",
        "reset-second",
        "start-second",
        "close-rollback",
    ]


@requirement("RB-1x")
def test_the_rollback_window_opens_with_the_first_stop_and_closes_with_the_last_check():
    seen = back("rollback-operational", **OPERATIONAL).walk()
    inside = [step for step, is_open in seen.items() if "rollback-window" in is_open]
    assert (inside[0], inside[-1]) == ("stop-first", "start-second")
    alone = back("rollback-standalone", SERVER, **ALONE).walk()
    assert [step for step, is_open in alone.items() if "client-downtime" in is_open] == [
        "stop-server",
        "reset-server",
    ]


@requirement("RB-4")
def test_the_second_server_is_not_touched_before_the_first_is_primary():
    walk = back("rollback-operational", **OPERATIONAL).go_to("stop-second")
    walk.begin()
    walk.probe("stopped")
    with pytest.raises(GateClosed, match="primary"):
        walk.complete()


@requirement("RB-3")
def test_a_server_that_was_not_upgraded_is_left_alone():
    walk = back("rollback-operational", second_replaced=False)
    walk.walk()
    assert not {"stop-second", "reset-second", "start-second"} & set(walk.done())


@requirement("RB-B1")
@pytest.mark.parametrize(
    ("name", "answers", "asked"),
    [
        ("rollback-operational", OPERATIONAL, True),
        ("rollback-both-down", BOTH_DOWN, True),
        ("rollback-both-down", {**BOTH_DOWN, "master_operational": False}, False),
        ("rollback-immediate", {"former_database": False}, False),
        ("rollback-folders", FOLDERS, False),
    ],
)
def test_proxies_go_back_first_where_the_master_works(name, answers, asked):
    assert ("proxies-first" in back(name, **answers).gates()) is asked
    assert "proxies-first" not in back(name, pair("ConfigurationServerProxy"), **answers).gates()


@requirement("CS-R2")
def test_before_an_old_server_starts_both_are_down():
    walk = back("rollback-both-down", **{**BOTH_DOWN, "back_to": "8.1.3"}).go_to("stop-second")
    walk.begin()
    walk.probe("stopped")
    with pytest.raises(GateClosed, match="confserv_b is down"):
        walk.complete()
    assert "start-first" not in walk.done()
    old = back("rollback-operational", **{**OPERATIONAL, "back_to": "8.1.3"})
    assert not old.gates()["new-enough"].is_met
    folders = back("rollback-folders", **{**FOLDERS, "back_to": "8.1.3"})
    folders.walk()
    assert folders.done().index("stop-both") < folders.done().index("start-first")


@requirement("RB-N1")
@requirement("RB-N1b")
@requirement("RB-N1c")
def test_the_immediate_rollback_starts_the_old_server_before_the_other_one_is_reset():
    walk = back("rollback-immediate", former_database=False)
    walk.walk()
    assert walk.done()[1:] == ["stop-second", "start-first", "reset-second", "start-second", "close-rollback"]


@requirement("RB-N2")
@pytest.mark.parametrize("name", ["rollback-immediate", "rollback-both-down"])
@pytest.mark.parametrize("former", [True, False])
def test_after_a_database_upgrade_the_old_server_must_be_seen_on_the_former_database(name, former):
    answers = {"former_database": former, "second_replaced": True, "master_operational": False}
    walk = back(name, **answers)
    assert ("former-database" in walk.gates()) is former
    assert ("database-entered" in walk.go_to("start-first").gates()) is former


@requirement("RB-N3")
@requirement("RB-N6")
def test_a_database_is_restored_offline_from_a_copy_that_is_there_and_comes_back_before_the_first_start():
    walk = back("rollback-folders", **{**FOLDERS, "database_restore": True})
    assert "database-copy" in walk.gates()
    walk.go_to("restore-database")
    assert [gate.policy for gate in walk.step.needs if isinstance(gate, ApprovalGate)] == [
        "point-of-no-return"
    ]
    walk.satisfy()
    assert "rollback-window" in walk.open_now()
    walk.walk()
    done = walk.done()
    assert done.index("restore-database") < done.index("databases-online") < done.index("start-first")
    assert "reset-all" not in done


@requirement("RB-N4")
def test_without_a_restore_all_parameters_are_reset_and_nobody_changes_the_configuration():
    walk = back("rollback-folders", **FOLDERS).go_to("reset-all")
    assert set(walk.gates()) == {"parameters-reset", "nothing-changes"}
    assert "rollback-window" in walk.open_now()
    assert "restore-database" not in walk.done()


@requirement("RB-N5")
@requirement("RB-N7")
@requirement("RB-N8")
@requirement("RB-N9")
def test_folders_are_put_back_one_server_after_the_other():
    walk = back("rollback-folders", **FOLDERS)
    walk.walk()
    assert walk.done()[2:] == [
        "stop-first",
        "reset-first",
        "start-first",
        "stop-second",
        "reset-second",
        "start-second",
        "close-rollback",
    ]
    for step, source in (
        ("stop-first", "RB-N5"),
        ("start-first", "RB-N7"),
        ("stop-second", "RB-N8"),
        ("start-second", "RB-N9"),
    ):
        assert source in sources(walk, step)


# Dormant copies, databases, License Reporting Manager.


def dormant(upgraded=True):
    copies = {
        "copy": ("cs_dr", "ConfigurationServer", "jen-cfg-01", "8.1.3"),
        "other": ("cs_dr_b", "ConfigurationServer", "jen-cfg-02", "8.1.3"),
    }
    members = [
        {"key": "cs-dr", "each": "copy", "peer": "other"},
        {"key": "cs-dr-b", "each": "other", "peer": "copy"},
    ]
    return Walk(
        "disaster-recovery",
        copies,
        {"copies": members},
        **{"target": "8.5.101", "database-upgraded": upgraded, "copy.mode": "down", "other.mode": "down"},
    )


@requirement("INT-4")
def test_each_dormant_copy_is_replaced_and_none_is_started():
    walk = dormant()
    walk.walk()
    assert {"replace-copy--cs-dr", "replace-copy--cs-dr-b"} <= set(walk.done())
    probes = {
        gate.probe for step in walk.procedure.steps for gate in step.all_gates if isinstance(gate, ProbeGate)
    }
    assert "process-up" not in probes
    assert {walk.state.facts["copy.version"], walk.state.facts["other.version"]} == {"8.5.101"}


@requirement("INT-4")
def test_a_copy_that_runs_is_not_replaced():
    walk = dormant().go_to("replace-copy--cs-dr")
    walk.begin()
    walk.probe("folder-kept")
    walk.probe("names-equal")
    walk.probe("asleep", "failed")
    with pytest.raises(GateClosed):
        walk.complete()


@requirement("INT-5")
@requirement("CSS-6dr")
@requirement("CSH-4dr")
@pytest.mark.parametrize("upgraded", [True, False])
def test_an_upgraded_database_is_replicated_before_the_copies_are_touched(upgraded):
    walk = dormant(upgraded).go_to("install-copy--cs-dr")
    assert ("replicate" in walk.done()) is upgraded
    assert ("database-entered" in walk.gates()) is upgraded


def listed(name, **answers):
    return Walk(name, {}, **{key.replace("_", "-"): value for key, value in answers.items()})


MIGRATION = {"target_schema": "8.5.1", "convert_languages": True, "keep_database_until": "2030-12-31"}


@requirement("GEN-1")
def test_a_migration_asks_whether_the_schema_is_needed_and_leaves_the_former_database_alone():
    walk = listed("database-migration", **MIGRATION)
    assert not walk.gates()["needed"].is_met
    assert "former-untouched" in walk.go_to("migrate").gates()
    walk.walk()
    assert walk.open_now() == set()
    assert "duty:keep-legacy-database" in walk.state.burdens


@requirement("INT-5")
@pytest.mark.parametrize("recovery", [True, False])
def test_a_migrated_database_is_replicated_where_another_site_stands_by(recovery):
    walk = Walk(
        "database-migration",
        {},
        **{"target-schema": "8.5.1", "convert-languages": False, "keep-database-until": "2030-12-31"},
        **{"environment.disaster-recovery": recovery},
    )
    walk.walk()
    assert ("replicate" in walk.done()) is recovery


@requirement("ML-5")
def test_the_log_database_is_updated_only_behind_its_copy_and_a_signature():
    walk = listed("log-database-schema", target_schema="8.5.1").go_to("update")
    with pytest.raises(GateClosed, match="approved"):
        walk.act(run.Begin(**walk.here))
    walk.walk()
    assert walk.state.ending == "completed"


@requirement("INT-6")
def test_license_reporting_manager_goes_only_after_what_must_be_kept_is_saved():
    walk = listed("lrm-removal").go_to("uninstall")
    assert walk.done() == ["prerequisites", "save"]
    walk.walk()
    assert walk.state.ending == "completed"


@pytest.mark.parametrize("name", ["database-migration", "log-database-schema", "lrm-removal"])
def test_steps_that_no_source_describes_say_that_they_are_the_sites_own(name):
    told = {
        source
        for step in listed(name).procedure.steps
        for part in (step, *step.all_gates)
        for source in part.source
    }
    assert any(source.startswith("SITE-") for source in told)
