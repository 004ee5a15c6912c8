"""The broker only rings a bell: acts do not depend on it, and what a lost message would have done is done anyway."""

import socket

import pytest
from celery import current_app
from django.utils import timezone

from tests.services.night import Night
from tests.services.test_acts import NOTE
from upgrades import tasks
from upgrades.domain import run as core
from upgrades.models import Agent, ProcedureVersion, Run
from upgrades.services import runs


@pytest.fixture
def bell():
    """A function that sets what is rung instead of the broker; the broker's bell comes back after the test."""
    runs._quiet_until = 0.0
    yield runs.on_wake
    runs.on_wake(tasks._ring)
    runs._quiet_until = 0.0


@pytest.fixture(params=["refuses connections", "takes connections and never answers"])
def dead_redis(request):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if "never answers" in request.param:
            server.listen(50)
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def ready(night):
    """The first step is done and the next one is to begin, which a worker does."""
    for gate in ("packages-delivered", "related-components"):
        night.act(night.confirm(gate))
    night.act(core.Complete(step="prerequisites", visit=1))
    assert has_begun(night) is False


def has_begun(night):
    return night.state.steps["backup-database"].status == "begun"


def test_the_bell_is_rung_when_the_act_is_committed_and_not_for_a_refusal(real_night, bell):
    rung = []
    bell(lambda run_id: rung.append((run_id, "note.added" in real_night.kinds)))
    with pytest.raises(runs.OutOfTurn):
        real_night.act(real_night.confirm("packages-delivered", visit=0))
    assert rung == []
    real_night.act(NOTE)
    assert rung == [(real_night.run, True)]


def test_an_act_does_not_wait_for_a_dead_broker_and_the_next_one_does_not_even_ask(
    real_night, bell, dead_redis
):
    """F12, F15: the act is done, though nobody can be told. Without limits of their own these calls never return."""
    asked = []

    def ring(run_id):
        asked.append(run_id)
        with current_app.connection_for_write(dead_redis) as connection:
            tasks.advance_run.apply_async((run_id,), connection=connection)  # type: ignore[call-arg]

    bell(ring)
    for _ in range(3):
        real_night.act(NOTE)
    assert real_night.kinds.count("note.added") == 3
    assert asked == [real_night.run]


def test_what_a_killed_worker_left_undone_is_done_at_the_next_tick(real_night, bell):
    """F02: the worker died between its commit and the bell, or the message was lost."""
    bell(lambda run_id: None)
    ready(real_night)
    tasks.tick()
    assert has_begun(real_night)


def test_a_tick_goes_on_with_the_other_runs_when_one_is_in_trouble(real_night, bell):
    bell(lambda run_id: None)
    broken = Night(place="Test lab")
    for night in (broken, real_night):
        ready(night)
    sound = broken.row.procedure_id
    Run.objects.filter(pk=broken.run).update(procedure=unreadable())
    tasks.tick()
    assert has_begun(real_night)
    Run.objects.filter(pk=broken.run).update(procedure=sound)


def unreadable():
    """A version whose text no release of ours can have published."""
    return ProcedureVersion.objects.create(
        procedure="broken",
        version=1,
        text="no: procedure",
        text_hash="0" * 64,
        published_at=timezone.now(),
    )


def test_advancing_again_and_again_changes_nothing(real_night, bell):
    bell(lambda run_id: None)
    ready(real_night)
    tasks.advance_run(real_night.run)
    history = real_night.history
    for _ in range(3):
        tasks.advance_run(real_night.run)
        tasks.tick()
    assert real_night.history == history


def test_agents_that_nobody_follows_are_found_by_the_tick(real_night, bell, monkeypatch):
    sent = []
    monkeypatch.setattr(tasks.poll_agents, "delay", lambda: sent.append("poll"))
    tasks.tick()
    assert sent == ["poll"]
    Agent.objects.update(due_at="2100-01-01T00:00Z")
    tasks.tick()
    assert sent == ["poll"]
