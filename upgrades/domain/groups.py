"""Groups: steps that a run carries out for one server after the other (LCA-2 to LCA-4, ML-7).

When a run starts, `choose` finds the members of each group, in order, and the roles that their servers play;
`RunStarted` records both. From then on `expand` turns the procedure's text into the concrete one of this run: every
step with `for-each` becomes one step per member, and so do the exposures and duties that such steps name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from itertools import groupby
from typing import Any, TypeVar

from upgrades.domain import condition as c
from upgrades.domain import wording
from upgrades.domain.condition import Fact
from upgrades.domain.environment import LCA, Server
from upgrades.domain.procedure import (
    ClientsGate,
    DutyKind,
    Effect,
    EventRule,
    ExposureChange,
    ExposureKind,
    GoTo,
    Group,
    Owed,
    ProbeGate,
    Procedure,
    Role,
    Step,
    WayBackItem,
)
from upgrades.domain.refusal import BadInput
from upgrades.domain.run_events import Bound

PARTS = ("each", "beside", "peer")  # what a member's text may name: itself, its companion, and the peer
BROUGHT_IN = "app--"  # begins the roles of servers that only a group brought into the run
NOBODY = "nobody"  # stands for a companion or peer that a member does not have; `nobody.there` is false
LONGEST = 150  # members of one group: a page with more steps helps nobody in the middle of a night
_KEY = 36

Member = Mapping[str, str]
Groups = Mapping[str, Sequence[Member]]


def runs_as(server: Server) -> str:
    """standalone, primary or backup: how a member of a pair runs now, or else how it is configured."""
    if not server.peer:
        return "standalone"
    return server.mode if server.mode in ("primary", "backup") else server.standing


@dataclass(frozen=True, slots=True)
class Chosen:
    """The members of each group, and which server plays each role that they need beside those of the dialog."""

    groups: dict[str, list[dict[str, str]]]
    roles: dict[str, Server]


def choose(
    procedure: Procedure, servers: Iterable[Server], bound: Mapping[str, str], facts: Mapping[str, Fact]
) -> Chosen:
    """Who belongs to the procedure's groups, in the order of the work. `bound` are the dialog's roles with the names
    of their applications, `facts` its answers. `BadInput` when the picture does not allow to tell.

    Hosts come in the order of `runs` (LCA-2 before LCA-3 before LCA-4), by name within it.
    """
    picture = sorted(servers, key=lambda server: (server.host, server.name))
    by_name = {server.name: server for server in picture}
    cast_of = _Roles({name: role for role, name in bound.items()})
    groups = {}
    for group in procedure.groups:
        members = _members(group, picture, by_name, bound, facts)
        if len(members) > LONGEST:
            raise BadInput(
                f"“{group.title}” has {len(members)} members; at most {LONGEST} fit one run. Name fewer hosts.",
                group.only or "",
            )
        keys = _keys(members)
        groups[group.name] = [
            {"key": key, **cast_of.of(group, member, picture, by_name)}
            for key, member in zip(keys, members, strict=True)
        ]
    return Chosen(groups, {role: by_name[name] for name, role in cast_of.new.items()})


def _members(
    group: Group,
    picture: Sequence[Server],
    by_name: Mapping[str, Server],
    bound: Mapping[str, str],
    facts: Mapping[str, Fact],
) -> list[Server]:
    if group.pair_of is not None:
        first = by_name[bound[group.pair_of]]
        pair = [first, *([by_name[first.peer]] if first.peer in by_name else [])]
        return sorted(pair, key=lambda server: runs_as(server) == "primary")  # ML-1: the backup first
    found = [server for server in picture if server.type == group.application_type and not server.dormant]
    found = [server for server in found if _on_wanted_host(group, server, picture, facts)]
    found = [server for server in found if _wanted(group, server, facts)]
    if not group.beside:
        return found
    companions = {server.name: _runs(beside(group, server, picture)) for server in found}
    return sorted(
        (server for server in found if companions[server.name] in group.runs),
        key=lambda server: group.runs.index(companions[server.name]),
    )


def _on_wanted_host(
    group: Group, server: Server, picture: Sequence[Server], facts: Mapping[str, Fact]
) -> bool:
    listed = facts.get(group.only or "")
    if not isinstance(listed, str) or not listed.strip():
        return True
    wanted = {name for name in re.split(r"[\s,;]+", listed.lower()) if name}
    unknown = sorted(wanted - {other.host.lower() for other in picture})
    if unknown:
        raise BadInput(
            f"This environment has no host {', '.join(unknown)}. Correct the list of hosts.", group.only or ""
        )
    return server.host.lower() in wanted


def _wanted(group: Group, server: Server, facts: Mapping[str, Fact]) -> bool:
    """Doubt keeps a member in: a version that nobody knows may be an old one."""
    own: dict[str, Fact] = {
        "each": server.name,
        "each.name": server.name,
        "each.host": server.host,
        "each.version": server.version or None,
        "each.type": server.type,
        "each.mode": server.mode or None,
    }
    return group.when is None or c.holds(group.when, {**facts, **own}) is not False


def beside(group: Group, server: Server, picture: Sequence[Server]) -> Server | None:
    """The one server of the type `group.beside` on the host of `server`."""
    there = [
        other
        for other in picture
        if other.type == group.beside and other.host == server.host and not other.dormant
    ]
    if len(there) > 1:
        names = ", ".join(other.name for other in there)
        raise BadInput(
            f"{server.host} has more than one {group.beside} ({names}), so the order of the work cannot be told. "
            "Correct the environment, or take that host by itself."
        )
    return there[0] if there else None


def _runs(server: Server | None) -> str:
    return runs_as(server) if server is not None else "none"


class _Roles:
    """Gives each server one role, whichever groups it appears in, so that its facts are in one place."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self.known = dict(known)  # application -> role
        self.new: dict[str, str] = {}

    def of(
        self, group: Group, member: Server, picture: Sequence[Server], by_name: Mapping[str, Server]
    ) -> dict[str, str]:
        companion = beside(group, member, picture) if group.beside else None
        peer = by_name.get((companion or member).peer)
        parts = {"each": member, "beside": companion, "peer": peer}
        return {part: self.role(server.name) for part, server in parts.items() if server is not None}

    def role(self, application: str) -> str:
        if application not in self.known:
            taken = set(self.known.values())
            role = free = f"{BROUGHT_IN}{slug(application)}"
            number = 2
            while free in taken:
                free, number = f"{role}-{number}", number + 1
            self.known[application] = self.new[application] = free
        return self.known[application]


