"""Reading logs while they are appended to, rotated, truncated and replaced."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent import configuration, lines, messages
from agent.messages import LINE_LIMIT, Cursor
from agent.polling import Logs, Question


class Reader:
    """Polls one log folder as the server does: holds the cursors, drops those whose file shrank or is gone."""

    def __init__(self, folder: Path, pattern: str = "confserv*.log", room: int = messages.DATA_LIMIT):
        entry = configuration.Application(
            "confserv", "", configuration.Log(str(folder), pattern), {}, "", "", "", ()
        )
        known = configuration.Configuration("a", "127.0.0.1", 0, "", "", {}, (entry,))
        self.later = 0.0
        self.logs = Logs(known, now=lambda: time.time() + self.later, room=room)
        self.cursors: dict[str, Cursor] = {}
        self.seen: dict[str, bytes] = {}
        self.order: list[str] = []
        self.states: list[tuple[str, str]] = []

    def poll(self) -> dict:
        question = Question(("confserv",), tuple(self.cursors.values()), {}, 0.0)
        found = self.logs.poll(question, lambda: True)["confserv"]
        for part in found["files"]:
            self._take(part)
        return found

    def poll_all(self) -> None:
        while self.poll()["files"]:
            pass

    def _take(self, part: dict) -> None:
        file = part["file"]
        self.states.append((file, part["state"]))
        if part["state"] != "open":
            del self.cursors[file]
            return
        cursor = self.cursors.get(file)
        assert part["from"] == (cursor.offset if cursor else 0)
        if cursor is None:
            self.seen[file] = b""
            self.order.append(file)
        self.seen[file] += filled(part)
        assert len(self.seen[file]) == part["to"]
        self.cursors[file] = Cursor("confserv", file, part["to"], part["mark"])


def filled(part: dict) -> bytes:
    """The data of a part with zeros for what was cut."""
    data, whole = base64.b64decode(part["data"]), b""
    for cut in part["cuts"]:
        kept = cut["offset"] - part["from"] - len(whole)
        whole, data = whole + data[:kept] + bytes(cut["length"]), data[kept:]
    return whole + data


@pytest.fixture
def reader(tmp_path):
    return Reader(tmp_path)


def test_lines_come_once_with_their_offsets(tmp_path, reader):
    log = tmp_path / "confserv.log"
    log.write_bytes(b"one\ntwo\nhal")
    reader.poll()
    with log.open("ab") as stream:
        stream.write("f Größe\n".encode()[:9])
    reader.poll()
    with log.open("ab") as stream:
        stream.write("f Größe\n".encode()[9:])

    reader.poll_all()

    assert list(reader.seen.values()) == ["one\ntwo\nhalf Größe\n".encode()]


def test_a_repeated_poll_brings_the_same(tmp_path, reader):
    (tmp_path / "confserv.log").write_bytes(b"one\ntwo\n")
    question = Question(("confserv",), (), {}, 0.0)

    first, second = (reader.logs.poll(question, lambda: True) for _ in range(2))

    assert first == second


def test_a_file_without_a_whole_first_line_has_no_identity_yet(tmp_path, reader):
    (tmp_path / "confserv.log").write_bytes(b"Local time: 2026")

    assert reader.poll()["files"] == []
    assert reader.logs.list(("confserv",))["confserv"]["files"] == []


def test_an_unfinished_last_line_is_taken_after_a_minute_of_silence(tmp_path, reader):
    (tmp_path / "confserv.log").write_bytes(b"one\ntwo")
    reader.poll_all()
    assert list(reader.seen.values()) == [b"one\n"]

    reader.later = 61
    found = reader.poll()

    assert found["files"][0]["partial"]
    assert list(reader.seen.values()) == [b"one\ntwo"]


def test_after_a_rotation_in_the_middle_of_a_line_the_old_file_is_read_to_its_end_first(tmp_path, reader):
    log = tmp_path / "confserv.log"
    log.write_bytes(b"old 1\nold")
    reader.poll_all()
    log.rename(tmp_path / "confserv-1.log")
    log.write_bytes(b"new 1\n")

    reader.later = -3600  # nothing is silent: the old file may grow still
    assert reader.poll()["files"] == []
    reader.later = 3
    reader.poll_all()

    assert [reader.seen[file] for file in reader.order] == [b"old 1\nold", b"new 1\n"]
    assert {state for _, state in reader.states} == {"open"}


def test_files_with_the_time_in_their_names_come_in_that_order(tmp_path, reader):
    for stamp in ("20260102_000000_001", "20260101_235959_999", "20260101_000000_000"):
        (tmp_path / f"confserv.{stamp}.log").write_bytes(stamp.encode() + b"\n")

    reader.poll_all()

    assert [reader.seen[file][:8] for file in reader.order] == [b"20260101", b"20260101", b"20260102"]
    assert reader.seen[reader.order[0]] == b"20260101_000000_000\n"


def test_copy_truncate_and_refill_make_another_identity(tmp_path, reader):
    log = tmp_path / "confserv.log"
    log.write_bytes(b"start 1\na\n")
    reader.poll_all()
    before = log.stat().st_ino
    shutil.copyfile(log, tmp_path / "kept.log")
    log.write_bytes(b"start 2\nlonger than before\n")
    assert log.stat().st_ino == before

    reader.poll_all()

    assert sorted(reader.seen.values()) == [b"start 1\na\n", b"start 2\nlonger than before\n"]
    assert "gone" in [state for _, state in reader.states]


def test_a_copy_of_a_file_is_known_by_its_first_line(tmp_path, reader):
    (tmp_path / "confserv.log").write_bytes(b"start 1\na\n")
    shutil.copyfile(tmp_path / "confserv.log", tmp_path / "confserv-1.log")

    one, other = (file["file"] for file in reader.logs.list(("confserv",))["confserv"]["files"])

    assert one != other
    assert messages.first_line_of(one) == messages.first_line_of(other)


def test_a_truncated_file_that_keeps_its_first_line_has_shrunk(tmp_path, reader):
    log = tmp_path / "confserv.log"
    log.write_bytes(b"start 1\na\nb\n")
    reader.poll_all()
    os.truncate(log, 8)

    found = reader.poll()["files"][0]

    assert (found["state"], found["from"], found["to"], found["data"]) == ("shrunk", 12, 12, "")


def test_a_refill_beyond_the_cursor_under_the_same_first_line_is_noticed_by_the_mark(tmp_path, reader):
    log = tmp_path / "confserv.log"
    log.write_bytes(b"Local Control Agent\none\n")
    reader.poll_all()
    log.write_bytes(b"Local Control Agent\nsomething else, longer\n")

    found = reader.poll()["files"][0]

    assert found["state"] == "shrunk"
    assert "anew" in found["reason"]


def test_a_refill_between_the_mark_and_the_reading_is_noticed(tmp_path, reader, monkeypatch):
    log, first = tmp_path / "confserv.log", b"Local Control Agent\n"
    log.write_bytes(first + b"one\n" * 15)
    reader.poll_all()
    with log.open("ab") as stream:
        stream.write(b"two\n" * 30)
    take = lines.take

    def refilled(*given):
        monkeypatch.undo()
        log.write_bytes(first + b"10:00:00.000 Std 25302 x\n" * 10)  # in place: the same inode
        return take(*given)

    monkeypatch.setattr(lines, "take", refilled)

    found = reader.poll()["files"][0]

    assert found["state"] == "shrunk"
    assert "anew" in found["reason"]


def test_an_inode_used_again_is_another_file(tmp_path, reader):
    log = tmp_path / "confserv.log"
    log.write_bytes(b"start 1\n")
    reader.poll_all()
    place = reader.order[0].rsplit("-", 1)[0]
    log.unlink()
    log.write_bytes(b"start 2\n")

    reader.poll_all()

    assert len(set(reader.order)) == 2
    assert place  # the same on most file systems: the first line then makes the difference


def test_a_deleted_file_is_gone_and_the_others_go_on(tmp_path, reader):
    (tmp_path / "confserv.1.log").write_bytes(b"one\n")
    (tmp_path / "confserv.2.log").write_bytes(b"two\n")
    reader.poll_all()
    (tmp_path / "confserv.1.log").unlink()
    with (tmp_path / "confserv.2.log").open("ab") as stream:
        stream.write(b"more\n")

    reader.poll_all()

    assert reader.states[-2:] == [(reader.order[0], "gone"), (reader.order[1], "open")]
    assert reader.seen[reader.order[1]] == b"two\nmore\n"


def test_old_files_removed_in_one_sweep_are_all_told_before_any_log_goes_on(tmp_path, reader):
    """Each answer has room for some hundreds; what a file had unread must be known as lost before the rest is judged."""
    for number in range(600):
        (tmp_path / f"confserv.{number}.log").write_bytes(b"%d\n" % number)
    reader.poll_all()
    for number in range(599):
        (tmp_path / f"confserv.{number}.log").unlink()
    with (tmp_path / "confserv.599.log").open("ab") as stream:
        stream.write(b"more\n")
    before = len(reader.states)

    sizes = []
    while files := reader.poll()["files"]:
        sizes.append(len(messages.write_json(files)))

    assert [state for _, state in reader.states[before:]] == ["gone"] * 599 + ["open"]
    assert len(sizes) > 1
    assert max(sizes) < messages.BODY_LIMIT


def test_many_small_files_with_long_names_fit_into_their_answers(tmp_path, reader):
    long = "\u4e00" * 70
    for number in range(1500):
        content = b"%d\n" % number + b"x" * 500 + b"\n"
        (tmp_path / f"confserv.{number:04}{long}.log").write_bytes(content)

    sizes = []
    while files := reader.poll()["files"]:
        sizes.append(len(messages.write_json(files)))

    assert len(reader.seen) == 1500
    assert all(len(seen) > 500 for seen in reader.seen.values())
    assert max(sizes) < messages.BODY_LIMIT


def test_a_folder_that_is_away_makes_no_file_gone(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "confserv.log").write_bytes(b"one\n")
    reader = Reader(folder)
    reader.poll_all()
    folder.rename(tmp_path / "away")

    found = reader.poll()

    assert found["files"] == []
    assert not found["complete"]
    assert found["trouble"] == ["The log folder cannot be read: No such file or directory."]


def test_links_fifos_and_folders_are_not_read(tmp_path, reader):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret\n")
    (tmp_path / "confserv-link.log").symlink_to(secret)
    os.mkfifo(tmp_path / "confserv-fifo.log")
    (tmp_path / "confserv-folder.log").mkdir()

    found = reader.poll()

    assert found["files"] == []
    assert found["complete"]
    assert found["trouble"] == [
        "confserv-fifo.log is not read: it is not a regular file.",
        "confserv-folder.log is not read: it is not a regular file.",
        "confserv-link.log is not read: it is a link.",
    ]


def test_a_second_name_of_a_file_is_not_a_second_file(tmp_path, reader):
    (tmp_path / "confserv.log").write_bytes(b"one\n")
    os.link(tmp_path / "confserv.log", tmp_path / "confserv-2.log")

    found = reader.poll()

    assert len(found["files"]) == 1
    assert found["trouble"] == ["confserv.log is not read: it is the same file as confserv-2.log."]


def test_only_files_of_the_pattern_directly_in_the_folder_are_read(tmp_path, reader):
    (tmp_path / "other.log").write_bytes(b"other\n")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "confserv.log").write_bytes(b"below\n")

    assert reader.poll()["files"] == []


@pytest.mark.parametrize(
    ("content", "first"),
    [(b"a\x00b\n", "a\u2400b"), (b"Gr\xf6\xdfe\r\n", "Gr\ufffd\ufffde"), (b"x" * 500 + b"\n", "x" * 160)],
)
def test_a_listing_shows_the_first_line_as_text_that_any_store_can_hold(tmp_path, reader, content, first):
    (tmp_path / "confserv.log").write_bytes(content + b"more")

    listed = reader.logs.list(("confserv",))["confserv"]["files"][0]

    assert listed["first"] == first
    assert (listed["size"], listed["whole"]) == (len(content) + 4, len(content))


def test_a_name_that_is_no_utf8_does_no_harm(tmp_path, reader):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/confserv-\xff.log")).write_bytes(b"one\n")

    assert reader.poll()["files"][0]["name"] == "confserv-\ufffd.log"


def test_a_backlog_of_one_application_does_not_keep_the_other_waiting(tmp_path):
    entries = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.log").write_bytes(b"x" * 99 + b"\n" + b"y" * 200_000 + b"\n")
        log = configuration.Log(str(tmp_path / name), f"{name}*.log")
        entries.append(configuration.Application(name, "", log, {}, "", "", "", ()))
    (tmp_path / "a" / "a.log").write_bytes((b"x" * 99 + b"\n") * 20_000)
    logs = Logs(configuration.Configuration("h", "127.0.0.1", 0, "", "", {}, tuple(entries)))

    found = logs.poll(Question(("a", "b"), (), {}, 0.0), lambda: True)

    assert all(found[name]["files"][0]["data"] for name in ("a", "b"))
    assert (
        sum(len(base64.b64decode(found[name]["files"][0]["data"])) for name in found) <= messages.DATA_LIMIT
    )


def test_a_poll_for_nobody_ends(tmp_path, reader):
    assert reader.logs.poll(Question(("confserv",), (), {}, 25.0), lambda: False) is None


WRITER = """
import pathlib, sys
folder, way, total = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
log = folder / "confserv.log"
for number in range(total):
    if number % 100 == 0:
        if way == "named by time":
            log = folder / ("confserv.20260101_%06d_000.log" % number)
        elif log.exists():
            log.rename(folder / ("confserv-%06d.log" % number))
        log.write_bytes(b"start at %d\\n" % number)
    with log.open("ab", buffering=0) as stream:
        stream.write(b"line ")
        stream.write(b"%d\\n" % number)
