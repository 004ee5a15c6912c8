"""static/runbook/live.js in a real Chromium, against a small server whose stream and answers the test commands."""

import http.server
import queue
import re
import secrets
import threading
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
CONFIG = re.search(r"""content='({"ext.+?)'""", (ROOT / "templates/base.html").read_text())[1]
POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}'; connect-src 'self'; style-src 'self'; img-src 'self'; "
    "require-trusted-types-for 'script'; trusted-types htmx"
)
PAGE = """<!doctype html><html lang="en" data-now="{now}"><head><meta name="htmx-config" content='{config}'>
<link rel="stylesheet" href="/static/runbook/runbook.css"><link rel="icon" href="/static/runbook/icon.svg">
<script src="/static/vendor/htmx-4.0.1/htmx.min.js" nonce="{nonce}"></script>
<script src="/static/vendor/htmx-4.0.1/hx-csp.min.js" nonce="{nonce}"></script>
<script src="/static/runbook/live.js" nonce="{nonce}" type="module"></script></head>
<body hx-headers:inherited='{{"X-CSRFToken": "t"}}' hx-nonce="{nonce}">
<p class="link-state" id="link-state" role="alert" hidden></p>
<main><div id="messages"></div><div id="kept-text"></div>{area}</main></body></html>"""
AREA = """<div id="run" data-live-url="/fragment" data-stream-url="/stream?ticket={ticket}" data-version="{version}">
<h2>version {version}</h2>
<form id="note-{step}" hx-post="/note" hx-target="#run" hx-swap="outerMorph" hx-sync="this:drop" hx-nonce="{nonce}">
<label for="text-{step}">Note</label><textarea id="text-{step}" name="text"></textarea>
<label><input type="checkbox" name="sure" id="sure-{step}"> sure</label>
<button id="send" data-needs-fresh>Send</button></form>
<details id="more"><summary>More</summary>inside {version}</details>
<section class="log"><ol id="log" data-tail tabindex="0">{lines}</ol></section>
<b id="since" data-since="2026-01-01T00:00:00Z"></b> <b id="until" data-until="2026-01-02T00:00:00Z"></b>
</div>"""


class Run:
    """What the server shows, and how it misbehaves. A test changes it and calls `tell`."""

    def __init__(self):
        self.version, self.step, self.lines, self.tickets = 1, 6, 30, 0
        self.fragment, self.stream, self.note = 200, 200, 200
        self.beating = True
        self.streams: list[queue.Queue] = []
        self.asked: list[dict[str, str]] = []
        self.tickets_shown: list[str] = []
        self.over = threading.Event()

    def tell(self, name, number):
        for waiting in list(self.streams):
            waiting.put(f"event: {name}\ndata: {number}\n\n")

    def close_streams(self):
        for waiting in list(self.streams):
            waiting.put(None)

    def area(self, nonce):
        self.tickets += 1
        lines = "".join(f"<li>line {n}</li>" for n in range(self.lines))
        return AREA.format(
            version=self.version, step=self.step, ticket=self.tickets, nonce=nonce, lines=lines
        )


