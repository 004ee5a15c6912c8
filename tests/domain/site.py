"""A run on a table whose steps are repeated for the servers of a site: hosts with their agents, SCS, Message Servers."""

from tests.domain.scene import OLGA, START, Scene
from upgrades.domain import run
from upgrades.domain.environment import Server
from upgrades.domain.groups import NOBODY, choose, expand
from upgrades.domain.run_events import Bound, Recorded, RunStarted
from upgrades.domain.run_state import begin
from upgrades.procedures.loader import builtin, load

SHIPPED = {
    procedure.id: procedure
    for procedure in (load(text, name=str(path)) for path, text in builtin() if path.stem == "1")
}


def server(name, host, kind="SCS", **more):
    return Server(name=name, type=kind, host=host, **{"version": "8.5.100"} | more)


def pair(first, second, hosts, kind="SCS", primary=None, **more):
    """Two servers that are each other's peer; `primary` runs as primary (the first where it is not told)."""
    names = (first, second)
    return [
        server(
            name,
            host,
            kind,
            peer=names[1 - place],
            standing=("primary", "backup")[place],
            mode="primary" if name == (primary or first) else "backup",
            **more,
        )
        for place, (name, host) in enumerate(zip(names, hosts, strict=True))
    ]


def agents(*hosts, version="8.5.100"):
    return [server(f"lca_{host}", host, "LCA", version=version) for host in hosts]


class Site(Scene):
    """A run of the shipped procedure `name` on these servers; `bound` names the server of each role of the dialog."""

    def __init__(self, name, servers, bound=None, **facts):
        text = SHIPPED[name]
        by_name = {item.name: item for item in servers}
        answers = {"target": "8.5.101", **facts}
        chosen = choose(text, servers, bound or {}, answers)
        playing = {role: by_name[name] for role, name in (bound or {}).items()} | chosen.roles
        bindings = {
            role: Bound(item.name, item.type, item.host, item.version) for role, item in playing.items()
        }
        known = {"environment.scs-current": True, f"{NOBODY}.there": False}
        for role, item in playing.items():
            known |= {
                role: item.name,
                f"{role}.name": item.name,
                f"{role}.host": item.host,
                f"{role}.version": item.version,
                f"{role}.mode": item.mode or None,
                f"{role}.type": item.type,
                f"{role}.there": True,
            }
        begun = RunStarted(
            procedure=text.id,
            procedure_version=1,
            procedure_hash=text.text_hash,
            title=text.title,
            environment=1,
            environment_name="Hamburg",
            rehearsal=False,
            bindings=bindings,
            facts=known | answers,
            policies={},
            authors=[],
            groups=chosen.groups,
        )
        self.procedure = expand(text, chosen.groups, bindings)
        self.history, self.offsets, self.changes = [], {}, 0
        self.state = begin(Recorded(1, START, OLGA, begun))
        self.history.append(Recorded(1, START, OLGA, begun))
        self.record(run.start(self.procedure, begun)[1:], OLGA)
        self.worker()

    def go_to(self, step):
        """Do for step after step what people and agents do when all is well, until the run stands at `step`."""
        while self.state.current != step:
            assert self.state.current is not None, f"the run never comes to {step}: {self.done()}"
            self.satisfy()
        return self

    def finish(self):
        while self.state.current is not None:
            self.satisfy()
        return self

    def entered(self):
        """The steps that the run has come to, in order, without those that it passed over."""
        return [event.step for event in self.events_of("step.entered")]

    def events_of(self, kind):
        return [recorded.event for recorded in self.history if recorded.event.kind == kind]
