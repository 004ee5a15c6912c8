"""A small, strict part of YAML: texts, lists and mappings, each with its place. Everything else is a mistake.

Every scalar stays the text that stands in the file; its meaning comes from our own tables (`forms.py`). Tags, anchors,
aliases, merge keys, several documents and duplicate keys are refused, because each of them can make a file mean
something else than what a reviewer reads (trust.md 14.3).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import yaml
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from upgrades.procedures.mistakes import Mistakes, Place

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 20
TOO_DEEP = f"This is nested more than {MAX_DEPTH} deep. Nothing here needs that."
MAX_KEY = 200

# Right-to-left marks and their kin: a text that shows in another order than it is read (“Trojan Source”).
# Invisible ones make two names look like one.
_UNSEEN = frozenset(
    "\u061c\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)


@dataclass(frozen=True, slots=True)
class TextNode:
    """A scalar. `quoted` is true for '…' and "…"."""

    place: Place
    text: str
    quoted: bool


@dataclass(frozen=True, slots=True)
class ListNode:
    place: Place
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class MapNode:
    """Keys in the order of the file; each key with its own place."""

    place: Place
    entries: tuple[tuple[TextNode, Node], ...]

    def get(self, key: str) -> Node | None:
        return next((value for name, value in self.entries if name.text == key), None)


Node = TextNode | ListNode | MapNode


def read_tree(text: bytes, mistakes: Mistakes, *, fast: bool = False) -> Node | None:
    """The tree of the one document in `text`; what cannot be used is added to `mistakes`. None: there is no tree.

    `fast` is for long files: libyaml's parser where there is one, ten times as fast and terser about broken syntax.
    """
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader) if fast else yaml.BaseLoader
    decoded = _decoded(text, mistakes)
    if decoded is None:
        return None
    try:
        return _Composer(yaml.parse(decoded, Loader=loader), mistakes).document()
    except _TooDeep:
        pass
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
        what = " ".join(part for part in (error.context, error.problem) if part)
        if "nesting depth" in what:  # the parser looks ahead, and gives up before a node can be counted
            mistakes.add(place, "", TOO_DEEP)
        else:
            mistakes.add(place, "", f"This is not YAML that can be read: {what}.")
    except yaml.YAMLError as error:
        mistakes.add(Place(1, 1), "", f"This is not YAML that can be read: {error}.")
    return None


def folded(name: str) -> str:
    """The form in which two names are the same when they differ only in case, width or composition."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _decoded(text: bytes, mistakes: Mistakes) -> str | None:
    start = Place(1, 1)
    if len(text) > MAX_BYTES:
        mistakes.add(start, "", f"The file has {len(text)} bytes; at most {MAX_BYTES} are read. Split it.")
        return None
    if text.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in text[:4]:
        mistakes.add(start, "", "The file is UTF-16 or UTF-32. Save it as UTF-8.")
        return None
    if text.startswith(b"\xef\xbb\xbf"):
        mistakes.add(start, "", "The file begins with a byte order mark. Save it as UTF-8 without one.")
        text = text[3:]
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        before = text[: error.start]
        place = Place(before.count(b"\n") + 1, error.start - before.rfind(b"\n"))
        mistakes.add(place, "", "These bytes are not UTF-8. Save the file as UTF-8.")
        return None
    good = True
    for sign, message in _forbidden_signs(decoded):
        mistakes.add(_place_of(decoded, sign), "", message)
        good = False
    return decoded if good else None


def _forbidden_signs(text: str) -> Iterator[tuple[int, str]]:
    """Positions of characters that have no business in such a file: the first of each kind."""
    if (tab := text.find("\t")) >= 0:
        yield tab, "There is a tab here. Indent and separate with blanks only."
    if found := re.search(r"\r(?!\n)", text):
        yield found.start(), "There is a bare carriage return here. End lines with LF (or CR LF)."
    for position, char in enumerate(text):
        if not _is_allowed(char):
            yield position, f"The character U+{ord(char):04X} must not stand in this file. Remove it."
            return


def _is_allowed(char: str) -> bool:
    if char in "\n\r\t":
        return True
    return unicodedata.category(char) not in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp") and char not in _UNSEEN


def _place_of(text: str, position: int) -> Place:
    return Place(text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position))


class _TooDeep(Exception):
    """The nesting is beyond reason; what follows is not even read."""


