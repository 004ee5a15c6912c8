"""Who watches over the installation: programs with the token or from named networks, and people who operate it."""

from __future__ import annotations

from ipaddress import ip_address
from secrets import compare_digest

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.http import HttpRequest

from upgrades.models import Membership

OPERATE = (Membership.Role.OPERATOR, Membership.Role.ADMINISTRATOR)


def is_watching_program(request: HttpRequest) -> bool:
    """By the token of the settings, or by the network that it asks from.

    A request that came through a proxy shows the token: whose network it comes from, the proxy only repeats.
    """
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if settings.METRICS_TOKEN and kind.lower() == "bearer":
        return compare_digest(token.strip().encode(), settings.METRICS_TOKEN.encode())
    if "Forwarded" in request.headers or "X-Forwarded-For" in request.headers:
        return False
    try:
        address = ip_address(request.META.get("REMOTE_ADDR", ""))
    except ValueError:
        return False
    return any(address in network for network in settings.METRICS_NETWORKS)


def operates(user: AbstractUser) -> bool:
    """Whether this person operates or administers an environment here, or the installation itself."""
    return user.is_active and (
        user.is_superuser or Membership.objects.filter(user_id=user.pk, role__in=OPERATE).exists()
    )
