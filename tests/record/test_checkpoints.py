"""Checkpoints: when they are signed, where they go, and what is said when they cannot be."""

import itertools
import json
from datetime import timedelta

import pytest
from django.core import mail
from django.core.management import call_command
from django.utils import timezone

from tests.record.scene import note
from tests.record.tampering import as_owner, rechain
from upgrades.adapters.signing_key import NoKey, make_key, read_signing_key
from upgrades.domain.checkpoint import Tree, inclusion_path, leaf_hash, node_hash, read_note
from upgrades.models import Checkpoint, CheckpointDelivery, RegisterEntry, RunEvent
from upgrades.queries.record_state import trouble_of, waiting_deliveries

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)
FIRST, SECOND = "first.example.org/runbook", "second.example.org/runbook"


def newest():
    return read_note(Checkpoint.objects.order_by("-number")[0].note).checkpoint


def test_a_quiet_record_gets_one_at_the_fifth_minute(stage, vault):
    now = timezone.now()
    assert vault.sign(now) == 1
    assert vault.sign(now + MINUTE) is None
    note(stage)
    assert vault.sign(now + 4 * MINUTE) is None
    assert vault.sign(now + 5 * MINUTE) == 2
    assert vault.sign(now + 10 * MINUTE) is None, "nothing has grown"


def test_an_approval_is_sealed_at_the_next_look(stage, vault):
    now = timezone.now()
    vault.sign(now)
    before = RunEvent.objects.filter(kind="approval.signed").count()
    stage.finish()
    assert RunEvent.objects.filter(kind="approval.signed").count() > before
    assert vault.sign(now + timedelta(seconds=2)) == 2


def test_each_checkpoint_names_the_one_before_and_lies_in_the_file(stage, vault):
    now = timezone.now()
    vault.sign(now)
    note(stage)
    vault.sign(now + 5 * MINUTE)
    lines = [json.loads(line) for line in vault.file.read_text().splitlines()]
    assert [line["note"] for line in lines] == [row.note for row in Checkpoint.objects.order_by("number")]
    assert lines[1]["first"] == len(lines[0]["leaves"])
    assert any(leaf.startswith(f"run {stage.run_id} ") for leaf in lines[1]["leaves"])
    assert not CheckpointDelivery.objects.filter(done_at=None).exists()


def test_a_process_that_starts_anew_goes_on_where_the_last_one_ended(stage, vault):
    now = timezone.now()
    vault.sign(now)
    vault.restart()
    assert vault.sign(now + 5 * MINUTE) is None
    note(stage)
    assert vault.sign(now + 6 * MINUTE) == 2


def test_without_a_key_acts_go_on_the_alarm_is_seen_and_the_next_one_tells_the_delay(stage, vault):
    now = timezone.now()
    vault.sign(now)
    vault.key_file.rename(vault.folder / "taken away")
    note(stage)
    assert vault.sign(now + 5 * MINUTE) is None
    assert "The key that signs checkpoints cannot be read" in trouble_of(now + 5 * MINUTE)
    note(stage, "Acts go on.")
    (vault.folder / "taken away").rename(vault.key_file)
    assert vault.sign(now + 20 * MINUTE) == 2
    late = newest().late
    assert late is not None
    assert now <= late <= timezone.now()
    assert trouble_of(now + 20 * MINUTE) == ""


def test_silence_of_the_process_is_an_alarm(stage, vault):
    assert "has never been seen" in trouble_of(timezone.now())
    vault.sign()
    assert trouble_of(timezone.now()) == ""
    assert "has not been seen since" in trouble_of(timezone.now() + 11 * MINUTE)


def test_nothing_is_signed_on_top_of_a_changed_record(stage, vault):
    now = timezone.now()
    vault.sign(now)
    note(stage)
    with as_owner() as sql:
        sql("UPDATE upgrades_runevent SET text = replace(text, 'CHG0042317', 'CHG0042318') WHERE seq = 1")
        rechain(sql, stage.run_id)
    assert vault.sign(now + 5 * MINUTE) is None
    assert f"run {stage.run_id} is broken at" in trouble_of(now + 5 * MINUTE)


def test_a_file_that_cannot_be_written_waits_and_is_caught_up(stage, vault):
    now = timezone.now()
    vault.sign(now)
    vault.file.rename(vault.folder / "aside")
    vault.file.mkdir()
    note(stage)
    assert vault.sign(now + 5 * MINUTE) is None
    assert "The file of checkpoints cannot be used" in trouble_of(now + 5 * MINUTE)
    vault.file.rmdir()
    (vault.folder / "aside").rename(vault.file)
    vault.sign(now + 6 * MINUTE)
    numbers = [
        read_note(json.loads(line)["note"]).checkpoint.number for line in vault.file.read_text().splitlines()
    ]
    assert numbers == [1, 2]
    assert trouble_of(now + 6 * MINUTE) == ""


def test_a_mail_server_that_is_away_is_told_and_gets_it_later(stage, vault, settings):
    vault.mail_to = ("audit@example.org",)
    vault.restart()
    settings.EMAIL_BACKEND, settings.EMAIL_HOST, settings.EMAIL_PORT = (
        "django.core.mail.backends.smtp.EmailBackend",
        "127.0.0.1",
        9,
    )
    now = timezone.now()
    assert vault.sign(now) == 1
    assert waiting_deliveries(now) == 1
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    vault.sign(now + MINUTE)
    assert waiting_deliveries(now) == 0
    assert len(mail.outbox) == 1


