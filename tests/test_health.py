"""What a watcher sees: alive, ready, and what is missing. Each truth is tested by taking the thing away."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from runbook.celery import app
from tests.factories import make_environment, make_user
from tests.waiting import wait_for
from upgrades.models import Agent, CheckpointWatch, Heartbeat
from upgrades.queries import operation as asked
from upgrades.services import operation

ROOT = Path(__file__).parent.parent
TOKEN = "t" * 40
ALL_WELL = {"ok": True, "warnings": []}


@pytest.fixture(autouse=True)
def _token(settings):
    settings.METRICS_TOKEN = TOKEN


@pytest.fixture
def works(db):
    """A worker, the clock and the checkpoints give signs of life."""
    operation.alive(Heartbeat.Kind.WORKER, "celery@here")
    operation.alive(Heartbeat.Kind.TICK)
    CheckpointWatch.objects.create(seen_at=timezone.now())


def seen(client):
    """(status, parts) for those who watch over the installation."""
    answer = client.get("/readyz", headers={"Authorization": f"Bearer {TOKEN}"})
    return answer.status_code, answer.json()


def test_healthz_answers_without_any_store(client):
    answer = client.get("/healthz")
    assert (answer.status_code, answer.content) == (200, b"ok\n")


def test_readyz_tells_that_everything_does_its_work(client, works):
    parts = ("postgresql", "redis", "celery", "migrations", "record", "work", "agents")
    assert seen(client) == (200, {"ready": True, **dict.fromkeys(parts, ALL_WELL)})


# Who sees what.


def test_strangers_see_whether_and_not_what(client, works, settings):
    assert client.get("/readyz").json() == {"ready": True}
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"ready": False})


@pytest.mark.parametrize(
    ("role", "sees"),
    [("operator", True), ("administrator", True), ("approver", False), ("auditor", False), ("author", False)],
)
def test_people_who_operate_something_see_what(client, works, role, sees):
    client.force_login(make_user(role, environment=make_environment()))
    assert ("redis" in client.get("/readyz").json()) is sees


# Each part taken away.


def test_redis_away(client, works, settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    status, parts = seen(client)
    assert status == 503
    assert parts["postgresql"] == ALL_WELL
    assert parts["redis"] == {
        "ok": False,
        "reason": "Redis does not answer (ConnectionError). Start it, or correct REDIS_URL.",
    }


def test_postgresql_away_is_told_by_a_program_that_cannot_reach_it():
    program = (
        "import django; django.setup(); from django.test import Client;"
        f"answer = Client(HTTP_HOST='localhost').get('/readyz', headers={{'Authorization': 'Bearer {TOKEN}'}});"
        "print(answer.status_code, answer.content.decode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "DATABASE_URL": "postgresql://u:secret-of-it@127.0.0.1:1/n",
            "RUNBOOK_METRICS_TOKEN": TOKEN,
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith('503 {"ready": false, "postgresql": {"ok": false')
    assert "Start it, or correct DATABASE_URL." in done.stdout
    assert '"record": {"ok": false' in done.stdout
    assert "secret-of-it" not in done.stdout + done.stderr


def test_while_postgresql_is_away_pages_say_so_and_open_nothing():
    """Also with the cookie of a session, which nobody can look up now."""
    program = """
import django; django.setup()
from django.conf import settings
from django.test import Client
browser = Client(raise_request_exception=False, HTTP_HOST="localhost")
browser.cookies[settings.SESSION_COOKIE_NAME] = "s" * 32
for answer in (browser.get("/runs/"), browser.post("/sign-in/", {"username": "nina", "password": "x"})):
    print(answer.status_code, answer.headers.get("Retry-After"), "The database does not answer" in answer.text)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "DATABASE_URL": "postgresql://u:secret-of-it@127.0.0.1:1/n"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["503 5 True"] * 2
    assert "secret-of-it" not in done.stdout + done.stderr


