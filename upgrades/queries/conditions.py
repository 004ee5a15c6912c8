"""Conditions of procedures in words, for people who ask why something is not offered."""

from __future__ import annotations

from collections.abc import Mapping

from upgrades.domain.condition import Condition, Fact, names, spell

__all__ = ["present", "spell"]


def present(condition: Condition, facts: Mapping[str, Fact]) -> str:
    """What the facts of a condition are now: “old.version is 8.5.101, database-upgraded is not known”."""
    return ", ".join(f"{name} is {_said(facts.get(name))}" for name in sorted(names(condition)))


def _said(fact: Fact) -> str:
    if isinstance(fact, bool):
        return "true" if fact else "false"
    return fact or "not known"
