"""People as the core sees them: an id, a name, and the roles that they have in an environment now."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.utils import timezone

from upgrades.domain.run_events import Actor
from upgrades.models import Environment, Membership
from upgrades.queries.people import actor_id, actor_with, held_by

__all__ = ["actor_for", "actor_id"]


def actor_for(user: AbstractUser, environment: Environment) -> Actor:
    """The person with the rights held in `environment` at this moment; a rehearsal has those of its original.

    Whoever has a role there has the groups and the absent people too; a closed account has nothing.
    """
    owner = environment.rehearsal_of_id or environment.pk
    rows = Membership.objects.filter(environment_id=owner, user_id=user.pk, user__is_active=True)
    return actor_with(user, map(held_by, rows), environment, timezone.now())
