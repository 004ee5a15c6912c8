"""Verdicts: what is known of a gate, as a pure function of what the run has recorded.

Evaluating a gate again over the same events gives the same verdict. What is missing is said in the reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, assert_never

from upgrades.domain import policy as policies
from upgrades.domain import run_events as e
from upgrades.domain.condition import Fact, holds
from upgrades.domain.event_rule import Kind, Observation, RuleResult, follow_rule
from upgrades.domain.policy import Policy, Signer
from upgrades.domain.procedure import (
    ApprovalGate,
    CheckGate,
    ClientsGate,
    ConfirmGate,
    EventGate,
    EventRule,
    EvidenceGate,
    Gate,
    GoTo,
    ProbeGate,
    Procedure,
    PutOnHold,
    Step,
    WayBackGate,
    WayBackItem,
)
from upgrades.domain.record import digest
from upgrades.domain.run_events import Recorded
from upgrades.domain.run_state import GateState, RunState, StepStatus, barred
from upgrades.domain.verdict import Value, Verdict, cannot_tell, failed, met, waiting
from upgrades.domain.wording import fill


def applies(gate: Gate | WayBackItem, state: RunState) -> bool:
    """False only when the facts surely say that the gate has no part in this run; doubt keeps it."""
    return gate.when is None or holds(gate.when, state.facts) is not False


def verdict(procedure: Procedure, state: RunState, step: Step, gate: Gate) -> Verdict:
    """What is known of `gate` in the latest visit of `step`."""
    recorded = state.gate(step.id, gate.id)
    if recorded.overridden_by:
        deviation = state.deviations[recorded.overridden_by]
        how = "Emergency override, deviation" if deviation.is_emergency else "Overridden as deviation"
        return met(f"{how} {deviation.number}: {deviation.reason}", f"deviation {deviation.number}")
    match gate:
        case ConfirmGate():
            return _confirm(recorded)
        case CheckGate():
            return _check(gate, state)
        case ProbeGate():
            return _probe(gate, state, step, recorded)
        case EvidenceGate():
            return _evidence(recorded)
        case EventGate():
            return _events(gate, state, step, recorded)
        case ClientsGate():
            return _clients(gate, state, recorded)
        case ApprovalGate():
            return _approval(procedure, state, step, gate, recorded)
        case WayBackGate():
            return _way_back(procedure, state, gate)
        case _:
            assert_never(gate)


def verdicts(
    procedure: Procedure, state: RunState, step: Step, gates: Iterable[Gate]
) -> list[tuple[Gate, Verdict]]:
    """The verdicts of those `gates` that have a part in this run."""
    return [(gate, verdict(procedure, state, step, gate)) for gate in gates if applies(gate, state)]


def _confirm(recorded: GateState) -> Verdict:
    if not recorded.confirmations:
        return waiting("Nobody has confirmed it yet.")
    return _answer(recorded.confirmations[-1])


def _answer(last: Recorded) -> Verdict:
    event = last.event
    if not isinstance(event, e.GateConfirmed):
        raise TypeError(event.kind)
    said = f"{last.by.name}: {event.text}" if event.text else last.by.name
    match event.answer:
        case "pass":
            return met(f"Confirmed by {said}", f"event {last.seq}")
        case "fail":
            return failed(f"Answered “fail” by {said}", f"event {last.seq}")
        case _:
            return cannot_tell(f"Answered “not tested” by {said}", f"event {last.seq}")


def _check(gate: CheckGate, state: RunState) -> Verdict:
    held = holds(gate.condition, state.facts)
    if held is None:
        return cannot_tell(f"A fact is not known. {fill(gate.otherwise, state.facts)}")
    if held:
        return met("The environment's facts say so.", "facts")
    return failed(fill(gate.otherwise, state.facts))


def _probe(gate: ProbeGate, state: RunState, step: Step, recorded: GateState) -> Verdict:
    host = state.host(gate.server)
    lost = state.lost_agents.get(host)
    if lost is not None:
        return cannot_tell(f"No news from the agent on {host}: {lost}")
    if recorded.probe is None:
        return waiting(f"The agent on {host} has not looked yet.")
    # Once a step is behind, what was seen for it stays; until then anything may have happened in the silence.
    if step.id == state.current and is_before_silence(state, host, recorded.probe):
        return waiting(f"The agent on {host} was silent since it looked last; it has not looked again yet.")
    event = recorded.probe.event
    if not isinstance(event, e.ProbeAnswered):
        raise TypeError(event.kind)
    return Verdict(Value(event.value), event.text, proof=(f"event {recorded.probe.seq}",))


def is_before_silence(state: RunState, host: str, answer: Recorded) -> bool:
    """Whether the agent of `host` was lost after it gave this answer."""
    return answer.seq < state.silences.get(host, 0)


def _evidence(recorded: GateState) -> Verdict:
    if not recorded.evidence:
        return waiting("Nothing is attached yet.")
    names = []
    for attached in recorded.evidence:
        event = attached.event
        if isinstance(event, e.EvidenceAttached):
            names.append(f"{event.name}, SHA-256 {event.sha256[:12]}…" if event.sha256 else event.text)
    return met("; ".join(names), *(f"event {attached.seq}" for attached in recorded.evidence))


def rule_result(gate: EventGate, state: RunState, step: str, visit: int | None = None) -> RuleResult:
    """Where the rule of `gate` stands, under the facts that held when the step began."""
    at = state.steps.get(step)
    facts = at.facts if at is not None and at.begun_at is not None else state.facts
    recorded = state.gate(step, gate.id, visit)
    return _followed(gate.rule, recorded.observations, frozenset(facts.items()), state.set_aside)


@lru_cache(maxsize=128)
def _followed(
    rule: EventRule,
    observations: tuple[Observation, ...],
    facts: frozenset[tuple[str, Fact]],
    set_aside: frozenset[int],
) -> RuleResult:
    """`follow_rule`, remembered: one act, and one page, ask for the same result many times."""
    return follow_rule(rule, observations, dict(facts), set_aside)


def _events(gate: EventGate, state: RunState, step: Step, recorded: GateState) -> Verdict:
    server = state.application(gate.rule.server)
    if recorded.outcome is not None:
        return _outcome(gate, state, recorded.outcome, recorded)
    at = state.steps.get(step.id)
    if at is None or at.status is StepStatus.CURRENT:
        return waiting(f"Events of {server} count from the moment the step begins.")
    result = rule_result(gate, state, step.id)
    if result.ended is not None:
        return failed(
            f"{server} went away before it was ready ({result.ended.text}). Look at its log, then begin this step again."
        )
    if result.doubts:
        return _doubt(result, server)
    lost = state.lost_agents.get(state.host(gate.rule.server))
    if lost is not None:
        return cannot_tell(f"No news from the agent on {state.host(gate.rule.server)}: {lost}")
    return waiting(f"{_awaited(result, server)}{_last_seen(result)}")


def _outcome(gate: EventGate, state: RunState, reached: Recorded, recorded: GateState) -> Verdict:
    event = reached.event
    if not isinstance(event, e.OutcomeReached):
        raise TypeError(event.kind)
    proof = tuple(f"event {seq}" for seq in event.lines)
    outcome = next((outcome for outcome in gate.rule.outcomes if outcome.id == event.outcome), None)
    if outcome is None:  # it belongs to the text that the run has left
        return cannot_tell(f"Under an earlier text this ended in “{event.outcome}”.", *proof)
    if isinstance(outcome.follow, PutOnHold):
        return failed(fill(outcome.follow.reason, state.facts), *proof)
    if recorded.contradicted:
        return cannot_tell(f"{outcome.title} was reached, and contradicted afterwards.", *proof)
    if isinstance(outcome.follow, GoTo):
        return failed(f"{outcome.title}: the procedure goes another way.", *proof)
    return met(fill(outcome.title, state.facts), *proof)


def _doubt(result: RuleResult, server: str) -> Verdict:
    doubt = result.doubts[0]
    what = {
        Kind.GAP: "Part of the log could not be read",
        Kind.FOREIGN: "A file may not be this server's log",
    }.get(doubt.kind, "A line has an unknown format")
    more = f" and {len(result.doubts) - 1} more" if len(result.doubts) > 1 else ""
    return cannot_tell(
        f"{what} in the log of {server}: {doubt.text[:200]}{more}. Read it in the log itself; "
        "if it changes nothing, ask for the doubt to be set aside, or begin this step again.",
        *(f"event {item.seq}" for item in result.doubts),
    )


def _awaited(result: RuleResult, server: str) -> str:
    events: list[str] = []
    for track in result.tracks:
        station = track.next_station
        if not track.ruled_out and station is not None and not isinstance(track.outcome.follow, PutOnHold):
            events += [event for event in sorted(station.one_of) if event not in events]
    if not events:
        return (
            f"No outcome is possible any more from what {server} has logged. Read its log, then begin again."
        )
    return f"Waiting for {' or '.join(events)} from {server}."


def _last_seen(result: RuleResult) -> str:
    if result.last is None:
        return " No event since the step began."
    return f" Last event seen: {result.last.event}." if result.last.event else ""


def _clients(gate: ClientsGate, state: RunState, recorded: GateState) -> Verdict:
    if recorded.confirmations:
        answer = _answer(recorded.confirmations[-1])
        if answer.value is not Value.CANNOT_TELL:  # “not tested” leaves it to the totals
            return Verdict(answer.value, f"Proof by reconnection. {answer.reason}", proof=answer.proof)
    leaving, joining = state.application(gate.leaving), state.application(gate.joining)
    begun = state.steps.get(gate.baseline)
    baseline = begun.totals.get(leaving) if begun is not None else None
    if begun is None or baseline is None:
        return cannot_tell(
            f"There is no client total of {leaving} from before its shutdown (it is written at debug level only). "
            "Confirm instead that each client application shows its reconnection."
        )
    unmarked = [name for name in (leaving, joining) if name not in begun.watermarks]
    if unmarked:
        return cannot_tell(
            f"The position in the log of {' and '.join(unmarked)} was not marked before the shutdown, so no total from there "
            "counts. Confirm instead that each client application shows its reconnection."
        )
    own = begun.totals.get(joining, 0)  # clients that it had already are none that came over
    wanted = baseline + own
    now_there, seq = state.totals.get(joining, _UNCOUNTED)[:2]
    left, left_seq = state.totals.get(leaving, _UNCOUNTED)[:2]
    if now_there is None or seq <= begun.begun_seq:
        return waiting(
            f"{joining} has not logged a client total yet; {baseline} clients are to come from {leaving}."
        )
    if left is None or left_seq <= begun.begun_seq:
        return waiting(
            f"{leaving} has not logged a client total since; its own total is the other half of the proof."
        )
    if left > 0:
        return waiting(f"{leaving} still counts {left} clients; {joining} counts {now_there} of {wanted}.")
    had = f" and {own} of its own" if own else ""
    if now_there < wanted:
        return waiting(f"{joining} counts {now_there} of the {baseline} clients that {leaving} had{had}.")
    return met(
        f"Proof by totals: {joining} counts {now_there}, {leaving} had {baseline}{had and f', {joining} {own}'} before, and "
        f"counts {left}.",
        f"event {seq}",
        f"event {left_seq}",
    )


_UNCOUNTED = (None, 0)


def _way_back(procedure: Procedure, state: RunState, gate: WayBackGate) -> Verdict:
    missing, proof = [], []
    for item, found in way_back_items(procedure, state, gate):
        if found.is_met:
            proof += list(found.proof)
        else:
            missing.append(f"{fill(item.title, state.facts)} ({found.reason})")
    if missing:
        return failed(f"No way back is proved: {'; '.join(missing)}. Supply it before you go on.")
    return met("The way back is open.", *proof)


def way_back_items(
    procedure: Procedure, state: RunState, gate: WayBackGate
) -> list[tuple[WayBackItem, Verdict]]:
    """What the way back needs, each with the verdict of the gate that shows it. An override proves nothing."""
    found = []
    for item in gate.items:
        if not applies(item, state):
            continue
        step = procedure.step(item.step)
        source = step.gate(item.gate)
        if source is None:
            raise LookupError(f"{item.step}.{item.gate}")
        state_of = state.gate(item.step, item.gate)
        if state_of.overridden_by:
            found.append((item, failed("its check was overridden, which proves nothing")))
        else:
            found.append((item, verdict(procedure, state, step, source)))
    return found


# Approvals.


def policy_of(state: RunState, name: str) -> Policy:
    """What the environment's policy of that name asks for, as it was when the run started."""
    return policies.policy_in(state.started.policies, name)


