"""Cursors: where a list goes on. Signed, so that nobody makes one up, and bound to the list, its filters and its reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core import signing

from upgrades.api.problems import Problem, bad_request
from upgrades.domain.record import digest

SALT = "runbook.api.cursor"


def cursor_for(position: int, *, reader: int, query: Mapping[str, Any]) -> str:
    """The cursor behind `position` in the list that `query` (its name and filters) stands for."""
    return signing.dumps([position, _bound(reader, query)], salt=SALT)


def position_of(cursor: str | None, *, reader: int, query: Mapping[str, Any]) -> int | None:
    """The position that a cursor holds; None without one; 400 for one that is changed or of another list."""
    if cursor is None:
        return None
    try:
        position, bound = signing.loads(cursor, salt=SALT)
    except (signing.BadSignature, ValueError, TypeError):
        raise _refused() from None
    if bound != _bound(reader, query) or not isinstance(position, int):
        raise _refused()
    return position


def gone() -> Problem:
    """400: what the cursor points behind is not in the list any more."""
    return _refused()


def _bound(reader: int, query: Mapping[str, Any]) -> str:
    told = {name: str(value) for name, value in query.items() if value is not None}
    return digest({"reader": reader, "query": told})[:32]


def _refused() -> Problem:
    return bad_request(
        "This cursor was not made for this list, these filters and this token's owner, or what it points behind is gone. "
        "Ask without it, and go on with the cursors of those answers.",
        [{"field": "cursor", "detail": "not usable here"}],
        code="bad-cursor",
    )
