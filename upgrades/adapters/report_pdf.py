"""Reports as PDF, with the fonts that lie beside this file: DejaVu Sans, cut down to the scripts of Europe."""

from __future__ import annotations

import logging
from pathlib import Path

from fpdf import FPDF
from fpdf.enums import TableBordersLayout
from fpdf.fonts import FontFace, TTFFont

from upgrades.domain.log_events import visible
from upgrades.domain.report import Report, Table

LINE_CHARACTERS, CELL_LINES = 95, 36  # of the widest letters, so that it fits with any
# Stands for the number of pages until it is known. No text can hold it: `clean` makes a mark of each NUL.
PAGES = "\0\0\0"
FONTS = Path(__file__).resolve().parent / "fonts"
INK, SOFT, LINE, WARN, FILL = (28, 33, 40), (95, 104, 115), (205, 211, 218), (107, 33, 168), (243, 245, 247)
logging.getLogger("fontTools").setLevel(logging.WARNING)


class _Paper(FPDF):
    """A4 with a foot that names the report, and for a rehearsal a head that nobody overlooks."""

    def __init__(self, report: Report) -> None:
        super().__init__(orientation="landscape" if report.is_wide else "portrait", format="A4")
        self._report = report
        self.alias_nb_pages(PAGES)
        self.set_margins(16, 16, 16)
        self.set_auto_page_break(True, margin=18)
        self.add_font("DejaVu", "", str(FONTS / "DejaVuSans.ttf"))
        self.add_font("DejaVu", "B", str(FONTS / "DejaVuSans-Bold.ttf"))
        font = self.fonts["dejavu"]
        assert isinstance(font, TTFFont)
        self._known = set(font.cmap)
        self.set_title(self.clean(report.title))
        self.set_creator("Runbook")
        self.set_lang("en")

    def clean(self, text: str) -> str:
        """The text with a mark for every character that shows nothing or that the fonts do not have."""
        shown = "\n".join(visible(line) for line in text.split("\n"))
        return "".join(
            char if char == "\n" or ord(char) in self._known else f"⟦U+{ord(char):04X}⟧" for char in shown
        )

    def header(self) -> None:
        if self._report.warning:
            self.set_font("DejaVu", "B", 8)
            self.set_text_color(*WARN)
            self.multi_cell(
                0, 4.5, self.clean(self._report.warning), align="C", new_x="LMARGIN", new_y="NEXT"
            )
            self.ln(2)

    def footer(self) -> None:
        self.set_y(-13)
        self.set_font("DejaVu", "", 6.5)
        self.set_text_color(*SOFT)
        self.cell(0, 4, self.clean(self._report.foot))
        self.set_x(16)
        self.cell(0, 4, f"{self.page_no()} / {PAGES}", align="R")


def pdf_of(report: Report) -> bytes:
    """The report as a PDF of A4 pages."""
    paper = _Paper(report)
    paper.add_page()
    _head(paper, report)
    for table in report.tables:
        _table(paper, table)
    return bytes(paper.output())


def _head(paper: _Paper, report: Report) -> None:
    _line(paper, report.kind, 8, SOFT)
    _line(paper, report.title, 15, INK, bold=True)
    paper.ln(2)
    for label, value in report.facts:
        paper.set_font("DejaVu", "", 8)
        paper.set_text_color(*SOFT)
        paper.cell(42, 5, paper.clean(label))
        paper.set_text_color(*INK)
        paper.multi_cell(0, 5, paper.clean(value), align="L", new_x="LMARGIN", new_y="NEXT")


def _line(paper: _Paper, text: str, size: float, colour: tuple[int, int, int], *, bold: bool = False) -> None:
    paper.set_font("DejaVu", "B" if bold else "", size)
    paper.set_text_color(*colour)
    paper.multi_cell(0, size * 0.55, paper.clean(text), align="L", new_x="LMARGIN", new_y="NEXT")


def _table(paper: _Paper, table: Table) -> None:
    if paper.will_page_break(26):  # a heading never stands alone at the foot of a page
        paper.add_page()
    paper.ln(4)
    _line(paper, table.heading, 10.5, INK, bold=True)
    paper.ln(1)
    if table.text:
        _line(paper, table.text, 7.5, SOFT)
        paper.ln(1)
    if not table.rows:
        _line(paper, table.empty, 8, SOFT)
        return
    paper.set_font("DejaVu", "", 7)
    paper.set_text_color(*INK)
    paper.set_draw_color(*LINE)
    with paper.table(
        col_widths=table.widths,
        text_align="LEFT",
        v_align="TOP",
        line_height=3.8,
        padding=1,
        borders_layout=TableBordersLayout.HORIZONTAL_LINES,
        headings_style=FontFace(emphasis="BOLD", color=SOFT, fill_color=FILL),
        repeat_headings=1,
    ) as rows:
        for cells in (table.columns, *table.rows):
            row = rows.row()
            for cell, width in zip(cells, table.widths, strict=True):
                row.cell(_fitting(paper.clean(cell), width / sum(table.widths)))


def _fitting(cell: str, share: float) -> str:
    """As much of the cell as one page can hold: a row is never parted. The rest is in the exported data."""
    in_line = max(3, int(LINE_CHARACTERS * share))
    kept: list[str] = []
    left = CELL_LINES
    for line in cell.split("\n"):
        if len(line) > left * in_line:
            return "\n".join([*kept, f"{line[: left * in_line]} …"])
        kept.append(line)
        left -= 1 + len(line) // in_line
        if left <= 0:
            return "\n".join([*kept, "…"])
    return cell
