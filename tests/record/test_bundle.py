"""The exported record: complete, readable, and whoever changes anything in it is found by the verifier."""

import json
import zipfile
from datetime import timedelta

import pytest
from django.utils import timezone

from tests.record.scene import ORIGIN, attach, note
from tests.record.tampering import chain_of, edited, file_of, lines_of
from upgrades.adapters.signing_key import make_key
from upgrades.domain.checkpoint import NOBODY, Checkpoint, Tree, read_note
from upgrades.models import RegisterEntry
from upgrades.services.exports import export_bundle
from upgrades.services.runs import NoSuchRun

pytestmark = pytest.mark.django_db


@pytest.fixture
def bundle(stage, vault, exported):
    """Exported after two checkpoints: the first saw all but the last note."""
    vault.sign()
    note(stage, "The last word.")
    vault.sign(timezone.now() + timedelta(minutes=6))
    return exported(stage)


@pytest.fixture
def key(vault, tmp_path):
    path = tmp_path / "auditor.key.txt"
    path.write_text(vault.key.public.text + "\n")
    return path


def test_a_bundle_has_all_that_an_auditor_needs_and_is_sound(bundle, stage, verify, key):
    with zipfile.ZipFile(bundle) as files:
        names = files.namelist()
        texts = [row.text for row in stage.run.events.order_by("seq")]
        assert files.read("events.jsonl") == file_of(texts)
        assert files.read("report.pdf").startswith(b"%PDF-")
        report = files.read("report.html").decode()
    assert {"README.txt", "report.html", "report.pdf", "events.jsonl", "chain.txt", "seals.json"} <= set(
        names
    )
    assert {"keys.txt", "manifest.json", "verify_record.py"} <= set(names)
    assert len([name for name in names if name.startswith("evidence/")]) == 2
    assert f"procedures/{stage.run.procedure.text_hash}.yaml" in names
    assert "The last word." in report
    assert "Nina Adler" in report
    assert "screen 1.txt" in report[report.index(">Evidence<") :]
    assert "http" not in report.replace("http-equiv", "")
    code, said = verify(bundle, "--key", key)
    assert (code, said.splitlines()[-1]) == (0, "The record is what was written.")
    assert "1 text of procedures: as the run followed them" in said
    assert f"covers event 1 to event {len(texts)}" in said


def test_an_unpacked_bundle_is_checked_as_well(bundle, verify, key, tmp_path):
    with zipfile.ZipFile(bundle) as files:
        files.extractall(tmp_path / "unpacked")
    assert verify(tmp_path / "unpacked", "--key", key)[0] == 0


def test_without_a_key_of_ones_own_the_verifier_says_what_that_means(bundle, verify):
    code, said = verify(bundle)
    assert code == 0
    assert "compare that key with the one that you were given" in said
    assert said.endswith("if the key is the right one.\n")


def test_events_newer_than_the_checkpoint_are_named(stage, vault, exported, verify):
    vault.sign()
    note(stage)
    code, said = verify(exported(stage))
    assert code == 0
    assert "is newer than the checkpoint" in said


def test_without_any_checkpoint_nothing_is_claimed(stage, exported, verify):
    code, said = verify(exported(stage))
    assert code == 2
    assert "no checkpoint has been signed" in said


def change(seq, old, new):
    def changed(content):
        lines = lines_of(content)
        assert old in lines[seq - 1], lines[seq - 1]
        lines[seq - 1] = lines[seq - 1].replace(old, new)
        return file_of(lines)

    return changed


def without(*seqs):
    return lambda content: file_of(
        line for place, line in enumerate(lines_of(content), 1) if place not in seqs
    )


def swapped(first, second):
    def swap(content):
        lines = lines_of(content)
        lines[first - 1], lines[second - 1] = lines[second - 1], lines[first - 1]
        return file_of(lines)

    return swap


def last(stage):
    return stage.run.events.count()


