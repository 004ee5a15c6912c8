"""Importing an environment from a file: look first (a dry run), then apply exactly what was shown, all or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath
from uuid import UUID

from django.contrib.auth.models import AbstractUser
from django.db import transaction
from django.utils import timezone

from upgrades.adapters.environment_yaml import read_yaml
from upgrades.domain.environment_records import Change, Content, Ident, Kind, difference, folded, ident
from upgrades.domain.environment_text import (
    MAX_TOLD,
    FileMistake,
    Reading,
    Spot,
    Statements,
    decoded,
    in_order,
    is_csv,
    merged,
    misfits,
    read_csv,
    read_statements,
    visible,
)
from upgrades.domain.record import digest
from upgrades.domain.refusal import OutOfTurn
from upgrades.models import Environment, ImportDraft
from upgrades.queries.environment_export import content_of
from upgrades.services.environment_editing import (
    Changed,
    administered_by,
    apply,
    done_before,
    locked_for,
    obstacles,
    receipt,
)
from upgrades.services.people import actor_for

KEPT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class File:
    """An uploaded file, and whether what it does not list is to be removed."""

    name: str
    data: bytes
    remove_unlisted: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class Look:
    """What a file would do. With mistakes: nothing, and `changes` is empty. `left_out` mistakes are not listed.

    `digest` stands for the file, the wish to remove, and the content that the difference was taken from.
    """

    how: str
    mistakes: tuple[FileMistake, ...]
    left_out: int
    remarks: tuple[FileMistake, ...]
    changes: tuple[Change, ...]
    digest: str
    before: Content
    after: Content

    @property
    def is_usable(self) -> bool:
        return not self.mistakes


def look(environment: Environment, file: File) -> Look:
    """The dry run: every mistake, or the difference. Changes nothing."""
    before = content_of(environment)
    reading, statements = _read(file.data)
    after = merged(before, statements, remove_unlisted=file.remove_unlisted)
    wrong, remarks = misfits(before, after, statements)
    wrong += reading.mistakes + _of_another(before, statements)
    changes: tuple[Change, ...] = ()
    if not wrong:
        changes = difference(before, after)
        wrong = _obstacles(environment, changes, statements)
    mistakes = in_order(wrong)
    return Look(
        how=reading.how,
        mistakes=mistakes[:MAX_TOLD],
        left_out=max(len(mistakes) - MAX_TOLD, 0),
        remarks=in_order(remarks)[:MAX_TOLD],
        changes=() if mistakes else changes,
        digest=digest({"file": file.sha256, "remove": file.remove_unlisted, "before": before.digest()}),
        before=before,
        after=after,
    )


def _read(data: bytes) -> tuple[Reading, Statements]:
    reading = Reading()
    text = decoded(data, reading)
    if text is None:
        return reading, Statements()
    (read_csv if is_csv(text) else read_yaml)(text, reading)
    statements = read_statements(reading)
    if not statements.found and not reading.mistakes:
        reading.wrong(Spot(1, 1), "There is nothing in this file. Fill in rows below the column names.")
    return reading, statements


def _of_another(before: Content, statements: Statements) -> list[FileMistake]:
    """A file that names another environment was meant for another one."""
    stated = statements.found.get(ident(Kind.ENVIRONMENT, ""))
    name = stated.values.get("name", "") if stated else ""
    own = before.environment.name
    if not stated or not name or folded(name) == folded(own):
        return []
    return [
        FileMistake(
            stated.spots["name"],
            "environment",
            f"This file is about “{name}”, and this is “{own}”. Import it there, or take the name out of the file.",
        )
    ]


def _obstacles(
    environment: Environment, changes: Sequence[Change], statements: Statements
) -> list[FileMistake]:
    def spot(key: Ident) -> Spot | None:
        stated = statements.found.get(key)
        return stated.spot if stated else None

    return [FileMistake(spot(key), str(key[0]), text) for key, text in obstacles(environment, changes)]


def cleaned_name(name: str) -> str:
    """The file's own name as data: no folders, nothing unseen."""
    return visible(PurePosixPath(name.replace("\\", "/")).name)[:200] or "without a name"


# The way of the pages: keep the file, show the difference, apply what was shown.


def keep_draft(*, environment_id: int, file: File, by: AbstractUser) -> tuple[Look, UUID | None]:
    """Look at a file and keep it for `apply_draft`; with mistakes it is not kept. One draft per person and environment."""
    environment, _ = administered_by(environment_id, by)
    found = look(environment, file)
    if not found.is_usable:
        return found, None
    with transaction.atomic():
        ImportDraft.objects.filter(environment=environment, user_id=by.pk).delete()
        ImportDraft.objects.filter(made_at__lt=timezone.now() - KEPT).delete()
        draft = ImportDraft.objects.create(
            environment=environment,
            user_id=by.pk,
            name=cleaned_name(file.name),
            data=file.data,
            remove_unlisted=file.remove_unlisted,
        )
    return found, draft.pk


def file_of(draft: ImportDraft) -> File:
    return File(draft.name, bytes(draft.data), draft.remove_unlisted)


@transaction.atomic
def apply_draft(
    *, environment_id: int, draft_id: UUID, shown: str, by: AbstractUser, command_id: UUID
) -> Changed:
    """Apply a draft if it still does what was shown (`shown` is the digest of the look), else `OutOfTurn`."""
    environment, actor = locked_for(environment_id, by)
    earlier = done_before(command_id, actor, "ApplyImport")
    if earlier is not None:
        return earlier
    draft = ImportDraft.objects.filter(pk=draft_id, environment=environment, user_id=by.pk).first()
    if draft is None:
        raise OutOfTurn(
            "This file was applied already, or a newer one has taken its place. Choose the file again."
        )
    done = _apply(environment, file_of(draft), shown, by)
    draft.delete()
    return receipt(command_id, actor, "ApplyImport", done)


def _apply(environment: Environment, file: File, shown: str, by: AbstractUser) -> Changed:
    found = look(environment, file)
    if found.digest != shown:
        raise OutOfTurn(
            "The environment has changed since this difference was shown, so nothing was applied. Look at the new "
            "difference and apply that."
        )
    if not found.is_usable:
        raise OutOfTurn("Nothing was changed. " + " ".join(one.message for one in found.mistakes[:10]))
    return apply(
        environment,
        found.before,
        found.after,
        by=actor_for(by, environment),
        kind="environment.imported",
        note={
            "file": {
                "name": cleaned_name(file.name),
                "sha256": file.sha256,
                "size": len(file.data),
                "form": found.how,
                "remove_unlisted": file.remove_unlisted,
            }
        },
    )


@transaction.atomic
def import_file(
    *, environment_id: int, file: File, by: AbstractUser, shown: str = ""
) -> tuple[Look, Changed | None]:
    """Look and apply at once, for programs: with mistakes nothing happens and the look tells them.

    With `shown`, the digest of an earlier look, OutOfTurn when the file would do something else by now.
    """
    environment, _ = locked_for(environment_id, by)
    found = look(environment, file)
    return found, _apply(environment, file, shown or found.digest, by) if found.is_usable else None
