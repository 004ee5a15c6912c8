"""What every log line says beside its text: the request, task, person, run and step that it belongs to.

Numbers and ids only, never a name: whoever reads the logs looks a person up where there is a right to. The values
follow the work into threads and coroutines that it starts (contextvars).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar, Token

Value = str | int
Scope = dict[str, Value]

_scope: ContextVar[Scope] = ContextVar("log_context")


def fields() -> Mapping[str, Value]:
    """What the present work belongs to."""
    return _scope.get({})


def add(**known: Value | None) -> None:
    """Say more of the present work; outside of `begin` or `about` there is nothing to say it of."""
    scope = _scope.get(None)
    if scope is not None:
        scope.update((name, value) for name, value in known.items() if value is not None)


def begin(**known: Value | None) -> Token[Scope]:
    """A new piece of work, which inherits nothing; give the token to `end`."""
    return _scope.set({name: value for name, value in known.items() if value is not None})


def end(token: Token[Scope]) -> None:
    _scope.reset(token)


@contextlib.contextmanager
def about(**known: Value | None) -> Iterator[None]:
    """Inside, log lines say this too."""
    token = _scope.set({**fields(), **{name: value for name, value in known.items() if value is not None}})
    try:
        yield
    finally:
        _scope.reset(token)
