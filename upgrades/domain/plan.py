"""A plan: what is left to do in an environment, in order, with the reason for each place. Only shapes; `planner` fills them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from upgrades.domain.environment import CONFIGURATION_DATABASE, LOG_DATABASE, OpenRun

Sources = tuple[str, ...]

STAGES = {
    "scs": "Solution Control Server",
    "message-server": "Message Server",
    "lca": "Local Control Agent",
    "db-server": "DB Server",
    "lrm": "License Reporting Manager",
    "master": "Configuration Server",
    "proxy": "Configuration Server Proxy",
    "dormant": "Dormant copies",
    "other": "Other servers",
}

DATABASES = {
    CONFIGURATION_DATABASE: "Configuration Database",
    LOG_DATABASE: "Centralized Log Database",
}


@dataclass(frozen=True, slots=True)
class Part:
    """Something that is to be upgraded. `kind` is server, host (its LCA), database or software."""

    kind: str
    name: str
    version: str
    target: str


@dataclass(frozen=True, slots=True)
class Need:
    """The run of the plan (its key) that must be done before, and why."""

    key: str
    reason: str
    sources: Sources


@dataclass(frozen=True, slots=True)
class Blocker:
    """What keeps a run from being started although no run of the plan is missing."""

    text: str
    sources: Sources = ()


@dataclass(frozen=True, slots=True)
class Expectation:
    """How long a run takes, and how long its exposures stand (title, seconds). `runs` past runs say so; 0: its text.

    `each` is what every server or host of a run adds to it, where its text is carried out for one after the other.
    """

    seconds: int
    exposures: tuple[tuple[str, int], ...] = ()
    runs: int = 0
    each: int = 0

    def of(self, members: int) -> Expectation:
        """What to expect of a run with so many members."""
        return Expectation(self.seconds + members * self.each, self.exposures, self.runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A run to do. `key` names the same work in every plan of the environment.

    `procedure` is empty where the source document has no procedure for it. `pair` are the servers of the whole unit,
    also those that are at their target. `inside` is the key of the run in whose course this one is carried out.
    Items of a stage that have the same `group` (from 1) may run side by side; 0: nothing is beside it.
    """

    key: str
    stage: str
    procedure: str
    title: str
    reason: str
    sources: Sources
    parts: tuple[Part, ...]
    pair: tuple[str, ...] = ()
    hosts: frozenset[str] = frozenset()
    alternatives: tuple[str, ...] = ()
    published: bool = False
    needs: tuple[Need, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    inside: str = ""
    group: int = 0
    run: OpenRun | None = None
    expected: Expectation | None = None

    @property
    def is_ready(self) -> bool:
        """Nothing holds it: neither a run of the plan, nor something unknown, nor another open run."""
        return not self.needs and not self.blockers and not self.inside and self.run is None


@dataclass(frozen=True, slots=True)
class Stage:
    id: str
    title: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Notice:
    text: str
    sources: Sources = ()


@dataclass(frozen=True, slots=True)
class Holder:
    """A Configuration Server component that keeps the feature freeze."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Freeze:
    """No new feature of Configuration Server until the last holder is gone (INT-3, CS-W1)."""

    holders: tuple[Holder, ...]
    sources: Sources = ("INT-3", "CS-W1")

    @property
    def is_on(self) -> bool:
        return bool(self.holders)

    @property
    def text(self) -> str:
        """Who holds it, those with the same reason together."""
        reasons = dict.fromkeys(holder.why for holder in self.holders)
        told = [(listed([one.name for one in self.holders if one.why == why]), why) for why in reasons]
        return "; ".join(f"{names} ({why})" for names, why in told)


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs that bring an environment to its targets, in order. `unknown` has what cannot be planned yet."""

    stages: tuple[Stage, ...]
    unknown: tuple[Part, ...]
    notices: tuple[Notice, ...]
    freeze: Freeze

    @property
    def items(self) -> tuple[Item, ...]:
        return tuple(item for stage in self.stages for item in stage.items)

    @property
    def is_done(self) -> bool:
        return not self.stages and not self.unknown

    @property
    def seconds(self) -> int | None:
        """How long it takes when what may run side by side does; None while that is not known for some run."""
        ends: dict[str, int] = {}
        for item in self.items:
            if item.expected is None and not item.inside:
                return None
            own = item.expected.seconds if item.expected is not None and not item.inside else 0
            before = [need.key for need in item.needs]
            ends[item.key] = max((ends.get(key, 0) for key in before), default=0) + own
        return max(ends.values(), default=0)


def listed(names: Sequence[str]) -> str:
    """“a, b and c”."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""


def counted(number: int, word: str) -> str:
    """“1 host”, “2 hosts”."""
    return f"{number} {word}{'s' * (number != 1)}"
