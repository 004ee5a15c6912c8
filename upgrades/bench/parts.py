"""What the parts cost: a command, the chain, rebuilding, reading lines, the agent's scan."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from django.db import connection, transaction
from django.utils import timezone

from agent import configuration
from agent.messages import BODY_LIMIT, Cursor
from agent.polling import Logs, Question
from upgrades.adapters import event_store
from upgrades.bench.agents import application_of, log_of, name_of
from upgrades.bench.figures import Figure, alternately, percentile, ratio, spread
from upgrades.bench.scene import NOTE, Pair, Team, unwatched_pair
from upgrades.domain import run_events as e
from upgrades.domain.log_events import ParserState, read
from upgrades.domain.run_events import WORKER, Recorded, RunEvent
from upgrades.models import CommandReceipt, Run
from upgrades.services import projections

NUMBER = 8000  # of the agents of the one pair, which never are asked
TIMES = 200
EVENTS = 1000
VERIFIED = 20_000
LINES = 200_000
SCANNED = 1_000_000
DEBUG = "10:00:11.107 Trc 24215 There are [108] objects of type [CfgDN] sent to the client [608] (application [x])\n"
EVENT = "10:00:12.000 Std 25302 synthetic\n"


def measure(team: Team, say: Callable[[str], None]) -> list[Figure]:
    """All figures of parts, one after the other."""
    say("The parts are being measured …")
    pair = unwatched_pair(NUMBER, team)
    return [*_command(team, pair), *_chain(pair), *_record(pair), *_lines(), *_scan()]


# A command, beside a transaction that writes the same rows and thinks nothing.


def _command(team: Team, pair: Pair) -> list[Figure]:
    acted, bare = alternately(TIMES, lambda: team.note(pair), lambda: _bare_command(pair.run))
    times = ratio(acted, bare)
    return [
        Figure(
            "a command through its service",
            spread(acted),
            f"{times:.2f} × a bare ORM transaction of the same rows ({percentile(bare, 50) * 1000:.1f} ms)",
            "≤ 2 ×",
            times <= 2,
        )
    ]


@transaction.atomic
def _bare_command(run_id: int) -> None:
    """The rows that a note writes: event, the run's row, receipt, notification."""
    run = Run.objects.select_for_update().get(pk=run_id)
    now = timezone.now()
    [recorded] = event_store.record(run.seq + 1, [e.NoteAdded(step="", text=NOTE)], by=WORKER, at=now)
    run.head = event_store.append(run_id, [recorded])
    run.seq += 1
    run.version += 1
    run.save()
    event_store.announce("runbook", f"run:{run.pk}:{run.version}")
    CommandReceipt.objects.create(
        command_id=uuid.uuid4(), run=run, actor_id="user:1", act="AddNote", seq=run.seq, at=now
    )


# The chain, beside a plain insert with the same commit.


def _chain(pair: Pair) -> list[Figure]:
    first, times = Run.objects.get(pk=pair.run).seq + 1, 5 * TIMES
    notes = [e.NoteAdded(step="prerequisites", text=f"{NOTE} " * 20)] * times
    recorded = event_store.record(first, notes, by=WORKER, at=timezone.now())
    rows = [(pair.run, item.seq, item.event.kind, event_store.text_of(pair.run, item)) for item in recorded]
    appends, inserts = iter(rows), iter(rows)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE bench_plain (LIKE upgrades_runevent INCLUDING ALL)")

        def append() -> None:
            run, seq, kind, text = next(appends)
            cursor.execute(_APPEND, [run, seq, [kind], [text]])

        def insert() -> None:
            cursor.execute(_INSERT, [*next(inserts), "0" * 64, "0" * 64])

        appended, inserted = alternately(times, append, insert)
    share = 1 / ratio(appended, inserted)
    return [
        Figure(
            "the chain: append and commit one event",
            spread(appended),
            f"{share:.2f} × the rate of a plain insert ({percentile(inserted, 50) * 1000:.2f} ms)",
            "≥ 0.7 ×",
            share >= 0.7,
        )
    ]


_APPEND = "SELECT append_run_events(%s, %s, %s, %s)"
_INSERT = "INSERT INTO bench_plain (run_id, seq, kind, text, previous, hash) VALUES (%s, %s, %s, %s, %s, %s)"


# Reading the record back.


def _record(pair: Pair) -> list[Figure]:
    long, huge = filled(pair, EVENTS), filled(pair, VERIFIED)
    verifying = alternately(3, lambda: list(event_store.broken_links(huge)))[0]
    rate = VERIFIED / percentile(verifying, 50)
    rebuilt, loaded = alternately(10, lambda: projections.rebuild(long), lambda: event_store.load(long))
    return [
        Figure("verifying a chain", f"{rate:,.0f} events/s", "", "≥ 300,000 events/s", rate >= 300_000),
        Figure(
            f"rebuilding a run of {EVENTS} events",
            spread(rebuilt),
            f"{ratio(rebuilt, loaded):.1f} × loading its events",
            "≤ 20 ms",
            percentile(rebuilt, 50) <= 0.02,
        ),
    ]


