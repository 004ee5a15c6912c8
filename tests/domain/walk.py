"""Runs of any shipped text on a table, with the people and the checks of `scene.py`."""

from dataclasses import replace

from tests.domain.scene import OLGA, Scene, started
from upgrades.domain import run
from upgrades.domain.groups import expand
from upgrades.domain.run_events import Bound
from upgrades.procedures.loader import builtin, load

FILES = {path.parent.name: (path, text) for path, text in builtin()}


def text_of(name):
    path, text = FILES[name]
    return load(text, name=str(path))


class Walk(Scene):
    """A run of the text `name`. `servers` are its roles with application, type, host and version; `groups` its members."""

    def __init__(self, name, servers, groups=None, policies=None, **facts):
        text = text_of(name)
        first = started(policies=policies)
        bindings = {role: Bound(*server) for role, server in servers.items()}
        known = {key: value for key, value in first.facts.items() if key.startswith("environment.")}
        for role, bound in bindings.items():
            known |= {
                role: bound.application,
                f"{role}.name": bound.application,
                f"{role}.host": bound.host,
                f"{role}.version": bound.version,
                f"{role}.type": bound.application_type,
                f"{role}.mode": "primary",
                f"{role}.there": True,
            }
        first = replace(
            first,
            procedure=text.id,
            procedure_hash=text.text_hash,
            title=text.title,
            bindings=bindings,
            facts=known | facts,
            authors=list(text.authors),
            groups=groups or {},
        )
        self.procedure = expand(text, first.groups, bindings)
        self.history, self.state, self.offsets, self.changes = [], None, {}, 0
        self.names = {role: bound.application for role, bound in bindings.items()}
        self.record(run.start(self.procedure, first), OLGA)
        self.worker()

    def gates(self, step=None):
        """The gates of a step that have a part in this run, by name."""
        return (
            {gate.id: found for gate, found in self.open_gates()}
            if step is None
            else self.go_to(step).gates()
        )

    def open_now(self):
        return {burden.partition(":")[2] for burden in self.state.burdens if burden.startswith("exposure:")}

    def walk(self):
        """Carry it through to the end; gives for each step the exposures that were open when it was complete."""
        seen = {}
        while self.state.current is not None:
            step = self.state.current
            self.satisfy()
            seen[step] = self.open_now()
        return seen


CONFSERV = ("confserv", "ConfigurationServer", "ess-cfg-01", "8.1.3")
PROXY = ("csproxy", "ConfigurationServerProxy", "muc-prx-01", "8.1.3")


def pair(kind="ConfigurationServer", version="8.5.101"):
    """First and second of a rollback: the backup and the primary of a pair."""
    return {
        "first": ("confserv_b", kind, "fra-cfg-02", version),
        "second": ("confserv", kind, "fra-cfg-01", version),
    }
