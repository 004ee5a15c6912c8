"""Connections to addresses that people entered: only into networks that the installation lists.

A form can look at an address when it is entered, but a name may lead elsewhere a second later. So the check sits
where the connection is made: the name is asked for once, every address that it has is looked at, and the connection
goes to an address that was looked at. TLS still proves the name, since only the connection below it is made by
address. Redirections are not followed, and no variable of the environment puts a proxy between.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterable
from ipaddress import ip_address

import httpcore
import httpx

from upgrades.domain.reach import Address, Network, Reach, plain

__all__ = ["NotAllowed", "Outgoing", "TooLong", "addresses_of", "must_be_allowed", "read_at_most"]

TRIES = 4  # addresses of a name that are tried, one after the other


class NotAllowed(Exception):
    """A name or address that may not be asked; the text says why, and never more than was entered."""


class TooLong(Exception):
    """An answer has more bytes than its reader takes."""


class Outgoing(httpx.AsyncHTTPTransport):
    """The transport of an `httpx.AsyncClient` that reaches the listed networks and nothing else.

    Raises NotAllowed before any packet is sent to an address outside of them.
    """

    def __init__(self, networks: Iterable[Network], *, tls: ssl.SSLContext, keep: float = 20.0) -> None:
        super().__init__(verify=tls, trust_env=False)
        # httpx has no argument for the backend; its own pool was not used yet.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=None,
            max_keepalive_connections=None,
            keepalive_expiry=keep,
            network_backend=_Checked(Reach(tuple(networks))),
        )


class _Checked(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were looked at, never to names."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            found = await _resolved(host, port)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        must_be_allowed(self._reach, found)
        last: httpcore.ConnectError | None = None
        for address in found[:TRIES]:
            try:
                return await self._inner.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except httpcore.ConnectError as error:
                last = error
        raise last or httpcore.ConnectError("The name has no address.")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


def must_be_allowed(reach: Reach, addresses: Iterable[Address]) -> None:
    """NotAllowed unless each of the addresses may be asked: one that may not spoils the name."""
    for address in addresses:
        if not reach.allows(address) or (_is_this_machine(address) and not reach.has_this_machine):
            raise NotAllowed("it leads to an address outside the networks that may be asked.")


def addresses_of(host: str, port: int) -> list[Address]:
    """The addresses that a name has now; none where nobody knows it."""
    try:
        return _read(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError):
        return []


async def _resolved(host: str, port: int) -> list[Address]:
    try:
        return [ip_address(host)]
    except ValueError:
        pass
    try:
        answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise NotAllowed("it is no name that the name service could know.") from None
    return _read(answers)


def _read(answers: Iterable[tuple[object, object, object, object, tuple[object, ...]]]) -> list[Address]:
    # A zone, as in fe80::1%eth0, belongs to link-local addresses alone and says nothing about where they are.
    found = [ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers]
    return list(dict.fromkeys(found))


def _is_this_machine(address: Address) -> bool:
    """Whether a packet to this address would not leave the machine. Asks the routing table, sends nothing."""
    address = plain(address)
    family = {4: socket.AF_INET, 6: socket.AF_INET6}[address.version]
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((str(address), 9))
        return ip_address(str(probe.getsockname()[0]).partition("%")[0]) == address
    return False


async def read_at_most(response: httpx.Response, limit: int) -> bytes:
    """The body as it travelled; TooLong beyond `limit` bytes. Nothing is decoded, so it cannot grow."""
    body = bytearray()
    async for block in response.aiter_raw():
        body += block
        if len(body) > limit:
            raise TooLong
    return bytes(body)
