"""A real agent, asked over HTTP by the real client."""

import asyncio
import http.client
import json
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest

from agent import configuration, messages, server
from agent.messages import Cursor
from tests.agent.conftest import ROOT, SECRET, agent_configuration, ask, new_client
from upgrades.adapters.agent_client import AgentTrouble

pytestmark = pytest.mark.processes
TLS = Path(__file__).with_name("tls")


def raw(running, path, query="", *, age=0.0, nonce=None, secret=SECRET, key_id="k1", **headers):
    """A signed question of which any part can be changed; the answer as it came."""
    nonce = nonce or secrets.token_hex(16)
    signed = messages.request_headers(
        secret, running.address.agent, key_id, path, query, time.time() - age, nonce
    )
    with httpx.Client(trust_env=False, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as client:
        url = running.address.url + path + ("?" + query if query else "")
        return client.get(url, headers={**signed, **{k.replace("_", "-"): v for k, v in headers.items()}})


def code(response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


async def is_busy(client, running) -> bool:
    """Whether as many questions are being answered as the agent answers at once."""
    try:
        await client.health(running.address)
    except AgentTrouble as trouble:
        return trouble.cause == "busy"
    return False


def test_health_tells_who_answers(running):
    found = ask(running.address, "health")

    assert found.applications == ("confserv",)
    assert found.origin.agent == "fra-cfg-01"
    assert abs(found.origin.skew) < 60


def test_a_listing_and_a_poll_fit_together(running):
    running.write("confserv", "one\ntwo\nhalf")
    file = ask(running.address, "logs").applications["confserv"].files[0]
    running.write("confserv", " a line\nthree\n")
    cursor = Cursor("confserv", file.file, file.whole)

    news = ask(running.address, "poll", applications=["confserv"], cursors=[cursor])

    part = news.applications["confserv"].files[0]
    assert (file.whole, file.size, file.first) == (8, 12, "one")
    assert (part.start, part.end, part.data) == (8, 26, b"half a line\nthree\n")
    assert part.cursor("confserv").offset == 26


def test_a_poll_without_news_brings_none(running):
    running.write("confserv", "one\n")
    part = ask(running.address, "poll").applications["confserv"].files[0]

    news = ask(
        running.address, "poll", applications=["confserv"], cursors=[part.cursor("confserv")], wait=0.2
    )

    assert news.applications["confserv"].files == ()
    assert news.applications["confserv"].complete


def test_polls_wait_together_and_a_fifth_question_is_told_to_come_again(running):
    async def watch():
        async with new_client() as client:
            polls = [asyncio.create_task(client.poll(running.address, wait=25)) for _ in range(4)]
            while not await is_busy(client, running):
                pass
            running.write("confserv", "news\n")
            async with asyncio.timeout(15):
                return await asyncio.gather(*polls)

    assert [news.applications["confserv"].files[0].data for news in asyncio.run(watch())] == [b"news\n"] * 4


def test_a_poller_that_went_away_leaves_its_place(running):
    async def watch():
        for _ in range(3):
            async with new_client() as client:
                polls = [asyncio.create_task(client.poll(running.address, wait=25)) for _ in range(4)]
                await asyncio.wait(polls, timeout=0.1)
                for poll in polls:
                    poll.cancel()
                await asyncio.wait(polls)
        async with new_client() as client, asyncio.timeout(15):
            while await is_busy(client, running):
                pass
            return await client.health(running.address)

    assert asyncio.run(watch()).applications == ("confserv",)


def test_another_state_of_the_process_is_news(running):
    news = ask(running.address, "poll", processes={"confserv": "up"}, applications=["confserv"], wait=25)

    assert news.applications["confserv"].process.state == "down"


def test_a_restart_changes_the_boot_and_nothing_else(start_agent):
    first = start_agent("confserv")
    first.write("confserv", "one\ntwo\n")
    before = ask(first.address, "poll")
    assert first.end() == 0
    second = start_agent("confserv")

    after = ask(second.address, "poll")

    assert after.applications == before.applications
    assert after.origin.boot != before.origin.boot


def test_a_large_backlog_comes_in_pieces_that_join(running):
    content = b"".join(b"%08d a line of the log\n" % number for number in range(60_000))
    running.write("confserv", content)
    received, cursors = b"", []
    while (
        files := ask(running.address, "poll", applications=["confserv"], cursors=cursors)
        .applications["confserv"]
        .files
    ):
        assert len(files[0].data) <= messages.DATA_LIMIT
        received += files[0].data
        cursors = [files[0].cursor("confserv")]

    assert received == content


def test_a_line_beyond_64_kib_is_cut_with_its_hash(running):
    running.write("confserv", b"x" * (messages.LINE_LIMIT + 5) + b"\nafter\n")

    part = ask(running.address, "poll").applications["confserv"].files[0]

    assert part.data == b"x" * messages.LINE_LIMIT + b"\nafter\n"
    assert [(cut.offset, cut.length) for cut in part.cuts] == [(messages.LINE_LIMIT, 5)]


def test_probes_over_the_wire(running):
    current = Path(running.configuration["applications"][0]["folders"]["current"])
    (current / "confserv.conf").write_text("[confserv]\n")
    (current / "run.sh").write_text("./confserv -s confserv\n")
    (current / "server.pid").write_text(str(running.process.pid))

    process = ask(running.address, "probe_process", "confserv")
    folder = ask(running.address, "probe_folder", "confserv", "current")
    names = ask(running.address, "probe_names", "confserv", "current")
    digest = ask(running.address, "probe_hash", "confserv", "current", "run.sh")

    assert (process.state, process.pid) == ("up", running.process.pid)
    assert (folder.exists, folder.entries) == (True, 3)
    assert (names.sections, names.start_name, names.application) == (("confserv",), "confserv", "confserv")
    assert digest.size == 23
    assert not ask(running.address, "probe_folder", "confserv", "kept").exists
    assert ask(running.address, "probe_hash", "confserv", "current", "no").sha256 is None


@pytest.mark.parametrize(
    ("question", "values"),
    [
        ("logs", (["other"],)),
        ("probe_process", ("other",)),
        ("probe_folder", ("confserv", "log")),
        ("probe_folder", ("confserv", "../log")),
        ("probe_folder", ("confserv", "/etc")),
        *(
            ("probe_hash", ("confserv", "current", name))
            for name in (
                "../../agent.json",
                "/etc/passwd",
                "a\x00b",
                "\\\\host\\share\\x",
                "C:\\x",
                "NUL",
                "..",
                "",
            )
        ),
    ],
)
def test_what_is_not_configured_is_refused(running, question, values):
    with pytest.raises(AgentTrouble) as caught:
        ask(running.address, question, *values)

    assert caught.value.cause == "refused"


@pytest.mark.parametrize(
    "query",
    [
        "cursor=confserv:%2Fetc%2Fpasswd:0",
        "cursor=other:fe00-20e092-812702a1550d251a:0",
        "cursor=confserv:1-1-812702a1550d251a:0&cursor=confserv:1-1-812702a1550d251a:1",
        "wait=26",
        "wait=-1",
        "wait=nan",
        "wait=1&wait=1",
        "process=confserv:odd",
        "path=%2Fetc%2Fpasswd",
    ],
)
def test_a_poll_that_is_not_understood_is_refused(running, query):
    assert raw(running, "/v1/poll", query).status_code in (400, 404)


@pytest.mark.parametrize(
    "path", ["/", "/v1/", "/v1/../etc/passwd", "/v2/health", "/v1/health/", "/v1/%2e%2e/x"]
)
def test_other_paths_are_refused(running, path):
    assert raw(running, path).status_code in (
        401,
        404,
    )  # 401: the client has tidied up the path before sending


def test_an_unsigned_question_is_refused_and_the_refusal_is_not_signed(running):
    response = raw(running, "/v1/health", secret="00" * 32)

    assert code(response) == (401, "signature")
    assert messages.SIGNATURE_HEADER not in response.headers
    assert "confserv" not in response.text


@pytest.mark.parametrize(
    "changed",
    [
        {messages.AGENT_HEADER: "fra-cfg-02"},
        {messages.KEY_HEADER: "k2"},
        {messages.NONCE_HEADER: "00" * 16},
        {messages.NONCE_HEADER: "0"},
        {messages.TIME_HEADER: "1"},
        {messages.TIME_HEADER: "nan"},
        {messages.SIGNATURE_HEADER: ""},
    ],
)
def test_a_question_changed_on_its_way_is_refused(running, changed):
    assert code(raw(running, "/v1/health", **changed)) == (401, "signature")


def test_another_version_is_refused(running):
    assert code(raw(running, "/v1/health", **{messages.VERSION_HEADER: "v1; DROP"})) == (400, "version")


def test_a_question_is_answered_once(running):
    nonce = "ab" * 16

    assert raw(running, "/v1/health", nonce=nonce).status_code == 200
    assert code(raw(running, "/v1/health", nonce=nonce)) == (401, "replay")


@pytest.mark.parametrize("age", [400, -400])
def test_clocks_that_differ_too_much_are_told(running, age):
    response = raw(running, "/v1/health", age=age)

    assert code(response) == (401, "clock")
    assert "clocks of server and agent differ by" in response.json()["error"]["message"]
    with pytest.raises(AgentTrouble, match="clock") as caught:
        ask(running.address, "health", client={"now": lambda: time.time() - age})
    assert caught.value.cause == "wrong-clock"


def test_both_keys_hold_during_a_rotation(start_agent):
    agent = start_agent(
        "confserv", change=lambda value: value["keys"].append({"id": "k2", "secret": "0a" * 32})
    )

    for address in (agent.address, replace(agent.address, key_id="k2", secret="0a" * 32)):
        assert ask(address, "health").applications == ("confserv",)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE"])
def test_only_get_is_answered(running, method):
    with httpx.Client(trust_env=False, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as client:
        assert client.request(method, running.address.url + "/v1/health").status_code == 405


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /v1/health\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET " + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\r\n",
    ],
)
def test_what_is_no_question_does_the_agent_no_harm(running, sent):
    port = int(running.address.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        try:
            while connection.recv(65536):
                pass
        except ConnectionResetError:
            pass

    assert ask(running.address, "health").applications == ("confserv",)


def test_a_head_that_is_too_long_is_not_read_to_its_end(running):
    """Nobody has proved yet who asks: 64 of them, each with a hundred long lines, would fill the host's memory."""
    port = int(running.address.url.rsplit(":", 1)[1])
    begun = b"GET / HTTP/1.1\r\n" + (b"A: " + b"x" * 1000 + b"\r\n") * 90
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(begun[: server.HEAD_LIMIT + 1])
        assert connection.recv(20).startswith(b"HTTP/1.1 431 ")


def test_the_longest_question_is_read_and_another_one_after_it(running):
    """Each question has the room of a head, however many the connection has brought."""
    port = int(running.address.url.rsplit(":", 1)[1])
    longest = b"GET /" + b"x" * (messages.QUERY_LIMIT - 1) + b" HTTP/1.1\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for _ in range(3):
            connection.sendall(longest)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert (answer.status, json.load(answer)["error"]["code"]) == (400, "version")


def test_a_host_with_very_many_log_files_is_followed(start_agent):
    """A server keeps its segments for weeks: the question that names them all does not fit into a line."""
    agent = start_agent("confserv", "proxy")
    for number in range(1000):
        agent.write("confserv", f"{number} {'x' * 200}\n", f"confserv.{number:04}.log")
    agent.write("proxy", "one\n")
    names = ["confserv", "proxy"]

    async def follow():
        cursors: dict[str, Cursor] = {}
        async with new_client() as client:

            async def poll():
                news = await client.poll(agent.address, applications=names, cursors=[*cursors.values()])
                parts = [(name, part) for name in names for part in news.applications[name].files]
                cursors.update({part.file: part.cursor(name) for name, part in parts})
                return [part.data for _, part in parts]

            while await poll():
                pass
            known = len(cursors)
            agent.write("confserv", "news\n", "confserv.0500.log")
            return known, await poll()

    assert asyncio.run(follow()) == (1001, [b"news\n"])


def test_a_listing_too_long_for_one_answer_is_asked_for_one_by_one(start_agent):
    agent = start_agent("confserv", "proxy")
    for name in agent.logs:
        for number in range(1900):
            agent.write(name, f"{number} {'x' * 160}\n", f"{name}.{'y' * 80}.{number:04}.log")

    found = ask(agent.address, "logs", ["confserv", "proxy"])

    assert {name: len(entry.files) for name, entry in found.applications.items()} == {
        "confserv": 1900,
        "proxy": 1900,
    }
    with pytest.raises(AgentTrouble, match="too large"):
        ask(agent.address, "logs")


def post(body: bytes, *, path="/v1/poll", signed_body=None, nonce=None, secret=SECRET, **changed) -> bytes:
    """A poll whose query is its body, as it stands on the wire."""
    headers = messages.request_headers(
        secret, "fra-cfg-01", "k1", path, "", time.time(), nonce or secrets.token_hex(16), signed_body or body
    )
    headers.update({"Content-Length": str(len(body)), **changed})
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items() if value)]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answers_to(running, *questions: bytes) -> list[tuple[int, str]]:
    """Status and code of each answer, all over one connection; (0, "") where it ended instead."""
    port, found = int(running.address.url.rsplit(":", 1)[1]), []
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for question in questions:
            try:
                connection.sendall(question)
                answer = http.client.HTTPResponse(connection)
                answer.begin()
                value = json.load(answer)
            except (OSError, http.client.BadStatusLine):
                found.append((0, ""))
            else:
                found.append((answer.status, value["error"]["code"] if "error" in value else ""))
    return found


