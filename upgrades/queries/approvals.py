"""Signatures that are wanted: approvals and deviations, and whether this person may give them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import AbstractUser
from django.db.models import QuerySet
from django.utils import timezone

from upgrades.domain.run_events import Actor
from upgrades.models import Environment, Membership, RunRequest
from upgrades.queries.access import visible_environments
from upgrades.queries.people import Held, actor_id, actor_with, held_by, original_of


@dataclass(frozen=True, slots=True)
class Request:
    """A signature that is wanted. `why_not` says why this person cannot give it; empty: it waits for this person."""

    run: int
    run_title: str
    environment: str
    rehearsal: bool
    kind: str
    step: str
    gate: str
    number: int
    title: str
    whom: str
    signed: int
    needed: int
    since: datetime
    due_at: datetime | None
    starter: str
    change: str
    why_not: str
    ahead: bool
    emergency: bool


@dataclass(frozen=True, slots=True)
class Inbox:
    """`mine` waits for this person now; `ahead` may be signed before its turn; `others` waits for somebody else."""

    mine: tuple[Request, ...]
    ahead: tuple[Request, ...]
    others: tuple[Request, ...]


def inbox(user: AbstractUser, person: str) -> Inbox:
    """All requests in the environments that the person may see (`person`: the id that runs know the user by)."""
    found = [_request(row, why_not) for row, why_not in _requests(user, person)]
    return Inbox(
        mine=tuple(request for request in found if not request.why_not and not request.ahead),
        ahead=tuple(request for request in found if not request.why_not and request.ahead),
        others=tuple(request for request in found if request.why_not),
    )


def count_waiting(user: AbstractUser) -> int:
    """How many requests wait for this person now: the number beside “Approvals”. It falls as it rises."""
    return sum(1 for row, why_not in _requests(user, actor_id(user)) if not why_not and not row.ahead)


def _rows(user: AbstractUser) -> QuerySet[RunRequest]:
    return (
        RunRequest.objects.filter(environment__in=visible_environments(user))
        .select_related("run", "environment__rehearsal_of")
        .order_by("run__rehearsal", "since", "pk")
    )


def _requests(user: AbstractUser, person: str) -> list[tuple[RunRequest, str]]:
    """The open requests that the person may see, each with why this person cannot sign it now."""
    rows = list(_rows(user))
    if not rows:
        return []
    rights = _rights(user, {original_of(row.environment) for row in rows})
    return [(row, _why_not(row, rights[original_of(row.environment).pk], person)) for row in rows]


def _rights(user: AbstractUser, environments: Iterable[Environment]) -> dict[int, Actor]:
    """The person as each environment knows this person, by the environment's id."""
    roles: dict[int, list[Held]] = {}
    for row in Membership.objects.filter(user_id=user.pk):
        roles.setdefault(row.environment_id, []).append(held_by(row))
    now = timezone.now()
    return {
        environment.pk: actor_with(user, roles.get(environment.pk, ()), environment, now)
        for environment in environments
    }


def _request(row: RunRequest, why_not: str) -> Request:
    return Request(
        run=row.run_id,
        run_title=row.run.title,
        environment=row.environment.name,
        rehearsal=row.run.rehearsal,
        kind=row.kind,
        step=row.step,
        gate=row.gate,
        number=row.number,
        title=row.title,
        whom=row.whom or f"the role {row.role}",
        signed=row.signed,
        needed=row.needed,
        since=row.since,
        due_at=row.due_at,
        starter=row.run.starter_name,
        change=row.run.change,
        why_not=why_not,
        ahead=row.ahead,
        emergency=row.emergency,
    )


def _why_not(row: RunRequest, known: Actor, person: str) -> str:
    me = known.signing(row.run.started_at)
    wanted = set(row.of or [row.role])
    # The second person of an emergency acts by a role of its own, as the core has it.
    deputies = () if row.emergency else [one for one in me.stands_for if one.id not in row.barred]
    rights = [set(me.roles), *(set(one.roles) for one in deputies)]
    if row.closed:
        return "It was rejected, or not decided in time. It waits for an operator to ask again."
    if row.run.status == "held" and row.kind == "approval":
        return "The run is on hold; nothing is approved before it is resumed."
    if person in row.signers:
        return "You signed it. It waits for others."
    if not any(mine & wanted for mine in rights):
        mine = " and ".join(role for role in known.roles if not role.startswith("group:"))
        why = f"It takes {row.whom or f'the role {row.role}'}; your role here is {mine}."
        return f"{why} {known.why_late(row.run.started_at)}".strip()
    if person == row.run.starter_id:
        return "You started this run, so somebody else signs."
    if person in row.barred:
        return "You carried out a part of this run or wrote its procedure, so somebody else signs."
    return ""
