"""What may happen next in a run: `decide` answers a person's or a worker's command, `advance` finds what follows
by itself. Both return events and change nothing (design.md section 3).

Who may act and what the state allows are two questions; both are answered here, so that page, interface and shell
get the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from upgrades.domain import run_events as e
from upgrades.domain.answers import answer_of
from upgrades.domain.condition import Fact, holds
from upgrades.domain.event_rule import APPLICATION_STARTED, Kind, Observation, RuleResult
from upgrades.domain.frozen import replace
from upgrades.domain.gates import (
    digest_to_sign,
    has_a_hand,
    is_ahead,
    is_before_silence,
    policy_of,
    rule_result,
    signers,
    valid_signatures,
    verdict,
    verdicts,
)
from upgrades.domain.policy import DEVIATION, Policy, Result, Signer, adds, missing, only_holder_acts
from upgrades.domain.procedure import (
    ApprovalGate,
    ClientsGate,
    Completes,
    ConfirmGate,
    EndRun,
    EventGate,
    EvidenceGate,
    ExposureChange,
    Follow,
    GoOn,
    GoOver,
    GoTo,
    Moment,
    Outcome,
    Owed,
    ProbeGate,
    Procedure,
    PutOnHold,
    Step,
)
from upgrades.domain.refusal import BadInput, ContentChanged, GateClosed, NotAllowed, OutOfTurn
from upgrades.domain.run_events import WORKER, Actor, Recorded, RunEvent
from upgrades.domain.run_state import (
    Burden,
    Counted,
    Deviation,
    GateState,
    RunState,
    RunStatus,
    StepState,
    StepStatus,
    barred,
    evolve,
    watch_id,
    watch_key,
)
from upgrades.domain.wording import checked, fill

REASON = 20  # characters at least, where a second person has to understand why (trust.md D08)

# Commands. `step` and `visit` say what the sender saw, so that a late click is refused instead of hitting another step.


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    step: str
    visit: int
    watermarks: dict[str, dict[str, int]] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    step: str
    visit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirm:
    step: str
    visit: int
    gate: str
    answer: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attach:
    step: str
    visit: int
    gate: str = ""
    text: str = ""
    name: str = ""
    sha256: str = ""
    size: int = 0
    evidence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    step: str
    visit: int
    gate: str
    digest: str
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    step: str
    visit: int
    gate: str
    digest: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskAgain:
    """A request that was rejected, or that ran out of time, is made anew."""

    step: str
    visit: int
    gate: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeStep:
    step: str
    visit: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """`to` is the other operator, as the environment knows this person now."""

    step: str
    visit: int
    to: Actor
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    step: str
    visit: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddNote:
    text: str
    step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskDeviation:
    """`what`: skip the step, override a gate, or set a doubt aside."""

    step: str
    visit: int
    what: str
    reason: str
    gate: str = ""
    doubt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AskOverride:
    """Emergency: go on without the signatures of an approval, because nobody is there to give them."""

    step: str
    visit: int
    gate: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewOverride:
    """An auditor closes the review of an emergency override, or of an emergency change (`WHOLE_RUN`); also when the
    run is over."""

    number: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectFact:
    """An answer of the start dialog was wrong, or no longer holds: it becomes `value` once a second person signs."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignDeviation:
    number: int
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectDeviation:
    number: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOver:
    burden: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseBurden:
    """An owner reports that what he took over is done."""

    burden: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RollBack:
    """Run `by_run` was started to take back what this one did: it ends here, and what it had open goes on there."""

    by_run: int
    procedure: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a worker saw: observations, probe answers, agents lost and back, facts that changed."""

    events: tuple[RunEvent, ...]


Command = (
    Begin
    | Complete
    | Confirm
    | Attach
    | Sign
    | Reject
    | AskAgain
    | TakeStep
    | HandOver
    | Restart
    | Hold
    | Resume
    | AddNote
    | AskDeviation
    | AskOverride
    | ReviewOverride
    | CorrectFact
    | SignDeviation
    | RejectDeviation
    | TakeOver
    | CloseBurden
    | Abort
    | RollBack
    | Report
)


# What a person decides for others to rely on: shown to this person, and said by nobody else (trust.md 10.3).
SIGNATURES = (Sign, Reject, SignDeviation, RejectDeviation, AskOverride, ReviewOverride)
BY_TOKEN = (
    "A token can never sign: a signature says that a person looked, and a program did not. Nothing was signed or "
    "rejected. The person signs in and decides on the page."
)


def start(procedure: Procedure, started: e.RunStarted) -> list[RunEvent]:
    """The first events of a run: it started, and its first step is the current one."""
    first = procedure.steps[0]
    return [started, e.StepEntered(step=first.id, visit=1)]


def decide(procedure: Procedure, state: RunState, command: Command, by: Actor) -> list[RunEvent]:
    """The events that `command` causes, or a `Refused` that says why not. An empty list: nothing more happens."""
    if by.kind != "person" and not isinstance(command, Begin | Complete | Report):
        raise NotAllowed(
            f"{by.name} may not do this: only a person can. A worker reports, begins what is due and completes it."
        )
    if by.token and isinstance(command, SIGNATURES):
        raise NotAllowed(BY_TOKEN)
    match command:
        case Report(events=events):
            return _report(procedure, state, events)
        case TakeOver() | CloseBurden():
            return _burdens(state, command, by)
        case ReviewOverride():
            return _review(state, command, by)
    if state.is_over:
        raise OutOfTurn(
            f"This run is over ({state.ending}). Nothing can be added to it; its record stays as it is."
        )
    handler = _HANDLERS[type(command)]
    if not isinstance(command, Sign | SignDeviation):
        return handler(procedure, state, command, by)
    try:
        return handler(procedure, state, command, by.signing(state.started_at))
    except NotAllowed as refusal:
        if why := by.why_late(state.started_at):
            raise NotAllowed(f"{refusal.message} {why}") from refusal
        raise


# Rights.


def _need(by: Actor, role: str, act: str) -> None:
    if by.kind == "person" and role not in by.roles:
        raise NotAllowed(
            f"{by.name} may not {act}: that takes the role {role} in this environment. "
            "An administrator of the environment can give it."
        )


def _need_second(state: RunState, by: Actor, policy: Policy, act: str) -> list[Signer]:
    """The rights under which this person may decide: the own ones, then those of people whose deputy he is.

    A deputy is bound twice: neither he nor whom he stands in for may have a hand in the run.
    """
    able = [one for one in _rights(state, by) if one.rights & set(policy.rights)]
    if not able:
        raise NotAllowed(
            f"{by.name} may not {act}: that takes {_or(policy)} in this environment. "
            "An administrator of the environment can give it."
        )
    why = barred(state, by.id)
    if why:
        raise NotAllowed(f"{by.name} may not {act}: {why}. Ask another person of {_or(policy)}.")
    return able


def _or(policy: Policy) -> str:
    return " or ".join(need.whom for need in policy.needs)


def _rights(state: RunState, by: Actor) -> list[Signer]:
    absent = [person for person in by.stands_for if not barred(state, person.id)]
    return [
        Signer(by.id, frozenset(by.roles), by.id),
        *(Signer(by.id, frozenset(person.roles), person.id) for person in absent),
    ]


def _signs_for(by: Actor, signer: Signer) -> dict[str, Any]:
    """What a signature says of the person that a deputy stands in for."""
    person = next((one for one in by.stands_for if one.id == signer.right_of), None)
    if signer.right_of == by.id or person is None:
        return {}
    return {"for_id": person.id, "for_name": person.name, "for_roles": sorted(person.roles)}


def _useful(policy: Policy, signed: Iterable[Recorded], able: list[Signer], what: str) -> Signer:
    """Under which of the rights of `able` this signature brings the policy nearer to being filled."""
    there = signers(signed)
    lacking = missing(policy, there)
    if not lacking:
        raise OutOfTurn(f"{what} has all the signatures that it needs. Nothing was signed.")
    for one in able:
        if adds(policy, there, one):
            return one
    whom = " and ".join(f"{need.signatures} of {need.whom}" for need in lacking)
    raise OutOfTurn(f"{what} still needs {whom}; your signature cannot be one of these. Nothing was signed.")


def _holds(state: RunState, step: Step, at: StepState, by: Actor) -> None:
    """Where the policy says so, nobody but its holder acts on a step of a live run."""
    holder = at.holder
    if state.started.rehearsal or by.kind != "person" or holder is None or holder.id == by.id:
        return
    if only_holder_acts(state.started.policies):
        raise OutOfTurn(
            f"{holder.name} holds “{fill(step.title, state.facts)}”. Take the step over, with a reason, "
            "or ask for it to be handed over."
        )


def _not_signer(state: RunState, step: Step, by: Actor) -> None:
    """Approving and carrying out are two people's acts: whoever signed this step has no hand in it (section 7)."""
    for gate in step.needs:
        if isinstance(gate, ApprovalGate):
            recorded = state.gate(step.id, gate.id)
            standing = [signed for signed in recorded.signatures if signed.by.id not in recorded.lapsed]
            if any(by.id in (signer.id, signer.right_of) for signer in signers(standing)):
                raise NotAllowed(
                    f"{by.name}, or a deputy, signed “{fill(step.title, state.facts)}”, so another person carries it out."
                )


