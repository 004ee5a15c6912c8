"""Environments as files: CSV for spreadsheets, YAML for version control; both say the same and lose nothing.

Reading is forgiving about nothing that could change a meaning: every mistake is told with its line and column, all of
them at once, and a file with one mistake is used for nothing. `docs/environments.md` describes the format.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from upgrades.domain.environment_records import (
    FIELDS,
    KEYS,
    Content,
    Ident,
    Kind,
    NotUsable,
    Problem,
    Record,
    blank,
    field_of,
    folded,
    ident,
    is_allowed,
    problems,
)

FORMAT = "1"
MAX_BYTES = 1024 * 1024
MAX_ROWS = 10_000
MAX_COLUMNS = 200
MAX_CELL = 1000
MAX_TOLD = 500  # mistakes beyond this many are counted, not told

COLUMNS = (
    "kind",
    "name",
    "type",
    "version",
    "role",
    "peer",
    "port",
    "folder",
    "database",
    "dormant",
    "host",
    "host_type",
    "site",
    "os_name",
    "os_version",
    "lca_version",
    "disaster_recovery",
    "single_language",
    "schema_version",
    "log_schema_version",
    "uses_lrm",
)
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_HOST_FIELDS = tuple(one.name for one in FIELDS[Kind.HOST])
_USED = {
    kind: frozenset(one.name for one in fields)
    | (frozenset(_HOST_FIELDS) if kind is Kind.APPLICATION else frozenset())
    for kind, fields in FIELDS.items()
}


@dataclass(frozen=True, slots=True, order=True)
class Spot:
    """A place in a file; line and column count from 1. `cell` is its name in a spreadsheet, such as F12."""

    line: int
    column: int
    cell: str = ""


@dataclass(frozen=True, slots=True)
class FileMistake:
    """Why a file is not used, or (a remark) what its author may want to know. No spot: it is about what is there already."""

    spot: Spot | None
    about: str
    message: str

    def __str__(self) -> str:
        where = f"line {self.spot.line}, column {self.spot.column}" if self.spot else "already there"
        cell = f" (cell {self.spot.cell})" if self.spot and self.spot.cell else ""
        return f"{where}{cell}{': ' + self.about if self.about else ''}: {self.message}"


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    spot: Spot


@dataclass(frozen=True, slots=True)
class Row:
    """What a file says of one record, before anybody has judged it."""

    kind: Kind
    spot: Spot
    cells: Mapping[str, Cell]


@dataclass(slots=True)
class Reading:
    """What was read of a file. `rows` are whole when there are no mistakes; `how` tells how it was understood."""

    how: str = ""
    rows: list[Row] = field(default_factory=list)
    mistakes: list[FileMistake] = field(default_factory=list)

    def wrong(self, spot: Spot, message: str, about: str = "") -> None:
        self.mistakes.append(FileMistake(spot, about, message))


# From bytes to text.

_OTHER_KINDS = (
    (b"\x89PNG", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive, as Excel workbooks are. Save the sheet as “CSV UTF-8”"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook. Save the sheet as “CSV UTF-8”"),
    (b"\x1f\x8b", "a packed file"),
    (b"\x7fELF", "a program"),
)


def decoded(data: bytes, reading: Reading) -> str | None:
    """The text of an uploaded file; None (and the mistake) when it is none that can be used."""
    start = Spot(1, 1)
    if len(data) > MAX_BYTES:
        reading.wrong(
            start,
            f"The file has {len(data)} bytes; at most {MAX_BYTES} are read. Split it, or leave out what has not changed.",
        )
        return None
    for begin, what in _OTHER_KINDS:
        if data.startswith(begin):
            reading.wrong(start, f"Whatever its name says, this is {what}.")
            return None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in data[:8]:
        reading.wrong(start, "The file is UTF-16 or UTF-32. Save it as UTF-8 (Excel: “CSV UTF-8”).")
        return None
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = len(before[before.rfind(b"\n") + 1 :].decode(errors="replace")) + 1
        reading.wrong(
            Spot(before.count(b"\n") + 1, column),
            "These bytes are not UTF-8. Save the file as UTF-8 (Excel: “CSV UTF-8”).",
        )
        return None
    if re.match(r"\s*<(?:[!?a-zA-Z])", text):
        reading.wrong(
            start,
            "Whatever its name says, this is HTML or XML. Only the CSV and YAML described here are read.",
        )
        return None
    if not text.strip():
        reading.wrong(start, "The file is empty.")
        return None
    return text


def is_csv(text: str) -> bool:
    """Whether the first line has column names of ours: the content decides, not the name of the file."""
    return _separator(text) is not None


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0].rstrip("\r")


def _separator(text: str) -> str | None:
    """The separator by which the first line falls into the most known columns; at least two must be there."""

    def known(separator: str) -> int:
        names = (_column_name(name) for name in _first_line(text)[:20_000].replace('"', "").split(separator))
        return len({name for name in names if name in COLUMNS})

    best = max(SEPARATORS, key=known)
    return best if known(best) >= 2 else None


def _column_name(text: str) -> str:
    return re.sub(r"[\s-]+", "_", folded(text.strip()))


def cell_name(column: int, row: int) -> str:
    """The name of a cell in a spreadsheet; both counted from 1."""
    letters = ""
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return f"{letters}{row}"


# CSV in.


def read_csv(text: str, reading: Reading) -> None:
    """The rows of a CSV text: UTF-8, one of three separators, quotes doubled inside quotes, first row column names."""
    separator = _separator(text)
    assert separator is not None
    reading.how = f"CSV, separated by {SEPARATORS[separator]}"
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] = []
    end = 0
    try:
        for number, cells in enumerate(lines, start=1):
            line, end = end + 1, lines.line_num
            if number == 1:
                header = _header(cells, reading)
                if not header:
                    return
            elif number > MAX_ROWS + 1:
                reading.wrong(Spot(line, 1), f"The file has more than {MAX_ROWS} rows. Split it.")
                return
            elif any(cell.strip() for cell in cells):
                _csv_row(
                    _cells(header, cells, Spot(line, 1, cell_name(1, number)), number, reading),
                    line,
                    number,
                    reading,
                )
    except csv.Error as error:
        reading.wrong(
            Spot(max(lines.line_num, 1), 1),
            f"The quotes do not pair up here, or the cell is too long ({error}). Nothing after it could be read.",
        )


def _header(cells: Sequence[str], reading: Reading) -> list[str]:
    if len(cells) > MAX_COLUMNS:
        reading.wrong(Spot(1, 1), f"The file has {len(cells)} columns; at most {MAX_COLUMNS} are read.")
        return []
    header: list[str] = []
    for column, cell in enumerate(cells, start=1):
        name, spot = _column_name(cell), Spot(1, column, cell_name(column, 1))
        if name and name not in COLUMNS:
            reading.wrong(
                spot, f"There is no column “{visible(cell.strip())[:40]}”.{_did_you_mean(name, COLUMNS)}"
            )
        elif name and name in header:
            reading.wrong(spot, f"The column {name} is there twice. Keep one.")
        header.append(name)
    return header


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name[:60], list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]}?" if close else f" Known are: {', '.join(known)}."


def _cells(
    header: Sequence[str], cells: Sequence[str], first: Spot, number: int, reading: Reading
) -> dict[str, Cell]:
    """The cells of a row by column; nothing of a row that has another number of cells than the first one."""
    if len(cells) < len(header) or any(cell.strip() for cell in cells[len(header) :]):
        reading.wrong(
            first,
            f"This row has {len(cells)} cells and the first row {len(header)}. Check separators and quotes.",
        )
        return {}
    found: dict[str, Cell] = {}
    for column, (name, cell) in enumerate(zip(header, cells, strict=False), start=1):
        spot = Spot(first.line, column, cell_name(column, number))
        if name in COLUMNS:
            found.setdefault(name, Cell(unescaped(cell.strip()), spot))
        elif not name and cell.strip():
            reading.wrong(spot, "This column has no name in the first row. Name it, or empty it.")
    return found


def _csv_row(cells: dict[str, Cell], line: int, number: int, reading: Reading) -> None:
    if not cells:
        return
    stated = cells.pop("kind", None)
    spot = Spot(line, 1, cell_name(1, number))
    kind = _kind(stated, cells)
    if kind is None:
        spot = stated.spot if stated else spot
        reading.wrong(
            spot,
            "Nobody can tell what this row is. Write application, host, target or environment as its kind.",
        )
        return
    for name, cell in cells.items():
        if cell.text and name not in _USED[kind]:
            reading.wrong(cell.spot, f"A row of the kind {kind} has no {name}. Empty this cell.")
    used = {name: cell for name, cell in cells.items() if name in _USED[kind]}
    reading.rows.append(Row(kind, spot, used))


def _kind(stated: Cell | None, cells: Mapping[str, Cell]) -> Kind | None:
    """As stated; where nothing is, a row with a name is an application and one with a host only is a host."""
    word = folded(stated.text) if stated else ""
    if word:
        return Kind(word) if word in list(Kind) else None
    if "name" in cells and cells["name"].text:
        return Kind.APPLICATION
    return Kind.HOST if "host" in cells and cells["host"].text else None


# Spreadsheets run what begins with one of these; an apostrophe before it makes it a text.
_RISKY = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "'", "\t", "\r")


def escaped(text: str) -> str:
    return f"'{text}" if text.startswith(_RISKY) else text


def unescaped(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith(_RISKY) else text


# From rows to what they state.


@dataclass(frozen=True, slots=True)
class Stated:
    """What a file states of one record; a field that it does not mention stays as it is."""

    kind: Kind
    spot: Spot
    values: Mapping[str, str]
    spots: Mapping[str, Spot]
    damaged: frozenset[str]
    declared: bool  # by a row of its own, not only as the host of an application


@dataclass(slots=True)
class Statements:
    """Everything that a file states, by record; `damaged` are the names of records whose own name cannot be used."""

    found: dict[Ident, Stated] = field(default_factory=dict)
    damaged: set[Ident] = field(default_factory=set)


def read_statements(reading: Reading) -> Statements:
    """Each cell judged by its field, each record told once; mistakes are added to `reading`."""
    statements = Statements()
    for row in reading.rows:
        if row.kind is Kind.APPLICATION:
            own = {
                name: cell for name, cell in row.cells.items() if name == "host" or name not in _HOST_FIELDS
            }
            _take(Kind.APPLICATION, row, own, statements, reading, declared=True)
            beside = {name: cell for name, cell in row.cells.items() if name in _HOST_FIELDS}
            if len(beside) > 1 and beside.get("host") and beside["host"].text:
                _take(Kind.HOST, row, beside, statements, reading, declared=False)
        else:
            _take(row.kind, row, row.cells, statements, reading, declared=True)
    return statements


def _take(
    kind: Kind,
    row: Row,
    cells: Mapping[str, Cell],
    statements: Statements,
    reading: Reading,
    *,
    declared: bool,
) -> None:
    about = _about(kind, cells)
    values: dict[str, str] = {}
    damaged: set[str] = set()
    for name, cell in cells.items():
        if kind is Kind.ENVIRONMENT and name == "name" and not cell.text:
            continue  # a file need not name the environment it is for
        try:
            values[name] = _value(kind, name, cell)
        except NotUsable as mistake:
            damaged.add(name)
            if declared or name != "host":  # the host of an application is told of with the application
                reading.wrong(cell.spot, str(mistake), about)
    missing = KEYS[kind] not in cells and kind is not Kind.ENVIRONMENT
    if missing:
        reading.wrong(row.spot, f"The {KEYS[kind]} is missing.", about)
    if missing or KEYS[kind] in damaged:
        if not missing:
            statements.damaged.add(ident(kind, cells[KEYS[kind]].text))
        return
    spots = {name: cell.spot for name, cell in cells.items()}
    _join(Stated(kind, row.spot, values, spots, frozenset(damaged), declared), about, statements, reading)


def _about(kind: Kind, cells: Mapping[str, Cell]) -> str:
    name = cells.get(KEYS[kind])
    return f"{kind} {visible(name.text)[:60]}" if name and name.text else str(kind)


def visible(text: str) -> str:
    """The text with a sign in the place of each character that people would not see."""
    return "".join(char if is_allowed(char) else "\ufffd" for char in text)


def _value(kind: Kind, name: str, cell: Cell) -> str:
    if len(cell.text) > MAX_CELL:
        raise NotUsable(f"This has {len(cell.text)} characters; at most {MAX_CELL} are read.")
    bad = next((char for char in cell.text if not is_allowed(char)), None)
    if bad is not None:
        raise NotUsable(f"The character U+{ord(bad):04X} must not stand in a value. Remove it.")
    return field_of(kind, name).read(cell.text)


def _join(stated: Stated, about: str, statements: Statements, reading: Reading) -> None:
    key = ident(stated.kind, stated.values.get(KEYS[stated.kind], ""))
    before = statements.found.get(key)
    if before is None:
        statements.found[key] = stated
        return
    if stated.declared and before.declared:
        reading.wrong(
            stated.spot,
            f"It is here a second time; the first is in line {before.spot.line}. Keep one.",
            about,
        )
        return
    values, spots = dict(before.values), dict(before.spots)
    for name, text in stated.values.items():
        if text and values.get(name) and values[name] != text:
            reading.wrong(
                stated.spots[name],
                f"Line {before.spots[name].line} says “{values[name]}” of the same host. Make them agree.",
                f"host {key[1]}",
            )
        elif text or name not in values:
            values[name], spots[name] = text, stated.spots[name]
    statements.found[key] = Stated(
        stated.kind,
        before.spot,
        values,
        spots,
        before.damaged | stated.damaged,
        before.declared or stated.declared,
    )


# From what is stated to what will be.


def merged(content: Content, statements: Statements, *, remove_unlisted: bool) -> Content:
    """`content` as the file wants it. What the file does not list stays, unless it is to be removed."""
    records = dict(content.records)
    if remove_unlisted:
        records = {
            key: one for key, one in records.items() if key[0] is Kind.ENVIRONMENT or key in statements.found
        }
    for key, stated in statements.found.items():
        base = records.get(key) or blank(stated.kind)
        records[key] = Record(stated.kind, {**base.values, **stated.values})
    for stated in statements.found.values():
        if stated.kind is Kind.APPLICATION:
            records.update(_implied_host(records, stated))
    return Content({key: _settled(one, records) for key, one in records.items()})


def _implied_host(records: Mapping[Ident, Record], stated: Stated) -> dict[Ident, Record]:
    """In a CSV file an application's row brings its host along; a YAML file lists hosts on their own."""
    host = stated.values.get("host", "")
    key = ident(Kind.HOST, host)
    return {key: blank(Kind.HOST, host)} if host and stated.spots["host"].cell and key not in records else {}


