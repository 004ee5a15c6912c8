"""Backup and restore: the database, the evidence files and the checkpoints of one moment (docs/adr/0018).

Whatever is written while a backup is made belongs to the next one: all of it is read from one snapshot. A backup is
whole once it has its manifest, which is written last. It is put back into an empty place only, and nowhere else.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from django.conf import settings
from django.core.files.base import File
from django.core.files.storage import default_storage
from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader
from psycopg import sql

from upgrades.adapters import checkpoint_store, postgres_tools, register
from upgrades.domain.backup import (
    CHECKPOINTS,
    DATABASE,
    EVIDENCE,
    MANIFEST,
    BadBackup,
    Manifest,
    read_manifest,
)
from upgrades.domain.checkpoint import read_note
from upgrades.domain.refusal import Refused
from upgrades.domain.run_events import Actor
from upgrades.models import Checkpoint, Evidence, Run, RunEvent
from upgrades.services.record import broken_record

BLOCK = 1 << 20


class NotEmpty(Refused):
    """Something is there already that would be mixed or lost."""

    code = "not-empty"


class NotSound(Refused):
    """What was put back is not what was written."""

    code = "not-sound"


@dataclass(frozen=True, slots=True)
class Done:
    """A finished backup or restore; `hash` names the backup. `lost`: checkpoints that left the system after it was made."""

    manifest: Manifest
    hash: str
    lost: tuple[int, ...] = ()


def back_up(folder: Path) -> Done:
    """A new backup in a new or empty folder. It goes on the register when it is whole."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise NotEmpty(f"{folder} is not empty. Name a new folder: a backup never mixes with another one.")
    folder.chmod(0o700)
    with _snapshot() as snapshot:
        postgres_tools.dump(folder / DATABASE, snapshot)
        _write(folder / CHECKPOINTS, (f"{line}\n".encode() for line in checkpoint_store.all_lines()))
        _take_evidence(folder / EVIDENCE)
        manifest = _manifest(folder)
    _write(folder / MANIFEST, [manifest.text.encode()])
    done = Done(manifest, hashlib.sha256(manifest.text.encode()).hexdigest())
    _enter(register.BACKUP_TAKEN, done)
    return done


@contextlib.contextmanager
def _snapshot() -> Iterator[str]:
    """Everything read inside is of one moment; the name lets another session see the same."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")  # a dump may take its time
        cursor.execute("SELECT pg_export_snapshot()")
        yield cursor.fetchone()[0]


def _take_evidence(folder: Path) -> None:
    """Copies of all files that the snapshot knows; one that is not there is told by the check of the record."""
    for name in Evidence.objects.order_by("pk").values_list("file", flat=True).iterator():
        with contextlib.suppress(FileNotFoundError), default_storage.open(name) as file:
            _write(folder / name, _blocks(file))


def _manifest(folder: Path) -> Manifest:
    with connection.cursor() as cursor:
        cursor.execute("SELECT now(), current_setting('server_version')")
        made_at, server = cursor.fetchone()
        cursor.execute(_ROLES)
        roles = tuple(name for (name,) in cursor.fetchall())
    newest = Checkpoint.objects.order_by("-number").values_list("number", flat=True).first()
    return Manifest(
        release=settings.RELEASE,
        made_at=made_at.isoformat(),
        server=server,
        migrations=_made_migrations(),
        roles=roles,
        runs=Run.objects.count(),
        events=RunEvent.objects.count(),
        checkpoint=newest or 0,
        files={name: _hash(folder / name) for name in sorted(_files(folder))},
        broken=tuple(str(item) for item in broken_record()),
    )


# Everybody who was granted something on what we made; PostgreSQL's own roles are there wherever it is.
_ROLES = r"""
SELECT DISTINCT rolname FROM (
    SELECT (aclexplode(relacl)).grantee, relowner AS owner FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION SELECT (aclexplode(proacl)).grantee, proowner FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION SELECT (aclexplode(nspacl)).grantee, nspowner FROM pg_namespace WHERE nspname = 'public'
) AS granted JOIN pg_roles ON pg_roles.oid = grantee
WHERE grantee <> owner AND rolname NOT LIKE 'pg\_%' ORDER BY rolname
"""


def _made_migrations() -> dict[str, tuple[str, ...]]:
    made: dict[str, list[str]] = defaultdict(list)
    for app, name in sorted(MigrationLoader(connection).applied_migrations):
        made[app].append(name)
    return {app: tuple(names) for app, names in made.items()}


# Restoring.


def restore(folder: Path, *, outside: Path | None = None, expected: str = "") -> Done:
    """Put a backup into the empty database and the empty folder of evidence that the settings name, and check all of it.

    `outside`: checkpoints that were kept outside; what they know and the backup does not is told as lost. `expected`: the hash
    that `back_up` gave, where somebody kept it. Refusals before anything is written: BadBackup, NotEmpty.
    """
    manifest, found = _sound(folder, expected)
    kept = _kept_outside(outside)
    _known_migrations(manifest)
    _nothing_there()
    _make_roles(manifest.roles)
    postgres_tools.restore(folder / DATABASE)
    _put_evidence(folder, manifest)
    lost = _compare(folder, manifest, kept)
    done = Done(manifest, found, lost)
    _enter(register.BACKUP_RESTORED, done)
    return done


def _sound(folder: Path, expected: str) -> tuple[Manifest, str]:
    """The manifest, when the folder has exactly the files that it names, each with its hash."""
    try:
        written = (folder / MANIFEST).read_bytes()
    except OSError as trouble:
        raise BadBackup(
            f"{folder} has no {MANIFEST} that can be read ({trouble.strerror}): it is no backup, or one that was not "
            "finished. Name another folder."
        ) from None
    found = hashlib.sha256(written).hexdigest()
    if expected and found != expected.lower():
        raise BadBackup(
            f"This is not the backup that was meant: its manifest has the SHA-256 {found}. Name the right folder, or keep "
            "this one as it is and find out who changed it."
        )
    manifest = read_manifest(written.decode(errors="replace"))
    there = _files(folder) - {MANIFEST}
    keep = "Do not use this backup; keep it as it is and find out what happened to it."
    for name in sorted(manifest.files.keys() | there):
        if name not in there:
            raise BadBackup(f"{name} is missing in the backup. {keep}")
        if name not in manifest.files:
            raise BadBackup(f"{name} does not belong to the backup: its manifest does not name it. {keep}")
        if _hash(folder / name) != manifest.files[name]:
            raise BadBackup(f"{name} is not the file that was written: its SHA-256 is another one. {keep}")
    return manifest, found


def _kept_outside(path: Path | None) -> dict[int, str]:
    """The notes of a file of checkpoints, by number."""
    if path is None:
        return {}
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            notes = [line["note"] for line in checkpoint_store.read_file(lines)]
            return {read_note(note).checkpoint.number: note for note in notes}
    except (OSError, ValueError) as trouble:
        raise BadBackup(
            f"The checkpoints in {path} cannot be read ({trouble}). Name the file that was kept outside, or none."
        ) from None


def _known_migrations(manifest: Manifest) -> None:
    known = MigrationLoader(None).disk_migrations
    unknown = [
        f"{app} {name}"
        for app, names in manifest.migrations.items()
        for name in names
        if (app, name) not in known
    ]
    if unknown:
        raise BadBackup(
            f"The backup was made with release {manifest.release}, whose tables this release does not know ({unknown[0]}). "
            "Restore it with that release or a later one."
        )


def _nothing_there() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
            r" WHERE nspname <> 'information_schema' AND nspname NOT LIKE 'pg\_%'"
        )
        if cursor.fetchone()[0]:
            raise NotEmpty(
                f"The database {connection.settings_dict['NAME']} is not empty, and a restore never replaces anything. "
                "Make a new one (createdb) and name it in DATABASE_URL."
            )
    place = Path(settings.EVIDENCE_FOLDER)
    if place.exists() and any(place.iterdir()):
        raise NotEmpty(
            f"EVIDENCE_FOLDER ({place}) is not empty, and a restore never replaces anything. Name another folder, or move "
            "what is there away."
        )


def _make_roles(roles: tuple[str, ...]) -> None:
    """The roles that the backup's rights are for; without passwords until `restrict_role` gives them one."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [list(roles)])
        missing = sorted(set(roles) - {name for (name,) in cursor.fetchall()})
        cursor.execute("SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user")
        if missing and not cursor.fetchone()[0]:
            raise Refused(
                f"The role {missing[0]} has rights in the backup and does not exist here, and this role may not make it. "
                f"As a superuser: CREATE ROLE {missing[0]} LOGIN;"
            )
        for name in missing:
            cursor.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))


