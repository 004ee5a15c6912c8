"""A run is its events: the same events give the same state, however they are told and stored."""

import json
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.domain.scene import OLGA, START, Scene, started
from upgrades.domain.event_rule import Kind
from upgrades.domain.run_events import (
    EVENT_TYPES,
    Bound,
    LogEventSeen,
    Recorded,
    StepEntered,
    StepSkipped,
    from_body,
    to_body,
)
from upgrades.domain.run_state import StepStatus, begin, evolve, fold, watch_id, watch_key

JSON = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8)


def values(hint):
    """Values of a type, as the events declare them."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return JSON
    if hint is Bound:
        return st.builds(
            Bound,
            **dict.fromkeys(("application", "application_type", "host", "version"), st.text(max_size=8)),
        )
    if origin is dict:
        return st.dictionaries(values(inner[0]), values(inner[1]), max_size=3)
    if origin is list:
        return st.lists(values(inner[0]), max_size=3)
    return st.from_type(hint)


def events(kind):
    hints = get_type_hints(EVENT_TYPES[kind])
    return st.builds(
        EVENT_TYPES[kind], **{name: values(hint) for name, hint in hints.items() if name != "kind"}
    )


@pytest.mark.parametrize("kind", EVENT_TYPES)
@settings(deadline=None)
@given(data=st.data())
def test_an_event_comes_back_from_its_stored_text(kind, data):
    event = data.draw(events(kind))
    assert from_body(kind, json.loads(json.dumps(to_body(event)))) == event


def histories():
    forced = Scene().go_to("launch-new")
    forced.see("new", "21-22911", "21-22902")
    compatible = Scene(old_version="8.5.100").go_to("launch-new")
    compatible.see("new", "21-22902", "21-22172")
    deviant = Scene().go_to("install-new")
    deviant.deviate("override", gate="names-equal")
    yield pytest.param(Scene().finish(), id="automatic")
    yield pytest.param(Scene(database_upgraded=True).finish(), id="database upgraded")
    yield pytest.param(forced.finish(), id="forced")
    yield pytest.param(compatible.finish(), id="compatible")
    yield pytest.param(deviant.finish(), id="with a deviation")


@pytest.mark.parametrize("scene", list(histories()))
def test_replaying_the_stored_history_gives_the_same_state(scene):
    stored = [(r.seq, r.at, r.by, r.event.kind, json.dumps(to_body(r.event))) for r in scene.history]
    replayed = [
        Recorded(seq, at, by, from_body(kind, json.loads(body))) for seq, at, by, kind, body in stored
    ]
    assert fold(replayed) == scene.state


@pytest.mark.parametrize("scene", list(histories()))
def test_one_go_and_one_by_one_are_the_same(scene):
    state = begin(scene.history[0])
    for recorded in scene.history[1:]:
        before = state
        state = evolve(state, recorded)
        assert state is not before
        assert state.seq == recorded.seq
    assert state == fold(iter(scene.history))


def test_a_run_starts_once_and_with_its_start():
    with pytest.raises(TypeError, match="first event of a run"):
        fold([Recorded(1, START, OLGA, StepEntered(step="first", visit=1))])
    first = Recorded(1, START, OLGA, started())
    with pytest.raises(ValueError, match="once"):
        evolve(begin(first), Recorded(2, START, OLGA, started()))


def test_states_share_nothing_that_changes():
    scene = Scene().go_to("launch-new")
    before = scene.state
    shown = repr(before)
    scene.finish()
    assert repr(before) == shown


@settings(deadline=None)
@given(st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}[a-z0-9]", fullmatch=True), st.integers(1, 99))
def test_a_watch_is_known_by_step_visit_and_gate(name, visit):
    assert watch_key(watch_id(name, visit, "gate-1")) == (name, visit, "gate-1")


def test_a_step_that_is_skipped_on_a_later_visit_counts_that_visit():
    state = begin(Recorded(1, START, OLGA, started()))
    for seq, event in enumerate(
        [
            StepEntered(step="read-only", visit=1),
            StepSkipped(step="read-only", visit=1, reason="one"),
            StepSkipped(step="read-only", visit=2, reason="two"),
        ],
        2,
    ):
        state = evolve(state, Recorded(seq, START, OLGA, event))
    at = state.steps["read-only"]
    assert (at.visit, at.status, at.reason) == (2, StepStatus.SKIPPED, "two")


def test_the_same_line_reported_twice_is_recorded_once():
    scene = Scene().go_to("launch-new")
    lines = scene.lines("new", "21-22911", "21-25301")
    scene.report(*lines, *lines)
    scene.report(*lines)
    assert len(scene.events(LogEventSeen)) == 2


def test_the_end_of_a_process_is_recorded_once_per_change():
    scene = Scene().go_to("launch-new")
    scene.end_of("new")
    scene.changes -= 1
    scene.end_of("new")
    observed = scene.state.gate("launch-new", "initialized").observations
    assert [one.kind for one in observed] == [Kind.ENDED]
