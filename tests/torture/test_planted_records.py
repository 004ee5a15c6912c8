"""Records that the application does not write, each beside a sound one: the checker tells them apart."""

import json

import pytest
import yaml

from tests.golden.replay import HERE as HISTORIES
from tests.torture.checker import UNIQUE, Checker, Run
from upgrades.procedures.loader import builtin

AT = "2026-11-30T10:00:00+00:00"
STARTED = {
    "procedure": "p",
    "procedure_version": 1,
    "authors": [],
    "facts": {},
    "bindings": {},
    "parameters": {},
}
POLICIES = {"policies": {"two": {"role": "approver", "signatures": 2}}}
STOP = {"step": "stop", "visit": 1}
ENTERED, BEGUN = ("step.entered", STOP), ("step.begun", {**STOP, "watermarks": {}})
COMPLETED = ("step.completed", STOP)
SKIPPED = ("step.skipped", {**STOP, "reason": "r", "deviation": 1})
CONFIRMATION = {"gates": [{"id": "gone", "kind": "confirm"}]}
APPROVAL = {"needs": [{"id": "gone", "kind": "approval", "policy": "two"}]}


def _by(person):
    return {"kind": "person", "id": person, "name": person, "roles": ["operator", "approver"]}


def _judged(step, *events, earlier=()):
    """What the checker says of a run of one step, which the text puts behind `earlier` ones."""
    made = [("run.started", {**STARTED, **POLICIES}), *events]
    rows = []
    for seq, (kind, body, *by) in enumerate(made, 1):
        event = {"run": 1, "seq": seq, "kind": kind, "at": AT, "by": _by(*(by or ["olga"])), "body": body}
        rows.append({"seq": seq, "kind": kind, "text": json.dumps(event)})
    rules = {"p/1": {"steps": [*earlier, {"id": "stop", **step}]}}
    checker, run = Checker(None, rules=rules), Run({"id": 1, "environment_id": 1}, rows)
    checker._order(run)
    checker._gates(run)
    checker._signatures(run)
    return checker.found


def _asked(what):
    return "deviation.asked", {"number": 1, "what": what, **STOP, "gate": "gone", "reason": "r", "doubt": 0}


def _signed_deviation(decides=True):
    return "deviation.signed", {"number": 1, "decides": decides}, "ann"


def _signature(person, ahead=False):
    body = {**STOP, "gate": "gone", "digest": "plan" if ahead else "all", "ahead": ahead, "for_roles": []}
    return "approval.signed", body, person


def _request(kind, **more):
    return kind, {**STOP, "gate": "gone", **more}


def _of_member(*events):
    return [(kind, {**body, "step": "stop--scs-1"}, *by) for kind, body, *by in events]


def test_steps_of_a_group_are_held_against_their_text():
    each = {"for-each": "servers"}
    done = [ENTERED, BEGUN, COMPLETED]
    (found,) = _judged(CONFIRMATION | each, *_of_member(*done))
    assert "I1 run 1: stop--scs-1 was completed" in found
    confirmed = ("gate.confirmed", {**STOP, "gate": "gone", "answer": "pass"})
    assert _judged(CONFIRMATION | each, *_of_member(ENTERED, BEGUN, confirmed, COMPLETED)) == []
    (found,) = _judged(APPROVAL | each, *_of_member(ENTERED, _signature("ann"), BEGUN))
    assert "stop--scs-1 began with 1 of 2 signatures" in found
    assert _judged(APPROVAL | each, *_of_member(ENTERED, _signature("ann"), _signature("ben"), BEGUN)) == []
    (found,) = _judged(each, *_of_member(ENTERED), earlier=[{"id": "copy"}])
    assert "stop--scs-1 was entered before copy was closed or skipped" in found


@pytest.mark.parametrize("what", ["override", "emergency"])
def test_what_was_only_asked_for_opens_nothing(what):
    for text in (CONFIRMATION, APPROVAL):
        done = [BEGUN, COMPLETED]
        assert _judged(text, ENTERED, _asked(what), *done)
        assert _judged(text, ENTERED, _asked(what), _signed_deviation(decides=False), *done)
    assert _judged(CONFIRMATION, ENTERED, BEGUN, _asked(what), _signed_deviation(), COMPLETED) == []
    assert _judged(APPROVAL, ENTERED, _asked(what), _signed_deviation(), BEGUN) == []


