"""The stream that tells open pages "run 7 is now at version 42": server-sent events fed by LISTEN/NOTIFY.

An ASGI application of its own beside Django, so that a thousand open pages cost no thread each:

    GET /stream/runs/<id>/?ticket=…          GET /stream/environments/<id>/?ticket=…

Django decides who may look and hands out a signed ticket (`make_ticket`); the stream only reads the ticket.
It carries no content, only numbers: the page then asks for its fragment, through the rights of any page.

    event: version   data: 42               something newer than before can be fetched
    event: beat      data: 1764064800123    every 2 seconds: the link is alive; the server's clock in ms
    event: renew     data: 300              this stream ends: fetch the fragment, it has a new ticket

A writer sends, in its own transaction, `NOTIFY runbook, 'run:7:42'` (or `environment:3:17`). `user:5:0` ends
all streams of user 5 at once: sent when a right is taken away. See docs/adr/0002-live-pages.md.
"""

import asyncio
import contextlib
import logging
import re
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import FrameType
from typing import Any, Literal, cast
from urllib.parse import parse_qs

import psycopg
from django.core import signing

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Kind = Literal["run", "environment"]
Topic = tuple[Kind, int]

CHANNEL = "runbook"
TICKET_SECONDS = 120
LIFETIME_SECONDS = 300.0
BEAT_SECONDS = 2.0
STREAMS_PER_USER = 5
# A reader that takes nothing for this long is gone, whatever its socket says.
SEND_SECONDS = 10.0
# How long an opening stream waits for the listener, as after a restart of the database.
LISTENER_SECONDS = 2.0
# Nothing heard for this long: ask the database whether the connection still stands.
PROBE_SECONDS = 5.0
RETRY_SECONDS = (0.1, 0.5, 1.0, 2.0)

PATH = re.compile(r"/stream/(run|environment)s/([1-9][0-9]{0,17})/", re.ASCII)
PAYLOAD = re.compile(r"(run|environment|user):([0-9]{1,18}):([0-9]{1,18})", re.ASCII)
SALT = "upgrades.web.stream"
# What Django puts beside the parameters of the connection itself.
NOT_FOR_LISTENING = {
    "assume_role",
    "context",
    "cursor_factory",
    "isolation_level",
    "pool",
    "prepare_threshold",
}
KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 2, "connect_timeout": 5}

logger = logging.getLogger(__name__)


class StreamRefused(Exception):
    """A stream that cannot be opened; the status and the text go to the browser."""

    def __init__(self, status: HTTPStatus, text: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right of one user to hear of one run or environment, decided by Django when it made the page."""

    kind: Kind
    id: int
    user_id: int

    @property
    def topic(self) -> Topic:
        """What the ticket lets its bearer hear of."""
        return self.kind, self.id


def make_ticket(kind: Kind, id: int, user_id: int) -> str:  # noqa: A002 - the word that callers use
    """A signed ticket for `?ticket=`: it opens streams of that run or environment for two minutes."""
    return signing.dumps([kind, id, user_id], salt=SALT)


def stream_url(kind: Kind, id: int, user_id: int) -> str:  # noqa: A002
    """The address for `data-stream-url`, its ticket included."""
    return f"/stream/{kind}s/{id}/?ticket={make_ticket(kind, id, user_id)}"


def read_ticket(ticket: str) -> Ticket:
    """The ticket's content. StreamRefused (403) when it is forged, older than two minutes or no ticket."""
    try:
        kind, id_, user_id = signing.loads(ticket, salt=SALT, max_age=TICKET_SECONDS)
    except signing.SignatureExpired:
        raise StreamRefused(HTTPStatus.FORBIDDEN, "This ticket is too old. Load the page again.") from None
    except (signing.BadSignature, ValueError, TypeError):
        raise StreamRefused(
            HTTPStatus.FORBIDDEN, "This ticket is not one of ours. Load the page again."
        ) from None
    return Ticket(kind, id_, user_id)


@dataclass(eq=False, slots=True)
class Client:
    """One open stream. A single place for the newest version: a slow reader never builds up a queue."""

    user_id: int
    topic: Topic
    version: int = 0
    ended: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, version: int) -> None:
        """Keeps the version if it is newer than what waits here."""
        if version > self.version:
            self.version = version
            self.wake.set()

    def end(self) -> None:
        """The stream ends as soon as its coroutine wakes."""
        self.ended = True
        self.wake.set()


