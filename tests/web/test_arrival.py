"""What reaches the pages: no body that is not there yet, no half of one, and no header under the name of another."""

import asyncio
import hashlib
import http.client
import re
import socket
import threading
from contextlib import ExitStack, contextmanager

import httpx
import pytest
import uvicorn
from a2wsgi import WSGIMiddleware
from django.db import connections

from runbook.arrival import SMALL, WholeBodies
from runbook.stores import free_port

FORM = "application/x-www-form-urlencoded"


@contextmanager
def serving(application):
    """The port of the web server as it is deployed, in a thread."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(application, port=port, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
        assert thread.is_alive()
    try:
        yield port
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(timeout=30)


@pytest.fixture
def site(transactional_db, monkeypatch):
    """The whole application, on the database of the tests."""
    from runbook.asgi import application

    monkeypatch.setitem(connections["default"].settings_dict, "CONN_MAX_AGE", 0)
    with serving(application) as port:
        yield port


def begin(port, size, sent=b"", path="/sign-in/"):
    """A connection on which a body of `size` bytes was begun."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: csrf={'a' * 32}\r\nContent-Type: {FORM}\r\n"
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode() + sent)
    return connection


def answer_on(connection):
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer


def ask(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers={"Host": "127.0.0.1"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


@pytest.mark.parametrize("size", [1000, SMALL + 1], ids=["small", "large"])
def test_slow_bodies_of_strangers_take_no_thread_from_the_pages(site, settings, size):
    settings.BODY_SECONDS = 600
    with ExitStack() as held:
        for _ in range(3 * settings.WEB_THREADS):
            held.enter_context(begin(site, size, b"username=nina"))
        assert [ask(site, path) for path in ("/healthz", "/sign-in/")] == [200, 200]


def test_a_body_that_does_not_come_in_time_is_answered_408_with_all_headers(site, settings):
    settings.BODY_SECONDS = 0.2
    with begin(site, 1000, b"username=nina") as connection:
        answer = answer_on(connection)
        assert (answer.status, answer.headers["Connection"]) == (408, "close")
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "Nothing was done" in answer.read().decode()
        assert connection.recv(1) == b""


def test_a_body_that_says_it_is_too_large_is_not_waited_for(site, settings):
    settings.BODY_SECONDS = 600
    with begin(site, settings.EVIDENCE_MAX_BYTES + 2 * 1024 * 1024) as connection:
        assert answer_on(connection).status == 413


def test_a_header_with_underscores_is_not_the_one_with_hyphens(site, settings):
    """WSGI has one name for both, and joins them: a client would choose its own address."""
    settings.ALLAUTH_TRUSTED_PROXY_COUNT = 1
    settings.ACCOUNT_RATE_LIMITS = {"login": "", "login_failed": "3/15m/ip"}
    with httpx.Client(base_url=f"http://127.0.0.1:{site}", trust_env=False, timeout=60) as browser:
        for number in range(6):
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', browser.get("/sign-in/").text)
            answer = browser.post(
                "/sign-in/",
                data={
                    "username": f"name-{number}",
                    "password": "wrong",
                    "csrfmiddlewaretoken": token[1],
                },
                headers=[("X-Forwarded-For", "198.51.100.7"), ("X_Forwarded_For", f"203.0.113.{number}")],
            )
    assert "too many wrong attempts" in answer.text


# Bodies with a page of our own behind them, which tells what it was given.


@pytest.fixture
def seen():
    return []


@pytest.fixture
def echo(seen):
    def page(environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH", 0)))
        seen.append((environ["PATH_INFO"], hashlib.sha256(body).hexdigest()))
        start_response("200 OK", [])
        return [b""]

    return WholeBodies(WSGIMiddleware(page, workers=1), large_at_once=1)


@pytest.mark.parametrize("size", [1, SMALL, SMALL + 1, 3_000_000])
def test_a_page_gets_every_byte(echo, seen, size):
    body = bytes(number % 251 for number in range(size))
    with serving(echo) as port, begin(port, size, body) as connection:
        assert answer_on(connection).status == 200
    assert seen == [("/sign-in/", hashlib.sha256(body).hexdigest())]


def scope(size):
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": f"/{size}",
        "query_string": b"",
        "headers": [(b"content-length", str(size).encode())],
    }


def test_a_slow_line_has_the_time_that_its_bytes_need(echo, seen, settings):
    settings.BODY_SECONDS, settings.BODY_RATE = 0.3, 1
    pieces = [b"x" * 100] * 5

    async def receive():
        await asyncio.sleep(0.15)
        pieces.pop()
        return {"type": "http.request", "body": b"x" * 100, "more_body": bool(pieces)}

    async def send(_):
        pass

    asyncio.run(echo(scope(500), receive, send))
    assert seen == [("/500", hashlib.sha256(b"x" * 500).hexdigest())]


@pytest.mark.parametrize(
    "end", [{"type": "http.disconnect"}, {"type": "http.request", "body": b"", "more_body": False}]
)
def test_a_body_that_breaks_off_reaches_no_page(echo, seen, end):
    messages = [{"type": "http.request", "body": b"half", "more_body": True}, end]

    async def receive():
        return messages.pop(0)

    async def send(message):
        raise AssertionError(message)

    asyncio.run(echo(scope(8), receive, send))
    assert seen == []


def test_large_bodies_wait_for_each_other_and_small_ones_for_none(echo, seen, settings):
    settings.BODY_SECONDS = 600
    with serving(echo) as port, ExitStack() as held:
        first = held.enter_context(begin(port, SMALL + 1, b"x"))
        small = held.enter_context(begin(port, 1, b"z", "/small"))
        assert answer_on(small).status == 200  # by now the first has the one place
        second = held.enter_context(begin(port, SMALL + 2, b"y" * (SMALL + 2), "/second"))
        small = held.enter_context(begin(port, 2, b"zz", "/small-too"))
        assert answer_on(small).status == 200
        assert [path for path, _ in seen] == ["/small", "/small-too"]
        first.sendall(b"x" * SMALL)
        assert answer_on(first).status == 200
        assert answer_on(second).status == 200
    assert [path for path, _ in seen] == ["/small", "/small-too", "/sign-in/", "/second"]


def test_a_large_body_for_which_there_is_no_room_is_answered_503(site, monkeypatch):
    class Full:
        def __init__(self, **_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def write(self, _):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("runbook.arrival.tempfile.SpooledTemporaryFile", Full)
    with begin(site, 4, b"a=b&") as connection:
        answer = answer_on(connection)
        assert answer.status == 503
        assert "had no room" in answer.read().decode()
