"""Approvals and deviations: enough different people who may, whoever clicks and whenever."""

from functools import partial
from itertools import chain
from uuid import uuid4

import pytest

from tests.factories import give, make_environment, make_user
from tests.services.night import REASON, Night, at_once
from upgrades.domain import run as core
from upgrades.domain.gates import valid_signatures
from upgrades.domain.refusal import NotAllowed, OutOfTurn
from upgrades.models import Membership, RunRequest
from upgrades.services import runs

TWO = {"point-of-no-return": {"role": "approver", "signatures": 2}}


def at_the_point_of_no_return(night):
    night.go_to("stop-old")
    return night


def signers(night):
    state, procedure = night.state, night.procedure
    step = procedure.step("stop-old")
    return {signed.by.id for signed in valid_signatures(procedure, state, step, step.gate("approval"))}


@pytest.fixture
def at_stop_old(night):
    return at_the_point_of_no_return(night)


@pytest.mark.bad_input("D01")
def test_whoever_started_the_run_may_not_approve_it_superuser_or_not(at_stop_old):
    night = at_stop_old
    give(night.operator, night.environment, "approver")
    night.operator.is_superuser = night.operator.is_staff = True
    night.operator.save()
    with pytest.raises(NotAllowed, match="whoever started the run may not approve it"):
        night.act(night.sign())
    assert night.history[-1].event.kind == "attempt.refused"
    assert not night.verdict("stop-old", "approval").is_met


def test_whoever_carried_out_a_part_may_not_approve_even_without_the_role_of_operator_now(night):
    second = make_user("operator", "approver", environment=night.environment, is_superuser=True)
    night.act(night.confirm("packages-delivered"), second)
    Membership.objects.filter(user=second, role="operator").delete()
    at_the_point_of_no_return(night)
    with pytest.raises(NotAllowed, match="carried out a part"):
        night.act(night.sign(), second)


@pytest.mark.bad_input("Y20", "D01")
def test_an_author_of_the_procedure_version_may_not_approve(at_stop_old):
    night = at_stop_old
    # Texts name their authors by account; this one has it only since the run is under way.
    author = make_user("approver", environment=night.environment, name="Runbook")
    with pytest.raises(NotAllowed, match="an author of this procedure version"):
        night.act(night.sign(), author)
    night.act(night.sign(), make_user("approver", environment=night.environment, is_superuser=True))
    assert night.verdict("stop-old", "approval").is_met


def test_an_author_is_known_from_the_start_of_the_run_on(db):
    author = make_user(name="runbook")
    night = Night()
    assert f"user:{author.pk}" in night.state.authors
    give(author, night.environment, "approver")
    at_the_point_of_no_return(night)
    with pytest.raises(NotAllowed, match="an author of this procedure version"):
        night.act(night.sign(), author)


@pytest.mark.parametrize("roles", [(), ("auditor",), ("operator",), ("administrator",)])
def test_without_the_role_approver_nobody_approves(at_stop_old, roles):
    someone = make_user(*roles, environment=at_stop_old.environment, is_superuser=True)
    with pytest.raises(core.BadInput if not roles else NotAllowed):
        at_stop_old.act(at_stop_old.sign(), someone)
    assert signers(at_stop_old) == set()


def test_whoever_signed_does_not_carry_out_what_was_signed(at_stop_old):
    night = at_stop_old
    both = make_user("operator", "approver", environment=night.environment)
    night.act(night.sign(), both)
    begin = core.Begin(step="stop-old", visit=night.visit("stop-old"))
    with pytest.raises(NotAllowed, match="so another person carries it out"):
        night.act(begin, both)
    night.act(begin)
    assert night.state.steps["stop-old"].begun_by.name == night.operator.first_name


@pytest.mark.bad_input("D05")
def test_what_was_signed_lapses_when_it_changes_and_stays_in_the_record(at_stop_old):
    night = at_stop_old
    night.act(night.sign(), night.approver)
    night.environment.targets.filter(component="SCS").update(version="8.5.999")
    night.advance()
    assert not night.verdict("stop-old", "approval").is_met
    assert night.kinds.count("approval.signed") == night.kinds.count("approval.lapsed") == 1
    assert RunRequest.objects.get(run=night.run).signed == 0
    night.act(night.sign(), night.approver)
    assert night.verdict("stop-old", "approval").is_met


@pytest.mark.bad_input("D05")
def test_a_signature_on_what_was_shown_before_is_refused(at_stop_old):
    night = at_stop_old
    old = night.sign()
    night.environment.targets.filter(component="SCS").update(version="8.5.999")
    night.advance()
    with pytest.raises(OutOfTurn, match="has changed since you opened it"):
        night.act(old, night.approver)


@pytest.mark.bad_input("D07")
def test_a_signature_after_the_step_has_begun_or_the_run_is_over_is_refused(at_stop_old):
    night = at_stop_old
    late, third = night.sign(), make_user("approver", environment=night.environment)
    night.act(late, night.approver)
    night.act(core.Begin(step="stop-old", visit=1))
    with pytest.raises(OutOfTurn, match="has begun already"):
        night.act(late, third)
    for burden in night.state.unowned:
        night.act(core.TakeOver(burden=burden.id, reason=REASON), third)
    night.act(core.Abort(reason=REASON))
    with pytest.raises(OutOfTurn, match="is over"):
        night.act(late, third)


