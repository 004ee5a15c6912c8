"""Sessions in PostgreSQL, as Django keeps them, but for two things.

A session in which nobody is signed in is kept for an hour: anybody makes one by beginning to sign in, as often as they like.

And a database that does not answer is told as one.
Django takes every failure to save a session for a session that was deleted meanwhile, and answers 400. That would say of an
act that is done already that nothing was changed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessions
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import InterfaceError, InternalError, OperationalError
from django.utils import timezone

STRANGERS = timedelta(hours=1)  # time enough for a second factor, or for the provider's pages


class SessionStore(DatabaseSessions):
    """Raises what the database said where it failed or takes no changes, else what Django raises."""

    def create_model_instance(self, data: dict[str, Any]) -> AbstractBaseSession:
        row = super().create_model_instance(data)
        if SESSION_KEY not in data:
            row.expire_date = min(row.expire_date, timezone.now() + STRANGERS)
        return row

    def save(self, must_create: bool = False) -> None:
        try:
            super().save(must_create)
        except UpdateError as failure:
            if isinstance(failure.__context__, (OperationalError, InterfaceError, InternalError)):
                raise failure.__context__ from None
            raise
