"""For auditors and administrators: every start, the reports, the register, the checkpoints; and what waits for signatures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from pydantic import Field

from upgrades.adapters import register
from upgrades.api.cursors import cursor_for, gone, position_of
from upgrades.api.door import only_in, person
from upgrades.api.operations import file_answer, operation
from upgrades.api.problems import bad_request, not_found
from upgrades.api.runs import Actor
from upgrades.api.shapes import Cursor, Day, Limit, Number, Out, Page
from upgrades.domain.api_scopes import AUDIT
from upgrades.domain.report import Report
from upgrades.models import Environment, RegisterEntry
from upgrades.queries.access import visible_environments
from upgrades.queries.approvals import inbox
from upgrades.queries.audit import Filters, audit_lines, audited_environments, entries_of, list_report
from upgrades.queries.audit_reports import Period, access_report, duties_report, reads_report
from upgrades.queries.environment_export import changes_book
from upgrades.queries.record_state import record_state
from upgrades.services import record
from upgrades.services.exports import KINDS, export_list
from upgrades.services.people import actor_id

APPROVALS, TAG = "Approvals", "Audit"
Status = Literal["running", "held", "closing", "ended", "aborted", "refused"]
Kind = Literal["live", "rehearsal"]
Only = Literal["deviations", "overrides", "refusals", "emergencies", "reviews"]
Person = Annotated[str, Field(max_length=100, description="A part of the name of somebody who took part")]


# What waits for signatures. To look at: a person signs, on the page.


class Waiting(Out):
    """A signature that is wanted. `why_not` says why the token's owner cannot give it; empty: it waits for this person."""

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


@operation("GET", "approvals", Page[Waiting], tag=APPROVALS)
def list_approvals(request: HttpRequest) -> dict[str, object]:
    """Every signature that is wanted where the token's owner has a role. No token gives one."""
    user = person(request)
    found = inbox(user, actor_id(user))
    items = [*found.mine, *found.ahead, *found.others]
    only = only_in(request)
    if only is not None:
        here = Q(pk=only) | Q(rehearsal_of_id=only)
        runs = set(visible_environments(user).filter(here).values_list("runs", flat=True))
        items = [item for item in items if item.run in runs]
    return {"items": items, "next": None}


# Lists for an audit.


def _audited(request: HttpRequest, environment: int | None) -> list[Environment]:
    """Those in which the token's owner audits or administers, and in which the token counts."""
    found = list(audited_environments(person(request)))
    only = only_in(request)
    if only is not None:
        found = [one for one in found if one.pk == only]
    if environment is not None:
        found = [one for one in found if one.pk == environment]
    if not found:
        raise not_found("There is no such list, or you are neither auditor nor administrator there.")
    return found


def _in_order(since: Any, until: Any) -> None:
    if since is not None and until is not None and until < since:
        raise bad_request("“until” lies before “since”.", [{"field": "until", "detail": "before since"}])


class AuditLine(Out):
    """A start. `run` is null for a refused one; `number` counts without holes in each environment."""

    number: int
    environment: str
    at: datetime
    run: int | None
    title: str
    rehearsal: bool
    status: str
    by: str
    roles: str
    change: str
    reason: str
    ended_at: datetime | None
    deviations: int
    refusals: int


@operation("GET", "audit/runs", Page[AuditLine], tag=TAG, scope=AUDIT)
def list_audited_runs(
    request: HttpRequest,
    environment: Number | None = None,
    since: Day | None = None,
    until: Day | None = None,
    status: Status | None = None,
    kind: Kind | None = None,
    person_named: Person | None = None,
    only: Only | None = None,
    limit: Limit = 50,
    cursor: Cursor | None = None,
) -> dict[str, object]:
    """Every start of a run, refused ones included, the newest first. Days are whole days in UTC."""
    _in_order(since, until)
    environments = _audited(request, environment)
    reader = person(request).pk
    query = {
        "list": "audit",
        "places": [one.pk for one in environments],
        "since": since,
        "until": until,
        "status": status,
        "kind": kind,
        "person": person_named,
        "only": only,
    }
    filters = Filters(None, since, until, status or "", kind or "", person_named or "", only or "")
    rows = entries_of(environments, filters)
    behind = position_of(cursor, reader=reader, query=query)
    if behind is not None:
        last = rows.filter(pk=behind).values_list("at", flat=True).first()
        if last is None:
            raise gone()
        rows = rows.filter(Q(at__lt=last) | Q(at=last, pk__lt=behind))
    found = list(rows[: limit + 1])
    more = len(found) > limit
    return {
        "items": audit_lines(found[:limit], environments),
        "next": cursor_for(found[limit - 1].pk, reader=reader, query=query) if more else None,
    }


