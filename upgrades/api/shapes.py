"""The shapes that several operations take and give. Names and values are a promise: what changes is version 2."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from upgrades.queries.run_page.shapes import Segment

T = TypeVar("T")
FIRST, LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Out(BaseModel):
    """What is answered."""

    model_config = ConfigDict(from_attributes=True)


class In(BaseModel):
    """What is taken: exactly these fields, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Page(BaseModel, Generic[T]):
    """A piece of a list. `next` is the cursor behind it; null at the end."""

    items: list[T]
    next: str | None = None


def _moment(value: Any) -> datetime:
    """RFC 3339 with its zone, from 2000 to 2100."""
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        raise ValueError("a time is written as 2026-11-24T14:02:11Z, with its zone")
    try:
        found = datetime.fromisoformat(value.upper())
    except ValueError:
        raise ValueError("there is no such time") from None
    if not FIRST <= found < LAST:
        raise ValueError("a time lies between 2000 and 2100")
    return found


def _day(value: Any) -> date:
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        raise ValueError("a day is written as 2026-11-24")
    try:
        found = date.fromisoformat(value)
    except ValueError:
        raise ValueError("there is no such day") from None
    if not FIRST.date() <= found < LAST.date():
        raise ValueError("a day lies between 2000 and 2100")
    return found


def _plain(value: Any) -> str:
    """A sentence of a procedure as text, what a person types between backticks."""
    if isinstance(value, str):
        return value
    pieces: Iterable[Segment] = value
    return "".join(f"`{piece.text}`" if piece.code else piece.text for piece in pieces)


Moment = Annotated[datetime, BeforeValidator(_moment)]
Day = Annotated[date, BeforeValidator(_day)]
Sentence = Annotated[str, BeforeValidator(_plain)]
Ids = Annotated[
    list[str], BeforeValidator(lambda sources: [getattr(source, "id", source) for source in sources])
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9:._-]{1,100}$", examples=["install-new"])]
Number = Annotated[int, Field(ge=1, le=999_999_999, examples=[1])]
Limit = Annotated[int, Field(ge=1, le=200, description="How many at most")]
Cursor = Annotated[
    str, Field(max_length=400, description="`next` of the piece before, with the same filters")
]


class May(Out):
    """Whether the token's owner could do it now; `why` it cannot be done."""

    allowed: bool
    why: str


class Done(Out):
    """What a command did: the run's newest event then, and its hash now, for the next If-Match."""

    run: int
    seq: int
    head: str


class Fact(Out):
    label: str
    value: str
