"""Reading a procedure's text: bytes in, a sound `Procedure` or every mistake out. Nothing is read but these bytes.

The steps of the reading: `strict_yaml` makes a tree of texts, `known` collects the names that the file defines,
`tables` (with `forms` and `local_checks`) turns the tree into the core's dataclasses, `proofs` shows that no path of
it leads nowhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from upgrades.domain.procedure import Procedure
from upgrades.procedures.forms import Reading
from upgrades.procedures.known import known_names
from upgrades.procedures.mistakes import Mistake, Mistakes, Place, ProcedureMistakes
from upgrades.procedures.proofs import prove
from upgrades.procedures.strict_yaml import MapNode, read_tree
from upgrades.procedures.tables import PROCEDURE

__all__ = ["Mistake", "ProcedureMistakes", "builtin", "load", "schema"]

_FOLDER = Path(__file__).parent


def load(text: bytes, *, name: str) -> Procedure:
    """The procedure in `text`, with the SHA-256 of these bytes; `name` is how mistakes call the file.

    Raises `ProcedureMistakes` with all mistakes of the file when there is any.
    """
    mistakes = Mistakes(name)
    root = read_tree(text, mistakes)
    procedure: Procedure | None = None
    if isinstance(root, MapNode):
        reading = Reading(mistakes, known_names(root))
        procedure = PROCEDURE.read(root, reading, "")
        if mistakes.structure_is_whole and procedure is not None and procedure.steps:
            prove(procedure, reading)
    elif root is not None:
        mistakes.add(
            Place(1, 1), "", "A procedure is a group of keys: `procedure`, `version`, `title` and so on."
        )
    if mistakes.found or procedure is None:
        raise ProcedureMistakes(mistakes.in_order())
    return replace(procedure, text_hash=hashlib.sha256(text).hexdigest())


def builtin() -> list[tuple[Path, bytes]]:
    """The texts that are shipped: `<id>/<version>.yaml` beside this module, each with its bytes, in order."""
    return [(path, path.read_bytes()) for path in sorted(_FOLDER.glob("*/*.yaml"))]


def schema() -> dict[str, Any]:
    """The JSON Schema of a procedure's text, for editors. `procedure.schema.json` holds it; a test compares them."""
    defs: dict[str, Any] = {}
    root = PROCEDURE.schema(defs)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A Runbook procedure",
        **root,
        "$defs": defs,
    }
