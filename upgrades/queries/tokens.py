"""API tokens as pages list them."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.db.models import Q, QuerySet
from django.utils import timezone

from upgrades.models import ApiToken, Environment, Membership


def tokens_of(user: AbstractUser) -> QuerySet[ApiToken]:
    """All tokens of a person, those that count first."""
    return (
        ApiToken.objects.filter(user_id=user.pk).select_related("environment").order_by("-created_at", "-pk")
    )


def usable(user: AbstractUser) -> QuerySet[ApiToken]:
    """The person's tokens that count now."""
    return ApiToken.objects.filter(user_id=user.pk, revoked_at=None, expires_at__gt=timezone.now())


def tokens_in(environment: Environment) -> QuerySet[ApiToken]:
    """The tokens of everybody with a role in the environment that reach it."""
    owners = Membership.objects.filter(environment=environment).values("user_id")
    here = Q(environment=None) | Q(environment=environment)
    return ApiToken.objects.filter(here, user_id__in=owners).select_related("user", "environment")


def environments_for_tokens(user: AbstractUser) -> QuerySet[Environment]:
    """Where the person has a role: what a token can be limited to."""
    mine = Membership.objects.filter(user_id=user.pk).values("environment_id")
    return Environment.objects.filter(pk__in=mine, rehearsal_of=None).order_by("name", "pk")
