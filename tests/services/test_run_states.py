"""A remembered state is that of the events in the database, whatever was taken back or changed in between."""

from django.db import transaction

from tests.services.test_acts import NOTE
from upgrades.adapters import event_store, run_states
from upgrades.adapters.run_states import state_of
from upgrades.domain.run import AddNote
from upgrades.domain.run_state import fold


def folded(night):
    return fold(event_store.load(night.run))


def test_the_state_is_that_of_all_events_at_every_step_of_a_run(night):
    for step in ("backup-database", "read-only", "replace-folder", "stop-old"):
        night.go_to(step)
        assert state_of(night.run) == folded(night)
        assert state_of(night.run) == folded(night)


def test_only_what_came_since_is_read(night, monkeypatch):
    state_of(night.run)
    night.act(NOTE)
    read = []
    monkeypatch.setattr(run_states, "read", lambda text: read.append(text) or event_store.read(text))
    assert state_of(night.run) == folded(night)
    assert len(read) <= 1


def test_what_was_taken_back_is_forgotten(night):
    with transaction.atomic():
        night.act(NOTE)
        night.act(NOTE)
        assert state_of(night.run).seq == folded(night).seq
        transaction.set_rollback(True)
    assert state_of(night.run) == folded(night)
    night.act(AddNote(text="Another one, in the same place."))
    assert state_of(night.run) == folded(night)


def test_what_was_taken_back_is_forgotten_though_as_much_came_after_it(night):
    with transaction.atomic():
        night.act(NOTE)
        state_of(night.run)
        transaction.set_rollback(True)
    for text in ("Something else.", "And more."):
        night.act(AddNote(text=text))
    assert state_of(night.run) == folded(night)


def test_only_so_many_runs_are_remembered(night, monkeypatch):
    monkeypatch.setattr(run_states, "RUNS", 0)
    state_of(night.run)
    assert night.run not in run_states._known
    assert state_of(night.run) == folded(night)
