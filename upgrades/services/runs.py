"""Runs: one function per verb. Each loads the run under its lock, asks the core, and appends in one transaction.

A person's command carries an id that its sender made: sent twice, it acts once and is answered the same. Workers
advance runs through `advance_run`, which finds everything in the database and may be called at any time, by anybody,
as often as anybody likes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from django.contrib.auth.models import AbstractUser
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from upgrades.adapters import event_store, log_context
from upgrades.adapters.crash_points import crash
from upgrades.adapters.run_states import state_of
from upgrades.domain import run as core
from upgrades.domain import run_events as e
from upgrades.domain.environment import LCA
from upgrades.domain.procedure import Procedure
from upgrades.domain.refusal import BadInput, NotAllowed, OutOfTurn, Refused, Unavailable
from upgrades.domain.run_events import WORKER, Actor, Recorded, RunEvent
from upgrades.domain.run_state import RunState, begin, evolve, evolved
from upgrades.models import Application, CommandReceipt, Environment, Host, ProcedureVersion, Run
from upgrades.queries.people import ids_of
from upgrades.queries.procedures import procedure_of
from upgrades.services import agents, notices, observations, operation, projections, register
from upgrades.services.attempts import Parked, attempt
from upgrades.services.people import actor_for
from upgrades.services.sign_in import Proof, proven
from upgrades.services.watermarks import take_watermarks

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Done:
    """What a command did: the run's newest event, and whether the same command had been carried out before."""

    run: int
    seq: int
    repeated: bool = False


class NoSuchRun(BadInput):
    """There is no such run, or it is none of this person's business: both look the same."""

    code = "not-found"


class HeadMoved(OutOfTurn):
    """The run has gone on since the sender looked; nothing was done."""

    code = "head-moved"


def locked(run_id: int) -> tuple[Run, Procedure, RunState]:
    """The run under its lock, until the transaction of the caller ends; `NoSuchRun` when there is none."""
    run = _locked(run_id)
    return run, *_loaded(run)


def _locked(run_id: int) -> Run:
    try:
        return (
            Run.objects.select_for_update(of=("self",))
            .select_related("procedure", "environment")
            .defer("procedure__text")
            .get(pk=run_id)
        )
    except Run.DoesNotExist:
        raise NoSuchRun("There is no such run, or you have no role in its environment.") from None


def _loaded(run: Run) -> tuple[Procedure, RunState]:
    """The procedure as this run carries it out, and where the run stands."""
    state = state_of(run.pk)
    return procedure_of(run.procedure, state.started), state


def act(
    *,
    run_id: int,
    command: core.Command,
    by: AbstractUser,
    command_id: UUID,
    proof: Proof | None = None,
    head: str = "",
) -> Done:
    """Carry out a person's command, or raise the `Refused` that says why not. Refused rights go on the record.

    A signature takes a fresh `proof` of who gives it: ProofNeeded where it is missing or too old. With `head`, the
    hash of the newest event that its sender knows, `HeadMoved` when there is a newer one by now.
    """
    with log_context.about(run=run_id, step=getattr(command, "step", None)):
        if isinstance(command, core.Begin) and _is_operator(run_id, by):
            command = _with_watermarks(run_id, command)
        crash("act.before")
        try:
            done = _act(run_id, command, by, command_id, proof, head)
        except NotAllowed as refusal:
            logger.info("refused to user %s: %s (%s)", by.pk, type(command).__name__, refusal.code)
            crash("refusal.before-record")
            record_refusal(run_id, command, by, refusal)
            crash("refusal.recorded")
            raise
        crash("act.committed")
        return done


def _is_operator(run_id: int, by: AbstractUser) -> bool:
    """Before agents are asked anything; whether it may be done is decided under the lock."""
    run = Run.objects.select_related("environment").filter(pk=run_id).first()
    return run is not None and "operator" in actor_for(by, run.environment).roles