def test_a_body_of_somebody_without_the_key_is_not_kept_and_the_connection_goes_on(running):
    strange = post(b"application=confserv&" + b"x" * 400_000, secret="0b" * 32)

    assert answers_to(running, strange, post(b"application=confserv")) == [(401, "signature"), (200, "")]


def test_a_question_in_a_body_is_answered_once(running):
    question = post(b"application=confserv", nonce="0c" * 16)

    assert answers_to(running, question, question) == [(200, ""), (401, "replay")]


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        pytest.param(partial(post, b"wait=2", signed_body=b"wait=1"), (400, "body"), id="another body"),
        pytest.param(partial(post, b"wait=1", **{"Content-Length": ""}), (400, "body"), id="no length"),
        pytest.param(
            partial(post, b"wait=1", **{"Content-Length": "-1"}), (400, "body"), id="a length below 0"
        ),
        pytest.param(
            partial(post, b"wait=1", **{"Transfer-Encoding": "chunked"}), (400, "body"), id="in chunks"
        ),
        pytest.param(
            partial(post, b"wait=1", **{"Content-Length": "1048577"}), (413, "too-large"), id="too long"
        ),
        pytest.param(partial(post, b"wait=\xff"), (400, "query"), id="not ASCII"),
        pytest.param(partial(post, b"path=/etc/passwd"), (400, "query"), id="another name"),
        pytest.param(partial(post, b"wait=1", path="/v1/logs"), (405, "http"), id="another question"),
        pytest.param(
            partial(post, b"wait=1", **{messages.CONTENT_HEADER: ""}), (401, "signature"), id="no hash"
        ),
    ],
)
def test_a_body_that_is_no_question_is_refused(running, sent, answer):
    assert answers_to(running, sent()) == [answer]
    assert ask(running.address, "health").applications == ("confserv",)


