"""Conditions of procedures in words, for people who ask why something is not offered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from upgrades.domain.condition import All, AnyOf, Compare, Condition, Fact, Is, Not, names


def spell(condition: Condition) -> str:
    """The condition as its procedure states it."""
    match condition:
        case Is(name):
            return name
        case Compare(name, operation, other, _):
            return f"{name} {operation} {other}"
        case Not(inner):
            return f"not {_inner(inner)}"
        case All(parts):
            return " and ".join(_inner(part) for part in parts)
        case AnyOf(parts):
            return " or ".join(_inner(part) for part in parts)
        case _:
            assert_never(condition)


def _inner(condition: Condition) -> str:
    text = spell(condition)
    return f"({text})" if isinstance(condition, All | AnyOf) else text


def present(condition: Condition, facts: Mapping[str, Fact]) -> str:
    """What the facts of a condition are now: “old.version is 8.5.101, database-upgraded is not known”."""
    return ", ".join(f"{name} is {_said(facts.get(name))}" for name in sorted(names(condition)))


def _said(fact: Fact) -> str:
    if isinstance(fact, bool):
        return "true" if fact else "false"
    return fact or "not known"
