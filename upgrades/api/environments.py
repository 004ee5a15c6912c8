"""Environments: the list, one as its page shows it, its records to change, files of it, and who changed it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from pydantic import Field

from upgrades.api.cursors import cursor_for, position_of
from upgrades.api.door import command_id, only_in, person, seen
from upgrades.api.operations import file_answer, operation, raw_body
from upgrades.api.problems import Problem, bad_request, not_found
from upgrades.api.shapes import Cursor, In, Limit, Out, Page
from upgrades.domain.api_scopes import EDIT
from upgrades.domain.environment import LCA
from upgrades.domain.environment_records import FIELDS, Kind, Record
from upgrades.models import Environment as Row
from upgrades.models import RegisterEntry
from upgrades.queries.environment_export import (
    ChangeEntry,
    application_record,
    change_entry,
    changes_book,
    environment_record,
    exported,
    host_record,
    target_record,
)
from upgrades.queries.environments import environment_list, environment_page, find_environment
from upgrades.queries.topology import topology
from upgrades.services.environment_editing import (
    Changed,
    administered_by,
    create_environment,
    remove_record,
    save_record,
)
from upgrades.services.environment_import import File, Look, import_file, look
from upgrades.services.people import actor_id

TAG, EDITING = "Environments", "Changing environments"
CSV, YAML = "text/csv", "application/yaml"
KindWord = Literal["environment", "target", "host", "application"]


class EnvironmentLine(Out):
    """An environment in the list. For a rehearsal's copy `original` is the name of what it copies."""

    id: int
    name: str
    original: str
    is_simulated: bool
    roles: list[str]
    hosts: int
    open_runs: list[int]
    exposures: list[str]
    duties: list[str]


class Version(Out):
    """`reached` is null when either version is not known."""

    version: str
    target: str
    reached: bool | None


class Agent(Out):
    """`state`: up, trouble, silent (nobody asks it), new (never heard) or none."""

    state: str
    text: str
    seen_at: datetime | None
    since: datetime | None
    trouble: str
    version: str
    skew: float


class Server(Out):
    id: int
    name: str
    type: str
    host: str
    standing: str
    peer: str
    version: Version
    mode: str
    process: str
    process_reason: str
    clients: int | None


class Host(Out):
    name: str
    site: str
    host_type: str
    lca: Version
    agent: Agent
    servers: list[Server]


class HostAgent(Out):
    host: str
    agent: Agent


class Finding(Out):
    rule: str
    tone: str
    title: str
    text: str
    what_to_do: str
    sources: list[str]
    since: datetime


class StandingBurden(Out):
    run: int
    burden: str
    kind: str
    title: str
    opened_at: datetime
    owner: str
    is_mine: bool


class Offer(Out):
    """A procedure for this environment; `why_not` says why it cannot be started, `taken` which run has its servers."""

    procedure: str
    version: int
    title: str
    component: str
    servers: list[str]
    why_not: str
    taken: str


class Policy(Out):
    name: str
    whom: str
    notes: list[str]
    lack: str


class Member(Out):
    name: str
    username: str
    roles: list[str]


class Environment(Out):
    """An environment as it is known now."""

    id: int
    name: str
    original: str
    is_simulated: bool
    disaster_recovery: bool
    roles: list[str]
    hosts: list[Host]
    targets: dict[str, str]
    findings: list[Finding]
    burdens: list[StandingBurden]
    open_runs: list[int]
    offers: list[Offer]
    policies: list[Policy]
    members: list[Member]


def visible(request: HttpRequest, environment_id: int) -> Row:
    """The environment, if the token's owner may see it."""
    found = find_environment(person(request), environment_id)
    if found is None:
        raise not_found("There is no such environment, or you have no role in it.")
    return found


def original(request: HttpRequest, environment_id: int) -> Row:
    """The same, where it is no copy of a rehearsal: a copy has no plan and tells nobody."""
    environment = visible(request, environment_id)
    if environment.rehearsal_of_id is not None:
        raise not_found("This is the copy of a rehearsal. Ask for the environment that it copies.")
    return environment