class Handler(http.server.BaseHTTPRequestHandler):
    run: Run

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path.startswith("/static/"):
            file = ROOT / path[1:]
            kind = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}[file.suffix]
            self.send(200, file.read_text(), kind=kind)
        elif path == "/stream":
            self.run.tickets_shown.append(query.removeprefix("ticket="))
            self.serve_stream()
        elif path == "/fragment":
            self.run.asked.append({name.lower(): value for name, value in self.headers.items()})
            self.serve_fragment()
        else:
            nonce = secrets.token_urlsafe(16)
            now = "2026-01-01T00:10:00Z"
            page = PAGE.format(nonce=nonce, config=CONFIG, now=now, area=self.run.area(nonce))
            self.send(200, page, nonce=nonce)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        nonce = secrets.token_urlsafe(16)
        if self.run.note == 200:
            self.run.version += 1
        self.send(self.run.note, self.run.area(nonce), nonce=nonce)

    def serve_fragment(self):
        if self.run.fragment == "silent":
            self.run.over.wait(60)
            return
        etag, nonce = f'"{self.run.version}"', secrets.token_urlsafe(16)
        if self.run.fragment == 200 and self.headers.get("If-None-Match") == etag:
            self.send(304, "", etag=etag)
        else:
            self.send(self.run.fragment, self.run.area(nonce), nonce=nonce, etag=etag)

    def serve_stream(self):
        if self.run.stream != 200:
            self.send(self.run.stream, "no")
            return
        waiting = queue.Queue()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.run.streams.append(waiting)
        message = "event: beat\ndata: 1767226200000\n\n"
        try:
            while message is not None and not self.run.over.is_set():
                self.wfile.write(message.encode())
                message = self.next_message(waiting)
        except OSError:
            pass
        finally:
            self.run.streams.remove(waiting)

    def next_message(self, waiting):
        while not self.run.over.is_set():
            try:
                return waiting.get(timeout=1)
            except queue.Empty:
                if self.run.beating:
                    return "event: beat\ndata: 1767226200000\n\n"
        return None

    def send(self, status, text, *, kind="text/html", nonce="", etag=""):
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        if etag:
            self.send_header("ETag", etag)
        if nonce:
            self.send_header("Content-Security-Policy", POLICY.format(nonce=nonce))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    """One that does not mind readers who leave in the middle."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


@pytest.fixture
def run():
    return Run()


@pytest.fixture
def page(chromium, run):
    server = Server(("127.0.0.1", 0), type("OfThisTest", (Handler,), {"run": run}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    context = chromium.new_context()
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda said: page.complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(f"http://127.0.0.1:{server.server_port}/")
    page.wait_for_selector("html[data-link=live]")
    yield page
    run.over.set()
    context.close()
    server.shutdown()
    server.server_close()
    thread.join()


def advance(run, page):
    """The run gets a new version and the page shows it."""
    run.version += 1
    run.tell("version", run.version)
    page.wait_for_selector(f"h2 >> text=version {run.version}")


def until(page, condition):
    """Waits, with the browser's events handled, for what the server has seen."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        page.wait_for_timeout(20)


def test_a_new_version_is_fetched_and_shown(page, run):
    advance(run, page)
    advance(run, page)
    assert page.complaints == []


def test_what_is_shown_already_is_not_sent_again(page, run):
    advance(run, page)
    before = len(run.asked)
    run.stream = 503
    run.close_streams()
    until(page, lambda: len(run.asked) > before)
    assert run.asked[-1]["if-none-match"] == f'"{run.version}"'


def test_an_old_number_asks_for_nothing(page, run):
    advance(run, page)
    before = len(run.asked)
    run.tell("version", 1)
    advance(run, page)
    assert len(run.asked) == before + 1


def test_typed_text_focus_choices_and_drawers_survive_a_new_version(page, run):
    page.click("#more summary")
    page.check("#sure-6")
    page.fill("#text-6", "the database was ")
    page.focus("#text-6")
    page.keyboard.press("End")
    advance(run, page)
    page.keyboard.type("restored")
    advance(run, page)
    assert page.input_value("#text-6") == "the database was restored"
    assert page.is_checked("#sure-6")
    assert page.is_visible(f"text=inside {run.version}")
    assert page.evaluate("document.activeElement.id") == "text-6"


def test_text_whose_form_is_gone_is_kept_and_never_moves_into_another_form(page, run):
    page.fill("#text-6", "for step 6 only")
    run.step = 7
    advance(run, page)
    assert page.input_value("#text-7") == ""
    assert page.input_value("#kept-text textarea") == "for step 6 only"
    page.click("#kept-text button")
    assert page.locator("#kept-text textarea").count() == 0


def test_text_that_was_accepted_is_neither_kept_nor_offered(page, run):
    page.fill("#text-6", "sent")
    page.click("#send")
    page.wait_for_selector("h2 >> text=version 2")
    assert page.input_value("#text-6") == ""
    assert page.locator("#kept-text textarea").count() == 0


def test_text_that_was_refused_stays_in_its_form(page, run):
    run.note = 409
    page.fill("#text-6", "too late")
    with page.expect_response("**/note"):
        page.click("#send")
    advance(run, page)
    assert page.input_value("#text-6") == "too late"


