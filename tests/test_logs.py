"""Our own logs: what each line says of request, task, person, run and step; what it never says; what cannot forge it."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from django.conf import settings
from django.db import OperationalError

from runbook import celery as celery_app
from runbook.log_lines import BLOT, JsonLine, OneLine
from tests.factories import make_environment, make_user, publish, start
from tests.web.test_access import addresses
from upgrades.adapters import log_context
from upgrades.services import calendar_feed

ROOT = Path(__file__).parent.parent
FORGED = "a\n2026-11-24T10:00:00.000Z INFO upgrades all is well \x1b[2J \u202e \x00 \udc80"
SECRET = "k-of-the-tests-7f0d"


def record(message, *arguments, level=logging.WARNING, trace=None):
    return logging.LogRecord("upgrades.services", level, "f", 1, message, arguments, trace)


def failed(text):
    try:
        raise ValueError(text)
    except ValueError:
        return sys.exc_info()


@pytest.fixture
def as_json():
    formatter = JsonLine(secrets=[SECRET])
    return lambda *arguments, **named: json.loads(formatter.format(record(*arguments, **named)))


@pytest.fixture
def lines():
    """Everything that is logged by us meanwhile, as the JSON that an operator's programs get."""
    found, formatter = [], JsonLine()

    class Kept(logging.Handler):
        def emit(self, entry):
            found.append(json.loads(formatter.format(entry)))

    handler, ours = Kept(), [logging.getLogger(name) for name in ("runbook", "upgrades")]
    before = [logger.level for logger in ours]
    for logger in ours:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    yield found
    for logger, level in zip(ours, before, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


# The formats.


def test_a_line_is_one_object_in_ascii_whatever_it_tells():
    line = JsonLine().format(record("no such host: %s", FORGED))
    assert line.isascii()
    assert "\n" not in line
    assert "\x1b" not in line
    assert json.loads(line)["message"] == f"no such host: {FORGED}"


@pytest.mark.parametrize("text", ["100 % {0.__class__} ${jndi:x} {{7*7}} %(x)s", "%s %d"])
def test_foreign_text_is_never_taken_for_a_format(as_json, text):
    assert as_json("it said: %s", text)["message"] == f"it said: {text}"


def test_a_traceback_is_part_of_its_line(as_json):
    line = as_json("it failed", trace=failed(FORGED))
    assert line["level"] == "WARNING"
    assert "ValueError: a\n2026" in line["trace"]


def test_for_people_a_traceback_stands_indented_so_that_it_cannot_look_like_a_line():
    text = OneLine("{levelname} {message}", style="{").format(record("it failed", trace=failed(FORGED)))
    first, *rest = text.split("\n")
    assert first == "WARNING it failed"
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b" not in text
    assert "\u202e" not in text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"the key is {SECRET}.", f"the key is {BLOT}."),
        ("postgresql://runbook:hunter2-long@db:5432/n", f"postgresql://runbook:{BLOT}@db:5432/n"),
        ("Authorization: Bearer abcdefghijkl.mno", f"Authorization: Bearer {BLOT}"),
        ("{'password': 'x y', 'n': 1}", f"{{'password': {BLOT}, 'n': 1}}"),
        ("GET /stream/runs/7/?ticket=WzFd:1t:abc HTTP", f"GET /stream/runs/7/?ticket={BLOT} HTTP"),
        ("client_secret=abc&x=1", f"client_secret={BLOT}&x=1"),
        (
            f"Internal Server Error: /api/v1/rbk_0123abcd_{'A' * 43}/",
            f"Internal Server Error: /api/v1/{BLOT}/",
        ),
        ("the token of the run", "the token of the run"),
        ("no password: ask again", f"no password: {BLOT} again"),
    ],
)
def test_secrets_are_blotted_out_in_messages_and_tracebacks(as_json, text, left):
    line = as_json("%s", text, trace=failed(text))
    assert line["message"] == left
    assert line["trace"].endswith(f"ValueError: {left}")
    assert left in OneLine("{message}", style="{", secrets=[SECRET]).format(record("%s", text))


# What a line belongs to.


def test_a_line_says_what_the_work_around_it_belongs_to_and_no_more_afterwards(as_json):
    with log_context.about(request="r1", user=7):
        with log_context.about(run=3, step="launch-new", agent=None):
            inside = as_json("x")
        around = as_json("x")
    assert (inside["request"], inside["user"], inside["run"], inside["step"]) == ("r1", 7, 3, "launch-new")
    assert "agent" not in inside
    assert "run" not in around
    assert "request" not in as_json("x")


def test_for_people_it_stands_behind_the_text():
    with log_context.about(run=3, step="launch-new"):
        text = OneLine("{message}", style="{").format(record("it waits"))
    assert text == "it waits [run=3 step=launch-new]"