# The step that is meant.


def _current(procedure: Procedure, state: RunState, step: str, visit: int) -> tuple[Step, StepState]:
    if state.current is None:
        raise OutOfTurn(
            "All steps of this run are behind; what is left are the exposures and duties still open."
        )
    if state.current != step or state.steps[step].visit != visit:
        now = procedure.step(state.current)
        raise OutOfTurn(
            f"“{_title(procedure, step)}” is not the current step any more: the run stands at "
            f"“{fill(now.title, state.facts)}”. Nothing was changed; look at the page again."
        )
    return procedure.step(step), state.steps[step]


def _title(procedure: Procedure, step: str) -> str:
    return procedure.step(step).title if procedure.has_step(step) else step


def _not_held(state: RunState) -> None:
    if state.status is RunStatus.HELD:
        raise OutOfTurn(f"The run is on hold: {state.hold_reason} Resume it first.")


def _closed(state: RunState, verdict_list: Iterable[tuple[Any, Any]]) -> str:
    return " ".join(
        f"“{fill(gate.title, state.facts)}”: {found.reason}"
        for gate, found in verdict_list
        if not found.is_met
    )


# Persons' commands.


def _begin(procedure: Procedure, state: RunState, command: Begin, by: Actor) -> list[RunEvent]:
    _need(by, "operator", "begin a step")
    step, at = _current(procedure, state, command.step, command.visit)
    _not_signer(state, step, by)
    _holds(state, step, at, by)
    _not_held(state)
    if at.status is StepStatus.BEGUN:
        return []
    closed = _closed(state, verdicts(procedure, state, step, step.needs))
    if closed:
        raise GateClosed(f"“{fill(step.title, state.facts)}” cannot begin. {closed}")
    missing = [name for name in watched_at(state, step) if name not in command.watermarks]
    if missing:
        raise GateClosed(
            f"“{fill(step.title, state.facts)}” cannot begin: the position in the log of {', '.join(missing)} "
            "is not marked, so nothing that is logged from now on could be told from what was there before. "
            "Check that the agent on its host answers."
        )
    begun = e.StepBegun(step=step.id, visit=at.visit, watermarks=command.watermarks, totals=command.totals)
    return [begun, *_burdens_at(procedure, state, step, Moment.BEGIN)]


def watched_at(state: RunState, step: Step) -> list[str]:
    """The applications whose log position must be marked when `step` begins."""
    return [state.application(gate.rule.server) for gate in step.event_gates]


def baselines_at(procedure: Procedure, state: RunState, step: Step) -> list[str]:
    """The applications whose last client total is taken when `step` begins, and whose log position is marked if their
    agents answer: both servers of each clients gate that counts from there (CSH-8a)."""
    gates = [gate for other in procedure.steps for gate in other.all_gates if isinstance(gate, ClientsGate)]
    counted = [gate for gate in gates if gate.baseline == step.id]
    names = [state.application(role) for gate in counted for role in (gate.leaving, gate.joining)]
    return list(dict.fromkeys(names))


def _complete(procedure: Procedure, state: RunState, command: Complete, by: Actor) -> list[RunEvent]:
    _need(by, "operator", "complete a step")
    done = state.steps.get(command.step)
    if done is not None and done.visit == command.visit and done.status is StepStatus.DONE:
        return []
    step, at = _current(procedure, state, command.step, command.visit)
    _not_signer(state, step, by)
    _holds(state, step, at, by)
    _not_held(state)
    if at.status is not StepStatus.BEGUN:
        raise OutOfTurn(f"“{fill(step.title, state.facts)}” has not begun yet. Begin it first.")
    found = verdicts(procedure, state, step, step.gates)
    closed = _closed(state, found)
    if closed:
        raise GateClosed(f"“{fill(step.title, state.facts)}” cannot be completed. {closed}")
    return _completion(procedure, state, step, {gate.id: verdict.reason for gate, verdict in found})


def _confirm(procedure: Procedure, state: RunState, command: Confirm, by: Actor) -> list[RunEvent]:
    _need(by, "operator", "confirm a gate")
    step, at = _current(procedure, state, command.step, command.visit)
    _not_signer(state, step, by)
    _holds(state, step, at, by)
    gate = step.gate(command.gate)
    if not isinstance(gate, ConfirmGate | ClientsGate):
        raise BadInput(f"“{command.gate}” of this step is not something that a person confirms.", "gate")
    if gate in step.gates and at.status is not StepStatus.BEGUN:
        raise OutOfTurn(f"“{fill(step.title, state.facts)}” has not begun yet. Begin it first.")
    if command.answer not in ("pass", "fail", "not-tested"):
        raise BadInput("Choose one of pass, fail and not tested.", "answer")
    least = 3 if command.answer != "pass" or isinstance(gate, ClientsGate) else 0
    text = checked(command.text, what="The text", least=least)
    return [e.GateConfirmed(step=step.id, visit=at.visit, gate=gate.id, answer=command.answer, text=text)]


def _attach(procedure: Procedure, state: RunState, command: Attach, by: Actor) -> list[RunEvent]:
    _need(by, "operator", "attach evidence")
    step, at = _current(procedure, state, command.step, command.visit)
    _not_signer(state, step, by)
    _holds(state, step, at, by)
    text = checked(command.text, what="The text")
    form = "file" if command.sha256 else "text"
    if command.gate:
        gate = step.gate(command.gate)
        if not isinstance(gate, EvidenceGate):
            raise BadInput(f"“{command.gate}” of this step takes no evidence.", "gate")
        if form not in gate.accepts:
            wanted = " or ".join(sorted(gate.accepts))
            raise BadInput(f"“{gate.title}” takes a {wanted}. {gate.ask}", "text")
    if form == "text" and len(text) < 3:
        raise BadInput("Attach a file, or write down what proves it (at least 3 characters).", "text")
    return [
        e.EvidenceAttached(
            step=step.id,
            visit=at.visit,
            gate=command.gate,
            name=command.name,
            sha256=command.sha256,
            size=command.size,
            evidence=command.evidence,
            text=text,
        )
    ]


