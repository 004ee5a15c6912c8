"""The record in the database: what its owner changes all the same is found by `manage.py verify`."""

import json
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from tests.record.scene import note
from tests.record.tampering import as_owner, rechain
from upgrades.adapters import register
from upgrades.domain.run_events import Actor
from upgrades.models import Evidence, Membership, RegisterEntry
from upgrades.services.record import broken_record

pytestmark = pytest.mark.django_db


@pytest.fixture
def sealed(stage, vault):
    """Two checkpoints, the second one behind a last note."""
    vault.sign()
    note(stage, "The last word.")
    vault.sign(timezone.now() + timedelta(minutes=6))
    return stage


def found(vault=None):
    return [str(broken) for broken in broken_record(vault.file if vault else None)]


def test_an_untouched_record_is_sound(sealed, vault):
    assert found() == found(vault) == []


def count(stage):
    return stage.run.events.count()


def test_a_byte_of_a_body(sealed):
    with as_owner() as sql:
        sql("UPDATE upgrades_runevent SET text = replace(text, 'CHG0042317', 'CHG0042318') WHERE seq = 1")
    assert found() == [f"run {sealed.run_id}: broken at event 1: its text is not the one that was hashed"]


@pytest.mark.parametrize(("old", "new"), [("Nina Adler", "Nino Adler"), ('"at":"2', '"at":"1')])
def test_an_actor_or_a_time(sealed, old, new):
    with as_owner() as sql:
        sql("UPDATE upgrades_runevent SET text = replace(text, %s, %s) WHERE seq = 2", old, new)
    assert found() == [f"run {sealed.run_id}: broken at event 2: its text is not the one that was hashed"]


def test_a_row_deleted_in_the_middle(sealed):
    with as_owner() as sql:
        sql("DELETE FROM upgrades_runevent WHERE seq = 4")
    assert found() == [f"run {sealed.run_id}: broken at event 4: event 4 is missing"]


def test_two_rows_exchanged(sealed):
    with as_owner() as sql:
        sql("UPDATE upgrades_runevent SET seq = 9000 + seq WHERE seq IN (3, 4)")
        sql("UPDATE upgrades_runevent SET seq = 9007 - seq WHERE seq > 9000")
    assert found()[0].startswith(
        f"run {sealed.run_id}: broken at event 3: it does not follow the event before it"
    )


def test_the_last_row_deleted_and_the_run_made_to_fit(sealed):
    last = count(sealed)
    with as_owner() as sql:
        sql("DELETE FROM upgrades_runevent WHERE seq = %s", last)
        rechain(sql, sealed.run_id)
    assert found() == [
        f"run {sealed.run_id}: broken at event {last}: event {last} is missing: a checkpoint saw it"
    ]


def test_the_last_rows_deleted_and_the_chain_rewritten(sealed):
    last = count(sealed)
    with as_owner() as sql:
        sql("DELETE FROM upgrades_runevent WHERE seq > %s", last - 3)
        rechain(sql, sealed.run_id)
    missing = f"numbers {last - 2} to {last} are missing: a checkpoint saw the last of them"
    assert found() == [f"run {sealed.run_id}: broken at event {last - 2}: {missing}"]


def test_a_forged_end_with_right_hashes(sealed):
    last = count(sealed)
    with as_owner() as sql:
        sql(
            "UPDATE upgrades_runevent SET text = replace(text, 'last word', 'next word') WHERE seq = %s", last
        )
        rechain(sql, sealed.run_id)
    assert found() == [
        f"run {sealed.run_id}: broken at event {last}: event {last} was written anew: a checkpoint saw another one"
    ]


