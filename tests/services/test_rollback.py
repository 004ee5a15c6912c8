"""Rolling back out of a run: the way that fits is started, the run ends, and nothing that is open gets lost."""

from uuid import uuid4

import pytest

from tests.factories import make_user
from tests.services.night import REASON, at_once
from upgrades.adapters import event_store
from upgrades.domain import run as core
from upgrades.domain import run_events as e
from upgrades.domain.refusal import GateClosed, NotAllowed, OutOfTurn
from upgrades.domain.run_state import RunStatus, fold
from upgrades.models import Claim, Run
from upgrades.services.rollback import Stated, start_rollback
from upgrades.services.runs import NoSuchRun

WORKS = Stated(operational=True, former_database=False, copy=True)
BROKEN = Stated(operational=False, former_database=False, copy=True)


def roll_back(night, stated=BROKEN, procedure="rollback-immediate", by=None, command_id=None, reason=REASON):
    return start_rollback(
        run_id=night.run,
        stated=stated,
        procedure=procedure,
        reason=reason,
        by=by or night.operator,
        command_id=command_id or uuid4(),
    )


def state_of(run):
    return fold(event_store.load(run))


@pytest.mark.requirement("RB-N1")
def test_after_the_old_primary_is_down_the_immediate_rollback_starts_and_takes_over(night):
    night.go_to("install-remaining")
    night.act(core.Hold(reason="the new server does not serve"))
    before = night.state
    done = roll_back(night)
    first, second = night.state, state_of(done.run)
    assert (first.status, first.ending, first.burdens) == (RunStatus.ENDED, "rolled back", {})
    assert second.started.procedure == "rollback-immediate"
    assert second.started.takes_back == night.run
    # The old primary starts again, the server that was replaced goes.
    assert second.application("first") == before.application("old")
    assert second.application("second") == before.application("new")
    assert second.facts["back-to"] == "8.1.3"
    assert second.facts["former-database"] is False
    # Whatever was open goes on with its own beginning.
    assert {name: burden.since for name, burden in second.burdens.items()} == {
        name: burden.since for name, burden in before.burdens.items()
    }
    assert set(second.burdens) >= {"exposure:read-only", "exposure:not-redundant"}


@pytest.mark.requirement("CS-R2")
def test_before_the_old_primary_is_stopped_an_old_pair_goes_back_with_both_down(night):
    night.go_to("stop-old")
    done = roll_back(night, WORKS, "rollback-both-down")
    state = state_of(done.run)
    assert state.application("first") == "confserv_b"  # the one that was replaced
    assert state.facts["second-replaced"] is False


def test_the_servers_belong_to_the_rollback_from_the_same_moment(night):
    night.go_to("stop-old")
    done = roll_back(night, WORKS, "rollback-both-down")
    held = Claim.objects.filter(released_at=None).values_list("run_id", flat=True)
    assert set(held) == {done.run}


def test_a_burden_that_somebody_took_over_keeps_its_owner(night):
    night.go_to("stop-old")
    night.act(core.TakeOver(burden="exposure:read-only", reason=REASON), night.approver)
    done = roll_back(night, WORKS, "rollback-both-down")
    owner = state_of(done.run).burdens["exposure:read-only"].owner
    assert owner is not None
    assert owner.id == f"user:{night.approver.pk}"


def test_the_way_that_was_read_about_must_still_be_the_one_that_fits(night):
    night.go_to("stop-old")
    with pytest.raises(OutOfTurn, match="rollback-both-down"):
        roll_back(night, WORKS, "rollback-operational")
    assert night.state.status is RunStatus.RUNNING
    assert Run.objects.count() == 1


def test_without_a_replaced_server_there_is_nothing_to_take_back(night):
    night.go_to("replace-folder")
    with pytest.raises(OutOfTurn, match="nothing to take back"):
        roll_back(night, WORKS, "rollback-both-down")


@pytest.mark.requirement("RB-0")
def test_without_the_old_folder_no_rollback_starts(night):
    night.go_to("replace-folder")
    night.act(core.Begin(step="replace-folder", visit=1))
    with pytest.raises(GateClosed, match="old version is not known to be installed"):
        roll_back(night, WORKS, "rollback-both-down")


def test_only_an_operator_rolls_back_and_the_attempt_stands_in_the_record(night):
    night.go_to("stop-old")
    with pytest.raises(NotAllowed):
        roll_back(night, WORKS, "rollback-both-down", by=night.approver)
    assert [
        event.act for event in (item.event for item in night.history) if isinstance(event, e.AttemptRefused)
    ] == ["RollBack"]
    with pytest.raises(NoSuchRun):
        roll_back(night, WORKS, "rollback-both-down", by=make_user())


def test_a_run_is_rolled_back_once(night):
    night.go_to("stop-old")
    command = uuid4()
    done = roll_back(night, WORKS, "rollback-both-down", command_id=command)
    again = roll_back(night, WORKS, "rollback-both-down", command_id=command)
    assert (again.run, again.repeated) == (done.run, True)
    with pytest.raises(OutOfTurn, match="over"):
        roll_back(night, WORKS, "rollback-both-down")


def test_two_people_at_once_start_one_rollback(real_night):
    real_night.go_to("stop-old")
    results = at_once(*[lambda: roll_back(real_night, WORKS, "rollback-both-down")] * 2)
    assert sorted(type(result).__name__ for result in results) == ["Done", "OutOfTurn"]
    assert Run.objects.count() == 2
