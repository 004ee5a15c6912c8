"""Signatures that are wanted: approvals and deviations, and whether this person may give them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import AbstractUser
from django.db.models import Exists, F, OuterRef, QuerySet
from django.db.models.functions import Coalesce

from upgrades.models import Membership, RunRequest
from upgrades.queries.access import visible_environments


@dataclass(frozen=True, slots=True)
class Request:
    """A signature that is wanted. `why_not` says why this person cannot give it; empty: it waits for this person."""

    run: int
    run_title: str
    environment: str
    rehearsal: bool
    kind: str
    gate: str
    title: str
    role: str
    signed: int
    needed: int
    since: datetime
    starter: str
    change: str
    why_not: str


@dataclass(frozen=True, slots=True)
class Inbox:
    mine: tuple[Request, ...]
    others: tuple[Request, ...]


def inbox(user: AbstractUser, person: str) -> Inbox:
    """All requests in the environments that the person may see (`person`: the id that runs know the user by)."""
    rows = (
        RunRequest.objects.filter(environment__in=visible_environments(user))
        .select_related("run", "environment")
        .order_by("run__rehearsal", "since", "pk")
    )
    roles: defaultdict[int, set[str]] = defaultdict(set)
    for environment, role in Membership.objects.filter(user_id=user.pk).values_list("environment_id", "role"):
        roles[environment].add(role)
    found = [
        _request(row, roles[row.environment.rehearsal_of_id or row.environment_id], person) for row in rows
    ]
    return Inbox(
        mine=tuple(request for request in found if not request.why_not),
        others=tuple(request for request in found if request.why_not),
    )


def _request(row: RunRequest, roles: set[str], person: str) -> Request:
    return Request(
        run=row.run_id,
        run_title=row.run.title,
        environment=row.environment.name,
        rehearsal=row.run.rehearsal,
        kind=row.kind,
        gate=row.gate,
        title=row.title,
        role=row.role,
        signed=row.signed,
        needed=row.needed,
        since=row.since,
        starter=row.run.starter_name,
        change=row.run.change,
        why_not=_why_not(row, roles, person),
    )


def _why_not(row: RunRequest, roles: set[str], person: str) -> str:
    if row.role not in roles:
        mine = " and ".join(sorted(roles))
        return f"It takes the role {row.role}; your role here is {mine}."
    if person == row.run.starter_id:
        return "You started this run, so somebody else signs."
    if person in row.barred:
        return "You carried out a part of this run or wrote its procedure, so somebody else signs."
    return ""


def waiting_for(user: AbstractUser, person: str) -> QuerySet[RunRequest]:
    """The requests that this person may sign now."""
    owner = Coalesce(F("environment__rehearsal_of_id"), F("environment_id"))
    allowed = Membership.objects.filter(
        user_id=user.pk, environment_id=OuterRef("owner"), role=OuterRef("role")
    )
    return (
        RunRequest.objects.annotate(owner=owner)
        .filter(Exists(allowed))
        .exclude(barred__contains=[person])
        .order_by("since")
    )