def _approval_gate(
    procedure: Procedure, state: RunState, command: Sign | Reject | AskAgain | AskOverride
) -> tuple[Step, ApprovalGate]:
    """The approval that is meant: of the current step before it begins, or ahead of its turn where that may be."""
    step = procedure.step(command.step) if procedure.has_step(command.step) else None
    if step is not None and is_ahead(state, step):
        gate = step.gate(command.gate)
        if isinstance(gate, ApprovalGate) and policy_of(state, gate.policy).ahead and command.visit == 1:
            return step, gate
    step, at = _current(procedure, state, command.step, command.visit)
    gate = step.gate(command.gate)
    if not isinstance(gate, ApprovalGate):
        raise BadInput(f"“{command.gate}” of this step is no approval.", "gate")
    if at.status is not StepStatus.CURRENT:
        raise OutOfTurn(f"“{fill(step.title, state.facts)}” has begun already; its approval is settled.")
    return step, gate


def _undecided(state: RunState, step: Step, gate: ApprovalGate) -> None:
    recorded = state.gate(step.id, gate.id)
    again = "An operator can ask again, with a reason; then it can be signed."
    if recorded.rejection is not None:
        raise OutOfTurn(f"{recorded.rejection.by.name} rejected this request. {again}")
    if recorded.expired is not None:
        raise OutOfTurn(f"This request was not decided in time. {again}")


def _sign(procedure: Procedure, state: RunState, command: Sign, by: Actor) -> list[RunEvent]:
    step, gate = _approval_gate(procedure, state, command)
    policy = policy_of(state, gate.policy)
    able = _need_second(state, by, policy, "approve this step")
    signed = valid_signatures(procedure, state, step, gate)
    if any(signature.by.id == by.id for signature in signed):
        return []
    _undecided(state, step, gate)
    _not_held(state)
    if command.digest != digest_to_sign(procedure, state, step, gate):
        raise ContentChanged(
            "What you were about to sign has changed since you opened it. Nothing was signed; read it again."
        )
    signer = _useful(policy, signed, able, f"“{fill(step.title, state.facts)}”")
    return [
        e.ApprovalSigned(
            step=step.id,
            visit=state.visit(step.id),
            gate=gate.id,
            digest=command.digest,
            comment=checked(command.comment, what="The comment"),
            ahead=is_ahead(state, step),
            **_signs_for(by, signer),
        )
    ]


def _reject(procedure: Procedure, state: RunState, command: Reject, by: Actor) -> list[RunEvent]:
    step, gate = _approval_gate(procedure, state, command)
    _need_second(state, by, policy_of(state, gate.policy), "reject this step")
    _undecided(state, step, gate)
    reason = checked(command.reason, what="The reason", least=REASON)
    return [
        e.ApprovalRejected(
            step=step.id,
            visit=state.visit(step.id),
            gate=gate.id,
            digest=command.digest,
            reason=reason,
        )
    ]


def _ask_again(procedure: Procedure, state: RunState, command: AskAgain, by: Actor) -> list[RunEvent]:
    _need(by, "operator", "ask for an approval again")
    step, gate = _approval_gate(procedure, state, command)
    recorded = state.gate(step.id, gate.id)
    if recorded.rejection is None and recorded.expired is None:
        raise OutOfTurn("This request is open still; there is nothing to ask again.")
    reason = checked(command.reason, what="The reason", least=REASON)
    return [e.ApprovalAsked(step=step.id, visit=state.visit(step.id), gate=gate.id, reason=reason)]


# Who holds a step.


def _take_step(procedure: Procedure, state: RunState, command: TakeStep, by: Actor) -> list[RunEvent]:
    _need(by, "operator", "take a step")
    step, at = _current(procedure, state, command.step, command.visit)
    _not_signer(state, step, by)
    if at.holder is not None and at.holder.id == by.id:
        return []
    least = 0 if at.holder is None else REASON
    reason = checked(command.reason, what="The reason", least=least)
    return [e.StepTaken(step=step.id, visit=at.visit, reason=reason)]


def _hand_over(procedure: Procedure, state: RunState, command: HandOver, by: Actor) -> list[RunEvent]:
    _need(by, "operator", "hand a step over")
    step, at = _current(procedure, state, command.step, command.visit)
    if at.holder is None or at.holder.id != by.id:
        raise OutOfTurn(
            f"{by.name} does not hold “{fill(step.title, state.facts)}”, so it cannot be handed over."
        )
    if command.to.id == by.id:
        raise BadInput("Choose another person; this step is yours already.", "to")
    if "operator" not in command.to.roles:
        raise BadInput(f"{command.to.name} does not have the role operator in this environment.", "to")
    _not_signer(state, step, command.to)
    reason = checked(command.reason, what="The reason")
    return [
        e.StepHandedOver(
            step=step.id, visit=at.visit, to_id=command.to.id, to_name=command.to.name, reason=reason
        )
    ]


# Emergencies.


def _ask_override(procedure: Procedure, state: RunState, command: AskOverride, by: Actor) -> list[RunEvent]:
    _need(by, "operator", "ask for an emergency override")
    step, gate = _approval_gate(procedure, state, command)
    _overridable(procedure, state, step, gate)
    reason = checked(command.reason, what="The reason", least=REASON)
    if any(
        item.is_open and item.is_emergency and (item.step, item.gate) == (step.id, gate.id)
        for item in state.deviations.values()
    ):
        raise OutOfTurn(
            "An emergency override of this approval is asked for already; it waits for a second person."
        )
    return [
        e.DeviationAsked(
            number=len(state.deviations) + 1,
            what="emergency",
            step=step.id,
            visit=state.visit(step.id),
            gate=gate.id,
            reason=reason,
        )
    ]


def _overridable(procedure: Procedure, state: RunState, step: Step, gate: ApprovalGate) -> None:
    if not policy_of(state, gate.policy).override:
        raise NotAllowed("The policy of this environment does not allow emergency overrides here.")
    if is_ahead(state, step):
        raise OutOfTurn("There is no emergency before the run comes to this step.")
    rejection = state.gate(step.id, gate.id).rejection
    if rejection is not None:
        raise NotAllowed(
            f"{rejection.by.name} rejected this step. An emergency override is for when nobody can decide; "
            "it does not go over a decision."
        )
    if verdict(procedure, state, step, gate).is_met:
        raise OutOfTurn("This step is approved; there is nothing to override.")


SECONDS = ("approver", "administrator", "operator")  # who may be the second person of an emergency


def _sign_override(
    procedure: Procedure, state: RunState, deviation: Deviation, command: SignDeviation, by: Actor
) -> list[RunEvent]:
    """The second person is nobody who has a hand in the run; a role in the team is enough, for nobody else is there."""
    act = "sign an emergency override"
    if not set(by.roles) & set(SECONDS):
        raise NotAllowed(f"{by.name} may not {act}: that takes the role {' or '.join(SECONDS)}.")
    why = barred(state, by.id) or (
        "whoever asked for it cannot sign" if by.id == deviation.asked_by.id else ""
    )
    if why:
        raise NotAllowed(f"{by.name} may not {act}: {why}. Ask somebody who has not worked on this run.")
    step, at = _current(procedure, state, deviation.step, deviation.visit)
    gate = step.gate(deviation.gate)
    if at.status is not StepStatus.CURRENT or not isinstance(gate, ApprovalGate):
        raise OutOfTurn(f"“{fill(step.title, state.facts)}” has begun already; there is nothing to override.")
    _overridable(procedure, state, step, gate)
    comment = checked(command.comment, what="The comment", least=REASON)
    return [e.DeviationSigned(number=deviation.number, comment=comment)]


