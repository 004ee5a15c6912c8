"""Acts of people on a run: sent twice they act once, out of turn they are refused, without the right recorded."""

from functools import partial
from uuid import uuid4

import pytest
from django.db import DatabaseError, connection, transaction

from tests.factories import give, make_environment, make_user, start
from tests.services.night import Night, at_once, crossed
from upgrades.domain import run as core
from upgrades.domain.refusal import BadInput, NotAllowed, OutOfTurn
from upgrades.models import Application, CommandReceipt, Environment, Membership, RunEvent
from upgrades.services import runs
from upgrades.services.runs import Done, NoSuchRun

NOTE = core.AddNote(text="The phones are quiet.")


def test_the_same_command_sent_twice_acts_once_and_is_answered_the_same(night):
    command_id = uuid4()
    first = night.act(night.confirm("packages-delivered"), command_id=command_id)
    again = night.act(night.confirm("packages-delivered"), command_id=command_id)
    assert (again.run, again.seq) == (first.run, first.seq)
    assert (first.repeated, again.repeated) == (False, True)
    assert night.kinds.count("gate.confirmed") == 1


def test_a_repeated_command_is_answered_although_the_run_has_gone_on(night):
    command_id, confirmed = uuid4(), night.confirm("packages-delivered")
    first = night.act(confirmed, command_id=command_id)
    night.go_to("install-new")
    assert night.act(confirmed, command_id=command_id) == Done(night.run, first.seq, repeated=True)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda night: (NOTE, night.operator), id="another act"),
        pytest.param(lambda night: (night.confirm("related-components"), night.second), id="another person"),
    ],
)
def test_an_id_that_was_used_for_something_else_is_refused(night, other):
    night.second = make_user("operator", environment=night.environment)
    command_id = uuid4()
    night.act(night.confirm("packages-delivered"), command_id=command_id)
    before = night.history
    command, by = other(night)
    with pytest.raises(BadInput, match="used for something else"):
        night.act(command, by, command_id=command_id)
    assert night.history == before


def test_an_id_that_was_used_in_another_run_is_refused(night):
    other = make_environment("Test lab")
    give(night.operator, other, "operator")
    there = start(other, night.operator)
    command_id = uuid4()
    night.act(NOTE, command_id=command_id)
    with pytest.raises(BadInput, match="used for something else"):
        runs.act(run_id=there, command=NOTE, by=night.operator, command_id=command_id)


def test_one_command_sent_ten_times_at_once_acts_once(real_night):
    command_id, confirmed = uuid4(), real_night.confirm("packages-delivered")
    answers = at_once(*[partial(real_night.act, confirmed, command_id=command_id)] * 10)
    assert {(done.run, done.seq) for done in answers} == {(real_night.run, answers[0].seq)}
    assert [done.repeated for done in answers].count(False) == 1
    assert real_night.kinds.count("gate.confirmed") == 1


def test_one_id_sent_to_two_runs_at_once_acts_in_one_of_them(real_night):
    other = make_environment("Test lab")
    give(real_night.operator, other, "operator")
    there = start(other, real_night.operator)
    for round_ in range(1, 9):
        command_id = uuid4()
        answers = at_once(
            *(
                partial(runs.act, run_id=run, command=NOTE, by=real_night.operator, command_id=command_id)
                for run in (real_night.run, there) * 2
            )
        )
        assert RunEvent.objects.filter(kind="note.added").count() == round_
        assert {type(answer) for answer in answers} == {Done, BadInput}


def test_ten_different_acts_at_once_are_all_recorded_one_after_the_other(real_night):
    before = len(real_night.history)
    notes = [core.AddNote(text=f"Note {number}.") for number in range(10)]
    answers = at_once(*(partial(real_night.act, note) for note in notes))
    assert sorted(done.seq for done in answers) == list(range(before + 1, before + 11))


@pytest.mark.parametrize("late", ["a step behind", "an earlier visit"])
def test_a_click_on_what_is_not_current_any_more_changes_nothing(night, late):
    click = night.confirm("packages-delivered", **({"visit": 0} if late == "an earlier visit" else {}))
    if late == "a step behind":
        night.go_to("install-new")
    before = night.history
    with pytest.raises(OutOfTurn, match="Nothing was changed"):
        night.act(click)
    assert night.history == before
    assert not CommandReceipt.objects.filter(act="Confirm", seq__gt=len(before)).exists()