@operation("GET", "environments", Page[EnvironmentLine], tag=TAG)
def list_environments(request: HttpRequest) -> dict[str, object]:
    """The environments of the token's owner, and copies for rehearsals while their run is open."""
    shown = environment_list(person(request), timezone.now())
    cards = [*shown.environments, *shown.rehearsals]
    only = only_in(request)
    if only is not None:
        here = set(Row.objects.filter(pk=only).values_list("pk", flat=True))
        here |= set(Row.objects.filter(rehearsal_of_id=only).values_list("pk", flat=True))
        cards = [card for card in cards if card.id in here]
    items = [
        EnvironmentLine(
            id=card.id,
            name=card.name,
            original=card.original,
            is_simulated=card.is_simulated,
            roles=list(card.roles),
            hosts=card.hosts,
            open_runs=[run.id for run in card.open_runs],
            exposures=list(card.exposures),
            duties=list(card.duties),
        )
        for card in cards
    ]
    return {"items": items, "next": None}


_AS_ON_THE_PAGE = (
    "id",
    "name",
    "original",
    "is_simulated",
    "disaster_recovery",
    "roles",
    "findings",
    "burdens",
    "offers",
    "policies",
    "members",
)


@operation("GET", "environments/{int:environment_id}", Environment, tag=TAG)
def show_environment(request: HttpRequest, environment_id: int) -> dict[str, object]:
    """An environment: hosts and servers, what was found, what stands on it, what can be started, who has which role."""
    user = person(request)
    page = environment_page(visible(request, environment_id), user, actor_id(user), timezone.now())
    return {name: getattr(page, name) for name in _AS_ON_THE_PAGE} | {
        "hosts": page.topology.hosts,
        "targets": dict(page.targets),
        "open_runs": [run.id for run in page.open_runs],
    }


@operation("GET", "environments/{int:environment_id}/agents", Page[HostAgent], tag=TAG)
def list_agents(request: HttpRequest, environment_id: int) -> dict[str, object]:
    """How the agent of each host is."""
    hosts = topology(visible(request, environment_id), timezone.now()).hosts
    return {"items": [{"host": host.name, "agent": host.agent} for host in hosts], "next": None}


@operation(
    "GET",
    "environments/{int:environment_id}/export",
    None,
    tag=TAG,
    says=file_answer("The environment as a file that import takes", CSV, YAML),
)
def export_environment(
    request: HttpRequest, environment_id: int, form: Literal["csv", "yaml"] = "yaml"
) -> HttpResponse:
    """The environment as a file, in CSV or YAML."""
    text = exported(visible(request, environment_id), form)
    media = {"csv": CSV, "yaml": YAML}[form]
    return HttpResponse(text.encode(), content_type=f"{media}; charset=utf-8")


# Who changed it.


class FieldLine(Out):
    title: str
    before: str
    after: str


class ChangeOfRecord(Out):
    kind: str
    act: str
    name: str
    fields: list[FieldLine]


class Entry(Out):
    """An entry of the book of changes. `file` and `sha256` are those of an import."""

    number: int
    at: datetime
    who: str
    what: str
    file: str
    sha256: str
    lines: list[ChangeOfRecord]


@operation("GET", "environments/{int:environment_id}/changes", Page[Entry], tag=TAG)
def list_changes(
    request: HttpRequest, environment_id: int, limit: Limit = 20, cursor: Cursor | None = None
) -> dict[str, object]:
    """Who changed the environment when, the newest first."""
    visible(request, environment_id)
    reader = person(request).pk
    query = {"list": "changes", "environment": environment_id}
    behind = position_of(cursor, reader=reader, query=query)
    rows = RegisterEntry.objects.filter(book=changes_book(environment_id)).order_by("-number")
    if behind is not None:
        rows = rows.filter(number__lt=behind)
    found: list[ChangeEntry] = [change_entry(row) for row in rows[: limit + 1]]
    more = len(found) > limit
    end = cursor_for(found[limit - 1].number, reader=reader, query=query) if more else None
    return {"items": found[:limit], "next": end}


# Changing it: record by record, as the forms do.


