"""People as the core sees them: an id, a name, and the roles that they have in an environment now."""

from __future__ import annotations

from datetime import datetime

from django.contrib.auth.models import AbstractUser
from django.utils import timezone

from upgrades.domain.run_events import Actor
from upgrades.models import Environment, Membership
from upgrades.queries.people import actor_id, actor_with

__all__ = ["actor_for", "actor_id"]


def actor_for(user: AbstractUser, environment: Environment) -> Actor:
    """The person with the rights held in `environment` at this moment; a rehearsal has those of its original.

    Whoever has a role there has the groups and the absent people too; a closed account has nothing.
    """
    owner = environment.rehearsal_of_id or environment.pk
    rows = Membership.objects.filter(environment_id=owner, user_id=user.pk, user__is_active=True)
    return actor_with(user, rows.values_list("role", flat=True), environment, timezone.now())


def late_roles(user: AbstractUser, environment: Environment, started_at: datetime) -> frozenset[str]:
    """Roles that the person got while a run was under way, unconfirmed: they sign nothing in it (trust.md 10.1)."""
    owner = environment.rehearsal_of_id or environment.pk
    rows = Membership.objects.filter(
        environment_id=owner, user_id=user.pk, given_at__gt=started_at, confirmed_by=""
    )
    return frozenset(rows.values_list("role", flat=True))
