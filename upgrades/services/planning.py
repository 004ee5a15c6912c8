"""Plans of record: a plan that somebody saved, and the runs that carry its items out."""

from __future__ import annotations

from dataclasses import asdict
from uuid import UUID

from django.contrib.auth.models import AbstractUser
from django.db import transaction
from django.utils import timezone

from upgrades.domain.plan import Item
from upgrades.domain.refusal import BadInput, NotAllowed, OutOfTurn
from upgrades.domain.run_events import Actor
from upgrades.models import CommandReceipt, Environment, PlanItem, PlanOfRecord, Run
from upgrades.queries.plan import Planned, planned
from upgrades.services.people import actor_for
from upgrades.services.runs import NoSuchRun, announce_environment

SAVE = "SavePlan"


@transaction.atomic
def save_plan(*, environment_id: int, digest: str, by: AbstractUser, command_id: UUID) -> int:
    """Make the plan that was shown (`digest`) the plan of record; gives its number. The one before is replaced.

    Raises `OutOfTurn` when the plan has changed since it was shown, or has nothing to do.
    """
    environment = _locked(environment_id, by)
    actor = actor_for(by, environment)
    if "operator" not in actor.roles:
        raise NotAllowed(
            f"{actor.name} may not save plans here: that takes the role operator in {environment.name}."
        )
    before = CommandReceipt.objects.filter(pk=command_id).first()
    if before is not None:
        return _number_of(before, actor)
    result = planned(environment)
    if result.digest != digest:
        raise OutOfTurn(
            "The environment has changed since this plan was made, so it was not saved. Look at the plan as it is now, then "
            "save that."
        )
    if not result.plan.items:
        raise OutOfTurn("There is nothing to do in this plan, so there is nothing to save.")
    record = _save(environment, result, actor)
    CommandReceipt.objects.create(
        command_id=command_id, actor_id=actor.id, act=SAVE, seq=record.number, at=record.saved_at
    )
    announce_environment(environment.pk)
    return record.number


def _locked(environment_id: int, by: AbstractUser) -> Environment:
    visible = Environment.objects.filter(pk=environment_id, rehearsal_of=None, memberships__user_id=by.pk)
    found = Environment.objects.select_for_update().filter(pk__in=visible.values("pk")).first()
    if found is None:
        raise NoSuchRun("There is no such environment, or you have no role in it.")
    return found


def _number_of(receipt: CommandReceipt, actor: Actor) -> int:
    if (receipt.actor_id, receipt.act) != (actor.id, SAVE):
        raise BadInput(
            "This form was used for something else before. Load the page again and repeat your act."
        )
    return receipt.seq


def _save(environment: Environment, result: Planned, actor: Actor) -> PlanOfRecord:
    now = timezone.now()
    newest = environment.plans.order_by("-number").first()
    environment.plans.filter(replaced_at=None).update(replaced_at=now)
    record = PlanOfRecord.objects.create(
        environment=environment,
        number=newest.number + 1 if newest is not None else 1,
        saved_at=now,
        saved_by_id=actor.id,
        saved_by_name=actor.name,
        digest=result.digest,
    )
    PlanItem.objects.bulk_create(
        _row(record, position, item) for position, item in enumerate(result.plan.items, 1)
    )
    return record


def _row(record: PlanOfRecord, position: int, item: Item) -> PlanItem:
    parts = [asdict(part) for part in item.parts]
    return PlanItem(
        plan=record,
        key=item.key,
        position=position,
        stage=item.stage,
        procedure=item.procedure,
        title=item.title[:300],
        reason=item.reason,
        sources=list(item.sources),
        servers=[part for part in parts if part["kind"] != "host"],
        hosts=[part for part in parts if part["kind"] == "host"],
        after=sorted({need.key for need in item.needs}),
    )


# Runs of a plan.


def item_for(environment: Environment, item_id: int | None, procedure: str) -> PlanItem | None:
    """The item of the plan in force that a run of `procedure` is to carry out; None when none was named.

    Raises `OutOfTurn` when the plan was replaced meanwhile, `BadInput` when it is no item for this run.
    """
    if item_id is None:
        return None
    owner = environment.rehearsal_of_id or environment.pk
    item = PlanItem.objects.select_related("plan").filter(pk=item_id, plan__environment_id=owner).first()
    if item is None:
        raise BadInput(
            "This environment has no such item in its plan. Open the start dialog from its plan page."
        )
    if item.plan.replaced_at is not None:
        raise OutOfTurn(
            f"Plan {item.plan.number} has been replaced since the start dialog was opened. Start the run from the plan in force."
        )
    if item.procedure != procedure and not (item.procedure, procedure) == _LONGER_WAY:
        raise BadInput(
            f"The plan asks for a run of {item.procedure or 'no procedure'} here, not of {procedure}. Start it from "
            "the plan page."
        )
    return item


# CSM-0 is an offer: the general procedure does the same work.
_LONGER_WAY = ("config-server-ha-same-schema", "config-server-ha")


def attach(run_id: int, item: PlanItem | None) -> None:
    """Have the run show at its item of the plan."""
    if item is not None:
        Run.objects.filter(pk=run_id).update(plan_item=item)
