"""A saved plan beside what is so now: what is done of it, and what planning anew would change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from upgrades.domain.environment import CONFIGURATION_DATABASE, Picture, reaches
from upgrades.domain.plan import DATABASES, Item, Part, Plan, counted, listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An item as it was saved. `after` are the keys of the items that it waited for."""

    key: str
    procedure: str
    title: str
    parts: tuple[Part, ...]
    after: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Change:
    """What differs between the plan of record and the plan for what is so now: added, dropped or changed."""

    kind: str
    title: str
    text: str


def is_done(item: Recorded, picture: Picture) -> bool:
    """Whether everything that the item was to upgrade is where it was to be."""
    return all(_part_done(part, picture) is True for part in item.parts)


def parts_done(item: Recorded, picture: Picture) -> int:
    return sum(_part_done(part, picture) is True for part in item.parts)


def _part_done(part: Part, picture: Picture) -> bool | None:
    """None when the part is there no more, or its version is not known."""
    match part.kind:
        case "server":
            server = picture.by_name.get(part.name)
            return reaches(server.version, part.target) if server is not None else None
        case "host":
            host = next((host for host in picture.hosts if host.name == part.name), None)
            return reaches(host.lca_version, part.target) if host is not None else None
        case "database":
            schema = (
                picture.schema_version
                if part.name == DATABASES[CONFIGURATION_DATABASE]
                else picture.log_schema_version
            )
            return reaches(schema, part.target)
        case _:
            return not picture.uses_lrm


def differences(recorded: Sequence[Recorded], now: Plan, picture: Picture) -> tuple[Change, ...]:
    """What re-planning would change. What was done since is progress and no difference."""
    open_now = {item.key: item for item in now.items}
    saved = {item.key: item for item in recorded}
    changes = [
        Change("added", item.title, f"{item.title} is new: {item.reason}")
        for item in now.items
        if item.key not in saved or (is_done(saved[item.key], picture))
    ]
    for item in recorded:
        fresh = open_now.get(item.key)
        if fresh is None:
            if not is_done(item, picture):
                text = f"{item.title} is not asked for any more: it is at its target, its version is not known, or it is gone."
                changes.append(Change("dropped", item.title, text))
        elif not is_done(item, picture) and (text := _changed(item, fresh, saved, picture)):
            changes.append(Change("changed", item.title, text))
    return tuple(changes)


def _changed(item: Recorded, fresh: Item, saved: Mapping[str, Recorded], picture: Picture) -> str:
    """In what an open item differs from its saved form, as a sentence; empty when it does not."""
    found = []
    if fresh.procedure != item.procedure:
        found.append(
            f"its procedure is now {fresh.procedure or 'its own guide'}, not {item.procedure or 'its own guide'}"
        )
    before = {part.name: part.target for part in item.parts}
    for part in fresh.parts:
        if part.name not in before:
            found.append(f"{part.name} has come to it")
        elif before[part.name] != part.target:
            found.append(f"the target of {part.name} is now {part.target}, not {before[part.name]}")
    now = frozenset(need.key for need in fresh.needs)
    was = frozenset(key for key in item.after if key in saved and not is_done(saved[key], picture))
    if now - item.after:
        found.append(f"it waits for {counted(len(now - item.after), 'more run')}")
    if was - now:
        found.append(f"it no longer waits for {listed([saved[key].title for key in sorted(was - now)])}")
    return f"{item.title}: {', and '.join(found)}." if found else ""
