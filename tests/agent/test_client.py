"""The client before servers that are wrong, broken or hostile."""

import asyncio
import base64
import contextlib
import gzip
import json
import time
from dataclasses import dataclass

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import messages
from agent.messages import Cursor
from tests.agent.conftest import SECRET, new_client
from upgrades.adapters.agent_client import AgentAddress, AgentTrouble

FILE = "fe00-20e092-812702a1550d251a"
OTHER = "fe00-20e093-812702a1550d251b"
CURSOR = Cursor("confserv", FILE, 8)


@dataclass
class Received:
    """A question as the server got it."""

    target: str
    headers: dict[str, str]

    @property
    def nonce(self) -> str:
        return self.headers["runbook-nonce"]


def signed(
    question: Received, body: bytes, *, status=200, agent="fra-cfg-01", nonce=None, secret=SECRET, extra=()
):
    """A whole HTTP answer with the signature of the agent (or of whom the arguments say)."""
    headers = messages.reply_headers(
        secret, agent, "k1", nonce or question.nonce, status, "0" * 16, time.time(), body
    )
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += list(extra)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def plain(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def news(**changes) -> dict:
    """The answer to a poll with CURSOR, with one part changed."""
    part = {
        "file": FILE,
        "name": "confserv.log",
        "size": 16,
        "from": 8,
        "to": 12,
        "data": base64.b64encode(b"two\n").decode(),
        "partial": False,
        "cuts": [],
        "mark": "",
        "state": "open",
        "reason": "",
        **changes,
    }
    process = {"state": "up", "reason": ""}
    return {
        "applications": {"confserv": {"process": process, "files": [part], "complete": True, "trouble": []}}
    }


def meet(answer, question="poll", *, deadline=10.0, times=1, url="", **more):
    """Asks a server that answers each question with `answer(received)`: bytes, or pieces of them as they come."""

    async def serve(reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().split("\r\n")
                received = Received(
                    first.split(" ")[1],
                    {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)},
                )
                found = answer(received)
                if isinstance(found, bytes):
                    writer.write(found)
                    await writer.drain()
                else:
                    async for piece in found:
                        writer.write(piece)
                        await writer.drain()
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has had enough
        finally:
            writer.close()

    async def run():
        if question == "poll":
            more.setdefault("applications", ["confserv"])
            more.setdefault("cursors", [CURSOR])
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        address = AgentAddress("fra-cfg-01", url or f"http://127.0.0.1:{port}", "k1", SECRET)
        async with server, new_client(deadline=deadline) as client:
            for _ in range(times - 1):
                await getattr(client, question)(address, **more)
            return await getattr(client, question)(address, **more)

    return asyncio.run(run())


def trouble(*arguments, **more) -> AgentTrouble:
    with pytest.raises(AgentTrouble) as caught:
        meet(*arguments, **more)
    return caught.value


def reply(value, **how):
    """A server that answers everything with this value, well signed."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return lambda question: signed(question, body, **how)


def test_a_right_answer_is_read():
    part = meet(reply(news())).applications["confserv"].files[0]

    assert (part.start, part.end, part.data, part.state) == (8, 12, b"two\n", "open")
    assert part.cursor("confserv") == Cursor("confserv", FILE, 12)


def test_the_question_asks_for_no_encoding_and_has_no_secret():
    seen = []

    def answer(question):
        seen.append(question)
        return signed(question, json.dumps(news()).encode())

    meet(answer)

    assert seen[0].headers["accept-encoding"] == "identity"
    assert SECRET not in seen[0].target + str(seen[0].headers)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(plain(404, b"not here"), id="404"),
        pytest.param(plain(200, b"<html>Welcome</html>", "Content-Type: text/html"), id="A01 HTML"),
        pytest.param(plain(200, b""), id="A01 empty"),
        pytest.param(plain(204, b""), id="A01 204"),
        pytest.param(plain(200, json.dumps(news()).encode()), id="A09 not signed"),
        pytest.param(plain(500, b"Traceback"), id="A20 500"),
    ],
)
@pytest.mark.bad_input("A01", "A09", "A20")
def test_an_unsigned_answer_is_not_from_the_agent(answer):
    found = trouble(lambda _: answer)

    assert found.cause == "not-from-the-agent"
    assert "Welcome" not in str(found)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"secret": "00" * 32}, id="A09 another secret"),
        pytest.param({"agent": "fra-cfg-02"}, id="F28 another agent"),
        pytest.param({"nonce": "00" * 16}, id="A09 another question's answer"),
    ],
)
@pytest.mark.bad_input("A09")
def test_an_answer_with_another_signature_is_not_from_the_agent(how):
    assert trouble(reply(news(), **how)).cause == "not-from-the-agent"


@pytest.mark.bad_input("A09")
def test_a_replayed_answer_is_not_from_the_agent():
    kept = []

    def answer(question):
        kept.append(signed(question, json.dumps(news()).encode()))
        return kept[0]

    assert trouble(answer, times=2).cause == "not-from-the-agent"


@pytest.mark.parametrize(
    ("sent", "arrived"), [(b'"partial": false', b'"partial": true '), (b'"to": 12', b'"to": 13')]
)
def test_an_answer_changed_on_its_way_is_not_from_the_agent(sent, arrived):
    def answer(question):
        whole = signed(question, json.dumps(news()).encode())
        assert sent in whole
        return whole.replace(sent, arrived)

    assert trouble(answer).cause == "not-from-the-agent"


@pytest.mark.bad_input("A20")
def test_a_status_changed_on_its_way_is_not_from_the_agent():
    def answer(question):
        return signed(question, json.dumps(news()).encode()).replace(b"HTTP/1.1 200", b"HTTP/1.1 500", 1)

    assert trouble(answer).cause == "not-from-the-agent"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"null", id="A01 null"),
        pytest.param(b"[]", id="A01 list"),
        pytest.param(b"", id="A01 empty"),
        pytest.param(b"{}", id="other keys"),
        pytest.param(b'{"applications":{},"applications":{}}', id="A02 a key twice"),
        pytest.param(b'{"applications":NaN}', id="A03 NaN"),
        pytest.param(b'{"applications":1e400}', id="A03 1e400"),
        pytest.param(b'{"applications":' + b"[" * 200_000, id="A04 nested"),
        pytest.param(b'{"applications":{"confserv":', id="F27 cut off"),
        pytest.param(b"\xff\xfe{}", id="not UTF-8"),
        pytest.param({"applications": {}}, id="nothing of what was asked"),
        pytest.param(
            {"applications": {"other": news()["applications"]["confserv"]}}, id="F28 another application"
        ),
        pytest.param({**news(), "more": 1}, id="more than the format has"),
    ],
)
@pytest.mark.bad_input("A01", "A02", "A03", "A04")
def test_a_signed_answer_that_is_no_answer_is_nonsense(body):
    assert trouble(reply(body)).cause == "nonsense"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"from": 0, "to": 4}, id="A10 before the cursor"),
        pytest.param({"from": 9, "to": 13}, id="A10 a hole"),
        pytest.param({"from": -8}, id="A10 negative"),
        pytest.param({"from": "8"}, id="A10 a text"),
        pytest.param({"from": 8.0}, id="A10 a fraction"),
        pytest.param({"from": True}, id="A10 true"),
        pytest.param({"to": 2**63}, id="A10 beyond 64 bits"),
        pytest.param({"to": 13}, id="more offsets than bytes"),
        pytest.param({"to": 11}, id="fewer offsets than bytes"),
        pytest.param({"size": 10}, id="beyond the file"),
        pytest.param({"file": OTHER}, id="A13 from a place that nobody asked for"),
        pytest.param({"file": "../../etc/passwd"}, id="A13 a path"),
        pytest.param({"name": "a\ud800"}, id="L03 a lone surrogate"),
        pytest.param({"name": "a\x00"}, id="L01 NUL"),
        pytest.param({"data": "dHdvCg"}, id="A16 no padding"),
        pytest.param({"data": "dHdv\nCg=="}, id="A16 a line break"),
        pytest.param({"data": "dHdvCh=="}, id="A16 another spelling"),
        pytest.param({"data": "dHdv"}, id="not whole lines"),
        pytest.param({"partial": True}, id="partial, but with a line's end"),
        pytest.param({"partial": 0}, id="partial is a number"),
        pytest.param({"mark": "x"}, id="mark"),
        pytest.param({"state": "closed"}, id="state"),
        pytest.param({"state": "gone"}, id="gone with data"),
        pytest.param({"cuts": [{"offset": 9, "length": 1, "sha256": "0" * 64}]}, id="a cut too many"),
        pytest.param(
            {"to": 13, "cuts": [{"offset": 20, "length": 1, "sha256": "0" * 64}]}, id="a cut outside"
        ),
        pytest.param({"to": 13, "cuts": [{"offset": 9, "length": 1, "sha256": "0"}]}, id="a cut's hash"),
        pytest.param(
            {"to": 16, "cuts": [{"offset": 9, "length": 2, "sha256": "0" * 64}] * 2}, id="cuts that overlap"
        ),
    ],
)
@pytest.mark.bad_input("A10", "A13", "A16")
def test_a_part_that_does_not_fit_the_question_is_nonsense(changes):
    assert trouble(reply(news(**changes))).cause == "nonsense"


def test_a_file_that_shrank_without_being_asked_for_is_nonsense():
    changes = {"file": OTHER, "from": 0, "to": 0, "data": "", "state": "shrunk"}

    assert trouble(reply(news(**changes))).cause == "nonsense"


def test_the_same_file_twice_is_nonsense():
    value = news()
    value["applications"]["confserv"]["files"] *= 2

    assert trouble(reply(value)).cause == "nonsense"


@pytest.mark.bad_input("A17")
def test_another_version_is_told():
    found = trouble(lambda question: signed(question, b"{}").replace(b"Version: 1", b"Version: 2"))

    assert (found.cause, "version" in str(found)) == ("nonsense", True)


@pytest.mark.bad_input("A12")
def test_a_huge_answer_is_cut_off():
    sent = []

    async def pieces(question):
        yield signed(question, b"").replace(b"Content-Length: 0", b"Content-Length: 200000000")
        for _ in range(200):
            sent.append(1)
            yield b" " * 1_000_000

    assert trouble(pieces).cause == "too-large"
    assert len(sent) < 100


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "gzip, gzip"])
@pytest.mark.bad_input("A05")
def test_a_compressed_answer_is_refused_unread(encoding):
    bomb = gzip.compress(bytes(20_000_000))

    found = trouble(lambda question: signed(question, bomb, extra=[f"Content-Encoding: {encoding}"]))

    assert found.cause == "nonsense"
    assert "compressed" in str(found)


async def _drip(start: bytes):
    yield start
    while True:
        await asyncio.sleep(0.01)
        yield b" "


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(lambda question: b"HTTP/1.1 200 OK\r\nX: ", id="A07 in the head"),
        pytest.param(
            lambda question: signed(question, b"").replace(b"Length: 0", b"Length: 9999"),
            id="A07 in the body",
        ),
    ],
)
@pytest.mark.bad_input("A07")
def test_an_answer_that_drips_is_given_up(start):
    found = trouble(lambda question: _drip(start(question)), deadline=0.3)

    assert found.cause == "too-slow"


def test_a_server_that_says_nothing_is_given_up():
    async def silence():
        await asyncio.sleep(60)
        yield b""

    assert trouble(lambda _: silence(), deadline=0.2).cause == "too-slow"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.bad_input("A08")
def test_a_redirection_is_not_followed(status):
    asked = []

    def answer(question):
        asked.append(question.target)
        return plain(status, b"", "Location: /elsewhere")

    assert trouble(answer).cause == "redirected"
    assert len(asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.9\r\n\r\n", id="not HTTP"),
        pytest.param(b"HTTP/1.1 200 X\r\nContent-Length: -5\r\n\r\n", id="A06 negative"),
        pytest.param(
            b"HTTP/1.1 200 X\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", id="A06 twice"
        ),
        pytest.param(b"HTTP/1.1 200 X\r\nA: " + b"x" * 1_000_000 + b"\r\n\r\n", id="A07 a header of 1 MB"),
        pytest.param(b"HTTP/1.1 200 X\r\n" + b"A: b\r\n" * 100_000 + b"\r\n", id="A07 100,000 headers"),
    ],
)
@pytest.mark.bad_input("A06", "A07")
def test_what_is_not_http_is_nonsense(answer):
    assert trouble(lambda _: answer).cause == "nonsense"


def test_an_answer_that_breaks_off_is_nonsense():
    async def pieces(question):
        yield signed(question, json.dumps(news()).encode())[:-5]

    assert trouble(pieces).cause == "nonsense"


@pytest.mark.parametrize(
    ("code", "status", "cause"),
    [
        ("clock", 401, "wrong-clock"),
        ("busy", 429, "busy"),
        ("too-large", 413, "too-large"),
        ("application", 404, "refused"),
        ("never heard of", 418, "refused"),
        (["x"], 400, "refused"),
    ],
)
@pytest.mark.bad_input("A20")
def test_a_signed_refusal_is_told_in_our_words(code, status, cause):
    body = {"error": {"code": code, "message": "SECRET OF THE OTHER SIDE"}}

    found = trouble(reply(body, status=status))

    assert found.cause == cause
    assert "SECRET" not in str(found)


@pytest.mark.parametrize("value", [None, [], {"error": 5}, {"error": {}}])
def test_a_refusal_without_a_code_is_a_refusal(value):
    assert trouble(reply(value, status=500)).cause == "refused"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h:1",
        "http://user:pw@127.0.0.1:1",
        "http://h:1/path",
        "http://h:1?q",
        "http://h#f",
        "h:1",
        "http://h h:1",
    ],
)
def test_an_address_of_another_form_is_refused(url):
    assert trouble(reply(news()), url=url).cause == "refused"


def test_too_many_cursors_for_one_question_are_refused_before_it_is_sent():
    cursors = [Cursor("confserv", FILE, number) for number in range(messages.CURSORS_LIMIT + 1)]

    found = trouble(reply(news()), cursors=cursors)

    assert found.cause == "too-large"
    assert "Move old log files out" in str(found)


def test_an_address_shows_no_secret():
    assert SECRET not in repr(AgentAddress("a", "https://h:1", "k1", SECRET))


def test_the_environment_does_not_choose_a_proxy(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    assert meet(reply(news())).applications["confserv"].files


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*news()["applications"]["confserv"]["files"][0]]), json_values)
def test_any_value_in_any_place_is_read_or_is_nonsense(key, value):
    def answer(request: httpx.Request) -> httpx.Response:
        body = json.dumps(news(**{key: value})).encode()
        nonce = request.headers[messages.NONCE_HEADER]
        headers = messages.reply_headers(SECRET, "fra-cfg-01", "k1", nonce, 200, "0" * 16, time.time(), body)
        return httpx.Response(
            200, stream=httpx.ByteStream(body), headers={**headers, "Content-Type": "application/json"}
        )

    async def run():
        async with new_client(transport=httpx.MockTransport(answer)) as client:
            address = AgentAddress("fra-cfg-01", "https://agent", "k1", SECRET)
            with contextlib.suppress(AgentTrouble):
                await client.poll(address, applications=["confserv"], cursors=[CURSOR])

    asyncio.run(run())
