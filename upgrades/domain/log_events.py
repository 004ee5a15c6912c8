"""Reading Genesys log files: raw bytes of whole lines in, records with their place out. Pure and resumable.

Nothing is dropped: every line gives exactly one record, and the lengths of the records add up to the bytes
that were read (`CutLine` and the second record of a `CutLine` share one place). The records depend on the
file alone, not on how polling cut it, because all that is carried from line to line is in `ParserState`.

What counts as an event: a time, a level word, and the number **in its field**: `Std 22170 text` (short
format) or `Standard host application GCTI-21-22170 text` (full format), fields separated by any run of blanks
and tabs. The level never matters, as sites may change it; digits are ASCII digits; a number elsewhere in a
line is only text. A line that looks like an event but has no number where a known format has it (`medium`,
the `short*sv` formats) is `Unrecognised`: whoever decides on a gate must not take it for the absence of an
event. A time with other text is debug output.

Times are as written, without zone. A line with a time only gets its date from the check point, header or file
name before it; see `_Clock`. The order of events is the order of their offsets; times never decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast

from upgrades.domain.frozen import positional_maker

# Event numbers below this belong to all applications: everything seen of type 00 is 04xxx or 05xxx,
# everything of a type of its own is 10xxx and up. Only the short format, which has no prefix, needs the
# distinction.
_FIRST_NUMBER_OF_A_TYPE = 10_000
COMMON_TYPE = "00"
SOLUTION_CONTROL_SERVER = "43"
LOCAL_CONTROL_AGENT = "LCA"  # no application object, so no type number either

HEAD_LINES = 60  # more lines than that without an event are no file header
_EXCERPT = 400  # characters of a line that are searched for a number, or kept of one that could not be read


class OutOfOrder(ValueError):
    """The chunk does not begin where the last one ended; the message names both offsets."""


class UnfinishedLine(ValueError):
    """The chunk ends within a line and was not said to be final: ask again when the line has its end."""


class TimeQuality(StrEnum):
    """How far the time of a record can be believed."""

    EXACT = "exact"  # date and time stand in the line
    CARRIED = "carried date"  # the line has a time only; the date comes from before
    DOUBTFUL = (
        "doubtful"  # the clock fell back, or the date was carried over a jump that has two explanations
    )
    UNREADABLE = "unreadable"  # none, an impossible one, one with a zone, or one whose date nothing tells


@dataclass(frozen=True, slots=True)
class LogPosition:
    """A place in a log: `file` is the file's identity as its reader knows it, `offset` counts bytes."""

    file: str
    offset: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A shortened line: of its `length` bytes at `offset`, line end included, only the first `kept` were sent."""

    offset: int
    kept: int
    length: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class LogEvent:
    """An event. `application_type` is the number in the GCTI prefix, None in the short format, which also has
    neither host nor application. `level` is the long word. `length` has the line end in it.
    """

    offset: int
    length: int
    number: int
    level: str
    text: str
    at: datetime | None
    at_quality: TimeQuality
    application_type: str | None = None
    host: str = ""
    application: str = ""

    def id_for(self, application_type: str) -> str:
        """The id, such as 21-22170. `application_type` is the type of the component whose file this is.

        It decides only where the line has no prefix, and there numbers below 10000 are common events
        (00-05060).
        """
        kind = self.application_type
        if kind is None:
            kind = COMMON_TYPE if self.number < _FIRST_NUMBER_OF_A_TYPE else application_type
        return f"{kind}-{self.number:05d}"


@dataclass(frozen=True, slots=True)
class ClientTotal:
    """Configuration Server's count of its clients, seen several times a second. A debug line, without number."""

    offset: int
    length: int
    total: int
    at: datetime | None
    at_quality: TimeQuality


@dataclass(frozen=True, slots=True)
class DebugText:
    """Free text after a time; in files of SCS and LCA also without one."""

    offset: int
    length: int
    text: str
    at: datetime | None
    at_quality: TimeQuality


@dataclass(frozen=True, slots=True)
class HeaderLine:
    """A line at the head of a file or segment. `key` is in lower case ("host name"), empty for a banner."""

    offset: int
    length: int
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Continuation:
    """A further line of the record at offset `of`; None for a blank line before any record."""

    offset: int
    length: int
    of: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Unrecognised:
    """A line of no known format, with its number (from 1, counted from where reading began) and why."""

    offset: int
    length: int
    text: str
    reason: str
    line_number: int


@dataclass(frozen=True, slots=True)
class CutLine:
    """The line of the next record is not whole: shortened by the sender, or (`sha256` empty) without its end yet."""

    offset: int
    length: int
    kept: int
    sha256: str = ""


