"""Exposures against time: how long one may last, and what is due to be told on the way (LCA-W).

The maximum is a length that the procedure states, or a fact of the run, such as the value of an option: then the
exposure is a countdown, and follows that fact when it is corrected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from upgrades.domain.condition import Fact
from upgrades.domain.procedure import ExposureKind, Procedure
from upgrades.domain.run_events import ExposureMarked
from upgrades.domain.run_state import RunState

WARNING = 80  # per cent of the limit: time enough to finish, or to ask for help
MARKS = (WARNING, 100)


def limit_of(kind: ExposureKind, facts: Mapping[str, Fact]) -> int | None:
    """Seconds that it may last at most; None when nothing says so."""
    if kind.maximum_from is None:
        return kind.maximum
    stated = facts.get(kind.maximum_from)
    return int(stated) if isinstance(stated, str) and stated.isascii() and stated.isdigit() else None


def marks_due(procedure: Procedure, state: RunState, now: datetime) -> Iterator[ExposureMarked]:
    """The marks of open countdowns that lie behind at `now` and are not recorded yet, oldest first."""
    for kind in procedure.exposures:
        burden = state.burdens.get(f"exposure:{kind.id}")
        limit = limit_of(kind, state.facts)
        if kind.maximum_from is None or burden is None or not limit:
            continue
        for percent in MARKS:
            is_behind = now >= burden.since + timedelta(seconds=limit * percent / 100)
            if is_behind and (percent, limit) not in burden.marks:
                passed = int((now - burden.since).total_seconds())
                yield ExposureMarked(exposure=kind.id, percent=percent, limit=limit, passed=passed)
