"""The record as a whole: is it what was written? Everything is checked from what is stored, nothing is believed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from django.db.models import Q

from upgrades.adapters import checkpoint_store as store
from upgrades.adapters import register
from upgrades.adapters.event_store import BrokenLink, broken_links, read
from upgrades.adapters.session_lock import Taken, alone
from upgrades.adapters.signing_key import is_signed_by
from upgrades.domain.checkpoint import (
    NOBODY,
    Leaf,
    NotACheckpoint,
    Note,
    Tree,
    note_hash,
    read_leaf,
    read_note,
)
from upgrades.domain.refusal import Unavailable
from upgrades.domain.run_events import EvidenceAttached
from upgrades.models import Checkpoint, CheckpointLeaf, Environment, Evidence, RegisterEntry, Run, RunEvent
from upgrades.services.register import STARTED

CHECK = "check of the record"
Sealed = Mapping[str, Mapping[int, str]]  # by subject, then by number: the hash that a checkpoint saw


@dataclass(frozen=True, slots=True)
class Broken:
    """The first record of its kind that is not what was written: `where` names it, `reason` says what is wrong.

    `run` and `book` are those that it belongs to; without either it concerns the whole installation.
    """

    where: str
    reason: str
    run: int | None = None
    book: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def broken_runs(
    run_ids: Iterable[int], sealed: Sealed | None = None
) -> Iterator[tuple[int, BrokenLink | None]]:
    """Each run with the first event of it that does not fit, or None for a sound one."""
    sealed = sealed if sealed is not None else _sealed_in_database()
    for run_id in run_ids:
        seen = sealed.get(f"run {run_id}", {})
        yield run_id, next(broken_links(run_id, seen), None) or _missing_end(run_id)


def _missing_end(run_id: int) -> BrokenLink | None:
    """A chain whose last links are gone is sound in itself; the run's own row tells where it ended."""
    run = Run.objects.only("seq", "head").get(pk=run_id)
    last = run.events.order_by("-seq").values_list("seq", "hash").first()
    seq, newest = last or (0, "")
    if seq < run.seq:
        return BrokenLink(run_id, seq + 1, f"events {seq + 1} to {run.seq} are missing")
    if newest != run.head:
        return BrokenLink(run_id, seq, "it is not the event that was written last")
    return None


