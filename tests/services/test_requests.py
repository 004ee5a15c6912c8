"""Requests for signatures as rows: they rise and fall with the run, run out by a worker, and say who is wanted."""

from datetime import timedelta
from functools import partial
from uuid import uuid4

import pytest
from django.utils import timezone

from tests.factories import make_environment, make_user, stand_in
from tests.services.night import REASON, Night, at_once, check_every_run
from upgrades.domain import run as core
from upgrades.domain.gates import digest_to_sign
from upgrades.domain.refusal import BadInput, GateClosed, NotAllowed, OutOfTurn
from upgrades.models import Membership, Notice, Presence, RunRequest
from upgrades.queries.approvals import count_waiting, inbox
from upgrades.services import holding, runs
from upgrades.services.people import actor_for, actor_id

pytestmark = pytest.mark.django_db

EXPIRES = {"expires": {"after": 600, "result": "reject"}}


def stand(policy=None, **more):
    return Night(policies=more | ({"point-of-no-return": policy} if policy else {})).go_to("stop-old")


def request_of(night, kind="approval"):
    return RunRequest.objects.get(run=night.run, kind=kind)


def later(monkeypatch, seconds):
    at = timezone.now() + timedelta(seconds=seconds)
    monkeypatch.setattr("upgrades.services.runs.timezone.now", lambda: at)


def test_the_number_falls_with_each_signature_and_rises_when_something_lapses():
    night = stand({"role": "approver", "signatures": 2})
    second = make_user("approver", environment=night.environment)
    assert (count_waiting(night.approver), count_waiting(second), count_waiting(night.operator)) == (1, 1, 0)
    night.act(night.sign(), night.approver)
    assert (count_waiting(night.approver), count_waiting(second)) == (0, 1)
    (waiting,) = inbox(night.approver, actor_id(night.approver)).others
    assert waiting.why_not == "You signed it. It waits for others."
    night.act(night.sign(), second)
    assert (count_waiting(night.approver), count_waiting(second)) == (0, 0)
    night.environment.targets.filter(component="SCS").update(version="8.5.999")
    night.advance()
    assert (count_waiting(night.approver), count_waiting(second)) == (1, 1)
    check_every_run()


def test_a_request_that_was_rejected_waits_for_nobody_until_it_is_asked_again():
    night = stand()
    sign = night.sign()
    here = {"step": sign.step, "visit": sign.visit, "gate": sign.gate}
    night.act(core.Reject(**here, digest=sign.digest, reason=REASON), night.approver)
    assert count_waiting(night.approver) == 0
    assert request_of(night).closed
    night.act(core.AskAgain(**here, reason=REASON))
    assert count_waiting(night.approver) == 1
    check_every_run()


@pytest.mark.bad_input("D07")
def test_a_worker_lets_a_request_run_out_and_a_late_signature_finds_it_so(monkeypatch):
    night = stand({"role": "approver", "signatures": 1} | EXPIRES)
    row = request_of(night)
    assert row.due_at == row.since + timedelta(seconds=600)
    later(monkeypatch, 601)
    with pytest.raises(OutOfTurn, match="not decided in time"):
        night.act(night.sign(), night.approver)  # before any worker came by
    assert night.advance()
    assert night.kinds.count("approval.expired") == 1
    assert request_of(night).closed
    assert request_of(night).due_at is None
    assert not night.advance()
    check_every_run()


@pytest.mark.bad_input("D04")
def test_voting_and_running_out_at_once_have_one_outcome(transactional_db, monkeypatch):
    night = stand({"role": "approver", "signatures": 1} | EXPIRES)
    later(monkeypatch, 601)
    sign = night.sign()
    answers = at_once(lambda: night.act(sign, night.approver), *[night.advance] * 4)
    assert isinstance(answers[0], OutOfTurn)
    assert night.kinds.count("approval.expired") == 1
    assert "approval.signed" not in night.kinds
    check_every_run()


@pytest.mark.bad_input("D04")
def test_approving_and_rejecting_at_once_have_one_outcome(transactional_db):
    for place in ("A", "B", "C"):
        night = Night(place=place).go_to("stop-old")
        second = make_user("approver", environment=night.environment)
        sign = night.sign()
        reject = core.Reject(
            step=sign.step, visit=sign.visit, gate=sign.gate, digest=sign.digest, reason=REASON
        )
        answers = at_once(partial(night.act, sign, night.approver), partial(night.act, reject, second))
        kinds = night.kinds
        if isinstance(answers[0], runs.Done) and kinds.count("approval.rejected"):
            assert kinds.index("approval.signed") < kinds.index("approval.rejected")
        assert night.verdict("stop-old", "approval").is_met is ("approval.rejected" not in kinds)
    check_every_run()


@pytest.mark.bad_input("D03")
def test_a_right_that_was_taken_away_signs_no_more_and_what_was_signed_stays():
    night = stand({"role": "approver", "signatures": 2})
    second = make_user("approver", environment=night.environment)
    night.act(night.sign(), night.approver)
    Membership.objects.filter(user=night.approver).delete()
    Membership.objects.filter(user=second).update(role="auditor")
    with pytest.raises(NotAllowed):
        night.act(night.sign(), second)
    assert request_of(night).signed == 1
    assert request_of(night).whom == "the role approver"


