"""Signing checkpoints and getting them out of the system (design.md section 8, docs/record.md).

One process does this and nothing else, and it alone can read the key. It looks every few seconds; whatever keeps it from
signing is told on the auditors' pages, while acts go on: the next checkpoint then says since when records waited.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from django.core.mail import EmailMessage
from django.db import transaction

from upgrades.adapters import checkpoint_store as store
from upgrades.adapters import event_store, register
from upgrades.adapters.crash_points import crash
from upgrades.adapters.signing_key import NAME_LINE, SigningKey, read_signing_key
from upgrades.domain.checkpoint import LATE, NOBODY, Checkpoint, Leaf, note_hash, read_note
from upgrades.domain.record import GENESIS, Chain, event_ends_as
from upgrades.domain.refusal import Refused
from upgrades.models import Checkpoint as Row
from upgrades.models import CheckpointDelivery, CheckpointWatch

logger = logging.getLogger(__name__)

EVERY = timedelta(minutes=5)
MAIL_EVERY = timedelta(hours=24)
LOOK_EVERY = timedelta(minutes=1)  # at the chains themselves, though nothing seems to have grown
ENDS = ("run.ended", "run.aborted")
# What must not wait for the five minutes.
WEIGHTY = (*ENDS, "gate.outcome", "approval.signed", "deviation.signed", "burden.taken-over")


class CannotSeal(Refused):
    """The record is not what the newest checkpoint says, so nothing more is signed until somebody has looked."""

    code = "cannot-seal"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the key is, what it is called where its file has no name, and where the notes go."""

    key: Path
    origin: str
    file: Path
    mail_to: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Grown:
    """A chain that has grown: its new head, the time of its oldest record that waits, and what kinds wait."""

    leaf: Leaf
    oldest: datetime
    kinds: frozenset[str]


