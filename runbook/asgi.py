"""The web server's entry: `uvicorn runbook.asgi:application`.

Pages are plain synchronous Django in a pool of threads; a request takes one when its body is there (runbook/arrival.py).
The stream of changes is a small coroutine beside it, so that a thousand open pages cost a thousand sockets and not a
thousand threads.
"""

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
    else:
        await _pages(scope, receive, send)
