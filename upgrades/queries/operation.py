"""How the installation is doing, in few queries: for /metrics, for /readyz and for the status page.

Copies for rehearsals are left out everywhere: they come and go with a practice, and nobody is to be woken for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import Count

from upgrades.adapters.run_states import state_of
from upgrades.domain.exposure import limit_of
from upgrades.domain.freshness import CLOCKS_DIFFER, has_passed, too_old
from upgrades.models import Heartbeat, Run, RunBurden
from upgrades.queries.procedures import procedure_of
from upgrades.queries.run_lines import OVER

WORKER_SILENT = timedelta(seconds=15)  # each says every few seconds that it lives
TICK_LATE = timedelta(seconds=20)  # it comes every five
RECENTLY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Life:
    """Workers that were seen lately, by name and time, and when the tick of the reconciler last went through."""

    workers: tuple[tuple[str, datetime], ...]
    tick: datetime | None

    def working(self, now: datetime) -> tuple[str, ...]:
        return tuple(name for name, seen in self.workers if not has_passed(WORKER_SILENT, seen, now))

    def ticks(self, now: datetime) -> bool:
        return self.tick is not None and not has_passed(TICK_LATE, self.tick, now)


def life() -> Life:
    """One query."""
    rows = list(Heartbeat.objects.values_list("kind", "name", "seen_at"))
    workers = tuple((name, seen) for kind, name, seen in rows if kind == Heartbeat.Kind.WORKER)
    return Life(workers, next((seen for kind, _, seen in rows if kind == Heartbeat.Kind.TICK), None))


@dataclass(frozen=True, slots=True)
class Agents:
    """All agents together: how many answer, and how long ago the last answers were (seconds)."""

    known: int
    in_trouble: int
    never_heard: int
    silent: int  # not in trouble, and yet not heard within two polls: nobody asks them
    worst_age: float | None
    median_age: float | None
    most_skew: float
    leases_held: int
    leases_overrun: int
    leases_expired: int


_AGENTS = """
SELECT count(*) AS known,
    count(*) FILTER (WHERE trouble <> '') AS in_trouble,
    count(*) FILTER (WHERE trouble = '' AND seen_at IS NULL) AS never_heard,
    count(*) FILTER (WHERE trouble = '' AND (seen_at < %(stale)s OR seen_at > %(ahead)s)) AS silent,
    extract(epoch FROM %(now)s - min(seen_at))::float8 AS worst_age,
    extract(epoch FROM %(now)s - percentile_disc(0.5) WITHIN GROUP (ORDER BY seen_at))::float8 AS median_age,
    coalesce(max(abs(clock_skew)), 0)::float8 AS most_skew,
    count(*) FILTER (WHERE lease_until >= %(now)s) AS leases_held,
    count(*) FILTER (WHERE lease_until < %(now)s) AS leases_overrun,
    coalesce(sum(leases_expired), 0)::int8 AS leases_expired
FROM upgrades_agent JOIN upgrades_environment ON upgrades_environment.id = environment_id
WHERE rehearsal_of_id IS NULL
"""


def agents(now: datetime) -> Agents:
    """One query."""
    return Agents(
        **_row(_AGENTS, {"now": now, "stale": now - too_old(watched=False), "ahead": now + CLOCKS_DIFFER})
    )


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits for a worker: how many rows are due, and since when the oldest one."""

    kind: str
    waiting: int
    oldest: datetime | None

    def age(self, now: datetime) -> float:
        return max(0.0, (now - self.oldest).total_seconds()) if self.oldest else 0.0


_QUEUES = """
SELECT 'agents' AS kind, count(*) AS waiting, min(due_at) AS oldest FROM upgrades_agent
    JOIN upgrades_environment ON upgrades_environment.id = environment_id
    WHERE rehearsal_of_id IS NULL AND due_at <= %(now)s AND (lease_until IS NULL OR lease_until < %(now)s)
UNION ALL SELECT 'rules', count(*), min(rules_due_at) FROM upgrades_environment
    WHERE rehearsal_of_id IS NULL AND rules_due_at <= %(now)s
UNION ALL SELECT 'requests', count(*), min(request.due_at) FROM upgrades_runrequest AS request
    JOIN upgrades_run AS run ON run.id = request.run_id
    WHERE NOT run.rehearsal AND request.due_at <= %(now)s AND NOT request.closed
UNION ALL SELECT 'checkpoints', count(*), min(at) FROM upgrades_checkpointdelivery
    JOIN upgrades_checkpoint ON number = checkpoint_id WHERE done_at IS NULL
UNION ALL SELECT 'notices', count(*), min(next_at) FROM upgrades_noticedelivery
    WHERE state = 'waiting' AND next_at <= %(now)s
"""


def queues(now: datetime) -> tuple[Queue, ...]:
    """One query."""
    with connection.cursor() as cursor:
        cursor.execute(_QUEUES, {"now": now})
        return tuple(Queue(*row) for row in cursor.fetchall())


