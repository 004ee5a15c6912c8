"""Who may see what. Rights are decided here, in the query: what is not there and what is not yours look the same."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.db.models import Q, QuerySet

from upgrades.models import Environment, Membership, Run


def visible_environments(user: AbstractUser) -> QuerySet[Environment]:
    """The environments in which the person has a role, and their copies for rehearsals."""
    mine = Membership.objects.filter(user_id=user.pk).values("environment_id")
    return Environment.objects.filter(Q(pk__in=mine) | Q(rehearsal_of_id__in=mine))


def visible_runs(user: AbstractUser) -> QuerySet[Run]:
    """The runs in those environments."""
    return Run.objects.filter(environment_id__in=visible_environments(user).values("pk"))


def roles_in(user: AbstractUser, environment: Environment) -> frozenset[str]:
    """The roles that the person has now in the environment, or in the one that it is a copy of."""
    owner = environment.rehearsal_of_id or environment.pk
    return frozenset(
        Membership.objects.filter(environment_id=owner, user_id=user.pk).values_list("role", flat=True)
    )
