"""Evidence files: whole, once, hashed, and gone with the refusal."""

import hashlib
import resource
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from django.conf import settings as django_settings
from django.core.files.uploadedfile import SimpleUploadedFile

from tests.factories import make_user
from tests.services.night import at_once
from upgrades.domain.refusal import BadInput, NotAllowed, OutOfTurn, Unavailable
from upgrades.models import Evidence
from upgrades.services import evidence
from upgrades.services.runs import Done, NoSuchRun

pytestmark = pytest.mark.usefixtures("evidence_folder")


def files():
    """What lies in the evidence folder."""
    folder = Path(django_settings.EVIDENCE_FOLDER)
    return {path for path in folder.rglob("*") if path.is_file()} if folder.exists() else set()


def attach(night, content=b"a dump of the database", name="copy.dmp", by=None, **changes):
    values = {
        "run_id": night.run,
        "step": "backup-database",
        "visit": 1,
        "gate": "database-copy",
        "upload": SimpleUploadedFile(name, content),
        "text": "",
        "by": by or night.operator,
        "command_id": uuid4(),
    }
    return evidence.attach_file(**values | changes)


def test_a_file_is_stored_whole_with_its_hash_on_the_record(night):
    night.go_to("backup-database")
    attach(night)
    event = night.history[-1].event
    row = Evidence.objects.get(pk=event.evidence)
    assert event.sha256 == row.sha256 == hashlib.sha256(b"a dump of the database").hexdigest()
    found, opened = evidence.open_file(night.run, row.pk, night.operator)
    with opened:
        assert opened.read() == b"a dump of the database"
    assert (found.name, found.size) == ("copy.dmp", 22)
    assert night.verdict("backup-database", "database-copy").is_met


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty"), (b"x" * 1025, "1,025 bytes; at most 1,024 are taken")],
)
@pytest.mark.bad_input("U03")
def test_a_file_that_is_empty_or_too_large_is_refused_before_anything_is_written(
    night, settings, content, says
):
    settings.EVIDENCE_MAX_BYTES = 1024
    night.go_to("backup-database")
    with pytest.raises(BadInput, match=says):
        attach(night, content)
    assert files() == set()
    assert not Evidence.objects.exists()


@pytest.mark.bad_input("U03")
def test_a_file_of_exactly_the_limit_is_taken(night, settings):
    settings.EVIDENCE_MAX_BYTES = 1024
    night.go_to("backup-database")
    assert isinstance(attach(night, b"x" * 1024), Done)


@pytest.fixture
def no_room():
    """The system writes no file beyond 64 KiB, as when the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_for_which_the_folder_has_no_room_leaves_nothing_behind(night, no_room):
    night.go_to("backup-database")
    before = night.history
    with pytest.raises(Unavailable, match=r"full, or cannot be written to\. Nothing was attached"):
        attach(night, b"x" * 300_000)
    assert files() == set()
    assert not Evidence.objects.exists()
    assert night.history == before
    assert isinstance(attach(night, b"x" * 1000), Done)


def test_a_folder_that_cannot_be_written_to_refuses_and_is_used_again_when_it_can(night, evidence_folder):
    night.go_to("backup-database")
    evidence_folder.parent.mkdir(exist_ok=True)
    evidence_folder.touch()  # a file where the folder should be: nobody can write below it, not even root
    command_id = uuid4()
    with pytest.raises(Unavailable, match="cannot be written to"):
        attach(night, command_id=command_id)
    assert not Evidence.objects.exists()
    evidence_folder.unlink()
    assert not attach(night, command_id=command_id).repeated  # the same form, sent again
    assert Evidence.objects.count() == len(files()) == 1


def test_a_file_that_is_gone_from_the_folder_is_said_to_be_unreadable(night):
    night.go_to("backup-database")
    attach(night)
    row = Evidence.objects.get()
    Path(row.file.path).unlink()
    with pytest.raises(Unavailable, match=r"“copy\.dmp” cannot be read now"):
        evidence.open_file(night.run, row.pk, night.operator)


def test_the_same_command_sent_twice_stores_one_file(night):
    night.go_to("backup-database")
    command_id = uuid4()
    first, again = attach(night, command_id=command_id), attach(night, command_id=command_id)
    assert (again.seq, again.repeated) == (first.seq, True)
    assert Evidence.objects.count() == len(files()) == 1


def test_the_same_command_sent_five_times_at_once_stores_one_file(real_night):
    real_night.go_to("backup-database")
    answers = at_once(*[partial(attach, real_night, command_id=uuid4())] * 5)
    assert all(isinstance(answer, Done) for answer in answers)
    assert Evidence.objects.count() == len(files()) == 1
    assert real_night.kinds.count("evidence.attached") == 1


def test_five_files_at_once_are_all_stored(real_night):
    real_night.go_to("backup-database")
    answers = at_once(
        *(partial(attach, real_night, b"%d" % number, command_id=uuid4()) for number in range(5))
    )
    assert all(isinstance(answer, Done) for answer in answers), answers
    assert Evidence.objects.count() == len(files()) == 5


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"step": "read-only"}, OutOfTurn),
        ({"visit": 2}, OutOfTurn),
        ({"gate": "no-such-gate"}, BadInput),
        ({"text": "bell \x07"}, BadInput),
    ],
)
def test_a_refusal_leaves_no_file_behind(night, changes, refusal):
    night.go_to("backup-database")
    with pytest.raises(refusal):
        attach(night, **changes)
    assert files() == set()
    assert not Evidence.objects.exists()


def test_a_refused_right_leaves_no_file_but_a_line_in_the_record(night):
    night.go_to("backup-database")
    with pytest.raises(NotAllowed):
        attach(night, by=night.approver)
    assert files() == set()
    assert (night.history[-1].event.kind, night.history[-1].event.act) == ("attempt.refused", "Attach")


def test_a_stranger_leaves_nothing_and_learns_nothing(night):
    night.go_to("backup-database")
    attach(night)
    stranger, before = make_user(is_superuser=True), files()
    with pytest.raises(NoSuchRun):
        attach(night, by=stranger)
    with pytest.raises(NoSuchRun):
        evidence.open_file(night.run, Evidence.objects.get().pk, stranger)
    assert files() == before


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\logs\\confserv.log", "confserv.log"),
        ("report\u202egpj.exe", "reportgpj.exe"),
        ("a\x00b\r\n.txt", "ab.txt"),
        ("\x00", "file"),
        ("..", "file"),
        ("ü" * 300, "ü" * 200),
    ],
)
@pytest.mark.bad_input("U01")
def test_a_hostile_name_is_only_data_and_never_a_path(night, name, kept):
    """U01: the file lies under a name of ours below its run; its own name is kept as text, cleaned."""
    night.go_to("backup-database")
    upload = SimpleUploadedFile("x", b"content")
    vars(upload)["_name"] = name  # what a client sends; Django's own cleaning happens elsewhere
    attach(night, upload=upload)
    row = Evidence.objects.get()
    assert row.name == kept
    [path] = files()
    assert path.parent == Path(django_settings.EVIDENCE_FOLDER) / str(night.run)
    assert len(path.name) == 32
