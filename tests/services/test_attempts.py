"""A run, or an agent's answer, that ends each process that looks at it is parked; everything else goes on (trust.md F08)."""

import multiprocessing
import os
import signal
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection, connections
from django.utils import timezone

from tests.services.fake_agent import news, part
from tests.services.night import Night
from upgrades.domain import run as core
from upgrades.models import Agent, Attempt, LogLine, Run
from upgrades.services import agents, attempts, polling, runs

pytestmark = pytest.mark.django_db(transaction=True)


def die_at(module, name, work):
    """Have a process of its own do the work; in the middle of it, at `module.name`, it is killed."""

    def child():
        setattr(module, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        work()
        os._exit(1)  # it was never in the middle

    connections.close_all()  # a child must not inherit them
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    return process.exitcode


def let_time_pass():
    before = Attempt.objects.order_by("-begun_at").first()
    Attempt.objects.filter(subject=before.subject).update(begun_at=timezone.now() - attempts.AGAIN_AFTER)


def ready_night(place="Production · Frankfurt"):
    night = Night(place=place)
    for gate in ("packages-delivered", "related-components"):
        night.act(night.confirm(gate))
    night.act(core.Complete(step="prerequisites", visit=1))
    return night


def test_a_run_of_which_three_workers_died_is_parked_and_the_others_go_on():
    poisoned, other = ready_night(), ready_night("Production · Berlin")
    for _ in range(attempts.DEATHS):
        assert die_at(runs, "_advance", lambda: runs.advance_run(poisoned.run)) == -signal.SIGKILL
        assert Run.objects.get(pk=poisoned.run).parked_since is None
    assert die_at(runs, "_advance", lambda: runs.advance_run(poisoned.run)) == 1  # it is not even tried
    row = Run.objects.get(pk=poisoned.run)
    assert row.parked_since is not None
    assert Attempt.objects.filter(subject=f"run {poisoned.run}").count() == attempts.DEATHS
    assert runs.advance_run(other.run)


def test_a_parked_run_is_tried_again_after_a_minute_and_goes_on_when_the_cause_is_gone():
    night = ready_night()
    for _ in range(attempts.DEATHS):
        die_at(runs, "_advance", lambda: runs.advance_run(night.run))
    assert not runs.advance_run(night.run)
    before = Run.objects.get(pk=night.run)
    let_time_pass()
    assert die_at(runs, "_advance", lambda: runs.advance_run(night.run)) == -signal.SIGKILL
    assert not runs.advance_run(night.run)  # one trial a minute, no more
    let_time_pass()
    assert runs.advance_run(night.run)
    after = Run.objects.get(pk=night.run)
    assert before.parked_since is not None
    assert after.parked_since is None
    assert after.version > before.version  # open pages are told
    assert not Attempt.objects.exists()


def test_deaths_that_are_not_in_a_row_park_nothing():
    night = ready_night()
    for _ in range(attempts.DEATHS * 2):
        for _ in range(attempts.DEATHS - 1):
            die_at(runs, "_advance", lambda: runs.advance_run(night.run))
        runs.advance_run(night.run)
        assert Run.objects.get(pk=night.run).parked_since is None


def test_an_exception_is_no_death(monkeypatch):
    night = ready_night()

    def fail(*_):
        raise RuntimeError("a mistake in the program")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "_advance", fail)
        for _ in range(attempts.DEATHS + 1):
            with pytest.raises(RuntimeError):
                runs.advance_run(night.run)
    assert not Attempt.objects.exists()
    assert runs.advance_run(night.run)


def test_work_under_way_elsewhere_is_no_death():
    """Many processes advance one run at the same time; each waits for its turn, and none counts the others as dead."""
    night = ready_night()
    connections.close_all()
    fork = multiprocessing.get_context("fork")
    crowd = [
        fork.Process(target=lambda: os._exit(0 if runs.advance_run(night.run) in (True, False) else 1))
        for _ in range(8)
    ]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join()
    assert [process.exitcode for process in crowd] == [0] * 8
    assert Run.objects.get(pk=night.run).parked_since is None
    assert not Attempt.objects.exists()


def test_an_agent_whose_answer_kills_is_in_trouble_and_nothing_of_it_is_taken_in():
    night = ready_night()
    agent, answer = night.agent("new"), news(part(b"10:00:02.000 Std 22170 synthetic\n"), process="up")
    token = uuid4()
    polling.claim(token)
    for _ in range(attempts.DEATHS):
        code = die_at(agents, "take_news", lambda: polling._take(agent.pk, token, answer))
        assert code == -signal.SIGKILL
    polling._take(agent.pk, token, answer)
    agent = Agent.objects.get(pk=agent.pk)
    assert "Each worker that read its last answers died" in agent.trouble
    assert not LogLine.objects.filter(file__application__host=agent.host_id).exists()
    let_time_pass()
    polling._take(agent.pk, token, answer)
    assert LogLine.objects.filter(file__application__host=agent.host_id).exists()
    assert Agent.objects.get(pk=agent.pk).trouble == ""


def test_an_attempt_costs_four_short_statements(django_assert_num_queries):
    with django_assert_num_queries(4), attempts.attempt("run 1"):
        pass
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert cursor.fetchone() == (0,)


def test_what_was_parked_before_the_clock_was_set_back_is_tried_again():
    ahead = timezone.now() + timedelta(hours=1)
    Attempt.objects.bulk_create(Attempt(subject="run 1", begun_at=ahead) for _ in range(attempts.DEATHS))
    with attempts.attempt("run 1") as is_a_trial:
        assert is_a_trial
