"""The quick copy of states is that of the standard library."""

import dataclasses
from datetime import UTC, datetime

import pytest

from tests.domain.scene import Scene
from upgrades.domain import run_state
from upgrades.domain.run_state import RunState, StepState, StepStatus

CLASSES = [
    kind
    for kind in vars(run_state).values()
    if dataclasses.is_dataclass(kind) and kind.__module__ == run_state.__name__
]
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_a_copy_is_what_the_standard_library_makes():
    state = Scene().state
    for changes in ({}, {"seq": 7}, {"current": None, "hold_reason": "x", "executors": frozenset({"a"})}):
        assert run_state.replace(state, **changes) == dataclasses.replace(state, **changes)
    assert state == Scene().state


def test_what_a_class_does_not_have_is_refused():
    step = StepState(1, StepStatus.CURRENT, NOW)
    with pytest.raises(TypeError, match="StepState has no colour"):
        run_state.replace(step, visit=2, colour="red")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_here_is_its_slots_and_nothing_else(kind):
    assert {field.name for field in dataclasses.fields(kind)} == set(kind.__slots__)
    assert all(field.init for field in dataclasses.fields(kind))
    assert not hasattr(kind, "__post_init__")
    assert RunState in CLASSES
