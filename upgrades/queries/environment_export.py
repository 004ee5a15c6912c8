"""An environment as records, as a file, and the account of who changed it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from upgrades.domain.environment import LCA
from upgrades.domain.environment_records import Content, Kind, Record
from upgrades.domain.environment_text import to_csv, to_yaml
from upgrades.domain.run_events import from_stored
from upgrades.models import Application, Environment, Host, RegisterEntry, Target

PAGE = 20


def content_of(environment: Environment) -> Content:
    """Everything of the environment that files and forms speak of; three queries."""
    records = [environment_record(environment)]
    records += [target_record(target) for target in environment.targets.all()]
    records += [host_record(host) for host in environment.hosts.all()]
    records += [
        application_record(application)
        for application in environment.applications.exclude(type=LCA).select_related("host", "peer")
    ]
    return Content.of(records)


def _flag(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def environment_record(environment: Environment) -> Record:
    return Record(
        Kind.ENVIRONMENT,
        {
            "name": environment.name,
            "disaster_recovery": _flag(environment.disaster_recovery),
            "single_language": _flag(environment.single_language),
            "schema_version": environment.schema_version,
            "log_schema_version": environment.log_schema_version,
            "uses_lrm": _flag(environment.uses_lrm),
        },
    )


def target_record(target: Target) -> Record:
    return Record(Kind.TARGET, {"type": target.component, "version": target.version})


def host_record(host: Host) -> Record:
    return Record(
        Kind.HOST,
        {
            "host": host.name,
            "host_type": host.host_type,
            "site": host.site,
            "os_name": host.os_name,
            "os_version": host.os_version,
            "lca_version": host.lca_version,
        },
    )


def application_record(application: Application) -> Record:
    return Record(
        Kind.APPLICATION,
        {
            "name": application.name,
            "type": application.type,
            "version": application.version,
            "role": application.standing,
            "peer": application.peer.name if application.peer else "",
            "port": "" if application.port is None else str(application.port),
            "folder": application.folder,
            "database": application.database,
            "dormant": _flag(application.dormant),
            "host": application.host.name,
        },
    )


def exported(environment: Environment, form: str, separator: str = ",") -> str:
    """The file: `form` is csv or yaml. Nothing secret is in it, for nothing secret is in the records."""
    content = content_of(environment)
    return to_yaml(content) if form == "yaml" else to_csv(content, separator)


# Who changed it.


def changes_book(environment_id: int) -> str:
    """The book of the register that has every change of the environment."""
    return f"changes/{environment_id}"


@dataclass(frozen=True, slots=True)
class FieldLine:
    title: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class ChangeLine:
    """One record that a change added, changed or removed."""

    kind: str
    act: str
    name: str
    fields: tuple[FieldLine, ...]


@dataclass(frozen=True, slots=True)
class ChangeEntry:
    """An entry of the book: who did what when. `file` and `sha256` are those of an import."""

    number: int
    at: datetime
    who: str
    what: str
    file: str
    sha256: str
    lines: tuple[ChangeLine, ...]


_WHAT = {
    "environment.created": "made the environment",
    "environment.imported": "imported a file",
    "environment.edited": "changed it by hand",
    "agent.registered": "registered an agent",
    "agent.moved": "changed an agent's address or id; it has a new key",
    "agent.certificate": "changed the certificate that an agent's TLS rests on",
    "agent.key": "made a new key for an agent",
    "agent.removed": "removed an agent",
    "agent.tried": "asked an agent for its health",
    "endpoint.added": "added an endpoint for notices",
    "endpoint.changed": "changed an endpoint for notices",
    "endpoint.secret": "made a new secret for an endpoint",
    "endpoint.removed": "removed an endpoint for notices",
    "endpoint.tried": "sent an endpoint a test message",
    "plan.timed": "changed when runs are planned",
}


def environment_changes(environment: Environment, page: int) -> tuple[tuple[ChangeEntry, ...], bool]:
    """A page (counted from 1) of the changes, newest first, and whether there are older ones; one query."""
    first = (page - 1) * PAGE
    rows = RegisterEntry.objects.filter(book=changes_book(environment.pk)).order_by("-number")
    texts = list(rows.values_list("text", flat=True)[first : first + PAGE + 1])
    return tuple(_entry(json.loads(text)) for text in texts[:PAGE]), len(texts) > PAGE


def change_entry(row: RegisterEntry) -> ChangeEntry:
    """A row of the book of changes, readable."""
    return _entry(json.loads(row.text))


def _entry(stored: Mapping[str, Any]) -> ChangeEntry:
    body = stored["body"]
    file = body.get("file", {})
    return ChangeEntry(
        number=stored["number"],
        at=datetime.fromisoformat(stored["at"]),
        who=from_stored(stored["by"]).how,
        what=_WHAT.get(stored["kind"], stored["kind"]),
        file=file.get("name", ""),
        sha256=file.get("sha256", ""),
        lines=tuple(
            ChangeLine(
                item["kind"],
                item["act"],
                item["name"],
                tuple(FieldLine(one["title"], one["before"], one["after"]) for one in item["fields"]),
            )
            for item in body.get("changes", ())
        ),
    )
