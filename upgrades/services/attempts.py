"""Work that ends the process that does it is left alone for a while, so that it does not end one process after the other.

Before such work a row says that it has begun; afterwards, however it went, the row is taken away. Only a process that dies
leaves its row. At most one process at a time works on a subject (an advisory lock of its session, which ends with it), so
the rows found at the beginning are deaths in a row, and nobody else's work under way.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError, connection
from django.utils import timezone

from upgrades.adapters.session_lock import alone

logger = logging.getLogger(__name__)

DEATHS = 3
AGAIN_AFTER = timedelta(seconds=60)


class Parked(Exception):
    """The last three processes that did this died of it; it is tried again at `again_at`."""

    def __init__(self, subject: str, again_at: datetime) -> None:
        super().__init__(
            f"{subject}: the last {DEATHS} processes that worked on it died. It is tried again at {again_at:%H:%M:%S} UTC"
        )
        self.again_at = again_at


@contextmanager
def attempt(subject: str) -> Iterator[bool]:
    """Do the work inside as one attempt on `subject` ("run 7"); it gives whether this is a trial after it was parked.

    Raises Parked, before anything is done. Not for use within a transaction: the row must be there when the process dies.
    """
    with alone(f"attempt {subject}"):
        deaths, last, has_begun = _begin(subject)
        if not has_begun:
            raise Parked(subject, last + AGAIN_AFTER)
        try:
            yield deaths >= DEATHS
        finally:
            _forget(subject)


# What lies further ahead than the pause was written before the clock was set back.
_BEGIN = """
    WITH dead AS (SELECT count(*) AS deaths, max(begun_at) AS last FROM upgrades_attempt WHERE subject = %(subject)s),
    begun AS (
        INSERT INTO upgrades_attempt (subject, begun_at)
        SELECT %(subject)s, %(now)s FROM dead
        WHERE deaths < %(most)s OR last <= %(now)s - %(pause)s OR last > %(now)s + %(pause)s RETURNING 1
    )
    SELECT deaths, last, EXISTS (SELECT FROM begun) FROM dead
"""


def _begin(subject: str) -> tuple[int, datetime, bool]:
    values: dict[str, Any] = {"subject": subject, "now": timezone.now(), "most": DEATHS, "pause": AGAIN_AFTER}
    with connection.cursor() as cursor:
        cursor.execute(_BEGIN, values)
        found: tuple[int, datetime, bool] = cursor.fetchone()
    return found


def _forget(subject: str) -> None:
    if connection.errors_occurred and not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()  # then with a new session
    with suppress(DatabaseError), connection.cursor() as cursor:
        cursor.execute("DELETE FROM upgrades_attempt WHERE subject = %s", [subject])