@transaction.atomic
def _act(
    run_id: int, command: core.Command, by: AbstractUser, command_id: UUID, proof: Proof | None, head: str
) -> Done:
    run = _locked(run_id)
    actor = actor_for(by, run.environment)
    if not actor.roles:
        raise NoSuchRun("There is no such run, or you have no role in its environment.")
    name = type(command).__name__
    earlier = _earlier(command_id, run_id, actor, name)
    if earlier is not None:
        return earlier
    must_be_at(run, head)
    procedure, state = _loaded(run)
    now = timezone.now()
    late = core.run_out(procedure, state, now)
    if isinstance(command, core.Begin | core.Complete):
        # As things are now, also where no worker has looked for a while.
        seen = core.Report(events=tuple(observations.agents_lost(run, state)))
        late += core.decide(procedure, state, seen, WORKER)
    as_found = evolved(state, event_store.record(state.seq + 1, late, by=WORKER, at=now))
    if isinstance(command, core.Begin):
        command = replace(command, totals=_baselines(procedure, state, command, run.environment_id))
    if isinstance(command, core.Sign | core.SignDeviation):
        # Also authors whose account is younger than the run, and those of a text that it went over to.
        as_found = replace(as_found, authors=as_found.authors | ids_of(as_found.authors))
    events = core.decide(procedure, as_found, command, actor)
    if isinstance(command, core.Sign | core.SignDeviation):
        actor = actor.signing(state.started_at)  # a signature counts under the rights that stand with it
    # Whoever may not sign is told so before anything is asked of them.
    events = _with_proof(events, proof, by, run.environment)
    after = _store(run, procedure, state, [(WORKER, late), (actor, events)], at=now)
    crash("act.before-receipt")
    try:
        CommandReceipt.objects.create(
            command_id=command_id, run=run, actor_id=actor.id, act=name, seq=after.seq, at=timezone.now()
        )
    except IntegrityError as elsewhere:  # in another run, whose lock is another one, at this moment
        raise BadInput(_USED) from elsewhere
    crash("act.before-commit")
    return Done(run_id, after.seq)


def must_be_at(run: Run, head: str) -> None:
    """`HeadMoved` unless `head` is the run's newest event, or empty: then nobody asked."""
    if head and run.head != head:
        raise HeadMoved(
            f"Run {run.pk} has gone on since you looked: its newest event is another one. Nothing was done. Read the run "
            "as it is now, then decide anew."
        )


def _with_proof(
    events: list[RunEvent], proof: Proof | None, by: AbstractUser, environment: Environment
) -> list[RunEvent]:
    """The events, with each signature saying how its signer had shown who signs."""
    if not any(isinstance(event, _SIGNATURES) for event in events):
        return events
    kind = proven(proof, by, environment)
    return [replace(event, proof=kind) if isinstance(event, _SIGNATURES) else event for event in events]


_SIGNATURES = (e.ApprovalSigned, e.DeviationSigned)
_USED = "This form was used for something else before. Load the page again and repeat your act."


def _earlier(command_id: UUID, run_id: int | None, actor: Actor, act_name: str) -> Done | None:
    """The answer to a command that was carried out before. The same id for something else is a mistake."""
    receipt = CommandReceipt.objects.filter(pk=command_id).first()
    if receipt is None:
        return None
    if (receipt.actor_id, receipt.act) != (actor.id, act_name) or run_id not in (None, receipt.run_id):
        raise BadInput(_USED)
    assert receipt.run_id is not None
    return Done(receipt.run_id, receipt.seq, repeated=True)


def record_refusal(run_id: int, command: core.Command, by: AbstractUser, refusal: Refused) -> None:
    """Put on the record that this person tried what only others may do."""
    with transaction.atomic():
        run = _locked(run_id)
        procedure, state = _loaded(run)
        refused = e.AttemptRefused(act=type(command).__name__, reason=refusal.message[:500])
        _store(run, procedure, state, [(actor_for(by, run.environment), [refused])])


