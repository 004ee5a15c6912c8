"""Two web processes without sticky sessions: who signed in at one is known to the other, and pages of either stay live."""

import html
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from django.conf import settings
from django.db import connection
from django.test import Client

from tests.factories import make_environment, make_user, start
from upgrades.models import Run

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]


@contextmanager
def web(folder, number):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = os.environ["DATABASE_URL"].replace("/runbook?", f"/{connection.settings_dict['NAME']}?")
    with (folder / f"web-{number}.log").open("w") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "uvicorn",
                "runbook.asgi:application",
                "--port",
                str(port),
                "--no-access-log",
            ],
            env={**os.environ, "DATABASE_URL": address},
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                if httpx.get(f"{url}/healthz", trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def test_a_session_acts_at_one_process_and_the_page_of_the_other_hears_of_it(tmp_path):
    environment = make_environment()
    operator = make_user("operator", environment=environment)
    run = start(environment, operator)
    signed_in = Client()
    signed_in.force_login(operator)
    cookies = {settings.SESSION_COOKIE_NAME: signed_in.cookies[settings.SESSION_COOKIE_NAME].value}
    with ExitStack() as stack:
        one, other = (stack.enter_context(web(tmp_path, number)) for number in (1, 2))
        http = stack.enter_context(httpx.Client(trust_env=False, timeout=30, cookies=cookies))
        page = http.get(f"{one}/runs/{run}/").text
        stream = html.unescape(re.search(r'data-stream-url="([^"]+)"', page)[1])
        etag = html.unescape(re.search(r'data-etag="([^"]+)"', page)[1])
        # The ticket that one process made opens the stream of the other.
        with http.stream("GET", f"{other}{stream}") as listening:
            lines = listening.iter_lines()
            assert next(line for line in lines if line.startswith("event:")) == "event: beat"
            token = re.search(r'"X-CSRFToken": "(\w+)"', page)[1]
            sent = {"command_id": str(uuid4()), "text": "Seen by both.", "csrfmiddlewaretoken": token}
            answer = http.post(f"{one}/runs/{run}/note/", data=sent, headers={"Referer": one, "Origin": one})
            assert answer.status_code == 303
            told = next(line for line in lines if line == "event: version")
            version = int(next(lines).partition("data: ")[2])
        assert told
        assert version == Run.objects.get(pk=run).version
        for url in (one, other):
            again = http.get(f"{url}/runs/{run}/board/", headers={"If-None-Match": etag})
            assert again.status_code == 200
            assert "Seen by both." in again.text
        # The same form sent again, now to the other process, acts no second time.
        assert http.post(f"{other}/runs/{run}/note/", data=sent, headers={"Origin": other}).status_code == 303
        assert http.get(f"{one}/runs/{run}/board/").text.count("Seen by both.") == again.text.count(
            "Seen by both."
        )
