"""A report as plain data: facts and tables. The same report becomes a page, a PDF or a list of comma-separated values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its heading. `widths` are shares of the line; `empty` is what stands where there are no rows.

    `runs`: for each row the run that its first cell names, where it does, so that a page can lead there.
    """

    heading: str
    columns: tuple[str, ...]
    widths: tuple[int, ...]
    rows: tuple[tuple[str, ...], ...]
    empty: str = "None."
    text: str = ""
    runs: tuple[int | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """`kind` stands above the title, `warning` below it in a colour of its own; `foot` on every printed page."""

    kind: str
    title: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    foot: str
    warning: str = ""

    @property
    def is_wide(self) -> bool:
        """Whether it is better printed across."""
        return any(len(table.columns) > 8 for table in self.tables)


def moment(at: datetime | None) -> str:
    """“2026-11-24 14:02:11” in UTC, as every report and export has it; empty without a time."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if at is not None else ""


def without_formula(cell: str) -> str:
    """The cell as text that no spreadsheet takes for a formula (CWE-1236): an apostrophe stands before such a one."""
    return (
        f"'{cell}"
        if cell.lstrip(" ")[:1] in ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
        else cell
    )
