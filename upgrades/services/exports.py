"""Taking the record out: the bundle of a run, and lists. Each export is put on the register before it is handed over."""

from __future__ import annotations

import csv
import io
import json
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.db import connection, transaction
from django.template.loader import render_to_string
from django.utils import timezone

from upgrades.adapters import checkpoint_store as store
from upgrades.adapters import event_store
from upgrades.adapters.report_pdf import pdf_of
from upgrades.domain.checkpoint import inclusion_path, leaf_hash
from upgrades.domain.log_events import visible
from upgrades.domain.record import Link, canonical
from upgrades.domain.refusal import BadInput
from upgrades.domain.report import Report, Table, without_formula
from upgrades.domain.run_events import EvidenceAttached, Recorded, RunGoneOver, RunStarted
from upgrades.models import Checkpoint, Environment, Evidence, ProcedureVersion, Run
from upgrades.queries.audit_run import report_of
from upgrades.queries.run_page import Seen, run_page, seen_by
from upgrades.services.register import list_exported, record_exported
from upgrades.services.runs import NoSuchRun

IN_MEMORY = 8 * 1024 * 1024  # larger bundles go to disk while they are made
README = """Record of run {run}: {title}
Exported {at} by {by}

report.html, report.pdf   what happened, to read and print
events.jsonl              the events of the run, one a line, exactly as they were hashed
chain.txt                 for each event: its number, the hash of the event before, its own hash
                          (SHA-256 of: hash of the event before, a line feed, the line of events.jsonl)
procedures/               the texts that the run followed, each under its SHA-256; events.jsonl names it
evidence/                 attached files, each under its SHA-256; events.jsonl has their names
seals.json                the newest signed checkpoint, and how it covers this run
keys.txt                  the public keys: number of the first checkpoint of each, and the key
manifest.json             the SHA-256 of every file here
verify_record.py          checks all of this without Runbook: python3 verify_record.py <this file or folder>

Give the verifier the key that you were given when it was made (--key) and checkpoints that you kept (--checkpoints): what
came with the bundle alone could have been made together with it. An auditor's own copy of verify_record.py is best.
"""


@dataclass(slots=True)
class Bundle:
    """An open file with the bundle, its size, and the name to save it by."""

    file: IO[bytes]
    size: int
    name: str


def export_bundle(run_id: int, by: AbstractUser) -> Bundle:
    """The whole record of a run, for whoever has a role in its environment; the export goes on the register."""
    seen = seen_by(run_id, by)
    if seen is None:
        raise NoSuchRun("There is no such run, or you have no role in its environment.")
    now = timezone.now()
    taken = _take(seen, by)
    writer = _Writer()
    try:
        _write(writer, taken, now, by)
        manifest = writer.manifest(taken.run, taken.report, now, by)
        record_exported(taken.run, by, manifest=sha256(manifest).hexdigest(), events=len(taken.links))
        kind = "rehearsal" if taken.run.rehearsal else "run"
        return writer.finish(manifest, f"{kind}-{run_id}-record.zip")
    except BaseException:
        writer.close()
        raise


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a bundle holds, all of one moment."""

    run: Run
    links: Sequence[Link]
    history: Sequence[Recorded]
    report: Report
    seals: Mapping[str, Any]


@transaction.atomic
def _take(seen: Seen, by: AbstractUser) -> _Taken:
    with connection.cursor() as cursor:  # nobody appends while this is read
        cursor.execute("SELECT 1 FROM upgrades_run WHERE id = %s FOR SHARE", [seen.run])
    links = list(event_store.links(seen.run))
    history = [event_store.read(link.text) for link in links]
    page = run_page(seen, by, whole_record=True)
    report = report_of(page, history)
    run = Run.objects.select_related("environment").get(pk=seen.run)
    return _Taken(run, links, history, report, _seals(seen.run))


class _Writer:
    """A zip file that notes the SHA-256 of everything that goes into it."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - handed over open
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED)
        self._hashes: dict[str, str] = {}

    def add(self, name: str, content: bytes) -> None:
        self._hashes[name] = sha256(content).hexdigest()
        self._zip.writestr(name, content)

    def add_file(self, name: str, blocks: Iterable[bytes]) -> None:
        found = sha256()
        with self._zip.open(name, "w", force_zip64=True) as target:
            for block in blocks:
                found.update(block)
                target.write(block)
        self._hashes[name] = found.hexdigest()

    def manifest(self, run: Run, report: Report, at: datetime, by: AbstractUser) -> bytes:
        told = {
            "files": self._hashes,
            "run": run.pk,
            "title": report.title,
            "environment": run.environment.name,
            "rehearsal": run.rehearsal,
            "exported_at": at.isoformat(),
            "by": _name(by),
        }
        return canonical(told).encode()

    def close(self) -> None:
        self._zip.close()
        self._file.close()

    def finish(self, manifest: bytes, name: str) -> Bundle:
        self._zip.writestr("manifest.json", manifest)
        self._zip.close()
        size = self._file.tell()
        self._file.seek(0)
        return Bundle(self._file, size, name)


