"""Until when something may stay open: an exposure, or a duty."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

from upgrades.domain.procedure import Procedure
from upgrades.domain.run_state import Burden

DUTY = timedelta(days=7)  # for a duty whose title names no day
_DAY = re.compile(r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}\b")


def burden_due(procedure: Procedure, burden: Burden) -> datetime | None:
    """When an exposure has lasted as long as expected, or a duty is overdue; None when nothing says so."""
    what, _, name = burden.id.partition(":")
    if what == "exposure":
        kind = next((kind for kind in procedure.exposures if kind.id == name), None)
        expected = kind.expected if kind is not None else None
        return burden.since + timedelta(seconds=expected) if expected is not None else None
    day = _day_in(burden.title)
    if day is None:
        return burden.since + DUTY
    return datetime.combine(day, time(), UTC) + timedelta(days=1)


def _day_in(title: str) -> date | None:
    """The last day that a duty's title names, as in “Keep the former configuration database until 2027-01-31”."""
    days = []
    for found in _DAY.findall(title):
        try:
            days.append(date.fromisoformat(found))
        except ValueError:  # a number of another kind
            continue
    return max(days, default=None)
