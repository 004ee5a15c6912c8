"""A person's calendar of planned runs at a secret address, which the person can renew and revoke.

A calendar program signs in nowhere, so whoever has the address reads the feed. It holds 256 random bits, only its hash
is kept, and it tells nothing but titles and times of what the person may see at the moment of reading.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import timedelta

from django.contrib.auth.models import AbstractUser
from django.db.models import Q
from django.utils import timezone

from upgrades.models import CalendarFeed

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
READ_EVERY = timedelta(minutes=5)  # how exactly it is known when the feed was read last


def make_feed(user: AbstractUser) -> str:
    """A new secret for the person's feed; the one before counts no longer. It is shown this once."""
    token = secrets.token_urlsafe(32)
    CalendarFeed.objects.update_or_create(
        user_id=user.pk,
        defaults={"token_hash": _hash(token), "made_at": timezone.now(), "read_at": None},
    )
    return token


def revoke_feed(user: AbstractUser) -> bool:
    """The address counts no longer; False when there was none."""
    deleted, _ = CalendarFeed.objects.filter(user_id=user.pk).delete()
    return bool(deleted)


def reader_of(token: str) -> AbstractUser | None:
    """Whose feed this is; None for every secret that is no open account's."""
    if not _TOKEN.fullmatch(token):
        return None
    feed = CalendarFeed.objects.select_related("user").filter(token_hash=_hash(token)).first()
    if feed is None or not feed.user.is_active:
        return None
    now = timezone.now()
    seen_before = Q(read_at=None) | Q(read_at__lt=now - READ_EVERY)
    CalendarFeed.objects.filter(seen_before, pk=feed.pk).update(read_at=now)
    return feed.user


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
