"""The role of pages and workers: it can do all its work, and nothing to the record (trust.md 9.3)."""

import json

import psycopg
import pytest
from django.db import connection, connections

from tests.record.scene import note
from upgrades.adapters.database_role import restrict
from upgrades.models import Evidence
from upgrades.services.exports import export_bundle
from upgrades.services.record import broken_record

pytestmark = pytest.mark.django_db(transaction=True)
# Not the one of the demo: its password is set here.
APP_ROLE, PASSWORD = "runbook_app_of_tests", "of-these-tests-alone"


@pytest.fixture
def as_app(transactional_db):
    """Django works as the application's role from here on; the owner is back for the end of the test."""
    restrict(APP_ROLE, PASSWORD)
    owner = {key: connection.settings_dict[key] for key in ("USER", "PASSWORD")}

    def switch(**who):
        connection.close()
        connections["default"].settings_dict.update(who)

    switch(USER=APP_ROLE, PASSWORD=PASSWORD)
    yield
    switch(**owner)


@pytest.fixture
def sealed(stage, vault):
    vault.sign()
    return stage


@pytest.fixture
def sql(sealed, as_app):
    """SQL of our own as the application's role, each statement in a transaction of its own."""
    parameters = connection.get_connection_params()
    wanted = ("dbname", "user", "password", "host", "port")
    chosen = {key: parameters[key] for key in wanted if parameters.get(key)}
    with psycopg.connect(**chosen, autocommit=True) as session:
        assert session.execute("SELECT session_user").fetchone() == (APP_ROLE,)
        yield session.execute


COLUMNS = "run_id, seq, kind, text, previous, hash"
INSERT = f"INSERT INTO upgrades_runevent ({COLUMNS}) SELECT run_id, 4711, kind, text, '', '' FROM upgrades_runevent LIMIT 1"
REFUSED = {
    "update": "UPDATE upgrades_runevent SET text = 'x'",
    "delete": "DELETE FROM upgrades_runevent",
    "truncate": "TRUNCATE upgrades_runevent",
    "truncate with what hangs on it": "TRUNCATE upgrades_run CASCADE",
    "insert": INSERT,
    "upsert": f"{INSERT} ON CONFLICT (run_id, seq) DO UPDATE SET text = 'x'",
    "merge": "MERGE INTO upgrades_runevent AS e USING (SELECT 1) AS s ON true WHEN MATCHED THEN UPDATE SET text = 'x'",
    "copy in": f"COPY upgrades_runevent ({COLUMNS}) FROM STDIN",
    "copy from a program": "COPY upgrades_runevent FROM PROGRAM 'id'",
    "copy to a program": "COPY upgrades_runevent TO PROGRAM 'cat'",
    "disable the trigger": "ALTER TABLE upgrades_runevent DISABLE TRIGGER record_is_append_only",
    "drop the trigger": "DROP TRIGGER record_is_append_only ON upgrades_runevent",
    "drop the table": "DROP TABLE upgrades_runevent CASCADE",
    "a rule": "CREATE RULE none AS ON INSERT TO upgrades_runevent DO INSTEAD NOTHING",
    "replication role": "SET session_replication_role = replica",
    "alter the sequence": "ALTER SEQUENCE upgrades_runevent_id_seq RESTART WITH 1",
    "set the sequence": "SELECT setval('upgrades_runevent_id_seq', 1)",
    "become the owner": "SET ROLE {owner}",
    "a function of one's own": "CREATE FUNCTION sha256(bytea) RETURNS bytea LANGUAGE sql AS 'SELECT $1'",
    "a schema of one's own": "CREATE SCHEMA mine",
    "a table in front of ours": "CREATE TEMPORARY TABLE upgrades_runevent (id int)",
    "replace the function": "ALTER FUNCTION append_run_events(bigint, integer, text[], text[]) SET search_path = mine",
    "a trigger of one's own": "CREATE TRIGGER mine BEFORE INSERT ON upgrades_runevent EXECUTE FUNCTION tsvector_update_trigger()",
    "delete a run": "DELETE FROM upgrades_run",
    "update the register": "UPDATE upgrades_registerentry SET text = 'x'",
    "insert into the register": "INSERT INTO upgrades_registerentry (book) VALUES ('runs/1')",
    "delete a checkpoint": "DELETE FROM upgrades_checkpoint",
    "update a leaf": "UPDATE upgrades_checkpointleaf SET hash = 'x'",
    "another evidence hash": "UPDATE upgrades_evidence SET sha256 = 'x'",
    "another text of a procedure": "UPDATE upgrades_procedureversion SET text = 'x'",
}


def test_nothing_that_changes_the_record_is_allowed_to_the_role(sql, sealed):
    allowed = []
    for attempt, statement in REFUSED.items():
        try:
            sql(statement.replace("{owner}", _owner(sql)))
        except psycopg.errors.InsufficientPrivilege:
            continue
        allowed.append(attempt)
    assert allowed == []
    sql("GRANT ALL ON upgrades_runevent TO CURRENT_USER")  # gives only what may be given on: nothing
    assert sql("SELECT has_table_privilege('upgrades_runevent', 'INSERT, UPDATE, DELETE')").fetchone() == (
        False,
    )
    assert list(broken_record()) == []


