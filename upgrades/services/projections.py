"""Projections: the rows that lists and pages query, written from a run's state.

They hold nothing that the events do not say. `project` writes only what differs from the state before, in the
transaction that appends the events; `rebuild` writes them anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import transaction

from upgrades.adapters import event_store
from upgrades.adapters.crash_points import crash
from upgrades.domain.condition import holds
from upgrades.domain.due import burden_due
from upgrades.domain.gates import applies, is_ahead, policy_of, signers, valid_signatures, verdict
from upgrades.domain.policy import DEVIATION, Policy, missing, useful_rights
from upgrades.domain.procedure import ApprovalGate, ProbeGate, Procedure, Step
from upgrades.domain.run import (
    SECONDS,
    active_watches,
    begins_with_watermark,
    deviation_due_at,
    due_at,
    watched_totals,
)
from upgrades.domain.run_events import Recorded
from upgrades.domain.run_state import Burden, Deviation, RunState, StepStatus, fold
from upgrades.domain.wording import fill
from upgrades.models import ProcedureVersion, Run, RunBurden, RunRequest, RunStep
from upgrades.queries.procedures import procedure_of
from upgrades.services import claims, results


def project(
    run: Run,
    procedure: Procedure,
    before: RunState | None,
    after: RunState,
    head: str,
    *,
    and_of_start: bool = False,
) -> None:
    """Bring the rows of `run` from the state `before` (None: no rows yet) to the state `after`; `head` is its hash.

    What its row has from its start never changes; it is written too where `and_of_start` says so.
    """
    _steps(run, before, after)
    _burdens(run, procedure, before, after)
    _requests(run, procedure, before, after)
    crash("project.before-summary")
    if after.ended_at is not None:
        claims.release(run.pk, at=after.ended_at)
        # Once, and not when the rows are only written anew.
        if before is not None and before.ended_at is None:
            results.apply(run, procedure.id, after)
    _summary(run, procedure, after, head, _OF_START if and_of_start else ())


def _summary(run: Run, procedure: Procedure, state: RunState, head: str, more: tuple[str, ...]) -> None:
    current = procedure.step(state.current) if state.current else None
    settled = (StepStatus.DONE, StepStatus.SKIPPED)
    counted = [step for step in procedure.steps if step.numbered and not step.aside]
    run.status = state.status
    run.ending = state.ending
    run.reason = state.hold_reason
    run.current_step = current.id if current else ""
    run.current_title = fill(current.title, state.facts) if current else ""
    run.steps_done = sum(
        1 for step in counted if step.id in state.steps and state.steps[step.id].status in settled
    )
    run.steps_total = len(counted)
    run.ended_at = state.ended_at
    run.seq = state.seq
    run.head = head
    run.emergencies = len(state.emergencies) + state.is_emergency
    run.reviews_open = len(state.reviews_open)
    run.waits_for_worker = waits_for_worker(procedure, state)
    run.probes = [_question(state, gate) for gate in wanted_probes(procedure, state)]
    run.version += 1
    run.save(
        update_fields=[
            "status",
            "ending",
            "reason",
            "current_step",
            "current_title",
            "steps_done",
            "steps_total",
            "ended_at",
            "seq",
            "head",
            "emergencies",
            "reviews_open",
            "waits_for_worker",
            "probes",
            "version",
            "procedure",
            *more,
        ]
    )


def waits_for_worker(procedure: Procedure, state: RunState) -> bool:
    """Whether a worker has something to look at for this run."""
    return bool(
        active_watches(procedure, state)
        or watched_totals(procedure, state)
        or begins_with_watermark(procedure, state)
        or wanted_probes(procedure, state)
    )


def wanted_probes(procedure: Procedure, state: RunState) -> list[ProbeGate]:
    """The probe gates of the current step: they are asked until the step is over, for what was so may change."""
    if state.is_over or state.current is None:
        return []
    step = procedure.step(state.current)
    begun = state.steps[step.id].status is StepStatus.BEGUN
    gates = step.gates if begun else step.needs  # what had to be so before it began may well change in it
    return [gate for gate in gates if isinstance(gate, ProbeGate) and applies(gate, state)]


def _question(state: RunState, gate: ProbeGate) -> dict[str, Any]:
    """What `services.polling` needs to ask an agent and to report the answer."""
    step = state.current or ""
    return {
        "step": step,
        "visit": state.steps[step].visit,
        "gate": gate.id,
        "host": state.host(gate.server),
        "application": state.application(gate.server),
        "probe": gate.probe,
        "folder": gate.folder or "",
    }


def _steps(run: Run, before: RunState | None, after: RunState) -> None:
    known = before.steps if before is not None else {}
    rows = [
        RunStep(
            run=run,
            step=step,
            visit=at.visit,
            status=at.status,
            entered_at=at.entered_at,
            begun_at=at.begun_at,
            ended_at=at.ended_at,
        )
        for step, at in after.steps.items()
        if known.get(step) != at
    ]
    if rows:
        RunStep.objects.bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=["run", "step"],
            update_fields=["visit", "status", "entered_at", "begun_at", "ended_at"],
        )


def _burden_row(run: Run, procedure: Procedure, burden: Burden) -> RunBurden:
    name = burden.id.partition(":")[2]
    return RunBurden(
        run=run,
        environment_id=run.environment_id,
        burden=burden.id,
        title=burden.title or procedure.exposure(name).title,
        opened_at=burden.since,
        due_at=burden_due(procedure, burden),
        owner_id=burden.owner.id if burden.owner else "",
        owner_name=burden.owner.name if burden.owner else "",
    )


def _burdens(run: Run, procedure: Procedure, before: RunState | None, after: RunState) -> None:
    if before is not None and before.text != after.text:
        before = None  # another text has other words and lengths for them
    known = set(before.burdens.values()) if before is not None else set()
    rows = [_burden_row(run, procedure, burden) for burden in after.burdens.values() if burden not in known]
    for closed in after.closed[len(before.closed) if before is not None else 0 :]:
        row = _burden_row(run, procedure, closed.burden)
        row.closed_at = closed.closed_at
        rows.append(row)
    if rows:
        RunBurden.objects.bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=["run", "burden", "opened_at"],
            update_fields=["title", "closed_at", "due_at", "owner_id", "owner_name"],
        )


def _requests(run: Run, procedure: Procedure, before: RunState | None, after: RunState) -> None:
    wanted = [*_approvals(run, procedure, after), *_deviations(run, after)]
    known = [*_approvals(run, procedure, before), *_deviations(run, before)] if before is not None else None
    if known is not None and [_values(row) for row in known] == [_values(row) for row in wanted]:
        return
    RunRequest.objects.filter(run=run).delete()
    RunRequest.objects.bulk_create(wanted)


def _values(row: RunRequest) -> list[object]:
    return [getattr(row, name) for name in _COMPARED]


_COMPARED = (
    *("kind", "step", "gate", "number", "title", "role", "signed", "needed", "since", "barred"),
    *("of", "whom", "signers", "ahead", "emergency", "closed", "due_at"),
)


def _barred(state: RunState) -> list[str]:
    holder = state.steps[state.current].holder if state.current else None
    holding = {holder.id} if holder is not None else set()
    return sorted({state.starter.id, *state.executors, *state.authors, *holding})


def _approvals(run: Run, procedure: Procedure, state: RunState) -> list[RunRequest]:
    """The approvals that can be signed now: of the current step, and ahead of their turn those that a policy names."""
    if state.is_over:
        return []
    rows = []
    for step in procedure.steps:
        ahead = is_ahead(state, step)
        if not ahead and (step.id != state.current or state.steps[step.id].status is not StepStatus.CURRENT):
            continue
        if ahead and step.when is not None and holds(step.when, state.facts) is False:
            continue
        for gate in step.needs:
            if not isinstance(gate, ApprovalGate) or not applies(gate, state):
                continue
            policy = policy_of(state, gate.policy)
            if (ahead and not policy.ahead) or verdict(procedure, state, step, gate).is_met:
                continue
            rows.append(_approval_row(run, procedure, state, step, gate))
    return rows


def _approval_row(
    run: Run, procedure: Procedure, state: RunState, step: Step, gate: ApprovalGate
) -> RunRequest:
    policy, recorded = policy_of(state, gate.policy), state.gate(step.id, gate.id)
    valid = valid_signatures(procedure, state, step, gate)
    ahead = is_ahead(state, step)
    return RunRequest(
        run=run,
        environment_id=run.environment_id,
        kind="approval",
        step=step.id,
        gate=gate.id,
        title=fill(step.title, state.facts),
        since=state.asked_at(step.id, gate.id) or state.started_at,
        barred=_barred(state),
        ahead=ahead,
        closed=recorded.rejection is not None or recorded.expired is not None,
        due_at=due_at(procedure, state, step, gate),
        **_wanted(policy, valid),
    )


def _wanted(policy: Policy, signatures: Iterable[Recorded]) -> dict[str, Any]:
    """What a policy still asks for, as the columns of a request."""
    there = list(signatures)
    lacking = missing(policy, signers(there))
    return {
        "role": policy.rights[0][:20] if policy.rights else "",
        "of": list(useful_rights(policy, signers(there))),
        "whom": " and ".join(need.whom for need in lacking)[:300],
        "signed": policy.needed - sum(need.signatures for need in lacking),
        "needed": policy.needed,
        "signers": sorted({name for one in signers(there) for name in (one.id, one.right_of)}),
    }


def _deviations(run: Run, state: RunState) -> list[RunRequest]:
    if state.is_over:
        return []
    return [_deviation_row(run, state, item) for item in state.deviations.values() if item.is_open]


def _deviation_row(run: Run, state: RunState, deviation: Deviation) -> RunRequest:
    wanted = _wanted(policy_of(state, DEVIATION), deviation.signatures)
    if deviation.is_emergency:
        whom = "somebody of the team who has not worked on this run"
        wanted |= {"of": list(SECONDS), "role": SECONDS[0], "whom": whom, "signed": 0, "needed": 1}
    return RunRequest(
        run=run,
        environment_id=run.environment_id,
        kind="deviation",
        step=deviation.step,
        gate=deviation.gate,
        number=deviation.number,
        title=deviation.reason[:400],
        since=deviation.asked_at,
        barred=_barred(state),
        emergency=deviation.is_emergency,
        due_at=deviation_due_at(state, deviation),
        **wanted,
    )


@transaction.atomic
def rebuild(run_id: int) -> None:
    """Write the projections of a run anew from its events alone."""
    locked = Run.objects.select_for_update().select_related("procedure").defer("procedure__text")
    run = locked.get(pk=run_id)
    history, newest = event_store.load_with_head(run_id)
    state = fold(history)
    RunStep.objects.filter(run=run).delete()
    RunBurden.objects.filter(run=run).delete()
    started = state.started
    if (run.procedure.procedure, run.procedure.version) != state.text:
        run.procedure = ProcedureVersion.objects.get(procedure=state.text[0], version=state.text[1])
    run.title, run.rehearsal, run.change = started.title, started.rehearsal, started.change
    run.starter_id, run.starter_name = state.starter.id, state.starter.name
    run.started_at = state.started_at
    project(run, procedure_of(run.procedure, state.started), None, state, newest, and_of_start=True)


_OF_START = ("title", "rehearsal", "change", "starter_id", "starter_name", "started_at")
