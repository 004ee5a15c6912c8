"""The web server's entry: `uvicorn runbook.asgi:application`.

Pages are plain synchronous Django in a pool of threads. The stream of changes is a small coroutine beside it,
so that a thousand open pages cost a thousand sockets and not a thousand threads.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from a2wsgi import WSGIMiddleware
from django.conf import settings

from runbook.wsgi import application as pages
from upgrades.web.stream import stream

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_pages = WSGIMiddleware(pages, workers=settings.WEB_THREADS)


async def application(scope: Message, receive: Receive, send: Send) -> None:
    """Sends /stream/ and the server's own start and end to the stream, every other request to the pages."""
    if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"].startswith("/stream/")):
        await stream(scope, receive, send)
    else:
        await _pages(scope, receive, send)
