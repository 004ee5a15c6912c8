"""Writes log lines and log files in the formats that Genesys servers use (short and full, `time` and
`iso8601`).

The shapes follow public samples: a header at the head of every file and segment,
`<base>.<yyyymmdd>_<hhmmss>_<mmm>.log` as the file's name, records of several lines whose continuation lines
begin with a blank, lines without level and number. Nobody knows the texts of the nine upgrade events: what
stands here for them is marked as simulated.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

LEVELS = {"Std": "Standard", "Int": "Interaction", "Trc": "Trace", "Dbg": "Debug", "Alr": "Alarm"}
MESSAGE_FORMATS = ("short", "full")
TIME_FORMATS = ("time", "iso8601")

# Events common to all applications carry type 00, all others the number of the application's type.
COMMON = frozenset({4120, 4502, 4503, 4504, 4520, 4522, 4541, 4542, 5060})
TYPE_NUMBERS = {"ConfigurationServer": 21, "ConfigurationServerProxy": 21, "MessageServer": 42, "SCS": 43}

TEXTS = {
    5060: "Application started",
    22170: "(simulated text) initialized in upgrade mode, same database",
    22171: "(simulated text) initialized in upgrade mode, upgraded database",
    22172: "(simulated text) initialized as backup",
    22902: "(simulated text) comparison with the peer finished",
    22911: "(simulated text) peer reached",
    25300: "(simulated text) upgrade mode forced",
    25301: "(simulated text) upgrade mode entered",
    25302: "(simulated text) order to become backup refused",
    25303: "(simulated text) running as backup to an older primary",
    10329: "(simulated text) this Solution Control Server may be in split brain",
    10330: "(simulated text) split brain is over",
    10612: "(simulated text) alarm created",
    20621: "(simulated text) a pair has no primary",
    20622: "(simulated text) a pair has two primaries",
    20623: "(simulated text) a pair is normal again",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """How one server writes: its names, formats and time zone. `utc_offset` is in seconds, east is
    positive."""

    application: str
    application_type: str
    host: str
    message: str = "short"
    time: str = "time"
    gap: str = " "
    utc_offset: int = 0


def local(at: float, utc_offset: int) -> datetime:
    """The wall clock of a host with that offset at `at` (seconds since 1970)."""
    return datetime.fromtimestamp(round(at, 3), UTC).astimezone(timezone(timedelta(seconds=utc_offset)))


def iso(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}"


def stamp(layout: Layout, at: float) -> str:
    """The time at the head of a line, as `time_format` of the server wants it."""
    text = iso(local(at, layout.utc_offset))
    return text if layout.time == "iso8601" else text.partition("T")[2]


def event_line(layout: Layout, at: float, level: str, number: int, text: str) -> str:
    """One event. The full format has host, application and the id with its prefix; the short one has the bare
    number."""
    if layout.message == "short":
        return f"{stamp(layout, at)} {level} {number:05d} {text}"
    prefix = 0 if number in COMMON else TYPE_NUMBERS.get(layout.application_type, 0)
    fields = (LEVELS[level], layout.host, layout.application, f"GCTI-{prefix:02d}-{number:05d}", text)
    return f"{stamp(layout, at)} {layout.gap.join(fields)}"


def free_line(layout: Layout, at: float, text: str) -> str:
    """Debug output: a time and free text, neither level nor number."""
    return f"{stamp(layout, at)} {text}"


def header(
    layout: Layout, at: float, *, version: str, segment: int, path: str, command_line: str
) -> list[str]:
    """The lines at the head of a file or segment; `File:` is the last."""
    moment = local(at, layout.utc_offset)
    lines = [
        f"Local time:       {iso(moment)}",
        f"Start time (UTC): {moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}",
        f"Application name: {layout.application}",
        f"Application type: {layout.application_type} ({TYPE_NUMBERS.get(layout.application_type, 0)})",
        f"Host name:        {layout.host}",
        f"Time zone:        {-layout.utc_offset}, simulated",  # seconds, west is positive
        f"Command line:     {command_line}",
        f"File:             ({segment}) {path}",
    ]
    if layout.application_type == "ConfigurationServer" and not version.startswith("8.1"):
        del lines[3]  # newer Configuration Servers do not write their type
    if layout.application_type == "LCA":
        lines.insert(0, f"Local Control Agent {version} (simulated), {iso(moment)}")
    return lines


def file_name(base: str, at: float, utc_offset: int) -> str:
    moment = local(at, utc_offset)
    return f"{base}.{moment:%Y%m%d_%H%M%S}_{moment.microsecond // 1000:03d}.log"


class LogFile:
    """The current log file of one server, in one folder. Holds no open handle: an idle world costs
    nothing."""

    def __init__(self, folder: Path, base: str, *, name: str = "", segment: int = 0) -> None:
        self.folder = folder
        self.base = base
        self.name = name
        self.segment = segment

    @property
    def path(self) -> Path:
        return self.folder / self.name

    def open_file(
        self, layout: Layout, at: float, *, version: str, command_line: str, segment: int = 1
    ) -> None:
        """Begin a new file (a new segment when `segment` is above 1) with its header."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # Two segments of one millisecond would share a name: the later one moves on.
        moment = at
        while (self.folder / file_name(self.base, moment, layout.utc_offset)).exists():
            moment += 0.001
        self.name = file_name(self.base, moment, layout.utc_offset)
        self.segment = segment
        self.append(
            header(
                layout,
                moment,
                version=version,
                segment=segment,
                path=str(self.path),
                command_line=command_line,
            )
        )

    def append(self, lines: list[str]) -> None:
        with self.path.open("ab") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())

    def tail(self, count: int) -> list[str]:
        """The last lines of the file, at most `count`, read from its last 64 KiB."""
        if not self.name or not self.path.exists() or count <= 0:
            return []
        with self.path.open("rb") as file:
            file.seek(max(0, self.path.stat().st_size - 65536))
            return file.read().decode(errors="replace").splitlines()[-count:]

    def truncate(self) -> None:
        """Empty the file as a copy-and-truncate tool does: the content goes to a file beside it, the process
        writes on."""
        (self.folder / f"{self.name}.1").write_bytes(self.path.read_bytes())
        self.path.write_bytes(b"")

    def shrink(self) -> None:
        """Cut the file to half of its lines (the first line stays)."""
        lines = self.path.read_bytes().splitlines(keepends=True)
        self.path.write_bytes(b"".join(lines[: max(1, len(lines) // 2)]))