MakeReport = Callable[[Sequence[Environment], Period, Any, datetime], Report]
REPORTS: Mapping[str, MakeReport] = {
    "duties": duties_report,
    "access": access_report,
    "reads": reads_report,
}


@operation(
    "GET",
    "audit/exports/{report}/{form}",
    None,
    tag=TAG,
    scope=AUDIT,
    says=file_answer(
        "The list, with a statement how it was made", "text/csv", "application/jsonl", "application/pdf"
    ),
)
def export_report(
    request: HttpRequest,
    report: Literal["runs", "duties", "access", "reads"],
    form: Literal["csv", "jsonl", "pdf"],
    environment: Number | None = None,
    since: Day | None = None,
    until: Day | None = None,
) -> HttpResponse:
    """A list as a file: every start, duties and overrides, who has access, who read. That it was taken goes on the register."""
    _in_order(since, until)
    environments = _audited(request, environment)
    user, now = person(request), timezone.now()
    only = environment if environment is not None else only_in(request)
    made = (
        list_report(user, Filters(environment=only, since=since, until=until), now)
        if report == "runs"
        else REPORTS[report](environments, Period(since, until), user, now)
    )
    query = {"environment": only, "since": since, "until": until}
    told = {name: str(value) for name, value in query.items() if value is not None}
    export = export_list(made, form, by=user, environments=environments, query=told)
    response = HttpResponse(export.content, content_type=KINDS[form])
    response.headers["Content-Disposition"] = f'attachment; filename="{export.name}"'
    return response


# The register and the checkpoints.

BOOKS = {
    "runs": register.runs_book,
    "access": register.access_book,
    "reads": register.reads_book,
    "changes": changes_book,
}


class RegisterLine(Out):
    """An entry of a book. `hash` covers the hash before it and the stored text."""

    number: int
    kind: str
    at: datetime
    run: int | None
    by: Actor
    body: dict[str, Any]
    previous: str
    hash: str


class RegisterPage(Out):
    """Entries in their order. `next` is never null: asked later, it gives what has come since."""

    items: list[RegisterLine]
    next: str
    more: bool


@operation(
    "GET",
    "environments/{int:environment_id}/register/{book}",
    RegisterPage,
    tag=TAG,
    scope=AUDIT,
)
def list_register(
    request: HttpRequest,
    environment_id: int,
    book: Literal["runs", "access", "reads", "changes"],
    limit: Limit = 100,
    cursor: Cursor | None = None,
) -> RegisterPage:
    """A book of the register from its first entry on: starts, roles and tokens and policies, reads, changes."""
    _audited(request, environment_id)
    reader = person(request).pk
    query = {"list": "register", "environment": environment_id, "book": book}
    behind = position_of(cursor, reader=reader, query=query) or 0
    rows = RegisterEntry.objects.filter(book=BOOKS[book](environment_id), number__gt=behind).order_by(
        "number"
    )
    found = list(rows[: limit + 1])
    items = [_line(row) for row in found[:limit]]
    last = items[-1].number if items else behind
    return RegisterPage(
        items=items, next=cursor_for(last, reader=reader, query=query), more=len(found) > limit
    )


def _line(row: RegisterEntry) -> RegisterLine:
    told = json.loads(row.text)
    return RegisterLine(
        number=told["number"],
        kind=told["kind"],
        at=told["at"],
        run=told["run"],
        by=Actor(**{"token": "", **told["by"]}),
        body=told["body"],
        previous=row.previous,
        hash=row.hash,
    )


class CheckpointLine(Out):
    """A signed checkpoint; `note` is what can be verified. `went` and `waits`: the channels by which it left."""

    number: int
    at: datetime
    size: int
    late: datetime | None
    note: str
    went: list[str]
    waits: list[str]


class RecordState(Out):
    """How the record is kept now: the newest checkpoints, what troubles the process that signs them."""

    checkpoints: list[CheckpointLine]
    trouble: str
    waiting: int


@operation("GET", "audit/record", RecordState, tag=TAG, scope=AUDIT)
def show_record(request: HttpRequest) -> object:
    """The newest checkpoints, where they went, and what keeps them from being signed."""
    _audited(request, None)
    return record_state(timezone.now())


class BrokenRecord(Out):
    where: str
    reason: str


class Checked(Out):
    """Empty `broken` and no `elsewhere`: the record is what was written. `elsewhere` counts what is broken in
    environments that are not the token's."""

    checked_at: datetime
    broken: list[BrokenRecord]
    elsewhere: int


@operation("POST", "audit/record/check", Checked, tag=TAG, scope=AUDIT, takes=[])
def check_record(request: HttpRequest) -> dict[str, object]:
    """Check the whole record now, as `manage.py verify` does; what is broken is named where the token counts."""
    found = record.check_record(_audited(request, None))
    return {"checked_at": timezone.now(), "broken": list(found.broken), "elsewhere": found.elsewhere}