def _review(state: RunState, command: ReviewOverride, by: Actor) -> list[RunEvent]:
    if "auditor" not in by.roles:
        raise NotAllowed(f"{by.name} may not close the review: that takes the role auditor.")
    text = checked(command.text, what="The text", least=REASON)
    if command.number == e.WHOLE_RUN and state.is_emergency:
        if not state.is_over:
            raise OutOfTurn("The run is still open. Look into an emergency change once it is over.")
        before = state.review
    else:
        deviation = state.deviations.get(command.number)
        if deviation is None or not deviation.is_emergency or not deviation.signed:
            raise BadInput(f"Number {command.number} is no emergency of this run.", "number")
        before = deviation.review
    if before is not None:
        raise OutOfTurn(f"{before.by.name} closed this review already.")
    return [e.OverrideReviewed(number=command.number, text=text)]


def _never_waived(state: RunState, step: Step, command: AskDeviation) -> str:
    """The gate that a deviation would waive though the policy says that none does; empty when there is none."""
    policy = policy_of(state, DEVIATION)
    gates = [gate.id for gate in step.all_gates] if command.what == "skip" else [command.gate]
    return next((gate for gate in gates if policy.never_waives(step.id, gate)), "")


def _restart(procedure: Procedure, state: RunState, command: Restart, by: Actor) -> list[RunEvent]:
    _need(by, "operator", "begin a step again")
    step, at = _current(procedure, state, command.step, command.visit)
    _not_signer(state, step, by)
    _holds(state, step, at, by)
    _not_held(state)
    if at.status is not StepStatus.BEGUN:
        raise OutOfTurn(f"“{fill(step.title, state.facts)}” has not begun yet, so it cannot begin again.")
    reason = checked(command.reason, what="The reason", least=REASON)
    return [
        e.StepRestarted(step=step.id, visit=at.visit, reason=reason),
        e.StepEntered(step=step.id, visit=at.visit + 1),
    ]


def _hold(_: Procedure, state: RunState, command: Hold, by: Actor) -> list[RunEvent]:
    _need(by, "operator", "put the run on hold")
    if state.status is RunStatus.HELD:
        return []
    return [e.RunHeld(reason=checked(command.reason, what="The reason", least=3))]


def _resume(_: Procedure, state: RunState, command: Resume, by: Actor) -> list[RunEvent]:
    _need(by, "operator", "resume the run")
    if state.status is not RunStatus.HELD:
        return []
    return [e.RunResumed(reason=checked(command.reason, what="The reason", least=3))]


def _note(_: Procedure, state: RunState, command: AddNote, by: Actor) -> list[RunEvent]:
    if not set(by.roles) & {"operator", "approver"}:
        raise NotAllowed(f"{by.name} may not add notes: that takes the role operator or approver.")
    return [e.NoteAdded(step=state.current or "", text=checked(command.text, what="The note", least=1))]


def _ask_deviation(procedure: Procedure, state: RunState, command: AskDeviation, by: Actor) -> list[RunEvent]:
    _need(by, "operator", "ask for a deviation")
    step, at = _current(procedure, state, command.step, command.visit)
    _holds(state, step, at, by)
    reason = checked(command.reason, what="The reason", least=REASON)
    gate = step.gate(command.gate)
    match command.what:
        case "override" if gate is None:
            raise BadInput("Choose the gate that is to be overridden.", "gate")
        case "override" if isinstance(gate, ApprovalGate):
            raise NotAllowed(
                "An approval cannot be overridden by a deviation: another person signs, or nobody does."
            )
        case "override" | "skip" if gate_id := _never_waived(state, step, command):
            raise NotAllowed(
                f"The policy for deviations of this environment never waives “{gate_id}”. "
                "Meet it, or go another way."
            )
        case "doubt" if not _is_doubt(step, state, command.doubt):
            raise BadInput("Choose the gap or the line that is to be set aside.", "doubt")
        case "skip" | "override" | "doubt":
            pass
        case _:
            raise BadInput(
                "A deviation is to skip the step, to override a gate, or to set a doubt aside.", "what"
            )
    number = len(state.deviations) + 1
    return [
        e.DeviationAsked(
            number=number,
            what=command.what,
            step=step.id,
            visit=at.visit,
            gate=command.gate,
            reason=reason,
            doubt=command.doubt,
        )
    ]


def _correct(procedure: Procedure, state: RunState, command: CorrectFact, by: Actor) -> list[RunEvent]:
    _need(by, "operator", "ask for a correction")
    parameter = next((item for item in procedure.parameters if item.name == command.name), None)
    if parameter is None:
        known = ", ".join(item.name for item in procedure.parameters)
        raise BadInput(f"Only answers of the start dialog can be corrected: {known}.", "name")
    try:
        value = answer_of(parameter, command.value, state.facts)
    except BadInput as mistake:
        raise BadInput(f"{parameter.title}: {mistake.message}", "value") from mistake
    if state.facts.get(command.name) == value:
        raise BadInput(f"{parameter.title}: that is the answer already.", "value")
    reason = checked(command.reason, what="The reason", least=REASON)
    return [
        e.DeviationAsked(
            number=len(state.deviations) + 1,
            what="correct",
            step=state.current or "",
            visit=state.steps[state.current].visit if state.current else 0,
            gate="",
            reason=reason,
            fact=command.name,
            value=command.value.strip(),
        )
    ]


def _is_doubt(step: Step, state: RunState, seq: int) -> bool:
    results = [rule_result(gate, state, step.id) for gate in step.event_gates]
    return any(doubt.seq == seq for result in results for doubt in result.doubts)


def _may_reject(state: RunState, deviation: Deviation, by: Actor) -> None:
    policy = policy_of(state, DEVIATION)
    rights = set().union(*(one.rights for one in _rights(state, by)))
    allowed = SECONDS if deviation.is_emergency else policy.rights
    if not rights & set(allowed):
        raise NotAllowed(f"{by.name} may not reject a deviation: that takes {_or(policy)}.")


def _open_deviation(state: RunState, number: int) -> Deviation:
    deviation = state.deviations.get(number)
    if deviation is None:
        raise BadInput(f"This run has no deviation {number}.", "number")
    if not deviation.is_open:
        done = "signed" if deviation.signed else "rejected"
        who = deviation.decided_by.name if deviation.decided_by else "somebody"
        raise OutOfTurn(f"Deviation {number} was {done} by {who} already.")
    return deviation


