"""How the record is kept at this moment: checkpoints, where they went, what troubles the process that signs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q

from upgrades.adapters import checkpoint_store as store
from upgrades.domain.checkpoint import LATE, read_note
from upgrades.models import Checkpoint, CheckpointDelivery, CheckpointWatch, RunEvent

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
class RecordState:
    checkpoints: tuple[CheckpointLine, ...]
    keys: Sequence[store.KnownKey]
    trouble: str
    waiting: int

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
    )


def trouble_of(now: datetime) -> str:
    """What keeps checkpoints from being signed; silence counts once there is something to seal."""
    watch = CheckpointWatch.objects.filter(pk=1).first()
    if watch is not None and (watch.trouble or now - watch.seen_at <= LATE):
        return watch.trouble
    if not RunEvent.objects.exists():
        return ""
    since = f"since {watch.seen_at:%d %B %Y %H:%M} UTC" if watch else "ever"
    return (
        f"The process that signs checkpoints has not been seen {since}. Start it: manage.py sign_checkpoints"
    )


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