@pytest.mark.bad_input("D03")
def test_a_closed_account_has_no_rights():
    night = stand()
    night.approver.is_active = False
    night.approver.save()
    assert actor_for(night.approver, night.environment).roles == ()
    with pytest.raises(runs.NoSuchRun):
        night.act(night.sign(), night.approver)


def test_groups_and_deputies_count_as_they_are_now():
    policy = {"needs": [{"role": "approver", "signatures": 1}, {"group": "database", "signatures": 1}]}
    night = Night(policies={"point-of-no-return": policy}).go_to("stop-old")
    expert = make_user("author", environment=night.environment)
    stand_in = make_user("auditor", environment=night.environment)
    assert count_waiting(expert) == 0
    today = timezone.now()
    night.environment.policies["people"] = {
        "groups": {"database": [actor_id(expert)]},
        "deputies": [
            {
                "person": actor_id(night.approver),
                "deputy": actor_id(stand_in),
                "from": (today - timedelta(days=1)).isoformat(),
                "to": (today + timedelta(days=1)).isoformat(),
            }
        ],
    }
    night.environment.save(update_fields=["policies"])
    assert (count_waiting(expert), count_waiting(stand_in)) == (1, 1)
    night.act(night.sign(), expert)
    night.act(night.sign(), stand_in)
    signed = [recorded.event for recorded in night.history if recorded.event.kind == "approval.signed"]
    assert [event.for_id for event in signed] == ["", actor_id(night.approver)]
    assert night.verdict("stop-old", "approval").is_met
    check_every_run()


# The start.

START = {"start": {"role": "approver", "signatures": 1}}


def test_a_start_that_needs_approval_touches_nothing_before_it_has_it():
    night = Night(policies=START, confirmations={"packages-delivered": "CHG-77, on the share"})
    night.advance()
    state = night.state
    assert state.steps[state.current].begun_at is None
    with pytest.raises(GateClosed, match="start of this run is approved"):
        night.act(core.Begin(step=state.current, visit=1))
    (waiting,) = inbox(night.approver, actor_id(night.approver)).mine
    assert waiting.gate == "approved-start"
    step = night.procedure.steps[0]
    digest = digest_to_sign(night.procedure, night.state, step, step.needs[0])
    night.act(core.Sign(step=step.id, visit=1, gate="approved-start", digest=digest), night.approver)
    night.act(core.Begin(step=step.id, visit=1))
    assert night.verdict(step.id, "packages-delivered").is_met
    check_every_run()


# Emergencies.


def test_an_emergency_marks_the_run_and_its_review_is_open_until_an_auditor_closes_it():
    night = stand({"role": "approver", "signatures": 2, "override": True})
    auditor = make_user("auditor", environment=night.environment)
    stranger = make_user("operator", environment=night.environment)
    sign = night.sign()
    night.act(core.AskOverride(step=sign.step, visit=sign.visit, gate=sign.gate, reason=REASON))
    assert (count_waiting(stranger), count_waiting(night.operator)) == (1, 0)
    assert request_of(night, "deviation").emergency
    number = len(night.state.deviations)  # on its way here the run had others
    night.act(core.SignDeviation(number=number, comment=REASON), stranger)
    assert (night.row.emergencies, night.row.reviews_open) == (1, 1)
    night.act(core.ReviewOverride(number=number, text=REASON), auditor)
    assert (night.row.emergencies, night.row.reviews_open) == (1, 0)
    check_every_run()


def test_no_deputy_is_asked_to_sign_an_emergency():
    """The core takes the second signature of a role of one's own alone: nobody is called for what would be refused."""
    night = stand({"role": "approver", "signatures": 2, "override": True})
    sign = night.sign()
    deputy = make_user("auditor", environment=night.environment)
    stand_in(night.environment, deputy, night.approver)
    night.act(core.AskOverride(step=sign.step, visit=sign.visit, gate=sign.gate, reason=REASON))
    assert count_waiting(deputy) == 1, "the approval alone"
    assert count_waiting(night.approver) == 2, "and beside it the emergency"
    asked = Notice.objects.filter(kind="approval-wanted", title__startswith="Deviation").latest("pk")
    assert set(asked.deliveries.values_list("user", flat=True)) == {night.approver.pk}
    number = len(night.state.deviations)
    with pytest.raises(NotAllowed, match="may not sign an emergency override"):
        night.act(core.SignDeviation(number=number, comment=REASON), deputy)


# Holding, and who is there.


def test_a_step_is_handed_over_to_an_operator_of_the_environment_only():
    night = stand()
    second = make_user("operator", environment=night.environment)
    stranger = make_user("operator", environment=make_environment("Elsewhere"))
    night.act(core.TakeStep(step="stop-old", visit=1))

    def hand(to):
        return holding.hand_over(
            run_id=night.run,
            step="stop-old",
            visit=1,
            to=actor_id(to),
            reason="",
            by=night.operator,
            command_id=uuid4(),
        )

    for nobody in (stranger, night.approver):
        with pytest.raises(BadInput):
            hand(nobody)
    hand(second)
    assert night.state.steps["stop-old"].holder.id == actor_id(second)
    check_every_run()


def test_who_has_the_page_open_is_told_until_the_page_is_silent():
    night = stand()
    assert holding.present(night.run, night.operator) == []
    assert holding.present(night.run, night.approver) == ["Olga"]
    Presence.objects.filter(user=night.operator).update(seen_at=timezone.now() - holding.GONE_AFTER)
    assert holding.present(night.run, night.approver) == []
    assert Presence.objects.filter(run=night.run).count() == 2
