"""The courses that an upgrade of a pair can take, by name: what each does and which versions the servers
have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_START = ("backup-database", "install-new", "read-only")
_END = ("stop-old", "install-remaining", "start-remaining", "stop-upgrade-mode", "start-former")
_GENERAL = (*_START, "replace-folder", "launch-new", *_END)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One course. `events` are the numbers that the new server logs until its launch is decided, in order
    (21-25302 left out: it repeats); `steps` are the steps of the HA procedure that lie on this course."""

    name: str
    description: str
    old_version: str
    target: str
    behaviour: str  # detect, not-detected, compatible, same-schema
    events: tuple[int, ...]
    steps: tuple[str, ...]
    database_upgraded: bool = False
    misbehaviours: tuple[tuple[str, str, Any], ...] = ()  # (what, role "new" or "old", value)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "description": self.description,
            "versions": {"old": self.old_version, "target": self.target},
            "behaviour": self.behaviour,
            "database-upgraded": self.database_upgraded,
            "events": [f"21-{number:05d}" for number in self.events],
            "steps": list(self.steps),
            "misbehaviours": [
                {"what": what, "role": role, "value": value} for what, role, value in self.misbehaviours
            ],
        }


def _automatic(name: str, description: str, *misbehaviour: tuple[str, str, Any], **changes: Any) -> Scenario:
    values: dict[str, Any] = {
        "old_version": "8.1.3",
        "target": "8.5.101",
        "behaviour": "detect",
        "events": (22911, 25301, 22902, 22170),
        "steps": _GENERAL,
        "misbehaviours": misbehaviour,
    }
    return Scenario(name, description, **{**values, **changes})


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        _automatic(
            "automatic",
            "The new server finds an older primary, enters upgrade mode by itself and shares its database.",
        ),
        _automatic(
            "forced",
            "The new server does not detect that its peer is older; upgrade mode has to be forced.",
            behaviour="not-detected",
            events=(22911, 22902),
            steps=(*_START, "replace-folder", "launch-new", "force-upgrade-mode", "launch-new", *_END),
        ),
        _automatic(
            "compatible",
            "Both versions are fully compatible: the new server comes up as backup, no upgrade mode.",
            old_version="8.5.100",
            behaviour="compatible",
            events=(22911, 22902, 22172),
            steps=(*_START, "replace-folder", "launch-new"),
        ),
        _automatic(
            "database-upgraded",
            "The database was upgraded at the same time; the new server starts against the upgraded one.",
            database_upgraded=True,
            events=(22911, 25301, 22902, 22171),
            steps=(*_START, "point-to-new-database", "replace-folder", "launch-new", *_END),
        ),
        _automatic(
            "same-schema",
            "8.5.101 runs as backup to an 8.1.3 primary on the same schema; nothing is in upgrade mode.",
            behaviour="same-schema",
            events=(22911, 25303, 22172),
            steps=("backup-database", "install-new", "replace-folder", "launch-new", *_END),
        ),
        _automatic(
            "wrong-database",
            "The new server opens another database than the plan says.",
            ("wrong-database", "new", True),
            events=(22911, 25301, 22902, 22171),
        ),
        _automatic(
            "crash",
            "The new server ends while it initializes, once.",
            ("crash-while-initializing", "new", 1),
            events=(22911, 25301),
        ),
        _automatic("silent", "The new server works but logs nothing.", ("silent", "new", True), events=()),
        _automatic(
            "split-brain",
            "The remaining server comes up as backup and then turns primary beside the running one.",
            ("split-brain", "old", "on-start"),
        ),
        _automatic(
            "rotation",
            "The new server begins a new log segment while its launch is being watched.",
            ("rotate-log", "new", "on-start"),
        ),
        _automatic(
            "clock-skew",
            "The clock of the new server's host is seven minutes ahead.",
            ("clock-skew", "new", 420),
        ),
        _automatic(
            "unknown-format",
            "The new server writes a line in a format that nobody described.",
            ("unknown-format", "new", "on-start"),
        ),
    )
}
