"""Registering agents: where they are, which key proves them, and whether they answer.

An address and its key belong together: who changes the address gets a new key, so that no old key is ever sent to a
new place (trust.md 11.2). A key is shown once, to whoever made it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.db import transaction
from django.utils import timezone

from upgrades.adapters import outgoing, register
from upgrades.adapters.agent_client import AgentAddress, AgentClient, AgentTrouble, Health
from upgrades.adapters.certificates import fingerprints, read_certificate
from upgrades.domain.agent_address import read_address, read_agent_id
from upgrades.domain.environment_records import Kind, NotUsable, ident
from upgrades.domain.reach import Reach
from upgrades.domain.refusal import BadInput, OutOfTurn, Unavailable
from upgrades.domain.run_events import Actor
from upgrades.models import Agent, Environment, Host, RegisterEntry
from upgrades.queries.environment_editing import held_by_runs
from upgrades.queries.environment_export import changes_book
from upgrades.services.agents import address_of
from upgrades.services.environment_editing import (
    BadFields,
    Changed,
    done_before,
    locked_for,
    receipt,
)
from upgrades.services.runs import announce_environment

TRIES_A_MINUTE = 10
DEADLINE = 5.0  # seconds that a person waits for an agent


@dataclass(frozen=True, slots=True)
class Registered:
    """What was done. `secret` is the new key, shown this once; empty when there is none to show."""

    done: Changed
    agent: str
    key_id: str
    secret: str


@transaction.atomic
def save_agent(
    *,
    environment_id: int,
    host_id: int,
    agent_id: str,
    url: str,
    by: AbstractUser,
    command_id: UUID,
    certificate: str = "",
) -> Registered:
    """Register the agent of a host, or change its id, address or certificate.

    Another id or address makes a new key. Another certificate does not: it says whom TLS believes, the key still
    says whose the answers are.
    """
    environment, actor = locked_for(environment_id, by)
    earlier = done_before(command_id, actor, "SaveAgent")
    host = _host(environment, host_id)
    agent = Agent.objects.filter(host=host).first()
    if earlier is not None:
        return _told_before(earlier, agent)
    agent_id, url, certificate = _read(agent_id, url, certificate)
    stays = agent is not None and (agent.agent_id, agent.url) == (agent_id, url)
    if agent is not None and stays and agent.certificate == certificate:
        return Registered(
            receipt(command_id, actor, "SaveAgent", Changed(environment.pk, 0)), agent_id, agent.key_id, ""
        )
    _must_be_free(environment, host)
    _must_be_only(environment, host, agent_id)
    before = _told(agent) if agent is not None else {}
    agent = agent or Agent(environment=environment, host=host)
    agent.agent_id, agent.url, agent.certificate = agent_id, url, certificate
    if stays:
        agent.save(update_fields=["certificate"])
    secret = "" if stays else _new_key(agent)
    kind = "agent.certificate" if stays else "agent.moved" if before else "agent.registered"
    done = _record(environment, actor, kind, host, before, agent)
    receipt(command_id, actor, "SaveAgent", done)
    return Registered(done, agent.agent_id, agent.key_id, secret)


@transaction.atomic
def rotate_key(*, environment_id: int, host_id: int, by: AbstractUser, command_id: UUID) -> Registered:
    """A new key for the agent of a host; from now on questions are signed with it."""
    environment, actor = locked_for(environment_id, by)
    earlier = done_before(command_id, actor, "RotateAgentKey")
    host = _host(environment, host_id)
    agent = _agent(host)
    if earlier is not None:
        return _told_before(earlier, agent)
    _must_be_free(environment, host)
    before = _told(agent)
    secret = _new_key(agent)
    done = _record(environment, actor, "agent.key", host, before, agent)
    receipt(command_id, actor, "RotateAgentKey", done)
    return Registered(done, agent.agent_id, agent.key_id, secret)


@transaction.atomic
def remove_agent(*, environment_id: int, host_id: int, by: AbstractUser, command_id: UUID) -> Changed:
    """Forget the agent of a host and its key."""
    environment, actor = locked_for(environment_id, by)
    earlier = done_before(command_id, actor, "RemoveAgent")
    if earlier is not None:
        return earlier
    host = _host(environment, host_id)
    agent = _agent(host)
    _must_be_free(environment, host)
    before = _told(agent)
    agent.delete()
    done = _record(environment, actor, "agent.removed", host, before, None)
    return receipt(command_id, actor, "RemoveAgent", done)


def _told_before(earlier: Changed, agent: Agent | None) -> Registered:
    return Registered(earlier, agent.agent_id if agent else "", agent.key_id if agent else "", "")


def _host(environment: Environment, host_id: int) -> Host:
    host = environment.hosts.filter(pk=host_id).first()
    if host is None:
        raise BadInput("There is no such host here.")
    return host


def _agent(host: Host) -> Agent:
    agent = Agent.objects.filter(host=host).first()
    if agent is None:
        raise BadInput(f"No agent is registered on {host.name}. Register it first.")
    return agent


def loopback_allowed() -> bool:
    """Only an installation that nobody but this machine can reach may have agents on this machine, without TLS."""
    return not settings.HTTPS


def _read(agent_id: str, url: str, certificate: str) -> tuple[str, str, str]:
    mistakes: dict[str, str] = {}
    try:
        agent_id = read_agent_id(agent_id)
    except NotUsable as mistake:
        mistakes["agent_id"] = str(mistake)
    try:
        url = read_address(url, loopback=loopback_allowed(), taken_ports=_own_ports())
        _must_be_askable(url)
    except NotUsable as mistake:
        mistakes["url"] = str(mistake)
    try:
        certificate = read_certificate(certificate, at=timezone.now())
    except NotUsable as mistake:
        mistakes["certificate"] = str(mistake)
    if mistakes:
        raise BadFields(mistakes)
    return agent_id, url, certificate


def _own_ports() -> Collection[int]:
    database = settings.DATABASES["default"].get("PORT")
    redis = urlsplit(settings.REDIS_URL).port if "://" in settings.REDIS_URL else None
    return {int(port) for port in (database, redis) if port}


def _must_be_askable(url: str) -> None:
    """Every address that the name has must be one that may be asked; a name that is not known yet may be entered.

    This is for whoever enters it. The check that counts is made with each connection (`adapters.outgoing`).
    """
    reach = Reach(tuple(settings.AGENT_NETWORKS))
    try:
        parts = urlsplit(url)
        outgoing.must_be_allowed(reach, outgoing.addresses_of(parts.hostname or "", parts.port or 443))
    except ValueError:
        raise NotUsable("Its address is not of the form https://host:port.") from None
    except outgoing.NotAllowed:
        raise NotUsable(
            f"This address is outside the networks that may be asked, which are {reach}. Write another one, or have "
            "its network listed in AGENT_NETWORKS."
        ) from None


def _must_be_free(environment: Environment, host: Host) -> None:
    held = held_by_runs(environment).get(ident(Kind.HOST, host.name))
    if held is not None:
        run, title = held
        raise OutOfTurn(
            f"{host.name} belongs to run {run}, “{title}”, which is under way and rests on what its agent says. "
            "End it first."
        )


def _must_be_only(environment: Environment, host: Host, agent_id: str) -> None:
    other = environment.agents.filter(agent_id=agent_id).exclude(host=host).select_related("host").first()
    if other is not None:
        raise BadFields({"agent_id": f"The agent on {other.host.name} has this id. Each agent has its own."})


def _new_key(agent: Agent) -> str:
    """A fresh key with the next id; what was known belongs to the agent before."""
    number = int(agent.key_id[1:]) if agent.key_id[1:].isascii() and agent.key_id[1:].isdigit() else 0
    agent.key_id = f"k{number % 10**9 + 1}"
    agent.secret = secrets.token_hex(32)
    agent.seen_at, agent.trouble, agent.trouble_since, agent.due_at = None, "", None, None
    agent.save()
    return agent.secret


def _told(agent: Agent) -> dict[str, str]:
    """What the account of changes says of an agent: never the key itself."""
    return {
        "id": agent.agent_id,
        "url": agent.url,
        "key": agent.key_id,
        "certificate": " ".join(fingerprints(agent.certificate)),
    }


def _record(
    environment: Environment, actor: Actor, kind: str, host: Host, before: dict[str, str], agent: Agent | None
) -> Changed:
    after = _told(agent) if agent is not None else {}
    titles = (("id", "Id"), ("url", "Address"), ("key", "Key id"), ("certificate", "Certificate"))
    fields = [
        {"field": name, "title": title, "before": before.get(name, ""), "after": after.get(name, "")}
        for name, title in titles
        if before.get(name, "") != after.get(name, "")
    ]
    act = "added" if not before else "removed" if agent is None else "changed"
    change = {"kind": "agent", "act": act, "name": host.name, "fields": fields}
    number = register.enter(changes_book(environment.pk), kind, by=actor, body={"changes": [change]})
    announce_environment(environment.pk)
    return Changed(environment.pk, number)


# Trying.


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of it: one of the causes that we have words for, never anything that the other side sent."""

    is_well: bool
    text: str


