"""Rolling back: out of a run that cannot go on, the rollback that fits is started, and the first run ends in the same act.

What the first run has open goes on in the second, with its own beginning, so that nothing is closed that is not over.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from django.contrib.auth.models import AbstractUser
from django.db import transaction
from django.utils import timezone

from upgrades.adapters import event_store
from upgrades.domain import rollback as way
from upgrades.domain import run as core
from upgrades.domain import run_events as e
from upgrades.domain.refusal import GateClosed, NotAllowed, OutOfTurn
from upgrades.domain.rollback import Choice
from upgrades.domain.wording import checked
from upgrades.models import CommandReceipt, ProcedureVersion
from upgrades.queries.procedures import procedure_of
from upgrades.services import claims, runs, starting
from upgrades.services.people import actor_for, actor_id
from upgrades.services.runs import Done, NoSuchRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What a person states about the present, because no record can say it for sure."""

    operational: bool
    former_database: bool
    copy: bool


def start_rollback(
    *,
    run_id: int,
    stated: Stated,
    procedure: str,
    reason: str,
    by: AbstractUser,
    command_id: UUID,
    head: str = "",
) -> Done:
    """Start the rollback that fits and end the run as “rolled back”; gives the new run.

    Its open exposures and duties, owned or not, go over to the new run. `procedure` is the one that the person saw:
    `OutOfTurn` when another one fits by now, when the run is over, or has nothing to take back. `GateClosed` says why
    there is no way back. A refused right goes on the run's record.
    """
    try:
        return _start(run_id, stated, procedure, reason, by, command_id, head)
    except NotAllowed as refusal:
        runs.record_refusal(run_id, core.RollBack(by_run=0, procedure=procedure, reason=reason), by, refusal)
        raise


def started_by(command_id: str, run_id: int, by: AbstractUser) -> Done | None:
    """The rollback that this command started from the run already; None when there is none, or it was somebody else's."""
    try:
        receipt = CommandReceipt.objects.filter(pk=UUID(command_id), actor_id=actor_id(by)).first()
    except ValueError:
        return None
    if receipt is None or receipt.run_id is None:
        return None
    first = event_store.load(receipt.run_id)[0].event
    if not isinstance(first, e.RunStarted) or first.takes_back != run_id:
        return None
    return Done(receipt.run_id, receipt.seq, repeated=True)


def _start(
    run_id: int, stated: Stated, wanted: str, reason: str, by: AbstractUser, command_id: UUID, head: str
) -> Done:
    with transaction.atomic():
        run, procedure, state = runs.locked(run_id)
        actor = actor_for(by, run.environment)
        if not actor.roles:
            raise NoSuchRun("There is no such run, or you have no role in its environment.")
        if "operator" not in actor.roles:
            raise NotAllowed(
                f"{actor.name} may not roll a run back: that takes the role operator in {run.environment.name}."
            )
        before = runs.started_before(command_id, actor)
        if before is not None:
            return before
        runs.must_be_at(run, head)
        if state.is_over:
            raise OutOfTurn(
                f"This run is over ({state.ending}). Start the rollback from the page of its environment."
            )
        reason = checked(reason, what="The reason", least=core.REASON)
        known = way.known(procedure, state)
        choice = known.choice(
            operational=stated.operational, former_database=stated.former_database, copy=stated.copy
        )
        if not choice.procedure:
            raise GateClosed(choice.reason)
        if choice.procedure != wanted:
            raise OutOfTurn(
                f"With these answers another way fits: {choice.procedure}. {choice.reason} Nothing was started; read it, then "
                "start it."
            )
        claims.release(
            run.pk, at=timezone.now()
        )  # so that the new run can have the servers, in this transaction
        done = starting.open_here(
            run.environment,
            choice.procedure,
            starting.Answers(
                bindings={
                    role: run.bindings.get(role=mine).application_id
                    for role, mine in known.roles(choice.procedure).items()
                },
                parameters=_parameters(choice, known.back_to),
                confirmations={},
                change=state.started.change,
                takes_back=run.pk,
                inherits=tuple(core.inheritance(procedure, state, run.pk)),
            ),
            actor,
            command_id,
            rehearsal=state.started.rehearsal,
        )
        runs.end_rolled_back(
            run.pk, core.RollBack(by_run=done.run, procedure=choice.procedure, reason=reason), actor
        )
        return done


def _parameters(choice: Choice, back_to: str) -> dict[str, str]:
    """The answers that its text asks for."""
    version = ProcedureVersion.objects.filter(procedure=choice.procedure).order_by("-version").first()
    if version is None:
        raise OutOfTurn(
            f"The procedure {choice.procedure} is not published here. Publish the texts of this release."
        )
    asked = {parameter.name for parameter in procedure_of(version).parameters}
    answers = {"back-to": back_to, **choice.parameters}
    return {name: text for name, text in answers.items() if name in asked}