@pytest.mark.django_db
def test_an_act_is_told_by_route_person_run_and_request_and_never_by_name(client, lines):
    environment = make_environment()
    publish()
    ada = make_user(
        "operator", environment=environment, name="ada-lovelace", first_name="Ada", last_name="L."
    )
    run = start(environment, ada)
    client.force_login(ada)
    answer = client.post(f"/runs/{run}/note/?x=private", {"command_id": uuid4(), "text": "Ada has seen it."})
    told = next(line for line in lines if line["logger"] == "runbook.requests")
    assert told["message"].startswith(f"POST run-act {answer.status_code} in ")
    assert (told["user"], told["run"], told["request"]) == (ada.pk, run, answer.headers["X-Request-Id"])
    assert told["level"] == "INFO"
    for line in lines:
        assert not any(word in json.dumps(line) for word in ("Ada", "ada-lovelace", "private"))


@pytest.mark.django_db
@pytest.mark.parametrize("form", [JsonLine(), OneLine("{message}", style="{")])
@pytest.mark.parametrize("failure", [RuntimeError, OperationalError])
def test_no_secret_of_an_address_is_told_when_its_page_fails(client, caplog, monkeypatch, failure, form):
    def fail(*_, **__):
        raise failure("of the test")

    token = calendar_feed.make_feed(make_user())
    monkeypatch.setattr("upgrades.web.calendar.planned_runs", fail)
    client.raise_request_exception = False
    assert client.get(f"/calendar/{token}.ics").status_code >= 500
    told = [form.format(entry) for entry in caplog.records]
    assert any("/calendar/" in line for line in told)
    assert not [line for line in told if token in line]


def test_every_address_with_a_secret_in_it_is_known_to_the_log(as_json):
    token = "k-Of_a-secret-that-nobody-guesses-7f0d01234567"
    secret = [pattern for _, pattern in addresses() if "token>" in pattern]
    assert secret
    for pattern in secret:
        address = "/" + re.sub(r"<\w+:token>", token, pattern)
        assert token not in as_json("Not Found: %s", address)["message"], pattern


@pytest.mark.django_db
def test_what_is_refused_to_a_person_is_told_with_run_and_step(client, lines):
    environment = make_environment()
    publish()
    run = start(environment, make_user("operator", environment=environment))
    client.force_login(make_user("auditor", environment=environment))
    client.post(
        f"/runs/{run}/confirm/",
        {
            "command_id": uuid4(),
            "step": "prerequisites",
            "visit": 1,
            "gate": "packages-delivered",
            "answer": "pass",
        },
    )
    refused = next(line for line in lines if line["message"].startswith("refused to user"))
    assert (refused["run"], refused["step"]) == (run, "prerequisites")


ID = "proxy-4711-abcdef"


@pytest.mark.parametrize(
    ("header", "sent", "taken"),
    [
        ("", {"X-Request-Id": ID}, False),
        ("X-Request-Id", {"X-Request-Id": ID}, True),
        ("X-Correlation-Id", {"X-Request-Id": ID}, False),
        ("X-Request-Id", {"X-Request-Id": "a b\tc<script>"}, False),
        ("X-Request-Id", {"X-Request-Id": "x" * 5000}, False),
        ("X-Request-Id", {}, False),
    ],
)
def test_the_id_of_a_request_is_the_proxys_only_where_its_header_is_named(
    client, settings, header, sent, taken
):
    settings.REQUEST_ID_HEADER = header
    told = client.get("/healthz", headers=sent).headers["X-Request-Id"]
    assert (told == ID) is taken
    assert 8 <= len(told) <= 100


def test_a_request_of_nobody_leaves_a_line_without_a_person(client, lines):
    client.post("/healthz")
    assert lines[-1]["message"].startswith("POST healthz 405")
    assert "user" not in lines[-1]


# Tasks.


def test_a_task_tells_its_name_its_id_and_the_request_that_rang_for_it(as_json):
    headers = {}
    with log_context.about(request="r-12345678"):
        celery_app.say_which_request_rang(headers=headers)
    seen = []

    @celery_app.app.task(name="tests.look", shared=False)
    def look():
        seen.append(as_json("looking"))

    look.apply(task_id="t-1", headers=headers)
    assert (seen[0]["task"], seen[0]["task_id"]) == ("look", "t-1")
    assert "task" not in as_json("afterwards")


# The settings.

PROGRAM = """
import logging, django
django.setup()
logging.getLogger("uvicorn.error").error("from the web server: %s", "postgresql://u:very-secret-db@h/n")
keys = [django.conf.settings.SECRET_KEY, *django.conf.settings.SECRET_KEY_FALLBACKS]
logging.getLogger("upgrades").warning("the keys are %s", " and ".join(keys))
"""


@pytest.mark.parametrize(
    ("changes", "is_json"),
    [
        ({"RUNBOOK_LOG": "json"}, True),
        ({"RUNBOOK_LOG": "text"}, False),
        ({}, False),
        ({"RUNBOOK_HTTPS": "on"}, True),
    ],
)
def test_programs_log_json_where_it_is_wanted_and_in_production(changes, is_json):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RUNBOOK_LOG")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env={**environment, "SECRET_KEY_BEFORE": "the-key-of-last-year-", **changes},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert settings.SECRET_KEY not in done.stderr
    assert "the-key-of-last-year" not in done.stderr
    assert "very-secret-db" not in done.stderr
    assert [line.startswith("{") for line in lines] == [is_json] * 2
    if is_json:
        assert [json.loads(line)["logger"] for line in lines] == ["uvicorn.error", "upgrades"]