# What is done to the bundle, and what the verifier calls the first broken record.
EDITS = {
    "a byte of a body": ({"events": change(1, "CHG0042317", "CHG0042318")}, "event 1: its text is not"),
    "an actor": ({"events": change(1, "Nina Adler", "Nino Adler")}, "event 1: its text is not"),
    "a time": ({"events": change(2, '{"at":"20', '{"at":"19')}, "event 2: its text is not"),
    "an event taken out": (
        {"events": without(3), "chain": without(3)},
        "event 3: it is missing; what follows it is event 4",
    ),
    "an event taken out of the texts alone": ({"events": without(3)}, "event 3: its text is not"),
    "two events exchanged": ({"events": swapped(3, 4), "chain": swapped(3, 4)}, "event 3: it is missing"),
    "two texts exchanged": ({"events": swapped(3, 4)}, "event 3: its text is not"),
    "a text that is no JSON": ({"events": change(2, "{", "")}, "event 2: it is damaged"),
    "a report edited, the manifest not": (
        {"report.html": b"<p>All went well.</p>", "manifest.json": lambda content: content},
        "report.html: it is not the file that was exported",
    ),
    "a printed report edited": (
        {"report.pdf": b"%PDF-1.4", "manifest.json": lambda content: content},
        "report.pdf: it is not the file that was exported",
    ),
    "a file slipped in": (
        {"approval.txt": b"signed", "manifest.json": lambda content: content},
        "approval.txt: it did not belong",
    ),
    "a report taken out": (
        {"report.pdf": None, "manifest.json": lambda content: content},
        "report.pdf: it was taken out",
    ),
}


@pytest.mark.bad_input("D18")
def test_an_edited_bundle_is_found_with_the_first_broken_record(bundle, verify, key, tmp_path):
    for edit, (changes, named) in EDITS.items():
        code, said = verify(_edit(bundle, tmp_path, changes), "--key", key)
        assert code == 1, edit
        assert f"The first broken record is {named}" in said, edit


def _edit(bundle, tmp_path, changes):
    new = {name: content for name, content in changes.items() if name == "approval.txt"}
    target = edited(bundle, tmp_path / "edited.zip", **{k: v for k, v in changes.items() if k not in new})
    with zipfile.ZipFile(target, "a") as files:
        for name, content in new.items():
            files.writestr(name, content)
    return target


def test_the_last_event_taken_off_is_found_by_the_checkpoint(bundle, stage, verify, key, tmp_path):
    count = last(stage)
    target = edited(bundle, tmp_path / "edited.zip", events=without(count), chain=without(count))
    code, said = verify(target, "--key", key)
    assert code == 1
    assert (
        f"The first broken record is event {count}: it is missing; checkpoint 2 saw the events up to {count}"
        in said
    )


def test_a_forged_end_with_right_hashes_is_found_between_two_checkpoints(
    bundle, stage, verify, key, tmp_path
):
    count = last(stage)
    with zipfile.ZipFile(bundle) as files:
        texts = lines_of(files.read("events.jsonl"))
    texts[-1] = texts[-1].replace("The last word.", "Another word.")
    target = edited(bundle, tmp_path / "edited.zip", events=file_of(texts), chain=chain_of(texts))
    code, said = verify(target, "--key", key)
    assert code == 1
    assert f"The first broken record is event {count} was written anew: checkpoint 2 saw another one" in said


def test_a_chain_rewritten_as_a_whole_with_right_hashes_is_found(bundle, verify, key, tmp_path):
    with zipfile.ZipFile(bundle) as files:
        texts = lines_of(files.read("events.jsonl"))
    texts[0] = texts[0].replace("CHG0042317", "CHG0042318")
    target = edited(bundle, tmp_path / "edited.zip", events=file_of(texts), chain=chain_of(texts))
    code, said = verify(target, "--key", key)
    assert code == 1
    assert "one of the events 1 to " in said
    assert "was written anew: checkpoint 2 saw another one" in said


def test_an_event_of_another_run_does_not_pass_for_one_of_this(bundle, stage, verify, key, tmp_path):
    with zipfile.ZipFile(bundle) as files:
        texts = lines_of(files.read("events.jsonl"))
    texts[2] = texts[2].replace(f'"run":{stage.run_id},', f'"run":{stage.run_id + 1},')
    target = edited(bundle, tmp_path / "edited.zip", events=file_of(texts), chain=chain_of(texts))
    code, said = verify(target, "--key", key)
    assert code == 1
    assert f"event 3: its text says that it is event 3 of run {stage.run_id + 1}" in said


