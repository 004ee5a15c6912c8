"""What stands above and beside the steps: exposures, way back, burdens, deviations, notes, and the hold."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from upgrades.domain import run as core
from upgrades.domain import run_events as e
from upgrades.domain.condition import holds
from upgrades.domain.exposure import WARNING, limit_of
from upgrades.domain.gates import applies, policy_of
from upgrades.domain.policy import DEVIATION
from upgrades.domain.procedure import ApprovalGate, ExposureKind, Moment, Step, WayBackGate
from upgrades.domain.run_state import Burden, Deviation, RunStatus, StepStatus
from upgrades.queries.run_page.gate_rows import fact_text, files_of, gate_signatures, way_back_rows
from upgrades.queries.run_page.record import burden_title
from upgrades.queries.run_page.shapes import (
    BurdenRow,
    DeviationRow,
    DialogAnswer,
    File,
    Hold,
    May,
    Note,
    Review,
    Signature,
    Tile,
)
from upgrades.queries.run_page.sight import ENOUGH, Sight, clock, spoken

_NEVER = May(allowed=False, mine=False)

# Exposures.


def tiles(sight: Sight) -> tuple[Tile, ...]:
    """The exposures: open ones first, then those that were, then those to come; and the way back."""
    found = [tile for kinds in _families(sight) for tile in _tiles(sight, kinds)]
    order = {"open": 0, "near": 0, "over": 0, "shut": 1}
    listed = sorted((tile for tile in found if tile is not None), key=lambda tile: order[tile.state])
    return (*listed, *_way_back(sight))


def _families(sight: Sight) -> Iterator[list[ExposureKind]]:
    """The kinds of exposures; those that the text names once and that are many, one for each server, together."""
    found: dict[str, list[ExposureKind]] = {}
    for kind in sight.procedure.exposures:
        found.setdefault(kind.copy_of or kind.id, []).append(kind)
    yield from found.values()


def _tiles(sight: Sight, kinds: list[ExposureKind]) -> Iterator[Tile | None]:
    """One for each that is open, and one for what is behind or still to come."""
    is_open = [kind for kind in kinds if f"exposure:{kind.id}" in sight.state.burdens]
    for kind in is_open:
        yield _open(sight, kind, sight.state.burdens[f"exposure:{kind.id}"])
    if len(kinds) == 1 and is_open:
        return
    shut = _shut(sight, kinds)
    if shut is not None and not is_open:
        yield shut


def _shut(sight: Sight, kinds: list[ExposureKind]) -> Tile | None:
    ids = {f"exposure:{kind.id}" for kind in kinds}
    closed = [item for item in sight.state.closed if item.burden.id in ids]
    total = sum((item.closed_at - item.burden.since for item in closed), timedelta())
    openers = [] if sight.state.is_over else [_step_ahead(sight, kind.id, "opens") for kind in kinds]
    ahead = next((step for step in openers if step is not None), None)
    kind = kinds[0]
    title = sight.plain(kind.family or kind.title)
    if len(kinds) > 1 and closed:
        note = f"over for {len({item.burden.id for item in closed})} of {len(kinds)}"
        more = f" · again from {sight.label(ahead.id)} on" if ahead is not None else ""
        return Tile(title, "shut", note + more, value=clock(total))
    if total:
        maximum = limit_of(kind, sight.state.facts)
        allowed = f" of at most {spoken(maximum)}" if maximum else ""
        return Tile(title, "shut", f"over{allowed}", value=clock(total))
    return None if ahead is None else Tile(title, "shut", f"from {sight.label(ahead.id)} on", value="none")


def _open(sight: Sight, kind: ExposureKind, burden: Burden) -> Tile:
    parts = [f"since {sight.label(burden.step)}"]
    if kind.expected:
        parts.append(f"expected {spoken(kind.expected)}")
    maximum = limit_of(kind, sight.state.facts)
    if maximum:
        parts.append(f"at most {spoken(maximum)}")
    closer = _step_ahead(sight, kind.id, "closes")
    if burden.owner is not None:
        parts.append(f"taken over by {burden.owner.name}")
    elif closer is not None:
        parts.append(_ends(sight, closer, kind.id))
    passed = (sight.now - burden.since).total_seconds()
    over = maximum is not None and passed > maximum
    title, note = sight.plain(kind.title), " · ".join(parts)
    if kind.maximum_from is None or maximum is None:
        return Tile(title, "over" if over else "open", note, since=burden.since, limit=maximum)
    state = "over" if over else "near" if passed * 100 >= maximum * WARNING else "open"
    if state != "open":
        note = f"{'the time is over' if over else 'less than a fifth is left'} · {note}"
    return Tile(title, state, note, until=burden.since + timedelta(seconds=maximum))


def _ends(sight: Sight, closer: Step, exposure: str) -> str:
    moment = next(change.at for change in closer.closes if change.exposure == exposure)
    if moment is Moment.BEGIN:
        return f"ends when {sight.label(closer.id)} begins"
    if closer.event_gates:
        return f"ends with {sight.label(closer.id)}: {sight.plain(closer.event_gates[0].title)}"
    return f"ends with {sight.label(closer.id)}"


def _step_ahead(sight: Sight, exposure: str, field: str) -> Step | None:
    """The first step that is not behind yet and opens or closes the exposure."""
    for step in sight.procedure.steps:
        at = sight.state.steps.get(step.id)
        if at is not None and at.status not in (StepStatus.CURRENT, StepStatus.BEGUN):
            continue
        if step.aside and at is None:
            continue
        if step.when is not None and holds(step.when, sight.state.facts) is False:
            continue
        changes = step.opens if field == "opens" else step.closes
        for change in changes:
            if change.exposure == exposure and (
                change.when is None or holds(change.when, sight.state.facts) is not False
            ):
                return step
    return None


def _way_back(sight: Sight) -> Iterator[Tile]:
    found = next_way_back(sight)
    if found is None:
        return
    step, gate = found
    rows = way_back_rows(sight, gate)
    missing = [row.title for row in rows if not row.ready]
    if missing:
        note = f"{sight.label(step.id)} needs it; missing: {', '.join(missing)}"
        state = "shut" if step.id != sight.state.current else "over"
        yield Tile("Way back", state, note, value="not ready")
    else:
        shown = ", ".join(row.title for row in rows) or "nothing is needed for it"
        yield Tile("Way back", "ready", f"proved for {sight.label(step.id)}: {shown}", value="ready")


def next_way_back(sight: Sight) -> tuple[Step, WayBackGate] | None:
    """The way back that the next step demands which cannot be undone otherwise."""
    if sight.state.is_over:
        return None
    for step in sight.procedure.steps:
        at = sight.state.steps.get(step.id)
        behind = at is not None and at.status not in (StepStatus.CURRENT, StepStatus.BEGUN)
        if behind or (step.aside and at is None):
            continue
        if step.when is not None and holds(step.when, sight.state.facts) is False:
            continue
        for gate in step.needs:
            if isinstance(gate, WayBackGate) and applies(gate, sight.state):
                return step, gate
    return None


# Burdens.


def burdens(sight: Sight) -> tuple[BurdenRow, ...]:
    """The exposures and duties that are open."""
    return tuple(_burden(sight, burden) for burden in sight.state.burdens.values())


def _burden(sight: Sight, burden: Burden) -> BurdenRow:
    owner = burden.owner
    return BurdenRow(
        id=burden.id,
        kind=burden.id.partition(":")[0],
        title=burden.title or burden_title(sight, burden.id),
        since=burden.since,
        step=sight.label(burden.step),
        owner=owner.name if owner else "",
        mine=owner is not None and owner.id == sight.me.id,
        take_over=sight.may(core.TakeOver(burden=burden.id, reason=ENOUGH)),
        close=sight.may(core.CloseBurden(burden=burden.id, text=ENOUGH)),
    )


def closed_burdens(sight: Sight) -> tuple[BurdenRow, ...]:
    """The exposures and duties that were open and are over."""
    return tuple(
        BurdenRow(
            id=item.burden.id,
            kind=item.burden.id.partition(":")[0],
            title=item.burden.title or burden_title(sight, item.burden.id),
            since=item.burden.since,
            step=sight.label(item.burden.step),
            owner=item.burden.owner.name if item.burden.owner else "",
            mine=False,
            take_over=_NEVER,
            close=_NEVER,
            closed_at=item.closed_at,
            closed_by=item.by.name,
            text=item.text,
            took=clock(item.closed_at - item.burden.since),
        )
        for item in sight.state.closed
    )


# Deviations, hold, notes.


def deviations(sight: Sight) -> tuple[DeviationRow, ...]:
    return tuple(_deviation(sight, item) for item in sight.state.deviations.values())


def _deviation(sight: Sight, item: Deviation) -> DeviationRow:
    status = "open" if item.is_open else "signed" if item.signed else "rejected"
    return DeviationRow(
        number=item.number,
        what=_what(sight, item),
        reason=item.reason,
        asked_by=item.asked_by.name,
        asked_at=item.asked_at,
        decided_by=item.decided_by.name if item.decided_by else "",
        comment=item.comment,
        status=status,
        sign=sight.may(core.SignDeviation(number=item.number, comment=ENOUGH)) if item.is_open else _NEVER,
        reject=sight.may(core.RejectDeviation(number=item.number, reason=ENOUGH)) if item.is_open else _NEVER,
        emergency=item.is_emergency,
        signers=tuple(signature.by.name for signature in item.signatures),
        needed=1 if item.is_emergency else policy_of(sight.state, DEVIATION).needed,
        due_at=core.deviation_due_at(sight.state, item),
        review=_review(sight, item),
        reviewed_by=item.review.by.name if item.review else "",
        review_text=item.review.event.text
        if item.review and isinstance(item.review.event, e.OverrideReviewed)
        else "",
    )


def answers(sight: Sight) -> tuple[DialogAnswer, ...]:
    """The answers of the start dialog, each as the run has it now."""
    facts = sight.state.facts
    return tuple(
        DialogAnswer(item.name, item.title, fact_text(facts.get(item.name)))
        for item in sight.procedure.parameters
    )


def _review(sight: Sight, item: Deviation) -> May:
    if not item.is_emergency or not item.signed or item.review is not None:
        return _NEVER
    return sight.may(core.ReviewOverride(number=item.number, text=ENOUGH))


def whole_review(sight: Sight) -> Review:
    """The review of the run itself, where it is an emergency change."""
    found = sight.state.review
    if found is not None and isinstance(found.event, e.OverrideReviewed):
        return Review(_NEVER, found.by.name, found.event.text)
    if not sight.state.is_emergency:
        return Review(_NEVER)
    return Review(sight.may(core.ReviewOverride(number=e.WHOLE_RUN, text=ENOUGH)))


def _what(sight: Sight, item: Deviation) -> str:
    step = sight.named(item.step)
    match item.what:
        case "skip":
            return f"Skip {step}"
        case "doubt":
            return f"Set the doubt of record {item.doubt} aside in {step}"
        case "correct":
            return f"Correct the fact {item.fact} to “{item.value}” at {step}"
    gate = sight.procedure.step(item.step).gate(item.gate)
    if item.is_emergency:
        return f"Emergency: begin {step} without its approval"
    return f"Override “{sight.plain(gate.title) if gate else item.gate}” in {step}"


def hold(sight: Sight) -> Hold | None:
    """Why the run stands still, if it is on hold."""
    if sight.state.status is not RunStatus.HELD:
        return None
    held = [item for item in sight.history if isinstance(item.event, e.RunHeld)]
    return Hold(
        reason=sight.state.hold_reason,
        since=sight.state.held_at,
        by=held[-1].by.name if held else "",
        resume=sight.may(core.Resume(reason=ENOUGH)),
    )


def notes(sight: Sight) -> tuple[Note, ...]:
    """Newest first."""
    found = [
        Note(item.event.text, item.by.name, item.at, sight.label(item.event.step))
        for item in sight.history
        if isinstance(item.event, e.NoteAdded)
    ]
    return tuple(reversed(found))


# For the report.


def signatures(sight: Sight) -> tuple[Signature, ...]:
    """Every signature and rejection of the run, with whether it still counted in the end."""
    rows: list[Signature] = []
    for step_id, visit, gate_id in sight.state.gates:
        step = sight.procedure.step(step_id)
        gate = step.gate(gate_id)
        if isinstance(gate, ApprovalGate):
            rows += gate_signatures(sight, step, gate, visit)
    return tuple(sorted(rows, key=lambda row: row.at))


def files(sight: Sight) -> tuple[File, ...]:
    """Everything that was attached, in order."""
    return files_of(
        sight, tuple(item for item in sight.history if isinstance(item.event, e.EvidenceAttached))
    )