def test_an_act_without_the_right_is_refused_and_recorded(night):
    auditor = make_user("auditor", environment=night.environment, first_name="Vic")
    with pytest.raises(NotAllowed, match="takes the role operator"):
        night.act(night.confirm("packages-delivered"), auditor)
    last = night.history[-1]
    assert (last.event.kind, last.event.act, last.by.name) == ("attempt.refused", "Confirm", "Vic")
    assert "operator" in last.event.reason


def test_a_right_that_was_taken_away_between_page_and_click_is_gone(night):
    click = night.confirm("packages-delivered")
    second = make_user("operator", "approver", environment=night.environment)
    Membership.objects.filter(user=second, role="operator").delete()
    with pytest.raises(NotAllowed):
        night.act(click, second)
    assert night.kinds[-1] == "attempt.refused"


@pytest.mark.parametrize("run", ["somebody else's", "one that is not there"])
def test_a_stranger_cannot_tell_a_run_from_none(night, run):
    stranger = make_user("operator", environment=make_environment("Another"), is_superuser=True)
    before = night.history
    run_id = night.run if run == "somebody else's" else night.run + 1000
    with pytest.raises(NoSuchRun, match=r"^There is no such run, or you have no role in its environment\.$"):
        runs.act(run_id=run_id, command=NOTE, by=stranger, command_id=uuid4())
    assert night.history == before


def test_pages_hear_of_an_act_exactly_when_it_is_committed(real_night):
    import psycopg

    parameters = connection.get_connection_params()
    wanted = ("host", "port", "dbname", "user", "password")
    address = {name: parameters[name] for name in wanted if parameters.get(name)}
    with psycopg.connect(**address, autocommit=True) as listener:
        listener.execute("LISTEN runbook")
        with pytest.raises(OutOfTurn):
            real_night.act(real_night.confirm("packages-delivered", visit=0))
        done = real_night.act(NOTE)
        version = real_night.row.version
        heard = next(listener.notifies(timeout=30))
        assert heard.payload == f"run:{real_night.run}:{version}"
        assert listener.execute(
            "SELECT seq FROM upgrades_run WHERE id = %s", [real_night.run]
        ).fetchone() == (done.seq,)
        assert list(listener.notifies(timeout=0)) == []


def test_when_the_record_cannot_be_written_nothing_is_done(night):
    """F49: an act whose event cannot be appended fails as a whole."""
    before = night.row.version
    with pytest.raises(DatabaseError), transaction.atomic():
        act_on_a_full_disk(night)
    assert night.row.version == before
    assert "note.added" not in night.kinds
    assert not CommandReceipt.objects.filter(act="AddNote").exists()


def act_on_a_full_disk(night):
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE upgrades_runevent ADD CONSTRAINT full_disk CHECK (seq < 3) NOT VALID")
    night.act(NOTE)


def test_what_is_typed_is_checked_before_it_is_recorded(night):
    for text in ("", "   ", "x" * 2001, "bell \x07", "half \ud800"):
        with pytest.raises(BadInput):
            night.act(core.AddNote(text=text))
    assert "note.added" not in night.kinds


def test_people_of_other_environments_never_help(db):
    mine, other = Night(), make_environment("Other")
    give(mine.approver, other, "operator")
    with pytest.raises(NotAllowed):
        mine.act(mine.confirm("packages-delivered"), mine.approver)


def test_a_step_that_changes_a_server_takes_the_environment_first(real_night):
    """As starts and edits do, which hold the environment and then ask for a server: neither may wait for the other."""
    real_night.go_to("replace-folder")
    real_night.act(core.Begin(step="replace-folder", visit=1))
    real_night.answer_probes()
    complete = core.Complete(step="replace-folder", visit=1)
    done, edited = crossed(
        lambda: Environment.objects.select_for_update().get(pk=real_night.environment.pk),
        partial(real_night.act, complete),
        lambda: Application.objects.select_for_update().get(name="confserv_b").name,
    )
    assert (done, edited) == (Done(real_night.run, real_night.state.seq), "confserv_b")
    assert Application.objects.get(name="confserv_b").mode == "down"