class _Composer:
    """Builds the tree from the parser's events, and says what it refuses. A refused node is left out."""

    def __init__(self, events: Iterator[Event], mistakes: Mistakes) -> None:
        self.events = iter(events)
        self.mistakes = mistakes

    def document(self) -> Node | None:
        root: Node | None = None
        documents = 0
        for event in self.events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                self._document_start(event, documents)
                found = self._node(next(self.events), 1)
                root = found if documents == 1 else root
            elif isinstance(event, DocumentEndEvent) and event.explicit:
                self.mistakes.add(_place(event), "", "A document end (`...`) has no place here. Remove it.")
            elif isinstance(event, StreamEndEvent) and not documents:
                self.mistakes.add(Place(1, 1), "", "The file is empty.")
        return root

    def _document_start(self, event: DocumentStartEvent, number: int) -> None:
        if number == 2:
            self.mistakes.add(_place(event), "", "A second document begins here. A file holds one document.")
        if event.version or event.tags:
            self.mistakes.add(_place(event), "", "Directives (`%YAML`, `%TAG`) are not used. Remove them.")

    def _node(self, event: Event, depth: int) -> Node | None:
        place = _place(event)
        if isinstance(event, AliasEvent):
            self.mistakes.add(
                place,
                "",
                f"`*{event.anchor}` is an alias. Write out what it stands for: reviewers read the file.",
            )
            return None
        if isinstance(event, ScalarEvent | MappingStartEvent | SequenceStartEvent):
            self._refuse_extras(event, place)
        match event:
            case ScalarEvent():
                return self._text(event, place)
            case SequenceStartEvent():
                return self._list(place, depth)
            case MappingStartEvent():
                return self._map(place, depth)
        raise TypeError(type(event).__name__)  # the parser's grammar leaves nothing else

    def _refuse_extras(
        self, event: ScalarEvent | MappingStartEvent | SequenceStartEvent, place: Place
    ) -> None:
        if event.anchor:
            self.mistakes.add(
                place, "", f"`&{event.anchor}` is an anchor. Write things out where they are used."
            )
        if event.tag:
            self.mistakes.add(place, "", f"`{event.tag}` is a tag. Tags are not used: remove it.")

    def _text(self, event: ScalarEvent, place: Place) -> TextNode:
        bad = next((char for char in event.value if not _is_allowed(char)), None)
        if bad is not None:
            self.mistakes.add(
                place,
                "",
                f"The character U+{ord(bad):04X} must not stand in this file, escaped or not. Remove it.",
            )
        return TextNode(place, event.value, quoted=event.style in ("'", '"'))

    def _must_not_be_deeper(self, place: Place, depth: int) -> None:
        if depth > MAX_DEPTH:
            self.mistakes.add(place, "", TOO_DEEP)
            raise _TooDeep

    def _list(self, place: Place, depth: int) -> Node:
        self._must_not_be_deeper(place, depth)
        items: list[Node] = []
        while not isinstance(event := next(self.events), SequenceEndEvent):
            if (item := self._node(event, depth + 1)) is not None:
                items.append(item)
        return ListNode(place, tuple(items))

    def _map(self, place: Place, depth: int) -> Node:
        self._must_not_be_deeper(place, depth)
        entries: list[tuple[TextNode, Node]] = []
        known: dict[str, Place] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(next(self.events), depth + 1)
            if isinstance(key, TextNode) and self._is_key(key, known) and value is not None:
                entries.append((key, value))
            elif key is not None and not isinstance(key, TextNode):
                self.mistakes.add(key.place, "", "A key must be a plain text.")
        return MapNode(place, tuple(entries))

    def _is_key(self, key: TextNode, known: dict[str, Place]) -> bool:
        if len(key.text) > MAX_KEY:
            self.mistakes.add(
                key.place, "", f"This key has {len(key.text)} characters; at most {MAX_KEY} are read."
            )
            return False
        if key.text == "<<":
            self.mistakes.add(key.place, "", "`<<` (merge) is not used. Write the keys out.")
            return False
        before = known.setdefault(folded(key.text), key.place)
        if before is not key.place:
            self.mistakes.add(
                key.place,
                "",
                f"`{key.text}` stands here a second time (lines {before.line} and {key.place.line}). Keep one.",
            )
            return False
        return True


def _place(event: Event) -> Place:
    mark = event.start_mark
    return Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
