"""Forms: what a part of a procedure's text may look like, how it is read, and its JSON Schema, from one table.

`read` never raises: what is wrong goes to the mistakes with its place, and a harmless blank stands in, so that the
rest of the file is examined in the same pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from upgrades.domain import procedure as p
from upgrades.domain.condition import Condition, Is, NotACondition, parse_condition
from upgrades.domain.groups import PARTS
from upgrades.domain.procedure import EndRun, Follow, GoOn, GoOver, GoTo, PutOnHold
from upgrades.procedures import known as k
from upgrades.procedures.mistakes import Mistakes, Place, nearest
from upgrades.procedures.strict_yaml import ListNode, MapNode, Node, TextNode, folded

Schema = dict[str, Any]

ID = re.compile(r"(?=.{2,64}\Z)[a-z0-9][a-z0-9-]*[a-z0-9]", re.ASCII)
_NAME = re.compile(r"(?=.{2,64}\Z)[a-z][a-z0-9-]*[a-z0-9]", re.ASCII)
EVENT = re.compile(r"[0-9]{2}-[0-9]{5}", re.ASCII)
SOURCE = re.compile(
    r"(GEN|INT|LCA|ML|CS|CSS|CSM|CSH|PRX|RB)(-[A-Z]{0,2}[0-9]{1,2}[a-z]{0,2}|-[A-Z])?|SITE-[0-9]{1,4}[a-z]?",
    re.ASCII,
)
_DURATION = re.compile(r"([1-9][0-9]{0,5}) ?(s|min|h|days?)", re.ASCII)
_SECONDS = {"s": 1, "min": 60, "h": 3600, "day": 86400, "days": 86400}
LONGEST = 31 * 86400
MAX_CONDITION = 300
# Names that are devices on Windows, or mean something else to one of the programs that meet them.
RESERVED = frozenset(
    {"con", "prn", "aux", "nul", "all", "any", "none", "null", "true", "false", "and", "or", "not", "in"}
    | {"environment", "constructor", "prototype", "each", "beside", "peer", "nobody"}
    | {f"{port}{number}" for port in ("com", "lpt") for number in range(10)}
)


@dataclass(slots=True)
class Reading:
    """One pass over one file. `places` remembers where each part that was built stands, by identity."""

    mistakes: Mistakes
    known: k.Known
    texts: Callable[[str, int], p.Procedure | None] = lambda _name, _version: (
        None
    )  # other procedures, sound ones
    places: dict[int, tuple[Place, str]] = field(default_factory=dict)
    _kept: list[Any] = field(default_factory=list)

    def remember(self, part: Any, place: Place, item: str) -> None:
        self.places[id(part)] = (place, item)
        self._kept.append(part)  # alive, so that no other part gets its identity

    def remember_copy(self, original: Any, copy: Any) -> None:
        """What is wrong with `copy` is wrong with the part of the text that it was made from."""
        if id(original) in self.places:
            self.remember(copy, *self.places[id(original)])

    def mistake(self, node: Node, item: str, message: str, *, structure: bool = False) -> None:
        self.mistakes.add(node.place, item, message, structure=structure)


class Form(Protocol):
    """A shape of text. `blank` stands in for what could not be read."""

    @property
    def blank(self) -> Any: ...

    def read(self, node: Node, to: Reading, item: str) -> Any: ...

    def schema(self, defs: dict[str, Schema]) -> Schema: ...


def _scalar(node: Node, to: Reading, item: str, wanted: str) -> str | None:
    if not isinstance(node, TextNode):
        what = "a list" if isinstance(node, ListNode) else "a group of keys"
        to.mistake(node, item, f"Here stands {what}; {wanted} is expected.", structure=True)
        return None
    if not node.text.strip():
        to.mistake(node, item, f"Here stands nothing; {wanted} is expected.")
        return None
    return node.text


@dataclass(frozen=True, slots=True)
class Text:
    """Words for people. With `filled`, placeholders such as `{new.host}` may stand in them."""

    most: int = 2000
    filled: bool = True
    blank: str = ""

    def read(self, node: Node, to: Reading, item: str) -> str:
        text = _scalar(node, to, item, "a text")
        if text is None:
            return self.blank
        if len(text) > self.most:
            to.mistake(node, item, f"This text has {len(text)} characters; at most {self.most} fit the page.")
        if self.filled:
            for mistake in k.placeholder_mistakes(text, to.known):
                to.mistake(node, item, mistake)
        elif "{" in text or "}" in text:
            to.mistake(node, item, "Placeholders are not filled in here: leave the braces out.")
        return text.strip()

    def schema(self, _: dict[str, Schema]) -> Schema:
        return {"type": "string", "minLength": 1, "maxLength": self.most}


@dataclass(frozen=True, slots=True)
class Identifier:
    """A name that other parts use. With `in_conditions` it begins with a letter."""

    in_conditions: bool = False
    blank: str = ""

    @property
    def pattern(self) -> re.Pattern[str]:
        return _NAME if self.in_conditions else ID

    def read(self, node: Node, to: Reading, item: str) -> str:
        text = _scalar(node, to, item, "a name")
        if text is None:
            return self.blank
        if not self.pattern.fullmatch(text):
            start = ", beginning with a letter" if self.in_conditions else ""
            to.mistake(
                node,
                item,
                f"`{text[:64]}` cannot be a name. Use 2 to 64 small letters a-z, digits and hyphens{start}.",
                structure=True,
            )
        elif text in RESERVED:
            to.mistake(
                node, item, f"`{text}` means something else already. Choose another name.", structure=True
            )
        return text

    def schema(self, _: dict[str, Schema]) -> Schema:
        first = "a-z" if self.in_conditions else "a-z0-9"
        return {"type": "string", "pattern": f"^[{first}][a-z0-9-]{{0,62}}[a-z0-9]$"}


@dataclass(frozen=True, slots=True)
class Reference:
    """The name of a step, role, group, parameter, exposure or duty that the same file defines. With `or_part`, a role
    may also be a part of a group's member: each, beside, peer."""

    what: str
    or_part: bool = False
    blank: str = ""

    def read(self, node: Node, to: Reading, item: str) -> str:
        text = _scalar(node, to, item, f"the name of a {self.what}")
        if text is None:
            return self.blank
        names: dict[str, tuple[str, ...]] = {
            "step": to.known.steps,
            "role": to.known.roles + (PARTS if self.or_part and to.known.groups else ()),
            "group": to.known.groups,
            "parameter": to.known.parameters,
            "exposure": to.known.exposures,
            "duty": to.known.duties,
        }
        if text not in names[self.what]:
            hint = nearest(text, names[self.what])
            to.mistake(node, item, f"There is no {self.what} `{text[:64]}`.{hint}", structure=True)
        return text

    def schema(self, _: dict[str, Schema]) -> Schema:
        return {"type": "string", "description": f"The name of a {self.what} of this file."}


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text of a given form, such as an event. With `must_be_quoted`, quotes are demanded: other readers of YAML, and
    other people, could take the bare text for a number or a date."""

    pattern: re.Pattern[str]
    wanted: str
    must_be_quoted: bool = False
    blank: str = ""

    def read(self, node: Node, to: Reading, item: str) -> str:
        text = _scalar(node, to, item, self.wanted)
        if text is None or not isinstance(node, TextNode):
            return self.blank
        if not self.pattern.fullmatch(text):
            to.mistake(node, item, f"`{text[:64]}` is not {self.wanted}.")
        elif self.must_be_quoted and not node.quoted:
            to.mistake(node, item, f'Put `{text}` in quotes: "{text}".')
        return text

    def schema(self, _: dict[str, Schema]) -> Schema:
        return {"type": "string", "pattern": f"^({self.pattern.pattern})$"}


@dataclass(frozen=True, slots=True)
class Sources:
    """One requirement id, or a list of them."""

    blank: tuple[str, ...] = ()

    def read(self, node: Node, to: Reading, item: str) -> tuple[str, ...]:
        one = Pattern(SOURCE, "the id of a requirement, such as CSH-6a (or SITE-12 for a rule of your own)")
        if isinstance(node, ListNode):
            if not node.items:
                to.mistake(node, item, "Say which requirement this carries out, such as CSH-6a.")
            return tuple(one.read(inner, to, item) for inner in node.items)
        return (one.read(node, to, item),)

    def schema(self, _: dict[str, Schema]) -> Schema:
        one = {"type": "string", "pattern": f"^({SOURCE.pattern})$"}
        return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}


@dataclass(frozen=True, slots=True)
class OneOrMore:
    """One, or a list of them; read as a tuple."""

    inner: Form
    blank: tuple[Any, ...] = ()

    def read(self, node: Node, to: Reading, item: str) -> tuple[Any, ...]:
        if not isinstance(node, ListNode):
            return (self.inner.read(node, to, item),)
        if not node.items:
            to.mistake(node, item, "The list is empty; at least 1 is expected.", structure=True)
        return tuple(self.inner.read(entry, to, item) for entry in node.items)

    def schema(self, defs: dict[str, Schema]) -> Schema:
        one = self.inner.schema(defs)
        return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}


@dataclass(frozen=True, slots=True)
class Boolean:
    blank: bool = False

    def read(self, node: Node, to: Reading, item: str) -> bool:
        text = _scalar(node, to, item, "true or false")
        if text is not None and text not in ("true", "false"):
            to.mistake(node, item, f"`{text[:40]}` is neither `true` nor `false`.")
        return text == "true"

    def schema(self, _: dict[str, Schema]) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class WholeNumber:
    blank: int = 1

    def read(self, node: Node, to: Reading, item: str) -> int:
        text = _scalar(node, to, item, "a whole number")
        if text is None:
            return self.blank
        if not re.fullmatch(r"[1-9][0-9]{0,5}", text, re.ASCII):
            to.mistake(node, item, f"`{text[:40]}` is no whole number from 1 to 999999 (digits only).")
            return self.blank
        return int(text)

    def schema(self, _: dict[str, Schema]) -> Schema:
        return {"type": "integer", "minimum": 1, "maximum": 999999}


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time, read as seconds."""

    blank: int | None = None

    def read(self, node: Node, to: Reading, item: str) -> int | None:
        text = _scalar(node, to, item, "a length of time")
        if text is None:
            return None
        found = _DURATION.fullmatch(text)
        seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
        if not 0 < seconds <= LONGEST:
            to.mistake(
                node,
                item,
                f"`{text[:40]}` is no length of time. Write 30 s, 3 min, 2 h or 14 days; at most 31 days.",
            )
            return None
        return seconds

    def schema(self, _: dict[str, Schema]) -> Schema:
        return {"type": "string", "pattern": f"^{_DURATION.pattern}$", "examples": ["3 min"]}