class EnvironmentRecord(Out):
    """A record of the environment. `tag` goes into If-Match when it is changed or removed. Values are texts, as in files."""

    kind: str
    id: int
    name: str
    tag: Annotated[str, Field(description="As an ETag, quotes included")]
    fields: dict[str, str]


class NewRecord(In):
    """A record to add: `kind` says of which fields."""

    kind: Literal["target", "host", "application"]
    fields: dict[str, str] = Field(
        max_length=20, examples=[{"host": "fra-cfg-03.example.net", "host_type": "Linux"}]
    )


class FieldsOfRecord(In):
    """The fields that change; the others stay."""

    fields: dict[str, str] = Field(min_length=1, max_length=20, examples=[{"version": "8.5.101.38"}])


class ChangeDone(Out):
    """The number in the environment's book of changes; 0 when there was nothing to change."""

    environment: int
    number: int


def _done(changed: Changed) -> ChangeDone:
    return ChangeDone(environment=changed.environment, number=changed.number)


def _records(environment: Row) -> list[tuple[int, Record]]:
    applications = environment.applications.exclude(type=LCA).select_related("host", "peer")
    return [
        (environment.pk, environment_record(environment)),
        *((row.pk, target_record(row)) for row in environment.targets.order_by("component")),
        *((row.pk, host_record(row)) for row in environment.hosts.order_by("name")),
        *((row.pk, application_record(row)) for row in applications.order_by("name")),
    ]


@operation("GET", "environments/{int:environment_id}/records", Page[EnvironmentRecord], tag=EDITING)
def list_records(request: HttpRequest, environment_id: int) -> dict[str, object]:
    """Every record of the environment that can be changed by hand, with the tag that a change must name."""
    items = [
        EnvironmentRecord(
            kind=record.kind,
            id=pk,
            name=record.name,
            tag=f'"{record.digest()}"',
            fields=dict(record.values),
        )
        for pk, record in _records(visible(request, environment_id))
    ]
    return {"items": items, "next": None}


class NewEnvironment(In):
    name: str = Field(min_length=1, max_length=200, examples=["Production · Frankfurt"])


@operation("POST", "environments", ChangeDone, tag=EDITING, scope=EDIT, status=201)
def make_environment(request: HttpRequest, response: HttpResponse, sent: NewEnvironment) -> ChangeDone:
    """A new, empty environment; the token's owner is its first administrator."""
    if only_in(request) is not None:
        raise Problem(
            403,
            "scope-missing",
            "The token is not for this",
            "This token counts in one environment, so it makes no other one. Nothing was done.",
        )
    done = create_environment(name=sent.name, by=person(request), command_id=command_id(request))
    response.headers["Location"] = f"/api/v1/environments/{done.environment}"
    return _done(done)


def _known_fields(kind: Kind, fields: dict[str, str]) -> None:
    known = {field.name for field in FIELDS[kind]}
    strange = sorted(set(fields) - known)
    if strange:
        raise bad_request(
            f"A record of the kind {kind} has no field “{strange[0][:40]}”. Known are: {', '.join(sorted(known))}.",
            [{"field": f"fields.{name[:40]}", "detail": "not known"} for name in strange],
        )


@operation(
    "POST", "environments/{int:environment_id}/records", ChangeDone, tag=EDITING, scope=EDIT, status=201
)
def add_record(request: HttpRequest, environment_id: int, sent: NewRecord) -> ChangeDone:
    """Add a target, a host or an application."""
    kind = Kind(sent.kind)
    _known_fields(kind, sent.fields)
    done = save_record(
        environment_id=environment_id,
        kind=kind,
        name="",
        texts=sent.fields,
        seen="",
        by=person(request),
        command_id=command_id(request),
    )
    return _done(done)


def _named(request: HttpRequest, environment_id: int, kind: str, record_id: int) -> Record:
    environment, _ = administered_by(environment_id, person(request))
    for pk, record in _records(environment):
        if (record.kind, pk) == (kind, record_id):
            return record
    raise not_found(f"There is no {kind} of this number here.")


