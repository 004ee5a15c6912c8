"""The web server's entry: `uvicorn runbook.asgi:application`.

Pages are plain synchronous Django in a pool of threads; a request takes one when its body is there (runbook/arrival.py).
The stream of changes is a small coroutine beside it, so that a thousand open pages cost a thousand sockets and not a
thousand threads.
"""

from collections.abc import Iterable
from typing import Any

from a2wsgi import WSGIMiddleware
from django.conf import settings

from runbook.arrival import Message, Receive, Send, WholeBodies
from runbook.wsgi import application as pages
from upgrades.web.stream import stream

_in_threads: Any = WSGIMiddleware(pages, workers=settings.WEB_THREADS)
_pages = WholeBodies(_in_threads, large_at_once=settings.WEB_THREADS)


async def application(scope: Message, receive: Receive, send: Send) -> None:
    """Sends /stream/ and the server's own start and end to the stream, every other request to the pages."""
    if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"].startswith("/stream/")):
        await stream(scope, receive, send)
    elif scope["type"] == "http":
        await _pages({**scope, "headers": _plain_names(scope["headers"])}, receive, send)
    else:
        await _pages(scope, receive, send)


def _plain_names(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Without names that have an underscore: WSGI takes X_Forwarded_For for X-Forwarded-For, which only proxies may say."""
    return [(name, value) for name, value in headers if b"_" not in name]