def broken_record(file: Path | None = None, keys: Iterable[store.KnownKey] = ()) -> Iterator[Broken]:
    """Check everything; the first broken record of each run, book, checkpoint and file comes out.

    `file`: checkpoints that were kept outside; where it and the database differ, it is believed. `keys`: keys that were
    kept outside, oldest first, each with its first checkpoint (0: not known); without them those that the register
    names are believed.
    """
    kept = Kept.read(file) if file is not None else Kept()
    yield from kept.trouble
    known = _keys(keys)
    yield from _broken_notes(kept, known)
    yield from _broken_checkpoints(kept, known)
    sealed = _joined(_sealed_in_database(), kept.sealed)
    for run_id, link in broken_runs(Run.objects.order_by("pk").values_list("pk", flat=True), sealed):
        if link is not None:
            yield Broken(f"run {run_id}", f"broken at event {link.seq}: {link.reason}", run_id)
    yield from _missing_runs(sealed)
    yield from _broken_books(sealed)
    yield from _broken_files()


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found. `broken`: where it may be named; `elsewhere`: how much more there is in other environments."""

    broken: tuple[Broken, ...]
    elsewhere: int


def check_record(environments: Iterable[Environment]) -> Checked:
    """Check everything, for somebody who audits these environments. One check at a time: it reads every file there is."""
    try:
        with alone(CHECK):
            found = list(broken_record())
    except Taken:
        raise Unavailable(
            "Another check of the record is at work, and nothing was checked now. Try again in some minutes."
        ) from None
    theirs = _Theirs.of(environments)
    named = tuple(item for item in found if theirs.has(item))
    return Checked(named, len(found) - len(named))


@dataclass(frozen=True, slots=True)
class _Theirs:
    """What belongs to some environments and to their copies for rehearsals: the ids, and the runs that are or were there."""

    environments: frozenset[str]
    runs: frozenset[int | None]

    @classmethod
    def of(cls, originals: Iterable[Environment]) -> _Theirs:
        ids = [environment.pk for environment in originals]
        with_copies = Environment.objects.filter(Q(pk__in=ids) | Q(rehearsal_of__in=ids)).values_list(
            "pk", flat=True
        )
        registered = RegisterEntry.objects.filter(
            kind=STARTED, book__in=[register.runs_book(pk) for pk in ids]
        )
        return cls(
            frozenset(str(pk) for pk in with_copies),
            frozenset(registered.values_list("run", flat=True))
            | frozenset(Run.objects.filter(environment__in=with_copies).values_list("pk", flat=True)),
        )

    def has(self, broken: Broken) -> bool:
        if broken.run is not None:
            return broken.run in self.runs
        _, of_environment, environment = broken.book.partition("/")
        return not of_environment or environment in self.environments


# Checkpoints.


@dataclass(slots=True)
class Kept:
    """What a file of checkpoints holds: the notes by number, the leaves by position, and what is wrong with it."""

    notes: dict[int, str] = field(default_factory=dict)
    leaves: dict[int, Leaf] = field(default_factory=dict)
    trouble: list[Broken] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Kept:
        """OSError: it cannot be read."""
        kept = cls()
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in store.read_file(lines):
                kept._take(line["note"], line["first"], line["leaves"])
        return kept

    def _take(self, text: str, first: int, leaves: list[str]) -> None:
        try:
            number = read_note(text).checkpoint.number
        except NotACheckpoint as mistake:
            self.trouble.append(Broken("file of checkpoints", f"a line is damaged: {mistake}"))
            return
        if self.notes.setdefault(number, text) != text:
            self.trouble.append(
                Broken(
                    f"checkpoint {number}",
                    "the file has two of this number: the database was set back between them",
                )
            )
            return
        self.leaves |= {first + place: read_leaf(leaf) for place, leaf in enumerate(leaves)}

    @property
    def sealed(self) -> Sealed:
        return _by_subject(self.leaves.values())


def _by_subject(leaves: Iterable[Leaf]) -> dict[str, dict[int, str]]:
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for leaf in leaves:
        found[leaf.subject][leaf.seq] = leaf.hash
    return found


def _sealed_in_database() -> dict[str, dict[int, str]]:
    return _by_subject(store.leaves())


def _joined(database: Sealed, file: Sealed) -> Sealed:
    return {subject: {**database.get(subject, {}), **file.get(subject, {})} for subject in {*database, *file}}


@dataclass(frozen=True, slots=True)
class _Keys:
    """Who may sign: keys kept outside, or those of the register, each from its first checkpoint on."""

    pinned: tuple[store.KnownKey, ...]
    named: tuple[store.KnownKey, ...]

    def mistake(self, note: Note) -> str:
        """Why the note is not signed as it must be; empty when it is."""
        keys = self.pinned or self.named
        begun = [item for item in keys if item.first is not None and item.first <= note.checkpoint.number]
        if not begun and not self.pinned:
            return "the register names no key that signs it"
        # Each ends where the next one begins; of keys kept outside that may not be known.
        if not any(item.first == 0 for item in keys):
            begun = begun[-1:]
        if any(is_signed_by(note, item.key) for item in begun):
            return ""
        if any(is_signed_by(note, item.key) for item in keys):
            return "it is signed by a key that had ended before it, or had not begun"
        return "it is not signed by a key that you gave" if self.pinned else "its signature is wrong"


def _keys(pinned: Iterable[store.KnownKey]) -> _Keys:
    return _Keys(tuple(pinned), tuple(store.known_keys()))


def _broken_notes(kept: Kept, keys: _Keys) -> Iterator[Broken]:
    """The file for itself: signatures, numbers, each note following the one before, roots as far as its leaves go."""
    tree, before = Tree(), None
    whole = min(kept.notes, default=1) == 1
    for number in sorted(kept.notes):
        note = read_note(kept.notes[number])
        wrong = keys.mistake(note)
        if before is not None and number == before.checkpoint.number + 1:
            wrong = wrong or _not_following(note, kept.notes[number - 1])
        elif before is not None:
            wrong = wrong or f"checkpoint {before.checkpoint.number + 1} is missing in the file before it"
        if whole and not wrong:
            wrong = _wrong_root(tree, kept.leaves, note)
        if wrong:
            yield Broken(f"checkpoint {number} in the file", wrong)
            return
        before = note


def _not_following(note: Note, previous: str) -> str:
    if note.checkpoint.previous != note_hash(previous):
        return "it does not follow the checkpoint before it"
    if note.checkpoint.size < read_note(previous).checkpoint.size:
        return "it covers less than the checkpoint before it"
    return ""


def _wrong_root(tree: Tree, leaves: Mapping[int, Leaf], note: Note) -> str:
    while tree.size < note.checkpoint.size:
        leaf = leaves.get(tree.size)
        if leaf is None:
            return f"leaf {tree.size} is missing"
        tree.append(leaf.text)
    return (
        ""
        if tree.root == note.checkpoint.root
        else "its root is not that of its leaves: one of them was changed"
    )


def _broken_checkpoints(kept: Kept, keys: _Keys) -> Iterator[Broken]:
    """The checkpoints of the database, against themselves and against those kept outside."""
    tree, previous, expected = Tree(), "", 1
    stored = dict(enumerate(store.leaves()))
    for row in Checkpoint.objects.order_by("number"):
        wrong = _wrong_row(row, expected, previous, keys) or _wrong_root(tree, stored, read_note(row.note))
        if not wrong and kept.notes.get(row.number, row.note) != row.note:
            wrong = "the one that was kept outside is another one"
        if wrong:
            yield Broken(f"checkpoint {expected}", wrong)
            return
        previous, expected = row.note, expected + 1
    newest = max(kept.notes, default=0)
    if newest >= expected:
        at = read_note(kept.notes[newest]).checkpoint.at
        yield Broken(
            f"checkpoint {expected}",
            f"it is missing, and the file goes up to checkpoint {newest} of {at:%d %B %Y %H:%M} UTC: "
            "the database was set back to an older state, or its checkpoints were deleted",
        )
    elif CheckpointLeaf.objects.count() != tree.size:
        yield Broken(f"leaf {tree.size}", "no checkpoint covers it")


def _wrong_row(row: Checkpoint, expected: int, previous: str, keys: _Keys) -> str:
    if row.number != expected:
        return "it is missing"
    try:
        note = read_note(row.note)
    except NotACheckpoint as mistake:
        return str(mistake)
    told = note.checkpoint
    if (told.number, told.size, told.at) != (row.number, row.size, row.at):
        return "the columns beside it say something else"
    if not previous and told.previous != NOBODY:
        return "it is not the first one"
    return keys.mistake(note) or (_not_following(note, previous) if previous else "")


# The rest.


def _missing_runs(sealed: Sealed) -> Iterator[Broken]:
    """Runs that a checkpoint or the register knows and the table does not, and the other way round."""
    there = set(Run.objects.values_list("pk", flat=True))
    registered = set(RegisterEntry.objects.filter(kind=STARTED).values_list("run", flat=True))
    seen = {int(subject.removeprefix("run ")) for subject in sealed if subject.startswith("run ")}
    for run_id in sorted(run for run in (seen | registered) - there if run is not None):
        yield Broken(f"run {run_id}", "it is missing as a whole, though it was started", run_id)
    for run_id in sorted(there - registered):
        yield Broken(f"run {run_id}", "no book of the register has its start", run_id)


def _broken_books(sealed: Sealed) -> Iterator[Broken]:
    books = set(RegisterEntry.objects.order_by("book").values_list("book", flat=True).distinct())
    books |= {subject.removeprefix("book ") for subject in sealed if subject.startswith("book ")}
    for book in sorted(books):
        broken = register.first_break(book, sealed.get(f"book {book}", {}))
        if broken is not None:
            yield Broken(f"book {book}, entry {broken.seq}", broken.reason, book=book)


def _broken_files() -> Iterator[Broken]:
    """Evidence: the file behind each hash of the record, and the row in between."""
    rows = Evidence.objects.in_bulk()
    events = RunEvent.objects.filter(kind=EvidenceAttached.kind).order_by("run", "seq")
    for run_id, seq, text in events.values_list("run", "seq", "text").iterator():
        event = read(text).event
        assert isinstance(event, EvidenceAttached)
        if not event.evidence:
            continue
        wrong = wrong_file(rows.get(event.evidence), event)
        if wrong:
            yield Broken(f"run {run_id}, event {seq}, evidence “{event.name}”", wrong, run_id)


def wrong_file(row: Evidence | None, event: EvidenceAttached) -> str:
    """What is wrong with the stored file of an attached one; empty when it is what was attached."""
    if row is None:
        return "its row is missing"
    try:
        with row.file.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "its file is missing"
    return (
        ""
        if found == event.sha256
        else "its file is not the one that was attached: the SHA-256 is another one"
    )