_log_event, _debug_text = positional_maker(LogEvent), positional_maker(DebugText)
_continuation = positional_maker(Continuation)

Record = LogEvent | ClientTotal | DebugText | HeaderLine | Continuation | Unrecognised | CutLine


@dataclass(frozen=True, slots=True)
class ParserState:
    """All that is carried from line to line of one file. `offset` is where the next chunk must begin."""

    application_type: str
    encoding: str = "utf-8"
    offset: int = 0
    line_number: int = 0  # of the last line that was read
    latest: datetime | None = None  # the latest time seen, from which dates are carried
    doubtful: bool = False  # dates carried from it have two explanations
    head_lines: int = 0  # lines of the header so far; -1 when it is over
    head_key_seen: bool = False
    head_again: bool = False  # a further header within the file: only "key: value" lines belong to it
    head_banner: tuple[int, int, int, str] | None = (
        None  # first line before a key: offset, length, number, text
    )
    free_text: bool = False  # SCS and LCA write lines without time and number
    record_at: int | None = None  # offset of the record that a continuation would belong to
    line_open: bool = False  # the last line had no end: what follows is the rest of it
    format_known: bool = False  # until then nothing can be concluded: it may be no log, or of another format

    @classmethod
    def initial(
        cls, *, application_type: str, file_name: str, offset: int = 0, encoding: str = "utf-8"
    ) -> ParserState:
        """Before the first line. `application_type` is two digits ("21"), or "LCA".

        `file_name` gives the date until the header does (`base.20160204_215532_104.log`). With an `offset`,
        reading begins in the middle of a file, at the start of a line. Raises ValueError for an encoding in
        which line ends and digits are not the ASCII bytes.
        """
        _check_encoding(encoding)
        return cls(
            application_type=application_type,
            encoding=encoding,
            offset=offset,
            latest=_time_of_file_name(file_name),
            head_lines=0 if offset == 0 else -1,
            free_text=application_type in (SOLUTION_CONTROL_SERVER, LOCAL_CONTROL_AGENT),
        )

    @property
    def is_headless(self) -> bool:
        """Whether the file's top was read and is no head: an event, debug output or something else stands there."""
        return self.head_lines < 0 and not self.head_key_seen

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON's own types; `from_json` makes the same state of it."""
        return {
            "version": 1,
            "application_type": self.application_type,
            "encoding": self.encoding,
            "offset": self.offset,
            "line_number": self.line_number,
            "latest": self.latest.isoformat() if self.latest else None,
            "doubtful": self.doubtful,
            "head_lines": self.head_lines,
            "head_key_seen": self.head_key_seen,
            "head_again": self.head_again,
            "head_banner": list(self.head_banner) if self.head_banner else None,
            "free_text": self.free_text,
            "record_at": self.record_at,
            "line_open": self.line_open,
            "format_known": self.format_known,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> ParserState:
        """The state that `to_json` wrote. Raises ValueError when it was written by another version."""
        values = dict(stored)
        if values.pop("version", None) != 1:
            raise ValueError(
                "The stored reading state is of another version: read the log from its start again."
            )
        latest, banner = values.pop("latest"), values.pop("head_banner")
        return cls(
            latest=datetime.fromisoformat(latest) if latest else None,
            head_banner=(banner[0], banner[1], banner[2], banner[3]) if banner else None,
            **values,
        )


def read(
    state: ParserState, data: bytes, offset: int, *, cuts: Iterable[Cut] = (), final: bool = False
) -> tuple[ParserState, list[Record]]:
    """The records of a chunk of whole lines that begins at `offset` of the file, and the state after it.

    LF and CR LF end a line, no other character does. `final` allows a last line without its end (the file has
    been silent for long enough); it comes with a `CutLine` before it, and what is added to it later is a
    `Continuation`. It is `Unrecognised` unless nothing that is added could make another record of it: cut off
    before the end of its number, an event reads as debug output. Raises `OutOfOrder` for a chunk that is not the
    next one, also for a repeated one, and `UnfinishedLine`; no other content of `data` raises. A string in a
    record never holds NUL or a lone surrogate: bytes that are not of the file's encoding become U+FFFD, NUL
    becomes U+2400.
    """
    if offset != state.offset:
        raise OutOfOrder(f"This part of the log begins at byte {offset}, but byte {state.offset} is next.")
    reader = _Reader(state)
    start = 0
    for cut in sorted(cuts, key=lambda each: each.offset):
        stop = start + cut.offset - reader.offset
        fits = start <= stop <= stop + cut.kept <= len(data) and cut.kept <= cut.length
        if not fits or data[start:stop][-1:] not in (b"", b"\n") or b"\n" in data[stop : stop + cut.kept]:
            raise OutOfOrder(f"The shortened line at byte {cut.offset} does not lie in this part of the log.")
        reader.read_whole_lines(data[start:stop])
        start = stop + cut.kept
        reader.read_cut_line(data[stop:start], cut)
    if final and start and start == len(data):
        reader.leave_line_open()  # the shortened line is the last one, so it is the one without its end
    whole = data.rfind(b"\n", start) + 1 or start
    if whole < len(data) and not final:
        raise UnfinishedLine(f"The line at byte {reader.offset + whole - start} has no end yet.")
    reader.read_whole_lines(data[start:whole])
    reader.read_open_line(data[whole:])
    return reader.state(), reader.records


# --- times ---

_DATE_OF_FILE_NAME = re.compile(r"\.([0-9]{8})_([0-9]{6})_([0-9]{3})(?=\.|$)")
_ZONE = "Z|[+-][0-9]{2}:?[0-9]{2}"
_TIME = r"(?P<clock>[0-9]{2}:[0-9]{2}:[0-9]{2})(?:[.,](?P<fraction>[0-9]{1,9}))?"
_MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, start=1)}
_DAY_NAME, _MONTH_NAME = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)", f"(?P<name>{'|'.join(_MONTHS)})"
# Every shape of time seen at the head of a line. With time_format=locale the fraction stands at the very end.
_LOCALE_CLOCK = r"(?P<clock>[0-9]{2}:[0-9]{2}:[0-9]{2})"
_DAY_NUMBER = "(?P<day>[ 0-9]?[0-9])"
_AM_PM = "(?: (?P<half>[AP]M))?"
_END_FRACTION = r"(?:\.(?P<fraction>[0-9]{1,9}))?"
_STAMP_SHAPES = (
    rf"(?:(?P<year>[0-9]{{4}})[-/](?P<month>[0-9]{{2}})[-/](?P<day>[0-9]{{2}})[T ])?{_TIME}(?P<zone>{_ZONE})?",
    rf"(?P<month>[0-9]{{2}})/(?P<day>[0-9]{{2}})/(?P<year>[0-9]{{4}}|[0-9]{{2}})[T ]{_TIME}{_AM_PM}",
    rf"{_DAY_NAME} {_MONTH_NAME} {_DAY_NUMBER} {_LOCALE_CLOCK} (?P<year>[0-9]{{4}}){_END_FRACTION}",
    rf"{_DAY_NAME} {_DAY_NUMBER} {_MONTH_NAME} (?P<year>[0-9]{{4}}) {_LOCALE_CLOCK}{_AM_PM}(?: [A-Z]{{1,5}})?{_END_FRACTION}",
)
_STAMPS = [re.compile(rf"@?(?:{shape})(?=[ \t]|$)") for shape in _STAMP_SHAPES]
# Outside these years the clock was not set, and dates carried from such a time would all be wrong.
_YEARS = range(1990, 2100)
_CHECK_POINT_NUMBER = "04120"
_CHECK_POINT = re.compile(r"Check point ([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})")
_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_NEARLY_A_DAY = timedelta(hours=23)


