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
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

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

    def fetch(self, run: int) -> float:
        """Seconds that the page's fragment takes, asked for by nobody else at the time."""
        ...


class _Fragments:
    """Asks for the fragment of a page as a page does, with the session of somebody."""

    def __init__(self, url: str, cookie: str) -> None:
        cookies = {settings.SESSION_COOKIE_NAME: cookie}
        self._http = httpx.Client(base_url=url, cookies=cookies, timeout=LIMIT)

    def fetch(self, run: int) -> float:
        began = time.perf_counter()
        self._http.get(f"/runs/{run}/board/").raise_for_status()
        return time.perf_counter() - began


def signed_in(user: User) -> str:
    """The session cookie of somebody who has signed in."""
    client = Client()
    client.force_login(user)
    return str(client.cookies[settings.SESSION_COOKIE_NAME].value)


class Browser(_Fragments):
    """A page in Chromium, with everything that a person's page does.

    Playwright's own event loop keeps to the thread that began it, so all of it is done in a thread of its own.
    """

    name = "headless Chromium"

    def __init__(self, program: str, url: str, cookie: str) -> None:
        super().__init__(url, cookie)
        self._url, self._program, self._cookie = url, program, cookie
        self._thread = ThreadPoolExecutor(1)
        self._thread.submit(self._launch).result()

    def _launch(self) -> None:
        from playwright.sync_api import sync_playwright  # a tool of the tests, so not installed everywhere

        self._playwright = sync_playwright().start()
        self._chromium = self._playwright.chromium.launch(executable_path=self._program, args=FLAGS)
        context = self._chromium.new_context()
        name = settings.SESSION_COOKIE_NAME
        context.add_cookies([{"name": name, "value": self._cookie, "url": self._url}])
        self._page = context.new_page()
        self._page.set_default_timeout(LIMIT * 1000)

    def open(self, run: int) -> None:
        self._thread.submit(self._open, run).result()

    def _open(self, run: int) -> None:
        self._page.goto(f"{self._url}/runs/{run}/", wait_until="load")
        self._page.wait_for_selector("#board")
        self._page.evaluate(_WATCH, f"step-{NEXT}")

    def opened_at(self) -> float:
        return float(self._thread.submit(self._page.evaluate, "() => window.opened").result(LIMIT)) / 1000

    def close(self) -> None:
        self._thread.submit(self._end).result()
        self._thread.shutdown()

    def _end(self) -> None:
        self._chromium.close()
        self._playwright.stop()


class StreamClient(_Fragments):
    """What a page does without drawing it: the event stream, and at each new version the fragment."""

    name = "a client of the event stream (no Chromium here)"

    def __init__(self, url: str, cookie: str) -> None:
        super().__init__(url, cookie)
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
    looking = Browser(program, url, cookie)
    try:
        yield looking
    finally:
        looking.close()