def slug(name: str) -> str:
    """A name as step ids and facts may hold it."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_KEY].strip("-") or "x"


def _keys(members: Sequence[Server]) -> list[str]:
    """A word for each member: its host, where an LCA is meant, else its name."""
    words = [slug(member.host if member.type == LCA else member.name) for member in members]
    counted, keys = Counter(words), []
    for number, word in enumerate(words, 1):
        keys.append(f"{word[: _KEY - 4]}-{number}" if counted[word] > 1 else word)
    return keys


def roles_of(step: Step, bindings: Mapping[str, Bound]) -> dict[str, str]:
    """The applications that a step speaks of, by the names that its text uses: all roles, and each, beside and peer."""
    found = {role: bound.application for role, bound in bindings.items() if not role.startswith(BROUGHT_IN)}
    return found | {part: bindings[role].application for part, role in step.cast}


# Expanding.

Remember = Callable[[object, object], None]


def expand(
    procedure: Procedure,
    groups: Groups,
    bindings: Mapping[str, Bound],
    remember: Remember = lambda _original, _copy: None,
) -> Procedure:
    """The procedure of a run whose groups have these members; the same object when it has no groups.

    `remember` is told of each part that was copied, so that mistakes found in a copy can be shown in the text.
    """
    if not procedure.groups:
        return procedure
    steps: list[Step] = []
    copiers: list[tuple[set[str], _Copier]] = []
    repeated: set[str] = set()
    for name, found in groupby(procedure.steps, key=lambda step: step.for_each):
        block = tuple(found)
        if name is None:
            steps += block
            continue
        named = _named_in(block)
        repeated |= named
        for member in groups.get(name, ()):
            copier = _Copier(member, frozenset(step.id for step in block), remember)
            steps += [copier.step(step) for step in block if copier.has_part_in(step)]
            copiers.append((named, copier))
    return replace(
        procedure,
        steps=tuple(steps),
        exposures=tuple(_copies(procedure.exposures, repeated, copiers)),
        duties=tuple(_copies(procedure.duties, repeated, copiers)),
        roles=(*procedure.roles, *_roles(procedure, groups, bindings)),
    )


Kind = TypeVar("Kind", ExposureKind, DutyKind)


def _copies(
    kinds: Iterable[Kind], repeated: set[str], copiers: Sequence[tuple[set[str], _Copier]]
) -> Iterator[Kind]:
    """The kinds, those that repeated steps name once for each member."""
    for kind in kinds:
        if kind.id not in repeated:
            yield kind
            continue
        made: dict[str, Kind] = {}
        for named, copier in copiers:
            if kind.id in named and copier.own(kind.id) not in made:
                made[copier.own(kind.id)] = copier.kind(kind)
        yield from made.values()


def _named_in(steps: Iterable[Step]) -> set[str]:
    """The exposures and duties that these steps open, close, owe or fulfil."""
    named: set[str] = set()
    for step in steps:
        named |= {change.exposure for change in (*step.opens, *step.closes)}
        named |= {owed.duty for owed in (*step.owes, *step.fulfils)}
    return named


def _roles(procedure: Procedure, groups: Groups, bindings: Mapping[str, Bound]) -> list[Role]:
    """A role for each server that only the groups brought in; of a pair, the second names the first."""
    titles: dict[str, str] = {}
    pairs: dict[str, str] = {}
    for group in procedure.groups:
        for member in groups.get(group.name, ()):
            for part in PARTS:
                if part in member:
                    titles[member[part]] = titles.get(member[part]) or (group.title if part == "each" else "")
            if "peer" in member and member["peer"] not in pairs.values():
                pairs[member["peer"]] = member.get("beside", member["each"])
    known = {role.name for role in procedure.roles}
    return [
        Role(
            name=role,
            title=title,
            application_types=(bindings[role].application_type,) if role in bindings else (),
            pair_of=pairs.get(role),
        )
        for role, title in titles.items()
        if role not in known
    ]


def parts_named(part: object) -> frozenset[str]:
    """Which of each, beside and peer the texts, conditions and gates of `part` name."""
    spy = _Spy()
    spy.copy(part)
    return frozenset(spy.named)


class _Copier:
    """Copies parts of a procedure for one member: other facts, other roles, ids of their own."""

    def __init__(self, member: Member, block: frozenset[str], remember: Remember) -> None:
        self.key = member["key"]
        self.member = member
        self.block = block
        self.remember = remember
        self.there = {f"{part}.there": part in member for part in PARTS}

    def has_part_in(self, part: object) -> bool:
        """False when `part` surely asks for a companion or a peer that this member has not, or for none where it has."""
        when: c.Condition | None = getattr(part, "when", None)
        return when is None or c.settled(when, self.there) is not False

    def step(self, step: Step) -> Step:
        copied: Step = self.copy(step)
        cast_of = tuple((part, self.member[part]) for part in PARTS if part in self.member)
        own = replace(copied, id=self.own(step.id), for_each=None, copy_of=step.id, cast=cast_of)
        self.remember(step, own)
        return own

    def kind(self, kind: Kind) -> Kind:
        copied: Kind = self.copy(kind)
        own = replace(copied, id=self.own(kind.id))
        if isinstance(own, ExposureKind):
            own = replace(own, copy_of=kind.id, family=wording.unnamed(kind.title))
        self.remember(kind, own)
        return own

    def own(self, name: str) -> str:
        return f"{name}--{self.key}"

    def fact(self, name: str) -> str:
        part, dot, rest = name.partition(".")
        if part not in PARTS:
            return name
        return f"{self.member.get(part, NOBODY)}{dot}{rest}"

    def copy(self, part: Any) -> Any:
        """A copy of any part of a procedure: a text, a condition, a dataclass of the core, or a tuple of them."""
        match part:
            case Enum():  # many of them are texts as well
                return part
            case str():
                return wording.renamed(part, self.fact)
            case c.Is() | c.Compare() | c.Not() | c.All() | c.AnyOf():
                return c.renamed(part, self.fact)
            case tuple():
                return tuple(self.copy(inner) for inner in part if self.has_part_in(inner))
            case _ if is_dataclass(part) and not isinstance(part, type):
                values = {item.name: self.copy(getattr(part, item.name)) for item in fields(part)}
                made = replace(part, **{**values, **self.references(part), **self.when(part)})
                self.remember(part, made)
                return made
        return part

    def when(self, part: Any) -> dict[str, Any]:
        """The condition of `part` without what is settled for this member."""
        when: c.Condition | None = getattr(part, "when", None)
        left = c.settled(when, self.there) if when is not None else True
        return {} if when is None else {"when": None if left is True else self.copy(left)}

    def references(self, part: Any) -> dict[str, Any]:
        """What `part` names beside its texts: roles, facts, and steps, exposures and duties of the block."""
        match part:
            case ProbeGate() | EventRule():
                until = getattr(part, "watch_until", None)
                more = {"watch_until": self.step_id(until)} if until else {}
                return {"server": self.fact(part.server), **more}
            case ClientsGate():
                return {
                    "leaving": self.fact(part.leaving),
                    "joining": self.fact(part.joining),
                    "baseline": self.step_id(part.baseline),
                }
            case Effect():
                return {"set": self.fact(part.set), "to": self.fact(part.to)}
            case GoTo() | WayBackItem():
                return {"step": self.step_id(part.step)}
            case ExposureChange():
                return {"exposure": self.own(part.exposure)}
            case Owed():
                return {"duty": self.own(part.duty)}
        return {}

    def step_id(self, step: str) -> str:
        return self.own(step) if step in self.block else step


class _Spy(_Copier):
    """Copies nothing in earnest: it remembers which parts of a member were named."""

    def __init__(self) -> None:
        super().__init__({"key": ""}, frozenset(), lambda _original, _copy: None)
        self.named: set[str] = set()

    def fact(self, name: str) -> str:
        part = name.partition(".")[0]
        if part in PARTS:
            self.named.add(part)
        return name