def _settled(record: Record, records: Mapping[Ident, Record]) -> Record:
    """Names of others in the spelling of those others."""
    if record.kind is not Kind.APPLICATION:
        return record
    values = dict(record.values)
    for name, kind in (("peer", Kind.APPLICATION), ("host", Kind.HOST)):
        other = records.get(ident(kind, values[name]))
        if values[name] and other is not None:
            values[name] = other.name
    return Record(record.kind, values)


def misfits(
    before: Content, after: Content, statements: Statements
) -> tuple[list[FileMistake], list[FileMistake]]:
    """What of the new content does not fit together: (mistakes, remarks), each at the cell that says so.

    What did not fit before and is not in the file is no mistake of the file.
    """
    old = set(problems(before))
    mistakes: list[FileMistake] = []
    remarks: list[FileMistake] = []
    for problem in problems(after):
        stated = statements.found.get(problem.ident)
        if (stated is None and problem in old) or _is_echo(problem, after, statements):
            continue
        spot = None if stated is None else stated.spots.get(problem.field, stated.spot)
        about = f"{problem.ident[0]} {after.records[problem.ident].name}"
        (remarks if problem.is_remark else mistakes).append(FileMistake(spot, about, problem.message))
    return mistakes, remarks


_OF_PAIRS = frozenset({"peer", "role", "host", "type", "dormant"})


