"""The event store: a run's events in and out of the database, chained by hash.

The canonical text of an event is written once and hashed as written, so that checking a chain never depends on how
JSON is printed again. Appending goes through one database function; the caller holds the lock on the run's row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from upgrades.adapters.crash_points import crash
from upgrades.domain.frozen import positional_maker
from upgrades.domain.record import Chain, Link, canonical, event_ends_as
from upgrades.domain.run_events import (
    EVENT_FORMAT,
    Actor,
    Recorded,
    RunEvent,
    from_body,
    from_stored,
    to_body,
)
from upgrades.domain.run_events import stored as as_stored
from upgrades.models import RunEvent as Row


def load(run_id: int, *, after: int = 0) -> list[Recorded]:
    """The events of the run behind `after`, in order."""
    rows = Row.objects.filter(run_id=run_id, seq__gt=after).order_by("seq").values_list("text", flat=True)
    return [read(text) for text in rows]


def load_with_head(run_id: int) -> tuple[list[Recorded], str]:
    """All events of the run in order, and the hash of the last one."""
    rows = Row.objects.filter(run_id=run_id).order_by("seq").values_list("text", "hash")
    texts, hashes = zip(*rows, strict=True)
    return [read(text) for text in texts], hashes[-1]


_decode = json.JSONDecoder().raw_decode
_recorded = positional_maker(Recorded)


def read(text: str) -> Recorded:
    """The event that a canonical text holds."""
    stored, end = _decode(text)
    if end != len(text):
        raise ValueError("The stored text of an event is not canonical: something follows it.")
    return _recorded(
        stored["seq"],
        datetime.fromisoformat(stored["at"]),
        from_stored(stored["by"]),
        from_body(stored["kind"], stored["body"], stored["v"]),
    )


def text_of(run_id: int, recorded: Recorded) -> str:
    """The canonical text of an event: everything that its hash covers."""
    return canonical(
        {
            "v": EVENT_FORMAT,
            "run": run_id,
            "seq": recorded.seq,
            "at": recorded.at.isoformat(),
            "kind": recorded.event.kind,
            "by": as_stored(recorded.by),
            "body": to_body(recorded.event),
        }
    )


def record(first: int, events: Iterable[RunEvent], *, by: Actor, at: datetime) -> list[Recorded]:
    """The events in their places, `first` being the number of the first one."""
    who = by.as_recorded
    return [Recorded(first + place, at, who, event) for place, event in enumerate(events)]


def append(run_id: int, recorded: Sequence[Recorded]) -> str:
    """Append the events and give the hash of the last one. Another writer in between is refused by the database."""
    kinds = [item.event.kind for item in recorded]
    texts = [text_of(run_id, item) for item in recorded]
    crash("append.before")
    with connection.cursor() as cursor:
        cursor.execute("SELECT append_run_events(%s, %s, %s, %s)", [run_id, recorded[0].seq, kinds, texts])
        row: tuple[Any, ...] | None = cursor.fetchone()
    assert row is not None
    crash("append.after")
    return str(row[0])


def announce(channel: str, payload: str) -> None:
    """Tell open pages, exactly when the present transaction commits."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, %s)", [channel, payload])
    crash("announce.before-commit")


@dataclass(frozen=True, slots=True)
class BrokenLink:
    """The first event of a run that does not fit its chain, and why."""

    run: int
    seq: int
    reason: str


def broken_links(run_id: int, sealed: Mapping[int, str] | None = None) -> Iterator[BrokenLink]:
    """Check the chain of a run from the first event to the head; nothing comes out of a sound one.

    `sealed`: the hashes of this run that checkpoints saw, by number.
    """
    chain = Chain(ends_as=event_ends_as(run_id), sealed=sealed or {})
    broken = chain.first_break(_rows(run_id, 0))
    if broken is not None:
        yield BrokenLink(run_id, broken.seq, broken.reason)


def links(run_id: int, *, after: int = 0) -> Iterator[Link]:
    """The stored links of a run behind `after`, in order."""
    return map(Link._make, _rows(run_id, after))


def _rows(run_id: int, after: int) -> Iterator[tuple[Any, ...]]:
    """A range of numbers at a time: read along the index, and never more sorted at once than fits in memory."""
    while True:
        with connection.cursor() as cursor:
            cursor.execute(_LINKS, [run_id, after, after + LINKS_AT_ONCE])
            rows = cursor.fetchall()
            if (
                not rows
            ):  # the end, or a hole in the numbers: whatever stands behind it shows that there is one
                cursor.execute(_NEXT_LINK, [run_id, after])
                rows = cursor.fetchall()
        if not rows:
            return
        yield from rows
        after = rows[-1][0]


LINKS_AT_ONCE = 1000
_LINKS = (
    "SELECT seq, kind, previous, text, hash FROM upgrades_runevent "
    "WHERE run_id = %s AND seq > %s AND seq <= %s ORDER BY seq"
)
_NEXT_LINK = (
    "SELECT seq, kind, previous, text, hash FROM upgrades_runevent "
    "WHERE run_id = %s AND seq > %s ORDER BY seq LIMIT 1"
)