def shown(procedure: Procedure, state: RunState, step: Step, gate: ApprovalGate) -> dict[str, Any]:
    """What an approver sees and signs: its digest binds the signature to it (design.md section 7)."""
    others = [other for other in step.needs if not isinstance(other, ApprovalGate)]
    evidence = [
        [recorded.event.step, recorded.event.gate, recorded.event.sha256, recorded.event.text]
        for key in sorted(state.gates)
        for recorded in state.gates[key].evidence
        if isinstance(recorded.event, e.EvidenceAttached)
    ]
    rounds = state.gate(step.id, gate.id).rounds
    return {
        "procedure": procedure.text_hash,
        "step": step.id,
        "visit": state.steps[step.id].visit if step.id in state.steps else 0,
        "gate": gate.id,
        "facts": dict(state.facts),
        "exposures": sorted(state.burdens),
        "needs": [
            [other.id, found.value, found.reason] for other, found in verdicts(procedure, state, step, others)
        ],
        "evidence": evidence,
        # Left out of the first request, so that signatures of earlier releases keep their digest.
        **({"request": rounds} if rounds > 1 else {}),
    }


def shown_digest(procedure: Procedure, state: RunState, step: Step, gate: ApprovalGate) -> str:
    return digest(shown(procedure, state, step, gate))