def test_an_evidence_file_replaced_is_named_with_its_event(bundle, stage, verify, key, tmp_path):
    with zipfile.ZipFile(bundle) as files:
        name = next(name for name in files.namelist() if name.startswith("evidence/"))
    target = edited(bundle, tmp_path / "edited.zip", **{name: b"something else"})
    code, said = verify(target, "--key", key)
    assert code == 1
    assert "evidence “screen " in said
    assert "the file is not the one that was attached" in said
    assert (
        "the file is missing" in verify(edited(bundle, tmp_path / "b.zip", **{name: None}), "--key", key)[1]
    )


def test_another_text_of_the_procedure_is_found(bundle, stage, verify, key, tmp_path):
    name = f"procedures/{stage.run.procedure.text_hash}.yaml"
    target = edited(bundle, tmp_path / "edited.zip", **{name: b"procedure: another"})
    code, said = verify(target, "--key", key)
    assert code == 1
    assert "procedure of event 1: the text is not the one that the run followed" in said
    said = verify(edited(bundle, tmp_path / "b.zip", **{name: None}), "--key", key)[1]
    assert "procedure of event 1: its text is missing" in said


def test_a_checkpoint_with_a_wrong_signature_is_refused(bundle, verify, key, tmp_path):
    def other_time(content):
        seals = json.loads(content)
        seals["note"] = seals["note"].replace("number 2\n", "number 3\n")
        return json.dumps(seals).encode()

    target = edited(bundle, tmp_path / "edited.zip", seals=other_time)
    code, said = verify(target, "--key", key)
    assert code == 1
    assert "its signature is wrong" in said
    assert verify(target)[0] == 1


def test_a_bundle_forged_with_a_key_of_ones_own_needs_the_right_key_to_be_found(
    bundle, verify, key, tmp_path
):
    """Why an auditor keeps the key: everything is made anew here, seals and key included."""
    with zipfile.ZipFile(bundle) as files:
        texts = lines_of(files.read("events.jsonl"))
    texts[0] = texts[0].replace("CHG0042317", "CHG0042318")
    chain = chain_of(texts)
    run = json.loads(texts[0])["run"]
    leaf = f"run {run} {len(texts)} {chain.decode().split()[-1]}"
    tree = Tree()
    tree.append(leaf)
    forger = make_key(tmp_path / "forger", ORIGIN)
    told = Checkpoint(origin=ORIGIN, number=1, at=timezone.now(), size=1, root=tree.root, previous=NOBODY)
    seals = {"note": forger.note(told), "leaves": [{"leaf": leaf, "position": 0, "path": []}]}
    target = edited(
        bundle,
        tmp_path / "forged.zip",
        events=file_of(texts),
        chain=chain,
        seals=json.dumps(seals).encode(),
        keys=f"1 {forger.public.text}\n".encode(),
    )
    assert verify(target)[0] == 0
    code, said = verify(target, "--key", key)
    assert code == 1
    assert "checkpoint 1 of" in said
    assert "its signature is wrong" in said


@pytest.fixture
def stolen(stage, vault, exported, tmp_path):
    """A bundle of after the key was replaced, the same signed by the thief of the old one, and the lines of both keys."""
    vault.sign()
    old = vault.key
    note(stage)
    vault.new_key("second")
    vault.sign(timezone.now() + timedelta(minutes=6))
    bundle = exported(stage)

    def signed_anew(content):
        seals = json.loads(content)
        assert int(seals["note"].split("\n")[3].split(" ")[1]) == 2
        seals["note"] = old.note(read_note(seals["note"]).checkpoint)
        return json.dumps(seals).encode()

    forged = edited(bundle, tmp_path / "forged.zip", seals=signed_anew)
    return bundle, forged, (old.public.text, vault.key.public.text)


def test_a_checkpoint_of_an_old_key_after_its_end_is_refused(stolen, verify):
    """The thief of an old key signs a checkpoint that would be the newest."""
    bundle, forged, _ = stolen
    assert verify(bundle)[0] == 0
    code, said = verify(forged)
    assert code == 1
    assert "signed by a key that had ended before it" in said


