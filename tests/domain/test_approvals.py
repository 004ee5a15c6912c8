"""Approvals of a run: who may sign what and when, on a table."""

import dataclasses
from datetime import timedelta
from typing import get_args

import pytest

from tests.domain.scene import ANNA, AUDITOR, AUTHOR, BOTH, HA, OLGA, OTTO, REASON, Scene
from upgrades.domain import run, run_events
from upgrades.domain.gates import digest_to_sign
from upgrades.domain.refusal import BadInput, ContentChanged, GateClosed, NotAllowed, OutOfTurn
from upgrades.domain.run_events import WORKER, Actor, Recorded
from upgrades.domain.run_state import RunStatus, evolve, fold

DORA = Actor("7", "Dora", roles=("approver", "group:database"))
NED = Actor("8", "Ned", roles=("approver", "group:network"))
TWIN = Actor("9", "Tess", roles=("approver", "group:database", "group:network"))
EACH = {"needs": [{"group": "database", "signatures": 1}, {"group": "network", "signatures": 1}]}


def scene_with(policy=None, at="stop-old", **more):
    scene = Scene(policies={"point-of-no-return": policy or {"role": "approver", "signatures": 1}, **more})
    return scene.go_to(at)


def digest(scene, step="stop-old"):
    chosen = HA.step(step)
    return digest_to_sign(HA, scene.state, chosen, chosen.gate("approval"))


def reject(scene, by=ANNA):
    return scene.act(run.Reject(**scene.here, gate="approval", digest=digest(scene), reason=REASON), by)


def ask_again(scene, by=OLGA):
    return scene.act(run.AskAgain(**scene.here, gate="approval", reason=REASON), by)


def pass_time(scene, seconds):
    """What the worker's tick records so much later."""
    at = scene.history[-1].at + timedelta(seconds=seconds)
    for event in run.run_out(HA, scene.state, at):
        recorded = Recorded(len(scene.history) + 1, at, WORKER, event)
        scene.state = evolve(scene.state, recorded)
        scene.history.append(recorded)
    scene.worker()


# Who.


def may(scene, command, by):
    try:
        run.decide(HA, scene.state, command, by)
    except NotAllowed:
        return False
    return True


