"""Beat's schedule: the turn that finds what was lost on the way must come, whatever happens to the system's clock."""

from datetime import timedelta

import pytest
from django.conf import settings

from runbook.celery import Clock, app

OFTEN = min(entry["schedule"] for entry in settings.CELERY_BEAT_SCHEDULE.values())


@pytest.fixture
def begin(tmp_path):
    """Beat's schedule as it begins, with what the one before it has left."""
    return lambda: Clock(app=app, schedule_filename=str(tmp_path / "schedule"))


def set_back(schedule, seconds):
    """The clock goes back by so much: what stands in the schedule lies so much further ahead."""
    for entry in schedule.schedule.values():
        entry.last_run_at = app.now() + timedelta(seconds=seconds)
    schedule._heap = None


@pytest.mark.parametrize("seconds", [290, 3600])
def test_the_schedule_begins_again_where_the_clock_was_set_back(begin, seconds):
    """F36: until then nothing was sent before the clock came to its old time again."""
    schedule = begin()
    set_back(schedule, seconds)
    assert schedule.tick() <= OFTEN


def test_so_does_one_that_is_begun_after_the_clock_was_set_back(begin):
    before = begin()
    set_back(before, 3600)
    before.close()
    after = begin()
    assert after.tick() <= OFTEN


def test_what_came_lately_is_not_sent_again(begin):
    schedule = begin()
    set_back(schedule, 0)
    times = {name: entry.last_run_at for name, entry in schedule.schedule.items()}
    schedule.tick()
    assert {name: entry.last_run_at for name, entry in schedule.schedule.items()} == times