class Hub:
    """The open streams of this process, and the one connection that listens for all of them."""

    def __init__(self) -> None:
        self._clients: dict[Topic, set[Client]] = defaultdict(set)
        self._per_user: Counter[int] = Counter()
        self._listening: asyncio.Event | None = None
        self._listener: asyncio.Task[None] | None = None
        self._restore_signals: Callable[[], None] = _nothing_to_restore
        self._closing = False

    @property
    def open_streams(self) -> int:
        """How many streams are open in this process."""
        return self._per_user.total()

    @property
    def listening(self) -> bool:
        """Whether the database's notifications reach this process now."""
        return self._listening is not None and self._listening.is_set()

    def start(self) -> asyncio.Event:
        """Begins to listen, once; the event is set while notifications arrive. Needs a running event loop."""
        if self._listening is None:
            self._closing = False
            self._listening = asyncio.Event()
            self._listener = asyncio.create_task(self._listen_for_ever(self._listening))
            self._restore_signals = _close_at_signal(self)
        return self._listening

    async def stop(self) -> None:
        """Ends the streams and the listener."""
        self.close()
        if self._listener is not None:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener
        self._listener = self._listening = None
        self._restore_signals()

    def close(self) -> None:
        """Ends all streams and opens no more: the server is going down and must not wait for them."""
        self._closing = True
        self._end_all()

    async def require_listening(self) -> None:
        """Returns when notifications arrive. StreamRefused (503) when they do not within two seconds."""
        listening = self.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LISTENER_SECONDS):
                await listening.wait()
        if self._closing or not self.listening:
            text = "Live updates are not to be had at this moment. The page asks by itself every few seconds."
            raise StreamRefused(HTTPStatus.SERVICE_UNAVAILABLE, text, (b"retry-after", b"3"))

    @contextlib.contextmanager
    def client(self, ticket: Ticket) -> Iterator[Client]:
        """A client that hears of the ticket's topic. StreamRefused (429) above five streams of one user."""
        if self._per_user[ticket.user_id] >= STREAMS_PER_USER:
            text = (
                f"{STREAMS_PER_USER} live pages are open already. Close one, or let this one ask by itself."
            )
            raise StreamRefused(HTTPStatus.TOO_MANY_REQUESTS, text, (b"retry-after", b"10"))
        client = Client(ticket.user_id, ticket.topic)
        self._per_user[client.user_id] += 1
        self._clients[client.topic].add(client)
        try:
            yield client
        finally:
            self._forget(client)

    def _forget(self, client: Client) -> None:
        self._clients[client.topic].discard(client)
        if not self._clients[client.topic]:
            del self._clients[client.topic]
        self._per_user[client.user_id] -= 1
        if not self._per_user[client.user_id]:
            del self._per_user[client.user_id]

    def heard(self, payload: str) -> None:
        """Hands one notification to the streams that it concerns; what is malformed is logged and dropped."""
        match = PAYLOAD.fullmatch(payload)
        if match is None:
            logger.warning("Notification on %s not understood: %.100r", CHANNEL, payload)
            return
        kind, id_, number = match[1], int(match[2]), int(match[3])
        if kind == "user":
            self._end_all(of_user=id_)
            return
        for client in self._clients.get((cast(Kind, kind), id_), ()):
            client.offer(number)

    def _end_all(self, *, of_user: int | None = None) -> None:
        for clients in self._clients.values():
            for client in clients:
                if of_user is None or client.user_id == of_user:
                    client.end()

    async def _listen_for_ever(self, listening: asyncio.Event) -> None:
        attempt = 0
        while True:
            try:
                await self._listen(listening)
            except Exception as trouble:  # whatever it was, the next attempt must come
                attempt = 0 if listening.is_set() else attempt + 1
                expected = isinstance(trouble, OSError | psycopg.Error)
                logger.warning("Not listening for changes: %s. Trying again.", trouble, exc_info=not expected)
            # Without a listener no stream may look alive: the pages ask by themselves until it is back.
            listening.clear()
            self._end_all()
            await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])

    async def _listen(self, listening: asyncio.Event) -> None:
        async with await psycopg.AsyncConnection.connect(
            **_connection_parameters(), autocommit=True
        ) as connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            listening.set()
            while True:
                async for notification in connection.notifies(timeout=PROBE_SECONDS):
                    self.heard(notification.payload)
                async with asyncio.timeout(PROBE_SECONDS):
                    await connection.execute("SELECT 1")


