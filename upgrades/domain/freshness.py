"""How old what is known of a server may be before a page must say so: two polls (I10 of the reliability goals)."""

from __future__ import annotations

from datetime import datetime, timedelta

WATCHED = timedelta(seconds=5)  # at most between two answers of an agent that an open run needs
IDLE = timedelta(seconds=15)  # and of one that is only looked after
SLACK = timedelta(seconds=2)
# The clocks of our own hosts differ by less. What lies further ahead of now was written before a clock was set back.
CLOCKS_DIFFER = timedelta(seconds=60)


def has_passed(span: timedelta, since: datetime, now: datetime) -> bool:
    """Whether that time has passed since then; also where nobody can tell any more, for the clock was set back."""
    return not -CLOCKS_DIFFER <= now - since <= span


def too_old(*, watched: bool) -> timedelta:
    """The age from which on an answer is too old to be shown as the present state."""
    return 2 * (WATCHED if watched else IDLE) + SLACK


def is_stale(seen_at: datetime | None, now: datetime, *, watched: bool) -> bool:
    """Whether the last answer is older than two polls; one that never answered has told nothing that could be old."""
    return seen_at is not None and has_passed(too_old(watched=watched), seen_at, now)
