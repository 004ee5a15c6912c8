"""The register: what has to stand in the record beside the runs' own events (models/record.py).

The database gives each entry its number and its time, in the transaction of the act that it tells of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from upgrades.domain.record import canonical
from upgrades.domain.run_events import Actor
from upgrades.models import RegisterEntry

SYSTEM = Actor(id="system", name="Runbook", kind="system")


def runs_book(environment_id: int) -> str:
    return f"runs/{environment_id}"


def access_book(environment_id: int) -> str:
    return f"access/{environment_id}"


def reads_book(environment_id: int) -> str:
    return f"reads/{environment_id}"


KEYS_BOOK = "keys"


def enter(book: str, kind: str, *, by: Actor, body: Mapping[str, Any], run: int | None = None) -> int:
    """Append an entry and give its number in the book. Who holds the transaction holds the book until it ends."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT append_register(%s, %s, %s, %s, %s)", [book, kind, run, _actor(by), canonical(body)]
        )
        row: tuple[Any, ...] | None = cursor.fetchone()
    assert row is not None
    return int(row[0])


def acting(by: Actor) -> None:
    """Say who changes roles and policies in the present transaction: the entries that the database makes name them."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('runbook.actor', %s, true)", [_actor(by)])


def _actor(by: Actor) -> str:
    return canonical({"id": by.id, "kind": by.kind, "name": by.name, "roles": sorted(by.roles)})


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as it is read back: everything is taken from its text, nothing from the columns beside it."""

    book: str
    number: int
    kind: str
    run: int | None
    at: datetime
    by: Actor
    body: dict[str, Any]


def read(row: RegisterEntry) -> Entry:
    """What the text of the row says."""
    stored = json.loads(row.text)
    by = stored["by"]
    return Entry(
        book=stored["book"],
        number=stored["number"],
        kind=stored["kind"],
        run=stored["run"],
        at=datetime.fromisoformat(stored["at"]),
        by=Actor(id=by["id"], name=by["name"], kind=by["kind"], roles=tuple(by["roles"])),
        body=stored["body"],
    )
