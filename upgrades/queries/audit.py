"""The auditor's list: every start of a run, refused ones included, numbered without holes for each environment."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

from django.contrib.auth.models import AbstractUser
from django.core.paginator import Page, Paginator
from django.db.models import Count, Max, Q, QuerySet

from upgrades.adapters import register
from upgrades.domain.report import Report, Table, moment
from upgrades.domain.run_events import AttemptRefused, DeviationAsked, DeviationSigned
from upgrades.models import Environment, Membership, RegisterEntry, Run, RunEvent, SavedSearch
from upgrades.queries.run_lines import RunLine, run_lines

PER_PAGE = 50
ROLES = (Membership.Role.AUDITOR, Membership.Role.ADMINISTRATOR)
REFUSED = "refused"
STATUSES = (
    ("running", "Running"),
    ("held", "On hold"),
    ("closing", "Closing"),
    ("ended", "Ended"),
    ("aborted", "Aborted"),
    (REFUSED, "Start refused"),
)
KINDS = (("live", "Live"), ("rehearsal", "Rehearsal"))
ONLY = (
    ("deviations", "With deviations"),
    ("overrides", "With an overridden gate or a skipped step"),
    ("refusals", "With refused attempts"),
    ("emergencies", "Emergency changes and overrides"),
    ("reviews", "With a review that nobody has closed"),
)
_COUNTED = (DeviationAsked.kind, DeviationSigned.kind, AttemptRefused.kind)


def audited_environments(user: AbstractUser) -> QuerySet[Environment]:
    """Where the person is auditor or administrator; copies for rehearsals are in the books of their originals."""
    mine = Membership.objects.filter(user_id=user.pk, role__in=ROLES).values("environment_id")
    return Environment.objects.filter(pk__in=mine, rehearsal_of=None).order_by("name", "pk")


def may_audit(user: AbstractUser) -> bool:
    return Membership.objects.filter(user_id=user.pk, role__in=ROLES).exists()


@dataclass(frozen=True, slots=True)
class Filters:
    """What the list is narrowed to; empty values narrow nothing. Days are whole days in UTC."""

    environment: int | None = None
    since: date | None = None
    until: date | None = None
    status: str = ""
    kind: str = ""
    person: str = ""
    only: str = ""

    @property
    def words(self) -> str:
        """How the list was made, for those who read it elsewhere."""
        parts = [
            f"from {self.since}" if self.since else "",
            f"to {self.until}" if self.until else "",
            f"state {dict(STATUSES).get(self.status, '')}" if self.status else "",
            f"kind {dict(KINDS).get(self.kind, '')}" if self.kind else "",
            f"with {self.person} taking part" if self.person else "",
            dict(ONLY).get(self.only, "").lower(),
        ]
        return ", ".join(part for part in parts if part) or "no filter: every start"


@dataclass(frozen=True, slots=True)
class AuditLine:
    """A start in the list. `run` is None for a refused one; `reason` is why it was refused, held or aborted."""

    number: int
    environment: str
    at: datetime
    run: int | None
    title: str
    rehearsal: bool
    status: str
    tone: str
    by: str
    roles: str
    change: str
    category: str
    reason: str
    ended_at: datetime | None
    deviations: int = 0
    refusals: int = 0


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of one environment's list. `missing` is empty unless somebody took entries out."""

    environment: str
    newest: int
    missing: int


def entries_of(environments: Iterable[Environment], filters: Filters) -> QuerySet[RegisterEntry]:
    """The entries of the books of runs that fit, newest first."""
    ids = [environment.pk for environment in environments]
    if filters.environment is not None:
        ids = [environment_id for environment_id in ids if environment_id == filters.environment]
    books = [register.runs_book(environment_id) for environment_id in ids]
    entries = RegisterEntry.objects.filter(book__in=books).order_by("-at", "-pk")
    if filters.since is not None:
        entries = entries.filter(at__gte=datetime.combine(filters.since, time(), UTC))
    if filters.until is not None:
        entries = entries.filter(at__lte=datetime.combine(filters.until, time.max, UTC))
    return _by_run(entries, filters)


