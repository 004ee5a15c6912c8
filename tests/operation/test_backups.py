"""Backup and restore with real PostgreSQL programs: what comes back verifies, what was touched does not come back."""

import hashlib
import json
import os
import shutil
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection, connections

from runbook.stores import PostgresServer
from tests.operation.conftest import manage
from tests.record.scene import attach, note
from tests.record.tampering import as_owner, rechain
from upgrades.adapters import postgres_tools, register
from upgrades.adapters.database_role import restrict
from upgrades.domain.backup import BadBackup
from upgrades.domain.checkpoint import read_note
from upgrades.domain.record import canonical
from upgrades.models import Evidence, RegisterEntry, RunEvent
from upgrades.services import backups
from upgrades.services.backups import NotEmpty, NotSound, back_up, restore
from upgrades.services.record import broken_record

pytestmark = pytest.mark.django_db(transaction=True)
APP_ROLE, PASSWORD = "runbook_app_of_backups", "of-these-tests-alone"


@pytest.fixture
def evidence(settings, tmp_path):
    """Evidence in a folder of the test's own."""
    settings.EVIDENCE_FOLDER = tmp_path / "evidence"
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {**settings.STORAGES["default"], "OPTIONS": {"location": settings.EVIDENCE_FOLDER}},
    }


@pytest.fixture
def scene(evidence, stage, vault):
    """A run with two files, sealed by a checkpoint, and a word after it; the role of the application has its rights."""
    restrict(APP_ROLE, PASSWORD)
    vault.sign()
    note(stage, "The last word.")
    return stage


@pytest.fixture
def backup(scene, tmp_path):
    return back_up(tmp_path / "backup"), tmp_path / "backup"


@pytest.fixture
def empty(settings, tmp_path):
    """Django works in an empty database with an empty folder of evidence; both are gone afterwards."""

    @contextmanager
    def elsewhere():
        name, home, storages = (
            f"restored_{uuid4().hex[:8]}",
            connection.settings_dict["NAME"],
            settings.STORAGES,
        )
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        place = tmp_path / name
        before = settings.EVIDENCE_FOLDER
        settings.EVIDENCE_FOLDER = place
        settings.STORAGES = {
            **storages,
            "default": {**storages["default"], "OPTIONS": {"location": place}},
        }
        connection.close()
        connections["default"].settings_dict["NAME"] = name
        try:
            yield place
        finally:
            connection.close()
            connections["default"].settings_dict["NAME"] = home
            settings.EVIDENCE_FOLDER, settings.STORAGES = before, storages
            with connection.cursor() as cursor:
                cursor.execute(f"DROP DATABASE {name}")

    return elsewhere


def address():
    """Where Django works now, as DATABASE_URL."""
    chosen = connection.settings_dict
    who = f"{chosen['USER']}:{chosen['PASSWORD']}" if chosen["PASSWORD"] else chosen["USER"]
    if chosen["HOST"].startswith("/"):
        return f"postgresql://{who}@/{chosen['NAME']}?host={quote(chosen['HOST'])}"
    return f"postgresql://{who}@{chosen['HOST']}:{chosen['PORT']}/{chosen['NAME']}"


def entries(kind):
    return [
        register.read(row)
        for row in RegisterEntry.objects.filter(book="system", kind=kind).order_by("number")
    ]


def rewrite(folder, **changes):
    """Change the manifest as somebody would who knows how its hashes are made."""
    path = folder / "manifest.json"
    told = {**json.loads(path.read_text()), **changes}
    for name in told["files"]:
        told["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    path.write_text(canonical(told))


def append(path, content=b"x"):
    with path.open("ab") as file:
        file.write(content)


# What comes back.


def test_a_backup_comes_back_at_the_shell_with_every_chain_and_file(scene, tmp_path, empty, capsys):
    call_command("backup", str(tmp_path / "backup"))
    said = capsys.readouterr().out
    events, files = RunEvent.objects.count(), {row.sha256 for row in Evidence.objects.all()}
    assert f"1 runs with {events} events, 4 files, checkpoint 1." in said
    with empty() as place:
        there = {"DATABASE_URL": address(), "EVIDENCE_FOLDER": str(place)}
        done = manage(there, "restore", str(tmp_path / "backup"), "--sha256", said.split()[-1])
        assert done.returncode == 0, done.stderr
        assert "every record is what was written" in done.stdout
        assert f"Now run: `manage.py migrate`, `manage.py restrict_role {APP_ROLE}`" in done.stdout
        assert RunEvent.objects.count() == events
        assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in place.glob("*/*")} == files
        assert list(broken_record(tmp_path / "backup" / "checkpoints.jsonl")) == []
        [entry] = entries("backup.restored")
        assert (entry.body["manifest"], entry.body["lost_checkpoints"]) == (said.split()[-1], [])
        assert entry.by.id.startswith("shell:")
        assert entries("backup.taken") == [], "the backup is put on the register of the place that goes on"
    [taken] = entries("backup.taken")
    assert taken.body["manifest"] == said.split()[-1]


