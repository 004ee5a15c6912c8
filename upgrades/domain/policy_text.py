"""Policies as lines that a person types: who signs, which groups there are, who stands in for whom."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

from upgrades.domain.policy import GROUP, Deputy, People, Policy
from upgrades.domain.refusal import BadInput

_NEED = re.compile(r"(-?\d{1,9})\s+(role|group)\s+([a-z][a-z0-9-]*)")
_GROUP = re.compile(r"([a-z][a-z0-9-]*)\s*:\s*(.*)")
_DEPUTY = re.compile(r"(\S+)\s+by\s+(\S+)\s+from\s+(\d{4}-\d{2}-\d{2})\s+to\s+(\d{4}-\d{2}-\d{2})", re.ASCII)
FIRST_YEAR, LAST_YEAR = 2000, 2099  # of deputies: a day beyond them is a slip of the hand

Names = Mapping[str, str]  # name of sign-in -> id


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_needs(text: str, field: str) -> list[dict[str, Any]]:
    """“2 role approver”, “1 group database”, a line each; no line: nobody signs."""
    needs = []
    for line in _lines(text):
        found = _NEED.fullmatch(line.lower())
        if found is None:
            raise BadInput(
                f"“{line[:80]}” is not understood. Write a line like “2 role approver” or “1 group database”.",
                field,
            )
        needs.append({found[2]: found[3], "signatures": int(found[1])})
    return needs


def write_needs(policy: Policy) -> str:
    return "\n".join(
        f"{need.signatures} group {need.of.removeprefix(GROUP)}"
        if need.of.startswith(GROUP)
        else f"{need.signatures} role {need.of}"
        for need in policy.needs
    )


def read_groups(text: str, names: Names) -> dict[str, list[str]]:
    """“database: nina, oskar”, a line each; the names are those that people sign in with."""
    groups: dict[str, list[str]] = {}
    for line in _lines(text):
        found = _GROUP.fullmatch(line)
        if found is None:
            raise BadInput(
                f"“{line[:80]}” is not understood. Write a line like “database: nina, oskar”.", "groups"
            )
        if found[1] in groups:
            raise BadInput(f"The group {found[1]} is there twice. Put its people on one line.", "groups")
        members = [name.strip() for name in found[2].split(",") if name.strip()]
        groups[found[1]] = [_id(name, names, "groups") for name in members]
    return groups


def write_groups(people: People, names: Mapping[str, str]) -> str:
    """`names`: id -> the name of sign-in."""
    return "\n".join(
        f"{group}: {', '.join(sorted(names.get(member, member) for member in members))}"
        for group, members in sorted(people.groups.items())
    )


def read_deputies(text: str, names: Names) -> list[dict[str, str]]:
    """“anna by bob from 2026-12-01 to 2026-12-14”, a line each; both days count, in UTC."""
    deputies = []
    for line in _lines(text):
        found = _DEPUTY.fullmatch(line)
        if found is None:
            raise BadInput(
                f"“{line[:80]}” is not understood. Write a line like “anna by bob from 2026-12-01 to 2026-12-14”.",
                "deputies",
            )
        deputies.append(
            {
                "person": _id(found[1], names, "deputies"),
                "deputy": _id(found[2], names, "deputies"),
                "from": _day(found[3]).isoformat(),
                "to": (_day(found[4]) + timedelta(days=1)).isoformat(),
            }
        )
    return deputies


def write_deputies(deputies: Sequence[Deputy], names: Mapping[str, str]) -> str:
    return "\n".join(
        f"{names.get(item.person, item.person)} by {names.get(item.deputy, item.deputy)} "
        f"from {item.begins:%Y-%m-%d} to {item.ends - timedelta(days=1):%Y-%m-%d}"
        for item in deputies
    )


def _id(name: str, names: Names, field: str) -> str:
    if name not in names:
        raise BadInput(f"Nobody with a role in this environment signs in as “{name[:80]}”.", field)
    return names[name]


def _day(text: str) -> datetime:
    try:
        day = datetime.combine(datetime.fromisoformat(text).date(), time(), UTC)
    except ValueError:
        raise BadInput(f"{text} is no day.", "deputies") from None
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise BadInput(
            f"{text} lies outside the years {FIRST_YEAR} to {LAST_YEAR}. Write another day.", "deputies"
        )
    return day