@dataclass(frozen=True, slots=True)
class Limit:
    """A length of time, read as seconds, or `{fact: name}`: the number of seconds that this fact holds."""

    blank: int | None = None

    def read(self, node: Node, to: Reading, item: str) -> int | str | None:
        if not isinstance(node, MapNode):
            return Duration().read(node, to, item)
        fact = node.get("fact")
        if len(node.entries) != 1 or fact is None:
            to.mistake(node, item, "Write a length of time, or `{fact: name}` and nothing beside it.")
            return None
        name = _scalar(fact, to, item, "the name of a fact") or ""
        kind = to.known.fact_type(name)
        if kind is None:
            to.mistake(
                fact, item, f"Nothing is known under `{name[:60]}`.{nearest(name, to.known.fact_names)}"
            )
        elif kind not in ("number", "unknown"):
            to.mistake(fact, item, f"`{name}` is a {kind}; a countdown needs a number of seconds.")
        return name

    def schema(self, defs: dict[str, Schema]) -> Schema:
        fact = {
            "type": "object",
            "additionalProperties": False,
            "properties": {"fact": {"type": "string"}},
            "required": ["fact"],
        }
        return {"anyOf": [Duration().schema(defs), fact]}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words. `made` turns the word into its meaning."""

    words: tuple[str, ...]
    made: Callable[[str], Any] = str

    @property
    def blank(self) -> Any:
        return self.made(self.words[0])

    def read(self, node: Node, to: Reading, item: str) -> Any:
        text = _scalar(node, to, item, " or ".join(self.words))
        if text is None:
            return self.blank
        if text not in self.words:
            hint = nearest(text, self.words) or f" Known are: {', '.join(self.words)}."
            to.mistake(node, item, f"`{text[:40]}` is not known here.{hint}")
            return self.blank
        return self.made(text)

    def schema(self, _: dict[str, Schema]) -> Schema:
        return {"enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class ConditionText:
    """A condition over facts, such as `old.version < 8.5 and not database-upgraded`."""

    blank: Condition = field(default_factory=lambda: Is("unreadable"))

    def read(self, node: Node, to: Reading, item: str) -> Condition:
        text = _scalar(node, to, item, "a condition")
        if text is None:
            return self.blank
        if len(text) > MAX_CONDITION:
            to.mistake(
                node, item, f"This condition has {len(text)} characters; at most {MAX_CONDITION} are read."
            )
            return self.blank
        try:
            condition = k.resolved(parse_condition(text), to.known)
        except NotACondition as error:
            to.mistake(node, item, f"This condition cannot be read. {error}")
            return self.blank
        for mistake in k.condition_mistakes(condition, to.known):
            to.mistake(node, item, mistake)
        return condition

    def schema(self, _: dict[str, Schema]) -> Schema:
        return {
            "type": "string",
            "maxLength": MAX_CONDITION,
            "description": "A condition over facts: names, not, and, or, brackets, = != < <= > >= in.",
            "examples": ["old.version < 8.5 and not database-upgraded"],
        }


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list. `unique` names the attribute that must differ; `made` turns the list into what the core wants."""

    inner: Form
    least: int = 1
    most: int = 100
    unique: str = ""
    made: Callable[[Iterable[Any]], Any] = tuple

    @property
    def blank(self) -> Any:
        return self.made(())

    def read(self, node: Node, to: Reading, item: str) -> Any:
        if not isinstance(node, ListNode):
            to.mistake(
                node,
                item,
                "A list is expected here, each entry on a line of its own after `- `.",
                structure=True,
            )
            return self.blank
        if len(node.items) > self.most:
            to.mistake(
                node,
                item,
                f"There are {len(node.items)} entries; at most {self.most} are read.",
                structure=True,
            )
            return self.blank
        if len(node.items) < self.least:
            to.mistake(node, item, f"The list is empty; at least {self.least} is expected.", structure=True)
        values = [
            _read_entry(self.inner, number, inner, to, item) for number, inner in enumerate(node.items, 1)
        ]
        if self.unique:
            _must_differ(
                [
                    (getattr(value, self.unique), inner)
                    for value, inner in zip(values, node.items, strict=True)
                ],
                to,
                item,
            )
        return self.made(values)

    def schema(self, defs: dict[str, Schema]) -> Schema:
        return {
            "type": "array",
            "items": self.inner.schema(defs),
            "minItems": self.least,
            "maxItems": self.most,
        }