def _owner(sql):
    return sql("SELECT tableowner FROM pg_tables WHERE tablename = 'upgrades_runevent'").fetchone()[0]


def test_a_setting_that_switches_a_library_s_triggers_off_has_no_effect(sql):
    sql("SELECT set_config('pgtrigger.ignore', 'upgrades_runevent:record_is_append_only', false)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        sql("UPDATE upgrades_runevent SET text = 'x'")


def _text(sql, stage, **changes):
    text = sql(
        "SELECT text FROM upgrades_runevent WHERE run_id = %s ORDER BY seq DESC LIMIT 1", [stage.run_id]
    ).fetchone()[0]
    body = {**json.loads(text), **changes}
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


MISFITS = {
    "a made-up number": ({"seq": 99}, 99, psycopg.errors.SerializationFailure),
    "a number that is taken": ({"seq": 1}, 1, psycopg.errors.SerializationFailure),
    "a text of another place": ({"seq": 1}, None, psycopg.errors.CheckViolation),
    "a text of another run": ({"run": 4711}, None, psycopg.errors.CheckViolation),
    "a text of another kind": ({"kind": "run.ended"}, None, psycopg.errors.CheckViolation),
}
APPEND = "SELECT append_run_events(%s, %s, %s, %s)"


def test_the_appending_function_takes_nothing_that_does_not_fit(sql, sealed):
    last = sql("SELECT max(seq) FROM upgrades_runevent").fetchone()[0]
    for changes, seq, error in MISFITS.values():
        text = _text(sql, sealed, **{"seq": last + 1, **changes})
        with pytest.raises(error):
            sql(APPEND, [sealed.run_id, seq or last + 1, ["note.added"], [text]])
    tail = f',"kind":"note.added","run":{sealed.run_id},"seq":{last + 1},"v":1}}'
    for text in ("{", "[]", "", "x\n{}", '{"kind":"note.added"}', "{" + tail, "x" + tail, '{"a":"\n"' + tail):
        with pytest.raises((psycopg.errors.CheckViolation, psycopg.errors.InvalidTextRepresentation)):
            sql(APPEND, [sealed.run_id, last + 1, ["note.added"], [text]])
    with pytest.raises(psycopg.errors.CheckViolation):
        sql(APPEND, [sealed.run_id, last + 1, [], []])
    assert list(broken_record()) == []


def test_a_text_with_every_odd_character_is_taken(sql, sealed):
    last = sql("SELECT max(seq) FROM upgrades_runevent").fetchone()[0]
    body = {"step": "", "text": 'a "quoted" \x00 \u2028 \x85 \\ {} }}1 中 \U0001f600'}
    text = _text(sql, sealed, seq=last + 1, kind="note.added", body=body)
    sql("SELECT append_run_events(%s, %s, %s, %s)", [sealed.run_id, last + 1, ["note.added"], [text]])
    assert [broken.reason for broken in broken_record()] == [
        f"broken at event {last + 1}: it is not the event that was written last"
    ]


def test_an_entry_of_the_register_gets_its_number_from_the_database_alone(sql, sealed):
    actor = '{"id":"x","name":"x","kind":"person","roles":[]}'
    for body in ("[]", "x", '{"a":\n1}'):
        with pytest.raises(psycopg.Error):
            sql("SELECT append_register('runs/1', 'start.refused', NULL, %s, %s)", [actor, body])
    assert sql("SELECT append_register('runs/1', 'start.refused', NULL, %s, '{}')", [actor]).fetchone() == (
        1,
    )
    assert sql("SELECT append_register('runs/1', 'start.refused', NULL, %s, '{}')", [actor]).fetchone() == (
        2,
    )


def test_a_checkpoint_out_of_its_place_is_refused(sql):
    for number, size in ((3, 9), (1, 1), (2, 4711)):
        with pytest.raises(psycopg.errors.SerializationFailure):
            sql("SELECT append_checkpoint(%s, %s, now(), 'x', '{run 1}', '{1}', '{x}')", [number, size])


def test_a_whole_run_is_carried_out_sealed_and_exported_under_that_role(as_app, stage, vault, client):
    note(stage)
    stage.finish()
    assert vault.sign() == 1
    bundle = export_bundle(stage.run_id, stage.auditor)
    with bundle.file:
        assert bundle.size > 10_000
    client.force_login(stage.auditor)
    evidence = Evidence.objects.order_by("pk")[0]
    assert client.get(f"/runs/{stage.run_id}/").status_code == 200
    answer = client.get(f"/runs/{stage.run_id}/evidence/{evidence.pk}/")
    assert b"".join(answer.streaming_content)
    assert list(broken_record()) == []
