"""The record in the database: appended in order, never changed, and whoever changes it all the same is found."""

import json

import pytest
from django.db import DatabaseError, connection, transaction

from tests.services.night import Night, rows
from upgrades.adapters import event_store
from upgrades.domain.record import canonical, link
from upgrades.domain.run import AddNote
from upgrades.domain.run_events import WORKER, NoteAdded
from upgrades.models import Run, RunEvent
from upgrades.services import projections
from upgrades.services.record import broken_runs


def run_sql(sql, *values):
    with connection.cursor() as cursor:
        cursor.execute(sql, values)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE upgrades_runevent SET text = 'x'",
        "UPDATE upgrades_runevent SET seq = seq",
        "DELETE FROM upgrades_runevent",
        (
            "INSERT INTO upgrades_runevent (run_id, seq, kind, text, previous, hash) "
            "SELECT run_id, seq, kind, text, previous, hash FROM upgrades_runevent "
            "ON CONFLICT (run_id, seq) DO UPDATE SET text = 'x'"
        ),
    ],
)
def test_the_database_refuses_to_change_or_delete_an_event(night, sql):
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        run_sql(sql)


@pytest.mark.parametrize("seq", [1, 2, 99])
def test_an_event_out_of_its_place_is_refused(night, seq):
    last = night.state.seq
    seq = {1: last, 2: last + 2, 99: 99}[seq]
    late = event_store.record(seq, [NoteAdded(step="", text="x")], by=WORKER, at=night.state.changed_at)
    with (
        pytest.raises(DatabaseError, match=f"is at event {last}, so event {seq} cannot follow"),
        transaction.atomic(),
    ):
        event_store.append(night.run, late)


def test_a_chain_is_checked_from_the_first_event_to_the_last(night):
    night.go_to("replace-folder")
    assert list(broken_runs([night.run])) == [(night.run, None)]
    previous = "0" * 64
    for row in RunEvent.objects.filter(run=night.run).order_by("seq"):
        assert (row.previous, row.hash) == (previous, link(previous, row.text))
        assert canonical(json.loads(row.text)) == row.text
        previous = row.hash
    assert Run.objects.get(pk=night.run).head == previous


# What somebody with the owner's rights could do, and at which event it is found.
TAMPERING = {
    "a word changed": ("UPDATE upgrades_runevent SET text = replace(text, 'Olga', 'Oleg') WHERE seq = 3", 3),
    "an event taken out": ("DELETE FROM upgrades_runevent WHERE seq = 3", 3),
    "the last events taken off": ("DELETE FROM upgrades_runevent WHERE seq >= 5", 5),
    "two events exchanged": (
        (
            "UPDATE upgrades_runevent SET seq = CASE seq WHEN 3 THEN 1004 WHEN 4 THEN 1003 END WHERE seq IN (3, 4);"
            "UPDATE upgrades_runevent SET seq = seq - 1000 WHERE seq > 1000"
        ),
        3,
    ),
    "a changed text with a hash that fits": (
        (
            "UPDATE upgrades_runevent SET text = replace(text, 'Olga', 'Oleg'), "
            "hash = encode(sha256(convert_to(previous || E'\\n' || replace(text, 'Olga', 'Oleg'), 'UTF8')), 'hex') "
            "WHERE seq = 3"
        ),
        4,
    ),
    "the last event forged with a hash that fits": (
        (
            "UPDATE upgrades_runevent SET text = replace(text, 'quiet', 'loud'), "
            "hash = encode(sha256(convert_to(previous || E'\\n' || replace(text, 'quiet', 'loud'), 'UTF8')), 'hex') "
            "WHERE seq = (SELECT max(seq) FROM upgrades_runevent)"
        ),
        None,
    ),
}


@pytest.mark.parametrize("tampering", TAMPERING)
def test_tampering_by_the_owner_of_the_table_is_found_with_its_place(db, tampering):
    night = Night()
    for _ in range(4):
        night.act(AddNote(text="All is quiet."))
    sql, found_at = TAMPERING[tampering]
    run_sql("SET CONSTRAINTS ALL IMMEDIATE")
    run_sql("ALTER TABLE upgrades_runevent DISABLE TRIGGER record_is_append_only")
    for statement in sql.split(";"):
        run_sql(statement)
    run_sql("ALTER TABLE upgrades_runevent ENABLE TRIGGER record_is_append_only")
    [(_, broken)] = broken_runs([night.run])
    assert broken is not None
    assert broken.seq == (found_at or night.row.seq)


def test_rows_are_rebuilt_from_the_events_alone_whatever_stood_there(night):
    night.go_to("stop-old")
    before = rows(night.run)
    run = Run.objects.get(pk=night.run)
    run.steps.all().delete()
    run.burdens.update(title="wrong", closed_at=None)
    run.requests.all().delete()
    Run.objects.filter(pk=night.run).update(status="ended", title="wrong", steps_done=0, seq=1, head="")
    projections.rebuild(night.run)
    assert rows(night.run) == before


def test_a_rebuilt_row_tells_open_pages_a_newer_version(night):
    version = night.row.version
    projections.rebuild(night.run)
    assert night.row.version > version