def _store(
    run: Run,
    procedure: Procedure,
    before: RunState,
    acts: Iterable[tuple[Actor, Sequence[RunEvent]]],
    at: datetime | None = None,
) -> RunState:
    """Append what each actor caused, bring rows and environment up to date, tell the pages and the workers."""
    at = at or timezone.now()
    recorded: list[Recorded] = []
    for actor, events in acts:
        recorded += event_store.record(before.seq + 1 + len(recorded), events, by=actor, at=at)
    if not recorded:
        return before
    after = before
    for item in recorded:
        after = evolve(after, item)
    if not core.follows(procedure, after):
        procedure, more = _gone_over(run, after, at)
        for item in more:
            after = evolve(after, item)
        recorded += more
    _append(run, procedure, before, after, recorded)
    return after


def _gone_over(run: Run, state: RunState, at: datetime) -> tuple[Procedure, list[Recorded]]:
    """The text that the run follows from now on, and what follows at once under it."""
    name, version = state.text
    run.procedure = ProcedureVersion.objects.get(procedure=name, version=version)
    procedure = procedure_of(run.procedure, state.started)
    if state.gone_over is None or procedure.text_hash != state.gone_over.procedure_hash:
        raise Unavailable(
            f"{name}, version {version}, was published with another text than this run's procedure names. Nothing was "
            "changed; publish the texts of one release."
        )
    events = core.settle(procedure, state, at)
    return procedure, event_store.record(state.seq + 1, events, by=WORKER, at=at)


def _append(
    run: Run, procedure: Procedure, before: RunState | None, after: RunState, recorded: Sequence[Recorded]
) -> None:
    head = event_store.append(run.pk, recorded)
    projections.project(run, procedure, before, after, head)
    notices.tell(run, procedure, before, after, recorded)
    crash("append.projected")
    if _touches_environment(recorded):
        # The environment before its servers, as starts and edits take them: else each might wait for the other.
        announce_environment(run.environment_id)
        _apply_effects(run, after, recorded)
        crash("append.effects-applied")
    event_store.announce("runbook", f"run:{run.pk}:{run.version}")
    if any(item.by.kind == "person" for item in recorded):
        transaction.on_commit(lambda: wake(run.pk))  # what a worker does it carries to its end by itself


QUIET = 5.0  # seconds without ringing after a broker did not answer: its time-out is not to be waited for at each act
_quiet_until = 0.0

# Set by `tasks.py`: how a worker is told to look at a run. Nothing depends on it: the reconciler finds what it missed.
_alarm: list[Callable[[int], None]] = []


def on_wake(alarm: Callable[[int], None]) -> None:
    """Register what rings a worker's bell when a run has changed."""
    _alarm[:] = [alarm]


def wake(run_id: int) -> None:
    """Ring the bell; a broker that is away is no error, for the run is found without it."""
    global _quiet_until  # one per process: each of its threads would wait in vain
    if time.monotonic() < _quiet_until:
        return
    for alarm in _alarm:
        crash("bell.before-publish")
        try:
            alarm(run_id)
            crash("bell.published")
        except Exception as trouble:  # whatever the broker's client raises
            _quiet_until = time.monotonic() + QUIET
            logger.warning("no worker could be told of run %s: %s", run_id, trouble)


_ENVIRONMENT_EVENTS = (
    e.RunStarted,
    e.FactSet,
    e.ExposureOpened,
    e.ExposureClosed,
    e.DutyOwed,
    e.DutyDone,
    e.TakenOver,
    e.BurdenInherited,
    e.RunEnded,
    e.RunRolledBack,
    e.RunAborted,
)


def _touches_environment(recorded: Iterable[Recorded]) -> bool:
    return any(isinstance(item.event, _ENVIRONMENT_EVENTS) for item in recorded)


def _apply_effects(run: Run, state: RunState, recorded: Iterable[Recorded]) -> None:
    """Effects of completed steps become facts of the environment: `<role>.version` and `<role>.mode`."""
    for item in recorded:
        event = item.event
        if not isinstance(event, e.FactSet) or not isinstance(event.value, str):
            continue
        role, _, field = event.name.partition(".")
        bound = state.started.bindings.get(role)
        if bound is not None and field in ("version", "mode"):
            Application.objects.filter(environment=run.environment_id, name=bound.application).update(
                **{field: event.value}
            )
            if bound.application_type == LCA and field == "version":
                Host.objects.filter(environment=run.environment_id, name=bound.host).update(
                    lca_version=event.value
                )