class Checkpointer:
    """Signs when it is due. Keeps what is sealed in memory, so that a look costs little; the database decides."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._sealed: store.Sealed | None = None
        self._seen: tuple[int, int] | None = None
        self._looked_at: datetime | None = None

    def tick(self, now: datetime) -> int | None:
        """Look, sign when due, deliver what is waiting. The number of a new checkpoint, or None."""
        written, trouble = None, ""
        try:
            self._deliver(now)
            key = read_signing_key(self._places.key, self._places.origin)
            self._not_behind_the_file()
            written = self._seal(key, now)
            if written is not None:
                self._deliver(now)
        except Refused as refusal:
            trouble = refusal.message
        except OSError as failure:
            trouble = f"The file of checkpoints cannot be used: {failure}. What is not in it yet is signed or written later."
        _note(now, trouble)
        return written

    def _not_behind_the_file(self) -> None:
        line = store.last_line(self._places.file)
        if line is None:
            return
        number = read_note(line["note"]).checkpoint.number
        row = Row.objects.filter(number=number).first()
        if row is None or row.note != line["note"]:
            raise CannotSeal(
                f"The file {self._places.file} has a checkpoint {number} that the database does not have: the database was set "
                "back, or its checkpoints were changed. Run manage.py verify with that file before you go on."
            )

    def _seal(self, key: SigningKey, now: datetime) -> int | None:
        seen = store.growth()
        if seen == self._seen and self._looked_at is not None and now - self._looked_at < LOOK_EVERY:
            return None
        with transaction.atomic():
            _name_key(key, self._places.key)
            sealed = self._known()
            grown = _grown(sealed)
            kinds = frozenset[str]().union(*(chain.kinds for chain in grown))
            newest = sealed.newest
            if not grown or not (newest is None or kinds & set(WEIGHTY) or now - newest.at >= EVERY):
                self._sealed, self._looked_at = sealed, now
                if not grown:
                    self._seen = seen
                return None
            row = _write(key, sealed, grown, now)
            self._wanted(row, kinds, now)
            crash("checkpoint.before-commit")
        crash("checkpoint.committed")
        self._sealed = sealed
        self._seen, self._looked_at = seen, now
        return row.number

    def _known(self) -> store.Sealed:
        newest = Row.objects.order_by("-number").first()
        kept = self._sealed
        number = newest.number if newest else 0
        if kept is None or (kept.newest.number if kept.newest else 0) != number:
            kept = store.sealed_so_far()
        self._sealed = None  # until what is built on it is committed
        return kept

    def _wanted(self, row: Row, kinds: frozenset[str], now: datetime) -> None:
        channels = [CheckpointDelivery.Channel.FILE]
        mailed = CheckpointDelivery.objects.filter(channel=CheckpointDelivery.Channel.MAIL)
        recent = mailed.filter(checkpoint__at__gt=now - MAIL_EVERY).exists()
        if self._places.mail_to and (kinds & set(ENDS) or not recent):
            channels.append(CheckpointDelivery.Channel.MAIL)
        for channel in channels:
            CheckpointDelivery.objects.create(checkpoint=row, channel=channel)

    def _deliver(self, now: datetime) -> None:
        waiting = CheckpointDelivery.objects.filter(done_at=None).select_related("checkpoint")
        for channel, send in (("file", self._to_file), ("mail", self._by_mail)):
            for delivery in waiting.filter(channel=channel).order_by("checkpoint"):
                try:
                    send(delivery.checkpoint)
                except OSError as trouble:  # a mail server's refusal is one, too
                    delivery.trouble = f"{trouble}"[:500]
                    delivery.save(update_fields=["trouble"])
                    logger.warning(
                        "checkpoint %s not delivered by %s: %s", delivery.checkpoint_id, channel, trouble
                    )
                    break  # the file keeps its order
                crash("delivery.sent")
                delivery.done_at, delivery.trouble = now, ""
                delivery.save(update_fields=["done_at", "trouble"])
                crash("delivery.noted")

    def _to_file(self, row: Row) -> None:
        line = store.last_line(self._places.file)
        if line is None or read_note(line["note"]).checkpoint.number < row.number:
            store.append_to_file(self._places.file, store.line_of(row, store.first_leaf_of(row)))

    def _by_mail(self, row: Row) -> None:
        lines = "".join(f"{store.line_of(item, store.first_leaf_of(item))}\n" for item in _since_mail(row))
        mail = EmailMessage(
            subject=f"{self._places.origin}: checkpoint {row.number} of the record",
            body=(
                f"{row.note}\nKeep this mail. The file with it can be given to verify_record.py and to manage.py verify, "
                "alone or joined with those of earlier mails: both then notice when anything older is changed.\n"
            ),
            to=list(self._places.mail_to),
        )
        mail.attach(f"checkpoint-{row.number}.jsonl", lines, "application/jsonl")
        mail.send()


def _since_mail(row: Row) -> list[Row]:
    """The checkpoints that this mail brings: all behind the one that the last mail brought."""
    last = (
        CheckpointDelivery.objects.filter(channel="mail", checkpoint__lt=row.number)
        .order_by("-checkpoint")
        .values_list("checkpoint", flat=True)
        .first()
    )
    return list(Row.objects.filter(number__gt=last or 0, number__lte=row.number))


def _name_key(key: SigningKey, file: Path) -> None:
    """Enter a key that is new. One key has one name: auditors would not know it by another."""
    known = [item.key for item in store.known_keys()]
    if known and known[-1].public == key.public.public and known[-1].name != key.name:
        raise CannotSeal(
            f"The key in {file} signed as “{known[-1].name}” and would sign as “{key.name}” now, so auditors would not know it "
            "again: the first name in RUNBOOK_HOSTS has changed, or the file's first line. Nothing is signed until the file's "
            f"first line is: {NAME_LINE}{known[-1].name}"
        )
    if not known or known[-1] != key.public:
        if key.public.public in [item.public for item in known]:
            raise CannotSeal(
                "This key was replaced by a newer one before and signs no more. Restore the newer one, or make a new key."
            )
        register.enter(register.KEYS_BOOK, "key.begun", by=register.SYSTEM, body={"key": key.public.text})


def _grown(sealed: store.Sealed) -> list[_Grown]:
    """The chains that have grown, each checked from its sealed head to its new one. `CannotSeal` names a broken one."""
    now = {leaf.subject: leaf for leaf in store.heads()}
    for subject, leaf in sealed.heads.items():
        found = now.get(subject)
        if found is None or found.seq < leaf.seq or (found.seq == leaf.seq and found.hash != leaf.hash):
            raise CannotSeal(
                f"{subject} is not what the newest checkpoint saw (number {leaf.seq}). "
                "Run manage.py verify: it names the first broken record."
            )
    return [
        _checked(leaf, sealed.heads.get(leaf.subject))
        for leaf in now.values()
        if sealed.heads.get(leaf.subject) != leaf
    ]


def _checked(head: Leaf, before: Leaf | None) -> _Grown:
    after, previous = (before.seq, before.hash) if before else (0, GENESIS)
    kind, _, name = head.subject.partition(" ")
    if kind == "run":
        links = list(event_store.links(int(name), after=after))
        broken = Chain(ends_as=event_ends_as(int(name)), after=after, previous=previous).first_break(links)
    else:
        links = [link for link, _ in register.links(name, after=after)]
        broken = register.first_break(name, {}, after=after, previous=previous)
    if broken is not None:
        raise CannotSeal(f"{head.subject} is broken at {broken.seq}: {broken.reason}. Run manage.py verify.")
    last = links[-1]
    oldest = datetime.fromisoformat(json.loads(links[0].text)["at"])
    return _Grown(Leaf(head.subject, last.seq, last.hash), oldest, frozenset(link.kind for link in links))


def _write(key: SigningKey, sealed: store.Sealed, grown: Sequence[_Grown], now: datetime) -> Row:
    new = [chain.leaf for chain in grown]
    for leaf in new:
        sealed.tree.append(leaf.text)
        sealed.heads[leaf.subject] = leaf
    oldest = min(chain.oldest for chain in grown)
    newest = sealed.newest
    checkpoint = Checkpoint(
        origin=key.name,
        number=newest.number + 1 if newest else 1,
        at=now,
        size=sealed.tree.size,
        root=sealed.tree.root,
        previous=note_hash(newest.note) if newest else NOBODY,
        late=oldest if now - oldest > LATE else None,
    )
    note = key.note(checkpoint)
    store.append(checkpoint, note, new)
    sealed.newest = Row(number=checkpoint.number, size=checkpoint.size, at=now, note=note)
    return sealed.newest


def _note(now: datetime, trouble: str) -> None:
    """Tell the pages that this process lives, and what troubles it; written when it changes or is a minute old."""
    row = CheckpointWatch.objects.filter(pk=1).first()
    if row is None or row.trouble != trouble or now - row.seen_at > LOOK_EVERY:
        CheckpointWatch.objects.update_or_create(pk=1, defaults={"seen_at": now, "trouble": trouble[:1000]})
        if trouble and (row is None or row.trouble != trouble):
            logger.error("no checkpoint is signed: %s", trouble)
