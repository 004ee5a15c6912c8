"""Placeholders of procedure texts, such as ``{new.host}``, and the limits of what people may write."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping

from upgrades.domain.condition import Fact
from upgrades.domain.refusal import BadInput

_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9-]*(?:\.[a-z][a-z0-9-]*)*)\}")
_UNKNOWN = "(not known)"


def placeholders(text: str) -> frozenset[str]:
    """The facts that `text` names in braces."""
    return frozenset(_PLACEHOLDER.findall(text))


def fill(text: str, facts: Mapping[str, Fact]) -> str:
    """`text` with each placeholder replaced by its fact; an unknown one says so instead of vanishing."""

    def value(found: re.Match[str]) -> str:
        fact = facts.get(found.group(1))
        if isinstance(fact, bool):
            return "yes" if fact else "no"
        return fact or _UNKNOWN

    return _PLACEHOLDER.sub(value, text)


def renamed(text: str, name: Callable[[str], str]) -> str:
    """`text` with its placeholders naming other facts: each what `name` makes of it."""
    return _PLACEHOLDER.sub(lambda found: f"{{{name(found.group(1))}}}", text)


def unnamed(text: str) -> str:
    """`text` with each placeholder left open: “No LCA on …”."""
    return _PLACEHOLDER.sub("…", text)


def checked(text: str, *, what: str, least: int = 0, most: int = 2000) -> str:
    """What a person wrote, trimmed and with one form of line end; `BadInput` when it cannot be used."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()
    if any(unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t" for char in text):
        raise BadInput(f"{what} contains control characters. Type it again without them.", what)
    if len(text) < least:
        wanted = "is empty. Write it down" if not text else f"is too short ({len(text)} characters). Say it"
        raise BadInput(f"{what} {wanted} in at least {least} characters, so that others can follow it.", what)
    if len(text) > most:
        raise BadInput(f"{what} has {len(text)} characters; at most {most} are kept. Shorten it.", what)
    return text