def _by_run(entries: QuerySet[RegisterEntry], filters: Filters) -> QuerySet[RegisterEntry]:
    if filters.status == REFUSED:
        entries = entries.filter(run=None)
    elif filters.status:
        entries = entries.filter(run__in=Run.objects.filter(status=filters.status).values("pk"))
    if filters.kind:
        told = '"rehearsal":true' if filters.kind == "rehearsal" else '"rehearsal":false'
        entries = entries.filter(text__contains=told)
    if filters.person:
        # Whoever acted stands in each text as {"id":…,"kind":"person","name":…}.
        name = f'"kind":"person","name":"[^"]*{re.escape(filters.person)}'
        acted = RunEvent.objects.filter(text__iregex=name).values("run")
        entries = entries.filter(Q(run__in=acted) | Q(run=None, text__iregex=name))
    if filters.only in ("emergencies", "reviews"):
        column = "emergencies" if filters.only == "emergencies" else "reviews_open"
        entries = entries.filter(run__in=Run.objects.filter(**{f"{column}__gt": 0}).values("pk"))
    elif filters.only:
        entries = entries.filter(run__in=_with(filters.only).values("run"))
    return entries


def _with(only: str) -> QuerySet[RunEvent]:
    match only:
        case "deviations":
            return RunEvent.objects.filter(kind=DeviationAsked.kind)
        case "overrides":
            # Not one set aside for a doubt, nor a corrected value: no gate opened by these.
            opening = Q(text__contains='"what":"override"') | Q(text__contains='"what":"emergency"')
            asked = RunEvent.objects.filter(
                opening | Q(text__contains='"what":"skip"'), kind=DeviationAsked.kind
            )
            return RunEvent.objects.filter(kind=DeviationSigned.kind, run__in=asked.values("run"))
        case _:
            return RunEvent.objects.filter(kind=AttemptRefused.kind)


@dataclass(frozen=True, slots=True)
class AuditPage:
    lines: tuple[AuditLine, ...]
    page: Page[RegisterEntry]
    numbers: tuple[Numbers, ...]

    @property
    def count(self) -> int:
        return self.page.paginator.count


def audit_page(user: AbstractUser, filters: Filters, number: str) -> AuditPage:
    """One page of the list, and whether the numbers have holes."""
    environments = list(audited_environments(user))
    page = Paginator(entries_of(environments, filters), PER_PAGE).get_page(number)
    return AuditPage(audit_lines(page.object_list, environments), page, numbers_of(environments))


def numbers_of(environments: Sequence[Environment]) -> tuple[Numbers, ...]:
    """For each environment with any start: the newest number and how many are missing below it."""
    books = {register.runs_book(environment.pk): environment.name for environment in environments}
    rows = (
        RegisterEntry.objects.filter(book__in=books)
        .values("book")
        .annotate(newest=Max("number"), there=Count("pk"))
    )
    return tuple(
        Numbers(books[row["book"]], row["newest"], row["newest"] - row["there"])
        for row in sorted(rows, key=lambda row: books[row["book"]])
    )


def audit_lines(rows: Iterable[RegisterEntry], environments: Sequence[Environment]) -> tuple[AuditLine, ...]:
    """The lines of the entries, in the order given."""
    entries = [register.read(row) for row in rows]
    ids = [entry.run for entry in entries if entry.run is not None]
    lines = {
        line.id: line for line in run_lines(Run.objects.filter(pk__in=ids).select_related("environment"))
    }
    counts: Counter[tuple[int, str]] = Counter()
    counted = RunEvent.objects.filter(run__in=ids, kind__in=_COUNTED).values_list("run", "kind")
    for run, kind, there in counted.annotate(there=Count("pk")).order_by():
        counts[run, kind] = there
    names = {register.runs_book(environment.pk): environment.name for environment in environments}
    return tuple(_line(entry, names[entry.book], lines, counts) for entry in entries)