def test_half_a_body_ends_with_its_connection(running):
    port = int(running.address.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(post(b"application=confserv")[:-5])
        connection.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, json.load(answer)["error"]["code"]) == (400, "body")

    assert ask(running.address, "health").applications == ("confserv",)


def test_a_poll_under_way_ends_with_the_agent(running):
    async def watch():
        async with new_client() as client:
            polls = [asyncio.create_task(client.poll(running.address, wait=25)) for _ in range(4)]
            while not await is_busy(client, running):
                pass
            running.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(15):
                return await asyncio.gather(*polls)

    assert [news.applications["confserv"].files for news in asyncio.run(watch())] == [()] * 4
    assert running.process.wait(timeout=20) == 0


def test_the_one_file_form_answers_like_the_package(start_agent, tmp_path):
    archive = tmp_path / "runbook-agent.pyz"
    subprocess.run([sys.executable, "-m", "zipapp", "agent", "-o", str(archive)], cwd=ROOT, check=True)

    agent = start_agent("confserv", command=("-I", str(archive)))
    agent.write("confserv", "one\n")

    assert ask(agent.address, "poll").applications["confserv"].files[0].data == b"one\n"
    assert agent.end() == 0


def test_over_tls_only_a_trusted_certificate_is_accepted(start_agent):
    files = {"certificate": str(TLS / "localhost.pem"), "key": str(TLS / "localhost.key")}
    agent = start_agent("confserv", change=lambda value: value.update(tls=files))
    assert agent.address.url.startswith("https://")

    trusting = ssl.create_default_context(cafile=str(TLS / "localhost.pem"))
    assert ask(agent.address, "health", client={"tls": trusting}).applications == ("confserv",)
    with pytest.raises(AgentTrouble, match="certificate") as caught:
        ask(agent.address, "health", client={"tls": ssl.create_default_context()})
    assert caught.value.cause == "unreachable"