def test_a_row_slipped_in_with_right_hashes(sealed):
    """What follows it has to move, and the checkpoints saw that at its old place."""
    last = count(sealed)
    with as_owner() as sql:
        sql("UPDATE upgrades_runevent SET seq = seq + 9000 WHERE seq > 3")
        sql(
            "UPDATE upgrades_runevent SET seq = seq - 8999, text = replace(text, format(',\"seq\":%%s,', seq - 9000), "
            "format(',\"seq\":%%s,', seq - 8999)) WHERE seq > 9000"
        )
        sql(
            "INSERT INTO upgrades_runevent (run_id, seq, kind, text, previous, hash) SELECT run_id, 4, kind, "
            "replace(text, ',\"seq\":3,', ',\"seq\":4,'), '', '' FROM upgrades_runevent WHERE seq = 3"
        )
        rechain(sql, sealed.run_id)
    [broken] = found()
    assert "broken at event 1: one of the numbers 1 to" in broken
    assert count(sealed) == last + 1


def test_a_whole_chain_rewritten_with_new_hashes_and_new_leaves(sealed, vault):
    """Even the checkpoints of the database are made to fit as far as one can without the key."""
    with as_owner() as sql:
        sql("UPDATE upgrades_runevent SET text = replace(text, 'CHG0042317', 'CHG0042318') WHERE seq = 1")
        rechain(sql, sealed.run_id)
        sql(
            "UPDATE upgrades_checkpointleaf AS leaf SET hash = event.hash FROM upgrades_runevent AS event "
            "WHERE leaf.subject = 'run ' || event.run_id AND leaf.seq = event.seq"
        )
    assert found() == ["checkpoint 1: its root is not that of its leaves: one of them was changed"]
    assert any("broken at event 1" in broken for broken in found(vault))


def test_a_checkpoint_deleted(sealed):
    with as_owner() as sql:
        sql("DELETE FROM upgrades_checkpointdelivery WHERE checkpoint_id = 1")
        sql("DELETE FROM upgrades_checkpoint WHERE number = 1")
    assert found()[0] == "checkpoint 1: it is missing"


def test_the_newest_checkpoint_deleted_is_missed_by_the_file(sealed, vault):
    with as_owner() as sql:
        sql("DELETE FROM upgrades_checkpointdelivery WHERE checkpoint_id = 2")
        sql("DELETE FROM upgrades_checkpoint WHERE number = 2")
    assert found(vault)[0].startswith("checkpoint 2: it is missing, and the file goes up to checkpoint 2")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param("replace(note, 'number 2', 'number 2 ')", "do not belong there", id="a line"),
        pytest.param("replace(note, '— ', '— x')", "not laid out|signature is wrong", id="the signer"),
        pytest.param(r"regexp_replace(note, 'time \d', 'time 1')", "columns beside it", id="the time"),
        pytest.param("split_part(note, E'\\n\\n', 1)", "no signature", id="no signature"),
    ],
)
def test_a_checkpoint_with_a_wrong_signature(sealed, change, reason):
    with as_owner() as sql:
        sql(f"UPDATE upgrades_checkpoint SET note = {change} WHERE number = 2")
    [broken] = found()
    assert broken.startswith("checkpoint 2: ")
    assert any(part in broken for part in reason.split("|"))


def test_a_checkpoint_signed_by_an_old_key_after_its_end(sealed, vault):
    vault.new_key("second")
    note(sealed)
    assert vault.sign(timezone.now() + timedelta(minutes=12)) == 3
    assert found(vault) == []
    forged = _signed_again(vault, "key", 3)
    with as_owner() as sql:
        sql("UPDATE upgrades_checkpoint SET note = %s WHERE number = 3", forged)
    assert found() == ["checkpoint 3: it is signed by a key that had ended before it, or had not begun"]


def _signed_again(vault, key, number):
    from tests.record.scene import ORIGIN
    from upgrades.adapters.signing_key import read_signing_key
    from upgrades.domain.checkpoint import read_note
    from upgrades.models import Checkpoint

    told = read_note(Checkpoint.objects.get(number=number).note).checkpoint
    return read_signing_key(vault.folder / key, ORIGIN).note(told)


