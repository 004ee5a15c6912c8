"""What is wrong with a procedure's text: every mistake with its place, all of them at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in a file; both counted from 1. `file` is empty in the file that is being read, else another one's name."""

    line: int
    column: int
    file: str = ""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake. `item` names the part of the procedure, such as “step launch-new, gate initialized”."""

    file: str
    line: int
    column: int
    item: str
    message: str

    def __str__(self) -> str:
        where = f" ({self.item})" if self.item else ""
        return f"{self.file}:{self.line}:{self.column}{where}: {self.message}"


class ProcedureMistakes(Exception):
    """The text cannot be used. `mistakes` are all that were found, in the order of the file."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = mistakes


@dataclass(slots=True)
class Mistakes:
    """Collects mistakes while a file is read. `structure_is_whole` turns false when steps or their links are damaged:
    then nothing can be proved about the paths, and every proof would only repeat the first mistake."""

    file: str
    found: list[Mistake] = field(default_factory=list)
    structure_is_whole: bool = True

    def add(self, place: Place, item: str, message: str, *, structure: bool = False) -> None:
        self.found.append(Mistake(place.file or self.file, place.line, place.column, item, message))
        if structure:
            self.structure_is_whole = False

    def in_order(self) -> tuple[Mistake, ...]:
        return tuple(sorted(dict.fromkeys(self.found), key=lambda one: (one.line, one.column)))


def nearest(name: str, known: list[str] | tuple[str, ...] | frozenset[str]) -> str:
    """“ Did you mean …?”, or the list of what is known when it is short, or nothing."""
    close = get_close_matches(name[:80], sorted(known), n=1, cutoff=0.6)
    if close:
        return f" Did you mean `{close[0]}`?"
    if 0 < len(known) <= 12:
        return f" Known are: {', '.join(sorted(known))}."
    return ""