def test_the_rights_come_back_with_it(backup, empty):
    with empty(), connection.cursor() as cursor:
        restore(backup[1])
        cursor.execute(
            "SELECT has_table_privilege(%s, 'upgrades_runevent', 'UPDATE, DELETE, INSERT'),"
            " has_function_privilege(%s, 'append_register(text, text, bigint, text, text)', 'EXECUTE'),"
            " has_function_privilege('public', 'append_register(text, text, bigint, text, text)', 'EXECUTE')",
            [APP_ROLE, APP_ROLE],
        )
        assert cursor.fetchone() == (False, True, False)


def test_what_is_written_meanwhile_is_left_to_the_next_backup(scene, tmp_path, empty, monkeypatch):
    real, before = postgres_tools.dump, RunEvent.objects.count()

    def write():
        try:
            attach(scene, "late.txt", b"attached while the backup was made\n")
            note(scene, "Written while the backup was made.")
        finally:
            connection.close()

    def dump(path, snapshot):
        for _ in range(3):
            somebody = threading.Thread(target=write)
            somebody.start()
            somebody.join()
        real(path, snapshot)

    monkeypatch.setattr(postgres_tools, "dump", dump)
    done = back_up(tmp_path / "backup")
    assert RunEvent.objects.count() == before + 6
    assert (done.manifest.events, len(done.manifest.files)) == (before, 4)
    with empty():
        restore(tmp_path / "backup")
        assert RunEvent.objects.count() == before
        assert list(broken_record()) == []


def test_the_role_of_the_application_can_take_one(scene, tmp_path, empty):
    owner = {key: connection.settings_dict[key] for key in ("USER", "PASSWORD")}
    connection.close()
    connections["default"].settings_dict.update(USER=APP_ROLE, PASSWORD=PASSWORD)
    try:
        back_up(tmp_path / "backup")
    finally:
        connection.close()
        connections["default"].settings_dict.update(owner)
    with empty():
        assert restore(tmp_path / "backup").manifest.events == RunEvent.objects.count()


def test_what_root_puts_back_belongs_to_the_account_of_the_web_server(backup, empty):
    with empty() as place:
        place.mkdir()
        if os.geteuid() == 0:
            os.chown(place, 4711, 4712)
        restore(backup[1])
        owners = {(path.stat().st_uid, path.stat().st_gid) for path in place.rglob("*")}
        assert owners == {(place.stat().st_uid, place.stat().st_gid)}


def test_nobody_else_may_read_it_and_nobody_s_session_is_in_it(scene, tmp_path, client, empty):
    client.force_login(scene.auditor)
    back_up(tmp_path / "backup")
    paths = [tmp_path / "backup", *(path for path in (tmp_path / "backup").rglob("*") if path.is_file())]
    assert {path.stat().st_mode & 0o077 for path in paths} == {0}
    with empty(), connection.cursor() as cursor:
        restore(tmp_path / "backup")
        cursor.execute("SELECT count(*) FROM django_session")
        assert cursor.fetchone() == (0,)


def test_what_left_the_system_after_the_backup_is_told_as_lost(backup, scene, vault, empty):
    note(scene, "After the backup.")
    scene.finish()
    vault.sign()
    with empty():
        done = restore(backup[1], outside=vault.file)
        assert done.lost == (2,)
        assert entries("backup.restored")[0].body["lost_checkpoints"] == [2]


def test_auditors_see_what_was_taken_and_what_was_put_back(backup, scene, vault, client, empty):
    client.force_login(scene.auditor)
    page = client.get("/audit/record/").content.decode()
    assert backup[0].hash in page
    assert "taken" in page
    note(scene, "After the backup.")
    scene.finish()
    vault.sign()
    with empty():
        restore(backup[1], outside=vault.file)
        client.force_login(User.objects.get(pk=scene.auditor.pk))
        page = client.get("/audit/record/").content.decode()
    assert "put back" in page
    assert "lost: checkpoint 2" in page


def test_a_role_with_rights_that_is_missing_is_made_or_asked_for(backup, empty):
    rewrite(backup[1], roles=[APP_ROLE, "runbook_reader_of_backups"])
    with empty() as place:
        try:
            restore(backup[1])
            with connection.cursor() as cursor:
                cursor.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'runbook_reader_of_backups'")
                assert cursor.fetchone() == (True,)
        finally:
            with connection.cursor() as cursor:
                cursor.execute("DROP ROLE IF EXISTS runbook_reader_of_backups")
        assert place.exists()


# Servers of an earlier release.