@pytest.mark.parametrize("second", ["{}", "2 {}"], ids=["no numbers", "the first checkpoint of each"])
def test_an_auditor_with_both_keys_is_not_taken_in_by_the_thief_of_the_old_one(
    stolen, verify, tmp_path, second
):
    bundle, forged, (old, new) = stolen
    own = tmp_path / "own.txt"
    own.write_text(f"{old}\n{second.format(new)}\n")
    assert verify(bundle, "--key", own)[0] == 0
    code, said = verify(forged, "--key", own)
    assert code == 1
    assert "signed by a key that had ended before it" in said


@pytest.mark.parametrize(("second", "code"), [("{}", 2), ("2 {}", 1), ("3 {}", 0)])
def test_when_a_key_ended_is_not_for_the_bundle_to_say(stolen, verify, vault, tmp_path, second, code):
    """The thief leaves the new key out of the bundle: with the old one alone all would be in order."""
    _, forged, (old, new) = stolen
    own = tmp_path / "own.txt"
    own.write_text(f"{old}\n{second.format(new)}\n")
    silent = edited(forged, tmp_path / "silent.zip", keys=f"1 {old}\n".encode())
    found, said = verify(silent, "--key", own)
    assert found == code, said
    if code == 2:
        assert "Write the number of its first checkpoint before each later key" in said
        assert verify(silent, "--key", own, "--checkpoints", vault.file)[0] == 1


def test_own_keys_in_the_wrong_order_are_told(stolen, verify, tmp_path):
    bundle, _, (old, new) = stolen
    own = tmp_path / "own.txt"
    own.write_text(f"2 {new}\n1 {old}\n")
    code, said = verify(bundle, "--key", own)
    assert code == 2
    assert "not in the order of their first checkpoints" in said


def test_what_was_cut_off_behind_an_earlier_checkpoint_only_kept_ones_show(
    bundle, stage, verify, key, vault, tmp_path
):
    count = last(stage)

    def earlier(content):
        seals = json.loads(content)
        seals["leaves"].pop()
        return json.dumps(seals).encode()

    cut = edited(bundle, tmp_path / "cut.zip", events=without(count), chain=without(count), seals=earlier)
    code, said = verify(cut, "--key", key)
    assert code == 0
    assert f"whether more followed event {count - 1} when this was exported only checkpoints" in said
    code, said = verify(cut, "--key", key, "--checkpoints", vault.file)
    assert code == 1
    assert f"event {count}: it is missing; checkpoint 2 that you kept saw" in said
    assert "whether more followed" not in said


def test_a_record_that_was_set_back_is_found_by_kept_checkpoints(
    stage, vault, exported, verify, key, tmp_path
):
    """The database of yesterday: everything in it is in order, only shorter."""
    vault.sign()
    yesterday = exported(stage, "yesterday.zip")
    note(stage)
    vault.sign(timezone.now() + timedelta(minutes=6))
    kept = vault.file
    later = lambda content: content.replace(  # noqa: E731
        json.loads(content)["exported_at"].encode(),
        (timezone.now() + timedelta(hours=1)).isoformat().encode(),
    )
    restored = edited(yesterday, tmp_path / "restored.zip", **{"manifest.json": later})
    assert verify(restored, "--key", key)[0] == 0
    code, said = verify(restored, "--key", key, "--checkpoints", kept)
    assert code == 1
    assert (
        f"event {last(stage)}: it is missing; checkpoint 2 that you kept saw the events up to {last(stage)}"
        in said
    )
    assert verify(yesterday, "--key", key, "--checkpoints", kept)[0] == 0


@pytest.fixture
def replaced(stage, vault, exported, tmp_path):
    """A bundle of before the key was replaced; checkpoints were kept before and after that. The file of both keys."""
    vault.sign()
    bundle, keys = exported(stage), [vault.key.public.text]
    note(stage)
    vault.new_key("second")
    vault.sign(timezone.now() + timedelta(minutes=6))
    both = tmp_path / "both.txt"
    both.write_text("\n".join([*keys, vault.key.public.text]) + "\n")
    return bundle, both


