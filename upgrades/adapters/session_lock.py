"""One at a time, across all processes: an advisory lock of the database session, which ends with the session.

For work of several transactions, where no row can be locked throughout; none outlives a process that died.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db import DatabaseError, OperationalError, connection
from psycopg.errors import LockNotAvailable


class Taken(Exception):
    """Somebody else held the name for longer than the session waits for locks; nothing was done."""


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Nobody else with this name until the end of the block; waits for whoever has it, or raises Taken."""
    with connection.cursor() as cursor:
        try:
            cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [name])
        except OperationalError as failure:
            if isinstance(failure.__cause__, LockNotAvailable):
                raise Taken(name) from failure
            raise
    try:
        yield
    finally:
        # A session that is gone has lost its locks already.
        with suppress(DatabaseError), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [name])
