"""Versions of Genesys components, compared as the vendor counts them: part by part, as numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering
from itertools import zip_longest

_SHAPE = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){0,5}", re.ASCII)


class NotAVersion(ValueError):
    """The text is not a version; the message says what one looks like."""


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A version such as 8.5.101.38. Missing parts count as zero: 8.5 equals 8.5.0."""

    text: str
    parts: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Version:
        """The version in `text`, or `NotAVersion` with a sentence for the person who typed it."""
        stripped = text.strip()
        if not _SHAPE.fullmatch(stripped):
            raise NotAVersion(
                f"“{text[:40]}” is not a version. Write digits and dots only, for example 8.5.101 or 8.5.101.38."
            )
        return cls(stripped, tuple(int(part) for part in stripped.split(".")))

    def _ordered(self, other: Version) -> list[tuple[int, int]]:
        return list(zip_longest(self.parts, other.parts, fillvalue=0))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and all(a == b for a, b in self._ordered(other))

    def __lt__(self, other: Version) -> bool:
        return next((a < b for a, b in self._ordered(other) if a != b), False)

    def __hash__(self) -> int:
        significant = self.parts
        while len(significant) > 1 and significant[-1] == 0:
            significant = significant[:-1]
        return hash(significant)

    def __str__(self) -> str:
        return self.text

    def is_of(self, release: Version) -> bool:
        """Whether it belongs to a release of three parts: 8.1.3 is written 8.1.3, 8.1.3.12 and 8.1.300.28."""
        mine, wanted = self.parts, release.parts
        if len(mine) < 3 or len(wanted) < 3 or mine[:2] != wanted[:2]:
            return False
        return mine[2] == wanted[2] or (wanted[2] < 10 and mine[2] // 100 == wanted[2])
