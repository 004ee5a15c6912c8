"""What people are told of, and what of it follows from the newest events of a run.

A notice says what happened, where, and who may act. It holds titles of procedures and names of the environment, never
a log line, an answer of an agent, or what somebody typed as a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from upgrades.domain import run_events as e
from upgrades.domain.gates import applies, policy_of, signers, valid_signatures, verdict
from upgrades.domain.policy import DEVIATION, GROUP, SIGNING_ROLES, missing, useful_rights
from upgrades.domain.procedure import (
    ApprovalGate,
    ClientsGate,
    EventGate,
    Gate,
    ProbeGate,
    Procedure,
    Step,
)
from upgrades.domain.run import SECONDS
from upgrades.domain.run_events import Recorded
from upgrades.domain.run_state import Deviation, RunState, StepStatus
from upgrades.domain.verdict import Value, Verdict
from upgrades.domain.wording import fill


class Kind(StrEnum):
    APPROVAL = "approval-wanted"
    GATE_OPEN = "gate-open"
    DOUBT = "gate-doubt"
    EXPOSURE = "exposure-long"
    COUNTDOWN = "countdown"
    DUTY = "duty-overdue"
    REVIEW = "review-overdue"


TEST = "test"  # what an administrator sends to see whether an endpoint listens; nobody chooses it
TITLES = {
    Kind.APPROVAL: "A signature is wanted",
    Kind.GATE_OPEN: "A gate has opened",
    Kind.DOUBT: "A gate is in doubt or has failed",
    Kind.EXPOSURE: "An exposure lasts longer than expected",
    Kind.COUNTDOWN: "A countdown is at 80 %, or has run out",
    Kind.DUTY: "A duty is overdue",
    Kind.REVIEW: "The review of an emergency is overdue",
}
# Who is told without having chosen anything. A wanted signature: only those of the role who may give it.
DEFAULTS: dict[Kind, frozenset[str]] = {
    Kind.APPROVAL: frozenset({"approver"}),
    Kind.GATE_OPEN: frozenset(),
    Kind.DOUBT: frozenset({"operator"}),
    Kind.EXPOSURE: frozenset({"operator"}),
    Kind.COUNTDOWN: frozenset({"operator"}),
    Kind.DUTY: frozenset({"operator"}),
    Kind.REVIEW: frozenset({"auditor"}),
}
OPERATORS = "the operators"


def told_by_role(kind: Kind, roles: Iterable[str]) -> bool:
    """Whether somebody with these roles and groups is told without having chosen it."""
    if kind is Kind.APPROVAL:  # then only where this person may sign
        return any(role in SIGNING_ROLES or role.startswith(GROUP) for role in roles)
    return bool(set(roles) & DEFAULTS[kind])


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """`identity` names the event within its run. `rights`, `barred` and `by_deputies` say who can give a wanted signature."""

    kind: Kind
    identity: str
    title: str
    text: str
    whom: str = OPERATORS
    step: str = ""
    gate: str = ""
    rights: frozenset[str] = frozenset()
    barred: frozenset[str] = frozenset()
    by_deputies: bool = True


def notices_of(
    procedure: Procedure, before: RunState | None, after: RunState, recorded: Sequence[Recorded]
) -> list[Notice]:
    """What is to be told of the events that led from `before` to `after`."""
    found: dict[str, Notice] = {}
    for item in recorded:
        for notice in _of_event(procedure, after, item):
            found[_about(notice)] = notice
    if any(isinstance(item.event, _TURNING) for item in recorded):
        for notice in _turned(procedure, before, after):
            found.setdefault(_about(notice), notice)
    return list(found.values())


def _about(notice: Notice) -> str:
    """The identity without the number of the event: several signatures that lapse at once are one request."""
    return notice.identity.rpartition(":")[0]


def _of_event(procedure: Procedure, state: RunState, item: Recorded) -> Iterator[Notice]:
    match item.event:
        case e.StepEntered(step=step, visit=visit):
            if _waits_at(procedure, state, step, visit):
                for gate in procedure.step(step).needs:
                    yield from _approval(procedure, state, procedure.step(step), gate, item.seq)
        case (
            e.ApprovalAsked(step=step, visit=visit, gate=gate_id)
            | e.ApprovalLapsed(step=step, visit=visit, gate=gate_id)
            | e.ApprovalExpired(step=step, visit=visit, gate=gate_id)
        ):
            if _waits_at(procedure, state, step, visit):
                wanted = procedure.step(step).gate(gate_id)
                yield from _approval(procedure, state, procedure.step(step), wanted, item.seq)
        case e.DeviationAsked(number=number):
            deviation = state.deviations[number]
            if deviation.is_open and not state.is_over:
                yield _deviation(procedure, state, deviation, item.seq)
        case e.ExposureMarked(exposure=exposure, percent=percent, limit=limit):
            yield _countdown(procedure, exposure, percent, limit, item.seq)
        case e.VerdictContradicted(step=step, gate=gate_id):
            if procedure.has_step(step):
                yield _doubt(procedure, state, procedure.step(step), gate_id, item.seq, contradicted=True)
        case _:
            pass


def _waits_at(procedure: Procedure, state: RunState, step: str, visit: int) -> bool:
    at = state.steps.get(step)
    return (
        not state.is_over
        and state.current == step
        and procedure.has_step(step)
        and at is not None
        and (at.visit, at.status) == (visit, StepStatus.CURRENT)
    )


def _title(step: Step, state: RunState) -> str:
    return fill(step.title, state.facts)


def _approval(
    procedure: Procedure, state: RunState, step: Step, gate: Gate | None, seq: int
) -> Iterator[Notice]:
    """The request for a signature, unless there is none now: signed, rejected, or run out."""
    if not isinstance(gate, ApprovalGate) or not applies(gate, state):
        return
    recorded = state.gate(step.id, gate.id)
    if recorded.rejection or recorded.expired or verdict(procedure, state, step, gate).is_met:
        return
    policy = policy_of(state, gate.policy)
    there = signers(valid_signatures(procedure, state, step, gate))
    whom = " and ".join(need.whom for need in missing(policy, there)) or policy.whom
    yield Notice(
        kind=Kind.APPROVAL,
        identity=f"approval:{step.id}:{gate.id}:{seq}",
        title=f"Signature wanted: {_title(step, state)}",
        text="Nothing of this step is done before it is signed. The request shows what will be done and which way back is open.",
        whom=whom,
        step=step.id,
        gate=gate.id,
        rights=frozenset(useful_rights(policy, there)),
        barred=_barred(state) | {signer.id for signer in there},
    )


def _barred(state: RunState) -> frozenset[str]:
    holder = state.steps[state.current].holder if state.current else None
    holding = {holder.id} if holder is not None else set()
    return frozenset({state.starter.id, *state.executors, *state.authors, *holding})


ASKED_FOR = {
    "skip": "to skip a step",
    "override": "to override a gate",
    "doubt": "to set a doubt aside",
    "correct": "to correct a value",
    "emergency": "to go on in an emergency without the signatures that are asked for",
}


def _deviation(procedure: Procedure, state: RunState, deviation: Deviation, seq: int) -> Notice:
    policy = policy_of(state, DEVIATION)
    there = signers(deviation.signatures)
    rights = frozenset(SECONDS) if deviation.is_emergency else frozenset(useful_rights(policy, there))
    whom = "somebody of the team who has not worked on this run" if deviation.is_emergency else policy.whom
    step = (
        _title(procedure.step(deviation.step), state)
        if procedure.has_step(deviation.step)
        else deviation.step
    )
    return Notice(
        kind=Kind.APPROVAL,
        identity=f"deviation:{deviation.number}:{seq}",
        title=f"Deviation {deviation.number} waits for a signature: {ASKED_FOR.get(deviation.what, '')}",
        text=f"It was asked at the step “{step}”. Its reason stands on the page of the run.",
        whom=whom,
        step=deviation.step,
        rights=rights,
        barred=_barred(state) | {signer.id for signer in there},
        by_deputies=not deviation.is_emergency,
    )


def _countdown(procedure: Procedure, exposure: str, percent: int, limit: int, seq: int) -> Notice:
    title = next((kind.title for kind in procedure.exposures if kind.id == exposure), exposure)
    length = _spoken(limit)
    if percent >= 100:
        what, text = "has run out", f"It may last {length} at most, and is not closed."
    else:
        what, text = f"is at {percent} %", f"It may last {length} at most. Finish, or ask for help now."
    return Notice(
        kind=Kind.COUNTDOWN,
        identity=f"countdown:{exposure}:{percent}:{seq}",
        title=f"Countdown {what}: {title}",
        text=text,
    )


def _spoken(seconds: int) -> str:
    """“1 h 30 min”, “45 s”."""
    whole = str(timedelta(seconds=seconds)).partition(".")[0]
    hours, minutes, rest = (int(part) for part in whole.rpartition(" ")[2].split(":"))
    hours += 24 * (seconds // 86400)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"


# Gates that open or are doubted without anybody's doing.

# Only these can turn a verdict that nobody is looking at.
_TURNING = (
    e.LogEventSeen,
    e.LogDoubtful,
    e.ServerEnded,
    e.AgentLost,
    e.ClientTotalSeen,
    e.ProbeAnswered,
    e.OutcomeReached,
    e.ApprovalSigned,
    e.ApprovalRejected,
    e.ApprovalExpired,
    e.StepBegun,
    e.StepEntered,
)
_WATCHED = (EventGate, ClientsGate, ProbeGate, ApprovalGate)


def _turned(procedure: Procedure, before: RunState | None, after: RunState) -> Iterator[Notice]:
    """The gates of the step that was current, and of the one that is, whose verdict is another one now."""
    current = [before.current if before is not None else None, after.current]
    for step_id in dict.fromkeys(name for name in current if name is not None):
        if not procedure.has_step(step_id) or step_id not in after.steps:
            continue
        step = procedure.step(step_id)
        for gate in _looked_at(step, before, after):
            if not applies(gate, after):
                continue
            now = verdict(procedure, after, step, gate)
            then = _known(procedure, before, after, step, gate)
            if now.is_met and then is not None and not then.is_met:
                if not after.gate(step.id, gate.id).overridden_by:
                    yield _opened(after, step, gate)
            elif _is_trouble(gate, now) and not (then is not None and _is_trouble(gate, then)):
                yield _doubt(procedure, after, step, gate.id, after.seq)


def _looked_at(step: Step, before: RunState | None, after: RunState) -> Iterable[Gate]:
    """Before a step begins its needs are what counts, and then its gates; both where it has just begun."""
    states = [state for state in (before, after) if state is not None and step.id in state.steps]
    begun = [state.steps[step.id].status is not StepStatus.CURRENT for state in states]
    needs = () if all(begun) else step.needs
    gates = step.gates if any(begun) else ()
    return [gate for gate in (*needs, *gates) if isinstance(gate, _WATCHED)]


def _known(
    procedure: Procedure, before: RunState | None, after: RunState, step: Step, gate: Gate
) -> Verdict | None:
    if before is None or before.text != after.text or step.id not in before.steps:
        return None
    if before.visit(step.id) != after.visit(step.id):
        return None
    return verdict(procedure, before, step, gate)


def _is_trouble(gate: Gate, found: Verdict) -> bool:
    """A probe that is not met yet is what a step begins with; a server that went away, or a rejection, is trouble."""
    if found.value is Value.FAILED:
        return isinstance(gate, EventGate | ApprovalGate)
    return found.value is Value.CANNOT_TELL and not found.pending


def _gate_title(step: Step, gate_id: str, state: RunState) -> str:
    gate = step.gate(gate_id)
    return fill(gate.title, state.facts) if gate is not None else gate_id


def _opened(state: RunState, step: Step, gate: Gate) -> Notice:
    return Notice(
        kind=Kind.GATE_OPEN,
        identity=f"open:{step.id}:{gate.id}:{state.seq}",
        title=f"Gate open: {_gate_title(step, gate.id, state)}",
        text=f"Of the step “{_title(step, state)}”. What it rests on stands on the page of the run.",
        step=step.id,
        gate=gate.id,
    )


def _doubt(
    procedure: Procedure, state: RunState, step: Step, gate_id: str, seq: int, *, contradicted: bool = False
) -> Notice:
    gate = step.gate(gate_id)
    failed = gate is not None and verdict(procedure, state, step, gate).value is Value.FAILED
    if contradicted:
        what = "What opened this gate is contradicted by what came after it, and the run is on hold."
    elif failed:
        what = "It is not met."
    else:
        what = "It cannot be told whether it is met, and it stays shut."
    return Notice(
        kind=Kind.DOUBT,
        identity=f"doubt:{step.id}:{gate_id}:{seq}",
        title=f"Gate {'failed' if failed and not contradicted else 'in doubt'}: {_gate_title(step, gate_id, state)}",
        text=f"{what} Step: “{_title(step, state)}”. Why, and what to do, stands on the page of the run.",
        step=step.id,
        gate=gate_id,
    )