def test_a_database_set_back_to_yesterday(sealed, vault):
    """Everything newer than the first checkpoint is gone, and what is left is in order."""
    last = count(sealed)
    with as_owner() as sql:
        sql("DELETE FROM upgrades_runevent WHERE seq = %s", last)
        rechain(sql, sealed.run_id)
        sql("DELETE FROM upgrades_checkpointdelivery WHERE checkpoint_id = 2")
        sql(
            "DELETE FROM upgrades_checkpointleaf WHERE position >= (SELECT size FROM upgrades_checkpoint WHERE number = 1)"
        )
        sql("DELETE FROM upgrades_checkpoint WHERE number = 2")
    assert found() == []
    first, second = found(vault)
    assert first.startswith("checkpoint 2: it is missing, and the file goes up to checkpoint 2")
    assert "the database was set back to an older state" in first
    assert (
        second == f"run {sealed.run_id}: broken at event {last}: event {last} is missing: a checkpoint saw it"
    )
    note(sealed)
    vault.restart()
    assert vault.sign(timezone.now() + timedelta(minutes=20)) is None  # nothing is signed on top of that


def test_an_evidence_file_replaced_or_gone(sealed):
    row = Evidence.objects.order_by("pk")[0]
    Path(row.file.path).write_bytes(b"something else")
    [broken] = found()
    assert "evidence “screen 1.txt”: its file is not the one that was attached" in broken
    row.file.storage.delete(row.file.name)
    assert "its file is missing" in found()[0]


def test_a_run_deleted_as_a_whole_is_missed(sealed, vault):
    run = sealed.run_id
    with as_owner() as sql:
        for table in (
            "runevent",
            "evidence",
            "runstep",
            "runburden",
            "runrequest",
            "runbinding",
            "commandreceipt",
            "claim",
        ):
            sql(f"DELETE FROM upgrades_{table} WHERE run_id = %s", run)
        sql("DELETE FROM upgrades_run WHERE id = %s", run)
    assert f"run {run}: it is missing as a whole, though it was started" in found()


def test_an_entry_of_the_register_changed_or_taken_out(sealed, vault):
    book = f"runs/{sealed.environment.pk}"
    with as_owner() as sql:
        sql("UPDATE upgrades_registerentry SET run = 4711 WHERE book = %s", book)
    assert f"book {book}, entry 1: its text belongs to another place or says another kind" in found()
    with as_owner() as sql:
        sql("DELETE FROM upgrades_registerentry WHERE book = %s", book)
    assert f"book {book}, entry 1: entry 1 is missing: a checkpoint saw it" in found()
    assert f"run {sealed.run_id}: no book of the register has its start" in found()


def test_the_command_names_what_it_found_and_fails(sealed, vault, tmp_path):
    key = tmp_path / "key.txt"
    key.write_text(f"1 {vault.key.public.text}\n")  # as auditors keep it who have several
    out = StringIO()
    call_command("verify", checkpoints=vault.file, key=key, stdout=out)
    assert "every record is what was written" in out.getvalue()
    with as_owner() as sql:
        sql("DELETE FROM upgrades_runevent WHERE seq = 4")
    errors = StringIO()
    with pytest.raises(CommandError, match="Keep the database and the files as they are") as failure:
        call_command("verify", checkpoints=vault.file, stderr=errors)
    assert failure.value.returncode == 1
    assert errors.getvalue() == f"run {sealed.run_id}: broken at event 4: event 4 is missing\n"


def told(vault, keys, *lines):
    """What the command says with these keys kept outside; empty when the record is what was written."""
    keys.write_text("".join(f"{line}\n" for line in lines))
    errors = StringIO()
    try:
        call_command("verify", checkpoints=vault.file, key=keys, stdout=StringIO(), stderr=errors)
    except CommandError as refusal:
        return errors.getvalue() or str(refusal)
    return ""