def _time_of_file_name(file_name: str) -> datetime | None:
    found = _DATE_OF_FILE_NAME.search(file_name)
    if found is None:
        return None
    try:
        return datetime.fromisoformat(f"{found[1]}T{found[2]}.{found[3]}")
    except ValueError:
        return None


# Looking a member up in its class takes as long as reading a time; these two are asked for at every line.
_CARRIED, _DOUBTFUL = TimeQuality.CARRIED, TimeQuality.DOUBTFUL


@dataclass(slots=True)
class _Clock:
    """Carries the date through lines that have a time only.

    A time of day that falls by twelve hours or more is midnight. A fall of less than one hour is the clock
    set back (or the double hour in autumn) and stays in the day. In between both are possible: the day goes
    on, and every time is doubtful until a check point, a header or a dated line tells the date. A minute of
    disorder is normal, as threads overtake each other.
    """

    latest: datetime | None
    doubtful: bool
    _day: str = ""  # of `latest`, as 2016-02-04T; "" where it has not been written yet

    def set(self, known: datetime) -> None:
        self.latest, self.doubtful, self._day = known, False, ""

    def dated(self, at: datetime) -> TimeQuality:
        """The quality of a time that stands in the line with its date."""
        if self.latest is None or self.doubtful or at >= self.latest:
            self.latest, self.doubtful, self._day = at, False, ""
            return TimeQuality.EXACT
        fall = self.latest - at
        if fall > _DAY:  # not a double hour: the time before was wrong, or this one is; go on from here
            self.set(at)
        return TimeQuality.DOUBTFUL if fall > _MINUTE else TimeQuality.EXACT

    def undated(self, clock: str) -> tuple[datetime | None, TimeQuality]:
        """The time of a line that says only `clock`, such as 13:16:54.058."""
        if self.latest is None:
            return None, TimeQuality.UNREADABLE
        if not self._day:
            self._day = f"{self.latest:%Y-%m-%d}T"
        at = datetime.fromisoformat(self._day + clock)
        if at < self.latest or at - self.latest > _NEARLY_A_DAY:
            return self._out_of_order(at, self.latest)
        self.latest = at
        return at, _DOUBTFUL if self.doubtful else _CARRIED

    def _out_of_order(self, at: datetime, latest: datetime) -> tuple[datetime, TimeQuality]:
        if at > latest:
            at -= _DAY  # around midnight, overtaken by a line of the next day
        elif latest - at >= _HOUR:
            self.doubtful = self.doubtful or latest - at < 12 * _HOUR
            at += _DAY
            self.latest, self._day = at, ""
        late = latest - at > _MINUTE
        return at, _DOUBTFUL if late or self.doubtful else _CARRIED

    def check_point(self, known: datetime, at: datetime | None) -> datetime:
        """Goes on from the full date of a check point; returns the line's own time on the day that is
        nearest.
        """
        if at is None:
            self.set(known)
            return known
        days = [
            at.replace(year=known.year, month=known.month, day=known.day) + step * _DAY for step in (-1, 0, 1)
        ]
        nearest = min(days, key=lambda day: abs(day - known))
        self.set(nearest)
        return nearest


