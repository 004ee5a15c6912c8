"""Canonical text and the hash chain: what the record of a run is made of (design.md section 8)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

GENESIS = "0" * 64


def canonical(body: Mapping[str, Any]) -> str:
    """The one text of `body`: sorted keys, no blanks, UTF-8 characters as they are. This text is what is hashed."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(body: Mapping[str, Any]) -> str:
    """SHA-256 (64 hex digits) of the canonical text of `body`."""
    return hashlib.sha256(canonical(body).encode()).hexdigest()


def link(previous: str, text: str) -> str:
    """The hash of the record `text` that follows the record whose hash is `previous`."""
    return hashlib.sha256(previous.encode() + b"\n" + text.encode()).hexdigest()


class Link(NamedTuple):
    """A stored link of a chain: its number, its kind, what it follows, its text and its hash."""

    seq: int
    kind: str
    previous: str
    text: str
    hash: str


@dataclass(frozen=True, slots=True)
class Break:
    """The first record of a chain that does not fit, and why."""

    seq: int
    reason: str


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain to check. `ends_as` gives the end of the text that a link of that number and kind must have.

    `sealed` are the hashes that checkpoints saw, by number. `after` and `previous`: a part that was checked before.
    """

    ends_as: Callable[[int, str], str]
    sealed: Mapping[int, str] = field(default_factory=dict)
    after: int = 0
    previous: str = GENESIS
    noun: str = "event"

    def first_break(self, links: Iterable[tuple[Any, ...]]) -> Break | None:
        """None when every link follows the one before, says what stands beside it, and is what a checkpoint saw.

        The links may also come as plain tuples in the order of their fields: that is a tenth of the whole check.
        """
        expected, previous, trusted = self.after + 1, self.previous, self.after
        sealed, ends_as, sha256 = self.sealed, self.ends_as, hashlib.sha256
        for seq, kind, follows, text, stored in links:
            if seq != expected:
                return Break(expected, f"{self.noun} {expected} is missing")
            if follows != previous:
                return Break(seq, f"it does not follow the {self.noun} before it")
            if sha256(f"{previous}\n{text}".encode()).hexdigest() != stored:
                return Break(seq, "its text is not the one that was hashed")
            if not text.rstrip("}0123456789").endswith(ends_as(seq, kind)):
                return Break(seq, "its text belongs to another place or says another kind")
            if sealed and seq in sealed:
                if sealed[seq] != stored:
                    return Break(
                        trusted + 1, f"{self._written_anew(trusted + 1, seq)}: a checkpoint saw another one"
                    )
                trusted = seq
            expected, previous = seq + 1, stored
        newest = max(sealed, default=0)
        if newest >= expected:
            return Break(expected, self._missing(expected, newest))
        return None

    def _written_anew(self, first: int, last: int) -> str:
        what = f"{self.noun} {last}" if first == last else f"one of the numbers {first} to {last}"
        return f"{what} was written anew"

    def _missing(self, first: int, last: int) -> str:
        if first == last:
            return f"{self.noun} {first} is missing: a checkpoint saw it"
        return f"numbers {first} to {last} are missing: a checkpoint saw the last of them"


def event_ends_as(run: int) -> Callable[[int, str], str]:
    """How the canonical text of an event of that run ends, up to the number of its format."""
    return lambda seq, kind: f',"kind":"{kind}","run":{run},"seq":{seq},"v":'


def entry_ends_as(run_of: Callable[[int], int | None]) -> Callable[[int, str], str]:
    """How the text of an entry of the register ends; `run_of` gives the run in the column beside it."""

    def ends_as(number: int, kind: str) -> str:
        run = run_of(number)
        return f',"kind":"{kind}","number":{number},"run":{"null" if run is None else run},"v":'

    return ends_as
