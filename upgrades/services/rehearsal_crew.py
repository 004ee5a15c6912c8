"""The crew of a headless rehearsal: an operator and an approver who do what each step says, through the same
services as everybody, on simulated servers.

`next_acts` looks at a run and says what the crew does now; whoever runs the rehearsal carries it out and looks again.
Nothing here opens a gate: the crew confirms, attaches and signs, the servers log, the workers see.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from django.contrib.auth.models import AbstractUser, User
from django.utils import timezone

from upgrades.adapters import event_store, simulator_client
from upgrades.adapters.run_states import state_of
from upgrades.domain import run as core
from upgrades.domain.event_rule import Kind
from upgrades.domain.freshness import has_passed
from upgrades.domain.gates import applies, rule_result, shown_digest, verdict, verdicts
from upgrades.domain.procedure import (
    ApprovalGate,
    ClientsGate,
    Completes,
    ConfirmGate,
    EvidenceGate,
    Gate,
    Procedure,
    Step,
)
from upgrades.domain.refusal import Refused
from upgrades.domain.run_state import RunState, RunStatus, StepState, StepStatus
from upgrades.domain.verdict import Value
from upgrades.models import Environment, Membership, Run
from upgrades.queries.procedures import procedure_of
from upgrades.services import runs
from upgrades.services.rehearsal_scenarios import Expected, Slip
from upgrades.services.sign_in import Proof
from upgrades.services.simulated import play


def crew(environment: Environment) -> tuple[User, User]:
    """The operator and the approver of rehearsals, who cannot sign in, with their roles in `environment`."""
    people = []
    for role in (Membership.Role.OPERATOR, Membership.Role.APPROVER):
        name = f"rehearsal-{role}"
        person, made = User.objects.get_or_create(
            username=name, defaults={"first_name": "Rehearsal", "last_name": role}
        )
        if made:
            person.set_unusable_password()
            person.save()
        Membership.objects.get_or_create(environment=environment, user=person, role=role)
        people.append(person)
    return people[0], people[1]


Act = tuple[str, core.Command]  # "operator" or "approver", and what that person does


def next_acts(procedure: Procedure, state: RunState) -> Iterator[Act]:
    """What the crew does now, in order; nothing while servers and workers are at work."""
    for number, deviation in state.deviations.items():
        if deviation.is_open:
            yield (
                "approver",
                core.SignDeviation(number=number, comment="Looked at the line; it changes nothing."),
            )
    if state.status is RunStatus.CLOSING:
        for burden in state.unowned:
            yield (
                "approver",
                core.TakeOver(burden=burden.id, reason="Taken over at the end of the rehearsal."),
            )
    if state.current is None or state.status is not RunStatus.RUNNING:
        return
    step, at = procedure.step(state.current), state.steps[state.current]
    if at.status is StepStatus.CURRENT:
        yield from _before(procedure, state, step, at)
    else:
        yield from _during(procedure, state, step, at)


def _before(procedure: Procedure, state: RunState, step: Step, at: StepState) -> Iterator[Act]:
    open_gates = _open_gates(procedure, state, step, step.needs)
    for gate in open_gates:
        if isinstance(gate, ApprovalGate):
            digest = shown_digest(procedure, state, step, gate)
            yield "approver", core.Sign(step=step.id, visit=at.visit, gate=gate.id, digest=digest)
        else:
            yield from _answer(procedure, state, step, gate)
    if step.begun_by_person and not open_gates:
        yield "operator", core.Begin(step=step.id, visit=at.visit)


def _during(procedure: Procedure, state: RunState, step: Step, at: StepState) -> Iterator[Act]:
    open_gates = _open_gates(procedure, state, step, step.gates)
    for gate in open_gates:
        yield from _answer(procedure, state, step, gate)
    for event_gate in step.event_gates:
        result = rule_result(event_gate, state, step.id)
        if result.ended is not None and result.outcome is None:
            reason = "The server went away while it was starting; its log shows why."
            yield "operator", core.Restart(step=step.id, visit=at.visit, reason=reason)
        asked = {deviation.doubt for deviation in state.deviations.values()}
        for doubt in result.doubts:
            if doubt.kind is Kind.UNREADABLE and doubt.seq not in asked:
                yield (
                    "operator",
                    core.AskDeviation(
                        step=step.id,
                        visit=at.visit,
                        what="doubt",
                        gate=event_gate.id,
                        doubt=doubt.seq,
                        reason="The line is not from the server's own log writer and says nothing of its state.",
                    ),
                )
    if step.completes is Completes.BY_PERSON and not open_gates:
        yield "operator", core.Complete(step=step.id, visit=at.visit)


def _open_gates(procedure: Procedure, state: RunState, step: Step, gates: tuple[Gate, ...]) -> list[Gate]:
    return [
        gate
        for gate in gates
        if applies(gate, state) and verdict(procedure, state, step, gate).value is not Value.MET
    ]


def _answer(procedure: Procedure, state: RunState, step: Step, gate: Gate) -> Iterator[Act]:
    at = state.steps[step.id]
    match gate:
        case ConfirmGate():
            yield (
                "operator",
                core.Confirm(
                    step=step.id, visit=at.visit, gate=gate.id, answer="pass", text="Seen in the rehearsal."
                ),
            )
        case EvidenceGate():
            yield (
                "operator",
                core.Attach(
                    step=step.id, visit=at.visit, gate=gate.id, text="Stands in the simulated world."
                ),
            )
        case ClientsGate():
            # Without totals from before the shutdown there never will be a proof by them; this is the other one.
            if not verdict(procedure, state, step, gate).pending:
                text = "Each client shows its reconnection."
                yield (
                    "operator",
                    core.Confirm(step=step.id, visit=at.visit, gate=gate.id, answer="pass", text=text),
                )
        case _:
            return


@dataclass(slots=True)
class Rehearsal:
    """A rehearsal under way. `turn` lets the crew act once; servers and workers act in between."""

    run_id: int
    operator: AbstractUser
    approver: AbstractUser
    world: str
    delays: Mapping[str, float] = field(default_factory=dict)
    slips: Mapping[str, Slip] = field(default_factory=dict)
    done_in_world: set[tuple[str, int]] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)

    def look(self) -> tuple[Procedure, RunState]:
        run = Run.objects.select_related("procedure").get(pk=self.run_id)
        state = state_of(self.run_id)
        return procedure_of(run.procedure, state.started), state

    def turn(self) -> list[str]:
        """What the crew did this time, a line each."""
        procedure, state = self.look()
        lines = self._in_the_world(procedure, state)
        for who, command in next_acts(procedure, state):
            person = self.operator if who == "operator" else self.approver
            try:
                runs.act(
                    run_id=self.run_id,
                    command=command,
                    by=person,
                    command_id=uuid.uuid4(),
                    proof=Proof("rehearsal", person.pk, timezone.now()),
                )
            except Refused as refusal:
                self.refused.append(refusal.message)
                break
            lines.append(f"{who}: {type(command).__name__}")
        return lines

    def _in_the_world(self, procedure: Procedure, state: RunState) -> list[str]:
        """Do what a step says on the simulated servers, once per visit, and only after the step has begun."""
        if state.current is None or state.status is not RunStatus.RUNNING:
            return []
        at = state.steps[state.current]
        key = (state.current, at.visit)
        if at.status is not StepStatus.BEGUN or key in self.done_in_world:
            return []
        step = procedure.step(state.current)
        delay = timedelta(seconds=self.delays.get(step.copy_of or step.id, 0.0))
        if at.begun_at is None or not has_passed(delay, at.begun_at, timezone.now()):
            return []
        self.done_in_world.add(key)
        slip = self.slips.get(step.copy_of or step.id)
        if slip is not None:
            self._slip(slip, state.application(slip.role))
            if slip.instead:
                return ["servers: something else than the step says"]
        try:
            said = play(self.world, step, state)
        except simulator_client.SimulatorRefused:
            return []  # in this step nothing is done on the servers
        return [f"servers: {said}"]

    def _slip(self, slip: Slip, server: str) -> None:
        if slip.goes_wrong:
            simulator_client.misbehave(self.world, slip.goes_wrong, server=server)
        if slip.actions:
            simulator_client.act(self.world, *({**action, "server": server} for action in slip.actions))

    def finished(self, expected: Expected) -> str | None:
        """Empty when the run stands where the scenario must lead, a sentence when it went wrong, None to go on."""
        procedure, state = self.look()
        if state.is_over:
            missed = self._missed(procedure, state, expected)
            if state.ending != expected.ending or missed:
                return f"The run ended as “{state.ending}”, expected “{expected.ending}” {missed or ''}."
            return ""
        if state.status is RunStatus.HELD:
            if state.current == expected.held_at:
                return ""
            return f"The run is held at {state.current}: {state.hold_reason}"
        return None

    def stands_at(self) -> str:
        """Where the run stands and what its step waits for, in a sentence or two: for a rehearsal that gets no further."""
        procedure, state = self.look()
        said = f" Last refusal: {self.refused[-1]}" if self.refused else ""
        if state.status is RunStatus.HELD:
            said = f" Held: {state.hold_reason}{said}"
        if state.current is None:
            return f"{state.status}, with no step left.{said}"
        step, at = procedure.step(state.current), state.steps[state.current]
        gates = step.needs if at.status is StepStatus.CURRENT else step.gates
        missing = [
            f"{gate.id}: {judged.reason}"
            for gate, judged in verdicts(procedure, state, step, gates)
            if not judged.is_met
        ]
        why = " ".join(missing) or "Nothing is missing; the workers have not gone on with it."
        return f"{step.id} ({state.status}, step {at.status}). {why}{said}"

    def _missed(self, procedure: Procedure, state: RunState, expected: Expected) -> list[str]:
        steps = [
            procedure.step(step) for step, at in state.steps.items() if at.status is not StepStatus.SKIPPED
        ]
        entered = {step.copy_of or step.id for step in steps}
        kinds = {recorded.event.kind for recorded in event_store.load(self.run_id)}
        return [step for step in expected.visited if step not in entered] + [
            kind for kind in expected.recorded if kind not in kinds
        ]