def test_a_migration_that_is_not_applied(client, works):
    MigrationRecorder.Migration.objects.filter(app="upgrades").order_by("-pk")[0].delete()
    status, parts = seen(client)
    assert status == 503
    assert "1 migrations are not applied (first: upgrades 00" in parts["migrations"]["reason"]


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("DROP TRIGGER record_is_append_only ON upgrades_runevent", "record_is_append_only"),
        (
            "ALTER TABLE upgrades_registerentry DISABLE TRIGGER register_is_append_only",
            "register_is_append_only",
        ),
        (
            "ALTER TABLE upgrades_runevent ENABLE REPLICA TRIGGER record_is_append_only",
            "record_is_append_only",
        ),
        ("DROP TRIGGER group_role_is_registered ON upgrades_grouprole", "group_role_is_registered"),
        ("DROP TRIGGER confirmation_is_registered ON upgrades_membership", "confirmation_is_registered"),
        ("DROP TRIGGER an_auditor_has_no_other_role ON upgrades_membership", "an_auditor_has_no_other_role"),
        ("ALTER FUNCTION append_register(text, text, bigint, text, text) RENAME TO other", "append_register"),
    ],
)
def test_the_record_without_its_guards(client, works, statement, named):
    with connection.cursor() as cursor:
        cursor.execute(statement)
    status, parts = seen(client)
    assert status == 503
    assert f"does not guard the record: {named} missing or switched off" in parts["record"]["reason"]


def test_every_trigger_that_a_migration_makes_is_looked_for(db):
    with connection.cursor() as cursor:
        cursor.execute("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal")
        assert sorted(asked.GUARDS) == sorted(name for (name,) in cursor.fetchall())


def test_a_guard_that_replication_wakes_too_still_guards(client, works):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE upgrades_runevent ENABLE ALWAYS TRIGGER record_is_append_only")
    assert seen(client)[1]["record"] == ALL_WELL


def test_nobody_who_signs_checkpoints_is_a_warning(client, works):
    CheckpointWatch.objects.update(seen_at=timezone.now() - timedelta(minutes=5))
    status, parts = seen(client)
    assert status == 200
    assert parts["record"]["warnings"] == ["Nobody signs checkpoints now. Start: manage.py sign_checkpoints"]


def test_the_clock_standing_still(client, works):
    Heartbeat.objects.filter(kind="tick").update(seen_at=timezone.now() - timedelta(seconds=25))
    status, parts = seen(client)
    assert status == 503
    assert parts["work"]["reason"].startswith(
        "The clock of the background work stands still: it ticked last at "
    )


def test_signs_of_life_of_before_the_clock_was_set_back_vouch_for_nothing(client, works):
    """F36: a worker that died then would be said to live until the clock has come to its old time again."""
    ahead = timezone.now() + timedelta(hours=1)
    Heartbeat.objects.update(seen_at=ahead)
    CheckpointWatch.objects.update(seen_at=ahead)
    status, parts = seen(client)
    assert status == 503
    assert parts["work"]["reason"].startswith("No worker takes tasks: the last one was seen at ")
    assert parts["record"]["warnings"] == ["Nobody signs checkpoints now. Start: manage.py sign_checkpoints"]


def test_no_worker_ever(client, works):
    Heartbeat.objects.filter(kind="worker").delete()
    assert seen(client)[1]["work"]["reason"].startswith("No worker takes tasks: none was ever seen.")


def test_agents_that_are_silent_are_told_and_pages_are_served(client, works):
    make_environment()
    one, two, three = Agent.objects.order_by("pk")
    Agent.objects.filter(pk=one.pk).update(trouble="no connection")
    Agent.objects.filter(pk=two.pk).update(seen_at=timezone.now() - timedelta(seconds=60))
    Agent.objects.filter(pk=three.pk).update(seen_at=None)
    status, parts = seen(client)
    assert status == 200
    assert parts["agents"]["warnings"] == [
        "1 of 3 agents do not answer as they should.",
        "1 of 3 agents were not asked within two polls.",
        "1 of 3 agents were never heard.",
    ]


# A real worker, killed.


@pytest.mark.processes
def test_a_worker_is_seen_with_its_clock_and_missed_when_it_is_killed(
    client, transactional_db, tmp_path, monkeypatch
):
    monkeypatch.setattr(asked, "WORKER_SILENT", timedelta(seconds=8))
    command = [
        "celery",
        "-A",
        "runbook",
        "worker",
        "--concurrency",
        "1",
        "--beat",
        "-s",
        str(tmp_path / "beat"),
    ]
    name = connection.settings_dict["NAME"]
    address = os.environ["DATABASE_URL"].replace("/runbook?", f"/{name}?")
    app.control.purge()  # bells that other tests rang: a worker takes them all before its first tick
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env={**os.environ, "DATABASE_URL": address},
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(lambda: seen(client)[1]["work"]["ok"])
        assert Heartbeat.objects.filter(kind="worker", name__startswith="celery@").exists()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    wait_for(lambda: not seen(client)[1]["work"]["ok"])
    assert seen(client)[1]["work"]["reason"].startswith("No worker takes tasks: the last one was seen at ")
