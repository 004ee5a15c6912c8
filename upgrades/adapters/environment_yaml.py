"""The YAML form of an environment, read by the strict reader that procedures have."""

from __future__ import annotations

from difflib import get_close_matches

from upgrades.domain.environment_records import KEYS, Kind
from upgrades.domain.environment_text import (
    FORMAT,
    MAX_ROWS,
    YAML_KEYS,
    YAML_SECTIONS,
    Cell,
    FileMistake,
    Reading,
    Row,
    Spot,
)
from upgrades.procedures.mistakes import Mistakes, Place
from upgrades.procedures.strict_yaml import ListNode, MapNode, Node, TextNode, read_tree

_NULLS = ("~", "null", "Null", "NULL")


def read_yaml(text: str, reading: Reading) -> None:
    """The rows of a YAML text; every mistake is added to `reading`."""
    reading.how = "YAML"
    mistakes = Mistakes("")
    tree = read_tree(text.encode(), mistakes, fast=True)
    reading.mistakes += [
        FileMistake(Spot(one.line, one.column), one.item, one.message) for one in mistakes.in_order()
    ]
    if tree is None:
        return
    if not isinstance(tree, MapNode):
        reading.wrong(
            _spot(tree.place), "The file must begin with keys, such as format, environment and hosts."
        )
        return
    if tree.get("format") is None:
        reading.wrong(Spot(1, 1), f'The format is missing. Write: format: "{FORMAT}"')
    for key, value in tree.entries:
        _section(key, value, reading)
    if len(reading.rows) > MAX_ROWS:
        reading.wrong(Spot(1, 1), f"The file has more than {MAX_ROWS} entries. Split it.")
        reading.rows.clear()


def _spot(place: Place) -> Spot:
    return Spot(place.line, place.column)


def _section(key: TextNode, value: Node, reading: Reading) -> None:
    if key.text == "format":
        if not isinstance(value, TextNode) or value.text != FORMAT:
            reading.wrong(_spot(value.place), f'This format is not known here. Known is: format: "{FORMAT}"')
        return
    kind = YAML_SECTIONS.get(key.text)
    if kind is None:
        reading.wrong(
            _spot(key.place), f"There is no key “{key.text[:40]}” here.{_hint(key.text, YAML_SECTIONS)}"
        )
    elif kind is Kind.ENVIRONMENT:
        _entry(kind, value, reading)
    elif isinstance(value, ListNode):
        for item in value.items:
            _entry(kind, item, reading)
    elif not (isinstance(value, TextNode) and not value.text and not value.quoted):
        reading.wrong(_spot(value.place), f"{key.text} must be a list: each entry begins with a dash.")


def _hint(text: str, known: dict[str, Kind] | dict[str, str]) -> str:
    close = get_close_matches(text[:60], list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]}?" if close else f" Known are: {', '.join(known)}."


def _entry(kind: Kind, node: Node, reading: Reading) -> None:
    if not isinstance(node, MapNode):
        reading.wrong(_spot(node.place), f"Write keys and values here, such as {KEYS[kind]}: …")
        return
    cells: dict[str, Cell] = {}
    for key, value in node.entries:
        name = YAML_KEYS[kind].get(key.text)
        if name is None:
            hint = _hint(key.text, YAML_KEYS[kind])
            reading.wrong(
                _spot(key.place), f"There is no key “{key.text[:40]}” in an entry of the kind {kind}.{hint}"
            )
        elif not isinstance(value, TextNode):
            reading.wrong(_spot(value.place), f"{key.text} must be one value, no list and no keys.")
        elif not value.quoted and value.text in _NULLS:
            reading.wrong(_spot(value.place), f'“{value.text}” is no value. Write "" for: not known.')
        else:
            cells[name] = Cell(value.text, _spot(value.place))
    reading.rows.append(Row(kind, _spot(node.place), cells))