@pytest.mark.parametrize(
    ("who", "signs"),
    [
        (OLGA, False),
        (OTTO, False),
        (ANNA, True),
        (BOTH, True),
        (AUTHOR, False),
        (AUDITOR, False),
        (WORKER, False),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_matrix_of_who_signs(who, signs):
    """Starter, executor, author, without the role, no person: never; whoever is left: yes."""
    scene = scene_with()
    here = {**scene.here, "gate": "approval", "digest": digest(scene)}
    assert may(scene, run.Sign(**here), who) is signs
    assert may(scene, run.Reject(**here, reason=REASON), who) is signs


OF_WORKERS = (run.Begin, run.Complete, run.Report)


@pytest.mark.parametrize(
    "kind", [kind for kind in get_args(run.Command) if kind not in OF_WORKERS], ids=lambda kind: kind.__name__
)
def test_a_worker_decides_nothing_that_is_for_people(kind):
    """ASVS 8.3.3: whatever roles it may claim, what it does goes by its own right, never by that of whoever is asked."""
    scene = scene_with(EMERGENCY)
    known = {
        **scene.here,
        "visit": 1,
        "gate": "approval",
        "digest": digest(scene),
        "what": "skip",
        "to": BOTH,
    }
    known |= {"number": 1, "doubt": 1, "evidence": 0, "size": 0, "by_run": 2}
    command = kind(**{item.name: known.get(item.name, REASON) for item in dataclasses.fields(kind)})
    posing = dataclasses.replace(WORKER, roles=("operator", "approver", "auditor", "administrator"))
    for worker in (WORKER, posing):
        with pytest.raises(NotAllowed, match="only a person can"):
            run.decide(scene.procedure, scene.state, command, worker)


def test_whoever_holds_the_step_does_not_approve_it():
    scene = scene_with()
    scene.act(run.TakeStep(**scene.here), BOTH)
    with pytest.raises(NotAllowed, match="may not approve"):
        scene.sign(by=BOTH)


def test_an_operator_to_whom_the_step_was_handed_does_not_approve_it():
    scene = scene_with()
    scene.act(run.TakeStep(**scene.here), OTTO)
    scene.act(run.HandOver(**scene.here, to=BOTH), OTTO)
    with pytest.raises(NotAllowed, match="holds the present step"):
        scene.sign(by=BOTH)


def test_one_each_of_two_groups():
    scene = scene_with(EACH)
    with pytest.raises(NotAllowed, match="the group database or the group network"):
        scene.sign(by=ANNA)
    scene.sign(by=TWIN)
    assert not scene.verdict("approval").is_met
    assert scene.sign(by=TWIN) == []
    scene.sign(by=DORA)
    assert scene.verdict("approval").is_met


def test_a_second_of_the_same_group_is_told_what_is_missing():
    scene = scene_with(EACH)
    scene.sign(by=DORA)
    other = Actor("10", "Don", roles=("approver", "group:database"))
    with pytest.raises(OutOfTurn, match="still needs 1 of the group network"):
        scene.sign(by=other)


def test_what_has_all_its_signatures_takes_no_more():
    scene = scene_with()
    scene.sign()
    with pytest.raises(OutOfTurn, match="all the signatures"):
        scene.sign(by=BOTH)


def test_a_deputy_signs_for_the_absent_and_both_are_one():
    scene = scene_with({"role": "approver", "signatures": 2})
    stand_in = Actor("11", "Dev", roles=("auditor",), stands_for=(ANNA,))
    scene.sign(by=BOTH)
    events = run.decide(
        HA, scene.state, run.Sign(**scene.here, gate="approval", digest=digest(scene)), stand_in
    )
    assert (events[0].for_id, events[0].for_name) == (ANNA.id, "Anna")
    scene = scene_with({"role": "approver", "signatures": 2})
    scene.sign(by=ANNA)
    with pytest.raises(OutOfTurn, match="cannot be one of these"):
        scene.act(run.Sign(**scene.here, gate="approval", digest=digest(scene)), stand_in)


def test_a_deputy_of_somebody_who_is_barred_is_barred():
    scene = scene_with()
    stand_in = Actor("11", "Dev", roles=("auditor",), stands_for=(AUTHOR,))
    with pytest.raises(NotAllowed):
        scene.act(run.Sign(**scene.here, gate="approval", digest=digest(scene)), stand_in)


# Rejected, and asked again.


def test_after_a_rejection_nobody_signs_before_it_is_asked_again():
    scene = scene_with()
    old = digest(scene)
    reject(scene)
    with pytest.raises(OutOfTurn, match="rejected this request"):
        scene.sign(by=BOTH)
    ask_again(scene)
    with pytest.raises(ContentChanged):
        scene.act(run.Sign(**scene.here, gate="approval", digest=old), BOTH)
    scene.sign(by=BOTH)
    assert scene.verdict("approval").is_met


def test_what_was_signed_for_one_request_does_not_count_for_the_next():
    scene = scene_with({"role": "approver", "signatures": 2})
    scene.sign(by=ANNA)
    reject(scene, by=BOTH)
    ask_again(scene)
    scene.sign(by=BOTH)
    assert not scene.verdict("approval").is_met


def test_an_open_request_is_not_asked_again():
    with pytest.raises(OutOfTurn, match="open still"):
        ask_again(scene_with())


def test_nothing_is_approved_while_the_run_is_on_hold():
    scene = scene_with()
    scene.act(run.Hold(reason=REASON))
    with pytest.raises(OutOfTurn, match="on hold"):
        scene.sign()


# Time.


@pytest.mark.parametrize("result", ["lapse", "reject", "hold"])
def test_time_never_approves(result):
    scene = scene_with({"role": "approver", "signatures": 2, "expires": {"after": 600, "result": result}})
    scene.sign()
    pass_time(scene, 300)
    assert scene.events(run_events.ApprovalExpired) == []
    pass_time(scene, 600)
    (expired,) = scene.events(run_events.ApprovalExpired)
    assert expired.result == result
    assert not scene.verdict("approval").is_met
    assert scene.state.status is (RunStatus.HELD if result == "hold" else RunStatus.RUNNING)
    if result == "hold":
        scene.resume()
    if result != "lapse":
        with pytest.raises(OutOfTurn, match="not decided in time"):
            scene.sign(by=BOTH)
        ask_again(scene)
    scene.sign(by=BOTH)
    assert not scene.verdict("approval").is_met, "what lapsed does not count any more"
    scene.sign(by=ANNA)
    assert scene.verdict("approval").is_met
    pass_time(scene, 10_000)
    assert scene.verdict("approval").is_met, "what is approved does not run out"
    assert fold(scene.history) == scene.state


def test_without_a_signature_nothing_lapses_however_long_it_waits():
    scene = scene_with({"role": "approver", "signatures": 1, "expires": {"after": 600, "result": "lapse"}})
    before = len(scene.history)
    pass_time(scene, 100_000)
    assert len(scene.history) == before


def test_a_deviation_that_nobody_decides_is_rejected():
    policy = {"role": "approver", "signatures": 1, "expires": {"after": 600, "result": "hold"}}
    scene = scene_with(deviation=policy)
    scene.act(run.AskDeviation(**scene.here, what="skip", reason=REASON))
    pass_time(scene, 600)
    deviation = scene.state.deviations[1]
    assert not deviation.is_open
    assert not deviation.signed
    assert scene.state.status is RunStatus.HELD


# Ahead of its turn.

AHEAD = {"role": "approver", "signatures": 1, "ahead": True}


def sign_ahead(scene, by=ANNA):
    command = run.Sign(step="stop-old", visit=1, gate="approval", digest=digest(scene))
    return scene.act(command, by)


def test_a_signature_ahead_counts_when_the_run_comes_to_the_step():
    scene = scene_with(AHEAD, at="replace-folder")
    (signed,) = sign_ahead(scene)
    assert signed.ahead
    scene.go_to("stop-old")
    assert scene.verdict("approval").is_met
    assert len(scene.events(run_events.ApprovalSigned)) == 1


def test_without_the_policy_nothing_is_signed_ahead():
    with pytest.raises(OutOfTurn, match="not the current step"):
        sign_ahead(scene_with(at="replace-folder"))


def test_a_signature_ahead_lapses_when_the_plan_changes():
    scene = scene_with(AHEAD, at="replace-folder")
    sign_ahead(scene)
    scene.act(run.CorrectFact(name="target", value="8.5.102", reason=REASON))
    scene.act(run.SignDeviation(number=1), BOTH)
    assert len(scene.events(run_events.ApprovalLapsed)) == 1


def test_whoever_signed_ahead_and_then_works_on_the_run_has_not_signed():
    scene = scene_with(AHEAD, at="replace-folder")
    sign_ahead(scene, by=BOTH)
    scene.begin(by=BOTH)
    (lapsed,) = scene.events(run_events.ApprovalLapsed)
    assert "has worked on the run since" in lapsed.reason


# Deviations with several signatures, and gates that are never waived.


def test_a_deviation_takes_as_many_people_as_its_policy_asks_for():
    scene = scene_with(deviation={"role": "approver", "signatures": 2})
    scene.act(run.AskDeviation(**scene.here, what="skip", reason=REASON))
    scene.act(run.SignDeviation(number=1), ANNA)
    assert scene.state.current == "stop-old"
    assert scene.act(run.SignDeviation(number=1), ANNA) == []
    scene.act(run.SignDeviation(number=1), BOTH)
    assert scene.state.current != "stop-old"


def test_whoever_asked_may_withdraw_a_deviation():
    scene = scene_with()
    scene.act(run.AskDeviation(**scene.here, what="skip", reason=REASON))
    scene.act(run.RejectDeviation(number=1, reason="no need any more"))
    assert not scene.state.deviations[1].is_open


@pytest.mark.parametrize("name", ["way-back", "stop-old.way-back"])
@pytest.mark.parametrize("what", ["skip", "override"])
@pytest.mark.bad_input("D13")
def test_a_gate_that_is_never_waived_is_not(name, what):
    scene = scene_with(deviation={"needs": [{"role": "approver", "signatures": 1}], "never": [name]})
    gate = "" if what == "skip" else "way-back"
    assert "way-back" in {gate.id for gate in scene.step.needs}
    with pytest.raises(NotAllowed, match="never waives"):
        scene.act(run.AskDeviation(**scene.here, what=what, gate=gate, reason=REASON))


# Emergencies.

EMERGENCY = {"role": "approver", "signatures": 2, "override": True}


def ask_override(scene, by=OLGA, reason=REASON):
    return scene.act(run.AskOverride(**scene.here, gate="approval", reason=reason), by)


def agree(scene, by, comment=REASON):
    return scene.act(run.SignDeviation(number=len(scene.state.deviations), comment=comment), by)


@pytest.mark.bad_input("D13")
def test_an_emergency_takes_two_people_and_marks_the_run_for_ever():
    scene = scene_with(EMERGENCY)
    ask_override(scene)
    assert not scene.verdict("approval").is_met
    agree(scene, ANNA)
    assert scene.verdict("approval").is_met
    scene.begin()
    assert scene.state.status is RunStatus.RUNNING
    assert [item.number for item in scene.state.emergencies] == [1]
    with pytest.raises(NotAllowed, match="auditor"):
        scene.act(run.ReviewOverride(number=1, text=REASON), ANNA)
    scene.act(run.ReviewOverride(number=1, text=REASON), AUDITOR)
    assert scene.state.emergencies[0].review.by == AUDITOR
    with pytest.raises(OutOfTurn, match="closed this review already"):
        scene.act(run.ReviewOverride(number=1, text=REASON), AUDITOR)


def test_an_operator_who_has_not_worked_on_the_run_may_be_the_second_person():
    scene = scene_with(EMERGENCY)
    ask_override(scene)
    agree(scene, OTTO)
    assert scene.verdict("approval").is_met


@pytest.mark.parametrize("who", [OLGA, AUTHOR, AUDITOR, WORKER], ids=lambda actor: actor.name)
def test_nobody_with_a_hand_in_the_run_is_the_second_person(who):
    scene = scene_with(EMERGENCY)
    ask_override(scene)
    with pytest.raises(NotAllowed):
        agree(scene, who)


def test_whoever_asked_is_not_the_second_person():
    scene = scene_with(EMERGENCY)
    ask_override(scene, by=OTTO)
    with pytest.raises(NotAllowed):
        agree(scene, OTTO)


@pytest.mark.parametrize("reason", ["", "x", " " * 40, "hurry"])
@pytest.mark.bad_input("D13")
def test_an_emergency_has_a_reason(reason):
    scene = scene_with(EMERGENCY)
    with pytest.raises(BadInput):
        ask_override(scene, reason=reason)
    ask_override(scene)
    with pytest.raises(BadInput):
        agree(scene, ANNA, comment=reason)


def test_a_policy_can_switch_emergencies_off():
    scene = scene_with({"role": "approver", "signatures": 2})
    with pytest.raises(NotAllowed, match="does not allow emergency overrides"):
        ask_override(scene)


def test_an_emergency_does_not_go_over_a_decision():
    scene = scene_with(EMERGENCY)
    ask_override(scene)
    reject(scene)
    with pytest.raises(NotAllowed, match="does not go over a decision"):
        agree(scene, BOTH)
    with pytest.raises(NotAllowed, match="does not go over a decision"):
        ask_override(scene)


def test_an_emergency_does_not_outlive_its_visit():
    scene = scene_with(EMERGENCY)
    ask_override(scene)
    agree(scene, ANNA)
    scene.begin()
    scene.restart()
    with pytest.raises(GateClosed):
        scene.begin()


# Who holds a step.

ONLY = {"holder": "only"}


def test_whoever_begins_holds_and_others_see_it():
    scene = scene_with()
    scene.sign()
    scene.begin()
    assert scene.state.steps["stop-old"].holder == OLGA
    scene.act(run.AddNote(text="here too"), OTTO)


def test_where_the_policy_says_so_only_the_holder_acts():
    scene = scene_with(steps=ONLY)
    scene.sign()
    scene.begin()
    here = scene.here
    for command in (run.Complete(**here), run.Restart(**here, reason=REASON)):
        with pytest.raises(OutOfTurn, match="Olga holds"):
            scene.act(command, OTTO)
    scene.act(run.Hold(reason="stop at once"), OTTO)
    scene.resume(by=OTTO)
    with pytest.raises(BadInput, match="too short"):
        scene.act(run.TakeStep(**here, reason="mine"), OTTO)
    scene.act(run.TakeStep(**here, reason=REASON), OTTO)
    scene.restart(by=OTTO)
    assert OTTO.id in scene.state.executors


def test_a_step_is_handed_over_by_its_holder_to_another_operator():
    scene = scene_with(steps=ONLY)
    scene.act(run.TakeStep(**scene.here))
    with pytest.raises(OutOfTurn, match="does not hold"):
        scene.act(run.HandOver(**scene.here, to=OTTO), OTTO)
    with pytest.raises(BadInput, match="does not have the role"):
        scene.act(run.HandOver(**scene.here, to=ANNA))
    scene.act(run.HandOver(**scene.here, to=OTTO))
    scene.sign()
    with pytest.raises(OutOfTurn, match="Otto holds"):
        scene.begin(by=OLGA)
    scene.begin(by=OTTO)


def test_whoever_signed_a_step_neither_takes_it_nor_gets_it():
    scene = scene_with()
    scene.sign(by=BOTH)
    with pytest.raises(NotAllowed, match="another person carries it out"):
        scene.act(run.TakeStep(**scene.here), BOTH)
    scene.act(run.TakeStep(**scene.here))
    with pytest.raises(NotAllowed, match="another person carries it out"):
        scene.act(run.HandOver(**scene.here, to=BOTH))


def test_a_step_that_is_entered_anew_has_no_holder():
    scene = scene_with(steps=ONLY)
    scene.sign()
    scene.begin()
    scene.restart()
    assert scene.state.steps["stop-old"].holder is None


def test_an_emergency_change_is_reviewed_once_it_is_over():
    scene = Scene(category="emergency")
    review = run.ReviewOverride(number=run_events.WHOLE_RUN, text=REASON)
    assert scene.state.reviews_open == (0,)
    with pytest.raises(OutOfTurn, match="still open"):
        scene.act(review, AUDITOR)
    scene.act(run.Abort(reason=REASON))
    assert scene.state.reviews_open == (0,)
    with pytest.raises(NotAllowed, match="auditor"):
        scene.act(review, ANNA)
    scene.act(review, AUDITOR)
    assert scene.state.reviews_open == ()
    with pytest.raises(OutOfTurn, match="closed this review already"):
        scene.act(review, AUDITOR)


def test_a_normal_change_has_no_review_of_its_own():
    scene = Scene()
    scene.act(run.Abort(reason=REASON))
    assert scene.state.reviews_open == ()
    with pytest.raises(BadInput, match="no emergency"):
        scene.act(run.ReviewOverride(number=run_events.WHOLE_RUN, text=REASON), AUDITOR)
