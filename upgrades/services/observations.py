"""What a run has not taken in yet: lines, process changes, totals, agents lost and back, facts that changed.

Everything is looked up anew from the stored rows each time, in file order, and the core drops what it has already:
so nothing is lost when a worker dies in between, and nothing counts twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

from django.db.models import Q
from django.utils import timezone

from upgrades.domain import run_events as e
from upgrades.domain.event_rule import APPLICATION_STARTED
from upgrades.domain.exposure import marks_due
from upgrades.domain.freshness import has_passed, is_stale
from upgrades.domain.procedure import Procedure
from upgrades.domain.run import Watch, active_watches, baseline_marks, counts_from, watched_totals
from upgrades.domain.run_events import RunEvent
from upgrades.domain.run_state import RunState, watch_key
from upgrades.models import Agent, Application, LogFile, LogLine, ProcessChange, Run
from upgrades.queries.facts import environment_facts

DOUBTS_AT_ONCE = 20  # a log of a wholly unknown format would otherwise fill the run's record
SETTLING = timedelta(seconds=5)  # a PID file may be written a moment after the first log line
PATIENCE = timedelta(seconds=3)  # an agent that misses one poll is not lost yet


def since(run: Run, procedure: Procedure, state: RunState) -> Iterator[RunEvent]:
    """Candidates for the run's record, oldest first per log; some may be known already."""
    for watch in active_watches(procedure, state):
        yield from _lines(run, state, watch)
        yield from _process(run, state, watch)
    yield from _totals(run, procedure, state)
    yield from agents_lost(run, state)
    yield from _facts(run, state)
    yield from marks_due(procedure, state, timezone.now())


def _lines(run: Run, state: RunState, watch: Watch) -> Iterator[RunEvent]:
    open_doubts = 0
    for line in _behind_watermark(run, watch):
        if line.kind == LogLine.Kind.EVENT:
            yield e.LogEventSeen(
                watch=watch.id,
                application=watch.application,
                file=line.file.place,
                offset=line.offset,
                event=line.event,
                level=line.level,
                logged_at=line.logged_at,
                text=line.text[:500],
                line_sha256=hashlib.sha256(bytes(line.raw)).hexdigest(),
            )
        elif not watch.settled and not _is_set_aside(state, watch, line):
            if open_doubts == DOUBTS_AT_ONCE:
                return  # what lies behind a doubt that is not told yet must wait, or it would count without it
            open_doubts += 1
            yield e.LogDoubtful(
                watch=watch.id,
                application=watch.application,
                doubt=line.kind,
                file=line.file.place,
                offset=line.offset,
                text=line.text[:300],
            )


def _is_set_aside(state: RunState, watch: Watch, line: LogLine) -> bool:
    recorded = state.gates.get(watch_key(watch.id))
    this = (line.kind, (line.file.place, line.offset))
    return recorded is not None and any(
        seen.seq in state.set_aside and (seen.kind, seen.place) == this for seen in recorded.observations
    )


def _behind_watermark(run: Run, watch: Watch) -> Iterator[LogLine]:
    wanted = Q(kind=LogLine.Kind.EVENT, event__in=watch.events) | Q(
        kind__in=(LogLine.Kind.GAP, LogLine.Kind.UNREADABLE, LogLine.Kind.FOREIGN)
    )
    lines = (
        LogLine.objects.filter(
            wanted,
            file__application__environment=run.environment_id,
            file__application__name=watch.application,
        )
        .select_related("file")
        .order_by("file_id", "offset", "id")
    )
    begins: dict[str, int] = {}
    for line in lines.iterator():
        place = line.file.place
        if place not in begins:
            begins[place] = counts_from(watch.watermark, place)
        if line.kind == LogLine.Kind.GAP:
            # What is lost may reach beyond the watermark, wherever it begins: all gaps count that came later.
            behind = line.pk > watch.watermark.get(e.GAPS, 0)
        elif line.kind == LogLine.Kind.FOREIGN:
            # It speaks of the whole file, though it stands at its head: it counts with the first line that does.
            behind = place not in watch.watermark or line.file.cursor > begins[place]
        else:
            behind = line.offset >= begins[place]
        if behind:
            yield line


