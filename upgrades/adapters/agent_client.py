"""Asking agents: signed questions out, checked answers in, and one exception for whatever goes wrong.

`AgentClient` holds the connections and is meant to live as long as its worker:

    async with AgentClient() as client:
        news = await client.poll(address, applications=["confserv"], cursors=cursors, wait=20)
"""

import asyncio
import functools
import re
import secrets
import ssl
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx
from django.conf import settings

from agent import messages
from agent.messages import Cursor, Nonsense
from upgrades.adapters import agent_replies, outgoing
from upgrades.adapters.agent_replies import (
    ApplicationLogs,
    ApplicationNews,
    Cut,
    FilePart,
    FolderProbe,
    HashProbe,
    Health,
    LogFile,
    Logs,
    NamesProbe,
    News,
    Origin,
    Process,
    ProcessProbe,
)
from upgrades.adapters.certificates import trusting

__all__ = [
    "AgentAddress",
    "AgentClient",
    "AgentTrouble",
    "ApplicationLogs",
    "ApplicationNews",
    "Cause",
    "Cursor",
    "Cut",
    "FilePart",
    "FolderProbe",
    "HashProbe",
    "Health",
    "LogFile",
    "Logs",
    "NamesProbe",
    "News",
    "Origin",
    "Process",
    "ProcessProbe",
]

T = TypeVar("T")

DEADLINE = 10.0  # seconds for a whole answer, beyond the time that a poll may wait

Cause = Literal[
    "unreachable",
    "too-slow",
    "too-large",
    "not-from-the-agent",
    "wrong-clock",
    "nonsense",
    "refused",
    "redirected",
    "busy",
    "not-allowed",
]

_ADDRESS = re.compile(r"https?://(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?/?")
_KNOWN_REFUSALS = {
    "application": "Its configuration has no such application.",
    "folder": "Its configuration has no such folder for this application.",
    "query": "It does not understand the question.",
    "replay": "The same question had reached it before.",
    "failed": "It failed over this question; its own log has the reason.",
}


class AgentTrouble(Exception):
    """An answer that did not come or cannot be used. `cause` is for programs, the text for people.

    The text never repeats anything of what the other side sent: a wrong address must not become a window.
    """

    def __init__(self, cause: Cause, agent: str, why: str, now: str) -> None:
        super().__init__(f"Agent {agent}: {why} {now}")
        self.cause: Cause = cause
        self.agent = agent