def _sign_deviation(
    procedure: Procedure, state: RunState, command: SignDeviation, by: Actor
) -> list[RunEvent]:
    deviation = _open_deviation(state, command.number)
    if deviation.is_emergency:
        return _sign_override(procedure, state, deviation, command, by)
    policy = policy_of(state, DEVIATION)
    able = _need_second(state, by, policy, "sign a deviation")
    if any(signature.by.id == by.id for signature in deviation.signatures):
        return []
    standing = [signature for signature in deviation.signatures if not has_a_hand(state, signature)]
    signer = _useful(policy, standing, able, f"Deviation {deviation.number}")
    signed = e.DeviationSigned(
        number=deviation.number,
        comment=checked(command.comment, what="The comment"),
        decides=not missing(policy, [*signers(standing), signer]),
        **_signs_for(by, signer),
    )
    if not signed.decides:
        return [signed]
    if deviation.what == "correct":
        parameter = next(item for item in procedure.parameters if item.name == deviation.fact)
        value = answer_of(parameter, deviation.value, state.facts)
        return [signed, e.FactSet(name=deviation.fact, value=value, step=state.current or "")]
    step, _at = _current(procedure, state, deviation.step, deviation.visit)
    if deviation.what != "skip":
        return [signed]
    skipped = e.StepSkipped(
        step=step.id, visit=deviation.visit, reason=deviation.reason, deviation=deviation.number
    )
    return [signed, skipped, *_follow(procedure, state, step, step.then)]


def _reject_deviation(_: Procedure, state: RunState, command: RejectDeviation, by: Actor) -> list[RunEvent]:
    deviation = _open_deviation(state, command.number)
    if by.id != deviation.asked_by.id:  # whoever asked may withdraw it
        _may_reject(state, deviation, by)
    reason = checked(command.reason, what="The reason", least=3)
    return [e.DeviationRejected(number=deviation.number, reason=reason)]


def _abort(_: Procedure, state: RunState, command: Abort, by: Actor) -> list[RunEvent]:
    _need(by, "operator", "abort the run")
    reason = checked(command.reason, what="The reason", least=REASON)
    if state.unowned:
        names = ", ".join(burden.id.split(":")[1] for burden in state.unowned)
        raise GateClosed(
            f"The run cannot be aborted while this is open: {names}. Close it by going on or back, "
            "or let a second person take it over by name; then it stays on the environment until it is closed."
        )
    return [e.RunAborted(reason=reason)]


def _roll_back(_: Procedure, _state: RunState, command: RollBack, by: Actor) -> list[RunEvent]:
    _need(by, "operator", "roll the run back")
    reason = checked(command.reason, what="The reason", least=REASON)
    return [e.RunRolledBack(by_run=command.by_run, procedure=command.procedure, reason=reason)]


def inheritance(procedure: Procedure, state: RunState, run: int) -> list[e.BurdenInherited]:
    """What the run `run` has open, as another one takes it over with all that is known of it."""

    def title(burden: Burden) -> str:
        kind, _, name = burden.id.partition(":")
        known = procedure.exposures if kind == "exposure" else procedure.duties
        stated = next((item.title for item in known if item.id == name), name)
        return burden.title or fill(stated, state.facts)

    return [
        e.BurdenInherited(
            burden=burden.id,
            title=title(burden),
            since=burden.since.isoformat(),
            from_run=run,
            owner_id=burden.owner.id if burden.owner else "",
            owner_name=burden.owner.name if burden.owner else "",
        )
        for burden in state.burdens.values()
    ]


def _burdens(state: RunState, command: TakeOver | CloseBurden, by: Actor) -> list[RunEvent]:
    burden = state.burdens.get(command.burden)
    if burden is None:
        raise OutOfTurn("That exposure or duty is not open any more.")
    if isinstance(command, TakeOver):
        return _take_over(state, burden, command, by)
    if burden.owner is None or burden.owner.id != by.id:
        owner = burden.owner.name if burden.owner else "nobody yet"
        raise NotAllowed(f"Only the person who took it over may close it: {owner}.")
    text = checked(command.text, what="The text", least=3)
    name = burden.id.split(":", 1)[1]
    if burden.id.startswith("exposure:"):
        return [e.ExposureClosed(exposure=name, text=text)]
    return [e.DutyDone(duty=name, text=text)]


def _take_over(state: RunState, burden: Burden, command: TakeOver, by: Actor) -> list[RunEvent]:
    if not set(by.roles) & {"operator", "approver"}:
        raise NotAllowed(f"{by.name} may not take this over: that takes the role operator or approver.")
    if by.id == state.starter.id or by.id in state.executors:
        raise NotAllowed(
            f"{by.name} worked on this run, so a second person must take this over: "
            "an exposure that outlives its run needs somebody else's eyes."
        )
    if burden.owner is not None and burden.owner.id == by.id:
        return []
    return [e.TakenOver(burden=burden.id, reason=checked(command.reason, what="The reason", least=REASON))]


_HANDLERS: dict[type, Callable[..., list[RunEvent]]] = {
    Begin: _begin,
    Complete: _complete,
    Confirm: _confirm,
    Attach: _attach,
    Sign: _sign,
    Reject: _reject,
    AskAgain: _ask_again,
    TakeStep: _take_step,
    HandOver: _hand_over,
    AskOverride: _ask_override,
    Restart: _restart,
    Hold: _hold,
    Resume: _resume,
    AddNote: _note,
    AskDeviation: _ask_deviation,
    CorrectFact: _correct,
    SignDeviation: _sign_deviation,
    RejectDeviation: _reject_deviation,
    Abort: _abort,
    RollBack: _roll_back,
}


# What a step's begin and end bring with them.


def _exposures(state: RunState, step: Step, moment: Moment) -> list[RunEvent]:
    closed = [
        e.ExposureClosed(exposure=change.exposure, step=step.id)
        for change in step.closes
        if _is_due(change, state, moment) and f"exposure:{change.exposure}" in state.burdens
    ]
    opened = [
        e.ExposureOpened(exposure=change.exposure, step=step.id)
        for change in step.opens
        if _is_due(change, state, moment) and f"exposure:{change.exposure}" not in state.burdens
    ]
    return [*closed, *opened]


def _duties(procedure: Procedure, state: RunState, step: Step, moment: Moment) -> list[RunEvent]:
    def due(owed: Owed) -> bool:
        return owed.at is moment and (owed.when is None or holds(owed.when, state.facts) is True)

    owes = [
        e.DutyOwed(duty=owed.duty, title=fill(procedure.duty(owed.duty).title, state.facts), step=step.id)
        for owed in step.owes
        if due(owed) and f"duty:{owed.duty}" not in state.burdens
    ]
    done = [
        e.DutyDone(duty=owed.duty, step=step.id)
        for owed in step.fulfils
        if due(owed) and f"duty:{owed.duty}" in state.burdens
    ]
    return [*owes, *done]


def _burdens_at(procedure: Procedure, state: RunState, step: Step, moment: Moment) -> list[RunEvent]:
    return [*_exposures(state, step, moment), *_duties(procedure, state, step, moment)]


def _is_due(change: ExposureChange, state: RunState, moment: Moment) -> bool:
    return change.at is moment and (change.when is None or holds(change.when, state.facts) is not False)


def _completion(procedure: Procedure, state: RunState, step: Step, proof: dict[str, str]) -> list[RunEvent]:
    events: list[RunEvent] = [e.StepCompleted(step=step.id, visit=state.steps[step.id].visit, proof=proof)]
    facts = dict(state.facts)
    for effect in step.effects:
        if effect.when is None or holds(effect.when, state.facts):
            value = _TRUTHS.get(effect.to, state.facts.get(effect.to, effect.to))
            events.append(e.FactSet(name=effect.set, value=value, step=step.id))
            facts[effect.set] = value
    events += _burdens_at(procedure, state, step, Moment.COMPLETE)
    # Whether the next step has a part in this run depends on what this one has brought about.
    return [*events, *_follow(procedure, replace(state, facts=facts), step, step.then)]