def _process(run: Run, state: RunState, watch: Watch) -> Iterator[RunEvent]:
    """The server went away after it had come up within this watch.

    That it went down earlier may be noticed only now, so a process that was not seen to come up did not end either.
    """
    step, _visit, _gate = watch_key(watch.id)
    known = watch.watermark.get(e.CHANGES)
    came_later = Q(seen_at__gt=state.steps[step].begun_at) if known is None else Q(pk__gt=known)
    changes = ProcessChange.objects.filter(
        came_later, application__environment=run.environment_id, application__name=watch.application
    ).order_by("pk")
    came_up = False
    for change in changes:
        if change.state == "up":
            came_up = True
        elif change.state == "down" and came_up:
            text = change.reason or "its process is gone"
            yield e.ServerEnded(watch=watch.id, application=watch.application, change=change.pk, text=text)
    if not came_up:
        yield from _missed(run, watch)


def _missed(run: Run, watch: Watch) -> Iterator[RunEvent]:
    """The log says that the server started, and the agent never sees it run: it ended between two looks.

    `change` is then the line's number, negative.
    """
    application = Application.objects.get(environment=run.environment_id, name=watch.application)
    agent = Agent.objects.filter(host=application.host_id).first()
    if application.process_state != "down" or agent is None or agent.seen_at is None:
        return
    started = [line for line in _behind_watermark(run, watch) if line.event == APPLICATION_STARTED]
    if started and has_passed(SETTLING, started[-1].read_at, agent.seen_at):
        text = "its log says that it started, but it does not run"
        yield e.ServerEnded(watch=watch.id, application=watch.application, change=-started[-1].pk, text=text)


def _totals(run: Run, procedure: Procedure, state: RunState) -> Iterator[RunEvent]:
    """The newest total of each server behind its mark; several a second are usual, only the last of a look counts
    (genesys.md 2.4)."""
    for name in watched_totals(procedure, state):
        line = _last_total(run, name, baseline_marks(procedure, state, name))
        if line is not None and line.total is not None:
            yield e.ClientTotalSeen(
                application=name, total=line.total, file=line.file.place, offset=line.offset
            )


def _last_total(run: Run, name: str, marks: Sequence[Mapping[str, int]]) -> LogLine | None:
    """The last total of the server that stands behind a mark, newest file first; None without any mark.

    What may be of another server, or a copy, proves nothing here: nobody can set that doubt aside for a count.
    """
    if not marks:
        return None
    own = LogFile.objects.filter(application__environment=run.environment_id, application__name=name)
    files = own.exclude(lines__kind=LogLine.Kind.FOREIGN)
    for file in files.defer("parser_state").order_by("-pk"):
        begin = min(counts_from(mark, file.place) for mark in marks)
        if file.cursor <= begin:
            continue  # as in most files of a server that has run for long: nothing was read behind the mark
        totals = LogLine.objects.filter(file=file, kind=LogLine.Kind.TOTAL, offset__gte=begin)
        line = totals.select_related("file").order_by("-offset").first()
        if line is not None:
            return line
    return None


def agents_lost(run: Run, state: RunState) -> Iterator[RunEvent]:
    """Which agents are lost, and which are back. One that nobody has asked for two polls is lost as well.

    Without a worker nothing would say so, and people would go on with what was seen an hour ago.
    """
    hosts = {bound.host for bound in state.started.bindings.values()}
    now = timezone.now()
    known = set()
    for agent in Agent.objects.filter(environment=run.environment_id, host__name__in=hosts).select_related(
        "host"
    ):
        known.add(agent.host.name)
        if (
            agent.trouble
            and agent.trouble_since is not None
            and has_passed(PATIENCE, agent.trouble_since, now)
        ):
            yield e.AgentLost(host=agent.host.name, reason=agent.trouble)
        elif not agent.trouble and is_stale(agent.seen_at, now, watched=False):
            yield e.AgentLost(
                host=agent.host.name,
                reason=f"It was last heard at {agent.seen_at:%H:%M:%S} UTC, and nobody has asked it since: is a worker running?",
            )
        elif not agent.trouble:
            yield e.AgentBack(host=agent.host.name)
    for host in sorted(hosts - known):
        yield e.AgentLost(
            host=host, reason="No agent is registered for this host. Register one on its environment."
        )


def _facts(run: Run, state: RunState) -> Iterator[RunEvent]:
    names = [bound.application for bound in state.started.bindings.values()]
    bound = Application.objects.filter(environment=run.environment_id, name__in=names).select_related("host")
    for name, value in environment_facts(run.environment, bound).items():
        if name in state.facts:
            yield e.FactSet(name=name, value=value)
