"""The register: what has to stand in the record beside the runs' own events (models/record.py).

The database gives each entry its number and its time, in the transaction of the act that it tells of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from upgrades.adapters.crash_points import crash
from upgrades.domain.record import GENESIS, Break, Chain, Link, canonical, entry_ends_as
from upgrades.domain.run_events import Actor, from_stored
from upgrades.domain.run_events import stored as as_stored
from upgrades.models import RegisterEntry

SYSTEM = Actor(id="system", name="Runbook", kind="system")


def runs_book(environment_id: int) -> str:
    return f"runs/{environment_id}"


def access_book(environment_id: int) -> str:
    return f"access/{environment_id}"


def reads_book(environment_id: int) -> str:
    return f"reads/{environment_id}"


KEYS_BOOK = "keys"
SYSTEM_BOOK = "system"  # backups taken and put back
BACKUP_TAKEN, BACKUP_RESTORED = "backup.taken", "backup.restored"


def enter(book: str, kind: str, *, by: Actor, body: Mapping[str, Any], run: int | None = None) -> int:
    """Append an entry and give its number in the book. Who holds the transaction holds the book until it ends."""
    crash("register.before")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT append_register(%s, %s, %s, %s, %s)", [book, kind, run, _actor(by), canonical(body)]
        )
        row: tuple[Any, ...] | None = cursor.fetchone()
    assert row is not None
    crash("register.after")
    return int(row[0])


def acting(by: Actor) -> None:
    """Say who changes roles and policies in the present transaction: the entries that the database makes name them."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('runbook.actor', %s, true)", [_actor(by)])


def _actor(by: Actor) -> str:
    return canonical(as_stored(by))


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


def links(book: str, *, after: int = 0) -> Iterator[tuple[Link, int | None]]:
    """The stored links of a book behind `after`, in order, each with the run in the column beside it."""
    rows = RegisterEntry.objects.filter(book=book, number__gt=after).order_by("number")
    values = rows.values_list("number", "kind", "previous", "text", "hash", "run")
    for *link, run in values.iterator(chunk_size=2000):
        yield Link._make(link), run


def first_break(
    book: str, sealed: Mapping[int, str], *, after: int = 0, previous: str = GENESIS
) -> Break | None:
    """The first entry of a book, behind `after`, that does not fit its chain or what checkpoints saw."""
    runs: dict[int, int | None] = {}

    def remembered() -> Iterator[Link]:
        for link, run in links(book, after=after):
            runs[link.seq] = run
            yield link

    chain = Chain(
        ends_as=entry_ends_as(lambda number: runs.pop(number)),
        sealed=sealed,
        after=after,
        previous=previous,
        noun="entry",
    )
    return chain.first_break(remembered())


def read(row: RegisterEntry) -> Entry:
    """What the text of the row says."""
    stored = json.loads(row.text)
    return Entry(
        book=stored["book"],
        number=stored["number"],
        kind=stored["kind"],
        run=stored["run"],
        at=datetime.fromisoformat(stored["at"]),
        by=from_stored(stored["by"]),
        body=stored["body"],
    )
