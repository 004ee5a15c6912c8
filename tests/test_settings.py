"""A missing or wrong setting stops the start with sentences; a right one is read as it is meant."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from runbook.environment import Environment, SettingMistakes, given_stores, parse_database_url

ROOT = Path(__file__).parent.parent
GOOD = {
    "SECRET_KEY": "k" * 50,
    "DATABASE_URL": "postgresql://runbook@127.0.0.1:1/runbook",
    "REDIS_URL": "redis://127.0.0.1:1/0",
}
NAME_OF_SESSION = "from django.conf import settings; print(settings.SESSION_COOKIE_NAME)"


def start(program=NAME_OF_SESSION, **changes):
    """Reads the settings in a process of its own, as every program of ours does at its start."""
    values = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "runbook.settings", **values},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_good_settings_start_with_cookies_for_https():
    done = start()
    assert (done.returncode, done.stdout, done.stderr) == (0, "__Host-session\n", "")


def test_with_https_cookies_are_for_https_and_this_host_and_browsers_are_told_to_stay_there():
    """These tests run with RUNBOOK_HTTPS off, so what is so in service is asked of a process of its own."""
    program = """
import json, django; django.setup()
from django.conf import settings
from django.test import Client
answer = Client(HTTP_HOST="localhost").get("/healthz", secure=True)
told = {"HSTS": answer.headers.get("Strict-Transport-Security")}
for kind in ("SESSION", "CSRF"):
    told[kind] = [getattr(settings, f"{kind}_COOKIE_{what}") for what in
        ("NAME", "SECURE", "HTTPONLY", "SAMESITE", "PATH", "DOMAIN")]
print(json.dumps(told))
"""
    done = start(program, RUNBOOK_HTTPS="on", RUNBOOK_LOG_LEVEL="ERROR")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "HSTS": "max-age=63072000; includeSubDomains",
        "SESSION": ["__Host-session", True, True, "Lax", "/", None],
        "CSRF": ["__Host-csrf", True, True, "Strict", "/", None],
    }


def test_all_missing_settings_are_told_at_once_and_without_a_traceback():
    done = start(SECRET_KEY=None, DATABASE_URL=None, REDIS_URL=None)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for sentence in ("SECRET_KEY is missing. Set it to", "DATABASE_URL is missing.", "REDIS_URL is missing."):
        assert sentence in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SECRET_KEY", "short", "SECRET_KEY has 5 characters, fewer than 50."),
        ("DEBUG", "maybe", "DEBUG is 'maybe'. Set it to on or off."),
        ("EVIDENCE_MAX_BYTES", "50MB", "Set it to a whole number from 1024 to"),
        ("EVIDENCE_MAX_BYTES", "-1", "Set it to a whole number from 1024 to"),
        ("EVIDENCE_FOLDER", "var/evidence", "EVIDENCE_FOLDER is 'var/evidence'. Set it to an absolute path."),
        ("RUNBOOK_HOSTS", ",", "RUNBOOK_HOSTS holds no name."),
        ("RUNBOOK_TIME_ZONE", "Berlin", "RUNBOOK_TIME_ZONE is 'Berlin', no known time zone."),
        ("RUNBOOK_TIME_ZONE", "../etc/passwd", "no known time zone."),
        ("RUNBOOK_LOG_LEVEL", "loud", "Set it to one of: DEBUG, INFO, WARNING, ERROR."),
        ("SIMULATOR_URL", "127.0.0.1:8010", "SIMULATOR_URL is '127.0.0.1:8010'. Set it to an address"),
        ("DATABASE_URL", "mysql://u@h/n", "it does not begin with postgresql://"),
        ("DATABASE_URL", "postgresql://u:p@h:port/n", "no valid port."),
        ("DATABASE_URL", "postgresql://u@h/", "it names no database"),
        ("DATABASE_URL", "postgresql://u@h/n?sslmod=require", "it has unknown options (sslmod)."),
        ("REDIS_URL", "http://127.0.0.1", "REDIS_URL is no Redis address"),
    ],
)
def test_a_wrong_setting_stops_the_start_and_says_what_to_do(name, value, sentence):
    done = start(**{name: value})
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
def test_a_wrong_address_is_refused_without_showing_its_password(name):
    done = start(**{name: "ftp://user:hunter2hunter2@host/name"})
    assert done.returncode == 1
    assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.parametrize("changes", [{"RUNBOOK_HTTPS": "off"}, {"DEBUG": "on"}])
def test_what_is_for_this_machine_only_is_refused_with_another_host(changes):
    done = start(RUNBOOK_HOSTS="runbook.example.org", **changes)
    assert done.returncode == 1
    assert "names more than this machine" in done.stderr
    assert start(**changes).returncode == 0


def test_a_database_url_is_read_with_escapes_and_options():
    assert parse_database_url("postgresql://a%40b:p%2Fw@db.example:5433/run%20book?sslmode=verify-full") == {
        "NAME": "run book",
        "USER": "a@b",
        "PASSWORD": "p/w",
        "HOST": "db.example",
        "PORT": "5433",
        "OPTIONS": {"sslmode": "verify-full"},
    }


def test_a_database_url_may_name_the_folder_of_a_socket():
    assert parse_database_url("postgresql://runbook@/runbook?host=/tmp/a%20b")["HOST"] == "/tmp/a b"


@pytest.mark.parametrize("given", ["DATABASE_URL", "REDIS_URL"])
def test_one_store_address_alone_is_refused(given):
    with pytest.raises(SettingMistakes, match=rf"{given} is set, but \w+ is not. Set both"):
        given_stores({given: "x"})


@pytest.mark.parametrize(
    ("text", "value"), [("on", True), ("OFF", False), ("1", True), ("no", False), ("", True)]
)
def test_a_switch_is_read(text, value):
    assert Environment({"X": text}).switch("X", default=True) is value


def test_a_slow_task_ends_before_the_broker_hands_it_out_again():
    assert settings.CELERY_TASK_TIME_LIMIT < settings.CELERY_VISIBILITY_TIMEOUT
    for options in (
        settings.CELERY_BROKER_TRANSPORT_OPTIONS,
        settings.CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS,
    ):
        assert options["visibility_timeout"] == settings.CELERY_VISIBILITY_TIMEOUT


def test_every_variable_that_is_read_is_explained_in_the_example():
    """The launcher's and the settings' variables stand in .env.example, and nothing else does."""
    import re

    pattern = re.compile(r'env\.\w+\(\s*"([A-Z_]+)"')
    read = {
        name
        for file in ("settings.py", "demo.py")
        for name in pattern.findall((ROOT / "runbook" / file).read_text())
    }
    explained = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert read - explained == set()
    of_compose = {"POSTGRES_PASSWORD", "APP_DATABASE_PASSWORD", "REDIS_PASSWORD", "BACKUP_FOLDER"}
    assert explained - read == of_compose


def test_a_log_line_cannot_be_forged_by_what_it_tells():
    from logging import LogRecord

    from runbook.log_lines import OneLine

    record = LogRecord("web", 30, "f", 1, "no such host: %s", ("a\n2026 INFO all is well\x1b[2J",), None)
    line = OneLine("{levelname} {message}", style="{").format(record)
    assert line == r"WARNING no such host: a\n2026 INFO all is well\x1b[2J"