_TRUTHS: dict[str, Fact] = {"true": True, "false": False}


def _follow(procedure: Procedure, state: RunState, step: Step, follow: Follow) -> list[RunEvent]:
    match follow:
        case GoOn():
            if state.route:
                return _enter(procedure, state, procedure.step(state.route[0]), named=True)
            return _enter(procedure, state, procedure.after(step.id))
        case GoTo(target):
            return _enter(procedure, state, procedure.step(target), named=True)
        case EndRun(ending):
            return [e.RunClosing(ending=ending)]
        case GoOver():
            return [
                e.RunGoneOver(
                    procedure=follow.procedure,
                    procedure_version=follow.version,
                    procedure_hash=follow.text_hash,
                    authors=list(follow.authors),
                    through=list(follow.through),
                )
            ]
        case PutOnHold(reason):
            return [e.RunHeld(reason=fill(reason, state.facts))]


def _enter(
    procedure: Procedure, state: RunState, step: Step | None, *, named: bool = False
) -> list[RunEvent]:
    """Enter `step`, or the first after it that this run has; skipped ones are recorded with the reason.

    What was done under an earlier text is passed over, unless it is `named` as the one to go to.
    """
    events: list[RunEvent] = []
    while step is not None:
        if step.id in state.kept and not named:
            step = procedure.after(step.id)
            continue
        named = False
        before = state.steps.get(step.id)
        visit = (before.visit if before else 0) + 1
        wanted = True if step.when is None else holds(step.when, state.facts)
        if wanted is not False:  # a step of which nobody knows whether it applies is shown, not passed over
            return [*events, e.StepEntered(step=step.id, visit=visit)]
        reason = fill(step.otherwise, state.facts) or "The facts of this run do not ask for it."
        events.append(e.StepSkipped(step=step.id, visit=visit, reason=reason))
        step = procedure.after(step.id)
    return [*events, e.RunClosing(ending="completed")]


# Workers.


@dataclass(frozen=True, slots=True)
class Watch:
    """A log that this run reads now. Only what lies behind `watermark` counts; None counts nothing."""

    id: str
    role: str
    application: str
    host: str
    events: frozenset[str]
    watermark: dict[str, int]
    settled: bool  # the verdict is there; the watch goes on for what contradicts it


def active_watches(procedure: Procedure, state: RunState) -> list[Watch]:
    """The watches of the run: of the current step, and of earlier verdicts that must stay true."""
    if state.is_over:
        return []
    return [
        _watch(state, step, gate)
        for step in procedure.steps
        for gate in step.event_gates
        if _is_watching(state, step, gate)
    ]


def _is_watching(state: RunState, step: Step, gate: EventGate) -> bool:
    at = state.steps.get(step.id)
    if at is None or at.begun_at is None or at.status in (StepStatus.LEFT, StepStatus.SKIPPED):
        return False
    if at.status is StepStatus.BEGUN:
        return True
    if state.gate(step.id, gate.id).outcome is None:
        return False
    until = state.steps.get(gate.rule.watch_until or "")
    return until is None or until.begun_at is None or until.begun_seq < at.begun_seq


def _watch(state: RunState, step: Step, gate: EventGate) -> Watch:
    at = state.steps[step.id]
    application = state.application(gate.rule.server)
    return Watch(
        id=watch_id(step.id, at.visit, gate.id),
        role=gate.rule.server,
        application=application,
        host=state.host(gate.rule.server),
        events=gate.rule.numbers | {APPLICATION_STARTED},
        watermark=dict(at.watermarks.get(application, {})),
        settled=state.gate(step.id, gate.id).outcome is not None,
    )


def watched_totals(procedure: Procedure, state: RunState) -> list[str]:
    """The applications whose client totals this run reads now: from the baseline to the clients gate's end."""
    wanted: list[str] = []
    for step in procedure.steps:
        for gate in step.all_gates:
            if isinstance(gate, ClientsGate) and _counts_clients(state, step, gate):
                wanted += [state.application(gate.leaving), state.application(gate.joining)]
    return list(dict.fromkeys(wanted))


def _counts_clients(state: RunState, step: Step, gate: ClientsGate) -> bool:
    baseline, at = state.steps.get(gate.baseline), state.steps.get(step.id)
    begun = baseline is not None and baseline.begun_at is not None
    open_ = (
        at is None
        or at.status is StepStatus.CURRENT
        or (gate in step.gates and at.status is StepStatus.BEGUN)
    )
    return begun and open_ and not state.is_over


def _report(procedure: Procedure, state: RunState, events: tuple[RunEvent, ...]) -> list[RunEvent]:
    """Of what a worker saw, what is new and still has a place in this run."""
    if state.is_over:
        return []
    watching = {watch.id: watch for watch in active_watches(procedure, state)}
    counted = dict(state.totals)
    kept: list[RunEvent] = []
    known = {
        (watch, seen.kind, seen.place)
        for watch in watching
        for seen in state.gates.get(watch_key(watch), _NO_GATE).observations
    }
    for event in events:
        match event:
            case e.LogEventSeen() | e.LogDoubtful() | e.ServerEnded():
                seen = (event.watch, *_place(event))
                if seen not in known and is_behind_watermark(watching.get(event.watch), event):
                    known.add(seen)
                    kept.append(event)
            case e.AgentLost(host=host):
                if host not in state.lost_agents:
                    kept.append(event)
            case e.AgentBack(host=host):
                if host in state.lost_agents:
                    kept.append(event)
            case e.ClientTotalSeen(application=application, total=total):
                if _is_newer_total(procedure, state, counted.get(application), event):
                    counted[application] = Counted(total, state.seq + 1, event.file, event.offset)
                    kept.append(event)
            case e.ProbeAnswered():
                if _is_news(procedure, state, event):
                    kept.append(event)
            case e.FactSet(name=name, value=value):
                if state.facts.get(name) != value:
                    kept.append(event)
            case e.ExposureMarked(exposure=exposure, percent=percent, limit=limit):
                burden = state.burdens.get(f"exposure:{exposure}")
                if burden is not None and (percent, limit) not in burden.marks:
                    kept.append(event)
            case _:
                raise BadInput(f"A worker does not report {event.kind}.")
    return kept


def _place(seen: e.LogEventSeen | e.LogDoubtful | e.ServerEnded) -> tuple[Kind, tuple[str, int]]:
    """What is known by it once it is on the record: an event may stand at the very byte at which a gap began."""
    match seen:
        case e.LogEventSeen():
            return Kind.EVENT, (seen.file, seen.offset)
        case e.LogDoubtful():
            return Kind(seen.doubt), (seen.file, seen.offset)
        case e.ServerEnded():
            return Kind.ENDED, ("process", seen.change)


def is_behind_watermark(watch: Watch | None, seen: e.LogEventSeen | e.LogDoubtful | e.ServerEnded) -> bool:
    """Whether this is of the watched server, and from after its step began. A doubt counts wherever it begins."""
    if watch is None or seen.application != watch.application:
        return False
    return not isinstance(seen, e.LogEventSeen) or seen.offset >= counts_from(watch.watermark, seen.file)


def counts_from(watermark: Mapping[str, int], place: str) -> int:
    """The byte of a log file from which on its lines count, by a mark.

    A file that the mark does not name came into being later and counts whole, unless it begins as a named one does. Then
    it is a copy of that log, or that log with another device or inode, and what stood there when the mark was taken is
    as old here.
    """
    if place in watermark:
        return watermark[place]
    own = _identity(place)
    if any(_identity(known) == own for known in watermark):
        return 0  # it shrank since: a gap says so
    alike = [end for known, end in watermark.items() if _first_line(known) == _first_line(place)]
    return max(alike, default=0)