def _read_entry(form: Form, number: int, node: Node, to: Reading, item: str) -> Any:
    if isinstance(form, Record | Kinds):
        return form.read_named(node, to, item, str(number))
    return form.read(node, to, item)


def _must_differ(named: list[tuple[str, Node]], to: Reading, item: str) -> None:
    first: dict[str, Node] = {}
    for name, node in named:
        before = first.setdefault(folded(name), node)
        if name and before is not node:
            lines = f"lines {before.place.line} and {node.place.line}"
            to.mistake(
                node,
                item,
                f"The name `{name}` stands here twice ({lines}). Names must differ.",
                structure=True,
            )


@dataclass(frozen=True, slots=True)
class MapOf:
    """Keys that are data, such as event numbers, each with its value; read as pairs."""

    key: Form
    value: Form
    blank: tuple[tuple[str, Any], ...] = ()

    def read(self, node: Node, to: Reading, item: str) -> tuple[tuple[str, Any], ...]:
        if not isinstance(node, MapNode):
            to.mistake(node, item, "Keys with values are expected here.", structure=True)
            return ()
        return tuple(
            (self.key.read(key, to, item), self.value.read(value, to, item)) for key, value in node.entries
        )

    def schema(self, defs: dict[str, Schema]) -> Schema:
        return {
            "type": "object",
            "propertyNames": self.key.schema(defs),
            "additionalProperties": self.value.schema(defs),
        }


