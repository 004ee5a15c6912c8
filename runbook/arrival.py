"""A request takes a thread only when its whole body has arrived.

There are few threads (RUNBOOK_WEB_THREADS). If they waited for bodies, as many clients as there are threads could stop
every page by sending theirs slowly, signed in or not. So bodies are received by the event loop, where waiting costs nothing:
small ones into memory, as many as there are connections; larger ones into temporary files, of which there are only so many
at the same time. A body that comes too slowly, or breaks off, reaches no page: neither half a form nor half a file.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack
from http import HTTPStatus
from typing import IO, Any

from django.conf import settings

from runbook.middleware import NOT_ARRIVED, largest_body

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

SMALL = PIECE = 64 * 1024  # bytes; as much as the web server itself holds of each connection

logger = logging.getLogger(__name__)


class _Left(Exception):
    """The client went away before its body was whole."""


class WholeBodies:
    """The ASGI application `pages`, which is called when there is nothing left to wait for."""

    def __init__(self, pages: Application, large_at_once: int) -> None:
        self._pages = pages
        self._large = asyncio.Semaphore(large_at_once)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        size = _said(scope)
        if size is None or not 0 < size <= largest_body():
            # No body that a page would read, or one that is refused before a byte of it is read.
            await self._pages(scope, receive, send)
            return
        async with AsyncExitStack() as place:
            with tempfile.SpooledTemporaryFile(max_size=SMALL) as body:
                try:
                    if size > SMALL:
                        async with asyncio.timeout(settings.BODY_SECONDS):
                            await place.enter_async_context(self._large)
                    await _arrive(body, size, receive)
                except _Left:
                    return
                except TimeoutError:  # it came too slowly, or too many large ones were there before it
                    await self._pages(*_without_body(scope, HTTPStatus.REQUEST_TIMEOUT), send)
                except OSError as trouble:
                    logger.error(
                        "A body of %d bytes could not be kept in %s: %s. Nothing was done with it. Make room there.",
                        size,
                        tempfile.gettempdir(),
                        trouble,
                    )
                    await self._pages(*_without_body(scope, HTTPStatus.SERVICE_UNAVAILABLE), send)
                else:
                    await self._pages(scope, _read_again(body, size), send)


async def _arrive(body: IO[bytes], size: int, receive: Receive) -> None:
    """Fill `body`. TimeoutError when what fills it comes too slowly."""
    clock = asyncio.get_running_loop().time
    began, got = clock(), 0
    while got < size:
        # Each byte buys time: a slow line gets it, a client that only waits does not.
        async with asyncio.timeout_at(began + settings.BODY_SECONDS + got / settings.BODY_RATE):
            message = await receive()
        if message["type"] != "http.request":
            raise _Left
        piece = message.get("body", b"")
        # A slow disk holds up this request, and not the loop in which all others wait.
        await asyncio.to_thread(body.write, piece)
        got += len(piece)
        if got < size and not message.get("more_body", False):
            raise _Left
    body.seek(0)


def _said(scope: Message) -> int | None:
    """The bytes that the request says its body has; without that no page reads a body. None also for what is no number."""
    said = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(said[0]) if len(said) == 1 and said[0].isdigit() and len(said[0]) < 19 else None


def _read_again(body: IO[bytes], size: int) -> Receive:
    left = size

    async def receive() -> Message:
        nonlocal left
        piece = await asyncio.to_thread(body.read, min(PIECE, left))
        left -= len(piece)
        return {"type": "http.request", "body": piece, "more_body": left > 0}

    return receive


def _without_body(scope: Message, status: HTTPStatus) -> tuple[Message, Receive]:
    """The same request with nothing to read, to be answered with `status` by `runbook.middleware.body_limit`."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
    return {**scope, "headers": headers, NOT_ARRIVED: status}, receive