def announce_environment(environment_id: int) -> None:
    """Tell open pages of the environment that something on it has changed."""
    Environment.objects.filter(pk=environment_id).update(version=F("version") + 1, rules_due_at=None)
    version = Environment.objects.values_list("version", flat=True).get(pk=environment_id)
    event_store.announce("runbook", f"environment:{environment_id}:{version}")


# Starting.


def open_run(
    *,
    environment: Environment,
    procedure_version_id: int,
    procedure: Procedure,
    started: e.RunStarted,
    bound: dict[str, Application],
    first: Sequence[RunEvent],
    by: Actor,
    command_id: UUID,
) -> Done:
    """Write a new run with its first events. The caller has checked everything and holds the transaction."""
    now = timezone.now()
    run = Run.objects.create(
        environment=environment,
        procedure_id=procedure_version_id,
        title=started.title,
        rehearsal=started.rehearsal,
        change=started.change,
        status="running",
        starter_id=by.id,
        starter_name=by.name,
        started_at=now,
    )
    crash("start.row-written")
    register.run_started(run, started, by)
    for role, application in bound.items():
        run.bindings.create(role=role, application=application)
    recorded = event_store.record(1, [*core.start(procedure, started), *first], by=by, at=now)
    state = begin(recorded[0])
    for item in recorded[1:]:
        state = evolve(state, item)
    _append(run, procedure, None, state, recorded)
    try:
        CommandReceipt.objects.create(
            command_id=command_id, run=run, actor_id=by.id, act="Start", seq=state.seq, at=now
        )
    except IntegrityError as twice:
        raise OutOfTurn("This run is being started already. Look at the list of runs.") from twice
    crash("start.receipted")
    return Done(run.pk, state.seq)


def end_rolled_back(run_id: int, command: core.RollBack, by: Actor) -> None:
    """End a run whose work another one takes back; the caller holds its lock and the transaction."""
    run = _locked(run_id)
    procedure, state = _loaded(run)
    _store(run, procedure, state, [(by, core.decide(procedure, state, command, by))])


def started_before(command_id: UUID, by: Actor) -> Done | None:
    """The run that this start command opened already."""
    return _earlier(command_id, None, by, "Start")


# Workers.


def advance_run(run_id: int) -> bool:
    """Take in what was seen, find what follows, begin what a worker begins. True when anything happened.

    Everything it needs is in the database, so it may run at any time and any number of times. A run of which one worker
    after the other dies is parked: nothing happens then, and people see it.
    """
    with log_context.about(run=run_id):
        try:
            with attempt(f"run {run_id}") as was_parked:
                moved = _go_on(run_id)
        except Parked as parked:
            _park(run_id, parked)
            return False
        if was_parked and Run.objects.filter(pk=run_id).update(parked_since=None):
            touch([run_id])
    return moved


def _go_on(run_id: int) -> bool:
    crash("advance.before")
    moved = _advance(run_id)
    crash("advance.committed")
    while (step := _step_to_begin(run_id)) is not None and _begin_watched(run_id, step):
        _advance(run_id)
        moved = True
    return moved


def _park(run_id: int, parked: Parked) -> None:
    if Run.objects.filter(pk=run_id, parked_since=None).update(parked_since=timezone.now()):
        logger.error("%s. Until then nothing in this run opens by itself; the other runs go on.", parked)
        touch([run_id])


def report(run_id: int, events: Sequence[RunEvent], *, followed: tuple[int, UUID] | None = None) -> bool:
    """Put on the record what a worker saw beside the logs (the answers of probes), and find what follows.

    With `followed`, the agent that said it and the lease under which it was asked, only while that lease holds, else
    `LeaseLost`: whoever follows the agent by now may have recorded a newer answer already.
    """
    try:
        with attempt(f"run {run_id}"):
            moved = _advance(run_id, tuple(events), followed)
    except Parked:
        return False  # `advance_run` says so
    if moved:
        transaction.on_commit(lambda: wake(run_id))
    return moved


