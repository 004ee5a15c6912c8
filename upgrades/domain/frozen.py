"""Frozen dataclasses with slots, made without the price of being frozen.

A frozen dataclass sets each of its fields through object.__setattr__. Where very many are made (lines that are read,
events that are loaded, states that are folded) that is most of the time. Here a twin with the same slots, not frozen,
is filled, and then made one of the kind; nobody else has seen it until then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, field, fields, make_dataclass
from operator import attrgetter
from typing import Any, ParamSpec, TypeVar, cast

_Fields = ParamSpec("_Fields")
_Kind = TypeVar("_Kind")


def _twin(kind: Any, same: Callable[[Field[Any]], Any]) -> Any:
    """A class with the fields of `kind`, each as `same` says, that is not frozen."""
    if hasattr(kind, "__post_init__"):
        raise TypeError(f"{kind.__name__} has a __post_init__, which would be passed over.")
    return make_dataclass("Twin", [(own.name, Any, same(own)) for own in fields(kind)], slots=True)


def _as_it_is(own: Field[Any]) -> Any:
    return field(default=own.default, default_factory=own.default_factory, kw_only=own.kw_only)


def _in_its_place(_own: Field[Any]) -> Any:
    return field()


def maker(kind: Callable[_Fields, _Kind]) -> Callable[_Fields, _Kind]:
    """A constructor of the frozen dataclass `kind` that is called just as its own."""
    twin = _twin(kind, _as_it_is)

    def make(*values: _Fields.args, **named: _Fields.kwargs) -> _Kind:
        made = twin(*values, **named)
        made.__class__ = kind
        return made  # type: ignore[no-any-return]

    return make


def positional_maker(kind: Callable[_Fields, _Kind]) -> Callable[_Fields, _Kind]:
    """As `maker`, and faster still: all fields must be given, in order."""
    twin = _twin(kind, _in_its_place)

    def make(*values: _Fields.args, **_named: _Fields.kwargs) -> _Kind:
        made: Any = twin(*values)
        made.__class__ = kind
        return made  # type: ignore[no-any-return]

    return make


# Kind -> its twin, what reads all fields, and where each of them stands.
_parts: dict[type, tuple[Any, Callable[[Any], tuple[Any, ...]], dict[str, int]]] = {}


def _parts_of(kind: type) -> tuple[Any, Callable[[Any], tuple[Any, ...]], dict[str, int]]:
    names = [own.name for own in fields(cast(Any, kind))]
    return (
        _twin(kind, _in_its_place),
        attrgetter(*names),
        {name: place for place, name in enumerate(names)},
    )


def replace(value: _Kind, **changes: Any) -> _Kind:
    """`dataclasses.replace` for frozen dataclasses of two fields or more, in a fraction of its time."""
    kind = type(value)
    if kind not in _parts:
        _parts[kind] = _parts_of(kind)
    twin, read, places = _parts[kind]
    values = list(read(value))
    try:
        for name, new in changes.items():
            values[places[name]] = new
    except KeyError as unknown:
        raise TypeError(f"{kind.__name__} has no {unknown.args[0]}.") from None
    made = twin(*values)
    made.__class__ = kind
    return made  # type: ignore[no-any-return]