@pytest.mark.parametrize(
    "gone",
    [
        _request("approval.lapsed", signer="ann", reason="r"),
        _request("approval.rejected"),
        _request("approval.expired"),
    ],
    ids=lambda event: event[0],
)
def test_a_signature_that_no_longer_stands_does_not_count(gone):
    (found,) = _judged(APPROVAL, ENTERED, _signature("ann"), gone, _signature("ben"), BEGUN)
    assert "I4 run 1, event 6: stop began with 1 of 2 signatures" in found
    again = [_signature("ann"), gone, _signature("ann"), _signature("ben")]
    assert _judged(APPROVAL, ENTERED, *again, BEGUN) == []


def test_one_lapsed_signature_leaves_the_others_and_those_given_ahead_count():
    lapsed = _request("approval.lapsed", signer="ann", reason="r")
    signed = [_signature("ben", ahead=True), _signature("ann"), lapsed, _signature("eve")]
    assert _judged(APPROVAL, *signed[:1], ENTERED, *signed[1:], BEGUN) == []


def test_who_signed_a_step_does_not_begin_it():
    signed = [ENTERED, _signature("ann"), _signature("ben")]
    (found,) = _judged(APPROVAL, *signed, (*BEGUN, "ann"))
    assert "stop was begun by ann, who had signed it" in found
    assert _judged(APPROVAL, *signed, BEGUN) == []


def test_a_step_is_skipped_by_a_branch_or_by_a_signed_deviation():
    assert any("I8" in found for found in _judged({}, ENTERED, SKIPPED))
    assert _judged({}, ENTERED, _asked("skip"), SKIPPED)
    assert _judged({}, ENTERED, _asked("override"), _signed_deviation(), SKIPPED)
    assert _judged({}, ENTERED, _asked("skip"), _signed_deviation(), SKIPPED) == []
    assert _judged({}, ("step.skipped", {**STOP, "reason": "r", "deviation": 0})) == []


@pytest.mark.parametrize("file", sorted(HISTORIES.glob("*/*.jsonl")), ids=lambda file: file.stem)
def test_of_a_sound_history_nothing_is_said(file, monkeypatch):
    """Those of every shipped text, with groups, faults, ways back and a change of the text; their log lines are not stored."""
    events = [json.loads(line)["event"] | {"run": 1} for line in file.read_text().splitlines()]
    rows = [{"seq": item["seq"], "kind": item["kind"], "text": json.dumps(item)} for item in events]
    rules = {f"{path.parent.name}/{int(path.stem)}": yaml.safe_load(content) for path, content in builtin()}
    checker, run = Checker(None, rules=rules), Run({"id": 1, "environment_id": 1}, rows)
    monkeypatch.setattr(checker, "_evidence", lambda *_: None)
    checker._order(run)
    checker._gates(run)
    checker._signatures(run)
    assert checker.found == []


class _Stored(Checker):
    """Answers what a database would; `rows` knows a statement by a part of it."""

    def __init__(self, answers, final):
        super().__init__(None, final=final)
        self.answers = answers

    def rows(self, sql, *_values):
        return next((found for part, found in self.answers.items() if part in sql), [])


@pytest.mark.parametrize(("old", "final", "is_named"), [(3, True, True), (0, True, False), (3, False, False)])
def test_a_record_grows_not_old_without_any_checkpoint(old, final, is_named):
    checker = _Stored({"make_interval": [{"n": old}]}, final)
    checker._sealed()
    assert any("there is no checkpoint" in found for found in checker.found) == is_named


@pytest.mark.parametrize("gone", ["a_server_is_claimed_once", "a_host_is_claimed_once"])
def test_nothing_may_let_a_server_belong_to_two_runs(gone):
    """The indexes see to it: they have a condition, so they are no constraints to the database."""
    there = [{"indexname": name} for name in UNIQUE]
    checker = _Stored({"pg_indexes": [item for item in there if item["indexname"] != gone]}, final=True)
    checker.lines = []
    checker._unique()
    assert checker.found == [f"I3 the constraint {gone} is gone"]


@pytest.mark.parametrize(("final", "found"), [(True, ["I9 no team started a run"]), (False, [])])
def test_a_round_in_which_nothing_was_done_is_not_green(final, found):
    checker = _Stored({}, final)
    checker._went_on()
    assert [said[:24] for said in checker.found] == found