def _write(writer: _Writer, taken: _Taken, at: datetime, by: AbstractUser) -> None:
    told = {
        "run": taken.run.pk,
        "title": taken.report.title,
        "at": f"{at:%Y-%m-%d %H:%M:%S} UTC",
        "by": _name(by),
    }
    links = taken.links
    writer.add("README.txt", README.format(**told).encode())
    writer.add(
        "report.html", render_to_string("upgrades/audit/report.html", {"report": taken.report}).encode()
    )
    writer.add("report.pdf", pdf_of(taken.report))
    writer.add("events.jsonl", "".join(f"{link.text}\n" for link in links).encode())
    writer.add("chain.txt", "".join(f"{link.seq} {link.previous} {link.hash}\n" for link in links).encode())
    writer.add("seals.json", canonical(taken.seals).encode())
    known = store.known_keys()
    writer.add(
        "keys.txt", "".join(f"{item.first} {item.key.text}\n" for item in known if item.first).encode()
    )
    writer.add("verify_record.py", verifier().read_bytes())
    _add_procedures(writer, taken.history)
    _add_evidence(writer, taken.history)


def verifier() -> Path:
    """The one-file verifier that goes with each bundle."""
    return Path(settings.BASE_DIR) / "verifier" / "verify_record.py"


def _add_procedures(writer: _Writer, history: Iterable[Recorded]) -> None:
    """Every text that the run has followed, under its hash: what was approved, word by word."""
    followed = [
        item.event.procedure_hash for item in history if isinstance(item.event, RunStarted | RunGoneOver)
    ]
    for row in ProcedureVersion.objects.filter(text_hash__in=followed):
        writer.add(f"procedures/{row.text_hash}.yaml", row.text.encode())


def _add_evidence(writer: _Writer, history: Iterable[Recorded]) -> None:
    """Every attached file once, under its hash. A missing one is left out: the verifier then names it."""
    attached = [item.event.evidence for item in history if isinstance(item.event, EvidenceAttached)]
    rows = Evidence.objects.in_bulk([evidence for evidence in attached if evidence])
    done: set[str] = set()
    for row in rows.values():
        if row.sha256 in done:
            continue
        done.add(row.sha256)
        try:
            with row.file.open("rb") as file:
                writer.add_file(f"evidence/{row.sha256}", file.chunks())
        except FileNotFoundError:
            continue


def _seals(run_id: int) -> dict[str, Any]:
    """The newest checkpoint with the way from each head of the run that was ever sealed to its root."""
    newest = Checkpoint.objects.order_by("-number").first()
    if newest is None:
        return {"note": "", "leaves": []}
    leaves = list(store.leaves(end=newest.size))
    hashes = [leaf_hash(leaf.text) for leaf in leaves]
    subject = f"run {run_id}"
    return {
        "note": newest.note,
        "leaves": [
            {
                "leaf": leaf.text,
                "position": place,
                "path": [beside.hex() for beside in inclusion_path(hashes, place)],
            }
            for place, leaf in enumerate(leaves)
            if leaf.subject == subject
        ],
    }


def _name(user: AbstractUser) -> str:
    return user.get_full_name() or user.get_username()


# Lists.

PDF_ROWS = 5000  # a PDF is set row by row: that many take ten seconds of a page server, and nobody reads more
KINDS = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl", "pdf": "application/pdf"}


@dataclass(frozen=True, slots=True)
class ListExport:
    """A list in one of the forms, with its type and the name to save it by."""

    content: bytes
    content_type: str
    name: str


def export_list(
    report: Report,
    kind: str,
    *,
    by: AbstractUser,
    environments: Iterable[Environment],
    query: Mapping[str, str],
) -> ListExport:
    """A list as csv, jsonl or pdf, with a statement how it was made; on the register of each environment in it."""
    if kind not in KINDS:
        raise BadInput("A list can be taken out as csv, jsonl or pdf.", "kind")
    rows = sum(len(table.rows) for table in report.tables)
    if kind == "pdf" and rows > PDF_ROWS:
        raise BadInput(
            f"A PDF has room for {PDF_ROWS} rows, and this list has {rows}. Narrow it down, or take it as CSV or JSON lines.",
            "kind",
        )
    content = {"csv": _csv, "jsonl": _jsonl, "pdf": pdf_of}[kind](report)
    for environment in environments:
        body = {
            "list": report.title,
            "form": kind,
            "query": dict(query),
            "sha256": sha256(content).hexdigest(),
            "rows": rows,
        }
        list_exported(environment, by, body)
    name = "-".join(report.title.lower().split())
    return ListExport(content, KINDS[kind], f"{name}.{kind}")


def _csv(report: Report) -> bytes:
    """Facts first, then each table; no cell that a spreadsheet would run. With a mark for Excel that it is UTF-8."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    rows: list[Sequence[str]] = [(report.title,), *report.facts]
    for table in report.tables:
        rows += [(), *(((table.heading,),) if len(report.tables) > 1 else ()), table.columns, *table.rows]
    writer.writerows([without_formula(_plain(cell)) for cell in row] for row in rows)
    return b"\xef\xbb\xbf" + text.getvalue().encode()


def _plain(cell: str) -> str:
    return "\n".join(visible(line) for line in cell.split("\n"))


def _jsonl(report: Report) -> bytes:
    head = {"list": report.title, **dict(report.facts)}
    rows = [
        {"table": table.heading, **dict(zip(_names(table), row, strict=True))}
        for table in report.tables
        for row in table.rows
    ]
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in (head, *rows)).encode()


def _names(table: Table) -> list[str]:
    return [column or "number" for column in table.columns]