def _identity(place: str) -> str:
    return place.partition("~")[0]


def _first_line(place: str) -> str:
    """The part of an identity that depends on the first line of the file alone (`agent.messages`)."""
    return _identity(place).rpartition("-")[2]


def _is_newer_total(
    procedure: Procedure, state: RunState, before: Counted | None, seen: e.ClientTotalSeen
) -> bool:
    """Whether the total says something new: another count, from further on in the log, or the first of a new count."""
    if not is_behind_baseline(procedure, state, seen):
        return False
    if before is None or before.seq <= _baseline_seq(procedure, state):
        return True
    is_older = before.file == seen.file and seen.offset < before.offset
    return not is_older and before.total != seen.total


def is_behind_baseline(procedure: Procedure, state: RunState, seen: e.ClientTotalSeen) -> bool:
    """Whether the line stands behind the mark that was taken when the count began. Without a mark none does."""
    marks = baseline_marks(procedure, state, seen.application)
    return any(seen.offset >= counts_from(mark, seen.file) for mark in marks)


def baseline_marks(procedure: Procedure, state: RunState, application: str) -> list[Mapping[str, int]]:
    """The marks in the logs of that server of when its clients began to be counted, a map from files to offsets each."""
    found = []
    for step in procedure.steps:
        for gate in step.all_gates:
            if not isinstance(gate, ClientsGate) or gate.baseline not in state.steps:
                continue
            if application not in (state.application(gate.leaving), state.application(gate.joining)):
                continue
            mark = state.steps[gate.baseline].watermarks.get(application)
            if mark is not None:
                found.append(mark)
    return found


def _baseline_seq(procedure: Procedure, state: RunState) -> int:
    """Where the last count of clients began; an equal total seen after it is news."""
    gates = [gate for step in procedure.steps for gate in step.all_gates if isinstance(gate, ClientsGate)]
    begun = [state.steps[gate.baseline].begun_seq for gate in gates if gate.baseline in state.steps]
    return max(begun, default=0)


def _is_news(procedure: Procedure, state: RunState, event: e.ProbeAnswered) -> bool:
    at = state.steps.get(event.step)
    if at is None or state.current != event.step or at.visit != event.visit:
        return False
    before = state.gate(event.step, event.gate).probe
    if before is None or not isinstance(before.event, e.ProbeAnswered):
        return True
    gate = procedure.step(event.step).gate(event.gate)
    if isinstance(gate, ProbeGate) and is_before_silence(state, state.host(gate.server), before):
        return True
    return (before.event.value, before.event.text) != (event.value, event.text)


def advance(procedure: Procedure, state: RunState) -> list[RunEvent]:
    """What follows by itself from the present state: one round; call it again until nothing comes.

    Nothing does when the run follows another text than `procedure`: then ask with that one (`state.text`).
    """
    if state.is_over or not follows(procedure, state):
        return []
    for rule in (_arrival, _contradictions, _outcomes, _lapses, _branches, _by_itself, _ending):
        events = rule(procedure, state)
        if events:
            return events
    return []


def settle(procedure: Procedure, state: RunState, at: datetime) -> list[RunEvent]:
    """All rounds of `advance`, and what has run out by `at`: the events until the run stands still."""
    events: list[RunEvent] = []
    while news := advance(procedure, state) or overdue(procedure, state, at):
        for event in news:
            state = evolve(state, Recorded(state.seq + 1, at, WORKER, event))
        events += news
    return events


def follows(procedure: Procedure, state: RunState) -> bool:
    """Whether `procedure` is the text that the run follows now."""
    return state.gone_over is None or state.text == (procedure.id, procedure.version)


def _arrival(procedure: Procedure, state: RunState) -> list[RunEvent]:
    """Enter the first step under the text that the run has gone over to."""
    if state.current is not None or not state.route:
        return []
    return _enter(procedure, state, procedure.step(state.route[0]), named=True)


def _contradictions(procedure: Procedure, state: RunState) -> list[RunEvent]:
    for watch in active_watches(procedure, state):
        if not watch.settled:
            continue
        step_id, visit, gate_id = watch_key(watch.id)
        gate = procedure.step(step_id).gate(gate_id)
        if not isinstance(gate, EventGate):
            continue
        known = state.gate(step_id, gate_id).contradicted
        for reason, seen in _against(gate, state, step_id):
            if seen.seq not in known:
                why = f"{watch.application}: {reason}, after “{fill(gate.title, state.facts)}” was met."
                contradicted = e.VerdictContradicted(
                    step=step_id, visit=visit, gate=gate_id, reason=why, line=seen.seq
                )
                held = [] if state.status is RunStatus.HELD else [e.RunHeld(reason=why)]
                return [contradicted, *held]
    return []


def _against(gate: EventGate, state: RunState, step: str) -> list[tuple[str, Observation]]:
    """What speaks against the verdict: what came after it, and lines from before it that were handed over late."""
    recorded, result = state.gate(step, gate.id), rule_result(gate, state, step)
    found = list(result.contradictions) if _opened(gate, recorded) else []
    if recorded.outcome is not None and isinstance(recorded.outcome.event, e.OutcomeReached):
        reached = recorded.outcome.event
        if result.outcome is None or result.outcome.id != reached.outcome or result.doubts:
            why = "a line that was handed over late stands before the evidence and says something else"
            found += [(why, seen) for seen in _late(recorded.observations, reached.lines[-1])]
    return found


def _late(observations: Iterable[Observation], seq: int) -> list[Observation]:
    """What was recorded after the observation `seq` and stands before it in its file."""
    last = next(seen for seen in observations if seen.seq == seq)
    return [
        seen
        for seen in observations
        if seen.seq > seq and seen.place[0] == last.place[0] and seen.place[1] < last.place[1]
    ]


def _opened(gate: EventGate, recorded: GateState) -> bool:
    """Whether the outcome let the run go on. After any other one the server's end is what is asked for, no surprise."""
    reached = recorded.outcome.event if recorded.outcome is not None else None
    return isinstance(reached, e.OutcomeReached) and any(
        outcome.id == reached.outcome and isinstance(outcome.follow, GoOn) for outcome in gate.rule.outcomes
    )


def _outcomes(procedure: Procedure, state: RunState) -> list[RunEvent]:
    """The verdict of an event gate is recorded once, with the lines that it rests on."""
    step = _begun_step(procedure, state)
    for gate in step.event_gates if step else ():
        if step is None or state.gate(step.id, gate.id).outcome is not None:
            continue
        result = rule_result(gate, state, step.id)
        if result.outcome is None or result.doubts:
            continue
        reached = e.OutcomeReached(
            step=step.id,
            visit=state.steps[step.id].visit,
            gate=gate.id,
            outcome=result.outcome.id,
            lines=_lines(result, result.outcome),
        )
        return [reached, *_hold_for(state, result.outcome)]
    return []


def _hold_for(state: RunState, outcome: Outcome) -> list[RunEvent]:
    if isinstance(outcome.follow, PutOnHold) and state.status is not RunStatus.HELD:
        return [e.RunHeld(reason=fill(outcome.follow.reason, state.facts))]
    return []


def _lines(result: RuleResult, outcome: Outcome) -> list[int]:
    track = next(track for track in result.tracks if track.outcome.id == outcome.id)
    return [station.seen.seq for station in track.stations if station.seen is not None]


