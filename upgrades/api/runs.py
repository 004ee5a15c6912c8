"""Runs: the list, one as it stands, its events, its files and its whole record."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote

from django.db.models import Q
from django.http import FileResponse, HttpRequest, HttpResponse
from pydantic import Field

from upgrades.api.cursors import cursor_for, gone, position_of
from upgrades.api.door import only_in, person, tagged
from upgrades.api.operations import file_answer, operation
from upgrades.api.problems import not_found
from upgrades.api.shapes import Cursor, Fact, Ids, Limit, May, Moment, Number, Out, Page, Sentence
from upgrades.domain.api_scopes import AUDIT
from upgrades.models import RunEvent
from upgrades.queries.run_lines import run_lines
from upgrades.queries.run_page import run_page, seen_by
from upgrades.queries.runs_list import Filters, matching_runs
from upgrades.services import evidence
from upgrades.services.exports import export_bundle
from upgrades.services.runs import NoSuchRun

TAG = "Runs"
NO_RUN = "There is no such run, or you have no role in its environment."
Status = Literal["open", "running", "held", "closing", "ended", "aborted"]
Kind = Literal["live", "rehearsal"]


class RunLine(Out):
    """A run in the list. `ending` is empty while it is open; `reason` is why it is held or was aborted."""

    id: int
    title: str
    environment_id: int
    environment: str
    rehearsal: bool
    status: str
    ending: str
    reason: str
    step: str
    done: int
    total: int
    starter: str
    started_at: datetime
    ended_at: datetime | None
    change: str
    emergencies: int
    reviews_open: int


class Signature(Out):
    by: str
    roles: list[str]
    at: datetime
    comment: str
    digest: str
    valid: bool
    rejected: bool
    deputy_of: str


class Approval(Out):
    """An approval as its signers see it. No token signs it."""

    whom: str
    needed: int
    signed: int
    missing: list[Fact]
    signatures: list[Signature]
    barred: list[Fact]
    could: list[str]
    covers: list[Fact]
    facts: list[Fact]
    digest: str
    ahead: bool
    closed: bool
    due_at: datetime | None
    nobody_left: str


class File(Out):
    id: int
    name: str
    size: int
    sha256: str
    text: str
    by: str
    at: datetime


class Answer(Out):
    answer: str
    text: str
    by: str
    at: datetime


class Total(Out):
    server: str
    before: int | None
    now: int | None
    wanted: str


class Doubt(Out):
    """A gap or an unreadable line; `seq` is the event that tells of it."""

    seq: int
    what: str
    text: str
    asked: int


class Station(Out):
    """An event that a rule waits for, or has seen."""

    ids: str
    text: str
    state: str
    at: datetime | None


class WayBack(Out):
    title: str
    ready: bool
    reason: str


class Gate(Out):
    """A gate with its verdict: met, failed, unknown or waiting; `reason` says why."""

    id: str
    kind: str
    title: str
    verdict: str
    reason: str
    sources: Ids
    stations: list[Station]
    since: datetime | None
    limit: int | None
    doubts: list[Doubt]
    files: list[File]
    accepts: Annotated[list[str], Field(description="What is taken as evidence")]
    ask: Sentence
    answers: list[Answer]
    totals: list[Total]
    proof: str
    approval: Approval | None
    way_back: list[WayBack]
    confirm: May
    attach: May
    override: May


class Notice(Out):
    text: Sentence
    warn: bool


class AgentLine(Out):
    host: str
    application: str
    verdict: str
    trouble: str
    seen_at: datetime | None
    position: int | None
    counted_from: int | None
    unread: int


class Step(Out):
    """The step that the run stands at. Send its `id` and `visit` with each act on it."""

    id: str
    visit: int
    number: str
    title: str
    sources: Ids
    begun: bool
    begun_at: datetime | None
    expected: str
    do: list[Sentence]
    notices: list[Notice]
    needs: list[Gate]
    gates: list[Gate]
    agents: list[AgentLine]
    files: list[File]
    begin: May
    begins_by_itself: bool
    complete: May
    completes_by_itself: bool
    restart: May
    attach: May
    skip: May
    destroys: bool
    holder: str
    only_holder: bool
    take: May


class Burden(Out):
    """An exposure or a duty: `id` names it in acts on it."""

    id: str
    kind: str
    title: str
    since: datetime
    step: str
    owner: str
    take_over: May
    close: May
    closed_at: datetime | None
    closed_by: str
    text: str


class Deviation(Out):
    number: int
    what: str
    reason: str
    asked_by: str
    asked_at: datetime
    decided_by: str
    comment: str
    status: str
    emergency: bool
    signers: list[str]
    needed: int
    reviewed_by: str


class OnHold(Out):
    reason: str
    since: datetime | None
    by: str
    resume: May


class Note(Out):
    text: str
    by: str
    at: datetime
    step: str


class StepLine(Out):
    id: str
    number: str
    title: str
    state: str
    took: str


class Phase(Out):
    title: str
    steps: list[StepLine]


class DialogAnswer(Out):
    name: str
    title: str
    value: str


class Run(Out):
    """A run as it stands, for the token's owner. `head` is also its ETag: send it as If-Match with what you do."""

    id: int
    title: str
    head: str
    environment_id: int
    environment: str
    rehearsal: bool
    procedure_id: str
    procedure_version: int
    procedure_hash: str
    change: str
    starter: str
    started_at: datetime
    ended_at: datetime | None
    status: str
    ending: str
    position: str
    roles: list[str]
    can_roll_back: bool
    step: Step | None
    hold: OnHold | None
    burdens: list[Burden]
    closed: list[Burden]
    deviations: list[Deviation]
    notes: list[Note]
    phases: list[Phase]
    answers: list[DialogAnswer]
    may: dict[str, May]


