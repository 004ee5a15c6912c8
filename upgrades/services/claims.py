"""Claims: an open run holds its servers and hosts, and the database refuses a second holder.

They are taken in the transaction that opens the run and released in the one that ends it, whatever ends it. So a
crash leaves neither a claim without its run nor an open run without its claims.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from upgrades.adapters.crash_points import crash
from upgrades.domain.environment import LCA
from upgrades.domain.refusal import OutOfTurn
from upgrades.models import Application, Claim, Run
from upgrades.services.agents import OVER


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run works on, by primary key. Whoever works on a host's LCA has all applications of that host."""

    applications: frozenset[int]
    hosts: frozenset[int]


def wanted(component: str, bound: Iterable[Application]) -> Wanted:
    """What a run of a procedure for `component` claims with these applications bound to its roles."""
    applications = list(bound)
    locals_ = [application for application in applications if application.type == LCA]
    if component == LCA and not locals_:
        locals_ = applications
    hosts = frozenset(application.host_id for application in locals_)
    beside = Application.objects.filter(host__in=hosts).values_list("pk", flat=True) if hosts else ()
    return Wanted(frozenset(application.pk for application in applications) | frozenset(beside), hosts)


def refuse_if_held(asked: Wanted) -> None:
    """Raise `OutOfTurn` with the name of the run that holds something of it; nothing happens when none does."""
    held = (
        Claim.objects.filter(
            Q(application__in=asked.applications) | Q(host__in=asked.hosts), released_at=None
        )
        .select_related("run", "application", "host")
        .order_by("pk")
        .first()
    )
    if held is not None:
        raise OutOfTurn(
            f"{held.application or held.host} belongs to run {held.run_id} (“{held.run.title}”), which is not over. "
            "End that run first, or choose other servers."
        )


def take(run_id: int, asked: Wanted) -> None:
    """Claim all of it for the run, or raise `OutOfTurn` when another run was first; the caller holds the transaction."""
    now = timezone.now()
    rows = [Claim(run_id=run_id, application_id=pk, claimed_at=now) for pk in sorted(asked.applications)]
    rows += [Claim(run_id=run_id, host_id=pk, claimed_at=now) for pk in sorted(asked.hosts)]
    try:
        with transaction.atomic():
            Claim.objects.bulk_create(rows)
    except IntegrityError as taken:
        refuse_if_held(asked)
        raise OutOfTurn(
            "Another run claimed one of these servers at the same moment. Look at the list of runs, then try again."
        ) from taken
    crash("claims.taken")


def release(run_id: int, *, at: datetime) -> None:
    """Give back what the run holds; twice is as good as once."""
    Claim.objects.filter(run_id=run_id, released_at=None).update(released_at=at)
    crash("claims.released")


def sweep() -> int:
    """Release what runs that are over still hold, should a row ever have been changed by hand; how many there were."""
    over = Run.objects.filter(status__in=OVER).values("pk")
    return Claim.objects.filter(released_at=None, run__in=over).update(released_at=timezone.now())