@pytest.fixture
def impatient(tmp_path, monkeypatch):
    """An agent within this process that waits for a question a moment only; its port."""
    monkeypatch.setattr(server, "PATIENCE", 0.2)
    parsed = configuration.parse(json.dumps(agent_configuration(tmp_path, "confserv")).encode())
    serving = server.Server(server.Agent(parsed))
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield serving.server_port
    serving.shutdown()
    thread.join()
    serving.server_close()


def test_a_question_that_drips_in_does_not_keep_its_connection(impatient):
    with socket.create_connection(("127.0.0.1", impatient), timeout=0.02) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        while True:  # until the agent ends it
            try:
                connection.sendall(b"A")
                if not connection.recv(1):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break


def test_connections_beyond_the_bound_are_closed_and_the_others_served(running):
    port = int(running.address.url.rsplit(":", 1)[1])
    connections = [
        socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(server.CONNECTIONS + 1)
    ]
    try:
        assert connections[-1].recv(1) == b""
        connections.pop(0).close()
        while True:
            try:
                assert ask(running.address, "health").applications == ("confserv",)
                break
            except AgentTrouble:
                continue  # the agent has not noticed yet that a place became free
    finally:
        for connection in connections:
            connection.close()


def test_a_client_that_does_not_shake_hands_keeps_nobody_waiting(start_agent):
    files = {"certificate": str(TLS / "localhost.pem"), "key": str(TLS / "localhost.key")}
    agent = start_agent("confserv", change=lambda value: value.update(tls=files))
    trusting = ssl.create_default_context(cafile=str(TLS / "localhost.pem"))

    with socket.create_connection(("127.0.0.1", int(agent.address.url.rsplit(":", 1)[1]))):
        assert ask(agent.address, "health", client={"tls": trusting}).applications == ("confserv",)


def test_an_agent_killed_while_it_waits_is_unreachable(running):
    async def watch():
        async with new_client() as client:
            polls = [asyncio.create_task(client.poll(running.address, wait=25)) for _ in range(4)]
            while not await is_busy(client, running):
                pass
            running.process.kill()
            return await asyncio.gather(*polls, return_exceptions=True)

    assert {trouble.cause for trouble in asyncio.run(watch())} == {"unreachable"}


def test_an_agent_that_ended_is_unreachable(running):
    running.end()

    with pytest.raises(AgentTrouble) as caught:
        ask(running.address, "health")

    assert caught.value.cause == "unreachable"
