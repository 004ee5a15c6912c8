"""People as the core sees them: an id, a name, and the roles that they have in an environment now."""

from __future__ import annotations

from datetime import datetime

from django.contrib.auth.models import AbstractUser

from upgrades.domain.run_events import Actor
from upgrades.models import Environment, Membership


def actor_id(user: AbstractUser) -> str:
    return f"user:{user.pk}"


def actor_for(user: AbstractUser, environment: Environment) -> Actor:
    """The person with the roles held in `environment` at this moment; a rehearsal has those of its original."""
    owner = environment.rehearsal_of_id or environment.pk
    roles = Membership.objects.filter(environment_id=owner, user_id=user.pk).order_by("role")
    name = user.get_full_name() or user.get_username()
    return Actor(id=actor_id(user), name=name, roles=tuple(roles.values_list("role", flat=True)))


def late_roles(user: AbstractUser, environment: Environment, started_at: datetime) -> frozenset[str]:
    """Roles that the person got while a run was under way, unconfirmed: they sign nothing in it (trust.md 10.1)."""
    owner = environment.rehearsal_of_id or environment.pk
    rows = Membership.objects.filter(
        environment_id=owner, user_id=user.pk, given_at__gt=started_at, confirmed_by=""
    )
    return frozenset(rows.values_list("role", flat=True))