def _line(
    entry: register.Entry,
    environment: str,
    lines: Mapping[int, RunLine],
    counts: Mapping[tuple[int, str], int],
) -> AuditLine:
    told = entry.body
    common: dict[str, Any] = {
        "number": entry.number,
        "environment": environment,
        "at": entry.at,
        "run": entry.run,
        "rehearsal": bool(told["rehearsal"]),
        "by": entry.by.how,
        "roles": ", ".join(entry.by.roles) or "none",
        "change": told["change"],
        "category": told.get("category", ""),
    }
    if entry.run is None:
        title = f"{told['procedure']}: not started"
        return AuditLine(
            **common,
            title=title,
            status="Start refused",
            tone="stop",
            reason=told["reason"],
            ended_at=None,
        )
    line = lines.get(entry.run)
    if line is None:
        gone = "Its rows are gone from the database. Run manage.py verify."
        return AuditLine(
            **common, title=told["title"], status="Missing", tone="stop", reason=gone, ended_at=None
        )
    return AuditLine(
        **common,
        title=told["title"],
        status=line.status_text,
        tone=line.tone,
        reason=line.reason,
        ended_at=line.ended_at,
        deviations=counts.get((entry.run, DeviationAsked.kind), 0),
        refusals=counts.get((entry.run, AttemptRefused.kind), 0),
    )


def list_report(user: AbstractUser, filters: Filters, now: datetime) -> Report:
    """The whole list as it is filtered, with a statement how it was made."""
    environments = list(audited_environments(user))
    lines = audit_lines(entries_of(environments, filters), environments)
    numbers = "; ".join(
        f"{item.environment}: 1 to {item.newest}, {'none' if not item.missing else item.missing} missing"
        for item in numbers_of(environments)
    )
    return Report(
        kind="List for an audit",
        title="Runs and refused starts",
        facts=(
            ("Made", f"{moment(now)} UTC by {user.get_full_name() or user.get_username()}"),
            ("Filter", filters.words),
            (
                "Environments",
                ", ".join(environment.name for environment in _chosen(environments, filters)) or "none",
            ),
            ("Numbers in the register", numbers or "none yet"),
            ("Lines", f"{len(lines)}"),
        ),
        tables=(_table(lines),),
        foot="Runbook: runs and refused starts",
    )


def _chosen(environments: Sequence[Environment], filters: Filters) -> list[Environment]:
    return [item for item in environments if filters.environment in (None, item.pk)]


def _table(lines: Sequence[AuditLine]) -> Table:
    columns = ("Environment", "No.", "Run", "Time (UTC)", "What", "Kind", "State", "By", "Roles then",
               "Change", "Category", "Ended (UTC)", "Deviations", "Refused attempts", "Reason")  # fmt: skip
    rows = tuple(
        (
            line.environment,
            f"{line.number}",
            f"{line.run}" if line.run is not None else "",
            moment(line.at),
            line.title,
            "rehearsal" if line.rehearsal else "live",
            line.status,
            line.by,
            line.roles,
            line.change,
            line.category,
            moment(line.ended_at),
            f"{line.deviations}",
            f"{line.refusals}",
            line.reason,
        )
        for line in lines
    )
    return Table("Runs", columns, (9, 4, 4, 9, 13, 7, 7, 8, 7, 7, 7, 9, 5, 5, 11), rows, "Nothing fits.")


@dataclass(frozen=True, slots=True)
class Search:
    id: int
    name: str
    query: str


def searches_of(user: AbstractUser) -> tuple[Search, ...]:
    """The person's saved searches, by name."""
    return tuple(Search(row.pk, row.name, row.query) for row in SavedSearch.objects.filter(user_id=user.pk))
