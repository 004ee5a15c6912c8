"""Planned runs as an iCalendar file (RFC 5545), as calendar programs subscribe to it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from icalendar import Calendar, Event, vDuration, vUri

from upgrades.domain.notice_text import one_line

REFRESH = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a calendar. `key` stays the same as long as it is the same planned run."""

    key: str
    title: str
    text: str
    where: str
    link: str
    begins_at: datetime
    ends_at: datetime
    changed_at: datetime
    revision: int
    is_sure: bool  # it has begun


def to_ics(entries: Iterable[Entry], *, name: str, host: str) -> bytes:
    """The file. Entries keep their UID over changes, so that a calendar moves them instead of showing both."""
    calendar = Calendar()
    calendar.add("prodid", "-//Runbook//Planned runs//EN")
    calendar.add("version", "2.0")
    calendar.add("calscale", "GREGORIAN")
    calendar.add("method", "PUBLISH")
    calendar.add("name", one_line(name))
    calendar.add("x-wr-calname", one_line(name))
    calendar.add("refresh-interval", vDuration(REFRESH))
    calendar.add("x-published-ttl", vDuration(REFRESH))
    for entry in entries:
        calendar.add_component(_event(entry, host))
    return bytes(calendar.to_ical())


def _event(entry: Entry, host: str) -> Event:
    event = Event()
    event.add("uid", f"{hashlib.sha256(entry.key.encode()).hexdigest()[:32]}@{host}")
    event.add("dtstamp", entry.changed_at)
    event.add("last-modified", entry.changed_at)
    event.add("sequence", entry.revision)
    event.add("dtstart", entry.begins_at)
    event.add("dtend", entry.ends_at)
    event.add("summary", one_line(entry.title))
    event.add("description", entry.text)
    event.add("location", one_line(entry.where))
    event.add("url", vUri(entry.link))
    event.add("status", "CONFIRMED" if entry.is_sure else "TENTATIVE")
    event.add("transp", "OPAQUE")
    return event