def test_a_line_that_a_crash_cut_off_is_followed_by_the_whole_one(stage, vault):
    now = timezone.now()
    vault.sign(now)
    whole = vault.file.read_text()
    vault.file.write_text(whole[:200])
    CheckpointDelivery.objects.update(done_at=None)
    vault.sign(now + MINUTE)
    assert vault.file.read_text() == whole[:200] + "\n" + whole


def test_auditors_get_one_a_day_and_at_each_end_with_all_since_the_last(stage, vault):
    vault.mail_to = ("audit@example.org",)
    vault.restart()
    now = timezone.now()
    vault.sign(now)
    note(stage)
    vault.sign(now + 5 * MINUTE)
    assert len(mail.outbox) == 1
    note(stage)
    vault.sign(now + 25 * 60 * MINUTE)
    assert len(mail.outbox) == 2
    sent = mail.outbox[1]
    assert sent.to == ["audit@example.org"]
    assert sent.body.startswith(Checkpoint.objects.get(number=3).note)
    [(name, content, _)] = sent.attachments
    assert name == "checkpoint-3.jsonl"
    assert vault.file.read_text().endswith(content)
    assert len(content.splitlines()) == 2


@pytest.fixture
def named(vault, settings, capsys):
    """The process that signs, with a key that the command made under the first name; each look is ten minutes later."""
    settings.CHECKPOINT_KEY_FILE = vault.key_file = vault.folder / "named.key"
    settings.CHECKPOINT_ORIGIN = FIRST
    call_command("make_checkpoint_key")
    (vault.folder / "auditor.key.txt").write_text(capsys.readouterr().out)
    looks = itertools.count()

    def sign(stage, origin):
        note(stage)
        vault.restart(origin)
        at = timezone.now() + 10 * next(looks) * MINUTE
        return vault.sign(at) or trouble_of(at)

    return sign


def test_a_key_keeps_its_name_when_the_first_host_is_another_one_and_when_it_comes_back(
    stage, vault, named, exported, verify
):
    for number, origin in enumerate((FIRST, SECOND, FIRST), start=1):
        assert named(stage, origin) == number
        code, said = verify(
            exported(stage, f"{number}.zip"),
            "--key",
            vault.folder / "auditor.key.txt",
            "--checkpoints",
            vault.file,
        )
        assert code == 0, said
    assert RegisterEntry.objects.filter(book="keys").count() == 1


def test_a_key_without_a_name_signs_as_before_and_under_no_other_name(stage, vault, named):
    whole = vault.key_file.read_text()
    first, older = whole.split("\n", 1)
    assert first == f"name: {FIRST}"
    vault.key_file.write_text(older)
    assert named(stage, FIRST) == 1
    told = named(stage, SECOND)
    assert f"signed as “{FIRST}” and would sign as “{SECOND}” now" in told
    assert told.endswith(f"first line is: {first}")
    assert named(stage, FIRST) == 2
    vault.key_file.write_text(whole)
    assert named(stage, SECOND) == 3
    assert RegisterEntry.objects.filter(book="keys").count() == 1


def test_a_replaced_key_signs_no_more_under_another_name_either(stage, vault):
    vault.sign()
    first = vault.key_file
    vault.new_key("second")
    note(stage)
    vault.sign(timezone.now() + 5 * MINUTE)
    vault.use_key(first.name)
    first.write_text(first.read_text().split("\n", 1)[1])
    vault.restart(SECOND)
    note(stage)
    assert vault.sign(timezone.now() + 10 * MINUTE) is None
    assert "was replaced by a newer one" in trouble_of(timezone.now() + 10 * MINUTE)


@pytest.mark.parametrize("name", ["", "two words", "a+b"])
def test_a_name_that_no_key_can_have_is_refused(vault, name):
    vault.key_file.write_text(f"name: {name}\n" + vault.key_file.read_text())
    with pytest.raises(NoKey, match="is no name of a key"):
        read_signing_key(vault.key_file, "x")


def test_a_key_others_may_read_signs_nothing(vault):
    vault.key_file.chmod(0o640)
    with pytest.raises(NoKey, match="chmod 600"):
        read_signing_key(vault.key_file, "x")
    with pytest.raises(FileExistsError):
        make_key(vault.key_file, "x")


@pytest.mark.parametrize("size", range(1, 18))
def test_the_tree_is_that_of_rfc_6962_and_every_leaf_leads_to_its_root(size, verifier_module):
    texts = [f"run {number} 1 {'0' * 64}" for number in range(size)]
    tree = Tree()
    for text in texts:
        tree.append(text)
    hashes = [leaf_hash(text) for text in texts]
    assert tree.root == naive(hashes)
    for place, text in enumerate(texts):
        path = inclusion_path(hashes, place)
        assert verifier_module.root_along(path, place, size, text) == tree.root
        assert verifier_module.root_along([*path, b"x" * 32], place, size, text) is None
        assert verifier_module.root_along(path, place, size, text + "x") != tree.root


def naive(hashes):
    if len(hashes) == 1:
        return hashes[0]
    half = 1
    while half * 2 < len(hashes):
        half *= 2
    return node_hash(naive(hashes[:half]), naive(hashes[half:]))
