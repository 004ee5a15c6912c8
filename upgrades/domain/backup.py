"""What a backup says of itself, and when it may be believed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from upgrades.domain.record import canonical
from upgrades.domain.refusal import Refused

FORMAT = 1
MANIFEST = "manifest.json"
DATABASE = "database.dump"
CHECKPOINTS = "checkpoints.jsonl"
EVIDENCE = "evidence"
HASH = re.compile(r"[0-9a-f]{64}")


class BadBackup(Refused):
    """The folder is no whole backup, or not the one that was made."""

    code = "bad-backup"


@dataclass(frozen=True, slots=True)
class Manifest:
    """`files`: the SHA-256 of every file by its place in the folder. `roles`: who has rights in the database besides its owner.

    `broken`: what of the record was not what was written already when the backup was made.
    """

    release: str
    made_at: str
    server: str
    migrations: Mapping[str, tuple[str, ...]]
    roles: tuple[str, ...]
    runs: int
    events: int
    checkpoint: int
    files: Mapping[str, str]
    broken: tuple[str, ...]

    @property
    def text(self) -> str:
        """The one text of it: its SHA-256 names the whole backup."""
        return canonical({"format": FORMAT, **{name: getattr(self, name) for name in self.__slots__}})


def read_manifest(text: str) -> Manifest:
    """BadBackup: it is not one that this release has written or knows."""
    try:
        told = json.loads(text)
        if told["format"] != FORMAT:
            raise BadBackup(
                f"The backup has form {told['format']}, and this release reads form {FORMAT}. "
                "Restore it with the release that made it."
            )
        manifest = _read(told)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadBackup(
            f"{MANIFEST} is damaged: it is not what `manage.py backup` writes. Take another backup."
        ) from None
    strange = sorted(name for name, found in manifest.files.items() if not _may_be(name, found))
    if strange:
        raise BadBackup(f"{MANIFEST} names a file that no backup has: {strange[0]!r}. Take another backup.")
    return manifest


def _read(told: Mapping[str, Any]) -> Manifest:
    return Manifest(
        release=str(told["release"]),
        made_at=str(told["made_at"]),
        server=str(told["server"]),
        migrations={str(app): tuple(names) for app, names in told["migrations"].items()},
        roles=tuple(told["roles"]),
        runs=int(told["runs"]),
        events=int(told["events"]),
        checkpoint=int(told["checkpoint"]),
        files=dict(told["files"]),
        broken=tuple(told["broken"]),
    )


def _may_be(name: str, found: object) -> bool:
    """Whether a file of this name, in one of our folders and nowhere else, can belong to a backup."""
    path = PurePosixPath(name)
    inside = not path.is_absolute() and ".." not in path.parts and str(path) == name and "\\" not in name
    known = name in (DATABASE, CHECKPOINTS) or path.parts[:1] == (EVIDENCE,)
    return inside and known and isinstance(found, str) and bool(HASH.fullmatch(found))