def shown_ahead(procedure: Procedure, state: RunState, step: Step, gate: ApprovalGate) -> dict[str, Any]:
    """What a signature covers that is given before its step's turn: the plan, not what is still to be seen.

    The text, the step, the servers, and the answers of the start dialog. Facts, exposures and evidence are still to
    come; the step's other gates answer for them when it begins.
    """
    answers = {item.name: state.facts.get(item.name) for item in procedure.parameters}
    rounds = state.gate(step.id, gate.id).rounds
    return {
        "ahead": True,
        "procedure": procedure.text_hash,
        "step": step.id,
        "visit": state.visit(step.id),
        "gate": gate.id,
        "servers": {role: [bound.application, bound.host] for role, bound in state.started.bindings.items()},
        "answers": answers,
        **({"request": rounds} if rounds > 1 else {}),
    }


def is_ahead(state: RunState, step: Step) -> bool:
    """Whether the run has still to come to the step for the first time."""
    return not state.is_over and step.id not in state.steps and not step.aside


def digest_to_sign(procedure: Procedure, state: RunState, step: Step, gate: ApprovalGate) -> str:
    """The digest that a signature has to carry now: of everything that is shown, or ahead of its turn of the plan."""
    if is_ahead(state, step):
        return digest(shown_ahead(procedure, state, step, gate))
    return shown_digest(procedure, state, step, gate)