def test_a_key_replaced_after_the_export_breaks_no_record(replaced, vault, verify):
    bundle, both = replaced
    code, said = verify(bundle, "--checkpoints", vault.file)
    assert code == 2
    assert "The record holds together, but checkpoint 2 that you kept is newer than the bundle's" in said
    assert verify(bundle, "--checkpoints", vault.file, "--key", both)[0] == 0


@pytest.mark.parametrize("seals", [b"{}", None], ids=["without a checkpoint", "with its own"])
def test_a_record_rewritten_before_the_key_was_replaced_is_found_by_what_was_kept(
    replaced, vault, verify, tmp_path, seals
):
    """Also where the forger takes the checkpoint and the keys away, so that no kept one has a key that is known."""
    with zipfile.ZipFile(replaced[0]) as files:
        texts = lines_of(files.read("events.jsonl"))
    texts[0] = texts[0].replace("CHG0042317", "CHG0042318")
    changes = {"events": file_of(texts), "chain": chain_of(texts)}
    if seals is not None:
        stranger = make_key(tmp_path / "forger", ORIGIN).public.text
        changes |= {"seals": seals, "keys": f"1 {stranger}\n".encode()}
    code, said = verify(edited(replaced[0], tmp_path / "forged.zip", **changes), "--checkpoints", vault.file)
    assert code == 1
    assert "was written anew: checkpoint 1" in said


def test_a_kept_checkpoint_that_the_bundle_should_know_needs_a_key_that_it_has(
    replaced, vault, verify, tmp_path
):
    """A bundle that was signed anew under a key of the forger's own, with kept ones of the same numbers."""
    forger = make_key(tmp_path / "forger", ORIGIN)

    def signed_anew(content):
        seals = json.loads(content)
        seals["note"] = forger.note(read_note(seals["note"]).checkpoint)
        return json.dumps(seals).encode()

    forged = edited(
        replaced[0],
        tmp_path / "forged.zip",
        seals=signed_anew,
        keys=f"1 {forger.public.text}\n".encode(),
    )
    code, said = verify(forged, "--checkpoints", vault.file)
    assert code == 1
    assert "kept checkpoint 1: its signature is wrong" in said


def test_a_kept_checkpoint_with_a_wrong_signature_of_a_known_key_is_refused(
    stage, vault, exported, verify, tmp_path
):
    vault.sign()
    bundle = exported(stage)
    note(stage)
    vault.sign(timezone.now() + timedelta(minutes=6))
    kept = tmp_path / "kept.jsonl"
    kept.write_text(vault.file.read_text().replace("number 2\\n", "number 3\\n"))
    code, said = verify(bundle, "--checkpoints", kept)
    assert code == 1
    assert "kept checkpoint 3: its signature is wrong" in said


def test_kept_checkpoints_that_agree_are_counted(bundle, vault, verify, key):
    code, said = verify(bundle, "--key", key, "--checkpoints", vault.file)
    assert code == 0
    assert "the 2 checkpoints that you kept agree with the bundle" in said


@pytest.mark.parametrize("arguments", [("nothing.zip",), (__file__,)])
def test_what_is_no_bundle_cannot_be_checked(verify, arguments):
    code, said = verify(*arguments)
    assert code == 2
    assert said.startswith("The record could not be checked.")


def test_exporting_is_on_the_register_with_the_digest_of_the_manifest(bundle, stage, verify):
    entry = RegisterEntry.objects.get(run=stage.run_id, kind="record.exported")
    told = json.loads(entry.text)
    assert told["by"]["name"] == "Ruth Okafor"
    assert told["body"]["manifest"] in verify(bundle)[1]


def test_a_stranger_exports_nothing(stage, django_user_model):
    stranger = django_user_model.objects.create(username="stranger")
    with pytest.raises(NoSuchRun):
        export_bundle(stage.run_id, stranger)


def test_texts_of_any_script_and_length_are_printed(stage, exported, verify, vault):
    note(stage, "中文 \u202eabc łódź <script>alert(1)</script> " + "x" * 1800)
    attach(stage, "=cmd|x.txt", b"1")
    vault.sign()
    path = exported(stage)
    with zipfile.ZipFile(path) as files:
        report = files.read("report.html").decode()
    assert "<script>" not in report
    assert "⟦U+202E⟧" in report
    assert verify(path)[0] == 0
