"""`manage.py rehearse` of the pair of Configuration Servers: real worker, beat, Redis, agents, simulated servers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from runbook.stores import Stores

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.processes
COURSES = ("automatic", "forced", "compatible", "database-upgraded", "wrong-database", "unknown-format")


@pytest.fixture(scope="module")
def rehearse(tmp_path_factory):
    """Runs `manage.py rehearse` on stores of its own; the finished process with what it printed."""
    folder = tmp_path_factory.mktemp("rehearsal")
    folder.chmod(0o711)  # PostgreSQL may run under another account and must pass
    stores = Stores(folder / "stores")
    environment = {name: value for name, value in os.environ.items() if name != "SIMULATOR_URL"}
    environment |= stores.start().environment()

    def run(*arguments, command="rehearse"):
        return subprocess.run(
            [sys.executable, "manage.py", command, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )

    try:
        migrated = run("--noinput", command="migrate")
        assert migrated.returncode == 0, migrated.stderr[-3000:]
        yield run
    finally:
        stores.stop()


@pytest.fixture(scope="module")
def courses(rehearse):
    """All courses, one after the other in one start; what was printed, by course."""
    wanted = [argument for course in COURSES for argument in ("--scenario", course)]
    done = rehearse("config-server-ha", *wanted, "--speed", "40")
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


def test_the_record_of_all_runs_is_sound_afterwards(courses, rehearse):
    checked = rehearse(command="verify")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_course_that_does_not_end_in_time_is_no_success(rehearse):
    done = rehearse("config-server-ha", "--limit", "0.5")
    assert done.returncode != 0
    assert "After 0.5 seconds the run still stands at" in done.stdout
    assert "Not as expected: config-server-ha, automatic" in done.stderr


@pytest.mark.parametrize(
    "arguments", [("no-such-procedure",), ("config-server-ha", "--scenario", "no-such-course")]
)
def test_what_is_not_there_is_refused_before_anything_starts(arguments):
    with pytest.raises(CommandError, match="Choose one of"):
        call_command("rehearse", *arguments)
