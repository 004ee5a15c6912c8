"""Sending the messages that wait: each is taken under a lease, sent once, and marked by whoever still holds the lease.

A worker that dies between sending and marking leaves a message of which nobody knows whether it arrived. It is sent
again with the same id: receivers of webhooks drop what they know, and mail programs show one mail. Nothing else is
ever sent twice.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage
from django.core.validators import validate_email
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from upgrades.adapters import webhook_client
from upgrades.adapters.webhook_client import NotTaken
from upgrades.domain.notice_text import (
    Message,
    mail_of,
    slack_of,
    subject_of,
    teams_of,
    webhook_headers,
    webhook_of,
)
from upgrades.models import Membership, NoticeDelivery, NoticeEndpoint

logger = logging.getLogger(__name__)

BATCH = 8
LEASE = timedelta(seconds=60)  # longer than a message may take, mail included
BUDGET = timedelta(seconds=15)  # of one task
# After the n-th failure; a message that failed once more than there are numbers is parked.
DELAYS = tuple(timedelta(seconds=wait) for wait in (10, 30, 120, 600, 1800, 3600, 10800, 21600))
JITTER = 0.2
PARKED_AFTER = len(DELAYS) + 1
STALE = timedelta(days=2)  # older news, as after an outage or from a backup, would only mislead

Send = Callable[[], Coroutine[Any, Any, str]]


@dataclass(frozen=True, slots=True)
class _Result:
    """How one try ended. `state` is empty when it is to be tried again."""

    state: str
    outcome: str


SENT, PARKED, DROPPED = (NoticeDelivery.State.SENT, NoticeDelivery.State.PARKED, NoticeDelivery.State.DROPPED)


def is_due(now: datetime) -> bool:
    """Whether any message could be sent now."""
    return _due(now).exists()


def _due(now: datetime) -> QuerySet[NoticeDelivery]:
    free = Q(lease_until=None) | Q(lease_until__lte=now)
    return NoticeDelivery.objects.filter(free, state=NoticeDelivery.State.WAITING, next_at__lte=now)


def send_due() -> int:
    """Send what is due, for a while; how many tries were made. Any number of workers may do so at once."""
    began, tries = timezone.now(), 0
    while timezone.now() - began < BUDGET and (taken := _take(timezone.now())):
        tries += len(taken)
        _send_all(taken)
    return tries


def send_now(delivery_id: int) -> NoticeDelivery:
    """Try one message at once, whoever waits for it; gives the row as it is afterwards."""
    taken = _take(timezone.now(), only=delivery_id)
    _send_all(taken)
    return NoticeDelivery.objects.get(pk=delivery_id)


def _take(now: datetime, only: int | None = None) -> list[NoticeDelivery]:
    """Up to a batch of messages under a new lease each; nobody else gets them before it runs out."""
    with transaction.atomic():
        due = _due(now) if only is None else _due(now).filter(pk=only)
        rows = list(
            due.select_for_update(skip_locked=True, of=("self",))
            .select_related("notice__environment", "user", "endpoint")
            .order_by("next_at", "pk")[:BATCH]
        )
        for row in rows:
            row.lease_token, row.lease_until, row.attempts = uuid4(), now + LEASE, row.attempts + 1
            row.save(update_fields=["lease_token", "lease_until", "attempts"])
    return rows


def _send_all(rows: Sequence[NoticeDelivery]) -> None:
    jobs: list[tuple[NoticeDelivery, Send]] = []
    for row in rows:
        job = _prepared(row)
        if isinstance(job, _Result):
            _settle(row, job)
        else:
            jobs.append((row, job))
    if not jobs:
        return
    # The loop has a thread of its own: this one may belong to another loop already. No query is made there.
    with ThreadPoolExecutor(max_workers=1) as thread:
        results = thread.submit(asyncio.run, _tried([send for _, send in jobs])).result()
    for (row, _), result in zip(jobs, results, strict=True):
        _settle(row, result)


async def _tried(sends: Iterable[Send]) -> list[_Result]:
    return list(await asyncio.gather(*(_try(send) for send in sends)))


async def _try(send: Send) -> _Result:
    try:
        return _Result(SENT, await send())
    except NotTaken as trouble:
        return _Result(PARKED if trouble.for_good else "", str(trouble))
    except Exception:
        # One message in trouble must not keep the others waiting; what it is stands in the log.
        logger.exception("a message could not be sent")
        return _Result("", "It could not be sent; the log of the worker says why.")


# What is to be sent, or why nothing is any more.


def _prepared(row: NoticeDelivery) -> Send | _Result:
    if row.attempts > PARKED_AFTER:
        return _Result(PARKED, "A worker ended while it was being sent; nobody knows whether it arrived.")
    if timezone.now() - row.notice.at > STALE:
        return _Result(DROPPED, "It had waited for more than two days.")
    message = _message(row)
    if row.endpoint is not None:
        return _to_endpoint(row.endpoint, message)
    return _by_mail(row, message)


def _message(row: NoticeDelivery) -> Message:
    notice = row.notice
    return Message(
        id=f"msg_{row.message_id.hex}",
        kind=notice.kind,
        environment=notice.environment.name,
        run=notice.run,
        run_title=notice.run_title,
        title=notice.title,
        text=notice.text,
        whom=notice.whom,
        link=f"{settings.BASE_URL}{notice.path}",
        at=notice.at,
    )


def _to_endpoint(endpoint: NoticeEndpoint, message: Message) -> Send | _Result:
    if endpoint.paused:
        return _Result(DROPPED, "The endpoint was paused.")
    url, is_webhook = endpoint.address, endpoint.form == NoticeEndpoint.Form.WEBHOOK
    if not url or (is_webhook and not endpoint.secret):
        return _Result(PARKED, "Its address cannot be read with the present SECRET_KEY. Enter it again.")
    match endpoint.form:
        case NoticeEndpoint.Form.SLACK:
            return lambda: webhook_client.post(url, slack_of(message), {})
        case NoticeEndpoint.Form.TEAMS:
            return lambda: webhook_client.post(url, teams_of(message), {})
    body = webhook_of(message)
    headers = webhook_headers(message, body, base64.b64decode(endpoint.secret), timezone.now())
    return lambda: webhook_client.post(url, body, headers)


def _by_mail(row: NoticeDelivery, message: Message) -> Send | _Result:
    """Only who may still see the environment is told of it."""
    user = row.user
    assert user is not None
    if not user.is_active:
        return _Result(DROPPED, "The account is closed.")
    if not Membership.objects.filter(environment=row.notice.environment_id, user_id=user.pk).exists():
        return _Result(DROPPED, "This person has no role in the environment any more.")
    try:
        validate_email(user.email)
    except ValidationError:
        return _Result(DROPPED, "This person has no mail address here.")
    mail = EmailMessage(
        subject=subject_of(message),
        body=mail_of(message),
        to=[user.email],
        headers={
            "Message-ID": f"<{row.message_id}@{urlsplit(settings.BASE_URL).hostname or 'runbook'}>",
            "Auto-Submitted": "auto-generated",
        },
    )
    return lambda: asyncio.to_thread(_mail, mail)


def _mail(mail: EmailMessage) -> str:
    try:
        mail.send()
    except OSError as trouble:  # a mail server's refusal is one, too
        logger.warning("a mail was not taken: %s", trouble)
        raise NotTaken("The mail server did not take it.") from trouble
    return "The mail server took it."


# Marking.


def _settle(row: NoticeDelivery, result: _Result) -> bool:
    """Write how the try ended, if this worker holds the lease still; a late one changes nothing (fencing)."""
    now = timezone.now()
    state, next_at = result.state, row.next_at
    if not state:
        if row.attempts >= PARKED_AFTER:
            state = PARKED
        else:
            wait = DELAYS[row.attempts - 1]
            next_at = now + wait * random.uniform(1 - JITTER, 1 + JITTER)
    held = NoticeDelivery.objects.filter(pk=row.pk, lease_token=row.lease_token, state="waiting")
    written = held.update(
        state=state or NoticeDelivery.State.WAITING,
        outcome=result.outcome[:200],
        next_at=next_at,
        done_at=now if state else None,
        lease_token=None,
        lease_until=None,
    )
    if written and not state and row.endpoint_id is not None:
        _hold_back(row.endpoint_id, next_at)
    if not written:
        logger.warning("message %s was taken over by another worker", row.pk)
    return bool(written)


def _hold_back(endpoint_id: int, until: datetime) -> None:
    """An endpoint that does not answer gets nothing more until it is tried again, or it would keep workers busy."""
    waiting = NoticeDelivery.objects.filter(endpoint_id=endpoint_id, state="waiting", lease_token=None)
    waiting.filter(next_at__lt=until).update(next_at=until)


# Trying again what was given up.


def try_again(deliveries: QuerySet[NoticeDelivery]) -> int:
    """Have parked messages sent again, with their old ids; how many there are."""
    now = timezone.now()
    return deliveries.filter(state=PARKED).update(
        state=NoticeDelivery.State.WAITING, attempts=0, next_at=now, done_at=None
    )