class Actor(Out):
    """Who acted, as they were then. `token` is the API token that they acted through; empty on the pages."""

    id: str
    name: str
    kind: str
    roles: list[str]
    token: str


class Event(Out):
    """An event of the record. `hash` covers the hash before it and the stored text, which the bundle holds."""

    seq: int
    at: datetime
    kind: str
    by: Actor
    body: dict[str, Any]
    previous: str
    hash: str


class Events(Out):
    """Events in their order. `next` is never null: asked later, it gives what has come since. `more`: there is more already."""

    items: list[Event]
    next: str
    more: bool


@operation("GET", "runs", Page[RunLine], tag=TAG)
def list_runs(
    request: HttpRequest,
    status: Status | None = None,
    environment: Number | None = None,
    kind: Kind | None = None,
    started_since: Moment | None = None,
    started_before: Moment | None = None,
    limit: Limit = 50,
    cursor: Cursor | None = None,
) -> dict[str, object]:
    """Runs, newest first, aborted ones and rehearsals included."""
    only = only_in(request)
    query = {
        "list": "runs",
        "status": status,
        "environment": environment,
        "kind": kind,
        "since": started_since,
        "before": started_before,
        "only": only,
    }
    reader = person(request)
    filters = Filters(status or "", environment, kind or "", started_since, started_before)
    runs = matching_runs(reader, filters)
    if only is not None:
        runs = runs.filter(Q(environment_id=only) | Q(environment__rehearsal_of_id=only))
    behind = position_of(cursor, reader=reader.pk, query=query)
    if behind is not None:
        last = runs.filter(pk=behind).values_list("started_at", flat=True).first()
        if last is None:
            raise gone()
        runs = runs.filter(Q(started_at__lt=last) | Q(started_at=last, pk__lt=behind))
    found = list(runs[: limit + 1])
    more = len(found) > limit
    return {
        "items": run_lines(found[:limit]),
        "next": cursor_for(found[limit - 1].pk, reader=reader.pk, query=query) if more else None,
    }


@operation("GET", "runs/{int:run_id}", Run, tag=TAG)
def show_run(request: HttpRequest, response: HttpResponse, run_id: int) -> object:
    """A run as it stands: its step with every gate, what is open and owed, and what its reader may do."""
    seen = seen_by(run_id, person(request))
    if seen is None:
        raise not_found(NO_RUN)
    page = run_page(seen, person(request))
    tagged(response, page.head)
    return page


@operation("GET", "runs/{int:run_id}/events", Events, tag=TAG)
def list_events(
    request: HttpRequest, run_id: int, limit: Limit = 100, cursor: Cursor | None = None
) -> Events:
    """The record of a run, from its first event on."""
    reader = person(request)
    if seen_by(run_id, reader) is None:
        raise not_found(NO_RUN)
    query = {"list": "events", "run": run_id}
    behind = position_of(cursor, reader=reader.pk, query=query) or 0
    rows = RunEvent.objects.filter(run_id=run_id, seq__gt=behind).order_by("seq")
    found = list(rows.values_list("seq", "text", "previous", "hash")[: limit + 1])
    items = [_event(*row) for row in found[:limit]]
    last = items[-1].seq if items else behind
    return Events(items=items, next=cursor_for(last, reader=reader.pk, query=query), more=len(found) > limit)


def _event(seq: int, text: str, previous: str, digest: str) -> Event:
    told = json.loads(text)
    return Event(
        seq=seq,
        at=told["at"],
        kind=told["kind"],
        by=Actor(**{"token": "", **told["by"]}),
        body=told["body"],
        previous=previous,
        hash=digest,
    )


@operation(
    "GET",
    "runs/{int:run_id}/evidence/{int:evidence_id}",
    None,
    tag=TAG,
    scope=AUDIT,
    says=file_answer("The file as it was attached", "application/octet-stream"),
)
def show_evidence(request: HttpRequest, run_id: int, evidence_id: int) -> FileResponse:
    """An evidence file. That it was opened goes on the register."""
    row, file = evidence.open_file(run_id, evidence_id, person(request))
    response = FileResponse(file, content_type="application/octet-stream")
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(row.name, safe='')}"
    response.headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
    return response


@operation(
    "GET",
    "runs/{int:run_id}/record",
    None,
    tag=TAG,
    scope=AUDIT,
    says=file_answer("A zip file that verify_record.py checks", "application/zip"),
)
def export_record(request: HttpRequest, run_id: int) -> FileResponse:
    """The whole record of a run as one bundle: report, events, evidence, checkpoint, verifier. On the register."""
    if seen_by(run_id, person(request)) is None:
        raise NoSuchRun(NO_RUN)
    bundle = export_bundle(run_id, person(request))
    response = FileResponse(
        bundle.file, content_type="application/zip", as_attachment=True, filename=bundle.name
    )
    response.headers["Content-Length"] = str(bundle.size)
    return response