@dataclass(frozen=True, slots=True)
class AgentAddress:
    """Where an agent is and what proves that it is the one. `url` is https://host:port; `secret` 64 hex digits.

    `certificate` (PEM) is what its TLS must rest on; empty: what the client trusts.
    """

    agent: str
    url: str
    key_id: str
    secret: str = field(repr=False)
    certificate: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class _Question:
    """A signed question as it leaves; `nonce` must come back in its answer's signature."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes
    nonce: str


@dataclass(frozen=True, slots=True)
class _Answer:
    """A signed answer of the agent that was asked."""

    status: int
    origin: Origin
    body: bytes


_system_authorities = functools.cache(ssl.create_default_context)  # reading them takes longer than a poll


class AgentClient:
    """Asks agents; safe for many questions at once, one event loop.

    `tls` trusts what the agents' certificates are signed with (default: the system's authorities). `now` (seconds
    since 1970), `nonce` (32 hex digits, each once), `deadline` (seconds) and `transport` are for tests.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        now: Callable[[], float] = time.time,
        nonce: Callable[[], str] = lambda: secrets.token_hex(16),
        deadline: float = DEADLINE,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._now = now
        self._nonce = nonce
        self._deadline = deadline
        self._tls = tls
        self._transport = transport
        self._http: dict[str, httpx.AsyncClient] = {}

    def _connections(self, certificate: str) -> httpx.AsyncClient:
        """The connections whose TLS rests on this certificate: none of them serves an agent with another one."""
        found = self._http.get(certificate)
        if found is None:
            tls = trusting(certificate) if certificate else self._tls or _system_authorities()
            found = self._http[certificate] = httpx.AsyncClient(
                # One deadline over the whole answer holds; httpx's own would start again with every byte.
                timeout=None,  # noqa: S113
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                    "User-Agent": "runbook",
                },
                follow_redirects=False,
                trust_env=False,
                transport=self._transport or outgoing.Outgoing(settings.AGENT_NETWORKS, tls=tls),
            )
        return found

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends all connections."""
        for connections in self._http.values():
            await connections.aclose()

    async def health(self, address: AgentAddress) -> Health:
        """Who answers there and which applications it knows; AgentTrouble otherwise, as for all questions."""
        return await self._ask(address, "/v1/health", [], agent_replies.read_health)

    async def logs(self, address: AgentAddress, applications: Sequence[str] = ()) -> Logs:
        """Processes and log files of these applications (none: of all). Watermarks are taken from this.

        Where they have more files than one answer can list, each is asked for alone.
        """
        try:
            return await self._logs(address, applications)
        except AgentTrouble as trouble:
            if trouble.cause != "too-large" or len(applications) < 2:
                raise
        alone = [await self._logs(address, [name]) for name in applications]
        found = {name: entry for logs in alone for name, entry in logs.applications.items()}
        return Logs(alone[-1].origin, found)

    async def _logs(self, address: AgentAddress, applications: Sequence[str]) -> Logs:
        pairs = [("application", name) for name in applications]
        return await self._ask(
            address,
            "/v1/logs",
            pairs,
            lambda value, origin: agent_replies.read_logs(value, origin, applications),
        )

    async def poll(
        self,
        address: AgentAddress,
        *,
        applications: Collection[str] = (),
        cursors: Sequence[Cursor] = (),
        processes: Mapping[str, str] | None = None,
        wait: float = 0.0,
    ) -> News:
        """What is new in the logs beyond the cursors, as soon as there is something, at the latest after `wait`.

        A file without a cursor comes from its beginning. `processes` maps applications to the state known: another
        state is news, too. A cursor of a file that shrank or is gone brings an answer at once: drop it.
        """
        pairs = [("application", name) for name in applications]
        pairs += [("cursor", cursor.text()) for cursor in cursors]
        pairs += [("process", f"{name}:{state}") for name, state in (processes or {}).items()]
        pairs.append(("wait", f"{min(max(wait, 0.0), messages.WAIT_LIMIT):.3f}"))
        return await self._ask(
            address,
            "/v1/poll",
            pairs,
            lambda value, origin: agent_replies.read_news(value, origin, applications, cursors),
            wait=wait,
        )

    async def probe_process(self, address: AgentAddress, application: str) -> ProcessProbe:
        """Whether the application's process runs."""
        return await self._probe(address, agent_replies.read_process_probe, application, "process")

    async def probe_folder(self, address: AgentAddress, application: str, folder: str) -> FolderProbe:
        """Whether a folder is there; `folder` is its name in the agent's configuration, as `prepared`."""
        return await self._probe(
            address, agent_replies.read_folder_probe, application, "folder", folder=folder
        )

    async def probe_names(self, address: AgentAddress, application: str, folder: str) -> NamesProbe:
        """Sections of the configuration file, value of -s, and name of the Application (CSS-2b, CSM-2b, CSH-2b)."""
        return await self._probe(address, agent_replies.read_names_probe, application, "names", folder=folder)

    async def probe_hash(self, address: AgentAddress, application: str, folder: str, file: str) -> HashProbe:
        """SHA-256 of a file that lies directly in a folder."""
        reader = agent_replies.read_hash_probe
        return await self._probe(address, reader, application, "hash", folder=folder, file=file)

    async def _probe(
        self,
        address: AgentAddress,
        read: Callable[[Any, Origin], T],
        application: str,
        what: str,
        **more: str,
    ) -> T:
        pairs = [("application", application), ("what", what), *more.items()]
        return await self._ask(address, "/v1/probe", pairs, read)

    async def _ask(
        self,
        address: AgentAddress,
        path: str,
        pairs: list[tuple[str, str]],
        read: Callable[[Any, Origin], T],
        *,
        wait: float = 0.0,
    ) -> T:
        answer = await self._exchange(address, path, pairs, wait)
        try:
            value = messages.read_json(answer.body)
            if answer.status != 200:
                raise _refusal(address.agent, value)
            return read(value, answer.origin)
        except Nonsense as nonsense:
            raise _nonsense(address.agent, str(nonsense)) from None

    async def _exchange(
        self, address: AgentAddress, path: str, pairs: list[tuple[str, str]], wait: float
    ) -> _Answer:
        """One signed question and its signed answer within the deadline."""
        question = self._question(address, path, pairs)
        seconds = min(max(wait, 0.0), messages.WAIT_LIMIT) + self._deadline
        try:
            connections = self._connections(address.certificate)
            async with (
                asyncio.timeout(seconds),
                connections.stream(
                    question.method, question.url, headers=question.headers, content=question.body
                ) as response,
            ):
                return await self._receive(address, question.nonce, response)
        except TimeoutError:
            why = f"no whole answer came within {seconds:g} seconds."
            raise AgentTrouble(
                "too-slow", address.agent, why, "It is asked again; look at the host's load."
            ) from None
        except outgoing.NotAllowed as refusal:
            raise _not_allowed(address.agent, str(refusal)) from None
        except httpx.RemoteProtocolError as error:
            if str(error).startswith("Server disconnected"):  # before the first byte: the agent just ended
                raise _unreachable(address.agent, error) from None
            raise _nonsense(address.agent, "it broke off or is not HTTP") from None
        except (httpx.TransportError, ssl.SSLError) as error:
            raise _unreachable(address.agent, error) from None

    def _question(self, address: AgentAddress, path: str, pairs: list[tuple[str, str]]) -> _Question:
        """A signed question. What is too long for a line goes in a body: a poll of a host with very many log files."""
        if not _is_url(address.url):
            why = "its address is not of the form https://host:port."
            raise AgentTrouble("refused", address.agent, why, "Correct it in the agent's registration.")
        if not messages.SECRET.match(address.secret):
            why = "its key cannot be read here, as after a change of SECRET_KEY."
            raise AgentTrouble("refused", address.agent, why, "Make a new key on the agent's page.")
        query, body, nonce = messages.canonical_query(pairs), b"", self._nonce()
        if len(path) + len(query) >= messages.QUERY_LIMIT:
            query, body = "", query.encode("ascii")
        if len(body) > messages.FORM_LIMIT or len(pairs) > messages.CURSORS_LIMIT:
            why = f"it watches more log files than a question can name, which is {messages.CURSORS_LIMIT} or fewer."
            now = "Move old log files out of its folders."
            raise AgentTrouble("too-large", address.agent, why, now)
        headers = messages.request_headers(
            address.secret, address.agent, address.key_id, path, query, self._now(), nonce, body
        )
        url = address.url.rstrip("/") + path + ("?" + query if query else "")
        return _Question("POST" if body else "GET", url, headers, body, nonce)

    async def _receive(self, address: AgentAddress, nonce: str, response: httpx.Response) -> _Answer:
        """The answer, if it is this agent's and to this question; anything else is thrown away unread."""
        agent, headers = address.agent, response.headers
        if 300 <= response.status_code < 400:
            why = "the address answers with a redirection, which is not followed."
            raise AgentTrouble("redirected", agent, why, "Enter the agent's own address.")
        version = headers.get(messages.VERSION_HEADER, "")
        if version.isdigit() and version != str(messages.VERSION):
            raise _nonsense(agent, f"it is of another version of the protocol than {messages.VERSION}")
        if messages.SIGNATURE_HEADER not in headers:
            raise _not_from_the_agent(agent)
        if headers.get("Content-Encoding", "identity") != "identity":
            raise _nonsense(agent, "it is compressed, which was not asked for")
        if not headers.get("Content-Type", "").lower().startswith("application/json"):
            raise _nonsense(agent, "it is not JSON")
        body = await _body(agent, response)
        status = response.status_code
        if not messages.is_signed_reply(
            headers, secret=address.secret, agent=agent, nonce=nonce, status=status, body=body
        ):
            raise _not_from_the_agent(agent)
        return _Answer(status, self._origin(agent, headers), body)

    def _origin(self, agent: str, headers: httpx.Headers) -> Origin:
        seconds = float(headers[messages.TIME_HEADER])
        try:
            moment = agent_replies.read_moment(seconds)
        except Nonsense as nonsense:
            raise _nonsense(agent, str(nonsense)) from None
        return Origin(agent, headers[messages.BOOT_HEADER], moment, seconds - self._now())


