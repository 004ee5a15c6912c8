"""Conditions as a procedure's text states them, read and evaluated anew. What is not known is None, never true."""

import re

_TOKEN = re.compile(r"\s*(<=|>=|!=|=|<|>|\(|\)|[A-Za-z0-9][A-Za-z0-9._-]*)")
_FACT = re.compile(r"[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)*")
_OPERATIONS = ("=", "!=", "<", "<=", ">", ">=", "in")


def value_of(text, facts, questions=()):
    """True, False or None of the condition `text` over `facts`; a missing condition holds.

    On the right of a comparison stands a value, a fact with a dot in its name, or one of the `questions`.
    """
    return True if text is None else _Reader(text, facts, questions).whole()


def renamed(text, name):
    """The condition with each word that names a fact put through `name`."""
    return None if text is None else " ".join(name(token) for token in _tokens(text))


def _tokens(text):
    tokens, at = [], 0
    text = text.strip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"{text!r} cannot be read at {at}")
        tokens.append(found.group(1))
        at = found.end()
    return tokens


class _Reader:
    def __init__(self, text, facts, questions):
        self.text, self.facts, self.questions = text, facts, questions
        self.tokens = _tokens(text)

    def whole(self):
        value = self.either()
        if self.tokens:
            raise ValueError(f"{self.text!r} goes on with {self.tokens[0]!r}")
        return value

    def next_is(self, *words):
        return bool(self.tokens) and self.tokens[0] in words

    def either(self):
        values = [self.both()]
        while self.next_is("or"):
            self.tokens.pop(0)
            values.append(self.both())
        return True if True in values else None if None in values else False

    def both(self):
        values = [self.one()]
        while self.next_is("and"):
            self.tokens.pop(0)
            values.append(self.one())
        return False if False in values else None if None in values else True

    def one(self):
        first = self.tokens.pop(0)
        if first == "not":
            value = self.one()
            return None if value is None else not value
        if first == "(":
            value = self.either()
            if self.tokens.pop(0) != ")":
                raise ValueError(f"{self.text!r}: a bracket stays open")
            return value
        if self.next_is(*_OPERATIONS):
            operation, other = self.tokens.pop(0), self.tokens.pop(0)
            is_fact = other in self.questions or ("." in other and _FACT.fullmatch(other))
            return _compared(self.facts.get(first), operation, self.facts.get(other) if is_fact else other)
        value = self.facts.get(first)
        return value if isinstance(value, bool) else None


def _compared(left, operation, right):
    if not isinstance(left, str) or not isinstance(right, str) or not left or not right:
        return None
    mine, theirs = _version(left), _version(right)
    if operation in ("=", "!="):
        known = mine is not None and theirs is not None
        same = _order(mine, theirs) == 0 if known else left == right
        return same if operation == "=" else not same
    if mine is None or theirs is None:
        return None
    if operation == "in":
        return _is_of(mine, theirs)
    order = _order(mine, theirs)
    return {"<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0}[operation]


def _version(text):
    """The numbers of a version, or None."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6}){0,5}", text.strip()):
        return None
    return tuple(int(part) for part in text.strip().split("."))


def _order(mine, theirs):
    """-1, 0 or 1; missing parts are zero."""
    most = max(len(mine), len(theirs))
    left, right = (part + (0,) * (most - len(part)) for part in (mine, theirs))
    return (left > right) - (left < right)


def _is_of(mine, release):
    """8.1.3 has 8.1.3.12 and 8.1.300.28."""
    if len(mine) < 3 or len(release) < 3 or mine[:2] != release[:2]:
        return False
    return mine[2] == release[2] or (release[2] < 10 and mine[2] // 100 == release[2])
