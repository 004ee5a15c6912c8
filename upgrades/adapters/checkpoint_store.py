"""Checkpoints in the database, and the file outside it that they are copied to."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import connection

from upgrades.adapters import register
from upgrades.adapters.crash_points import crash
from upgrades.domain.checkpoint import Checkpoint, Leaf, PublicKey, Tree, read_key
from upgrades.models import Checkpoint as Row
from upgrades.models import CheckpointLeaf, RegisterEntry

# The newest link of every chain. Taken from the chains themselves: rows beside them can be changed.
_HEADS = """
SELECT 'run ' || run.id, head.seq, head.hash FROM upgrades_run AS run
CROSS JOIN LATERAL (SELECT seq, hash FROM upgrades_runevent WHERE run_id = run.id ORDER BY seq DESC LIMIT 1) AS head
UNION ALL
SELECT 'book ' || book, number, hash FROM (
    SELECT DISTINCT ON (book) book, number, hash FROM upgrades_registerentry ORDER BY book, number DESC) AS entry
"""


@dataclass(slots=True)
class Sealed:
    """What the checkpoints so far have sealed: the tree, the newest leaf of each chain, the newest note."""

    tree: Tree
    heads: dict[str, Leaf]
    newest: Row | None


def sealed_so_far() -> Sealed:
    """Read from the database: all leaves, once."""
    found = Sealed(Tree(), {}, Row.objects.order_by("-number").first())
    for leaf in leaves():
        found.tree.append(leaf.text)
        found.heads[leaf.subject] = leaf
    return found


def leaves(*, start: int = 0, end: int | None = None) -> Iterator[Leaf]:
    """The leaves from position `start` up to, not with, `end`."""
    rows = CheckpointLeaf.objects.filter(position__gte=start).order_by("position")
    if end is not None:
        rows = rows.filter(position__lt=end)
    for subject, seq, head in rows.values_list("subject", "seq", "hash").iterator(chunk_size=5000):
        yield Leaf(subject, seq, head)


def heads() -> list[Leaf]:
    """The present heads of all chains, in a fixed order."""
    with connection.cursor() as cursor:
        cursor.execute(_HEADS)
        return sorted((Leaf(*row) for row in cursor.fetchall()), key=lambda leaf: leaf.subject)


def growth() -> tuple[int, int]:
    """Two numbers that change when any chain has grown: cheap to ask for."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce((SELECT max(id) FROM upgrades_runevent), 0),"
            " coalesce((SELECT max(id) FROM upgrades_registerentry), 0)"
        )
        row: tuple[Any, ...] | None = cursor.fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def append(checkpoint: Checkpoint, note: str, new: Sequence[Leaf]) -> None:
    """Store a signed checkpoint with its new leaves. Another process in between is refused by the database."""
    crash("checkpoint.signed")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT append_checkpoint(%s, %s, %s, %s, %s, %s, %s)",
            [
                checkpoint.number,
                checkpoint.size,
                checkpoint.at,
                note,
                [leaf.subject for leaf in new],
                [leaf.seq for leaf in new],
                [leaf.hash for leaf in new],
            ],
        )


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that the register names, and the number of the first checkpoint that it signed (None: none yet)."""

    key: PublicKey
    first: int | None


def known_keys() -> list[KnownKey]:
    """The keys in the order in which they came; each ends where the next one begins.

    A key begins with the checkpoint that seals its entry in the register: no clock decides.
    """
    rows = RegisterEntry.objects.filter(book=register.KEYS_BOOK).order_by("number")
    entries = [register.read(row) for row in rows]
    return [KnownKey(read_key(entry.body["key"]), _first_checkpoint(entry.number)) for entry in entries]


def _first_checkpoint(number: int) -> int | None:
    leaf = (
        CheckpointLeaf.objects.filter(subject=f"book {register.KEYS_BOOK}", seq__gte=number)
        .order_by("position")
        .first()
    )
    rows = Row.objects.order_by("number").values_list("number", flat=True)
    return rows.filter(size__gt=leaf.position).first() if leaf else None


# The file: one JSON object a line, {"first": position of the first new leaf, "leaves": [...], "note": "..."}.


class DamagedFile(ValueError):
    """A line of the file that is none of ours."""


def line_of(row: Row, first: int) -> str:
    """The line of a checkpoint, with the leaves that came with it."""
    return _line(first, leaves(start=first, end=row.size), row.note)


def _line(first: int, new: Iterable[Leaf], note: str) -> str:
    told = {"first": first, "leaves": [leaf.text for leaf in new], "note": note}
    return json.dumps(told, sort_keys=True, ensure_ascii=False)


def all_lines() -> Iterator[str]:
    """The lines of all checkpoints, oldest first, out of one reading."""
    waiting, first = leaves(), 0
    for row in Row.objects.order_by("number").iterator():
        yield _line(first, itertools.islice(waiting, row.size - first), row.note)
        first = row.size


def first_leaf_of(row: Row) -> int:
    """The position of the first leaf that came with this checkpoint."""
    return Row.objects.filter(number=row.number - 1).values_list("size", flat=True).first() or 0


def append_to_file(path: Path, line: str) -> None:
    """Add a line and wait until the disk has it. A line that a crash cut off stays alone on its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            file.write(b"\n")
        text = line.encode() + b"\n"
        file.write(text[: len(text) // 2])
        file.flush()
        crash("checkpoint-file.half-written")
        file.write(text[len(text) // 2 :])
        file.flush()
        crash("checkpoint-file.before-sync")
        os.fsync(file.fileno())


def read_file(lines: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """The lines of such a file; a cut-off line is left out, for the whole one follows it."""
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and {"first", "leaves", "note"} <= found.keys():
            yield found


def last_line(path: Path) -> Mapping[str, Any] | None:
    """The newest whole line of the file, or None without one."""
    block = 1 << 16
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            while True:
                start = max(0, size - block)
                file.seek(start)
                tail = file.read().decode(errors="replace").splitlines()
                whole = list(read_file(tail if start == 0 else tail[1:]))
                if whole or start == 0:
                    return whole[-1] if whole else None
                block *= 4
    except FileNotFoundError:
        return None