def _is_echo(problem: Problem, after: Content, statements: Statements) -> bool:
    """Whether it only repeats, for another cell, what is wrong with one that was told of already."""

    def is_damaged(key: Ident, names: frozenset[str]) -> bool:
        stated = statements.found.get(key)
        return key in statements.damaged or (stated is not None and bool(stated.damaged & names))

    if is_damaged(problem.ident, frozenset({problem.field})):
        return True
    if problem.ident[0] is not Kind.APPLICATION or problem.field not in _OF_PAIRS:
        return False
    one = after.records[problem.ident]
    involved = (problem.ident, ident(Kind.APPLICATION, one["peer"]), ident(Kind.HOST, one["host"]))
    return any(is_damaged(key, _OF_PAIRS) for key in involved)


def in_order(mistakes: Iterable[FileMistake]) -> tuple[FileMistake, ...]:
    """In the order of the file, each once; those that are about no place of it come last."""

    def place(one: FileMistake) -> tuple[bool, int, int]:
        return (True, 0, 0) if one.spot is None else (False, one.spot.line, one.spot.column)

    return tuple(sorted(dict.fromkeys(mistakes), key=place))


# Files out.


def to_csv(content: Content, separator: str = ",") -> str:
    """The content as CSV: byte order mark (Excel asks for it), CR LF, the columns of `COLUMNS`, no values that run."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in _csv_rows(content):
        writer.writerow([escaped(row.get(column, "")) for column in COLUMNS])
    return "\ufeff" + out.getvalue()


def _csv_rows(content: Content) -> Iterator[dict[str, str]]:
    applications = content.all(Kind.APPLICATION)
    used = {folded(one["host"]) for one in applications}
    for kind in (Kind.ENVIRONMENT, Kind.TARGET, Kind.HOST):
        for record in content.all(kind):
            if kind is not Kind.HOST or folded(record.name) not in used:
                yield {"kind": kind.value, **record.values}
    for one in applications:
        host = content.get(Kind.HOST, one["host"])
        yield {"kind": one.kind.value, **(host.values if host else {}), **one.values}


_HEAD = """\
# An environment of Runbook. Every value is a text in quotes; "" means: not known.
# What this file does not mention stays as it is, unless you ask at the import to remove what is not in the file.
# People, policies, agents and their keys are not part of it.
format: "1"
"""
_SECTIONS = {
    Kind.TARGET: ("targets", "The version that each component is to reach."),
    Kind.HOST: ("hosts", "The machines. lca-version is the Local Control Agent on it."),
    Kind.APPLICATION: (
        "applications",
        "The servers. A pair names each other as peer: one primary and one backup, on two hosts, of one type.",
    ),
}


def to_yaml(content: Content) -> str:
    """The content as YAML with a comment for each section."""
    lines = [_HEAD, "environment:"]
    lines += [f"  {pair}" for pair in _yaml_pairs(content.environment)]
    for kind, (section, comment) in _SECTIONS.items():
        records = content.all(kind)
        lines += ["", f"# {comment}", f"{section}:" if records else f"{section}: []"]
        for record in records:
            first, *others = _yaml_pairs(record)
            lines += [f"  - {first}", *(f"    {pair}" for pair in others)]
    return "\n".join(lines) + "\n"


def _yaml_pairs(record: Record) -> list[str]:
    return [f"{_yaml_key(one.name)}: {_quoted(record[one.name])}" for one in FIELDS[record.kind]]


def _yaml_key(name: str) -> str:
    return name.replace("_", "-")


def _quoted(text: str) -> str:
    # A JSON text is a double-quoted scalar of YAML.
    return json.dumps(text, ensure_ascii=False)


YAML_SECTIONS = {"environment": Kind.ENVIRONMENT} | {name: kind for kind, (name, _) in _SECTIONS.items()}
YAML_KEYS = {kind: {_yaml_key(one.name): one.name for one in fields} for kind, fields in FIELDS.items()}
