"""Sessions in PostgreSQL, as Django keeps them, but for one thing: a database that does not answer is told as one.

Django takes every failure to save a session for a session that was deleted meanwhile, and answers 400. That would say of an
act that is done already that nothing was changed.
"""

from __future__ import annotations

from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessions
from django.db import InterfaceError, InternalError, OperationalError


class SessionStore(DatabaseSessions):
    """Raises what the database said where it failed or takes no changes, else what Django raises."""

    def save(self, must_create: bool = False) -> None:
        try:
            super().save(must_create)
        except UpdateError as failure:
            if isinstance(failure.__context__, (OperationalError, InterfaceError, InternalError)):
                raise failure.__context__ from None
            raise