def filled(pair: Pair, count: int) -> int:
    """A run that began as the pair's did and has seen so many events, most of them lines of a log."""
    first = event_store.load(pair.run)[:2]
    model = Run.objects.get(pk=pair.run)
    run = Run.objects.create(
        environment=model.environment,
        procedure=model.procedure,
        title=model.title,
        rehearsal=False,
        status="running",
        starter_id=model.starter_id,
        starter_name=model.starter_name,
        started_at=model.started_at,
    )
    recorded = first + [
        Recorded(seq, first[0].at + timedelta(seconds=seq), WORKER, _event(seq))
        for seq in range(3, count + 1)
    ]
    event_store.append(run.pk, recorded)
    projections.rebuild(run.pk)
    return run.pk


def _event(seq: int) -> RunEvent:
    match seq % 4:
        case 0:
            return e.NoteAdded(step="prerequisites", text=NOTE)
        case 1:
            return e.ProbeAnswered(
                step="install-new",
                visit=1,
                gate="names-equal",
                value="failed",
                text=f"Look {seq}.",
                answer={},
            )
        case _:
            return e.LogEventSeen(
                watch="launch-new#1.initialized",
                application="confserv_b",
                file="fe00-20e092-812702a1550d251a",
                offset=100 * seq,
                event="21-25302",
                level="Standard",
                logged_at="2026-11-24T10:00:12.000",
                text="synthetic",
                line_sha256="0" * 64,
            )


# Lines.


def _content(lines: int) -> bytes:
    head = b"Local time:       2026-11-24T10:00:00.000\n"
    return head + (DEBUG * 9 + EVENT).encode() * (lines // 10)


def _answers(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The content in whole lines, as much at a time as fits into an answer, where it stands in base64."""
    at, most = 0, BODY_LIMIT // 4 * 3
    while at < len(content):
        end = content.rfind(b"\n", at, at + most) + 1
        yield at, content[at:end]
        at = end


def _lines() -> list[Figure]:
    """By processor time: one process reads, and what others do at the time is not its doing. In pieces as agents send them."""
    content = _content(LINES)
    state = ParserState.initial(application_type="21", file_name="confserv.log")
    pieces = list(_answers(content))
    began = time.process_time()
    for at, piece in pieces:
        state, _ = read(state, piece, at)
    rate = LINES / (time.process_time() - began)
    return [
        Figure(
            "reading lines that an agent sent (processor time)",
            f"{rate:,.0f} lines/s",
            "",
            "≥ 300,000 lines/s",
            rate >= 300_000,
        )
    ]


def _scan() -> list[Figure]:
    """An agent that is asked for a log from its beginning, answer by answer, beside `grep -c` on the same file."""
    grep = shutil.which("grep")
    if grep is None:
        return []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        log = log_of(folder, 0)
        log.parent.mkdir()
        log.write_bytes(_content(SCANNED))
        logs = _agent(log)
        scanned, grepped = alternately(
            3,
            lambda: _scan_all(logs),
            lambda: subprocess.run([grep, "-c", "Std 25302", str(log)], check=True, capture_output=True),  # noqa: S603
        )
        size = log.stat().st_size
    share = 1 / ratio(scanned, grepped)
    return [
        Figure(
            "an agent scanning a log it has not seen",
            f"{size / percentile(scanned, 50) / 1e6:,.0f} MB/s",
            f"{share:.2f} × grep -c",
            "≥ 0.5 ×",
            share >= 0.5,
        )
    ]


def _agent(log: Path) -> Logs:
    application = {
        "name": application_of(0),
        "type": "ConfigurationServer",
        "log": {"folder": str(log.parent), "pattern": "*.log"},
    }
    written = {
        "agent": name_of(0),
        "listen": "127.0.0.1:0",
        "keys": [{"id": "k1", "secret": "0a" * 32}],
        "applications": [application],
    }
    file = log.parent / "agent.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(written))
    return Logs(configuration.load(str(file)))


def _scan_all(logs: Logs) -> None:
    application = application_of(0)
    cursors: tuple[Cursor, ...] = ()
    while True:
        found = logs.poll(Question((application,), cursors, {}, 0.0), lambda: True)
        assert found is not None
        files = found[application]["files"]
        if not files:
            return
        cursors = tuple(Cursor(application, part["file"], part["to"], part["mark"]) for part in files)
