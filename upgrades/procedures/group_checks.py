"""Steps that are carried out for each member of a group: who may name whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from upgrades.domain import procedure as p
from upgrades.domain.groups import PARTS, parts_named
from upgrades.procedures.forms import Reading
from upgrades.procedures.mistakes import Place

Members = dict[str, list[dict[str, str]]]


def sample_groups(procedure: p.Procedure) -> Iterator[Members]:
    """Members as runs may have them: none, two in every group, with and without companion and peer, and two in one
    group only."""
    if not procedure.groups:
        yield {}
        return
    names = [group.name for group in procedure.groups]
    yield {}
    yield {name: _members(name) for name in names}
    for parts in (PARTS[:1], PARTS[:2]):
        yield {name: _members(name, parts) for name in names}
    for name in names if len(names) > 1 else ():
        yield {name: _members(name)}


def _members(group: str, parts: tuple[str, ...] = PARTS) -> list[dict[str, str]]:
    return [
        {"key": f"{group}-{number}", **{part: f"{group}-{part}-{number}" for part in parts}}
        for number in (1, 2)
    ]


def check_use_of_groups(procedure: p.Procedure, reading: Reading) -> None:
    """Add to the mistakes what names a member where there is none, or reaches into steps that may not be there."""

    def mistake(part: object, message: str) -> None:
        place, item = reading.places.get(id(part), (Place(1, 1), ""))
        reading.mistakes.add(place, item, message, structure=True)

    repeated = _names(procedure, inside=True)
    once = _names(procedure, inside=False)
    for step in procedure.steps:
        named = sorted(parts_named(step))
        if step.for_each is None and named:
            mistake(step, f"`{named[0]}` is a member of a group, and this step has no `for-each`.")
    kinds: tuple[p.ExposureKind | p.DutyKind, ...] = (*procedure.exposures, *procedure.duties)
    for kind in kinds:
        if kind.id in repeated & once:
            mistake(kind, f"`{kind.id}` is used by steps with `for-each` and by others. Make two of it.")
        elif kind.id not in repeated and (named := sorted(parts_named(kind))):
            mistake(kind, f"`{named[0]}` is a member of a group, and no step with `for-each` uses this.")
    _check_reach(procedure, mistake)


def _names(procedure: p.Procedure, *, inside: bool) -> set[str]:
    """The exposures and duties of steps with `for-each` (`inside`), or of the others."""
    steps = [step for step in procedure.steps if (step.for_each is not None) is inside]
    changes = {change.exposure for step in steps for change in (*step.opens, *step.closes)}
    return changes | {owed.duty for step in steps for owed in (*step.owes, *step.fulfils)}


def _check_reach(procedure: p.Procedure, mistake: Callable[[object, str], None]) -> None:
    blocks: dict[str, int] = {}
    number = 0
    for before, step in zip((None, *procedure.steps), procedure.steps, strict=False):
        if before is None or before.for_each != step.for_each:
            number += 1
        blocks[step.id] = number if step.for_each is not None else 0
    for step in procedure.steps:
        for named in _steps_named(step):
            if blocks.get(named) and blocks[named] != blocks[step.id]:
                mistake(
                    step,
                    f"`{named}` is carried out for each member of a group; name it only from a step beside it.",
                )


def _steps_named(step: p.Step) -> Iterator[str]:
    follows = [step.then, *(o.follow for gate in step.event_gates for o in gate.rule.outcomes)]
    yield from (follow.step for follow in follows if isinstance(follow, p.GoTo))
    for gate in step.all_gates:
        match gate:
            case p.WayBackGate(items=items):
                yield from (item.step for item in items)
            case p.ClientsGate(baseline=baseline):
                yield baseline
            case p.EventGate(rule=rule) if rule.watch_until:
                yield rule.watch_until
