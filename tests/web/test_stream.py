"""The stream in a real server process, fed by the NOTIFY of a real PostgreSQL."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import httpx
import psycopg
import pytest

from runbook.stores import free_port
from upgrades.web import stream
from upgrades.web.stream import STREAMS_PER_USER, StreamRefused, Ticket, make_ticket, read_ticket, stream_url

pytestmark = pytest.mark.processes
ROOT = Path(__file__).resolve().parents[2]
SERVER = """
import sys, uvicorn
from upgrades.web import stream
stream.LIFETIME_SECONDS = float(sys.argv[2])
uvicorn.run(stream.stream, port=int(sys.argv[1]), lifespan=sys.argv[3], log_level="warning")
"""


@contextlib.contextmanager
def running_server(lifetime=300.0, lifespan="on"):
    """The address and the process of a server that answers; it is ended afterwards."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(port), str(lifetime), lifespan], cwd=ROOT)
    try:
        address = f"http://127.0.0.1:{port}"
        until = time.monotonic() + 30
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(address + "/", timeout=5)
                break
        yield address, process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def server():
    with running_server() as (address, _):
        yield address


@pytest.fixture
def database():
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        yield connection


@contextlib.contextmanager
def reading(address, path):
    """Iterates over (event, number) pairs of an open stream."""
    with httpx.stream("GET", address + path, timeout=20) as answer:
        assert answer.status_code == 200, answer.read()
        yield events_of(answer)


def events_of(answer):
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, int(line.removeprefix("data: "))


def without_beats(events):
    return (event for event in events if event[0] != "beat")


def notify(database, *payloads):
    """All in one transaction, as a writer does it."""
    with database.transaction():
        for payload in payloads:
            database.execute("SELECT pg_notify('runbook', %s)", [payload])


def status(address, path, method="GET"):
    with httpx.stream(method, address + path, timeout=20) as answer:
        return answer.status_code


def test_both_readers_of_a_run_hear_of_its_new_version(server, database):
    with (
        reading(server, stream_url("run", 7, 1)) as first,
        reading(server, stream_url("run", 7, 2)) as second,
    ):
        notify(database, "run:7:42")
        assert next(without_beats(first)) == ("version", 42)
        assert next(without_beats(second)) == ("version", 42)


def test_a_reader_hears_only_of_what_the_ticket_names(server, database):
    with reading(server, stream_url("environment", 3, 1)) as events:
        notify(database, "run:3:9", "environment:4:8", "environment:3:7")
        assert next(without_beats(events)) == ("version", 7)


def test_the_newest_version_wins_and_older_ones_are_never_told(server, database):
    with reading(server, stream_url("run", 8, 1)) as events:
        heard = without_beats(events)
        notify(database, *(f"run:8:{version}" for version in range(1, 501)))
        told = [next(heard)[1]]
        while told[-1] < 500:
            told.append(next(heard)[1])
        notify(database, "run:8:3")
        notify(database, "run:8:501")
        told.append(next(heard)[1])
    assert told == sorted(set(told))
    assert told[-2:] == [500, 501]
    assert len(told) < 50


def test_a_payload_that_nobody_understands_stops_nothing(server, database):
    with reading(server, stream_url("run", 9, 1)) as events:
        notify(database, "run:9", "run:9:x", "run:9:1; DROP", "plan:9:1", "run:٣:1", "", "run:9:5")
        assert next(without_beats(events)) == ("version", 5)


def test_an_open_stream_says_first_that_it_is_alive_and_what_time_it_is(server):
    with reading(server, stream_url("run", 7, 1)) as events:
        name, at = next(events)
    assert name == "beat"
    assert abs(at / 1000 - time.time()) < 60


def test_headers_forbid_to_keep_or_hold_back_the_stream(server):
    with httpx.stream("GET", server + stream_url("run", 7, 1)) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["x-content-type-options"] == "nosniff"


def forged():
    ticket = make_ticket("run", 7, 1)
    return ticket[:-1] + ("A" if ticket[-1] != "A" else "B")


def expired():
    with mock.patch("django.core.signing.time.time", return_value=time.time() - 121):
        return make_ticket("run", 7, 1)


@pytest.mark.parametrize(
    "query",
    [
        pytest.param(lambda: "", id="none"),
        pytest.param(lambda: "?ticket=", id="empty"),
        pytest.param(lambda: "?ticket=" + forged(), id="forged"),
        pytest.param(lambda: "?ticket=" + expired(), id="expired"),
        pytest.param(lambda: "?ticket=" + make_ticket("run", 8, 1), id="of another run"),
        pytest.param(lambda: "?ticket=" + make_ticket("environment", 7, 1), id="of an environment"),
        pytest.param(
            lambda: f"?ticket={make_ticket('run', 7, 1)}&ticket={make_ticket('run', 7, 1)}", id="twice"
        ),
        pytest.param(lambda: "?ticket=%00%ff", id="not text"),
    ],
)
def test_without_a_good_ticket_nothing_is_told(server, query):
    assert status(server, "/stream/runs/7/" + query()) == 403