def _stamp_of(line: str) -> re.Match[str] | None:
    for shape in _STAMPS:
        found = shape.match(line)
        if found is not None:
            return found
    return None


def _clock_of(stamp: Mapping[str, str | None]) -> str:
    hour = (stamp["clock"] or "")[:2]
    if half := stamp.get("half"):
        if not 1 <= int(hour) <= 12:
            raise ValueError(hour)
        hour = f"{int(hour) % 12 + (12 if half == 'PM' else 0):02d}"
    fraction = ((stamp["fraction"] or "") + "000000")[:6]
    return f"{hour}{(stamp['clock'] or '')[2:]}.{fraction}"


def _date_of(stamp: Mapping[str, str | None]) -> str:
    year = stamp["year"] or ""
    month = f"{_MONTHS[stamp['name'] or '']:02d}" if "name" in stamp else stamp["month"]
    return f"{'20' + year if len(year) == 2 else year}-{month}-{int(stamp['day'] or 0):02d}"


# --- lines ---

_LEVEL_WORDS = {
    "Standard": "Standard", "Std": "Standard", "Interaction": "Interaction", "Int": "Interaction",
    "Trace": "Trace", "Trc": "Trace", "Debug": "Debug", "Dbg": "Debug", "Alarm": "Alarm", "Alr": "Alarm",
    "None": "None", "Non": "None", "Unknown": "Unknown", "Unk": "Unknown",
}  # fmt: skip
_LEVEL = "|".join(_LEVEL_WORDS)
# What follows the time: the level, and in the short format the number.
_BODY = rf"(?:(?P<level>{_LEVEL})[ \t]++(?:(?P<number>[0-9]{{5}})(?:[ \t]++|$))?)?"
# Almost every line begins like this; only the others pay for trying all shapes of time.
_ORDINARY = re.compile(
    r"(?:((?:199|20[0-9])[0-9]-[0-9]{2}-[0-9]{2})[T ])?([0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3})[ \t]++" + _BODY
)
_NUMBER_GROUP = _ORDINARY.groupindex["number"]
_AFTER_STAMP = re.compile(r"[ \t]*+" + _BODY)
_UNDATED_FULL = re.compile(rf"({_LEVEL})[ \t]++")
_PREFIX = re.compile(r"GCTI-([0-9]{2,3})-([0-9]{5})(?:[ \t]++|$)")
# An id or a number with blanks around it; after a level word, something that was meant as a number.
_ID = re.compile(r"(?:^|(?<=[ \t]))GCTI-[0-9]{2,3}-[0-9]{5}(?=[ \t]|$)")
_NUMBER = re.compile(r"(?<![^ \t])[0-9]{5}(?![^ \t])")
_LEVEL_THEN_NUMBER = re.compile(
    r"[0-9]|[^ \t]*[^\x00-\x7f]|(?:[^ \t]++[ \t]++){0,3}(?:[^ \t]*[,;|])?[0-9]{5}(?=[ \t,;|]|$)"
)
# Text that is an event of another format: delimited (nobody knows the order of fields), or with fields before the level.
_FOREIGN = re.compile(
    rf"[\"|;,]*(?:{_LEVEL})[\"|;,]|(?:[^ \t]++[ \t]++){{1,4}}?(?:{_LEVEL})[ \t]++[0-9]{{5}}(?![^ \t])"
)
_TIMELIKE = re.compile(r"[\"'\[(<@]?(?:[0-9]{2})?[0-9]{2}[:/-][0-9]{2}[:/-]")
_FIELDS_APART = re.compile(r"[ ]{2,}|\t[ \t]*")
_CLIENT_TOTAL = re.compile(r"Total number of clients: ([0-9]{1,9})[ \t]*")
_HEADER = re.compile(r"([A-Za-z][A-Za-z0-9 ()/_.#-]{0,40}):[ \t]*+(.*)")
_HEADER_KEYS = frozenset(
    {"local time", "start time (utc)", "application name", "application type", "host name", "time zone",
     "command line", "file"}
)  # fmt: skip
_LOCAL_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{3})?")
_LCA_FIRST_LINE = "Local Control Agent"
_LCA_MARKS = re.compile(r"[ \t]*+>[> \t]*+")
# The lines of a stack trace that do not begin with white space.
_STACK_TRACE = re.compile(r"Caused by: |Traceback \(|(?:[A-Za-z_$][\w$]*\.)+[\w$]*(?:Exception|Error)\b")
_UTF8_BOM = "\xef\xbb\xbf"


