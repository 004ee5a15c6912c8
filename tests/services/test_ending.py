"""Hold and resume, exposures and duties, the end of a run."""

import pytest

from tests.factories import make_user
from tests.services.night import REASON, Night
from upgrades.domain import run as core
from upgrades.domain.refusal import BadInput, GateClosed, NotAllowed, OutOfTurn
from upgrades.models import Environment, RunBurden

READ_ONLY = "exposure:read-only"


def test_a_held_run_stands_still_until_it_is_resumed(night):
    night.go_to("backup-database")
    night.act(core.Hold(reason="The data centre has an alarm."))
    for text in ("first", "second"):
        night.act(core.Hold(reason=text * 3))
    assert night.kinds.count("run.held") == 1
    with pytest.raises(OutOfTurn, match=r"on hold: The data centre has an alarm\. Resume it first"):
        night.act(core.Complete(step="backup-database", visit=1))
    night.act(core.Resume(reason="The alarm was a test."))
    assert (night.row.status, night.row.reason) == ("running", "")


@pytest.mark.parametrize(
    "command", [core.Hold(reason=" "), core.Abort(reason="because"), core.Abort(reason="x" * 2001)]
)
@pytest.mark.bad_input("D08")
def test_a_reason_is_asked_for_that_others_can_follow(night, command):
    with pytest.raises(BadInput, match=r"characters"):
        night.act(command)


@pytest.mark.bad_input("D15")
def test_nothing_is_aborted_while_an_exposure_is_open_that_nobody_has_taken_over(night):
    night.go_to("replace-folder")
    with pytest.raises(GateClosed, match="read-only"):
        night.act(core.Abort(reason=REASON))
    with pytest.raises(NotAllowed, match="worked on this run"):
        night.act(core.TakeOver(burden=READ_ONLY, reason=REASON))
    night.act(core.TakeOver(burden=READ_ONLY, reason=REASON), night.approver)
    night.act(core.Abort(reason=REASON))
    assert night.row.status == "aborted"
    [row] = RunBurden.objects.filter(environment=night.environment, closed_at=None)
    assert (row.burden, row.owner_name) == (READ_ONLY, night.approver.get_full_name())


@pytest.mark.bad_input("D15")
def test_a_run_that_is_over_changes_no_more_but_its_burdens_can_be_closed_by_their_owner(night):
    night.go_to("replace-folder")
    night.act(core.TakeOver(burden=READ_ONLY, reason=REASON), night.approver)
    night.act(core.Abort(reason=REASON))
    for command in (core.Abort(reason=REASON), core.Resume(reason=REASON), core.AddNote(text="late")):
        with pytest.raises(OutOfTurn, match="is over"):
            night.act(command)
    assert night.advance() is False
    with pytest.raises(NotAllowed, match="Only the person who took it over"):
        night.act(core.CloseBurden(burden=READ_ONLY, text="Switched off."))
    night.act(core.CloseBurden(burden=READ_ONLY, text="Switched off."), night.approver)
    assert RunBurden.objects.get(burden=READ_ONLY).closed_at is not None
    with pytest.raises(OutOfTurn, match="not open any more"):
        night.act(core.CloseBurden(burden=READ_ONLY, text="Switched off."), night.approver)


def test_a_burden_goes_from_owner_to_owner_and_only_the_last_one_closes_it(night):
    night.go_to("replace-folder")
    third = make_user("approver", environment=night.environment)
    for person in (night.approver, third, third):
        night.act(core.TakeOver(burden=READ_ONLY, reason=REASON), person)
    assert night.kinds.count("burden.taken-over") == 2
    with pytest.raises(NotAllowed):
        night.act(core.CloseBurden(burden=READ_ONLY, text="Switched off."), night.approver)
    night.act(core.CloseBurden(burden=READ_ONLY, text="Switched off."), third)
    night.act(core.Abort(reason=REASON))


def test_a_restarted_step_is_a_new_visit_and_what_was_seen_before_counts_no_more(night):
    night.go_to("backup-database")
    night.act(core.Attach(step="backup-database", visit=1, gate="database-copy", text="On the SAN."))
    night.act(core.Restart(step="backup-database", visit=1, reason=REASON))
    night.advance()
    assert night.visit("backup-database") == 2
    assert not night.verdict("backup-database", "database-copy").is_met
    with pytest.raises(OutOfTurn):
        night.act(core.Attach(step="backup-database", visit=1, gate="options-export", text="On the SAN."))


def test_what_is_done_in_a_run_that_is_over_leaves_the_schema_as_it_became_since(db):
    answers = {"target-schema": "8.5.0", "convert-languages": "false", "keep-database-until": "2027-06-01"}
    night = Night(procedure="database-migration", bindings={}, parameters=answers).finish()
    places = Environment.objects.filter(pk=night.environment.pk)
    assert (night.state.ending, places.get().schema_version) == ("completed", "8.5.0")
    places.update(schema_version="8.5.1")  # migrated again, or gone back to
    [kept] = night.state.burdens
    with pytest.raises(NotAllowed):
        night.act(core.CloseBurden(burden=kept, text="It was deleted today."))
    assert places.get().schema_version == "8.5.1"
    night.act(core.CloseBurden(burden=kept, text="It was deleted today."), night.approver)
    assert places.get().schema_version == "8.5.1"
