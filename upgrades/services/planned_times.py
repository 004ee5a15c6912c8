"""When the items of a plan are meant to be carried out: set by operators, told to calendars. They open and shut nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from django.contrib.auth.models import AbstractUser
from django.db import transaction
from django.utils import timezone

from upgrades.adapters import register
from upgrades.domain.refusal import BadInput, NotAllowed, VersionMoved
from upgrades.models import Environment, PlanItem, PlannedTime
from upgrades.queries.calendar import plan_number, timed_items, times_version
from upgrades.queries.environment_export import changes_book
from upgrades.services.people import actor_for
from upgrades.services.runs import NoSuchRun

ROLE = "operator"
LONGEST = timedelta(days=7)
Span = tuple[datetime, datetime]


@transaction.atomic
def set_times(
    *, environment_id: int, times: Mapping[str, Span | None], by: AbstractUser, seen: str = ""
) -> int:
    """Plan items of the plan in force, by their keys, for a time or for none; gives how many changed.

    With `seen`, the version that its sender knows (queries.calendar.times_version), `VersionMoved` when it is another.
    """
    environment = Environment.objects.select_for_update().filter(pk=environment_id, rehearsal_of=None).first()
    actor = actor_for(by, environment) if environment is not None else None
    if environment is None or actor is None or not actor.roles:
        raise NoSuchRun("There is no such environment, or you have no role in it.")
    if ROLE not in actor.roles:
        raise NotAllowed(f"Planning when runs are carried out takes the role operator in {environment.name}.")
    if seen and times_version(plan_number(environment), timed_items(environment)) != seen:
        raise VersionMoved(
            "The plan or its times were changed since you looked. Nothing was done. Read them again, then decide anew."
        )
    rows = PlanItem.objects.filter(plan__environment=environment, plan__replaced_at=None)
    titles = dict(rows.values_list("key", "title"))
    known = {row.key: row for row in environment.planned_times.all()}
    changes = []
    for key, span in times.items():
        if key not in titles:
            raise BadInput(
                f"The plan in force has no item “{key[:60]}”. Nothing was changed. Load it again.",
                f"times.{key[:60]}",
            )
        before = known.get(key)
        if span == ((before.begins_at, before.ends_at) if before is not None else None):
            continue
        _check(span)
        changes.append((key, before, span))
    for key, before, span in changes:
        _write(environment, key, before, span, actor.name)
    if changes:
        lines = [
            _line(titles[key], (before.begins_at, before.ends_at) if before else None, span)
            for key, before, span in changes
        ]
        register.enter(changes_book(environment.pk), "plan.timed", by=actor, body={"changes": lines})
    return len(changes)


def _check(span: Span | None) -> None:
    if span is None:
        return
    begins_at, ends_at = span
    if ends_at <= begins_at:
        raise BadInput("A run ends after it begins. Write an end that is later.")
    if ends_at - begins_at > LONGEST:
        raise BadInput("A run is planned for seven days at most. Look at the dates again.")


def _write(
    environment: Environment, key: str, before: PlannedTime | None, span: Span | None, name: str
) -> None:
    if span is None:
        if before is not None:
            before.delete()
        return
    revision = before.revision + 1 if before is not None else 0
    values = {"begins_at": span[0], "ends_at": span[1], "revision": revision, "set_at": timezone.now()}
    PlannedTime.objects.update_or_create(
        environment=environment, key=key, defaults={**values, "set_by_name": name}
    )


def _line(title: str, before: Span | None, after: Span | None) -> dict[str, object]:
    act = "added" if before is None else "removed" if after is None else "changed"
    field = {"field": "planned", "title": "Planned (UTC)", "before": _words(before), "after": _words(after)}
    return {"kind": "planned time", "act": act, "name": title, "fields": [field]}


def _words(span: Span | None) -> str:
    return f"{span[0]:%Y-%m-%d %H:%M} to {span[1]:%Y-%m-%d %H:%M}" if span is not None else ""
