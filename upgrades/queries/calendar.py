"""What a person's calendar shows: the planned times of the plans in force, where this person has a role."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import AbstractUser

from upgrades.domain.record import digest
from upgrades.models import Environment, PlanItem, PlannedTime, Run
from upgrades.queries.access import visible_environments
from upgrades.queries.run_lines import OVER

MOST = 500


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run that is planned for a time. `run` is the live run that carries it out already, `is_over` whether it is."""

    id: int
    environment: int
    environment_name: str
    key: str
    title: str
    plan: int
    number: int
    begins_at: datetime
    ends_at: datetime
    revision: int
    set_at: datetime
    set_by: str
    run: int | None
    is_over: bool


@dataclass(frozen=True, slots=True)
class TimedItem:
    """An item of the plan in force on the page of times."""

    key: str
    number: int
    title: str
    begins_at: datetime | None
    ends_at: datetime | None
    set_by: str


def planned_runs(user: AbstractUser, most: int | None = MOST) -> list[PlannedRun]:
    """The planned runs that the person may see, by time, of the `most` that begin last; four queries."""
    environments = {
        row.pk: row for row in visible_environments(user).filter(rehearsal_of=None).only("pk", "name")
    }
    times = list(PlannedTime.objects.filter(environment__in=environments).order_by("-begins_at", "pk")[:most])
    items = {
        (item.plan.environment_id, item.key): item
        for item in PlanItem.objects.filter(
            plan__environment__in=environments, plan__replaced_at=None
        ).select_related("plan")
    }
    shown = [time for time in times if (time.environment_id, time.key) in items]
    runs = _runs(items[time.environment_id, time.key].pk for time in shown)
    found = [
        _planned(environments[time.environment_id], items[time.environment_id, time.key], time, runs)
        for time in shown
    ]
    return sorted(found, key=lambda one: (one.begins_at, one.environment, one.number))


def _runs(items: Iterable[int]) -> dict[int, Run]:
    """The newest live run of each item."""
    rows = Run.objects.filter(plan_item__in=list(items), rehearsal=False).order_by("started_at", "pk")
    return {row.plan_item_id: row for row in rows if row.plan_item_id is not None}


def _planned(environment: Environment, item: PlanItem, time: PlannedTime, runs: dict[int, Run]) -> PlannedRun:
    run = runs.get(item.pk)
    return PlannedRun(
        id=time.pk,
        environment=environment.pk,
        environment_name=environment.name,
        key=item.key,
        title=item.title,
        plan=item.plan.number,
        number=item.position,
        begins_at=time.begins_at,
        ends_at=time.ends_at,
        revision=time.revision,
        set_at=time.set_at,
        set_by=time.set_by_name,
        run=run.pk if run is not None else None,
        is_over=run is not None and run.status in OVER,
    )


def plan_number(environment: Environment) -> int:
    """The number of the plan in force; 0 where none is."""
    plan = environment.plans.filter(replaced_at=None).first()
    return plan.number if plan is not None else 0


def times_version(plan: int, items: Iterable[TimedItem]) -> str:
    """The hash of the plan in force and its times: another one after each change of either."""
    times = {item.key: [str(item.begins_at), str(item.ends_at)] for item in items}
    return digest({"plan": plan, "times": times})


def timed_items(environment: Environment) -> list[TimedItem]:
    """Every item of the plan in force with its planned time, if it has one; two queries."""
    times = {time.key: time for time in environment.planned_times.all()}
    rows = PlanItem.objects.filter(plan__environment=environment, plan__replaced_at=None).order_by("position")
    found = []
    for item in rows:
        time = times.get(item.key)
        found.append(
            TimedItem(
                key=item.key,
                number=item.position,
                title=item.title,
                begins_at=time.begins_at if time is not None else None,
                ends_at=time.ends_at if time is not None else None,
                set_by=time.set_by_name if time is not None else "",
            )
        )
    return found
