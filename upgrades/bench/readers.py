"""Who looks at the page of a run: a real Chromium, or where there is none, a client of the event stream."""

from __future__ import annotations

import contextlib
import html
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

import httpx
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from upgrades.bench.place import CannotMeasure
from upgrades.bench.scene import NEXT

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
LIMIT = 60.0

_WATCH = """step => { window.opened = new Promise(tell => {
  const look = () => document.getElementById(step) && tell(Date.now());
  new MutationObserver(look).observe(document, {childList: true, subtree: true, attributes: true});
  look(); }); }"""


class Reader(Protocol):
    """Opens the page of a run; then says when (seconds since 1970) it showed the next step."""

    name: str

    def open(self, run: int) -> None: ...

    def opened_at(self) -> float: ...


def signed_in(user: User) -> str:
    """The session cookie of somebody who has signed in."""
    client = Client()
    client.force_login(user)
    return str(client.cookies[settings.SESSION_COOKIE_NAME].value)


class Browser:
    """A page in Chromium, with everything that a person's page does."""

    name = "headless Chromium"

    def __init__(self, page: Any, url: str) -> None:
        self._page, self._url = page, url

    def open(self, run: int) -> None:
        self._page.goto(f"{self._url}/runs/{run}/", wait_until="load")
        self._page.wait_for_selector("#board")
        self._page.evaluate(_WATCH, f"step-{NEXT}")

    def opened_at(self) -> float:
        return float(self._page.evaluate("() => window.opened")) / 1000


class StreamClient:
    """What a page does without drawing it: the event stream, and at each new version the fragment."""

    name = "a client of the event stream (no Chromium here)"

    def __init__(self, url: str, cookie: str) -> None:
        self._http = httpx.Client(base_url=url, cookies={settings.SESSION_COOKIE_NAME: cookie}, timeout=LIMIT)
        self._found: list[float] = []
        self._reading = threading.Thread()

    def open(self, run: int) -> None:
        page = self._http.get(f"/runs/{run}/").text
        stream, board = (_attribute(page, name) for name in ("data-stream-url", "data-live-url"))
        self._found, connected = [], threading.Event()
        self._reading = threading.Thread(target=self._read, args=(stream, board, connected), daemon=True)
        self._reading.start()
        connected.wait(LIMIT)

    def _read(self, stream: str, board: str, connected: threading.Event) -> None:
        with self._http.stream("GET", stream) as answer:
            for line in answer.iter_lines():
                connected.set()
                if line == "event: version" and f'id="step-{NEXT}"' in self._http.get(board).text:
                    self._found.append(time.time())
                    return

    def opened_at(self) -> float:
        self._reading.join(LIMIT)
        return self._found[0]


def _attribute(page: str, name: str) -> str:
    found = re.search(f'{name}="([^"]+)"', page)
    if found is None:
        raise CannotMeasure(f"The page of a run has no {name}.")
    return html.unescape(found[1])


@contextlib.contextmanager
def reader(url: str, user: User, *, browser: bool = True) -> Iterator[Reader]:
    """Chromium where there is one and it is wanted, else the client of the stream."""
    cookie = signed_in(user)
    names = (os.environ["CHROMIUM"],) if os.environ.get("CHROMIUM") else PROGRAMS
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None or not browser:
        yield StreamClient(url, cookie)
        return
    from playwright.sync_api import sync_playwright  # a tool of the tests, so not installed everywhere

    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"  # its loop runs in this thread
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
        context = chromium.new_context()
        context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": cookie, "url": url}])
        page = context.new_page()
        page.set_default_timeout(LIMIT * 1000)
        yield Browser(page, url)
        chromium.close()