async def _body(agent: str, response: httpx.Response) -> bytes:
    try:
        return await outgoing.read_at_most(response, messages.BODY_LIMIT)
    except outgoing.TooLong:
        why = f"its answer is longer than {messages.BODY_LIMIT} bytes and was cut off."
        raise AgentTrouble("too-large", agent, why, "Nothing of it was used; ask for less at once.") from None


def _is_url(text: str) -> bool:
    try:
        return bool(_ADDRESS.fullmatch(text) and httpx.URL(text).host)
    except httpx.InvalidURL:  # as https://0177.0.0.1:7101
        return False


def _refusal(agent: str, value: Any) -> AgentTrouble:
    """The agent's signed refusal in our words, chosen by its code."""
    error = value.get("error") if isinstance(value, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    if code == "clock":
        why = f"its clock and ours differ by more than {messages.CLOCK_WINDOW:.0f} seconds."
        return AgentTrouble("wrong-clock", agent, why, "Set the clock of its host, or ours.")
    if code == "busy":
        return AgentTrouble("busy", agent, "it answers other questions at the moment.", "It is asked again.")
    if code == "too-large":
        why = "the answer would be too large."
        return AgentTrouble("too-large", agent, why, "Ask for fewer applications at once.")
    why = _KNOWN_REFUSALS.get(code, "") if isinstance(code, str) else ""
    why = f"it refused the question. {why}".rstrip()
    return AgentTrouble("refused", agent, why, "Compare its configuration with its registration here.")


def _nonsense(agent: str, what: str) -> AgentTrouble:
    why = f"its answer cannot be used: {what}."
    return AgentTrouble("nonsense", agent, why, "Nothing of it was used; it is asked again.")


def _not_from_the_agent(agent: str) -> AgentTrouble:
    why = "the answer is not signed by this agent for this question: another program answers, or the keys differ."
    now = "It was thrown away; check address and key."
    return AgentTrouble("not-from-the-agent", agent, why, now)


def _not_allowed(agent: str, why: str) -> AgentTrouble:
    now = "Correct the address in the agent's registration, or list the network in AGENT_NETWORKS."
    return AgentTrouble("not-allowed", agent, f"it was not asked: {why}", now)


# What OpenSSL says of a certificate, and what people can do about it. The first that fits counts.
_TLS_TROUBLE = (
    ("certificate has expired", "its certificate has ended.", "Give the agent a new one."),
    (
        "not yet valid",
        "its certificate is not valid yet.",
        "Look at the clocks, or give the agent another one.",
    ),
    (
        "certificate is not valid for",
        "its certificate is for another name.",
        "Give the agent one for the name in its address.",
    ),
    (
        "key too weak",
        "the key of its certificate is too weak.",
        "Give the agent one with RSA of 2048 bits or more, or EC.",
    ),
    (
        "self-signed certificate",
        "its certificate is not the one that is known here, and no authority signed it.",
        "Paste the agent's certificate into its registration.",
    ),
    (
        "unable to get local issuer",
        "its certificate is not the one that is known here, or its authority is not.",
        "Paste the agent's certificate, or its authority's, into its registration.",
    ),
    ("certificate verify failed", "its certificate is not accepted.", "Give the agent another one."),
    ("PROTOCOL_VERSION", "it offers no version of TLS from 1.2 on.", "Renew Python or OpenSSL on its host."),
    (
        "UNSUPPORTED_PROTOCOL",
        "it offers no version of TLS from 1.2 on.",
        "Renew Python or OpenSSL on its host.",
    ),
    ("SSL", "no TLS comes about.", "See whether an agent with TLS listens at this address."),
)


def _unreachable(agent: str, error: Exception) -> AgentTrouble:
    for sign, why, now in _TLS_TROUBLE:
        if sign in str(error):
            return AgentTrouble("unreachable", agent, f"no connection, since {why}", now)
    why = "no connection, or it broke off."
    return AgentTrouble(
        "unreachable", agent, why, "See whether host and agent run and the network lets us through."
    )
