"""What one unit of each thing costs that grows: polls, pages, rows, messages, connections (docs/capacity.md)."""

from __future__ import annotations

import asyncio
import gzip
import tempfile
import time
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import replace
from pathlib import Path

import redis
from celery import current_app
from django.conf import settings
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import Client
from django.test.utils import CaptureQueriesContext

from agent.messages import Cursor
from upgrades.adapters.agent_client import AgentClient
from upgrades.bench import place
from upgrades.bench.agents import log_of
from upgrades.bench.figures import Figure, alternately, percentile, ratio, spread
from upgrades.bench.parts import filled
from upgrades.bench.scene import Pair, Team, idle_agents, pair_of, unwatched_pair
from upgrades.models import Agent, LogLine, Run, RunEvent
from upgrades.services import polling

AGENTS = 40
NUMBER = 8100  # of the agents of a pair that never are asked
POLLS = 200
LINES = 20_000
PAGES = 30
PAGE_EVENTS = 500
BELLS = 1000
AGENTS_GOAL, RUNS_GOAL, EVENTS_A_RUN, LINES_A_RUN = 10_000, 10_000, 500, 2000
COPIED = 50  # events of each run that fills the database


def measure(team: Team, say: Callable[[str], None]) -> list[Figure]:
    """All figures, one after the other; processor time is that of this one process."""
    say("What grows is being measured …")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with place.agents(folder, AGENTS + 2) as addresses:
            pair = pair_of(0, addresses[:2], folder, team, name="Capacity")
            idle_agents(addresses[2:], name="Capacity, idle")
            team.open_gate(pair)
            polls = asyncio.run(_polls(pair.environment.pk))
            log = log_of(folder, 1)
            with log.open("a") as written:
                written.write("10:00:12.000 Std 25302 synthetic\n" * LINES)
            rows = [_lines(pair.environment.pk)]
        run = filled(pair, PAGE_EVENTS)
        return [*polls, *rows, *_events(), *_page(team, run), *_bells(), *_years(team, say)]


# Polls: one after the other, so that what is measured is work and not waiting.


async def _polls(environment: int) -> list[Figure]:
    async with AgentClient(deadline=polling.ANSWER_WITHIN) as client:
        loop = polling.Loop(client, time.monotonic() + 600)
        await asyncio.to_thread(Agent.objects.update, lease_until=None, due_at=None)
        claimed = await asyncio.to_thread(polling.claim, loop.token)
        mine = await asyncio.to_thread(_agents_of, environment)
        idle = [agent for agent in claimed if agent not in mine]

        async def quiet(number: int) -> None:
            agent = mine[number % len(mine)]
            asked = await asyncio.to_thread(polling.plan, agent, loop.token)
            assert asked is not None
            await loop.poll(agent, replace(asked, wait=0.0))

        async def look(number: int) -> None:
            await loop.look(idle[number % len(idle)])

        await quiet(0)
        watched, looked = await _cost(quiet), await _cost(look)
        connections = await asyncio.to_thread(_connections)
        for agent in claimed:
            await asyncio.to_thread(Agent.objects.filter(pk=agent).update, lease_token=None, lease_until=None)
    return [
        Figure(
            "a poll of an agent that an open run needs, without news (processor time of the worker)",
            f"{watched * 1000:.1f} ms",
            f"{_share(watched, 5.0)} such agents keep one core busy at a poll in 5 s",
        ),
        Figure(
            "a look at an agent that none needs (processor time of the worker)",
            f"{looked * 1000:.1f} ms",
            f"{_share(looked, 15.0)} such agents keep one core busy at a look in 15 s",
        ),
        Figure("connections to PostgreSQL of one process of the worker that polls", f"{connections}"),
    ]


def _agents_of(environment: int) -> list[int]:
    found = Agent.objects.filter(environment=environment, host__applications__type="ConfigurationServer")
    return list(found.values_list("pk", flat=True).distinct())


async def _cost(work: Callable[[int], Awaitable[None]]) -> float:
    began = time.process_time()
    for number in range(POLLS):
        await work(number)
    return (time.process_time() - began) / POLLS


def _share(seconds: float, every: float) -> str:
    return f"{every / seconds:,.0f}"


def _connections() -> int:
    """Ours, this one included: those of the threads beside the loop."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        row = cursor.fetchone()
    return int(row[0]) if row else 0


# Rows.


def _lines(environment: int) -> Figure:
    """Lines as a burst brings them, from the agent's answer to the stored row."""
    asyncio.run(_read_on(environment))
    stored = LogLine.objects.count()
    size = _size("upgrades_logline")
    year = RUNS_GOAL * LINES_A_RUN * size / stored
    return Figure(
        "a stored log line with its indexes",
        f"{size / stored:.0f} bytes",
        f"{RUNS_GOAL:,} runs a year of {LINES_A_RUN:,} lines: {year / 1e9:.1f} GB",
    )