@dataclass(frozen=True, slots=True)
class Openings:
    """The event gates that opened within the last hour; seconds from the line to the stored outcome."""

    count: int
    from_news: Mapping[str, float]  # from our reading of the line, by quantile
    from_host: Mapping[str, float]  # from the line's own time, by quantile


QUANTILES = ("0.5", "0.99", "1")
_OPENINGS = """
SELECT count(*), percentile_disc(%(quantiles)s) WITHIN GROUP (ORDER BY news),
    percentile_disc(%(quantiles)s) WITHIN GROUP (ORDER BY news + on_host)
FROM (SELECT extract(epoch FROM opened_at - read_at)::float8 AS news, on_host
      FROM upgrades_gateopening JOIN upgrades_run ON upgrades_run.id = run_id
      WHERE NOT rehearsal AND opened_at > %(since)s) AS opened
"""


def openings(now: datetime) -> Openings:
    """One query."""
    with connection.cursor() as cursor:
        cursor.execute(
            _OPENINGS, {"since": now - RECENTLY, "quantiles": [float(quantile) for quantile in QUANTILES]}
        )
        row = cursor.fetchone()
    assert row is not None
    count, news, host = row
    return Openings(count, _quantiles(news), _quantiles(host))


def _quantiles(values: Iterable[float | None] | None) -> dict[str, float]:
    return {
        name: value
        for name, value in zip(QUANTILES, values or [None] * len(QUANTILES), strict=True)
        if value is not None
    }


@dataclass(frozen=True, slots=True)
class Logs:
    """How far the reading of log files is behind, and what of them is lost to us."""

    lag: int  # bytes of all files that are not read yet
    worst_lag: int
    gaps: int  # within the last hour


_LOGS = """
WITH gap AS MATERIALIZED (
    SELECT file_id FROM upgrades_logline WHERE kind = 'gap' AND read_at > %(since)s),
file AS NOT MATERIALIZED (
    SELECT log.id, log.size, log.cursor, log.state FROM upgrades_logfile AS log
    JOIN upgrades_application ON upgrades_application.id = log.application_id
    JOIN upgrades_environment ON upgrades_environment.id = environment_id
    WHERE rehearsal_of_id IS NULL)
SELECT coalesce(sum(greatest(size - cursor, 0)), 0)::int8 AS lag, coalesce(max(size - cursor), 0) AS worst_lag,
    (SELECT count(*) FROM gap JOIN file ON file.id = file_id) AS gaps
FROM file WHERE state = 'open'
"""


def logs(now: datetime) -> Logs:
    """One query."""
    return Logs(**_row(_LOGS, {"since": now - RECENTLY}))


@dataclass(frozen=True, slots=True)
class Runs:
    """Open runs by their status, apart from rehearsals, and the exposures that stand."""

    by_status: Mapping[str, int]
    exposures: int
    over_maximum: int


def runs(now: datetime) -> Runs:
    """Two queries, and for each run with an open exposure at most two of what this process has not read yet."""
    counted = Run.objects.filter(rehearsal=False).exclude(status__in=OVER).order_by()
    by_status = dict(counted.values_list("status").annotate(Count("pk")))
    standing = list(
        RunBurden.objects.filter(closed_at=None, burden__startswith="exposure:", run__rehearsal=False)
        .select_related("run__procedure")
        .defer("run__procedure__text")
    )
    return Runs(by_status, len(standing), sum(is_over_maximum(row, now) for row in standing))


def is_over_maximum(row: RunBurden, now: datetime) -> bool:
    """Whether the exposure lasts longer than its run allows; the caller has its run and procedure."""
    state = state_of(row.run_id)
    kinds = procedure_of(row.run.procedure, state.started).exposures
    kind = next((kind for kind in kinds if kind.id == row.burden.partition(":")[2]), None)
    limit = limit_of(kind, state.facts) if kind is not None else None
    return limit is not None and (now - row.opened_at).total_seconds() > limit


def _row(statement: str, values: Mapping[str, Any]) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        row = cursor.fetchone()
        assert row is not None
        return dict(zip((column.name for column in cursor.description or ()), row, strict=True))


# What is built in the database beside its tables, and what the record rests on.

GUARDS = (
    "record_is_append_only",
    "register_is_append_only",
    "leaves_are_append_only",
    "checkpoints_are_append_only",
    "membership_is_registered",
    "policies_are_registered",
    "group_role_is_registered",
    "confirmation_is_registered",
    "an_auditor_has_no_other_role",
)
APPENDING = ("append_run_events", "append_register", "append_checkpoint")


def missing_guards() -> tuple[str, ...]:
    """The triggers and functions of the record that are not there, or are switched off. One query.

    `O` and `A` are the states in which a trigger works for everybody; one for replication alone is off for us.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgname FROM pg_trigger WHERE tgname = ANY(%s) AND tgenabled IN ('O', 'A')"
            " UNION SELECT proname FROM pg_proc WHERE proname = ANY(%s)",
            [list(GUARDS), list(APPENDING)],
        )
        there = {name for (name,) in cursor.fetchall()}
    return tuple(name for name in (*GUARDS, *APPENDING) if name not in there)
