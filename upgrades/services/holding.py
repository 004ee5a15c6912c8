"""Who holds a step is handed over, and who has the page of a run open."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.contrib.auth.models import AbstractUser
from django.utils import timezone

from upgrades.domain import run as core
from upgrades.domain.run_events import Actor
from upgrades.models import Presence, Run
from upgrades.queries.people import members, name_of
from upgrades.services import runs
from upgrades.services.runs import Done, NoSuchRun

ASK_EVERY = 30  # seconds between two signs of life of an open page
GONE_AFTER = timedelta(seconds=75)  # a browser lets the timers of a hidden page fire once a minute


def hand_over(
    *,
    run_id: int,
    step: str,
    visit: int,
    to: str,
    reason: str,
    by: AbstractUser,
    command_id: UUID,
    head: str = "",
) -> Done:
    """Give the step to the person with the id `to`. BadInput when this person is no operator of the environment."""
    run = Run.objects.select_related("environment__rehearsal_of").filter(pk=run_id).first()
    if run is None:
        raise NoSuchRun("There is no such run, or you have no role in its environment.")
    person = next((one for one in members(run.environment) if one.id == to), None)
    if person is None:
        person = Actor(
            id=to, name="This person"
        )  # without any right: the core says so, after it has looked who asks
    command = core.HandOver(step=step, visit=visit, to=person, reason=reason)
    return runs.act(run_id=run_id, command=command, by=by, command_id=command_id, head=head)


def present(run_id: int, user: AbstractUser) -> list[str]:
    """Note that this person has the page of the run open, and name the others who have it open, too."""
    now = timezone.now()
    Presence.objects.bulk_create(
        [Presence(run_id=run_id, user_id=user.pk, name=name_of(user)[:200], seen_at=now)],
        update_conflicts=True,
        unique_fields=["run", "user"],
        update_fields=["name", "seen_at"],
    )
    others = Presence.objects.filter(run_id=run_id, seen_at__gt=now - GONE_AFTER).exclude(user_id=user.pk)
    return list(others.order_by("name").values_list("name", flat=True))