def test_an_answer_that_says_nothing_of_what_happened_is_told_as_such(page, run):
    run.note = 500
    page.fill("#text-6", "hello")
    page.click("#send")
    page.wait_for_selector("#messages >> text=it is not known whether it acted")
    assert page.input_value("#text-6") == "hello"


def test_without_the_stream_the_page_asks_and_comes_back_to_the_stream(page, run):
    run.stream = 503
    run.close_streams()
    page.wait_for_selector("html[data-link=asking]")
    run.version += 1
    page.wait_for_selector(f"text=version {run.version}")
    assert page.is_enabled("#send")
    run.stream = 200
    page.wait_for_selector("html[data-link=live]")
    advance(run, page)


def test_a_lost_server_is_told_and_locks_buttons_until_it_answers(page, run):
    run.fragment = run.stream = 503
    run.close_streams()
    page.wait_for_selector("#link-state >> text=may be out of date")
    assert page.is_disabled("#send")
    run.fragment = run.stream = 200
    page.wait_for_selector("#link-state", state="hidden")
    assert page.is_enabled("#send")


def test_a_silent_server_is_noticed_too(page, run):
    """Nothing is closed, nothing answers: a stale page shows it within SILENCE + ANSWER_WITHIN, under 5 s."""
    run.beating, run.fragment = False, "silent"
    page.wait_for_selector("#link-state >> text=may be out of date")
    assert page.is_disabled("#send")
    script = (ROOT / "static/runbook/live.js").read_text()
    limits = [int(re.search(rf"const {name} = (\d+)", script)[1]) for name in ("SILENCE", "ANSWER_WITHIN")]
    assert sum(limits) < 5000


def test_a_right_that_was_taken_away_ends_the_page(page, run):
    run.fragment = 403
    run.tell("version", 2)
    page.wait_for_selector("#link-state >> text=can no longer see this")
    assert page.is_visible("text=version 1")
    assert page.is_disabled("#send")
    until(page, lambda: run.streams == [] or run.tell("beat", 1))


def test_at_the_end_of_a_stream_the_page_fetches_a_new_ticket(page, run):
    advance(run, page)
    before = len(run.asked)
    run.tell("renew", 300)
    until(page, lambda: len(run.tickets_shown) == 2)
    assert "if-none-match" not in run.asked[before]
    assert run.tickets_shown[0] != run.tickets_shown[1]
    page.wait_for_selector("html[data-link=live]")


def test_an_answer_that_is_older_than_the_page_is_not_shown(page, run):
    advance(run, page)
    run.version -= 1
    run.tell("renew", 300)
    until(page, lambda: len(run.tickets_shown) == 2)
    assert page.is_visible("text=version 2")


def test_the_log_follows_its_end_unless_the_reader_scrolled_up(page, run):
    at_end = "(e => e.scrollHeight - e.scrollTop - e.clientHeight < 2)(document.getElementById('log'))"
    assert page.evaluate(at_end)
    run.lines += 20
    advance(run, page)
    assert page.evaluate(at_end)
    page.evaluate(
        "new Promise(done => { const log = document.getElementById('log');"
        "log.addEventListener('scroll', done, {once: true}); log.scrollTop = 40 })"
    )
    run.lines += 20
    advance(run, page)
    assert page.evaluate("document.getElementById('log').scrollTop") == 40


@pytest.mark.bad_input("D16")
def test_clocks_go_by_the_servers_time(page, run):
    """The server says it is ten minutes after the beginning of 2026, whatever the reader's clock says."""
    assert re.fullmatch(r"10:\d\d", page.text_content("#since"))
    assert re.fullmatch(r"23:(50:00|49:\d\d)", page.text_content("#until"))


def test_the_page_learns_of_what_happened_before_its_stream_was_open(page, run):
    run.stream = 503
    run.close_streams()
    page.wait_for_selector("html[data-link=asking]")
    run.stream, run.version = 200, run.version + 1
    page.wait_for_selector(f"text=version {run.version}")