def _check_encoding(encoding: str) -> None:
    sample = b"\t\n0123456789:- AZaz\\u0041+AEE-"
    try:
        compatible = sample.decode(encoding) == sample.decode("ascii")
    except (LookupError, UnicodeError):
        compatible = False
    if not compatible:
        raise ValueError(
            f"Log files cannot be read as “{encoding}”. Name another encoding, such as utf-8 or cp1252."
        )


def _is_settled(record: Record) -> bool:
    """Whether the record of a line without its end stays what it is, whatever is added to the line."""
    match record:
        case LogEvent():
            return bool(record.text)  # otherwise its number may go on
        case Continuation():
            return record.text[:1] in (" ", "\t") and not record.text.isspace()
        case _:
            return isinstance(record, Unrecognised)


class _Reader:
    """Reads lines one after the other. Bytes are handled as Latin-1, one character a byte, so that offsets
    are positions; texts are decoded from that at the end (`_text`).
    """

    def __init__(self, state: ParserState) -> None:
        self._from = state
        self.offset = state.offset
        self.records: list[Record] = []
        self._line_number = state.line_number
        self._clock = _Clock(state.latest, state.doubtful)
        self._head_lines = state.head_lines
        self._head_key_seen = state.head_key_seen
        self._head_again = state.head_again
        self._head_banner = state.head_banner
        self._free_text = state.free_text
        self._record_at = state.record_at
        self._line_open = state.line_open
        self._format_known = state.format_known

    def state(self) -> ParserState:
        return replace(
            self._from,
            offset=self.offset,
            line_number=self._line_number,
            latest=self._clock.latest,
            doubtful=self._clock.doubtful,
            head_lines=self._head_lines,
            head_key_seen=self._head_key_seen,
            head_again=self._head_again,
            head_banner=self._head_banner,
            free_text=self._free_text,
            record_at=self._record_at,
            line_open=self._line_open,
            format_known=self._format_known,
        )

    def read_whole_lines(self, data: bytes) -> None:
        """Every line of `data` has its end."""
        lines = data.decode("latin-1").split("\n")
        lines.pop()
        take, match = self._take, _ORDINARY.match
        for line in lines:
            ordinary = match(line)
            # Nearly all lines of a log are events with a number and no date: they are taken without a detour.
            if (
                ordinary is None
                or ordinary.lastindex != _NUMBER_GROUP
                or not self._take_event(line, ordinary)
            ):
                take(line, len(line) + 1)

    def _take_event(self, line: str, ordinary: re.Match[str]) -> bool:
        """Take an event of the short format, just as `_take` would; False, and nothing done, where more is to be looked at."""
        date, clock, level, number = ordinary.groups()
        offset = self.offset
        if (
            date is not None
            or number == _CHECK_POINT_NUMBER
            or line[-1] == "\r"
            or self._head_lines >= 0
            or self._line_open
            or not offset
        ):
            return False
        try:
            at, quality = self._clock.undated(clock)
        except ValueError:
            at, quality = None, TimeQuality.UNREADABLE
        text = line[ordinary.end() :]
        if not text.isascii() or "\0" in text:
            text = self._text(text)
        length = len(line) + 1
        self._record_at = offset
        self._format_known = True
        self._line_number += 1
        self.offset = offset + length
        self.records.append(
            _log_event(offset, length, int(number), _LEVEL_WORDS[level], text, at, quality, None, "", "")
        )
        return True

    def read_cut_line(self, kept: bytes, cut: Cut) -> None:
        self.records.append(CutLine(cut.offset, cut.length, cut.kept, cut.sha256))
        self._take(kept.decode("latin-1"), cut.length)

    def leave_line_open(self) -> None:
        self._line_open = True

    def read_open_line(self, data: bytes) -> None:
        if not data:
            return
        line, offset, is_rest = data.decode("latin-1"), self.offset, self._line_open
        self.records.append(CutLine(offset, len(data), len(data)))
        self._take(line, len(data))
        self._line_open = True
        if not is_rest and not _is_settled(self.records[-1]):
            reason = "Its end did not come, so it may have been an event"
            self.records[-1] = self._unrecognised(line, offset, len(data), reason)

    def _take(self, line: str, length: int) -> None:
        offset = self.offset
        self.offset = offset + length
        self._line_number += 1
        if self._line_open:
            self._line_open = False
            self.records.append(
                Continuation(offset, length, self._record_at, self._text(line.removesuffix("\r")))
            )
            return
        if offset == 0:
            line = line.removeprefix(_UTF8_BOM)
        if line[-1:] == "\r":
            line = line[:-1]
        ordinary = _ORDINARY.match(line)
        if ordinary is None:
            self.records.append(self._unusual(line, offset, length))
            return
        date, clock = ordinary.group(1, 2)
        try:
            if date is None:
                at, quality = self._clock.undated(clock)
            else:
                at = datetime.fromisoformat(line[:23])
                quality = self._clock.dated(at)
        except ValueError:
            at, quality = None, TimeQuality.UNREADABLE
        self.records.append(self._after_time(line, ordinary, offset, length, at, quality))

    def _after_time(
        self,
        line: str,
        body: re.Match[str],
        offset: int,
        length: int,
        at: datetime | None,
        quality: TimeQuality,
    ) -> Record:
        """The record of a line whose time was read; `body` has matched up to the text."""
        if self._head_lines >= 0:
            self._end_header()
        self._record_at = offset
        level, number = body.group("level", "number")
        if number is not None:
            text = self._text(line[body.end() :])
            if number == _CHECK_POINT_NUMBER and quality is not TimeQuality.EXACT:
                at, quality = self._check_point(text, at, quality)
            self._format_known = True
            return _log_event(
                offset, length, int(number), _LEVEL_WORDS[level], text, at, quality, None, "", ""
            )
        if level is not None:
            full = self._full(level, line[body.end() :], offset, length, at, quality)
            if full is not None:
                return full
            if _LEVEL_THEN_NUMBER.match(line, body.end()) or _ID.search(
                line, body.end(), body.end() + _EXCERPT
            ):
                return self._unrecognised(
                    line, offset, length, "It has a level, but its number is not where it belongs"
                )
            return _debug_text(offset, length, self._text(line[body.start("level") :]), at, quality)
        return self._debug(line, body.end(), offset, length, at, quality)

    def _debug(
        self, line: str, start: int, offset: int, length: int, at: datetime | None, quality: TimeQuality
    ) -> Record:
        if _FOREIGN.match(line, start) or ("GCTI-" in line and _ID.search(line, start, start + _EXCERPT)):
            return self._unrecognised(line, offset, length, "It looks like an event, but in no known format")
        if line.startswith("Total", start) and (total := _CLIENT_TOTAL.fullmatch(line, start)):
            self._format_known = True
            return ClientTotal(offset, length, int(total[1]), at, quality)
        return _debug_text(offset, length, self._text(line[start:]), at, quality)

    def _full(
        self, level: str, rest: str, offset: int, length: int, at: datetime | None, quality: TimeQuality
    ) -> LogEvent | None:
        """The event in the full format whose level was read and has `rest` after it, if it is one."""
        prefix = _PREFIX.search(rest[:_EXCERPT])
        if prefix is None:
            return None
        fields = rest[: prefix.start()].rstrip(" \t")
        apart = _FIELDS_APART.split(fields)
        if len(apart) == 1:  # single blanks: a host has none in it, so the rest is the application
            apart = fields.split(" ", 1)
        if len(apart) != 2 or " " in apart[0] or _NUMBER.search(fields):
            return None
        self._format_known = True
        text_at = len(prefix[0]) + prefix.start()
        while rest[text_at : text_at + 1] in (" ", "\t"):
            text_at += 1
        return _log_event(
            offset,
            length,
            int(prefix[2]),
            _LEVEL_WORDS[level],
            self._text(rest[text_at:]),
            at,
            quality,
            prefix[1],
            self._text(apart[0]),
            self._text(apart[1]),
        )

    def _check_point(
        self, text: str, at: datetime | None, quality: TimeQuality
    ) -> tuple[datetime | None, TimeQuality]:
        found = _CHECK_POINT.match(text)
        try:
            known = datetime.fromisoformat(found[1]) if found else None
        except ValueError:
            known = None
        if known is None or known.year not in _YEARS:
            return at, quality
        return self._clock.check_point(known, at), TimeQuality.CARRIED

    def _unusual(self, line: str, offset: int, length: int) -> Record:
        """The record of a line that does not begin with one of the two common shapes of time."""
        if not line.strip(" \t") or line[0] in " \t":
            return self._indented(line, offset, length)
        stamp = _stamp_of(line)
        if stamp is not None:
            at, quality = self._time_of(stamp)
            body = cast(re.Match[str], _AFTER_STAMP.match(line, stamp.end()))  # it matches anything
            return self._after_time(line, body, offset, length, at, quality)
        undated = _UNDATED_FULL.match(line)
        if undated is not None:
            full = self._full(undated[1], line[undated.end() :], offset, length, None, TimeQuality.UNREADABLE)
            if full is not None:
                if self._head_lines >= 0:
                    self._end_header()
                self._record_at = offset
                return full
        header = self._header(line, offset, length)
        if header is not None:
            return header
        if self._free_text and not _TIMELIKE.match(line):
            return self._free(line, 0, offset, length)
        if self._record_at is not None and _STACK_TRACE.match(line):
            return _continuation(offset, length, self._record_at, self._text(line))
        return self._unrecognised(line, offset, length, "It begins neither with a time nor with white space")

    def _indented(self, line: str, offset: int, length: int) -> Record:
        """A further line of the record before; in an LCA file, marks before a line of its own."""
        marks = _LCA_MARKS.match(line) if self._free_text else None
        if marks is not None:
            return self._free(line, marks.end(), offset, length)
        if self._head_lines >= 0 and not self._free_text and line.strip(" \t"):
            header = self._header(line, offset, length)
            if header is not None:
                return header
        return _continuation(offset, length, self._record_at, self._text(line))

    def _free(self, line: str, start: int, offset: int, length: int) -> Record:
        self._record_at = offset
        return self._debug(line, start, offset, length, None, TimeQuality.UNREADABLE)

    def _header(self, line: str, offset: int, length: int) -> HeaderLine | None:
        """The header line that this is. A known key begins a header again: a file may hold several segments."""
        found = _HEADER.fullmatch(line)
        key = " ".join(found[1].lower().split()) if found else ""
        known = key in _HEADER_KEYS
        of_lca = self._head_lines == 0 and line.startswith(_LCA_FIRST_LINE)
        if self._free_text and not known and not of_lca:
            return None  # what SCS and LCA write without a time cannot be told from a line of their header
        if known:
            if self._head_lines < 0:
                self._head_lines, self._head_again, self._record_at = 0, True, None
        elif self._head_lines >= 0 and (self._head_lines >= HEAD_LINES or not self._may_be_header(line, key)):
            self._end_header()
        if self._head_lines < 0:
            return None
        self._head_lines += 1
        value = self._text(found[2].strip(" \t") if found else line)
        if known:
            self._head_key_seen, self._head_banner, self._format_known = True, None, True
            self._take_header(key, value)
        elif of_lca:
            self._head_key_seen, self._head_banner, self._format_known = True, None, True
            self._free_text = True
        elif not self._head_key_seen and self._head_banner is None:
            self._head_banner = (offset, length, self._line_number, self._text(line[:_EXCERPT]))
        return HeaderLine(offset, length, key, value)

    def _may_be_header(self, line: str, key: str) -> bool:
        return bool(key) or not (self._head_again or _TIMELIKE.match(line))

    def _take_header(self, key: str, value: str) -> None:
        if key == "local time" and (found := _LOCAL_TIME.match(value)):
            try:
                known = datetime.fromisoformat(found[0])
            except ValueError:
                return
            if known.year in _YEARS:
                self._clock.set(known)
        elif key == "file":
            self._head_lines = -1

    def _end_header(self) -> None:
        """A header without a known key was none: its first line is reported, as nothing follows from it."""
        self._head_lines = -1
        if self._head_banner is not None:
            offset, length, number, text = self._head_banner
            self._head_banner = None
            reason = "The file begins with lines that are no header, no event and no debug output"
            self.records.append(Unrecognised(offset, length, text, reason, number))

    def _time_of(self, stamp: re.Match[str]) -> tuple[datetime | None, TimeQuality]:
        parts = stamp.groupdict()
        try:
            clock = _clock_of(parts)
            if parts.get("zone"):
                raise ValueError(parts["zone"])
            if not parts.get("year"):
                return self._clock.undated(clock)
            at = datetime.fromisoformat(f"{_date_of(parts)}T{clock}")
            if at.year not in _YEARS:
                raise ValueError(at)
        except ValueError:
            return None, TimeQuality.UNREADABLE
        return at, self._clock.dated(at)

    def _unrecognised(self, line: str, offset: int, length: int, reason: str) -> Unrecognised:
        self._record_at = offset
        return Unrecognised(offset, length, self._text(line), reason, self._line_number)

    def _text(self, raw: str) -> str:
        if not raw.isascii():
            raw = raw.encode("latin-1").decode(self._from.encoding, "replace")
        return raw.replace("\0", "\u2400") if "\0" in raw else raw