def try_agent(*, environment_id: int, host_id: int, by: AbstractUser) -> Tried:
    """Ask the agent of a host for its health, now. Each try is on record, and there are ten a minute."""
    with transaction.atomic():
        environment, actor = locked_for(environment_id, by)
        host = _host(environment, host_id)
        agent = _agent(host)
        _must_not_be_hasty(environment)
        expected = list(host.applications.order_by("name").values_list("name", flat=True))
        change = {"kind": "agent", "act": "asked", "name": host.name, "fields": []}
        register.enter(changes_book(environment.pk), "agent.tried", by=actor, body={"changes": [change]})
    try:
        _must_be_askable(agent.url)
    except NotUsable as mistake:
        return Tried(False, f"It was not asked. {mistake}")
    # The loop has a thread of its own: this one may belong to another loop already.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, _ask(address_of(agent), expected)).result()


def _must_not_be_hasty(environment: Environment) -> None:
    since = timezone.now() - timedelta(minutes=1)
    tries = RegisterEntry.objects.filter(book=changes_book(environment.pk), kind="agent.tried", at__gte=since)
    if tries.count() >= TRIES_A_MINUTE:
        raise Unavailable(
            "Agents of this environment were asked ten times in the last minute. Wait a moment."
        )


async def _ask(address: AgentAddress, expected: Sequence[str]) -> Tried:
    try:
        async with AgentClient(deadline=DEADLINE) as client:
            health = await client.health(address)
    except AgentTrouble as trouble:
        return Tried(False, str(trouble))
    return _judged(health, expected)


def _judged(health: Health, expected: Sequence[str]) -> Tried:
    missing = [name for name in expected if name not in health.applications]
    if missing:
        return Tried(
            False,
            f"The agent answers, but its configuration does not have {', '.join(missing)}. Add them to agent.json.",
        )
    return Tried(True, "The agent answers, its key is right, and it knows every application of this host.")
