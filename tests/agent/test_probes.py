"""What the agent sees of processes, folders, names and files."""

import hashlib
import os
import subprocess
import sys

import pytest

from agent import probes
from agent.configuration import Application


def application(**told) -> Application:
    plain = Application("confserv", "ConfigurationServer", None, {}, "confserv.conf", "run.sh", "", ())
    return plain._replace(**told)


@pytest.fixture
def sleeper():
    """A process with recognisable words on its command line."""
    program = "import sys; print('ready', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "/opt/gcti/sleeper-7f3a", "-s", "name of it"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.communicate()


def test_a_running_process_of_a_pid_file_is_up(tmp_path, sleeper):
    (tmp_path / "server.pid").write_text(f"{sleeper.pid}\n")

    found = probes.process(application(pid_file=str(tmp_path / "server.pid")))

    assert (found.state, found.pid) == ("up", sleeper.pid)
    assert found.since.endswith("Z")


def test_an_ended_process_is_down_even_before_its_parent_noticed(tmp_path, sleeper):
    (tmp_path / "server.pid").write_text(str(sleeper.pid))
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)

    assert probes.process(application(pid_file=str(tmp_path / "server.pid"))).state == "down"


def test_a_process_number_given_anew_is_no_proof(tmp_path, sleeper):
    pid_file = tmp_path / "server.pid"
    pid_file.write_text(str(sleeper.pid))
    os.utime(pid_file, (1_000_000_000, 1_000_000_000))

    found = probes.process(application(pid_file=str(pid_file)))

    assert found.state == "unknown"
    assert "another one" in found.reason


@pytest.mark.parametrize("content", ["", "abc", "-1", "0", "99999999999999999999"])
def test_a_pid_file_without_a_number_says_nothing(tmp_path, content):
    (tmp_path / "server.pid").write_text(content)

    assert probes.process(application(pid_file=str(tmp_path / "server.pid"))).state == "unknown"


def test_without_a_pid_file_the_process_is_down_but_without_its_folder_unknown(tmp_path):
    assert probes.process(application(pid_file=str(tmp_path / "server.pid"))).state == "down"
    assert probes.process(application(pid_file=str(tmp_path / "no" / "server.pid"))).state == "unknown"


def test_a_pid_file_that_is_a_link_is_not_followed(tmp_path, sleeper):
    (tmp_path / "real").write_text(str(sleeper.pid))
    (tmp_path / "server.pid").symlink_to(tmp_path / "real")

    assert probes.process(application(pid_file=str(tmp_path / "server.pid"))).state == "unknown"


@pytest.mark.parametrize(
    ("words", "state"),
    [
        (("sleeper-7f3a", "-s"), "up"),
        (("/opt/gcti/sleeper-7f3a", "name of it"), "up"),
        (("-s", "sleeper-7f3a"), "down"),
        (("sleeper-7f3a", "-s", "other"), "down"),
        (("sleeper-7f3",), "down"),
    ],
)
@pytest.mark.usefixtures("sleeper")
def test_a_process_is_recognised_by_all_words_in_their_order(words, state):
    assert probes.process(application(command=words)).state == state


def test_a_process_that_is_not_described_is_unknown():
    assert probes.process(application()).state == "unknown"


def test_a_folder_tells_its_entries_and_newest_change(tmp_path):
    for number, name in enumerate(("a", "b")):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (1_790_000_000 + number, 1_790_000_000 + number))

    assert probes.folder(str(tmp_path)) == {
        "exists": True,
        "entries": 2,
        "newest": "2026-09-21T14:13:21Z",
        "reason": "",
    }


def test_a_folder_may_be_missing_or_empty(tmp_path):
    assert probes.folder(str(tmp_path / "no"))["exists"] is False
    assert probes.folder(str(tmp_path)) == {"exists": True, "entries": 0, "newest": None, "reason": ""}


@pytest.mark.parametrize(
    ("start", "name"),
    [
        ("#!/bin/sh\n# old: -s wrong\n./confserv -s confserv -c confserv.conf\n", "confserv"),
        ('REM confserv -s wrong\r\nconfserv.exe -s "UR Server 750"\r\n', "UR Server 750"),
        ("exec ./confserv -s 'a b'", "a b"),
        ("./confserv -s=confserv", "confserv"),
        ("./confserv -c x", None),
        ("./confserv -s a\n./confserv -s b\n", None),
        ("./confserv --silent yes", None),
    ],
)
def test_the_start_name_is_the_value_of_s(tmp_path, start, name):
    (tmp_path / "confserv.conf").write_text("[confserv]\n")
    (tmp_path / "run.sh").write_text(start)

    found = probes.names(application(), str(tmp_path))

    assert found["start-name"] == name
    assert bool(found["reason"]) == (name is None)


def test_the_sections_are_those_of_the_configuration_file(tmp_path):
    (tmp_path / "run.sh").write_text("confserv -s confserv_b")
    (tmp_path / "confserv.conf").write_text("# [no]\n;[no]\n[confserv_b]\r\nport = 1\n  [log]\nx=[no]\n")

    found = probes.names(application(), str(tmp_path))

    assert found == {
        "sections": ["confserv_b", "log"],
        "start-name": "confserv_b",
        "application": "confserv",
        "reason": "",
    }


def test_files_that_are_missing_are_told(tmp_path):
    found = probes.names(application(), str(tmp_path))

    assert found["sections"] == []
    assert "confserv.conf cannot be read" in found["reason"]
    assert "run.sh cannot be read" in found["reason"]


def test_a_hash_is_of_the_whole_file(tmp_path):
    content = os.urandom(3_000_000)
    (tmp_path / "confserv").write_bytes(content)

    assert probes.file_hash(str(tmp_path), "confserv") == {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "reason": "",
    }


def test_a_hash_of_what_is_no_file_says_why(tmp_path):
    (tmp_path / "link").symlink_to("/etc/passwd")

    assert probes.file_hash(str(tmp_path), "no")["reason"] == "no cannot be read: there is no such file."
    assert probes.file_hash(str(tmp_path), "link")["reason"] == "link cannot be read: it is a link."