class OlderServer(PostgresServer):
    """PostgreSQL 16: the wheel brings its programs beside those of 18."""

    def __init__(self, folder):
        super().__init__(folder)
        self._binaries = self._package / "pginstall" / "bin"

    def _check_version(self):
        assert (self.folder / "PG_VERSION").read_text().strip() == "16"


HEAD_LINE = "SET transaction_timeout = 0;"  # stands in the head of each dump, and servers before 17 refuse it
OURS = (
    "CREATE TABLE said (line text)",
    f"INSERT INTO said VALUES ('{HEAD_LINE}'), (E'\\\\!\\n\\\\.\\n{HEAD_LINE}')",
    f"CREATE FUNCTION says() RETURNS text LANGUAGE sql AS $$ SELECT '\n{HEAD_LINE}\n' $$",
)


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """The address of a database on the older server, with the application's tables and some lines of our own."""
    folder = tmp_path_factory.mktemp("older")
    folder.chmod(0o711)  # PostgreSQL may run under another account and must pass
    server = OlderServer(folder / "stores")
    server.start()
    try:
        for command in (("migrate", "--noinput"), ("restrict_role", APP_ROLE)):
            done = manage({"DATABASE_URL": server.url}, *command)
            assert done.returncode == 0, done.stderr
        for statement in OURS:
            on(server.url, statement)
        yield server.url
    finally:
        server.stop()


def on(url, statement):
    with psycopg.connect(url, autocommit=True) as session:
        done = session.execute(statement)
        return done.fetchall() if done.description else []


def other_database(url, name):
    """An empty one on the same server."""
    on(url, f"CREATE DATABASE {name}")
    return url.replace("/runbook?", f"/{name}?")


def test_a_backup_of_an_older_server_comes_back_there_with_every_line(older, tmp_path):
    done = manage(
        {"DATABASE_URL": older, "EVIDENCE_FOLDER": str(tmp_path / "none")}, "backup", str(tmp_path / "b")
    )
    assert done.returncode == 0, done.stderr
    there = other_database(older, "again")
    wanted = {"DATABASE_URL": there, "EVIDENCE_FOLDER": str(tmp_path / "e")}
    done = manage(wanted, "restore", str(tmp_path / "b"))
    assert done.returncode == 0, done.stderr
    assert "every record is what was written" in done.stdout
    for question in (
        "SELECT line FROM said ORDER BY line",
        "SELECT says()",
        "SELECT app, name FROM django_migrations ORDER BY id",
        "SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY tgname",
        f"SELECT has_table_privilege('{APP_ROLE}', 'upgrades_runevent', 'INSERT')",
    ):
        assert on(there, question) == on(older, question)
    assert len(on(there, "SELECT line FROM said")) == 2


