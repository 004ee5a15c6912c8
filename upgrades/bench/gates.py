"""The first figure: from a line that a server writes to the gate that is open on the page of its run."""

from __future__ import annotations

import asyncio
import random
import ssl
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from django.db import connection

from agent.messages import Cursor
from upgrades.adapters import event_store
from upgrades.adapters.agent_client import AgentAddress, AgentClient
from upgrades.bench import place
from upgrades.bench.agents import application_of, log_of
from upgrades.bench.figures import Figure, percentile, ratio, spread
from upgrades.bench.readers import Reader, reader
from upgrades.bench.scene import OPENING, Pair, Team, idle_agents, pair_of
from upgrades.domain import run_events as e
from upgrades.models import Agent, LogLine

P50_GOAL, P99_GOAL = 0.1, 0.5
WARM_UP = 2  # repetitions that are not counted: the first page fills the caches of all programs
LIMIT = 60.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is: gates that wait, agents in all, repetitions, processes of the worker."""

    gates: int
    agents: int
    repeats: int
    workers: int


@dataclass(slots=True)
class Times:
    """Seconds from the write: until a worker had the line, until the outcome was recorded, until the page showed it."""

    read: list[float] = field(default_factory=list)
    recorded: list[float] = field(default_factory=list)
    shown: list[float] = field(default_factory=list)
    fetched: list[float] = field(default_factory=list)  # the fragment of the page, asked for alone
    notified: list[float] = field(default_factory=list)  # a bare NOTIFY from writer to listener
    polled: list[float] = field(default_factory=list)  # a bare poll: line written to agent's answer


def measure(size: Size, team: Team, say: Callable[[str], None], *, browser: bool) -> list[Figure]:
    """The figures of one run with so many gates open at any time."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with place.agents(folder / "agents", size.agents + 1) as agents, place.web(folder) as url:
            pairs = [
                pair_of(number, agents[number : number + 2], folder / "agents", team)
                for number in range(0, 2 * size.gates, 2)
            ]
            idle_agents(agents[2 * size.gates : size.agents])
            with place.worker(folder, size.workers), reader(url, team.operator, browser=browser) as looking:
                say(f"{size.gates} gates are being opened, {size.agents} agents listen …")
                for pair in pairs:
                    team.open_gate(pair)
                _until_followed()
                spare = agents[size.agents]
                times = _repeat(size, pairs, team, looking, spare, folder / "agents")
                return _figures(size, times, looking.name)


def _repeat(
    size: Size, pairs: list[Pair], team: Team, looking: Reader, spare: dict[str, str], folder: Path
) -> Times:
    times = Times()
    with _Bare(spare, log_of(folder, size.agents), application_of(size.agents)) as bare:
        for turn in range(-WARM_UP, size.repeats):
            pair = pairs[turn % len(pairs)]
            _once(pair, looking, times if turn >= 0 else Times())
            if turn >= 0:
                times.notified.append(bare.notify())
                times.polled.append(bare.poll())
            team.end(pair)
            team.open_gate(pair)
    return times


def _until_followed() -> None:
    """Wait until a worker has heard of every agent: before that it is its start that would be measured."""
    until = time.monotonic() + LIMIT
    while Agent.objects.filter(seen_at=None).exists():
        if time.monotonic() > until:
            raise place.CannotMeasure(
                "The worker has not asked all agents within a minute. Take fewer of them."
            )
        time.sleep(0.2)


def _once(pair: Pair, looking: Reader, times: Times) -> None:
    looking.open(pair.run)
    time.sleep(random.uniform(0.5, 1.0))  # so that writing keeps no step with what polls
    written = time.time()
    with pair.log.open("a") as log:
        log.write(OPENING)
    times.shown.append(looking.opened_at() - written)
    line = LogLine.objects.filter(file__application__environment=pair.environment, event="21-22170").latest(
        "pk"
    )
    times.read.append(line.read_at.timestamp() - written)
    times.fetched.append(looking.fetch(pair.run))
    reached = next(
        recorded for recorded in event_store.load(pair.run) if isinstance(recorded.event, e.OutcomeReached)
    )
    times.recorded.append(reached.at.timestamp() - written)


class _Bare:
    """The two round trips that nothing can be faster than: one poll of an agent, one NOTIFY."""

    def __init__(self, agent: dict[str, str], log: Path, application: str) -> None:
        self._address = AgentAddress(agent["agent"], agent["url"], "k1", agent["secret"])
        self._log, self._application = log, application
        self._runner = asyncio.Runner()
        parameters = connection.get_connection_params()
        wanted = {
            name: parameters[name]
            for name in ("host", "port", "dbname", "user", "password")
            if name in parameters
        }
        self._listener = psycopg.connect(**wanted, autocommit=True)
        self._writer = psycopg.connect(**wanted, autocommit=True)
        self._cursor: Cursor | None = None

    def __enter__(self) -> _Bare:
        self._listener.execute("LISTEN bench")
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()
        self._listener.close()
        self._writer.close()

    def notify(self) -> float:
        began = time.perf_counter()
        self._writer.execute("NOTIFY bench, 'run:7:42'")
        next(self._listener.notifies(timeout=10))
        return time.perf_counter() - began

    def poll(self) -> float:
        return self._runner.run(self._poll())

    async def _poll(self) -> float:
        async with AgentClient(tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as client:

            async def ask(wait: float) -> None:
                cursors = [self._cursor] if self._cursor else []
                news = await client.poll(
                    self._address, applications=[self._application], cursors=cursors, wait=wait
                )
                for part in news.applications[self._application].files:
                    self._cursor = part.cursor(self._application)

            await ask(0.0)
            waiting = asyncio.create_task(ask(10.0))
            await asyncio.sleep(random.uniform(0.2, 0.4))
            began = time.perf_counter()
            with self._log.open("a") as log:
                log.write(OPENING)
            await waiting
            return time.perf_counter() - began


def _figures(size: Size, times: Times, shown_by: str) -> list[Figure]:
    p50, p99 = percentile(times.shown, 50), percentile(times.shown, 99)
    bare = [one + other for one, other in zip(times.notified, times.polled, strict=True)]
    what = f"log line written → gate open in the page ({shown_by}), {size.gates} gates, {size.agents} agents"
    return [
        Figure(
            what,
            spread(times.shown),
            f"{ratio(times.shown, bare):.1f} × a bare poll and NOTIFY",
            "p50 ≤ 100 ms, p99 ≤ 500 ms",
            p50 <= P50_GOAL and p99 <= P99_GOAL,
        ),
        Figure("  of that: until a worker has the line", spread(times.read)),
        Figure("  of that: until the outcome is recorded", spread(times.recorded)),
        Figure("the fragment that a page then fetches, alone", spread(times.fetched), "", "≤ 40 ms"),
        Figure("a bare poll: line written → answer of the agent", spread(times.polled)),
        Figure("a bare NOTIFY: writer → listener", spread(times.notified)),
    ]