@dataclass(frozen=True, slots=True)
class NamedRecords:
    """Records under their names: `roles`, `parameters`, `exposures`, `duties`."""

    name: Identifier
    record: Record
    blank: tuple[Any, ...] = ()

    def read(self, node: Node, to: Reading, item: str) -> tuple[Any, ...]:
        if not isinstance(node, MapNode):
            to.mistake(node, item, "Names, each with its keys below it, are expected here.", structure=True)
            return ()
        found = []
        for key, value in node.entries:
            name = self.name.read(key, to, item)
            found.append(self.record.read_named(value, to, item, name, given={self.record.named_by: name}))
        return tuple(found)

    def schema(self, defs: dict[str, Schema]) -> Schema:
        return {
            "type": "object",
            "propertyNames": self.name.schema(defs),
            "additionalProperties": self.record.schema(defs),
        }


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a record: its form, whether it must be there, what it is called in the core, and help for writers."""

    form: Form
    required: bool = False
    attribute: str = ""
    help: str = ""


Check = Callable[[Any, MapNode, Reading, str], None]


@dataclass(frozen=True, slots=True)
class Record:
    """A group of keys that becomes one object of the core. `word` is what people call it."""

    word: str
    keys: Mapping[str, Key]
    made: Callable[..., Any]
    named_by: str = "id"
    check: Check | None = None
    schema_name: str = ""

    @property
    def blank(self) -> Any:
        return self.made(**self._blanks())

    def _attribute(self, name: str) -> str:
        return self.keys[name].attribute or name.replace("-", "_")

    def read(self, node: Node, to: Reading, item: str) -> Any:
        return self.read_named(node, to, item, "")

    def read_named(
        self, node: Node, to: Reading, item: str, name: str, given: Mapping[str, Any] | None = None
    ) -> Any:
        """`name` is its key or its number in a list; an `id` of its own goes before it. `given` are further values."""
        own = node.get("id") if isinstance(node, MapNode) else None
        label = own.text[:64] if isinstance(own, TextNode) else name
        item = ", ".join(part for part in (item, f"{self.word} {label}".strip()) if part)
        values = dict(given or {})
        if not isinstance(node, MapNode):
            to.mistake(
                node, item, f"Keys and values are expected here ({', '.join(self.keys)}).", structure=True
            )
            return self.made(**{**self._blanks(), **values})
        values |= self._values(node, to, item)
        found = self.made(**values)
        to.remember(found, node.place, item)
        if self.check is not None:
            self.check(found, node, to, item)
        return found

    def _blanks(self) -> dict[str, Any]:
        return {self._attribute(name): key.form.blank for name, key in self.keys.items() if key.required}

    def _values(self, node: MapNode, to: Reading, item: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, inner in node.entries:
            key = self.keys.get(name.text)
            if key is None:
                to.mistake(
                    name,
                    item,
                    f"The key `{name.text[:64]}` is not known here.{nearest(name.text, tuple(self.keys))}",
                )
            else:
                values[self._attribute(name.text)] = key.form.read(inner, to, item)
        for key_name, key in self.keys.items():
            if key.required and node.get(key_name) is None:
                to.mistake(
                    node, item, f"`{key_name}` is missing. {key.help}".strip(), structure=key_name == "id"
                )
                values.setdefault(self._attribute(key_name), key.form.blank)
        return values

    def schema(self, defs: dict[str, Schema]) -> Schema:
        name = self.schema_name or self.word
        if name not in defs:
            defs[name] = {}  # holds the place: a record may contain itself
            defs[name] = self._definition(defs)
        return {"$ref": f"#/$defs/{name}"}

    def _definition(self, defs: dict[str, Schema]) -> Schema:
        properties = {
            name: {**key.form.schema(defs), **({"description": key.help} if key.help else {})}
            for name, key in self.keys.items()
        }
        required = [name for name, key in self.keys.items() if key.required]
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": properties,
            "required": required,
        }


@dataclass(frozen=True, slots=True)
class Kinds:
    """A record whose keys depend on its `kind`."""

    word: str
    kinds: Mapping[str, Record]

    @property
    def blank(self) -> Any:
        return next(iter(self.kinds.values())).blank

    def read(self, node: Node, to: Reading, item: str) -> Any:
        return self.read_named(node, to, item, "")

    def read_named(self, node: Node, to: Reading, item: str, name: str) -> Any:
        kind = node.get("kind") if isinstance(node, MapNode) else None
        if isinstance(kind, TextNode) and kind.text in self.kinds:
            return self.kinds[kind.text].read_named(node, to, item, name)
        wanted = f"`kind` must be one of {', '.join(self.kinds)}."
        if isinstance(kind, TextNode):
            wanted = f"There is no kind `{kind.text[:40]}`.{nearest(kind.text, tuple(self.kinds))}"
        to.mistake(kind or node, f"{item}, {self.word} {name}", wanted, structure=True)
        return self.blank

    def schema(self, defs: dict[str, Schema]) -> Schema:
        return {"oneOf": [record.schema(defs) for record in self.kinds.values()]}


_GO_OVER = ("go-over", "version", "through")


@dataclass(frozen=True, slots=True)
class FollowText:
    """What comes next: `continue`, or one of go-to, end, go-over, and for outcomes hold."""

    may_hold: bool = False
    blank: Follow = field(default_factory=GoOn)

    def _forms(self) -> dict[str, tuple[Form, Callable[[str], Follow]]]:
        forms: dict[str, tuple[Form, Callable[[str], Follow]]] = {
            "go-to": (Reference("step"), GoTo),
            "end": (Identifier(), EndRun),
        }
        return forms | ({"hold": (Text(most=300), PutOnHold)} if self.may_hold else {})

    def read(self, node: Node, to: Reading, item: str) -> Follow:
        if isinstance(node, TextNode) and node.text == "continue":
            return GoOn()
        if isinstance(node, MapNode) and node.get("go-over") is not None:
            return self._go_over(node, to, item)
        forms = self._forms()
        words = [f"`{word}: …`" for word in (*forms, "go-over")]
        if not isinstance(node, MapNode) or len(node.entries) != 1 or node.entries[0][0].text not in forms:
            to.mistake(
                node, item, f"Say what follows: `continue`, or one of {', '.join(words)}.", structure=True
            )
            return self.blank
        word, value = node.entries[0]
        form, made = forms[word.text]
        return made(form.read(value, to, item))

    def _go_over(self, node: MapNode, to: Reading, item: str) -> Follow:
        name, version, through = (node.get(key) for key in _GO_OVER)
        if name is None or version is None or through is None or len(node.entries) != len(_GO_OVER):
            to.mistake(
                node,
                item,
                "To go over takes `go-over` (the procedure), `version`, and `through` (the steps to enter first, in order).",
                structure=True,
            )
            return self.blank
        found = GoOver(
            Identifier().read(name, to, item),
            WholeNumber().read(version, to, item),
            ListOf(Identifier(), most=20).read(through, to, item),
        )
        other = to.texts(found.procedure, found.version)
        if other is None:
            to.mistake(
                name, item, f"There is no sound procedure `{found.procedure}`, version {found.version}, here."
            )
            return found
        found = replace(found, text_hash=other.text_hash, authors=other.authors)
        to.remember(found, node.place, item)
        return found

    def schema(self, defs: dict[str, Schema]) -> Schema:
        ways = [
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {word: form.schema(defs)},
                "required": [word],
            }
            for word, (form, _) in self._forms().items()
        ]
        go_over = {
            "go-over": Identifier().schema(defs),
            "version": WholeNumber().schema(defs),
            "through": ListOf(Identifier(), most=20).schema(defs),
        }
        ways.append(
            {
                "type": "object",
                "additionalProperties": False,
                "properties": go_over,
                "required": list(_GO_OVER),
            }
        )
        return {"oneOf": [{"const": "continue"}, *ways]}


@dataclass(frozen=True, slots=True)
class OneOf:
    """An expected event: an event, or `{one-of: [events]}`."""

    blank: frozenset[str] = frozenset()

    def read(self, node: Node, to: Reading, item: str) -> frozenset[str]:
        if (
            isinstance(node, MapNode)
            and len(node.entries) == 1
            and (several := node.get("one-of")) is not None
        ):
            return frozenset(ListOf(EVENT_ID, most=20).read(several, to, item))
        return frozenset({EVENT_ID.read(node, to, item)})

    def schema(self, defs: dict[str, Schema]) -> Schema:
        several = {
            "type": "object",
            "additionalProperties": False,
            "properties": {"one-of": ListOf(EVENT_ID, most=20).schema(defs)},
            "required": ["one-of"],
        }
        return {"oneOf": [EVENT_ID.schema(defs), several]}


EVENT_ID = Pattern(
    EVENT, 'an event such as "21-22170" (application type, hyphen, five digits)', must_be_quoted=True
)
