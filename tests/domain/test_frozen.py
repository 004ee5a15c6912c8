"""What is made fast is what the standard library makes, and as frozen."""

import dataclasses
import inspect
from dataclasses import FrozenInstanceError, dataclass
from datetime import UTC, datetime

import pytest

from tests.domain.scene import Scene
from upgrades.domain import run_events, run_state
from upgrades.domain.frozen import maker, positional_maker, replace
from upgrades.domain.run_events import EVENT_TYPES, Actor, Recorded, from_body, to_body
from upgrades.domain.run_state import RunState, StepState, StepStatus

CLASSES = [
    kind
    for module in (run_state, run_events)
    for kind in vars(module).values()
    if inspect.isclass(kind) and dataclasses.is_dataclass(kind) and kind.__module__ == module.__name__
]
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_a_copy_is_what_the_standard_library_makes():
    state = Scene().state
    for changes in ({}, {"seq": 7}, {"current": None, "hold_reason": "x", "executors": frozenset({"a"})}):
        copy = replace(state, **changes)
        assert copy == dataclasses.replace(state, **changes)
        assert type(copy) is RunState
    assert state == Scene().state


def test_what_a_class_does_not_have_is_refused():
    step = StepState(1, StepStatus.CURRENT, NOW)
    with pytest.raises(TypeError, match=r"StepState has no colour\."):
        replace(step, visit=2, colour="red")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_here_is_its_slots_and_nothing_else(kind):
    assert {field.name for field in dataclasses.fields(kind)} == set(kind.__slots__)
    assert all(field.init for field in dataclasses.fields(kind))
    assert not hasattr(kind, "__post_init__")
    assert RunState in CLASSES


@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=lambda kind: kind.__name__)
def test_an_event_that_is_read_is_the_one_that_was_made(kind):
    """With every field given, and with none of those that have a default."""
    for given in (dataclasses.fields(kind), [own for own in dataclasses.fields(kind) if is_demanded(own)]):
        event = kind(**{own.name: {} if own.name == "bindings" else own.name for own in given})
        body = {name: value for name, value in to_body(event).items() if name in {own.name for own in given}}
        read = from_body(kind.kind, body)
        assert read == event
        assert type(read) is kind
        with pytest.raises(FrozenInstanceError):
            setattr(read, dataclasses.fields(kind)[0].name, "another")


def is_demanded(own):
    return own.default is dataclasses.MISSING and own.default_factory is dataclasses.MISSING


def test_an_event_with_a_field_too_many_or_too_few_is_refused():
    with pytest.raises(TypeError, match="colour"):
        from_body("note.added", {"step": "", "text": "", "colour": "red"})
    with pytest.raises(TypeError, match="text"):
        from_body("note.added", {"step": ""})


def test_defaults_that_are_made_anew_are_nobody_elses():
    one, other = (from_body("step.begun", {"step": "a", "visit": 1}) for _ in range(2))
    assert one == other
    assert one.watermarks is not other.watermarks


def test_by_position_all_fields_are_given_in_order():
    make = positional_maker(Recorded)
    recorded = make(1, NOW, Actor("user:1", "Ann"), run_events.NoteAdded(step="", text="x"))
    assert recorded == Recorded(1, NOW, Actor("user:1", "Ann"), run_events.NoteAdded(step="", text="x"))
    assert hash(recorded) == hash(dataclasses.replace(recorded))
    with pytest.raises(TypeError):
        make(1, NOW)  # type: ignore[call-arg]


def test_a_class_that_does_more_when_it_is_made_is_refused():
    @dataclass(frozen=True, slots=True)
    class Checked:
        number: int

        def __post_init__(self):
            assert self.number

    for make in (maker, positional_maker):
        with pytest.raises(TypeError, match="Checked has a __post_init__"):
            make(Checked)
    with pytest.raises(TypeError, match="Checked has a __post_init__"):
        replace(Checked(1), number=0)
