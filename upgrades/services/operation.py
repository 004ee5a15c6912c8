"""Signs of life of the installation, and how long its gates take to open: rows, so that every process can tell them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from upgrades.domain import run_events as e
from upgrades.domain.run_events import RunEvent
from upgrades.domain.run_state import watch_id
from upgrades.models import Agent, GateOpening, Heartbeat, LogLine, Run

FORGOTTEN = timedelta(days=1)  # a worker that has not been seen for so long was taken away
OPENINGS_KEPT = timedelta(days=35)
QUARTER = 900.0  # seconds; the clocks of all zones differ by whole quarters of an hour
CLOCKS_AGREE = 10.0  # a line that seems to be this much younger than our reading of it was read at once


def alive(kind: Heartbeat.Kind, name: str = "") -> None:
    """Say that this part lives, by the present time."""
    Heartbeat.objects.bulk_create(
        [Heartbeat(kind=kind, name=name[:200], seen_at=timezone.now())],
        update_conflicts=True,
        unique_fields=["kind", "name"],
        update_fields=["seen_at"],
    )


def forget_old(now: datetime) -> None:
    """Remove workers that are gone for good, and openings that no figure counts any more."""
    Heartbeat.objects.filter(kind=Heartbeat.Kind.WORKER, seen_at__lt=now - FORGOTTEN).delete()
    GateOpening.objects.filter(opened_at__lt=now - OPENINGS_KEPT).delete()


def note_openings(run: Run, events: Sequence[RunEvent]) -> None:
    """Note the event gates that open with `events`, in the transaction that stores them."""
    openings = [
        opening
        for outcome in events
        if isinstance(outcome, e.OutcomeReached) and (opening := _opening(run, outcome, events)) is not None
    ]
    if openings:
        GateOpening.objects.bulk_create(openings)


def _opening(run: Run, outcome: e.OutcomeReached, events: Sequence[RunEvent]) -> GateOpening | None:
    watch = watch_id(outcome.step, outcome.visit, outcome.gate)
    seen = [item for item in events if isinstance(item, e.LogEventSeen) and item.watch == watch]
    line = _line(run, seen[-1]) if seen else None
    if line is None:  # it opened by something else: what a person set right, or a fact
        return None
    return GateOpening(
        run=run,
        step=outcome.step,
        gate=outcome.gate,
        read_at=line.read_at,
        opened_at=timezone.now(),
        on_host=_age_on_host(line),
    )


def _line(run: Run, seen: e.LogEventSeen) -> LogLine | None:
    identity, _, generation = seen.file.partition("~")
    place = Q(file__identity=identity, file__generation=int(generation or 0), offset=seen.offset)
    application = Q(
        file__application__environment=run.environment_id, file__application__name=seen.application
    )
    found = LogLine.objects.filter(place, application, kind=LogLine.Kind.EVENT)
    return found.select_related("file__application").defer("raw", "text").first()


def _age_on_host(line: LogLine) -> float | None:
    """How old the line was when we read it. Its time has no zone, and its host's clock may be wrong: the agent's, which
    is the same, tells by how much; and the zone drops out, since zones differ by whole quarters of an hour."""
    agent = Agent.objects.filter(host=line.file.application.host_id).only("clock_skew").first()
    try:
        written = datetime.fromisoformat(line.logged_at)
    except ValueError:
        return None
    if agent is None or written.tzinfo is not None:
        return None
    read = line.read_at.replace(tzinfo=None) + timedelta(seconds=agent.clock_skew)
    age = (read - written).total_seconds() % QUARTER
    return 0.0 if age > QUARTER - CLOCKS_AGREE else age