@pytest.mark.parametrize(
    "path", ["/", "/stream/runs/0/", "/stream/runs/7", "/stream/runs/٣/", "/stream/plans/7/"]
)
def test_other_paths_are_not_there(server, path):
    assert status(server, path) == 404


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "DELETE"])
def test_a_stream_can_only_be_read(server, method):
    assert status(server, stream_url("run", 7, 1), method) == 405


def test_a_user_has_a_limited_number_of_streams_and_gets_places_back(server, database):
    url = stream_url("run", 7, 55)
    with contextlib.ExitStack() as first_ones:
        streams = [first_ones.enter_context(reading(server, url)) for _ in range(STREAMS_PER_USER)]
        assert {next(events)[0] for events in streams} == {"beat"}
        assert status(server, url) == 429
        assert status(server, stream_url("run", 7, 56)) == 200
    until = time.monotonic() + 30
    while (now := status(server, url)) != 200 and time.monotonic() < until:
        continue  # the server learns of closed connections by itself
    assert now == 200


@pytest.mark.bad_input("AP08")
def test_of_two_hundred_streams_of_one_person_five_are_open_and_the_others_are_told_when_to_come_back(server):
    url = stream_url("run", 7, 57)
    with contextlib.ExitStack() as stack:
        first_ones = [stack.enter_context(reading(server, url)) for _ in range(STREAMS_PER_USER)]
        assert {next(events)[0] for events in first_ones} == {"beat"}
        with httpx.Client(base_url=server, timeout=20) as client:
            answers = [client.get(url) for _ in range(200 - STREAMS_PER_USER)]
        for answer in answers:
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "10")
            assert answer.text == (
                "5 live pages are open already. Close one, or let this one ask by itself.\n"
            )
        assert {next(events)[0] for events in first_ones} == {"beat"}


@pytest.mark.bad_input("AP08")
def test_a_reader_that_takes_nothing_is_dropped_and_its_place_is_free_again(monkeypatch):
    monkeypatch.setattr(stream, "SEND_SECONDS", 0.05)
    hub, sent = stream.Hub(), []

    async def read_nothing(message):
        sent.append(message["type"])
        if len(sent) > 1:
            await asyncio.Event().wait()

    async def never():
        return await asyncio.Event().wait()

    async def serve():
        with hub.client(Ticket("run", 7, 58)) as client:
            for version in range(1, 1001):
                client.offer(version)
            assert (hub.open_streams, client.version) == (1, 1000)
            await stream._serve(client, never, read_nothing)

    asyncio.run(asyncio.wait_for(serve(), 30))
    assert sent == ["http.response.start", "http.response.body"]  # a beginning, and one try of a beat
    assert hub.open_streams == 0


def test_a_user_who_lost_a_right_loses_the_stream_at_once(server, database):
    with reading(server, stream_url("run", 7, 61)) as lost, reading(server, stream_url("run", 7, 62)) as kept:
        assert {next(lost)[0], next(kept)[0]} == {"beat"}
        notify(database, "user:61:0")
        assert list(without_beats(lost)) == []
        notify(database, "run:7:77")
        assert next(without_beats(kept)) == ("version", 77)


def test_streams_end_when_the_database_is_lost_and_can_be_opened_again(server, database):
    with reading(server, stream_url("run", 7, 1)) as events:
        next(events)
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'runbook-stream'"
        )
        assert list(without_beats(events)) == []
    with reading(server, stream_url("run", 7, 1)) as events:
        notify(database, "run:7:100")
        assert next(without_beats(events)) == ("version", 100)


def test_a_stream_asks_for_a_new_ticket_when_its_time_is_over():
    with running_server(lifetime=0.1) as (address, _), reading(address, stream_url("run", 7, 1)) as events:
        assert [name for name, _ in without_beats(events)] == ["renew"]


@pytest.mark.parametrize("lifespan", ["on", "off"])
def test_the_server_ends_at_the_signal_although_streams_are_open(lifespan):
    with (
        running_server(lifespan=lifespan) as (address, process),
        reading(address, stream_url("run", 7, 1)) as events,
    ):
        next(events)
        process.send_signal(signal.SIGTERM)
        assert list(without_beats(events)) == []
        process.wait(timeout=30)


def test_the_module_needs_neither_settings_nor_a_database_to_be_imported():
    done = subprocess.run(
        [sys.executable, "-c", "import upgrades.web.stream"],
        cwd=ROOT,
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_ticket_says_who_may_hear_of_what():
    assert read_ticket(make_ticket("environment", 3, 5)) == Ticket("environment", 3, 5)


def test_a_refused_ticket_says_what_to_do():
    with pytest.raises(StreamRefused, match="Load the page again"):
        read_ticket(expired())
