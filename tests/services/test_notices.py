"""Who is told of what: once for each event, by role or by choice, and nobody in a rehearsal."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from tests.factories import frankfurt, make_environment, make_user, stand_in, start
from tests.services.night import REASON, Night, at_once
from tests.services.test_going_over import logs
from upgrades.domain import run as core
from upgrades.domain import run_events as e
from upgrades.models import (
    Environment,
    Notice,
    NoticeChoice,
    NoticeDelivery,
    NoticeEndpoint,
    Run,
    RunBurden,
)
from upgrades.services import notices, runs


def told(kind=None):
    rows = Notice.objects.order_by("pk")
    return list(rows.filter(kind=kind) if kind else rows)


def mails(notice):
    return set(notice.deliveries.filter(channel="mail").values_list("user__username", flat=True))


def names(*people):
    return {person.username for person in people}


def wish(user, environment, kind, *, wanted):
    NoticeChoice.objects.create(user=user, environment=environment, kind=kind, channel="mail", wanted=wanted)


def endpoint(environment, *kinds, name="Desk", form="slack", paused=False):
    return NoticeEndpoint.objects.create(
        environment=environment,
        name=name,
        form=form,
        address="x",
        host="hooks.example.net",
        fingerprint="0" * 12,
        kinds=list(kinds),
        paused=paused,
        made_at=timezone.now(),
    )


def test_a_wanted_signature_is_told_to_those_who_may_give_it_and_says_what_where_and_who(night):
    both = make_user("approver", "operator", environment=night.environment)
    night.act(night.confirm("packages-delivered"), both)  # who works on the run may not sign
    night.go_to("stop-old")

    notice = told("approval-wanted")[-1]

    assert mails(notice) == names(night.approver)
    assert notice.title.startswith("Signature wanted: ")
    assert notice.whom == "the role approver"
    assert notice.path == f"/approvals/{night.run}/stop-old/approval/"
    assert notice.run_title == night.row.title


def test_a_signature_that_lapses_is_asked_for_again_and_one_that_is_given_opens_the_gate(night):
    night.go_to("stop-old")
    operator = night.operator
    wish(operator, night.environment, "gate-open", wanted=True)
    before = len(told("approval-wanted"))
    night.act(night.sign(), night.approver)
    opened = told("gate-open")[-1]
    assert mails(opened) == names(operator)
    night.environment.targets.filter(component="SCS").update(version="8.5.999")
    night.advance()
    assert len(told("approval-wanted")) == before + 1
    assert mails(told("approval-wanted")[-1]) == names(night.approver)


def test_a_deviation_is_told_and_its_reason_is_not(night):
    step = night.state.current
    night.act(core.AskDeviation(step=step, visit=1, what="skip", reason=REASON))
    [notice] = told("approval-wanted")
    assert notice.title == "Deviation 1 waits for a signature: to skip a step"
    assert mails(notice) == names(night.approver)
    assert REASON not in f"{notice.title}{notice.text}{notice.whom}"


def test_choices_win_over_roles_in_both_directions(night):
    auditor = make_user("auditor", environment=night.environment)
    wish(auditor, night.environment, "approval-wanted", wanted=True)
    wish(night.approver, night.environment, "approval-wanted", wanted=False)
    night.act(core.AskDeviation(step=night.state.current, visit=1, what="skip", reason=REASON))
    [notice] = told("approval-wanted")
    assert mails(notice) == names(auditor)


def test_people_of_other_environments_and_closed_accounts_are_told_nothing(night):
    elsewhere = make_environment("Lab · Berlin")
    make_user("approver", environment=elsewhere)
    gone = make_user("approver", environment=night.environment, is_active=False)
    endpoint(elsewhere, "approval-wanted")
    night.act(core.AskDeviation(step=night.state.current, visit=1, what="skip", reason=REASON))
    assert not NoticeDelivery.objects.filter(user=gone).exists()
    assert set(NoticeDelivery.objects.values_list("recipient", flat=True)) == {f"user:{night.approver.pk}"}


def test_a_deputy_is_told_in_place_of_an_absent_approver(night):
    deputy = make_user("operator", environment=night.environment)
    stand_in(night.environment, deputy, night.approver)
    night.act(core.AskDeviation(step=night.state.current, visit=1, what="skip", reason=REASON))
    [notice] = told("approval-wanted")
    assert mails(notice) == names(night.approver, deputy)


def test_a_role_that_signs_nothing_in_a_run_under_way_is_not_asked_to(night):
    late, deputy = make_user(), make_user("operator", environment=night.environment)
    given = night.environment.memberships.create(user=late, role="approver", given_by="user:1")
    stand_in(night.environment, deputy, late)
    night.act(core.AskDeviation(step=night.state.current, visit=1, what="skip", reason=REASON))
    assert mails(told("approval-wanted")[-1]) == names(night.approver)
    given.confirmed_by = "user:2"
    given.save(update_fields=["confirmed_by"])
    night.act(core.RejectDeviation(number=1, reason=REASON))
    night.act(core.AskDeviation(step=night.state.current, visit=1, what="skip", reason=REASON))
    assert mails(told("approval-wanted")[-1]) == names(night.approver, late, deputy)


def test_endpoints_get_what_they_were_given_and_paused_ones_nothing(night):
    desk = endpoint(night.environment, "approval-wanted")
    endpoint(night.environment, "countdown", name="Clock")
    endpoint(night.environment, "approval-wanted", name="Quiet", paused=True)
    night.act(core.AskDeviation(step=night.state.current, visit=1, what="skip", reason=REASON))
    assert list(NoticeDelivery.objects.filter(user=None).values_list("recipient", "channel")) == [
        (f"endpoint:{desk.pk}", "slack")
    ]


@pytest.fixture
def launching(night, monkeypatch):
    """A run that watches the log of its new server."""
    monkeypatch.setattr(
        "upgrades.services.runs.take_watermarks",
        lambda _environment, names: {name: {f"log of {name}": 0, "gaps": 0} for name in names},
    )
    night.go_to("launch-new")
    night.advance()
    return night


def test_an_event_gate_that_opens_is_told_to_whoever_wants_to_know(launching):
    wish(launching.operator, launching.environment, "gate-open", wanted=True)
    before = len(told("gate-open"))
    logs(launching, "21-22911", "21-25301", "21-22170")
    [opened] = told("gate-open")[before:]
    assert mails(opened) == names(launching.operator)
    assert "synthetic text" not in f"{opened.title}{opened.text}"


def test_a_lost_agent_puts_the_gate_in_doubt_and_each_loss_is_told_without_its_words(launching):
    host = launching.state.host("new")
    for count in (1, 2):
        runs.report(launching.run, [e.AgentLost(host=host, reason="words of the agent")])
        doubts = told("gate-doubt")
        assert len(doubts) == count
        assert mails(doubts[-1]) == names(launching.operator)
        assert "words of the agent" not in f"{doubts[-1].title}{doubts[-1].text}"
        runs.report(launching.run, [e.AgentBack(host=host)])


# Time.


def first_due(night):
    """The open exposure whose expected length is over first."""
    night.go_to("launch-new")
    rows = RunBurden.objects.filter(run=night.run, burden__startswith="exposure:", closed_at=None)
    return rows.exclude(due_at=None).order_by("due_at")[0]


def of(burden):
    return [notice for notice in told("exposure-long") if burden.title in notice.title]


def test_an_exposure_over_its_expected_length_is_told_once(night):
    burden = first_due(night)
    assert notices.look_at_clock(burden.due_at - timedelta(seconds=1)) == 0
    assert notices.look_at_clock(burden.due_at) == 1
    [notice] = of(burden)
    assert mails(notice) == names(night.operator)
    notices.look_at_clock(burden.due_at + timedelta(hours=9))
    assert of(burden) == [notice]


def test_a_duty_is_overdue_after_the_day_that_it_names_or_after_a_week(night):
    now = timezone.now()
    burdens = [
        RunBurden(
            run=night.row,
            environment=night.environment,
            burden=f"duty:{name}",
            title=name,
            opened_at=now,
            due_at=now + timedelta(days=days),
        )
        for name, days in (("one", 7), ("two", 30))
    ]
    RunBurden.objects.bulk_create(burdens)
    notices.look_at_clock(now + timedelta(days=8))
    assert [notice.title for notice in told("duty-overdue")] == ["Duty overdue: one"]
    RunBurden.objects.filter(burden__startswith="duty:").delete()


def test_an_emergency_that_no_auditor_has_looked_into_is_told_to_the_auditors(db, settings):
    night = Night()
    auditor = make_user("auditor", environment=night.environment)
    ended = timezone.now()
    Run.objects.filter(pk=night.run).update(reviews_open=2, ended_at=ended, status="ended")
    due = ended + timedelta(days=settings.REVIEW_DAYS)
    assert notices.look_at_clock(due - timedelta(seconds=1)) == 0
    assert notices.look_at_clock(due) == 1
    assert notices.look_at_clock(due + timedelta(days=30)) == 0
    [notice] = told("review-overdue")
    assert mails(notice) == names(auditor)
    assert "2 such reviews are open" in notice.text


def test_ten_workers_that_look_at_the_clock_at_once_tell_once(real_night):
    burden = first_due(real_night)
    endpoint(real_night.environment, "exposure-long")
    answers = at_once(*[lambda: notices.look_at_clock(burden.due_at)] * 10)
    assert all(isinstance(answer, int) for answer in answers), answers
    [notice] = of(burden)
    assert sorted(notice.deliveries.values_list("recipient", flat=True)) == sorted(
        [f"user:{real_night.operator.pk}", f"endpoint:{NoticeEndpoint.objects.get().pk}"]
    )


def test_ten_people_who_send_the_same_command_at_once_cause_one_notice(real_night):
    command_id = uuid4()
    asked = core.AskDeviation(step=real_night.state.current, visit=1, what="skip", reason=REASON)
    at_once(*[lambda: real_night.act(asked, command_id=command_id)] * 10)
    [notice] = told("approval-wanted")
    assert notice.deliveries.count() == 1


def test_what_is_not_committed_is_not_told(night, monkeypatch):
    def fail(*_):
        raise RuntimeError("the power goes")

    monkeypatch.setattr(runs.event_store, "announce", fail)
    with pytest.raises(RuntimeError):
        night.act(core.AskDeviation(step=night.state.current, visit=1, what="skip", reason=REASON))
    assert told() == []


def test_a_mistake_in_a_notice_keeps_no_run_from_going_on(night, monkeypatch, caplog):
    monkeypatch.setattr(notices.core, "notices_of", lambda *_: 1 / 0)
    night.act(core.AskDeviation(step=night.state.current, visit=1, what="skip", reason=REASON))
    assert "deviation.asked" in night.kinds
    assert told() == []
    assert "what is to be told could not be told" in caplog.text


# Silence.


def test_a_rehearsal_tells_nobody_of_anything(db):
    night = Night()
    endpoint(night.environment, *[str(kind) for kind in notices.Kind])
    Run.objects.filter(pk=night.run).update(rehearsal=True)
    night.act(core.AskDeviation(step=night.state.current, visit=1, what="skip", reason=REASON))
    RunBurden.objects.create(
        run=night.row,
        environment=night.environment,
        burden="duty:x",
        title="x",
        opened_at=timezone.now(),
        due_at=timezone.now(),
    )
    assert notices.look_at_clock(timezone.now() + timedelta(days=365)) == 0
    assert told() == []


def test_simulated_servers_and_copies_tell_nobody_of_anything(db):
    simulated = make_environment("Simulated", world=frankfurt(world="demo"))
    operator = make_user("operator", environment=simulated)
    make_user("approver", environment=simulated)
    run = start(simulated, operator)
    asked = core.AskDeviation(step="prerequisites", visit=1, what="skip", reason=REASON)
    runs.act(run_id=run, command=asked, by=operator, command_id=uuid4())
    assert told() == []
    original = make_environment()
    copy = make_environment("copy")
    Environment.objects.filter(pk=copy.pk).update(rehearsal_of=original)
    copy.refresh_from_db()
    assert not notices.speaks(copy, rehearsal=False)
