"""The steps of a run: the list, the current one in full, and an account of those behind."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import groupby

from upgrades.domain import run as core
from upgrades.domain import run_events as e
from upgrades.domain.condition import holds
from upgrades.domain.gates import applies, policy_of, signers, valid_signatures, verdict
from upgrades.domain.policy import missing, only_holder_acts
from upgrades.domain.procedure import (
    ApprovalGate,
    Completes,
    EventGate,
    EvidenceGate,
    Gate,
    Step,
)
from upgrades.domain.run_state import RunStatus, StepState, StepStatus
from upgrades.queries.run_page.gate_rows import asked, files_of, gate_row
from upgrades.queries.run_page.shapes import (
    Account,
    AgentLine,
    CurrentStep,
    File,
    GateRow,
    NoticeRow,
    Phase,
    Shown,
    StepRow,
)
from upgrades.queries.run_page.sight import ENOUGH, Sight, clock, spoken

# The list.


def phases(sight: Sight) -> tuple[Phase, ...]:
    """All steps that this run has or may have, by phase; an aside only once a branch has led to it."""
    listed = [step for step in sight.procedure.steps if not step.aside or step.id in sight.state.steps]
    return tuple(
        Phase(sight.say(title), tuple(_row(sight, step) for step in steps))
        for title, steps in groupby(listed, key=lambda step: step.phase)
    )


def _row(sight: Sight, step: Step) -> StepRow:
    at = sight.state.steps.get(step.id)
    state = _standing(sight, step, at)
    now = state in ("now", "held")
    since = (at.begun_at or at.entered_at) if now and at is not None else None
    return StepRow(
        id=step.id,
        number=sight.numbers[step.id],
        title=sight.title(step.id),
        state=state,
        note=_note(sight, step, at, state),
        url=f"#step-{step.id}"
        if now
        else f"?record=all#account-{step.id}-{at.visit}"
        if at is not None
        else "",
        took=_took(step, at, state),
        since=since,
    )


def _standing(sight: Sight, step: Step, at: StepState | None) -> str:
    if at is None:
        unwanted = step.when is not None and holds(step.when, sight.state.facts) is False
        return "skipped" if unwanted else "todo"
    match at.status:
        case StepStatus.DONE:
            return "done"
        case StepStatus.SKIPPED:
            return "skipped"
        case StepStatus.LEFT:
            return "failed"
        case StepStatus.CURRENT | StepStatus.BEGUN:
            if sight.state.is_over:
                return "failed"
            return "held" if sight.state.status is RunStatus.HELD else "now"


def _took(step: Step, at: StepState | None, state: str) -> str:
    if at is not None and at.ended_at is not None:
        return clock(at.ended_at - (at.begun_at or at.entered_at)) if state == "done" else ""
    return f"~{spoken(step.expected)}" if state == "todo" and step.expected else ""


def _note(sight: Sight, step: Step, at: StepState | None, state: str) -> str:
    """The gate of the step in one line."""
    match state:
        case "skipped":
            return (at.reason if at else "") or sight.say(step.otherwise) or "not in this run"
        case "failed" if at is not None and at.reason:
            return _outcome_title(sight, step, at.reason)
        case "done":
            return _proof_note(sight, step)
        case "now" | "held":
            return _waits_for(sight, step)
    return _gate_ahead(sight, step)


def _outcome_title(sight: Sight, step: Step, outcome_id: str) -> str:
    for gate in step.event_gates:
        for outcome in gate.rule.outcomes:
            if outcome.id == outcome_id:
                return sight.plain(outcome.title)
    return outcome_id


def _proof_note(sight: Sight, step: Step) -> str:
    for gate in (*step.gates, *step.needs):
        recorded = sight.state.gate(step.id, gate.id)
        if recorded.overridden_by:
            return f"overridden: deviation {recorded.overridden_by}"
        if isinstance(gate, EvidenceGate) and recorded.evidence:
            event = recorded.evidence[-1].event
            if isinstance(event, e.EvidenceAttached) and event.sha256:
                return f"evidence: {event.name}, SHA-256 {event.sha256[:8]}…"
        if isinstance(gate, EventGate) and recorded.outcome is not None:
            event = recorded.outcome.event
            if isinstance(event, e.OutcomeReached):
                return _outcome_title(sight, step, event.outcome)
    return ""


def _waits_for(sight: Sight, step: Step) -> str:
    begun = sight.state.steps[step.id].status is StepStatus.BEGUN
    for gate in step.gates if begun else step.needs:
        if applies(gate, sight.state) and not verdict(sight.procedure, sight.state, step, gate).is_met:
            return _short(sight, step, gate)
    return "ready to complete" if begun and step.gates else ""


def _short(sight: Sight, step: Step, gate: Gate) -> str:
    match gate:
        case ApprovalGate():
            policy = policy_of(sight.state, gate.policy)
            valid = valid_signatures(sight.procedure, sight.state, step, gate)
            lacking = sum(need.signatures for need in missing(policy, signers(valid)))
            return f"approval: {policy.needed - lacking} of {policy.needed} signed"
        case EventGate():
            reason = verdict(sight.procedure, sight.state, step, gate).reason.split(".")[0]
            return reason[0].lower() + reason[1:] if reason.startswith("Waiting") else sight.plain(gate.title)
    return sight.plain(gate.title)


def _gate_ahead(sight: Sight, step: Step) -> str:
    gates = [gate for gate in step.all_gates if applies(gate, sight.state)]
    for wanted in (ApprovalGate, EventGate):
        for gate in gates:
            if isinstance(gate, wanted):
                if isinstance(gate, ApprovalGate) and not policy_of(sight.state, gate.policy).needs:
                    continue
                return (
                    _short(sight, step, gate)
                    if wanted is ApprovalGate
                    else f"gate: {sight.plain(gate.title)}"
                )
    return f"gate: {sight.plain(gates[0].title)}" if gates else ""


# The current step.


def current_step(sight: Sight, agents: tuple[AgentLine, ...]) -> CurrentStep | None:
    """The step that the run stands at; None when all are behind, or the run is over."""
    state = sight.state
    if state.current is None or state.is_over:
        return None
    step = sight.procedure.step(state.current)
    at = state.steps[step.id]
    begun = at.status is StepStatus.BEGUN
    needs = tuple(gate_row(sight, step, gate) for gate in step.needs if applies(gate, state))
    gates = tuple(gate_row(sight, step, gate) for gate in step.gates if applies(gate, state))
    watermarks: dict[str, dict[str, int]] = {name: {} for name in core.watched_at(state, step)}
    begin = sight.may(core.Begin(step=step.id, visit=at.visit, watermarks=watermarks))
    complete = sight.may(core.Complete(step=step.id, visit=at.visit))
    skip = core.AskDeviation(step=step.id, visit=at.visit, what="skip", reason=ENOUGH)
    chip, tone = _chip(sight, begun=begun, rows=gates if begun else needs)
    return CurrentStep(
        id=step.id,
        visit=at.visit,
        number=sight.numbers[step.id],
        title=sight.title(step.id),
        sources=sight.sources(step.source, step),
        chip=chip,
        tone=tone,
        begun=begun,
        begun_at=at.begun_at,
        expected=spoken(step.expected) if step.expected else "",
        do=tuple(sight.sentence(line) for line in step.do),
        notices=_notices(sight, step),
        needs=needs,
        gates=gates,
        agents=agents,
        files=_loose_files(sight, step, at.visit),
        begin=begin,
        begins_by_itself=not step.begun_by_person,
        complete=complete,
        completes_by_itself=step.completes is Completes.BY_ITSELF,
        restart=sight.may(core.Restart(step=step.id, visit=at.visit, reason=ENOUGH)),
        attach=sight.may(core.Attach(step=step.id, visit=at.visit, text=ENOUGH)),
        skip=sight.may(skip),
        skip_asked=asked(sight, step, "skip"),
        destroys=step.destroys,
        holder=at.holder.name if at.holder else "",
        holder_is_me=at.holder is not None and at.holder.id == sight.me.id,
        only_holder=only_holder_acts(state.started.policies) and not state.started.rehearsal,
        take=sight.may(core.TakeStep(step=step.id, visit=at.visit, reason=ENOUGH)),
        hand_over=_receivers(sight, step, at),
    )


def _receivers(sight: Sight, step: Step, at: StepState) -> tuple[tuple[str, str], ...]:
    """To whom this person could hand the step over: other operators who have not signed it."""
    if at.holder is None or at.holder.id != sight.me.id:
        return ()
    return tuple(
        (person.id, person.name)
        for person in sight.members
        if sight.may(core.HandOver(step=step.id, visit=at.visit, to=person)).allowed
    )


def _notices(sight: Sight, step: Step) -> tuple[NoticeRow, ...]:
    return tuple(
        NoticeRow(sight.sentence(notice.text), notice.warn, sight.sources(notice.source, step))
        for notice in step.notices
        if notice.when is None or holds(notice.when, sight.state.facts) is not False
    )


def _chip(sight: Sight, *, begun: bool, rows: tuple[GateRow, ...]) -> tuple[str, str]:
    if sight.state.status is RunStatus.HELD:
        return "On hold", "wait"
    unmet = [row for row in rows if not row.is_met]
    if any(row.verdict == "failed" for row in unmet):
        return ("Gate failed", "stop") if begun else ("Cannot begin yet", "stop")
    if any(row.verdict == "unknown" for row in unmet):
        return "Cannot tell", "wait"
    if not unmet:
        return ("Ready to complete", "go") if begun else ("Not begun", "act")
    words = {
        "approval": "Waiting for approval",
        "events": "Waiting for events",
        "clients": "Waiting for clients",
        "evidence": "Waiting for evidence",
        "confirm": "Waiting for you",
        "probe": "Waiting for the agent",
    }
    return words.get(unmet[0].kind, "Waiting"), "wait"


def _loose_files(sight: Sight, step: Step, visit: int) -> tuple[File, ...]:
    """What was attached to the step itself, outside its gates."""
    return files_of(sight, sight.state.gate(step.id, "", visit).evidence)


# What is behind.


def accounts(sight: Sight) -> tuple[Account, ...]:
    """Every visit that has ended, in the order in which they ended."""
    return tuple(_accounts(sight))


def _accounts(sight: Sight) -> Iterator[Account]:
    begun: dict[tuple[str, int], tuple[datetime, str]] = {}
    for item in sight.history:
        match item.event:
            case e.StepBegun(step=step, visit=visit):
                begun[step, visit] = (item.at, item.by.name)
            case e.StepCompleted(step=step, visit=visit, proof=proof):
                yield _account(sight, item, step, visit, "done", begun.get((step, visit)), "", proof)
            case e.StepLeft(step=step, visit=visit, outcome=outcome):
                title = _outcome_title(sight, sight.procedure.step(step), outcome)
                yield _account(sight, item, step, visit, "left", begun.get((step, visit)), title, {})
            case e.StepSkipped(step=step, visit=visit, reason=reason, deviation=deviation):
                why = f"Deviation {deviation}: {reason}" if deviation else reason
                yield _account(sight, item, step, visit, "skipped", begun.get((step, visit)), why, {})
            case e.StepRestarted(step=step, visit=visit, reason=reason):
                yield _account(sight, item, step, visit, "begun again", begun.get((step, visit)), reason, {})


def _account(
    sight: Sight,
    item: e.Recorded,
    step_id: str,
    visit: int,
    state: str,
    begun: tuple[datetime, str] | None,
    reason: str,
    proof: dict[str, str],
) -> Account:
    step = sight.procedure.step(step_id)
    rows = []
    for gate_id, text in proof.items():
        gate = step.gate(gate_id)
        rows.append(Shown(sight.plain(gate.title) if gate else gate_id, text))
    evidence = [
        file
        for gate_id in ("", *(gate.id for gate in step.all_gates))
        for file in files_of(sight, sight.state.gate(step_id, gate_id, visit).evidence)
    ]
    return Account(
        id=step_id,
        number=sight.numbers[step_id],
        title=sight.title(step_id),
        state=state,
        visit=visit,
        begun_at=begun[0] if begun else None,
        ended_at=item.at,
        took=clock(item.at - begun[0]) if begun else "",
        begun_by=begun[1] if begun else "",
        ended_by=item.by.name,
        reason=reason,
        proof=tuple(rows),
        files=tuple(evidence),
    )
