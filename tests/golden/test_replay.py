"""Runs that an earlier release wrote are the same runs for this one: states, gates and the worker's next acts (trust.md R15)."""

import json

import pytest
from django.conf import settings

from tests.golden.courses import COURSES
from tests.golden.replay import HERE, differences, written
from upgrades.domain.record import canonical
from upgrades.procedures.loader import builtin

FILES = sorted(HERE.glob("*/*.jsonl"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_kept_history_goes_the_same_way_with_the_present_code(file):
    released = file.parent.name != settings.RELEASE
    difference = differences(file.read_text().splitlines(), released=released)
    assert difference is None, (
        f"{difference}. Runs that are open would change with an upgrade (docs/operation.md)."
    )


def test_the_present_release_has_a_history_of_every_procedure_and_four_of_the_main_one():
    names = {file.stem for file in FILES if file.parent.name == settings.RELEASE}
    assert names == set(COURSES), "Write them with `make golden`."
    for procedure in {path.parent.name for path, _ in builtin()}:
        assert f"{procedure}-clean" in names
    assert {f"config-server-ha-{course}" for course in ("rollback", "faults", "upgraded")} <= names


def test_the_same_course_writes_the_same_history():
    course = COURSES["config-server-ha-faults"]
    assert written(course) == written(course)


def changed(lines, place, **body):
    line = json.loads(lines[place])
    line["event"]["body"] |= body
    return [*lines[:place], canonical(line), *lines[place + 1 :]]


def place_of(lines, kind):
    return next(place for place, line in enumerate(lines) if json.loads(line)["event"]["kind"] == kind)


def test_a_changed_event_a_shut_gate_and_another_decision_are_all_noticed():
    lines = written(COURSES["config-server-ha-clean"])
    assert differences(lines) is None
    confirmed = place_of(lines, "gate.confirmed")
    assert "the state behind it is another one" in differences(changed(lines, confirmed, gate="other"))
    assert "would be shut" in differences(changed(lines, confirmed, answer="fail"))
    looked = next(place for place, line in enumerate(lines) if "next" in json.loads(line))
    line = json.loads(lines[looked])
    other = [*lines[:looked], canonical({**line, "next": line["next"] + 1}), *lines[looked + 1 :]]
    assert "a worker would decide" in differences(other)


def test_a_published_text_that_was_changed_is_named():
    lines = written(COURSES["lrm-removal-clean"])
    with pytest.raises(
        AssertionError, match="lrm-removal 1 was published and must not change: make version 2"
    ):
        differences(changed(lines, 0, procedure_hash="0" * 64))
