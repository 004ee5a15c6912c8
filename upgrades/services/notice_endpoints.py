"""The endpoints that an environment tells: added, paused, tried and removed by its administrators, all on record.

What stands in the register are name, form, host and a fingerprint, never the address or the secret. Where a sender has
made an id for its command, the command is carried out once: sent again, it gives what it made, without the secret.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

from django.contrib.auth.models import AbstractUser
from django.db import IntegrityError, transaction
from django.urls import reverse
from django.utils import timezone

from upgrades.adapters import register
from upgrades.adapters.webhook_client import read_target
from upgrades.domain.environment_records import NotUsable
from upgrades.domain.notices import TEST, TITLES, Kind
from upgrades.domain.refusal import BadInput, OutOfTurn, TooOften, VersionMoved
from upgrades.domain.run_events import Actor
from upgrades.models import (
    CommandReceipt,
    Environment,
    Notice,
    NoticeDelivery,
    NoticeEndpoint,
    RegisterEntry,
)
from upgrades.queries.environment_export import changes_book
from upgrades.queries.notices import endpoint_version
from upgrades.services.environment_editing import locked_for
from upgrades.services.notice_sending import send_now, try_again
from upgrades.services.notices import delivery_to, ring

MOST = 20  # of one environment
TRIES_A_MINUTE = 10


@dataclass(frozen=True, slots=True)
class Made:
    """`secret` is what webhooks are signed with, shown this once; empty for chats, and for a command sent again."""

    endpoint: NoticeEndpoint
    secret: str


@transaction.atomic
def add_endpoint(
    *,
    environment_id: int,
    name: str,
    form: str,
    address: str,
    kinds: Iterable[str],
    by: AbstractUser,
    command_id: UUID | None = None,
) -> Made:
    """Have an environment tell one more endpoint."""
    environment, actor = locked_for(environment_id, by)
    before = _made_before(command_id, actor, ADD)
    if before is not None:
        return Made(_endpoint(environment, before), "")
    if environment.notice_endpoints.count() >= MOST:
        raise OutOfTurn(f"An environment has {MOST} endpoints at most. Remove one that is not used any more.")
    name = _name(environment, name)
    if form not in NoticeEndpoint.Form.values:
        raise BadInput("This is no form of message. Choose one of the list.", "form")
    try:
        target = read_target(address)
    except NotUsable as mistake:
        raise BadInput(str(mistake), "address") from None
    secret, shown = _new_secret() if form == NoticeEndpoint.Form.WEBHOOK else ("", "")
    endpoint = NoticeEndpoint.objects.create(
        environment=environment,
        name=name,
        form=form,
        address=target.url,
        host=target.host,
        fingerprint=hashlib.sha256(target.url.encode()).hexdigest()[:12],
        secret=secret,
        kinds=_kinds(kinds),
        made_at=timezone.now(),
    )
    fields = {
        "Form": form,
        "Host": target.host,
        "Address": endpoint.fingerprint,
        "Told of": _told_of(endpoint),
    }
    _record(
        environment,
        actor,
        "endpoint.added",
        "added",
        endpoint,
        {name: ("", now) for name, now in fields.items()},
    )
    _receipt(command_id, actor, ADD, endpoint.pk)
    return Made(endpoint, shown)


def _name(environment: Environment, name: str) -> str:
    name = unicodedata.normalize("NFKC", name).strip()
    if not name or len(name) > 80 or not name.isprintable():
        raise BadInput("Give the endpoint a name of 80 characters at most, on one line.", "name")
    if environment.notice_endpoints.filter(name__iexact=name).exists():
        raise BadInput("There is an endpoint of that name here. Choose another name.", "name")
    return name


def _kinds(kinds: Iterable[str]) -> list[str]:
    wished = set(kinds)
    known = [str(kind) for kind in Kind if kind in wished]
    if not known or len(known) != len(wished):
        raise BadInput("Choose what the endpoint is told of: one kind of notice at least.", "kinds")
    return known


def _new_secret() -> tuple[str, str]:
    """A fresh secret, as it is kept and as its receiver writes it down (Standard Webhooks)."""
    plain = base64.b64encode(secrets.token_bytes(32)).decode()
    return plain, f"whsec_{plain}"


def _told_of(endpoint: NoticeEndpoint) -> str:
    return ", ".join(TITLES[Kind(kind)] for kind in endpoint.kinds)


@transaction.atomic
def change_endpoint(
    *,
    environment_id: int,
    endpoint_id: int,
    by: AbstractUser,
    kinds: Iterable[str] | None = None,
    paused: bool | None = None,
    seen: str = "",
) -> NoticeEndpoint:
    """Choose anew what an endpoint is told of, tell it nothing for now, or again; None leaves it as it is.

    What happens while it is paused is not sent later. With `seen`, the version that its sender knows
    (queries.notices.endpoint_version), `VersionMoved` when it is another one.
    """
    environment, actor = locked_for(environment_id, by)
    endpoint = _endpoint(environment, endpoint_id)
    _must_be(endpoint, seen)
    before = {"Told of": _told_of(endpoint), "State": _state(endpoint)}
    if kinds is not None:
        endpoint.kinds = _kinds(kinds)
    if paused is not None:
        endpoint.paused = paused
    after = {"Told of": _told_of(endpoint), "State": _state(endpoint)}
    changed = {title: (before[title], after[title]) for title in before if before[title] != after[title]}
    if changed:
        endpoint.save(update_fields=["kinds", "paused"])
        _record(environment, actor, "endpoint.changed", "changed", endpoint, changed)
    return endpoint


def _state(endpoint: NoticeEndpoint) -> str:
    return "paused" if endpoint.paused else "told"


def _must_be(endpoint: NoticeEndpoint, seen: str) -> None:
    if seen and endpoint_version(endpoint) != seen:
        raise VersionMoved(
            f"Somebody has changed {endpoint.name} since you looked. Nothing was done. Read the endpoints again."
        )


@transaction.atomic
def renew_secret(
    *, environment_id: int, endpoint_id: int, by: AbstractUser, command_id: UUID | None = None
) -> Made:
    """A new secret for a webhook; the next message is signed with it."""
    environment, actor = locked_for(environment_id, by)
    endpoint = _endpoint(environment, endpoint_id)
    if _made_before(command_id, actor, RENEW) == endpoint.pk:
        return Made(endpoint, "")
    if endpoint.form != NoticeEndpoint.Form.WEBHOOK:
        raise OutOfTurn("Messages to chats are not signed: their address is the secret. Add the new address.")
    endpoint.secret, shown = _new_secret()
    endpoint.save(update_fields=["secret"])
    _record(environment, actor, "endpoint.secret", "changed", endpoint, {"Secret": ("one", "another one")})
    _receipt(command_id, actor, RENEW, endpoint.pk)
    return Made(endpoint, shown)


@transaction.atomic
def remove_endpoint(*, environment_id: int, endpoint_id: int, by: AbstractUser, seen: str = "") -> str:
    """Forget an endpoint with its messages; gives its name. `seen` as for a change."""
    environment, actor = locked_for(environment_id, by)
    endpoint = _endpoint(environment, endpoint_id)
    _must_be(endpoint, seen)
    fields = {
        "Form": (str(endpoint.form), ""),
        "Host": (endpoint.host, ""),
        "Address": (endpoint.fingerprint, ""),
    }
    _record(environment, actor, "endpoint.removed", "removed", endpoint, fields)
    endpoint.delete()
    return endpoint.name


@transaction.atomic
def send_again(*, environment_id: int, by: AbstractUser) -> int:
    """Have everything that was given up in this environment sent again; how many messages."""
    environment, _ = locked_for(environment_id, by)
    count = try_again(NoticeDelivery.objects.filter(notice__environment=environment))
    transaction.on_commit(ring)
    return count


def try_endpoint(
    *, environment_id: int, endpoint_id: int, by: AbstractUser, command_id: UUID | None = None
) -> NoticeDelivery:
    """Send a test message now and give what came of it. Each try is on record, and there are ten a minute."""
    with transaction.atomic():
        environment, actor = locked_for(environment_id, by)
        endpoint = _endpoint(environment, endpoint_id)
        before = _made_before(command_id, actor, TRY)
        if before is not None:
            return _sent_before(endpoint, before)
        if endpoint.paused:
            raise OutOfTurn("This endpoint is paused. Resume it first.")
        _must_not_be_hasty(environment)
        _record(environment, actor, "endpoint.tried", "asked", endpoint, {})
        now = timezone.now()
        notice = Notice.objects.create(
            identity=f"test:{uuid4()}",
            kind=TEST,
            environment=environment,
            title="A test message",
            text="Nothing has happened. Somebody wanted to see whether this endpoint listens.",
            whom="nobody has to",
            path=reverse("environment", args=[environment.pk]),
            at=now,
        )
        delivery = delivery_to(endpoint, notice, now)
        delivery.save()
        _receipt(command_id, actor, TRY, delivery.pk)
    return send_now(delivery.pk)


def _sent_before(endpoint: NoticeEndpoint, delivery_id: int) -> NoticeDelivery:
    found = endpoint.deliveries.filter(pk=delivery_id).first()
    if found is None:
        raise BadInput(_USED)
    return found


def _must_not_be_hasty(environment: Environment) -> None:
    since = timezone.now() - timedelta(minutes=1)
    tries = RegisterEntry.objects.filter(
        book=changes_book(environment.pk), kind="endpoint.tried", at__gte=since
    )
    if tries.count() >= TRIES_A_MINUTE:
        raise TooOften(
            "Endpoints of this environment were tried ten times in the last minute. Wait a moment.", wait=60
        )


def _endpoint(environment: Environment, endpoint_id: int) -> NoticeEndpoint:
    found = environment.notice_endpoints.filter(pk=endpoint_id).first()
    if found is None:
        raise OutOfTurn("There is no such endpoint here any more. Load the page again.")
    return found


# Commands with an id are carried out once.

ADD, RENEW, TRY = "AddEndpoint", "RenewSecret", "TryEndpoint"
_USED = "This id was used for something else before. Nothing was done. Make a new one, and repeat your act."


def _made_before(command_id: UUID | None, actor: Actor, act: str) -> int | None:
    """The id of what the same command made, if it was carried out before."""
    found = CommandReceipt.objects.filter(pk=command_id).first() if command_id is not None else None
    if found is None:
        return None
    if (found.actor_id, found.act) != (actor.id, act):
        raise BadInput(_USED)
    return int(found.answer)


def _receipt(command_id: UUID | None, actor: Actor, act: str, made: int) -> None:
    if command_id is None:
        return
    try:
        with transaction.atomic():
            CommandReceipt.objects.create(
                command_id=command_id,
                actor_id=actor.id,
                act=act,
                seq=0,
                answer=str(made),
                at=timezone.now(),
            )
    except IntegrityError as elsewhere:  # in another environment, whose lock is another one, at this moment
        raise BadInput(_USED) from elsewhere


def _record(
    environment: Environment,
    actor: Actor,
    kind: str,
    act: str,
    endpoint: NoticeEndpoint,
    fields: Mapping[str, tuple[str, str]],
) -> None:
    lines = [
        {"field": title.lower(), "title": title, "before": before, "after": after}
        for title, (before, after) in fields.items()
    ]
    change = {"kind": "endpoint", "act": act, "name": endpoint.name, "fields": lines}
    register.enter(changes_book(environment.pk), kind, by=actor, body={"changes": [change]})
