"""Agents are shared by several workers through leases alone: each is looked at once an interval, and a slow one delays none."""

import asyncio
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connections
from django.utils import timezone

from tests.agent.conftest import SECRET, new_client
from tests.factories import frankfurt, make_environment, server
from tests.services.fake_agent import FakeAgent, signed
from tests.waiting import wait_for
from upgrades.models import Agent
from upgrades.services import polling

AGENTS, WORKERS = 200, 3
PATIENCE = 240  # seconds, of what need not be quick in a test
pytestmark = [pytest.mark.usefixtures("short_connections"), pytest.mark.django_db(transaction=True)]


class Hall(FakeAgent):
    """One server that stands for all agents and counts who was looked at. Those in `slow` answer only at the end."""

    def __init__(self):
        super().__init__()
        self.looks, self.slow = Counter(), set()


@pytest.fixture
def hall():
    agent = Hall()
    guard = threading.Lock()

    def answer(handler):
        name = handler.headers["Runbook-Agent"]
        if handler.path.startswith("/v1/health"):
            with guard:
                agent.looks[name] += 1
        if name in agent.slow:
            agent.over.wait(60)
        with suppress(OSError):
            signed(
                handler,
                agent.found(handler.path) if handler.path.startswith("/v1/health") else {"applications": {}},
            )

    agent.answer = answer
    yield agent
    agent.close()


@pytest.fixture
def many(hall):
    hosts = [f"h-{number:03}" for number in range(AGENTS)]
    world = frankfurt(
        servers=[server(f"ms-{host}", "MessageServer", host) for host in hosts],
        agents=[
            {
                "host": host,
                "url": hall.url,
                "agent": host,
                "key": {"id": "k1", "secret": SECRET},
                "state": "up",
            }
            for host in hosts
        ],
    )
    return make_environment("Many", world=world, targets={})


@contextmanager
def workers(count, deadline=polling.ANSWER_WITHIN):
    """So many polling loops, each with a thread, an event loop and connections of its own, as processes have."""
    loops = []

    def work():
        async def follow():
            async with new_client(deadline=deadline) as client:
                loop = polling.Loop(client, time.monotonic() + 600)
                loops.append(loop)
                while not loop.over:
                    await loop.run()

        asyncio.run(follow())
        connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield loops
    finally:
        for loop in loops:
            loop.until = 0.0
        for thread in threads:
            thread.join()


def test_three_workers_look_at_two_hundred_agents_once_an_interval(many, hall, monkeypatch):
    monkeypatch.setattr(polling, "AGENTS_PER_LOOP", AGENTS // 2)  # none may take them all
    monkeypatch.setattr(polling, "HEALTH_EVERY", timedelta(minutes=10))  # longer than any machine needs here
    Agent.objects.update(due_at=None, seen_at=None)
    # Loops and agents share one process here, and a busy machine: none of them is late by its own fault.
    with workers(WORKERS, deadline=PATIENCE) as loops:
        wait_for(lambda: not Agent.objects.filter(seen_at=None).exists(), seconds=PATIENCE)
        wait_for(lambda: not Agent.objects.exclude(lease_token=None).exists())
        assert len({loop.token for loop in loops}) == WORKERS
    assert len(hall.looks) == AGENTS
    first = timezone.now() + polling.HEALTH_EVERY
    assert set(hall.looks.values()) == {1}  # the interval is not over for any of them
    assert (
        Agent.objects.filter(due_at__gt=timezone.now() - timedelta(seconds=30), due_at__lt=first).count()
        == AGENTS
    )
    Agent.objects.update(due_at=timezone.now())  # now it is
    with workers(WORKERS, deadline=PATIENCE):
        wait_for(lambda: sum(hall.looks.values()) == 2 * AGENTS, seconds=PATIENCE)
        wait_for(lambda: not Agent.objects.exclude(lease_token=None).exists())
    assert set(hall.looks.values()) == {2}


def test_slow_agents_keep_nobody_waiting(many, hall):
    hall.slow = {f"h-{number:03}" for number in range(0, AGENTS, 20)}
    Agent.objects.update(due_at=None, seen_at=None)
    quick = Agent.objects.exclude(agent_id__in=hall.slow)
    with workers(WORKERS):
        wait_for(lambda: not quick.filter(seen_at=None).exists())
        assert not Agent.objects.filter(agent_id__in=hall.slow).exclude(seen_at=None).exists()
        hall.over.set()
        wait_for(lambda: not Agent.objects.exclude(lease_token=None).exists())


def test_agents_that_open_runs_need_come_first(night):
    needed = {row.pk for row in Agent.objects.filter(host__applications__bindings__run=night.run)}
    others = Agent.objects.exclude(pk__in=needed)
    others.update(due_at=timezone.now() - timedelta(minutes=5))
    Agent.objects.filter(pk__in=needed).update(due_at=timezone.now() - timedelta(seconds=1))
    assert others.exists()
    assert set(polling.claim(uuid4(), limit=len(needed))) == needed
    assert set(polling.claim(uuid4(), limit=1)) <= set(others.values_list("pk", flat=True))


def test_what_a_dead_worker_held_is_looked_at_by_the_others(many, hall):
    Agent.objects.update(due_at=None, seen_at=None)
    dead = polling.claim(uuid4(), limit=50)
    Agent.objects.filter(pk__in=dead).update(lease_until=timezone.now() - timedelta(seconds=1))
    with workers(WORKERS - 1):
        wait_for(lambda: not Agent.objects.filter(seen_at=None).exists())
    assert Agent.objects.filter(pk__in=dead, leases_expired=1).count() == len(dead)
    assert not Agent.objects.exclude(pk__in=dead).exclude(leases_expired=0).exists()