def test_a_key_kept_outside_signs_no_more_once_the_next_one_has_begun(sealed, vault, tmp_path):
    keys, old = tmp_path / "keys.txt", vault.key.public.text
    vault.new_key("second")
    note(sealed)
    assert vault.sign(timezone.now() + timedelta(minutes=12)) == 3
    new = vault.key.public.text
    assert told(vault, keys, old, f"3 {new}") == told(vault, keys, old, new) == ""
    assert "checkpoint 2 in the file: it is signed by a key that had ended" in told(
        vault, keys, old, f"2 {new}"
    )
    assert "checkpoint 3 in the file: it is signed by a key that had ended" in told(
        vault, keys, old, f"4 {new}"
    )
    assert "checkpoint 3 in the file: it is not signed by a key that you gave" in told(vault, keys, old)
    assert "oldest first" in told(vault, keys, f"3 {new}", f"1 {old}")
    assert "holds no key" in told(vault, keys)
    assert "holds no public key" in told(vault, keys, "3 " + new.replace("+", ""))


# What goes into the register.


def entries(book):
    return [register.read(row) for row in RegisterEntry.objects.filter(book=book).order_by("number")]


def test_roles_given_changed_and_taken_are_registered_whoever_does_it(stage):
    book = f"access/{stage.environment.pk}"
    before = len(entries(book))
    row = Membership.objects.get(user=stage.operator)
    register.acting(Actor(id="user:7", name="Sofia Costa", roles=("administrator",)))
    Membership.objects.filter(pk=row.pk).update(role="approver")
    with as_owner() as sql:
        sql("SELECT set_config('runbook.actor', '', true)")
        sql("DELETE FROM upgrades_membership WHERE id = %s", row.pk)
    taken, given, taken_again = entries(book)[before:]
    assert [taken.kind, given.kind, taken_again.kind] == ["role.taken", "role.given", "role.taken"]
    assert (taken.body["role"], given.body["role"]) == ("operator", "approver")
    assert given.body["name"] == "Nina Adler"
    assert (given.by.name, given.by.roles) == ("Sofia Costa", ("administrator",))
    assert taken_again.by.kind == "database"
    assert found() == []


def test_a_change_of_the_approval_rules_is_registered_with_before_and_after(stage):
    stage.environment.policies = {"deviation": {"role": "approver", "signatures": 2}}
    stage.environment.save(update_fields=["policies"])
    newest = entries(f"access/{stage.environment.pk}")[-1]
    assert newest.kind == "policies.changed"
    assert newest.body["after"] == {"deviation": {"role": "approver", "signatures": 2}}
    assert newest.body["before"]["deviation"]["signatures"] == 1


def test_a_refused_start_has_a_number_in_the_list_too(stage):
    from tests.factories import start
    from upgrades.domain.refusal import NotAllowed, OutOfTurn

    with pytest.raises(NotAllowed):
        start(stage.environment, stage.auditor)
    with pytest.raises(OutOfTurn):
        start(stage.environment, stage.second)
    started, not_allowed, claimed = entries(f"runs/{stage.environment.pk}")
    assert [entry.number for entry in (started, not_allowed, claimed)] == [1, 2, 3]
    assert (started.kind, started.run) == ("run.started", stage.run_id)
    assert not_allowed.by.name == "Ruth Okafor"
    assert (not_allowed.body["code"], claimed.body["code"]) == ("not-allowed", "out-of-turn")


def test_a_start_that_fails_later_leaves_no_hole_in_the_numbers(stage):
    from django.db import transaction

    book = f"runs/{stage.environment.pk}"
    with transaction.atomic():
        register.enter(book, "run.started", by=register.SYSTEM, body={}, run=4711)
        transaction.set_rollback(True)
    assert register.enter(book, "start.refused", by=register.SYSTEM, body={}) == 2


def test_opening_evidence_is_registered(stage, client):
    client.force_login(stage.auditor)
    row = Evidence.objects.order_by("pk")[0]
    answer = client.get(f"/runs/{stage.run_id}/evidence/{row.pk}/")
    assert b"".join(answer.streaming_content) == b"what was on screen 1\n"
    [entry] = entries(f"reads/{stage.environment.pk}")
    assert (entry.kind, entry.run, entry.by.name) == ("evidence.opened", stage.run_id, "Ruth Okafor")
    assert entry.body["sha256"] == row.sha256
    assert json.loads(RegisterEntry.objects.get(kind="evidence.opened").text)["number"] == 1