"""


@pytest.mark.parametrize("way", ["renamed", "named by time"])
def test_another_process_that_writes_and_rotates_meanwhile_loses_no_line(tmp_path, reader, way):
    total = 10_000
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), way, str(total)]) as writer:
        while writer.poll() is None:
            reader.poll()
    assert writer.returncode == 0
    reader.poll_all()

    content = b"".join(reader.seen[file] for file in reader.order)
    numbers = [int(line[5:]) for line in content.splitlines() if line.startswith(b"line ")]
    assert numbers == list(range(total))
    assert {state for _, state in reader.states} == {"open"}


chunks = st.one_of(
    st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b"\xc3", b"\xb6", b"\x00", b"line\n"]), max_size=8).map(
        b"".join
    ),
    st.integers(-2, 2).map(lambda extra: b"z" * (LINE_LIMIT + extra)),
)


class Tail(RuleBasedStateMachine):
    """A log that is written, rotated and lost in any order, beside a reader that polls in between.

    `lives` are the files as they are: their whole content, and whether they still exist. Each begins with a line of
    its own, as a program's log does with its time of start.
    """

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="tail-"))
        self.log = self.folder / "confserv.log"
        self.reader = Reader(self.folder, room=LINE_LIMIT + 100)
        self.count = 0
        self.lives: list[bytearray] = []
        self.alive: dict[Path, bytearray] = {}

    def teardown(self):
        self.reader.later = 3600
        self.reader.poll_all()
        for content in self.alive.values():
            assert_same_but_for_cuts(self._received(content), bytes(content))
        shutil.rmtree(self.folder)

    def _begin(self) -> bytearray:
        self.count += 1
        content = bytearray(b"start %d\n" % self.count)
        self.lives.append(content)
        return content

    def _received(self, content: bytes) -> bytes:
        first = hashlib.sha256(content[: content.find(b"\n") + 1]).hexdigest()[:16]
        found = [self.reader.seen[file] for file in self.reader.seen if messages.first_line_of(file) == first]
        assert len(found) <= 1
        return b"".join(found)

    @precondition(lambda self: self.log not in self.alive)
    @rule()
    def begin(self):
        self.alive[self.log] = self._begin()
        self.log.write_bytes(self.alive[self.log])

    @precondition(lambda self: self.log in self.alive)
    @rule(chunk=chunks)
    def append(self, chunk):
        self.alive[self.log] += chunk
        with self.log.open("ab") as stream:
            stream.write(chunk)

    @precondition(lambda self: self.log in self.alive)
    @rule()
    def rotate(self):
        old = self.folder / f"confserv-{self.count}.log"
        self.log.rename(old)
        self.alive[old] = self.alive.pop(self.log)

    @precondition(lambda self: self.log in self.alive)
    @rule(chunk=chunks)
    def empty_and_refill(self, chunk):
        self.alive[self.log] = self._begin() + chunk
        self.lives[-1] = self.alive[self.log]
        self.log.write_bytes(self.alive[self.log])

    @precondition(lambda self: self.log in self.alive)
    @rule()
    def replace(self):
        self.alive[self.log] = self._begin()
        other = self.folder / "new"
        other.write_bytes(self.alive[self.log])
        other.replace(self.log)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def delete(self, data):
        path = data.draw(st.sampled_from(sorted(self.alive)))
        path.unlink()
        del self.alive[path]

    @rule(later=st.sampled_from([0.0, 0.0, 3.0, 61.0]))
    def poll(self, later):
        self.reader.later = later
        self.reader.poll()

    @rule()
    def forget(self):
        """The agent starts anew: the cursors that the reader holds are enough."""
        fresh = Reader(self.folder, room=LINE_LIMIT + 100)
        fresh.logs._now = self.reader.logs._now
        self.reader.logs = fresh.logs

    @invariant()
    def what_was_read_is_what_was_written(self):
        for content in self.lives:
            received = self._received(content)
            if len(received) <= len(content):
                assert_same_but_for_cuts(received, bytes(content[: len(received)]))
            else:
                pytest.fail("more was read than was written")


def assert_same_but_for_cuts(received: bytes, written: bytes) -> None:
    """Zeros in what was received stand for bytes that were cut."""
    assert len(received) == len(written)
    if received != written:
        assert all(one in (other, 0) for one, other in zip(received, written, strict=True))


Tail.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
test_any_life_of_a_log_is_read_once_and_whole = Tail.TestCase
