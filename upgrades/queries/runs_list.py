"""The list of all runs that a person may see, aborted ones included."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import AbstractUser
from django.core.paginator import Page, Paginator
from django.db.models import QuerySet

from upgrades.models import Environment, Run
from upgrades.queries.access import visible_environments, visible_runs
from upgrades.queries.run_lines import OVER, RunLine, run_lines

PER_PAGE = 25
STATUSES = (
    ("open", "All that are open"),
    ("running", "Running"),
    ("held", "On hold"),
    ("closing", "Closing"),
    ("ended", "Ended"),
    ("aborted", "Aborted"),
)
KINDS = (("live", "Live"), ("rehearsal", "Rehearsal"))


@dataclass(frozen=True, slots=True)
class Filters:
    """What the list is narrowed to; empty values narrow nothing."""

    status: str = ""
    environment: int | None = None
    kind: str = ""
    since: datetime | None = None
    before: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunsPage:
    """One page of lines; `page` is Django's, for the pager."""

    lines: tuple[RunLine, ...]
    page: Page[Run]

    @property
    def count(self) -> int:
        return self.page.paginator.count


def choosable_environments(user: AbstractUser) -> QuerySet[Environment]:
    """The environments to filter by: a copy counts as what it is a copy of."""
    return visible_environments(user).filter(rehearsal_of=None).order_by("name", "pk")


def runs_page(user: AbstractUser, filters: Filters, number: str) -> RunsPage:
    """Page `number` of the runs, newest first; a number that makes no sense gives the first or the last page."""
    page = Paginator(matching_runs(user, filters), PER_PAGE).get_page(number)
    return RunsPage(run_lines(page.object_list), page)


def matching_runs(user: AbstractUser, filters: Filters) -> QuerySet[Run]:
    """All that fit, newest first, each with its environment."""
    runs = visible_runs(user).select_related("environment").order_by("-started_at", "-pk")
    if filters.status == "open":
        runs = runs.exclude(status__in=OVER)
    elif filters.status:
        runs = runs.filter(status=filters.status)
    if filters.kind:
        runs = runs.filter(rehearsal=filters.kind == "rehearsal")
    if filters.environment is not None:
        runs = runs.filter(environment__in=_with_copies(filters.environment))
    if filters.since is not None:
        runs = runs.filter(started_at__gte=filters.since)
    if filters.before is not None:
        runs = runs.filter(started_at__lt=filters.before)
    return runs


def _with_copies(environment_id: int) -> QuerySet[Environment]:
    own = Environment.objects.filter(pk=environment_id)
    return own | Environment.objects.filter(rehearsal_of_id=environment_id)