@transaction.atomic
def _advance(run_id: int, more: tuple[RunEvent, ...] = (), followed: tuple[int, UUID] | None = None) -> bool:
    run = _locked(run_id)
    if followed is not None:
        agents.followed(*followed)
    procedure, state = _loaded(run)
    if state.is_over:
        return False
    seen = core.Report(events=(*observations.since(run, procedure, state), *more))
    now = timezone.now()  # not before: no event is older than the line that it rests on
    events = core.decide(procedure, state, seen, WORKER)
    after = state
    for item in event_store.record(state.seq + 1, events, by=WORKER, at=now):
        after = evolve(after, item)
    events += core.settle(procedure, after, now)
    if events:
        crash("advance.decided")
        _store(run, procedure, state, [(WORKER, events)], at=now)
        operation.note_openings(run, events)
        crash("advance.before-commit")
    return bool(events)


def _step_to_begin(run_id: int) -> core.Begin | None:
    run = Run.objects.select_related("procedure").get(pk=run_id)
    if not run.waits_for_worker:
        return None
    procedure, state = _loaded(run)
    step = core.begins_with_watermark(procedure, state)
    if step is None:
        return None
    return core.Begin(step=step.id, visit=state.steps[step.id].visit)


def _begin_watched(run_id: int, command: core.Begin) -> bool:
    """Mark the log positions and begin the step as a worker. False when an agent does not answer: then it waits."""
    command = _with_watermarks(run_id, command)
    crash("begin.marked")
    with transaction.atomic():
        run = _locked(run_id)
        procedure, state = _loaded(run)
        command = replace(command, totals=_baselines(procedure, state, command, run.environment_id))
        try:
            events = core.decide(procedure, state, command, WORKER)
        except Refused as refusal:
            with log_context.about(step=command.step):
                logger.info("run %s: %s", run_id, refusal.message)
            return False
        _store(run, procedure, state, [(WORKER, events)])
        crash("begin.before-commit")
    crash("begin.committed")
    return bool(events)


def _with_watermarks(run_id: int, command: core.Begin) -> core.Begin:
    """The command with the log positions of the servers that its step watches, as their agents tell them now."""
    run = Run.objects.select_related("procedure").filter(pk=run_id).first()
    if run is None:
        return command
    procedure, state = _loaded(run)
    if not procedure.has_step(command.step):
        return command
    step = procedure.step(command.step)
    names = [*core.watched_at(state, step), *core.baselines_at(procedure, state, step)]
    return replace(command, watermarks=take_watermarks(run.environment_id, names))


def _baselines(
    procedure: Procedure, state: RunState, command: core.Begin, environment_id: int
) -> dict[str, int]:
    if not procedure.has_step(command.step):
        return {}
    names = core.baselines_at(procedure, state, procedure.step(command.step))
    known = Application.objects.filter(
        environment_id=environment_id, name__in=names, client_total__isnull=False
    )
    return {
        application.name: application.client_total
        for application in known
        if application.client_total is not None and not _started_since(application)
    }


def _started_since(application: Application) -> bool:
    """Whether the server was started after its last total: then that is a total of an earlier life."""
    last = application.process_changes.filter(state="up", before="down").order_by("-pk").first()
    return (
        last is not None
        and application.client_total_at is not None
        and last.seen_at > application.client_total_at
    )


def touch(run_ids: Iterable[int]) -> None:
    """Tell open pages that a run's log has new lines, though no event of the run came of them."""
    for run_id in run_ids:
        Run.objects.filter(pk=run_id).update(version=F("version") + 1)
        version = Run.objects.values_list("version", flat=True).get(pk=run_id)
        event_store.announce("runbook", f"run:{run_id}:{version}")