async def _read_on(environment: int) -> None:
    async with AgentClient(deadline=polling.ANSWER_WITHIN) as client:
        loop = polling.Loop(client, time.monotonic() + 600)
        await asyncio.to_thread(polling.claim, loop.token)
        for agent in await asyncio.to_thread(_agents_of, environment):
            asked = await asyncio.to_thread(polling.plan, agent, loop.token)
            while asked is not None and await loop.poll(agent, replace(asked, wait=0.0)):
                before: tuple[Cursor, ...] = asked.cursors
                asked = await asyncio.to_thread(polling.plan, agent, loop.token)
                if asked is None or asked.cursors == before:
                    break


def _events() -> list[Figure]:
    count, size = RunEvent.objects.count(), _size("upgrades_runevent")
    year = RUNS_GOAL * EVENTS_A_RUN * size / count
    return [
        Figure(
            "an event of a run with its hashes and indexes",
            f"{size / count:.0f} bytes",
            f"{RUNS_GOAL:,} runs a year of {EVENTS_A_RUN} events: {year / 1e9:.1f} GB",
        )
    ]


def _size(table: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_total_relation_size(%s::regclass)", [table])
        row = cursor.fetchone()
    return int(row[0]) if row else 0


# Pages.


def _page(team: Team, run: int) -> list[Figure]:
    client = Client(HTTP_HOST="localhost", headers={"Accept-Encoding": "gzip"})
    client.force_login(team.operator)
    address = f"/runs/{run}/"
    client.get(address)  # fills the caches of this process
    with CaptureQueriesContext(connection) as queries:
        answer = client.get(address)
    asked = len(queries)  # now: the next request forgets them
    if answer.status_code != 200:
        raise place.CannotMeasure(f"The page of a run answers {answer.status_code}.")
    body = answer.content
    wire = len(body) if answer.headers.get("Content-Encoding") == "gzip" else len(gzip.compress(body))
    took = []
    for _ in range(PAGES):
        began = time.process_time()
        client.get(address)
        took.append(time.process_time() - began)
    return [
        Figure(
            f"the page of a run of {PAGE_EVENTS} events (processor time of the server)",
            spread(took),
            f"{asked} queries, {wire / 1000:.0f} kB compressed",
            "≤ 12 queries, ≤ 40 ms, ≤ 60 kB",
            percentile(took, 50) <= 0.04 and asked <= 12 and wire <= 60_000,
        )
    ]


# Messages.


def _bells() -> list[Figure]:
    """Messages that wait in Redis while no worker takes them."""
    with redis.Redis.from_url(settings.REDIS_URL) as store:
        before = int(store.info("memory")["used_memory"])
        for number in range(BELLS):
            current_app.send_task("upgrades.tasks.advance_run", [number])
        grown = int(store.info("memory")["used_memory"]) - before
        place.forget_messages()
    return [
        Figure(
            "a bell that waits in Redis",
            f"{grown / BELLS:,.0f} bytes",
            f"{AGENTS_GOAL:,} of them: {AGENTS_GOAL * grown / BELLS / 1e6:.0f} MB",
        )
    ]


# A command in a database of a few runs, and in turn with it in a copy that holds a year of them.


def _years(team: Team, say: Callable[[str], None]) -> list[Figure]:
    pair = unwatched_pair(NUMBER, team, name="Years")
    # A run for each: what this process keeps of a run must not come from the other database.
    few, many = (replace(pair, run=filled(pair, COPIED)) for _ in range(2))
    there = Run.objects.count()

    def note(database: BaseDatabaseWrapper, pair: Pair) -> None:
        place.use(database)
        team.note(pair)

    with place.copied() as (usual, year):
        place.use(year)
        say(f"A database is being filled with {RUNS_GOAL:,} runs …")
        _fill(many.run)
        events = RunEvent.objects.count()
        small, large = alternately(POLLS, lambda: note(usual, few), lambda: note(year, many))
    times = ratio(large, small)
    return [
        Figure(f"a command with {there} runs in the database", spread(small)),
        Figure(
            f"the same with {there + RUNS_GOAL:,} runs and {events:,} events",
            spread(large),
            f"{times:.2f} × that with {there} runs",
            "flat (≤ 1.1 ×)",
            times <= 1.1,
        ),
    ]


def _fill(pattern: int) -> None:
    """Ended runs with the events of this one; their chains are of no account here."""
    model = Run.objects.get(pk=pattern)
    model.pk, model.status, model.ended_at, model.waits_for_worker = None, "ended", model.started_at, False
    copies = [copy(model) for _ in range(RUNS_GOAL)]
    made = [run.pk for run in Run.objects.bulk_create(copies, batch_size=1000)]
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO upgrades_runevent (run_id, seq, kind, text, previous, hash)"
            " SELECT made, seq, kind, text, previous, hash FROM upgrades_runevent, unnest(%s::bigint[]) AS made"
            " WHERE run_id = %s AND seq <= %s",
            [made, pattern, COPIED],
        )
        cursor.execute("VACUUM ANALYZE")  # or it would go on by itself beside what is measured next