@pytest.mark.parametrize("wrong", ["a cut dump", "an object in the way"])
def test_a_restore_on_an_older_server_that_fails_leaves_nothing(older, tmp_path, wrong):
    done = manage(
        {"DATABASE_URL": older, "EVIDENCE_FOLDER": str(tmp_path / "none")}, "backup", str(tmp_path / "b")
    )
    assert done.returncode == 0, done.stderr
    there = other_database(older, f"fails_{wrong.split()[1]}")
    if wrong == "a cut dump":
        dump = tmp_path / "b" / "database.dump"
        dump.write_bytes(dump.read_bytes()[:-2000])
        rewrite(tmp_path / "b")
        said = "could not read from input file"
    else:
        on(
            there,
            "CREATE FUNCTION append_register(text, text, bigint, text, text) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        )
        said = 'function "append_register" already exists'
    wanted = {"DATABASE_URL": there, "EVIDENCE_FOLDER": str(tmp_path / "e")}
    done = manage(wanted, "restore", str(tmp_path / "b"))
    assert done.returncode == 1
    assert "nothing was finished" in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert on(there, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


# What does not.


def flip(folder):
    content = bytearray((folder / "database.dump").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "database.dump").write_bytes(content)


def evidence_of(folder):
    return next(path for path in sorted(folder.glob("evidence/*/*")))


TOUCHED = {
    "a bit of the database": (flip, "database.dump is not the file that was written"),
    "evidence": (lambda folder: append(evidence_of(folder)), "is not the file that was written"),
    "checkpoints": (lambda folder: append(folder / "checkpoints.jsonl"), "checkpoints.jsonl is not the file"),
    "a file gone": (lambda folder: evidence_of(folder).unlink(), "is missing in the backup"),
    "a file more": (lambda folder: append(folder / "evidence" / "more"), "evidence/more does not belong"),
    "a link": (lambda folder: (folder / "evidence" / "l").symlink_to("/etc/passwd"), "is a link"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "one that was not finished"),
    "no text": (lambda folder: (folder / "manifest.json").write_bytes(b"\xff{"), "manifest.json is damaged"),
    "no object": (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json is damaged"),
    "another form": (lambda folder: rewrite(folder, format=2), "has form 2"),
    "a later release": (
        lambda folder: rewrite(folder, release="9.0", migrations={"upgrades": ["9999_later"]}),
        "made with release 9.0, whose tables this release does not know (upgrades 9999_later)",
    ),
}  # fmt: skip


def test_a_backup_that_was_touched_is_refused_before_anything_is_written(backup, tmp_path, empty):
    with empty() as place:
        for number, (touch, sentence) in enumerate(TOUCHED.values()):
            copy = tmp_path / f"copy-{number}"
            shutil.copytree(backup[1], copy)
            touch(copy)
            with pytest.raises(BadBackup) as refusal:
                restore(copy)
            assert sentence in refusal.value.message
        assert connection.introspection.table_names() == []
        assert not place.exists()


def test_a_manifest_that_leads_elsewhere_is_refused(backup):
    path = backup[1] / "manifest.json"
    told = json.loads(path.read_text())
    for name in ("../outside", "/etc/passwd", "evidence/../../x", "other.txt", "evidence\\x"):
        path.write_text(canonical({**told, "files": {**told["files"], name: "0" * 64}}))
        with pytest.raises(BadBackup, match="names a file that no backup has"):
            restore(backup[1])


def test_a_backup_made_anew_by_somebody_is_not_the_one_whose_hash_was_kept(backup):
    append(evidence_of(backup[1]))
    rewrite(backup[1])
    with pytest.raises(BadBackup, match="not the backup that was meant"):
        restore(backup[1], expected=backup[0].hash)


def test_a_false_record_is_found_although_every_file_fits_its_manifest(scene, tmp_path, empty):
    with as_owner() as sql:
        sql(
            "UPDATE upgrades_runevent SET text = replace(text, 'look 1', 'look 9') WHERE text LIKE '%%look 1%%'"
        )
        rechain(sql, scene.run_id)
    with pytest.raises(CommandError, match="The backup is whole, but the record is not what was written"):
        call_command("backup", str(tmp_path / "backup"))
    rewrite(tmp_path / "backup", broken=[])  # so that nobody is told
    with empty():
        with pytest.raises(NotSound, match=rf"run {scene.run_id}: broken at event"):
            restore(tmp_path / "backup")
        assert entries("backup.restored") == []


def test_what_was_broken_before_does_not_keep_the_rest_from_coming_back(scene, tmp_path, empty):
    Path(Evidence.objects.order_by("pk")[0].file.path).unlink()
    done = back_up(tmp_path / "backup")
    assert [line.partition("evidence")[2] for line in done.manifest.broken] == [
        " “screen 1.txt”: its file is missing"
    ]
    with empty():
        assert restore(tmp_path / "backup").manifest.broken == done.manifest.broken
        assert [entry.body["broken"] for entry in entries("backup.restored")] == [1]


def test_another_checkpoint_outside_means_another_record(backup, vault, empty):
    line = json.loads(vault.file.read_text())
    other = replace(read_note(line["note"]).checkpoint, root=hashlib.sha256(b"another record").digest())
    vault.file.write_text(json.dumps({**line, "note": vault.key.note(other)}) + "\n")
    with empty(), pytest.raises(NotSound, match="checkpoint 1: the one that was kept outside is another one"):
        restore(backup[1], outside=vault.file)


def test_nothing_that_is_there_is_ever_replaced(backup, tmp_path, empty):
    with pytest.raises(NotEmpty, match="is not empty, and a restore never replaces anything"):
        restore(backup[1])
    with empty() as place:
        place.mkdir()
        (place / "somebody's file").write_text("here")
        with pytest.raises(NotEmpty, match="EVIDENCE_FOLDER"):
            restore(backup[1])
        assert connection.introspection.table_names() == []
    with pytest.raises(NotEmpty, match="a backup never mixes with another one"):
        back_up(backup[1])


def test_a_backup_that_was_cut_off_is_none(scene, tmp_path, monkeypatch):
    def fail(*_):
        raise postgres_tools.NoTool("pg_dump has failed")

    monkeypatch.setattr(backups.postgres_tools, "dump", fail)
    with pytest.raises(CommandError, match="pg_dump has failed"):
        call_command("backup", str(tmp_path / "backup"))
    with pytest.raises(CommandError, match="one that was not finished"):
        call_command("restore", str(tmp_path / "backup"))
    assert entries("backup.taken") == []


def test_a_missing_or_older_program_is_named(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(postgres_tools, "find_spec", lambda _: None)
    monkeypatch.setattr(postgres_tools.shutil, "which", lambda _: None)
    with pytest.raises(
        postgres_tools.NoTool, match=r"needs a pg_dump of that release or a later one \(none was found\)"
    ):
        back_up(tmp_path / "backup")