def _begun_step(procedure: Procedure, state: RunState) -> Step | None:
    if state.current is None or state.steps[state.current].status is not StepStatus.BEGUN:
        return None
    return procedure.step(state.current)


def _lapses(procedure: Procedure, state: RunState) -> list[RunEvent]:
    return [
        e.ApprovalLapsed(step=step.id, visit=state.visit(step.id), gate=gate.id, signer=signer, reason=reason)
        for step, gate in _open_approvals(procedure, state)
        for signer, reason in _lapsed_signers(procedure, state, step, gate).items()
    ]


def _open_approvals(procedure: Procedure, state: RunState) -> list[tuple[Step, ApprovalGate]]:
    """The approvals that can still be signed: of the current step, and of steps to come that were signed ahead."""
    steps = [
        step
        for step in procedure.steps
        if is_ahead(state, step)
        or (step.id == state.current and state.steps[step.id].status is StepStatus.CURRENT)
    ]
    return [(step, gate) for step in steps for gate in step.needs if isinstance(gate, ApprovalGate)]


def _lapsed_signers(procedure: Procedure, state: RunState, step: Step, gate: ApprovalGate) -> dict[str, str]:
    recorded = state.gate(step.id, gate.id)
    valid = {signature.by.id for signature in valid_signatures(procedure, state, step, gate)}
    lapsed: dict[str, str] = {}
    for signature in recorded.signatures:
        name, signer = signature.by.name, signature.by.id
        if signer in valid or signer in recorded.lapsed:
            continue
        if barred(state, signer):
            lapsed[signer] = f"{name} has worked on the run since."
        else:
            lapsed[signer] = f"What {name} signed has changed since."
    return lapsed


# Time. It never approves anything.


def due_at(procedure: Procedure, state: RunState, step: Step, gate: ApprovalGate) -> datetime | None:
    """When the open request for this approval runs out; None when it does not, or is none.

    Where signatures lapse, the time runs from the first of them: without one there is nothing that could lapse.
    """
    policy, since = policy_of(state, gate.policy), state.asked_at(step.id, gate.id)
    recorded = state.gate(step.id, gate.id)
    if (
        policy.expiry is None
        or since is None
        or recorded.rejection is not None
        or recorded.expired is not None
    ):
        return None
    if verdict(procedure, state, step, gate).is_met:
        return None
    if policy.expiry.result is Result.LAPSE:
        signed = valid_signatures(procedure, state, step, gate)
        if not signed:
            return None
        since = max(since, min(signature.at for signature in signed))
    return since + timedelta(seconds=policy.expiry.after)


def deviation_due_at(state: RunState, deviation: Deviation) -> datetime | None:
    """When the open request for a deviation runs out."""
    expiry = policy_of(state, DEVIATION).expiry
    if expiry is None or not deviation.is_open:
        return None
    return deviation.asked_at + timedelta(seconds=expiry.after)


def run_out(procedure: Procedure, state: RunState, at: datetime) -> list[RunEvent]:
    """Everything that has run out by `at`, before anything else happens: who comes after the time finds it so."""
    events: list[RunEvent] = []
    while news := overdue(procedure, state, at):
        for event in news:
            state = evolve(state, Recorded(state.seq + 1, at, WORKER, event))
        events += news
    return events


def overdue(procedure: Procedure, state: RunState, at: datetime) -> list[RunEvent]:
    """A request that has run out by `at`, and what the policies say then. One round; call it until nothing comes."""
    if state.is_over:
        return []
    for step, gate in _open_approvals(procedure, state):
        due, expiry = due_at(procedure, state, step, gate), policy_of(state, gate.policy).expiry
        if due is not None and due <= at and expiry is not None:
            return _expired(state, step, gate, expiry.after, expiry.result)
    for deviation in state.deviations.values():
        due = deviation_due_at(state, deviation)
        if due is not None and due <= at:
            reason = f"Nobody decided until {due:%Y-%m-%d %H:%M:%S} UTC. Ask again, when it is wanted still."
            held = policy_of(state, DEVIATION).expiry
            rejected = e.DeviationRejected(number=deviation.number, reason=reason)
            stops = held is not None and held.result is Result.HOLD
            return [rejected, *_hold_after(state, f"Deviation {deviation.number}", stops=stops)]
    return []


def _expired(state: RunState, step: Step, gate: ApprovalGate, after: int, result: Result) -> list[RunEvent]:
    expired = e.ApprovalExpired(
        step=step.id, visit=state.visit(step.id), gate=gate.id, after=after, result=result.value
    )
    title = f"The approval of “{fill(step.title, state.facts)}”"
    return [expired, *_hold_after(state, title, stops=result is Result.HOLD)]


def _hold_after(state: RunState, what: str, *, stops: bool) -> list[RunEvent]:
    if not stops or state.status is RunStatus.HELD:
        return []
    return [e.RunHeld(reason=f"{what} was not decided in time. Find who can decide, then resume the run.")]


def _branches(procedure: Procedure, state: RunState) -> list[RunEvent]:
    """An outcome that leads elsewhere is carried out once the run is not held."""
    step = _begun_step(procedure, state)
    if step is None or state.status is not RunStatus.RUNNING:
        return []
    for gate in step.event_gates:
        recorded = state.gate(step.id, gate.id)
        reached = recorded.outcome
        if reached is None or not isinstance(reached.event, e.OutcomeReached) or recorded.contradicted:
            continue
        outcome = next(
            item for item in gate.rule.outcomes if item.id == getattr(reached.event, "outcome", "")
        )
        if isinstance(outcome.follow, GoTo | EndRun | GoOver):
            left = e.StepLeft(step=step.id, visit=state.steps[step.id].visit, outcome=outcome.id)
            return [left, *_follow(procedure, state, step, outcome.follow)]
    return []


def _by_itself(procedure: Procedure, state: RunState) -> list[RunEvent]:
    """Begin what needs neither a person nor a watermark; complete what completes by itself."""
    if state.current is None or state.status is not RunStatus.RUNNING:
        return []
    step, at = procedure.step(state.current), state.steps[state.current]
    if at.status is StepStatus.CURRENT:
        if step.begun_by_person or step.event_gates or baselines_at(procedure, state, step):
            return []
        if _closed(state, verdicts(procedure, state, step, step.needs)):
            return []
        return [
            e.StepBegun(step=step.id, visit=at.visit),
            *_burdens_at(procedure, state, step, Moment.BEGIN),
        ]
    if step.completes is not Completes.BY_ITSELF:
        return []
    found = verdicts(procedure, state, step, step.gates)
    if _closed(state, found):
        return []
    return _completion(procedure, state, step, {gate.id: verdict.reason for gate, verdict in found})


def _ending(_: Procedure, state: RunState) -> list[RunEvent]:
    if state.status is RunStatus.CLOSING and not state.unowned:
        return [e.RunEnded(ending=state.ending)]
    return []


def begins_with_watermark(procedure: Procedure, state: RunState) -> Step | None:
    """The current step if a worker should begin it now by marking log positions: its needs are met, no person has to."""
    if state.current is None or state.status is not RunStatus.RUNNING:
        return None
    step, at = procedure.step(state.current), state.steps[state.current]
    if at.status is not StepStatus.CURRENT or step.begun_by_person:
        return None
    if not step.event_gates and not baselines_at(procedure, state, step):
        return None  # it begins by itself
    return None if _closed(state, verdicts(procedure, state, step, step.needs)) else step


_NO_GATE = GateState()