@operation(
    "PATCH",
    "environments/{int:environment_id}/records/{kind}/{int:record_id}",
    ChangeDone,
    tag=EDITING,
    scope=EDIT,
    takes=["application/json"],
    needs_match=True,
)
def change_record(
    request: HttpRequest, environment_id: int, kind: KindWord, record_id: int, sent: FieldsOfRecord
) -> ChangeDone:
    """Change some fields of a record. Peers of an HA pair follow."""
    record = _named(request, environment_id, kind, record_id)
    _known_fields(record.kind, sent.fields)
    _must_be(record, seen(request))
    done = save_record(
        environment_id=environment_id,
        kind=record.kind,
        name=record.name,
        texts=sent.fields,
        seen=seen(request),
        by=person(request),
        command_id=command_id(request),
    )
    return _done(done)


@operation(
    "DELETE",
    "environments/{int:environment_id}/records/{kind}/{int:record_id}",
    ChangeDone,
    tag=EDITING,
    scope=EDIT,
    needs_match=True,
)
def delete_record(request: HttpRequest, environment_id: int, kind: KindWord, record_id: int) -> ChangeDone:
    """Remove a target, an application, or a host on which none stands."""
    record = _named(request, environment_id, kind, record_id)
    _must_be(record, seen(request))
    done = remove_record(
        environment_id=environment_id,
        kind=record.kind,
        name=record.name,
        seen=seen(request),
        by=person(request),
        command_id=command_id(request),
    )
    return _done(done)


def _must_be(record: Record, tag: str) -> None:
    """The service looks again, under the environment's lock."""
    if record.digest() != tag:
        raise Problem(
            412,
            "record-changed",
            "Not the present version",
            f"Somebody has changed {record.name} since you looked. Nothing was done. Read the records again.",
        )


# Files.


class FileMistake(Out):
    """`line` and `column` are null for what is wrong with what is there already."""

    line: int | None
    column: int | None
    about: str
    message: str


class ChangeToCome(Out):
    kind: str
    act: str
    name: str
    fields: list[FieldLine]


class Import(Out):
    """What a file does, or would do. With mistakes: nothing. `number` is the entry in the book of changes; 0 for a dry run."""

    usable: bool
    applied: bool
    form: str
    mistakes: list[FileMistake]
    left_out: int
    remarks: list[FileMistake]
    changes: list[ChangeToCome]
    digest: str
    number: int


@operation(
    "POST",
    "environments/{int:environment_id}/import",
    Import,
    tag=EDITING,
    scope=EDIT,
    takes=[CSV, YAML],
    says=raw_body("The file, at most 1 MiB; its content decides whether it is CSV or YAML", CSV, YAML),
)
def import_environment(
    request: HttpRequest,
    environment_id: int,
    dry_run: Literal["yes", "no"] = "yes",
    remove_unlisted: Literal["yes", "no"] = "no",
    shown: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None,
) -> Import:
    """Look at a file (dry_run=yes), or apply it, all or nothing. `shown` is the digest of the look that is to be applied."""
    file = File("import", request.body, remove_unlisted == "yes")
    by = person(request)
    if dry_run == "yes":
        environment, _ = administered_by(environment_id, by)
        return _import(look(environment, file))
    found, changed = import_file(environment_id=environment_id, file=file, by=by, shown=shown or "")
    return _import(found, changed)


def _import(found: Look, changed: Changed | None = None) -> Import:
    def told(mistakes: tuple[object, ...]) -> list[FileMistake]:
        return [
            FileMistake(
                line=one.spot.line if one.spot else None,  # type: ignore[attr-defined]
                column=one.spot.column if one.spot else None,  # type: ignore[attr-defined]
                about=one.about,  # type: ignore[attr-defined]
                message=one.message,  # type: ignore[attr-defined]
            )
            for one in mistakes
        ]

    return Import(
        usable=found.is_usable,
        applied=changed is not None,
        form=found.how,
        mistakes=told(found.mistakes),
        left_out=found.left_out,
        remarks=told(found.remarks),
        changes=[ChangeToCome.model_validate(one) for one in found.changes],
        digest=found.digest,
        number=changed.number if changed else 0,
    )
