"""Sending a message to an address that somebody entered, and learning no more of the answer than whether it was taken.

Only the status of an answer is read, never its body, and no text here repeats anything that the other side sent: the
button that tries an endpoint must not become a window into the network.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit

import httpx
from django.conf import settings

from upgrades.adapters.outgoing import NotAllowed, Outgoing
from upgrades.domain.agent_address import read_address
from upgrades.domain.environment_records import NotUsable

DEADLINE = 5.0  # seconds for the whole exchange
LONGEST = 600

_FORM = re.compile(
    r"(https?)://(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?"
    r"(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?(\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Target:
    """A checked address. `host` may be shown to people; the rest of the address is a secret."""

    url: str
    host: str


class NotTaken(Exception):
    """The message was not taken, or nobody knows. `for_good`: the address says itself that it wants none any more."""

    def __init__(self, why: str, *, for_good: bool = False) -> None:
        super().__init__(why)
        self.for_good = for_good


def read_target(text: str) -> Target:
    """The one canonical form of an https address; NotUsable with a sentence otherwise. Where it leads is checked at sending.

    Plain http, and this machine, are for installations that nobody but this machine reaches.
    """
    raw = text.strip()
    found = _FORM.fullmatch(raw)
    if len(raw) > LONGEST or not found:
        raise NotUsable(
            f"Write a whole address as https://host/path, {LONGEST} characters at most, in ASCII, without a name or "
            "password in it and without a part behind #."
        )
    scheme = found[1].lower()
    port = found[3] or {"https": "443", "http": "80"}[scheme]
    try:
        base = read_address(
            f"{scheme}://{found[2]}:{port}", loopback=not settings.HTTPS, taken_ports=_own_ports()
        )
    except NotUsable:
        raise NotUsable(
            "Messages go to https only, to port 443 or one from 1024 on that is no database's, and never to this machine "
            "or to an address that is written in an odd way."
        ) from None
    host = base.partition("://")[2].removesuffix(":443")
    return Target(f"{scheme}://{host}{found[4] or '/'}{found[5] or ''}", host)


def _own_ports() -> set[int]:
    database = settings.DATABASES["default"].get("PORT")
    return {int(port) for port in (database, urlsplit(settings.REDIS_URL).port) if port}


async def post(url: str, body: bytes, headers: Mapping[str, str]) -> str:
    """Send it once; gives “answered 204”. NotTaken for every other end, also when nobody knows whether it arrived."""
    try:
        async with (
            asyncio.timeout(DEADLINE),
            httpx.AsyncClient(
                # One deadline over the whole answer holds; httpx's own would start again with every byte.
                timeout=None,  # noqa: S113
                follow_redirects=False,
                trust_env=False,
                transport=Outgoing(settings.WEBHOOK_NETWORKS, tls=_tls()),
            ) as client,
            client.stream("POST", url, content=body, headers={**_HEADERS, **headers}) as response,
        ):
            return _judged(response.status_code)
    except TimeoutError:
        raise NotTaken(f"No answer came within {DEADLINE:g} seconds.") from None
    except NotAllowed:
        raise NotTaken(
            "Its name leads to an address outside the networks that WEBHOOK_NETWORKS lists. It was not asked."
        ) from None
    except (httpx.TransportError, ssl.SSLError, OSError) as error:
        raise NotTaken(_trouble(error)) from None


@cache
def _tls() -> ssl.SSLContext:
    """Reading all authorities takes longer than many an exchange, so it is done once per process."""
    return ssl.create_default_context()


_HEADERS = {
    "Content-Type": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": "runbook",
}


def _judged(status: int) -> str:
    if 200 <= status < 300:
        return f"Answered {status}."
    if 300 <= status < 400:
        raise NotTaken("It answered with a redirection, which is not followed. Enter the address itself.")
    if status == 410:
        raise NotTaken("It answered 410: nobody listens there any more.", for_good=True)
    raise NotTaken(f"It answered {status}.")


def _trouble(error: Exception) -> str:
    if "SSL" in str(error) or "CERTIFICATE" in str(error):
        return "No connection, since its certificate or TLS version is not accepted."
    if isinstance(error, httpx.RemoteProtocolError):
        return "It answered something that is not HTTP, or nothing."
    return "No connection, or it broke off."