def valid_signatures(
    procedure: Procedure, state: RunState, step: Step, gate: ApprovalGate
) -> tuple[Recorded, ...]:
    """The signatures that count now: bound to what is shown, not lapsed, one a person, by nobody who worked on the run."""
    recorded = state.gate(step.id, gate.id)
    if not recorded.signatures:
        return ()
    now = shown_digest(procedure, state, step, gate)
    plan = ""
    if policy_of(state, gate.policy).ahead:
        plan = digest(shown_ahead(procedure, state, step, gate))
    # Of a person the last one alone: what was signed before it has lapsed, even if the same is shown again.
    last = {signature.by.id: signature for signature in recorded.signatures}
    return tuple(
        signature
        for signature in last.values()
        if isinstance(signature.event, e.ApprovalSigned)
        and signature.event.digest == (plan if signature.event.ahead else now)
        and signature.by.id not in recorded.lapsed
        and not has_a_hand(state, signature)
    )


def has_a_hand(state: RunState, signature: Recorded) -> bool:
    """Whether the signer, or the person that a deputy signed for, has a hand in the run by now: then it does not count."""
    signer = signer_of(signature)
    return bool(barred(state, signer.id) or barred(state, signer.right_of))


def signer_of(signature: Recorded) -> Signer:
    """The person and the rights under which a signature was given, as they were then."""
    event = signature.event
    if not isinstance(event, e.ApprovalSigned | e.DeviationSigned):
        raise TypeError(event.kind)
    if event.for_id:
        return Signer(signature.by.id, frozenset(event.for_roles), event.for_id)
    return Signer(signature.by.id, frozenset(signature.by.roles), signature.by.id)


def signers(signatures: Iterable[Recorded]) -> list[Signer]:
    return [signer_of(signature) for signature in signatures]


def _approval(
    procedure: Procedure, state: RunState, step: Step, gate: ApprovalGate, recorded: GateState
) -> Verdict:
    policy = policy_of(state, gate.policy)
    if not policy.needs:
        return met("The environment's policy asks for no signature here.", "policy")
    if recorded.rejection is not None and isinstance(recorded.rejection.event, e.ApprovalRejected):
        return failed(f"Rejected by {recorded.rejection.by.name}: {recorded.rejection.event.reason}")
    if recorded.expired is not None:
        return failed("Nobody decided in time. An operator asks again, when it is wanted still.")
    signed = valid_signatures(procedure, state, step, gate)
    names = ", ".join(signature.by.name for signature in signed)
    lacking = policies.missing(policy, signers(signed))
    if not lacking:
        return met(f"Signed by {names}.", *(f"event {signature.seq}" for signature in signed))
    count = policy.needed - sum(need.signatures for need in lacking)
    have = f"{count} of {policy.needed} signed ({names})" if names else f"0 of {policy.needed} signed"
    whom = " and ".join(need.whom for need in lacking)
    return waiting(f"{have}; a person of {whom} signs who has not worked on this run.")