def _put_evidence(folder: Path, manifest: Manifest) -> None:
    """The files; put back by root they go to the owner of the folder, for web and workers are not root."""
    place = Path(settings.EVIDENCE_FOLDER)
    for name in manifest.files:
        if name.startswith(f"{EVIDENCE}/"):
            with (folder / name).open("rb") as file:
                _write(place / name.removeprefix(f"{EVIDENCE}/"), _blocks(file))
    if os.geteuid() == 0 and place.exists():
        owner = place.stat()
        for path in place.rglob("*"):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _compare(folder: Path, manifest: Manifest, kept: dict[int, str]) -> tuple[int, ...]:
    """Check the whole record; the numbers of the checkpoints outside that the backup does not have yet."""
    broken = [str(item) for item in broken_record(folder / CHECKPOINTS)]
    stored = dict(Checkpoint.objects.values_list("number", "note"))
    broken += [
        f"checkpoint {number}: the one that was kept outside is another one"
        for number, note in sorted(kept.items())
        if stored.get(number, note) != note
    ]
    new = [line for line in broken if line not in manifest.broken]
    if new:
        raise NotSound(
            "The backup was put back, and its record is not what was written:\n"
            + "\n".join(f"  {line}" for line in new[:20])
            + "\nDo not put it into service. Keep it for whoever finds out why, and restore another backup elsewhere."
        )
    return tuple(number for number in sorted(kept) if number > manifest.checkpoint)


# What both share.


def _enter(kind: str, done: Done) -> None:
    manifest = done.manifest
    body = {
        "manifest": done.hash,
        "release": manifest.release,
        "made_at": manifest.made_at,
        "runs": manifest.runs,
        "events": manifest.events,
        "checkpoint": manifest.checkpoint,
        "broken": len(manifest.broken),
        "lost_checkpoints": list(done.lost),
    }
    account = _account()
    by = Actor(id=f"shell:{account}", name=f"{account} at the shell", kind="system")
    register.enter(register.SYSTEM_BOOK, kind, by=by, body=body)


def _account() -> str:
    """Who is at the shell; a container may run under a number that has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"account {os.getuid()}"


def _files(folder: Path) -> set[str]:
    """Every file in the folder by its place in it. A link is none: it could lead anywhere."""
    links = [path for path in folder.rglob("*") if path.is_symlink()]
    if links:
        raise BadBackup(f"{links[0]} is a link, and a backup has none. Name another folder.")
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _blocks(file: IO[bytes] | File[bytes]) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block


def _write(path: Path, blocks: Iterable[bytes]) -> None:
    """A new file that its owner alone may read, on the disk when this returns."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.writelines(blocks)
        file.flush()
        os.fsync(file.fileno())