@pytest.mark.bad_input("D04")
def test_ten_people_clicking_twice_at_once_are_each_counted_once_and_only_if_they_may(transactional_db):
    """D04, I4: of ten people some are barred; however their clicks fall, exactly the others have signed."""
    night = Night(policies=TWO)
    barred = [night.operator]
    give(night.operator, night.environment, "approver")
    for _ in range(3):
        executor = make_user("operator", "approver", environment=night.environment, is_superuser=True)
        night.act(night.confirm("packages-delivered"), executor)
        barred.append(executor)
    at_the_point_of_no_return(night)
    barred += [make_user("auditor", environment=night.environment) for _ in range(4)]
    entitled = [make_user("approver", environment=night.environment) for _ in range(2)]
    for round_ in range(15):
        people = barred + entitled[: 1 + round_ % 2]
        sign = night.sign()
        answers = at_once(*chain.from_iterable([partial(night.act, sign, person)] * 2 for person in people))
        refused = [answer for answer in answers if isinstance(answer, NotAllowed)]
        assert len(refused) == 2 * len(barred)
        assert len(answers) == len(refused) + sum(isinstance(answer, runs.Done) for answer in answers)
        assert signers(night) == {f"user:{person.pk}" for person in entitled[: 1 + round_ % 2]}
        assert night.verdict("stop-old", "approval").is_met is bool(round_ % 2)
        assert_begins_only_if(night, bool(round_ % 2))
        # Something changes: everything signed lapses, and the next round begins.
        night.environment.targets.filter(component="SCS").update(version=f"8.5.{200 + round_}")
        night.advance()
        assert signers(night) == set()
    check(night)


def assert_begins_only_if(night, met):
    begin = core.Begin(step="stop-old", visit=1)
    if not met:
        with pytest.raises(core.GateClosed, match="is approved"):
            night.act(begin)


def check(night):
    from tests.services.night import check_every_run

    check_every_run()
    assert night.kinds.count("step.begun") == len(
        {(r.event.step, r.event.visit) for r in night.history if r.event.kind == "step.begun"}
    )


def test_approving_and_beginning_at_once_never_begins_unapproved(transactional_db):
    for _ in range(4):
        night = at_the_point_of_no_return(Night(policies=TWO))
        people = [make_user("approver", environment=night.environment) for _ in range(3)]
        begin = core.Begin(step="stop-old", visit=1)
        at_once(
            *(partial(night.act, night.sign(), person) for person in people),
            *[partial(night.act, begin)] * 3,
        )
        kinds = night.kinds
        if kinds.count("step.begun") and "stop-old" in str(night.state.steps["stop-old"].status):
            signed = [place for place, kind in enumerate(kinds) if kind == "approval.signed"]
            begun = max(place for place, kind in enumerate(kinds) if kind == "step.begun")
            assert len([place for place in signed if place < begun]) >= 2
        night.environment.name = f"done {night.run}"
        night.environment.save()
        check(night)


def test_two_people_deciding_one_deviation_at_once_decide_it_once(transactional_db):
    night = Night()
    second = make_user("approver", environment=night.environment)
    for number in range(1, 7):
        override = core.AskDeviation(
            step="prerequisites", visit=1, what="override", gate="lca-current", reason=REASON
        )
        night.act(override)
        answers = at_once(
            partial(night.act, core.SignDeviation(number=number), night.approver),
            partial(night.act, core.RejectDeviation(number=number, reason=REASON), second),
        )
        assert sorted(type(answer).__name__ for answer in answers) == ["Done", "OutOfTurn"]
    check(night)


@pytest.mark.bad_input("D13")
def test_nobody_signs_a_deviation_of_a_run_that_he_worked_on(night):
    give(night.operator, night.environment, "approver")
    night.act(core.AskDeviation(step="prerequisites", visit=1, what="skip", reason=REASON))
    with pytest.raises(NotAllowed, match="started the run"):
        night.act(core.SignDeviation(number=1))
    assert night.kinds[-1] == "attempt.refused"


def test_a_right_in_another_environment_does_not_help_here(at_stop_old):
    other = make_environment("Another")
    stranger = make_user("approver", environment=other, is_superuser=True)
    with pytest.raises(runs.NoSuchRun):
        at_stop_old.act(at_stop_old.sign(), stranger, command_id=uuid4())


@pytest.mark.parametrize("shut", [False, True], ids=["without a role", "account shut"])
def test_whoever_is_here_no_more_signs_nothing_by_a_group_in_which_the_name_stayed(db, shut):
    night = at_the_point_of_no_return(
        Night(policies={"point-of-no-return": {"needs": [{"group": "database", "signatures": 1}]}})
    )
    expert = make_user("author", environment=night.environment)
    groups = {"database": [f"user:{expert.pk}"]}
    night.environment.policies |= {"people": {"groups": groups, "deputies": []}}
    night.environment.save(update_fields=["policies"])
    if shut:
        expert.is_active = False
        expert.save(update_fields=["is_active"])
    else:
        expert.memberships.all().delete()
    with pytest.raises(runs.NoSuchRun):
        night.act(night.sign(), expert)