# --- texts for pages ---

_MARKED = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb"
    "\ufffe\uffff\ud800-\udfff\ufdd0-\ufdef\U000e0000-\U000e007f"
    + "".join(f"{chr(plane * 0x10000 + 0xFFFE)}{chr(plane * 0x10000 + 0xFFFF)}" for plane in range(1, 17))
    + "]"
)


def visible(text: str) -> str:
    """`text` with every character that shows nothing, or changes how others show, as a mark: ␛, ␀, ⟦U+202E⟧.

    Those are the C0 and C1 controls but the tab, marks of direction, characters of no width, line separators,
    lone surrogates and noncharacters. The result can be stored, mailed and put (escaped) on a page.
    """
    if text.isascii() and text.isprintable():  # almost every text; looking for marks takes ten times as long
        return text
    return _MARKED.sub(_mark, text)


def _mark(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟦U+{code:04X}⟧"


HIDDEN = "••••••"
_NAME = (  # of something secret, as a part of a longer name too
    r"(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|api[ _-]?key|private[ _-]?key"
    r"|licen[cs]e[ _-]?(?:key|code|number)|credentials?)"
)
_QUOTED = r"""\"[^\"]*\"?|'[^']*'?|\[[^\]]*\]?"""
_IS = r"(?:[:=]|[ \t]is[ \t](?=[^ \t]{0,80}[0-9]))"  # “is” before a word without digits is a sentence
# Each pattern has in its first group what stays in front, and hides the rest.
_SECRETS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(key[ \t]*:[ \t]*\w{{0,40}}{_NAME}\w{{0,20}}[ \t].{{0,80}}?value[ \t]*:[ \t]*)\S.*",  # logged requests
        rf"({_NAME}\w{{0,20}}[ \t]+value[ \t]*:[ \t]*)\S.*",
        rf"""({_NAME}\w{{0,20}}["']?[ \t]{{0,20}}{_IS}[ \t]{{0,20}})(?:{_QUOTED}|[^\s,;&"')\]>]+)""",
        rf"({_NAME}[ \t]{{0,20}})\[[^\]]*\]?",
        r"((?:proxy-)?authorization[ \t]{0,20}:[ \t]{0,20}).+",  # SIP and HTTP
        rf"(\b(?:response|nonce|cnonce)=)(?:{_QUOTED}|[0-9a-f]{{16,}})",
        r"(\b[a-z][a-z0-9+.-]{0,20}:(?://)?[^\s:@/\"'<>]{1,80}:)[^\s@/\"'<>]{1,80}(?=@)",  # sip:user:secret@host
        rf"(\b(?:SIGN2?|KEY)=)(?:{_QUOTED}|[0-9a-f][0-9a-f ]{{7,}})",  # licence files
    )
]
_LICENCE_KEY = re.compile(r"(?<![\w-])(?=[0-9-]{0,40}[A-Z])[0-9A-Z]{4,6}(?:-[0-9A-Z]{4,6}){3,9}(?![\w-])")
_CARD = re.compile(r"(?<![\w.+-])[3-6][0-9]{3}(?:[ -]?[0-9]){9,15}(?![\w-])", re.ASCII)


def mask_secrets(text: str) -> str:
    """`text` with what looks like a password, a credential, a licence key or a card number replaced by dots.

    It goes by a list of patterns: it can miss a secret and hide what is none, so the raw line keeps its own
    right.
    """
    for pattern in _SECRETS:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    text = _LICENCE_KEY.sub(HIDDEN, text)
    return _CARD.sub(_hide_card, text)


def _hide_card(found: re.Match[str]) -> str:
    digits = [int(digit) for digit in found[0] if digit.isdigit()]
    doubled = [
        digit if place % 2 == 0 else sum(divmod(2 * digit, 10))
        for place, digit in enumerate(reversed(digits))
    ]
    if not 13 <= len(digits) <= 19 or sum(doubled) % 10:
        return found[0]
    return HIDDEN + found[0][-4:]
