"""An agent's answers, read strictly: what does not follow the wire format to the letter is refused as a whole.

An answer that reaches these functions was signed by the agent, so what is wrong with it is a mistake of that program,
not an attack; it is refused all the same, since evidence rests on it. `messages.Nonsense` says what is wrong.
"""

import base64
import binascii
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Literal, TypeVar, cast

from agent import messages
from agent.messages import Cursor, Nonsense

T = TypeVar("T")

ProcessState = Literal["up", "down", "unknown"]
FileState = Literal["open", "shrunk", "gone"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Origin:
    """Which agent answered, in which life of its process, and what its clock said.

    `skew` is the agent's clock less ours in seconds: for a warning, never for the order of events.
    """

    agent: str
    boot: str
    time: datetime
    skew: float


@dataclass(frozen=True, slots=True)
class Health:
    origin: Origin
    version: str
    applications: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Process:
    state: ProcessState
    reason: str


@dataclass(frozen=True, slots=True)
class LogFile:
    """A log file as a listing shows it. `whole` is where its last whole line ends: the place for a watermark."""

    file: str
    name: str
    size: int
    whole: int
    first: str


@dataclass(frozen=True, slots=True)
class ApplicationLogs:
    """Files oldest first. Only if `complete` is every file of the log in the list (else `trouble` says why)."""

    process: Process
    files: tuple[LogFile, ...]
    complete: bool
    trouble: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Logs:
    origin: Origin
    applications: Mapping[str, ApplicationLogs]


@dataclass(frozen=True, slots=True)
class Cut:
    """A stretch of a line longer than 64 KiB that did not travel: place, number of bytes, SHA-256."""

    offset: int
    length: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FilePart:
    """The bytes of one file from offset `start` up to `end`, without those in `cuts`; whole lines only.

    `partial`: the last line has no end yet (it was silent for a minute, or is endless). `mark` goes into the next
    cursor. State `shrunk` or `gone`: no data, the reason for people, and the cursor is of no use any more.
    """

    file: str
    name: str
    size: int
    start: int
    end: int
    data: bytes
    partial: bool
    cuts: tuple[Cut, ...]
    mark: str
    state: FileState
    reason: str

    def cursor(self, application: str) -> Cursor:
        """Where the next poll goes on."""
        return Cursor(application, self.file, self.end, self.mark)


@dataclass(frozen=True, slots=True)
class ApplicationNews:
    """Files oldest first, only those with news. While not `complete`, a file that is missing may exist still."""

    process: Process
    files: tuple[FilePart, ...]
    complete: bool
    trouble: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class News:
    origin: Origin
    applications: Mapping[str, ApplicationNews]


@dataclass(frozen=True, slots=True)
class ProcessProbe:
    origin: Origin
    state: ProcessState
    pid: int | None
    since: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class FolderProbe:
    origin: Origin
    exists: bool
    entries: int
    newest: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class NamesProbe:
    """The three names that must agree. `reason` says why sections or start name could not be read."""

    origin: Origin
    sections: tuple[str, ...]
    start_name: str | None
    application: str
    reason: str


@dataclass(frozen=True, slots=True)
class HashProbe:
    """SHA-256 and size of a file; both None, with the reason, where there is no such file to read."""

    origin: Origin
    sha256: str | None
    size: int | None
    reason: str


def read_health(value: Any, origin: Origin) -> Health:
    """The health of the agent that was asked."""
    found = _Fields(value, "agent", "version", "boot", "time", "applications")
    if found.text("agent") != origin.agent or found.text("boot") != origin.boot:
        raise Nonsense("it names another agent than the one that signed it")
    if isinstance(found["time"], bool) or not isinstance(found["time"], int | float):
        raise Nonsense("its time is no number")
    return Health(origin, found.text("version"), found.texts("applications"))


def read_logs(value: Any, origin: Origin, asked: Collection[str]) -> Logs:
    """The files of the applications asked for, of all if none was."""
    return Logs(origin, _applications(value, asked, _application_logs))


def read_news(value: Any, origin: Origin, asked: Collection[str], cursors: Sequence[Cursor]) -> News:
    """What is new; each part begins where its cursor stands, or at 0 where there was none."""
    offsets = {(cursor.application, cursor.file): cursor.offset for cursor in cursors}
    applications = _applications(value, asked, lambda name, item: _application_news(name, item, offsets))
    if sum(len(part.data) for item in applications.values() for part in item.files) > messages.DATA_LIMIT:
        raise Nonsense(f"it has more than {messages.DATA_LIMIT} bytes of data")
    return News(origin, applications)


def read_process_probe(value: Any, origin: Origin) -> ProcessProbe:
    found = _Fields(value, "state", "pid", "since", "reason")
    state = cast(ProcessState, found.one_of("state", messages.PROCESS_STATES))
    pid = None if found["pid"] is None else found.count("pid")
    return ProcessProbe(origin, state, pid, found.moment("since"), found.text("reason"))


def read_folder_probe(value: Any, origin: Origin) -> FolderProbe:
    found = _Fields(value, "exists", "entries", "newest", "reason")
    return FolderProbe(
        origin, found.flag("exists"), found.count("entries"), found.moment("newest"), found.text("reason")
    )


def read_names_probe(value: Any, origin: Origin) -> NamesProbe:
    found = _Fields(value, "sections", "start-name", "application", "reason")
    start_name = None if found["start-name"] is None else found.text("start-name")
    return NamesProbe(
        origin, found.texts("sections"), start_name, found.text("application"), found.text("reason")
    )


def read_hash_probe(value: Any, origin: Origin) -> HashProbe:
    found = _Fields(value, "sha256", "size", "reason")
    if found["sha256"] is None and found["size"] is None:
        return HashProbe(origin, None, None, found.text("reason"))
    return HashProbe(
        origin, found.matching("sha256", messages.SHA256), found.count("size"), found.text("reason")
    )


class _Fields:
    """An object with exactly these keys, whose values are taken out by kind."""

    def __init__(self, value: Any, *keys: str) -> None:
        if not isinstance(value, dict) or set(value) != set(keys):
            raise Nonsense(f"there is no object with exactly {', '.join(keys)}")
        self._value: dict[str, Any] = value

    def __getitem__(self, key: str) -> Any:
        return self._value[key]

    def text(self, key: str) -> str:
        return _text(self[key], key)

    def matching(self, key: str, pattern: re.Pattern[str]) -> str:
        text = self.text(key)
        if not pattern.match(text):
            raise Nonsense(f"{key} is not of the right form")
        return text

    def one_of(self, key: str, allowed: Sequence[str]) -> str:
        text = self.text(key)
        if text not in allowed:
            raise Nonsense(f"{key} is none of {', '.join(allowed)}")
        return text

    def flag(self, key: str) -> bool:
        if not isinstance(self[key], bool):
            raise Nonsense(f"{key} is neither true nor false")
        return bool(self[key])

    def count(self, key: str) -> int:
        if isinstance(self[key], bool) or not isinstance(self[key], int) or self[key] < 0:
            raise Nonsense(f"{key} is no number from 0 on")
        return int(self[key])

    def items(self, key: str) -> list[Any]:
        if not isinstance(self[key], list):
            raise Nonsense(f"{key} is no list")
        return list(self[key])

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(_text(item, key) for item in self.items(key))

    def moment(self, key: str) -> datetime | None:
        if self[key] is None:
            return None
        if not _MOMENT.fullmatch(self.text(key)):
            raise Nonsense(f"{key} is no time in UTC")
        try:
            return datetime.fromisoformat(self.text(key))
        except ValueError:
            raise Nonsense(f"{key} is no time in UTC") from None

    def data(self, key: str) -> bytes:
        text = self.text(key)
        try:
            data = base64.b64decode(text.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise Nonsense(f"{key} is not base64") from None
        if base64.b64encode(data).decode("ascii") != text:  # the same bytes in another spelling
            raise Nonsense(f"{key} is not base64")
        return data


def _text(value: Any, key: str) -> str:
    """A text that any store can hold: no NUL, no lone surrogate."""
    if not isinstance(value, str) or "\x00" in value or _SURROGATE.search(value):
        raise Nonsense(f"{key} is no text")
    return value


def _applications(value: Any, asked: Collection[str], read: Callable[[str, Any], T]) -> dict[str, T]:
    found = _Fields(value, "applications")["applications"]
    if not isinstance(found, dict):
        raise Nonsense("applications is no object")
    names = {_text(name, "an application's name") for name in found}
    if asked and names != set(asked):
        raise Nonsense("it is about other applications than those asked for")
    return {name: read(name, item) for name, item in found.items()}


def _process(value: Any) -> Process:
    found = _Fields(value, "state", "reason")
    return Process(cast(ProcessState, found.one_of("state", messages.PROCESS_STATES)), found.text("reason"))


def _application_logs(_name: str, value: Any) -> ApplicationLogs:
    found = _Fields(value, "process", "files", "complete", "trouble")
    files = tuple(_log_file(item) for item in found.items("files"))
    _refuse_twice([file.file for file in files])
    return ApplicationLogs(_process(found["process"]), files, found.flag("complete"), found.texts("trouble"))


def _log_file(value: Any) -> LogFile:
    found = _Fields(value, "file", "name", "size", "whole", "first")
    size, whole = found.count("size"), found.count("whole")
    if whole > size:
        raise Nonsense("a file's last line ends beyond the file")
    return LogFile(
        found.matching("file", messages.IDENTITY), found.text("name"), size, whole, found.text("first")
    )


def _application_news(name: str, value: Any, offsets: Mapping[tuple[str, str], int]) -> ApplicationNews:
    found = _Fields(value, "process", "files", "complete", "trouble")
    files = tuple(_file_part(item) for item in found.items("files"))
    _refuse_twice([part.file for part in files])
    for part in files:
        if part.start != offsets.get((name, part.file), 0):
            raise Nonsense("a part does not begin at the cursor that was asked for")
        if part.state != "open" and (name, part.file) not in offsets:
            raise Nonsense("a file is gone or shrunk that was not asked for")
    return ApplicationNews(_process(found["process"]), files, found.flag("complete"), found.texts("trouble"))


def _file_part(value: Any) -> FilePart:
    keys = ("file", "name", "size", "from", "to", "data", "partial", "cuts", "mark", "state", "reason")
    found = _Fields(value, *keys)
    part = FilePart(
        file=found.matching("file", messages.IDENTITY),
        name=found.text("name"),
        size=found.count("size"),
        start=found.count("from"),
        end=found.count("to"),
        data=found.data("data"),
        partial=found.flag("partial"),
        cuts=tuple(_cut(item) for item in found.items("cuts")),
        mark=found.matching("mark", messages.MARK) if found["mark"] != "" else "",
        state=cast(FileState, found.one_of("state", messages.FILE_STATES)),
        reason=found.text("reason"),
    )
    _refuse_wrong_bytes(part)
    return part


def _cut(value: Any) -> Cut:
    found = _Fields(value, "offset", "length", "sha256")
    return Cut(found.count("offset"), found.count("length"), found.matching("sha256", messages.SHA256))


def _refuse_wrong_bytes(part: FilePart) -> None:
    """Every byte from start to end is there exactly once, either in the data or in a cut."""
    if part.state != "open":
        if part.data or part.cuts or part.partial or part.start != part.end:
            raise Nonsense("a file that is gone or shrunk has data")
        return
    if part.end > part.size:
        raise Nonsense("a part goes beyond its file")
    if part.end - part.start != len(part.data) + sum(cut.length for cut in part.cuts):
        raise Nonsense("a part's bytes are not as many as its offsets say")
    if part.data and part.data.endswith(b"\n") == part.partial:
        raise Nonsense("a part does not end as it says, with or without the end of a line")
    if any(not part.start <= cut.offset <= part.end - cut.length or not cut.length for cut in part.cuts):
        raise Nonsense("a cut lies outside of its part")
    if any(one.offset + one.length > other.offset for one, other in pairwise(part.cuts)):
        raise Nonsense("cuts overlap or are out of order")


def _refuse_twice(files: Sequence[str]) -> None:
    if len(set(files)) != len(files):
        raise Nonsense("a file is there twice")


def read_moment(seconds: float) -> datetime:
    """Seconds since 1970 as a time in UTC; Nonsense beyond the calendar."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise Nonsense("its time is beyond the calendar") from None
