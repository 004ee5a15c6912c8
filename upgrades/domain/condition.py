"""Conditions of a procedure over facts, such as ``old.version < 8.5 and not database-upgraded``.

Three-valued (Kleene): a fact that is not known makes what depends on it unknown, never true.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from upgrades.domain.version import NotAVersion, Version

Fact = bool | str | None
Facts = Mapping[str, Fact]

_TOKEN = re.compile(r"\s*(<=|>=|!=|=|<|>|\(|\)|[A-Za-z0-9][A-Za-z0-9._-]*)", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_RESERVED = ("and", "or", "not", "in")
_DEEPEST = 20  # brackets and nots within each other
_NAME = re.compile(r"[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)*", re.ASCII)
_COMPARISONS: dict[str, Callable[[Version, Version], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": Version.is_of,  # `old.version in 8.1.3`: it belongs to that release
}


class NotACondition(ValueError):
    """The text cannot be read as a condition; the message says where it stops making sense."""


@dataclass(frozen=True, slots=True)
class Is:
    """The named fact is true."""

    name: str


@dataclass(frozen=True, slots=True)
class Compare:
    """A fact compared with a literal, or with another fact when `other_is_fact`."""

    name: str
    operation: str
    other: str
    other_is_fact: bool


@dataclass(frozen=True, slots=True)
class Not:
    inner: Condition


@dataclass(frozen=True, slots=True)
class All:
    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    parts: tuple[Condition, ...]


Condition = Is | Compare | Not | All | AnyOf


def holds(condition: Condition, facts: Facts) -> bool | None:
    """True, False, or None when a fact that decides is not known."""
    match condition:
        case Is(name):
            value = facts.get(name)
            return value if isinstance(value, bool) else None
        case Compare():
            return _compare(condition, facts)
        case Not(inner):
            value = holds(inner, facts)
            return None if value is None else not value
        case All(parts):
            values = [holds(part, facts) for part in parts]
            return False if False in values else None if None in values else True
        case AnyOf(parts):
            values = [holds(part, facts) for part in parts]
            return True if True in values else None if None in values else False


def names(condition: Condition) -> frozenset[str]:
    """The facts that the condition reads."""
    match condition:
        case Is(name):
            return frozenset({name})
        case Compare(name, _, other, other_is_fact):
            return frozenset({name, other} if other_is_fact else {name})
        case Not(inner):
            return names(inner)
        case All(parts) | AnyOf(parts):
            return frozenset().union(*(names(part) for part in parts))


def spell(condition: Condition) -> str:
    """The condition as a text that says the same."""
    match condition:
        case Is(name):
            return name
        case Compare(name, operation, other, _):
            return f"{name} {operation} {other}"
        case Not(inner):
            return f"not {_bracketed(inner)}"
        case All(parts):
            return " and ".join(_bracketed(part) for part in parts)
        case AnyOf(parts):
            return " or ".join(_bracketed(part) for part in parts)


def _bracketed(condition: Condition) -> str:
    text = spell(condition)
    return f"({text})" if isinstance(condition, All | AnyOf) else text


def renamed(condition: Condition, name: Callable[[str], str]) -> Condition:
    """The same condition over other facts: each fact's name is what `name` makes of it."""
    match condition:
        case Is(fact):
            return Is(name(fact))
        case Compare(fact, operation, other, other_is_fact):
            return Compare(name(fact), operation, name(other) if other_is_fact else other, other_is_fact)
        case Not(inner):
            return Not(renamed(inner, name))
        case All(parts):
            return All(tuple(renamed(part, name) for part in parts))
        case AnyOf(parts):
            return AnyOf(tuple(renamed(part, name) for part in parts))


def settled(condition: Condition, known: Mapping[str, bool]) -> Condition | bool:
    """What is left to ask when these facts are known for good; True or False when nothing is."""
    match condition:
        case Is(name):
            return known.get(name, condition)
        case Not(inner):
            left = settled(inner, known)
            return not left if isinstance(left, bool) else Not(left)
        case All(parts):
            return _joined(All, [settled(part, known) for part in parts], decisive=False)
        case AnyOf(parts):
            return _joined(AnyOf, [settled(part, known) for part in parts], decisive=True)
        case Compare():
            return condition


def _joined(
    kind: type[All] | type[AnyOf], parts: list[Condition | bool], *, decisive: bool
) -> Condition | bool:
    if decisive in [part for part in parts if isinstance(part, bool)]:
        return decisive
    left = tuple(part for part in parts if not isinstance(part, bool))
    if not left:
        return not decisive
    return left[0] if len(left) == 1 else kind(left)


def _compare(condition: Compare, facts: Facts) -> bool | None:
    left = facts.get(condition.name)
    right: Fact = facts.get(condition.other) if condition.other_is_fact else condition.other
    if not isinstance(left, str) or not isinstance(right, str) or not left or not right:
        return None
    if condition.operation in ("=", "!="):
        same = _same(left, right)
        return same if condition.operation == "=" else not same
    try:
        return _COMPARISONS[condition.operation](Version.parse(left), Version.parse(right))
    except NotAVersion:
        return None


def _same(left: str, right: str) -> bool:
    try:
        return Version.parse(left) == Version.parse(right)
    except NotAVersion:
        return left == right


def parse_condition(text: str) -> Condition:
    """The condition that `text` states; `NotACondition` with the place of the first mistake otherwise."""
    reader = _Reader(text)
    condition = reader.either()
    if reader.peek() is not None:
        raise NotACondition(f"“{text}”: “{reader.peek()}” does not belong here.")
    return condition


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = []
        position = 0
        while position < len(text.rstrip()):
            token = _TOKEN.match(text, position)
            if token is None:
                raise NotACondition(f"“{text}”: cannot read “{text[position:].strip()[:20]}”.")
            self.tokens.append(token.group(1))
            position = token.end()
        self.at = 0
        self.depth = 0

    def peek(self) -> str | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self) -> str:
        token = self.peek()
        if token is None:
            raise NotACondition(f"“{self.text}” ends too early.")
        self.at += 1
        return token

    def either(self) -> Condition:
        parts = [self.both()]
        while self.peek() == "or":
            self.take()
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def both(self) -> Condition:
        parts = [self.one()]
        while self.peek() == "and":
            self.take()
            parts.append(self.one())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def one(self) -> Condition:
        token = self.take()
        if token in ("not", "("):
            self.depth += 1
            if self.depth > _DEEPEST:
                raise NotACondition(f"“{self.text[:40]}…” is nested too deeply.")
            inner = Not(self.one()) if token == "not" else self.bracketed()
            self.depth -= 1
            return inner
        if not _NAME.fullmatch(token) or token in _RESERVED:
            raise NotACondition(f"“{self.text}”: a fact's name is expected in place of “{token}”.")
        following = self.peek()
        if following in ("=", "!=", *_COMPARISONS):
            operation = self.take()
            other = self.take()
            if not _WORD.fullmatch(other) or other in _RESERVED:
                raise NotACondition(f"“{self.text}”: a value is expected in place of “{other}”.")
            return Compare(
                token, operation, other, other_is_fact="." in other and bool(_NAME.fullmatch(other))
            )
        return Is(token)

    def bracketed(self) -> Condition:
        inner = self.either()
        if self.take() != ")":
            raise NotACondition(f"“{self.text}”: a closing bracket is missing.")
        return inner
