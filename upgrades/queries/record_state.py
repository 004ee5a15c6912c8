"""How the record is kept at this moment: checkpoints, where they went, what troubles the process that signs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q

from upgrades.adapters import checkpoint_store as store
from upgrades.adapters import register
from upgrades.domain.checkpoint import LATE, read_note
from upgrades.domain.freshness import has_passed
from upgrades.models import Checkpoint, CheckpointDelivery, CheckpointWatch, RegisterEntry, RunEvent

SHOWN = 20


@dataclass(frozen=True, slots=True)
class CheckpointLine:
    """A checkpoint in the list. `late`: since when the oldest record in it had waited."""

    number: int
    at: datetime
    size: int
    late: datetime | None
    note: str
    went: tuple[str, ...]
    waits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BackupLine:
    """A backup that was taken here, or one that was put back: then all of the record before it came out of it.

    `lost`: checkpoints that had left the system after it was made.
    """

    at: datetime
    is_restore: bool
    by: str
    made_at: datetime
    events: int
    sha256: str
    lost: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RecordState:
    checkpoints: tuple[CheckpointLine, ...]
    keys: Sequence[store.KnownKey]
    trouble: str
    waiting: int
    backups: Sequence[BackupLine]

    @property
    def newest(self) -> CheckpointLine | None:
        return self.checkpoints[0] if self.checkpoints else None


def record_state(now: datetime) -> RecordState:
    """What the pages show; `trouble` is empty while all is well."""
    rows = list(Checkpoint.objects.order_by("-number").prefetch_related("deliveries")[:SHOWN])
    return RecordState(
        checkpoints=tuple(_line(row) for row in rows),
        keys=store.known_keys(),
        trouble=trouble_of(now),
        waiting=waiting_deliveries(now),
        backups=_backups(),
    )


def _backups() -> list[BackupLine]:
    """The newest ones, and every restore: one of them is never of the past."""
    rows = RegisterEntry.objects.filter(book=register.SYSTEM_BOOK).order_by("-number")
    restores = [register.read(row) for row in rows.filter(kind=register.BACKUP_RESTORED)]
    taken = [register.read(row) for row in rows.filter(kind=register.BACKUP_TAKEN)[:SHOWN]]
    return [_backup(entry) for entry in sorted(restores + taken, key=lambda entry: -entry.number)]


def _backup(entry: register.Entry) -> BackupLine:
    return BackupLine(
        at=entry.at,
        is_restore=entry.kind == register.BACKUP_RESTORED,
        by=entry.by.name,
        made_at=datetime.fromisoformat(entry.body["made_at"]),
        events=entry.body["events"],
        sha256=entry.body["manifest"],
        lost=tuple(entry.body["lost_checkpoints"]),
    )


def trouble_of(now: datetime) -> str:
    """What keeps checkpoints from being signed; silence counts once there is something to seal."""
    watch = CheckpointWatch.objects.filter(pk=1).first()
    if watch is not None and (watch.trouble or not has_passed(LATE, watch.seen_at, now)):
        return watch.trouble
    if not RunEvent.objects.exists():
        return ""
    seen = f"not been seen since {watch.seen_at:%d %B %Y %H:%M} UTC" if watch else "never been seen"
    return f"The process that signs checkpoints has {seen}. Start it: manage.py sign_checkpoints"


def waiting_deliveries(now: datetime) -> int:
    """Checkpoints that should have left the system and have not."""
    late = Q(checkpoint__at__lt=now - LATE) | ~Q(trouble="")
    return CheckpointDelivery.objects.filter(late, done_at=None).count()


def _line(row: Checkpoint) -> CheckpointLine:
    deliveries: list[CheckpointDelivery] = list(row.deliveries.all())
    return CheckpointLine(
        number=row.number,
        at=row.at,
        size=row.size,
        late=read_note(row.note).checkpoint.late,
        note=row.note,
        went=tuple(item.channel for item in deliveries if item.done_at),
        waits=tuple(item.channel for item in deliveries if not item.done_at),
    )