def _connection_parameters() -> dict[str, Any]:
    """How the application's own role reaches the database, without what only Django understands."""
    from django.db import connections  # here: importing this module must not need settings

    parameters = connections["default"].get_connection_params()
    known = {key: value for key, value in parameters.items() if key not in NOT_FOR_LISTENING}
    return known | KEEPALIVE | {"application_name": "runbook-stream"}


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application: the two kinds of stream, and the lifespan of the server that runs it."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    if scope["type"] != "http":
        raise ValueError(f"Only HTTP is served here, not {scope['type']}.")
    try:
        ticket = _ticket_for(scope)
        await hub.require_listening()
        with hub.client(ticket) as client:
            await _serve(client, receive, send)
    except StreamRefused as refusal:
        await _refuse(refusal, send)


def _ticket_for(scope: Scope) -> Ticket:
    """The ticket that the request shows, if it is for this path. StreamRefused says what is wrong."""
    match = PATH.fullmatch(scope["path"])
    if match is None:
        raise StreamRefused(HTTPStatus.NOT_FOUND, "There is no such stream.")
    if scope["method"] != "GET":
        raise StreamRefused(HTTPStatus.METHOD_NOT_ALLOWED, "A stream can only be read.", (b"allow", b"GET"))
    tickets = parse_qs(scope["query_string"].decode("latin-1")).get("ticket", [])
    if len(tickets) != 1:
        raise StreamRefused(HTTPStatus.FORBIDDEN, "One ticket is needed. Load the page again.")
    ticket = read_ticket(tickets[0])
    if ticket.topic != (match[1], int(match[2])):
        raise StreamRefused(HTTPStatus.FORBIDDEN, "This ticket is for another page. Load the page again.")
    return ticket


async def _serve(client: Client, receive: Receive, send: Send) -> None:
    """Sends versions and beats until the reader leaves, the time is over or the server goes down."""
    leaves = asyncio.create_task(_end_when_gone(client, receive))
    try:
        await _begin(send, HTTPStatus.OK, b"text/event-stream; charset=utf-8", (b"x-accel-buffering", b"no"))
        await _send_events(client, send)
    except (OSError, TimeoutError):
        logger.debug("A reader of %s was gone before it was told so.", client.topic)
    finally:
        leaves.cancel()


async def _send_events(client: Client, send: Send) -> None:
    until = time.monotonic() + LIFETIME_SECONDS
    told = 0
    await _event(send, "beat", _now_ms())
    while not client.ended and time.monotonic() < until:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEAT_SECONDS):
                await client.wake.wait()
        client.wake.clear()
        if client.version > told:
            told = client.version
            await _event(send, "version", told)
        elif not client.ended:
            await _event(send, "beat", _now_ms())
    if not client.ended:
        await _event(send, "renew", int(LIFETIME_SECONDS))
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _end_when_gone(client: Client, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
    client.end()


async def _event(send: Send, name: str, data: int) -> None:
    body = f"event: {name}\ndata: {data}\n\n".encode()
    async with asyncio.timeout(SEND_SECONDS):
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _begin(send: Send, status: HTTPStatus, kind: bytes, *headers: tuple[bytes, bytes]) -> None:
    always = [
        (b"content-type", kind),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
        (b"cross-origin-resource-policy", b"same-origin"),
    ]
    await send({"type": "http.response.start", "status": int(status), "headers": [*always, *headers]})


async def _refuse(refusal: StreamRefused, send: Send) -> None:
    await _begin(send, refusal.status, b"text/plain; charset=utf-8", *refusal.headers)
    await send({"type": "http.response.body", "body": f"{refusal}\n".encode()})


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def _lifespan(receive: Receive, send: Send) -> None:
    """Listens while the server runs. The streams end at the signal, not at the server's `shutdown` message.

    uvicorn sends that message only when all answers have ended, and a stream never ends by itself.
    """
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            hub.start()
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await hub.stop()
            await send({"type": "lifespan.shutdown.complete"})
            return


def _nothing_to_restore() -> None:
    """No handler was put anywhere."""


def _close_at_signal(closing: Hub) -> Callable[[], None]:
    """Puts the hub's end in front of the server's own handlers; returns what puts those back."""
    if threading.current_thread() is not threading.main_thread():
        return _nothing_to_restore
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(closing.close)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        elif handler is signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, handle)
    return restore


hub = Hub()
