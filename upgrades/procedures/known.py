"""The names that a procedure's text defines, found before its parts are read, so that every use can be checked at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from upgrades.domain import condition as c
from upgrades.domain.groups import PARTS
from upgrades.domain.procedure import ParameterType
from upgrades.domain.version import NotAVersion, Version
from upgrades.domain.wording import placeholders
from upgrades.procedures.mistakes import nearest
from upgrades.procedures.strict_yaml import ListNode, MapNode, Node, TextNode

ROLE_FACTS = {
    "name": "text",
    "host": "text",
    "version": "version",
    "mode": "text",
    "type": "text",
    "target": "version",
    "there": "boolean",
}
ENVIRONMENT_FACTS = {
    "environment.schema": "version",
    "environment.schema-stays": "boolean",
    "environment.masters-current": "boolean",
    "environment.proxies-may-go-first": "boolean",
    "environment.disaster-recovery": "boolean",
    "environment.lca-current": "boolean",
    "environment.scs-current": "boolean",
}
APPLICATION_TYPE = re.compile(r"[A-Za-z]{2,40}", re.ASCII)
ENVIRONMENT_TARGET = re.compile(r"environment\.target\.[A-Za-z]{2,40}", re.ASCII)
# What `<role>.mode` can be. Two primaries are normal only while one of them is in upgrade mode (CSH-6d).
MODES = ("primary", "backup", "upgrade-mode", "primary-upgrade-mode", "down")

_PARAMETER_TYPES = frozenset(ParameterType)
_FACT_NAME = re.compile(r"[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)*", re.ASCII)
_BRACED = re.compile(r"\{([^{}]*)\}")
_TEMPLATE_SIGNS = ("{{", "{%", "{#", "${")


@dataclass(frozen=True, slots=True)
class Known:
    """Names of one file. `facts` maps each fact to its type: boolean, version, date or text."""

    roles: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    exposures: tuple[str, ...] = ()
    duties: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    facts: dict[str, str] | None = None

    def fact_type(self, name: str) -> str | None:
        if ENVIRONMENT_TARGET.fullmatch(name):
            return "version"
        return (self.facts or {}).get(name)

    @property
    def fact_names(self) -> frozenset[str]:
        return frozenset(self.facts or ())


def known_names(root: Node | None) -> Known:
    """What the file defines, as far as its parts have the right shape."""
    roles, parameters = _keys(root, "roles"), _keys(root, "parameters")
    facts = dict(ENVIRONMENT_FACTS)
    groups = _keys(root, "groups")
    for role in (*roles, *(PARTS if groups else ())):
        facts |= {role: "text", **{f"{role}.{name}": kind for name, kind in ROLE_FACTS.items()}}
    for parameter in parameters:
        kind = _text(_child(_child(root, "parameters"), parameter), "type")
        facts[parameter] = kind if kind in _PARAMETER_TYPES else "unknown"  # its own mistake; no further ones
    steps = _items(_child(root, "steps"))
    for effect in [effect for step in steps for effect in _items(_child(step, "effects"))]:
        name, value = _text(effect, "set"), _text(effect, "to")
        facts.setdefault(name, "boolean" if value in ("true", "false") else facts.get(value, "text"))
    return Known(
        roles=roles,
        parameters=parameters,
        exposures=_keys(root, "exposures"),
        duties=_keys(root, "duties"),
        steps=tuple(found for step in steps if (found := _text(step, "id"))),
        groups=groups,
        facts=facts,
    )


def _child(node: Node | None, key: str) -> Node | None:
    return node.get(key) if isinstance(node, MapNode) else None


def _keys(root: Node | None, key: str) -> tuple[str, ...]:
    part = _child(root, key)
    return tuple(name.text for name, _ in part.entries) if isinstance(part, MapNode) else ()


def _items(node: Node | None) -> tuple[Node, ...]:
    return node.items if isinstance(node, ListNode) else ()


def _text(node: Node | None, key: str) -> str:
    found = _child(node, key)
    return found.text if isinstance(found, TextNode) else ""


# Placeholders.


def placeholder_mistakes(text: str, known: Known) -> Iterator[str]:
    """What is wrong with the braces in a text for people: only `{fact}` with a known fact is filled in."""
    if any(sign in text for sign in _TEMPLATE_SIGNS):
        yield (
            "Only placeholders such as `{new.host}` are filled in: no `{{ }}`, `{% %}` or `${ }`, and nothing is "
            "taken from the surroundings."
        )
        return
    for inner in _BRACED.findall(text):
        if f"{{{inner}}}" not in {f"{{{name}}}" for name in placeholders(f"{{{inner}}}")}:
            yield f"`{{{inner[:60]}}}` is no placeholder. Name a fact in small letters, such as `{{new.host}}`."
        elif known.fact_type(inner) is None:
            yield f"Nothing is known under `{{{inner[:60]}}}`.{nearest(inner, known.fact_names)}"
    if set(_BRACED.sub("", text)) & {"{", "}"}:
        yield "There is a brace without its partner. Braces are only for placeholders such as `{new.host}`."


# Conditions.


def resolved(condition: c.Condition, known: Known) -> c.Condition:
    """The condition with `other_is_fact` set where a parameter stands on the right (`new.version = target`)."""
    match condition:
        case c.Compare(other=other):
            return replace(condition, other_is_fact=condition.other_is_fact or other in known.parameters)
        case c.Not(inner):
            return c.Not(resolved(inner, known))
        case c.All(parts):
            return c.All(tuple(resolved(part, known) for part in parts))
        case c.AnyOf(parts):
            return c.AnyOf(tuple(resolved(part, known) for part in parts))
        case c.Is():
            return condition


def condition_mistakes(condition: c.Condition, known: Known) -> Iterator[str]:
    """Facts that nobody knows, and comparisons that can never be true: both would keep something shut for ever."""
    match condition:
        case c.Is(name):
            yield from _is_mistakes(name, known)
        case c.Compare():
            yield from _compare_mistakes(condition, known)
        case c.Not(inner):
            yield from condition_mistakes(inner, known)
        case c.All(parts) | c.AnyOf(parts):
            for part in parts:
                yield from condition_mistakes(part, known)


def _unknown(name: str, known: Known) -> str:
    return f"Nothing is known under `{name[:60]}`.{nearest(name, known.fact_names)}"


def _is_mistakes(name: str, known: Known) -> Iterator[str]:
    kind = known.fact_type(name)
    if kind is None:
        yield _unknown(name, known)
    elif kind not in ("boolean", "unknown"):
        yield f"`{name}` is a {kind}, neither true nor false. Compare it with something."


def _compare_mistakes(condition: c.Compare, known: Known) -> Iterator[str]:
    kind = known.fact_type(condition.name)
    other = known.fact_type(condition.other) if condition.other_is_fact else None
    if kind is None:
        yield _unknown(condition.name, known)
        return
    if condition.other_is_fact and other is None:
        yield _unknown(condition.other, known)
        return
    if "unknown" in (kind, other):
        return
    if kind == "boolean":
        yield f"`{condition.name}` is true or false: write `{condition.name}` or `not {condition.name}`."
        return
    if condition.other_is_fact:
        if other != kind:
            yield f"`{condition.name}` is a {kind} and `{condition.other}` a {other}: they cannot be compared."
        return
    if condition.operation not in ("=", "!=") and kind != "version":
        yield f"`{condition.name}` is a {kind}: only versions have an order. Use `=` or `!=`."
    elif kind == "version" and not is_version(condition.other):
        yield f"`{condition.other}` is no version. Write digits and dots only, for example 8.5.101."
    elif condition.name.endswith(".mode") and condition.other not in MODES:
        yield f"No server has the mode `{condition.other}`.{nearest(condition.other, MODES)}"


def is_version(text: str) -> bool:
    try:
        Version.parse(text)
    except NotAVersion:
        return False
    return True


# Effects.


def is_fact_name(name: str) -> bool:
    return len(name) <= 120 and _FACT_NAME.fullmatch(name) is not None


def settable_mistake(name: str, known: Known) -> str:
    """Why a step's effect may not set this fact; empty when it may."""
    first, _, last = name.partition(".")
    if not is_fact_name(name):
        return f"`{name[:60]}` is no name of a fact. Small letters, digits and hyphens, parts joined by dots."
    if name in known.parameters or name in known.roles:
        return f"`{name}` is an answer of the start dialog; a step cannot change it."
    if first == "environment":
        return "Facts of the environment are read from it; a step cannot set them."
    if (first in known.roles or first in PARTS) and last not in ("mode", "version"):
        return f"Of a server a step sets `{first}.mode` or `{first}.version`, nothing else."
    return ""


def value_mistake(name: str, value: str, known: Known) -> str:
    """Why a fact cannot become this value; empty when it can."""
    first, _, last = name.partition(".")
    kind = known.fact_type(value)
    if first not in known.roles and first not in PARTS:
        return ""
    if last == "mode" and kind is None and value not in MODES:
        return f"No server has the mode `{value[:60]}`.{nearest(value, MODES)}"
    if last == "version" and kind != "version" and not is_version(value):
        return f"`{value[:60]}` is neither a version nor a fact that holds one."
    return ""
