"""Policies in words, and the changes of them that are proposed or were decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model

from upgrades.domain.policy import (
    Policy,
    lacks_people,
    only_holder_acts,
    people_in,
    policies_in,
)
from upgrades.domain.policy_text import write_deputies, write_groups
from upgrades.models import Environment, PolicyChange
from upgrades.queries.people import policy_people
from upgrades.queries.run_page.sight import spoken

SHOWN = 30  # decided changes

RESULTS = {
    "lapse": "signatures lapse after {}",
    "reject": "rejected if not decided within {}",
    "hold": "the run is put on hold if not decided within {}",
}


def policy_notes(policy: Policy) -> tuple[str, ...]:
    """What a policy says beside how many sign."""
    notes = []
    if policy.expiry is not None:
        notes.append(RESULTS[policy.expiry.result].format(spoken(policy.expiry.after)))
    if policy.ahead:
        notes.append("may be signed ahead")
    if policy.override:
        notes.append("emergency override allowed")
    if policy.never:
        notes.append(f"never waived: {', '.join(sorted(policy.never))}")
    return tuple(notes)


@dataclass(frozen=True, slots=True)
class Line:
    """One statement of the document: what about, and what it says; `lack` is who is missing to fill it."""

    label: str
    text: str
    lack: str = ""


@dataclass(frozen=True, slots=True)
class Changed:
    """A statement that differs; empty where it was or is not there."""

    label: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class ChangeRow:
    change: PolicyChange
    lines: tuple[Changed, ...]


@dataclass(frozen=True, slots=True)
class PoliciesPage:
    lines: tuple[Line, ...]
    open: ChangeRow | None
    decided: tuple[ChangeRow, ...]


def usernames(environment: Environment) -> dict[str, str]:
    """The ids of everybody with a role here, by the name that each signs in with."""
    users = get_user_model().objects.filter(memberships__environment=environment, is_active=True).distinct()
    return {user.get_username(): f"user:{user.pk}" for user in users}


def policies_page(environment: Environment) -> PoliciesPage:
    """What holds now, what is proposed, and what was decided."""
    names = {person: name for name, person in usernames(environment).items()}
    people, groups = policy_people(environment), people_in(environment.policies)
    lacks = {
        _title(policy): lacks_people(policy, groups, people) for policy in policies_in(environment.policies)
    }
    rows = [
        _row(change, names) for change in environment.policy_changes.order_by("-asked_at", "-pk")[: SHOWN + 1]
    ]
    return PoliciesPage(
        lines=tuple(
            Line(label, text, lacks.get(label, ""))
            for label, text in said_by(environment.policies, names).items()
        ),
        open=next((row for row in rows if row.change.status == "open"), None),
        decided=tuple(row for row in rows if row.change.status != "open")[:SHOWN],
    )


def _row(change: PolicyChange, names: Mapping[str, str]) -> ChangeRow:
    return ChangeRow(change, changed(change.before, change.document, names))


def changed(
    before: Mapping[str, Any], after: Mapping[str, Any], names: Mapping[str, str]
) -> tuple[Changed, ...]:
    """What differs between two documents, in words. `names`: id -> the name of sign-in."""
    was, becomes = said_by(before, names), said_by(after, names)
    return tuple(
        Changed(label, was.get(label, ""), becomes.get(label, ""))
        for label in dict.fromkeys([*was, *becomes])
        if was.get(label) != becomes.get(label)
    )


def _title(policy: Policy) -> str:
    return policy.name.replace("-", " ").capitalize()


def said_by(document: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    """The document in words. `names`: id -> the name of sign-in."""
    people = people_in(document)
    said = {
        _title(policy): "; ".join((policy.in_words, *policy_notes(policy)))
        for policy in policies_in(document)
    }
    groups, deputies = write_groups(people, names), write_deputies(people.deputies, names)
    if groups:
        said["Groups"] = groups
    if deputies:
        said["Deputies"] = deputies
    said["Steps"] = "only the holder acts" if only_holder_acts(document) else "the holder is shown"
    return said
