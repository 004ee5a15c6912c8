"""Reading a procedure's text: bytes in, a sound `Procedure` or every mistake out. Nothing is read but these bytes.

The steps of the reading: `strict_yaml` makes a tree of texts, `known` collects the names that the file defines,
`tables` (with `forms` and `local_checks`) turns the tree into the core's dataclasses, `proofs` shows that no path of
it leads nowhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from upgrades.domain.procedure import Procedure
from upgrades.procedures.extending import is_extension, placed, whole, written
from upgrades.procedures.forms import ID, Reading
from upgrades.procedures.known import known_names
from upgrades.procedures.mistakes import Mistake, Mistakes, Place, ProcedureMistakes
from upgrades.procedures.proofs import prove
from upgrades.procedures.strict_yaml import MapNode, Node, read_tree
from upgrades.procedures.tables import EXTENSION, PROCEDURE

__all__ = ["Library", "Mistake", "ProcedureMistakes", "builtin", "load", "schema", "shipped", "whole_text"]

_FOLDER = Path(__file__).parent

Library = Callable[[str, int], bytes | None]  # name and version of another procedure -> its text


def shipped(name: str, version: int) -> bytes | None:
    """The text of a procedure of this release."""
    path = _FOLDER / name / f"{version}.yaml"
    return path.read_bytes() if ID.fullmatch(name) and path.is_file() else None


@lru_cache(maxsize=256)
def load(text: bytes, *, name: str, library: Library = shipped) -> Procedure:
    """The procedure in `text`; `name` is how mistakes call the file, `library` has the texts that it may name.

    Its hash is that of these bytes, or of the `whole_text` where it extends another one. Raises `ProcedureMistakes`
    with all mistakes of the file when there is any. The same text means the same, so each is read once per process.
    """
    return _Texts(library).read(text, name)


@lru_cache(maxsize=256)
def whole_text(text: bytes, *, name: str, library: Library = shipped) -> bytes:
    """The bytes that stand for themselves: `text`, or what it and the text that it extends are together."""
    mistakes = Mistakes(name)
    _, whole = _Texts(library).tree(text, mistakes)
    if mistakes.found:
        raise ProcedureMistakes(mistakes.in_order())
    return whole


class _Texts:
    """Texts by name and version, each read once. A text that is being read is none yet: circles find nothing."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.known: dict[tuple[str, int], Procedure | None] = {}

    def read(self, text: bytes, name: str) -> Procedure:
        mistakes = Mistakes(name)
        root, whole = self.tree(text, mistakes)
        procedure: Procedure | None = None
        if isinstance(root, MapNode):
            reading = Reading(mistakes, known_names(root), self.procedure)
            procedure = PROCEDURE.read(root, reading, "")
            if mistakes.structure_is_whole and procedure is not None and procedure.steps:
                prove(procedure, reading)
        elif root is not None:
            mistakes.add(
                Place(1, 1), "", "A procedure is a group of keys: `procedure`, `version`, `title` and so on."
            )
        if mistakes.found or procedure is None:
            raise ProcedureMistakes(mistakes.in_order())
        return replace(procedure, text_hash=hashlib.sha256(whole).hexdigest())

    def tree(self, text: bytes, mistakes: Mistakes) -> tuple[Node | None, bytes]:
        """The tree of a text, whole, and the bytes that say the same."""
        root = read_tree(text, mistakes)
        if not isinstance(root, MapNode) or not is_extension(root):
            return root, text
        extended = whole(root, self.base, mistakes)
        if extended is None:
            return None, text
        digest = hashlib.sha256(text).hexdigest()
        return extended, written(
            extended, f"Two texts in one; what extends the other has the SHA-256 {digest}."
        )

    def procedure(self, name: str, version: int) -> Procedure | None:
        """A sound procedure; None when there is none."""
        key = (name, version)
        if key not in self.known:
            self.known[key] = None
            text = self.library(name, version)
            if text is not None:
                try:
                    self.known[key] = self.read(text, f"{name}/{version}.yaml")
                except ProcedureMistakes:
                    return None
        return self.known[key]

    def base(self, name: str, version: int) -> MapNode | None:
        """The tree of a sound text that another one extends, its places marked with its file."""
        text = self.library(name, version)
        if text is None or self.procedure(name, version) is None:
            return None
        file = f"{name}/{version}.yaml"
        root, _ = self.tree(text, Mistakes(file))
        found = placed(root, file) if root is not None else None
        return found if isinstance(found, MapNode) else None


def builtin() -> list[tuple[Path, bytes]]:
    """The texts that are shipped: `<id>/<version>.yaml` beside this module, each with its bytes, in order."""
    return [(path, path.read_bytes()) for path in sorted(_FOLDER.glob("*/*.yaml"))]


def schema() -> dict[str, Any]:
    """The JSON Schema of a procedure's text, for editors. `procedure.schema.json` holds it; a test compares them."""
    defs: dict[str, Any] = {}
    either = [PROCEDURE.schema(defs), EXTENSION.schema(defs)]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A Runbook procedure",
        "if": {"required": ["extends"]},
        "then": either[1],
        "else": either[0],
        "$defs": defs,
    }
