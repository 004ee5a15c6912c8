"""Checkpoints: a signed word on how far every chain of the record has come, that can be kept outside the system.

The heads of the chains (of runs, of the register's books) are leaves of one append-only Merkle tree (RFC 6962): a
chain that has grown since the last checkpoint gets a new leaf. A checkpoint is the root of that tree as a signed note
(https://c2sp.org/tlog-checkpoint): origin, number of leaves, root, then lines of our own, then the signature. Pure:
signing and checking signatures is `adapters/signing_key.py`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

LATE = timedelta(minutes=10)  # a record that waited longer for its checkpoint is told so
NOBODY = "0" * 64  # what the first checkpoint follows


class NotACheckpoint(ValueError):
    """A text that is no signed note of ours; the message says which part of it is missing."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """The head of a chain at one moment. `subject` is as “run 17” or “book runs/3”, `seq` its newest record."""

    subject: str
    seq: int
    hash: str

    @property
    def text(self) -> str:
        return f"{self.subject} {self.seq} {self.hash}"


def read_leaf(text: str) -> Leaf:
    """The leaf that `Leaf.text` wrote."""
    subject, seq, head = text.rsplit(" ", 2)
    return Leaf(subject, int(seq), head)


def leaf_hash(text: str) -> bytes:
    return hashlib.sha256(b"\x00" + text.encode()).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(slots=True)
class Tree:
    """A Merkle tree that grows at its end and keeps only its complete subtrees: root in O(log n), append in O(1)."""

    size: int = 0
    _peaks: list[bytes] = field(default_factory=list)

    def append(self, text: str) -> None:
        peak, rest = leaf_hash(text), self.size
        while rest & 1:
            peak, rest = node_hash(self._peaks.pop(), peak), rest >> 1
        self._peaks.append(peak)
        self.size += 1

    @property
    def root(self) -> bytes:
        """RFC 6962 section 2.1; of no leaves, the hash of nothing."""
        if not self._peaks:
            return hashlib.sha256().digest()
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


def inclusion_path(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """The hashes that lead from leaf `index` to the root of the tree over `hashes` (RFC 6962 section 2.1.1)."""
    if len(hashes) <= 1:
        return []
    half = _split(len(hashes))
    if index < half:
        return [*inclusion_path(hashes[:half], index), _root_of(hashes[half:])]
    return [*inclusion_path(hashes[half:], index - half), _root_of(hashes[:half])]


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def _root_of(hashes: Sequence[bytes]) -> bytes:
    level = list(hashes)
    while len(level) > 1:
        paired = [node_hash(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
    return level[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What is signed. `previous` is the SHA-256 of the note before; `late` the time of the oldest record that waited."""

    origin: str
    number: int
    at: datetime
    size: int
    root: bytes
    previous: str
    late: datetime | None = None

    @property
    def body(self) -> str:
        """The signed text: everything up to and with the line end before the empty line."""
        lines = [
            self.origin,
            str(self.size),
            base64.b64encode(self.root).decode(),
            f"number {self.number}",
            f"time {self.at.isoformat()}",
            f"previous {self.previous}",
        ]
        if self.late is not None:
            lines.append(f"late {self.late.isoformat()}")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature line: who signed, the first four bytes of the key's hash, and the signature itself."""

    name: str
    key_id: bytes
    value: bytes

    @property
    def line(self) -> str:
        return f"— {self.name} {base64.b64encode(self.key_id + self.value).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A signed note as it stands: the checkpoint, the text that the signatures cover, and the signatures."""

    checkpoint: Checkpoint
    body: str
    signatures: tuple[Signature, ...]


def note_text(checkpoint: Checkpoint, signatures: Iterable[Signature]) -> str:
    return checkpoint.body + "\n" + "".join(signature.line for signature in signatures)


def note_hash(text: str) -> str:
    """What the next checkpoint names as `previous`."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_note(text: str) -> Note:
    """The note that `note_text` wrote. `NotACheckpoint` says what is wrong with it."""
    body, separator, tail = text.partition("\n\n")
    if not separator:
        raise NotACheckpoint("it has no signature")
    lines = body.split("\n")
    try:
        origin, size, root = lines[:3]
        rest = dict(line.split(" ", 1) for line in lines[3:])
        checkpoint = Checkpoint(
            origin=origin,
            size=int(size),
            root=base64.b64decode(root, validate=True),
            number=int(rest["number"]),
            at=datetime.fromisoformat(rest["time"]),
            previous=rest["previous"],
            late=datetime.fromisoformat(rest["late"]) if "late" in rest else None,
        )
        signatures = tuple(_signature(line) for line in tail.splitlines())
    except (ValueError, KeyError) as mistake:
        raise NotACheckpoint(f"it is not laid out as a checkpoint ({mistake})") from None
    if checkpoint.body != body + "\n" or not signatures:
        raise NotACheckpoint("it has lines that do not belong there, or no signature")
    return Note(checkpoint, body + "\n", signatures)


def _signature(line: str) -> Signature:
    mark, name, value = line.split(" ")
    signed = base64.b64decode(value, validate=True)
    if mark != "—" or len(signed) != 68:
        raise ValueError("a signature line is damaged")
    return Signature(name, signed[:4], signed[4:])


# Keys, in the form of https://c2sp.org/signed-note: name+hash+base64 of (kind, public key).

ED25519 = b"\x01"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that checkpoints are checked with."""

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self.public).digest()[:4]

    @property
    def text(self) -> str:
        """The one line that an auditor keeps."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(ED25519 + self.public).decode()}"


def read_key(text: str) -> PublicKey:
    """The key that `PublicKey.text` wrote; ValueError for anything else."""
    name, key_id, encoded = text.strip().split("+", 2)
    raw = base64.b64decode(encoded, validate=True)
    key = PublicKey(name, raw[1:])
    if raw[:1] != ED25519 or len(key.public) != 32 or key.id.hex() != key_id:
        raise ValueError("this is no Ed25519 key in the form name+id+key")
    return key
