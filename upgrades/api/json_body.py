"""JSON as it is accepted here: one meaning for every text, of a size and depth that a person could have written."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from upgrades.api.problems import Problem, bad_request

DEEPEST = 20
_LOOK = "Nothing was done. Send one JSON document in UTF-8 as RFC 8259 has it."


def read_json(raw: bytes) -> Any:
    """The value that the body stands for; 400 for whatever two readers could understand differently."""
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except UnicodeDecodeError:
        raise bad_request(f"The body is not UTF-8. {_LOOK}", code="bad-json") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as mistake:
        raise bad_request(f"The body is no JSON: {mistake}. {_LOOK}", code="bad-json") from None
    _check(value)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _check(value: Any) -> None:
    """Level by level: not too deep, and every text can be stored."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise _too_deep()
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += [*item.keys(), *item.values()]
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str):
                check_text(item)
        level = below


def check_text(text: str) -> None:
    """400 for a text with NUL or half a character in it: neither can be stored."""
    if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise bad_request(
            "A text has NUL or half of a surrogate pair in it, which cannot be stored. Nothing was done. Send it without.",
            code="bad-text",
        )


def _too_deep() -> Problem:
    return bad_request(
        f"The body is nested deeper than {DEEPEST} levels. Nothing here needs that; nothing was done.",
        code="bad-json",
    )
