"""`manage.py rehearse` of the pair of Configuration Servers: real worker, beat, Redis, agents, simulated servers."""

import re

import pytest
from django.core.management import CommandError, call_command

pytestmark = pytest.mark.processes
COURSES = ("automatic", "forced", "compatible", "database-upgraded", "wrong-database", "unknown-format")


@pytest.fixture(scope="module")
def courses(manage):
    """All courses, one after the other in one start; what was printed, by course."""
    wanted = [argument for course in COURSES for argument in ("--scenario", course)]
    done = manage("rehearse", "config-server-ha", *wanted, "--speed", "40")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    parts = re.split(r"^config-server-ha, (\S+): ended as it must$", done.stdout, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[0::2], strict=False))


def test_every_course_ends_as_it_must(courses):
    assert tuple(courses) == COURSES


@pytest.mark.parametrize(
    ("course", "shown"),
    [
        ("automatic", ["log   confserv_b 21-25301", "log   confserv_b 21-22170", "run ended: completed"]),
        ("forced", ["gate  initialized of launch-new: not-detected", "step  force-upgrade-mode begun"]),
        ("compatible", ["gate  initialized of launch-new: compatible", "run ended: compatible"]),
        ("database-upgraded", ["step  point-to-new-database begun", "log   confserv_b 21-22171"]),
        ("wrong-database", ["held: confserv_b says that its database was upgraded"]),
        ("unknown-format", ["run ended: completed"]),
    ],
)
def test_a_course_shows_what_is_peculiar_to_it(courses, course, shown):
    for words in shown:
        assert words in courses[course]


def test_a_wrong_database_never_lets_the_run_go_on(courses):
    assert "stop-old" not in courses["wrong-database"]
    assert "run ended" not in courses["wrong-database"]


def test_the_record_of_all_runs_is_sound_afterwards(courses, manage):
    checked = manage("verify")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_course_that_does_not_end_in_time_is_no_success(manage):
    done = manage("rehearse", "config-server-ha", "--limit", "0.5")
    assert done.returncode != 0
    assert "After 0.5 seconds the run still stands at" in done.stdout
    assert "Not as expected: config-server-ha, automatic" in done.stderr


@pytest.mark.parametrize(
    "arguments", [("no-such-procedure",), ("config-server-ha", "--scenario", "no-such-course")]
)
def test_what_is_not_there_is_refused_before_anything_starts(arguments):
    with pytest.raises(CommandError, match="Choose one of"):
        call_command("rehearse", *arguments)
