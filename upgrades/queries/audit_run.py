"""One run as an auditor looks at it: its report, whether its record holds, what sealed it, who read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import AbstractUser

from upgrades.adapters import event_store, register
from upgrades.domain.report import Report, Table, moment
from upgrades.domain.run_events import Recorded
from upgrades.models import Checkpoint, CheckpointLeaf, RegisterEntry, Run
from upgrades.queries.audit import ROLES
from upgrades.queries.run_page import RunPage, run_page, seen_by
from upgrades.queries.run_report import run_report

OPENED, STARTED = "evidence.opened", "run.started"


@dataclass(frozen=True, slots=True)
class AuditRun:
    """`broken` names the first event that is not what was written; empty for a record that holds."""

    page: RunPage
    report: Report
    broken: str
    events: int
    sealed: int
    sealed_at: datetime | None
    seals: Table
    reads: Table


def opened_by(run_id: int) -> dict[str, list[datetime]]:
    """When each person opened evidence of the run."""
    found: dict[str, list[datetime]] = {}
    for row in RegisterEntry.objects.filter(run=run_id, kind=OPENED).order_by("at"):
        entry = register.read(row)
        found.setdefault(entry.by.id, []).append(entry.at)
    return found


def number_of(run_id: int) -> int | None:
    """The run's number in the gap-free list of its environment."""
    return RegisterEntry.objects.filter(run=run_id, kind=STARTED).values_list("number", flat=True).first()


def rehearsed_before(run_id: int) -> str:
    """Which rehearsal of the same text in the same environment ended before this run started; in words."""
    run = Run.objects.get(pk=run_id)
    if run.rehearsal:
        return "this is a rehearsal"
    found = (
        Run.objects.filter(
            rehearsal=True,
            environment__rehearsal_of=run.environment_id,
            procedure=run.procedure_id,
            ended_at__lt=run.started_at,
        )
        .order_by("-ended_at")
        .first()
    )
    if found is None:
        return "no rehearsal of this text in this environment ended before"
    return f"run {found.pk}, ended {moment(found.ended_at)} UTC as “{found.ending or found.status}”"


def report_of(page: RunPage, history: Sequence[Recorded]) -> Report:
    """The report of the run that `page` shows whole, with what the register knows of it."""
    return run_report(
        page,
        history,
        opened_by(page.id),
        number=number_of(page.id),
        rehearsed=rehearsed_before(page.id),
    )


def audit_run(run_id: int, user: AbstractUser) -> AuditRun | None:
    """None when there is no such run, or this person neither audits nor administers its environment."""
    seen = seen_by(run_id, user)
    if seen is None or not set(seen.roles) & set(ROLES):
        return None
    history = event_store.load(run_id)
    page = run_page(seen, user, whole_record=True)
    leaves = list(CheckpointLeaf.objects.filter(subject=f"run {run_id}").order_by("position"))
    sealed = {leaf.seq: leaf.hash for leaf in leaves}
    broken = next(event_store.broken_links(run_id, sealed), None)
    rows = _seals(leaves)
    return AuditRun(
        page=page,
        report=report_of(page, history),
        broken=f"Event {broken.seq}: {broken.reason}" if broken else "",
        events=len(history),
        sealed=max(sealed, default=0),
        sealed_at=rows[-1][1].at if rows else None,
        seals=_seal_table(rows),
        reads=_reads(run_id),
    )


def _seals(leaves: list[CheckpointLeaf]) -> list[tuple[CheckpointLeaf, Checkpoint]]:
    if not leaves:
        return []
    last = Checkpoint.objects.filter(size__gt=leaves[-1].position).order_by("number").first()
    rows = (
        Checkpoint.objects.filter(size__gt=leaves[0].position).order_by("number").only("number", "at", "size")
    )
    checkpoints = list(rows.filter(number__lte=last.number)) if last else []
    found = []
    for leaf in leaves:
        covering = next((row for row in checkpoints if row.size > leaf.position), None)
        if covering is not None:
            found.append((leaf, covering))
    return found


def _seal_table(rows: list[tuple[CheckpointLeaf, Checkpoint]]) -> Table:
    cells = tuple(
        (f"{row.number}", moment(row.at), f"1 to {leaf.seq}", leaf.hash) for leaf, row in reversed(rows)
    )
    columns = ("Checkpoint", "Signed (UTC)", "Events", "Hash of the last of them")
    return Table("Sealed by", columns, (12, 20, 14, 54), cells, "No checkpoint has sealed this run yet.")


def _reads(run_id: int) -> Table:
    rows = RegisterEntry.objects.filter(run=run_id, book__startswith="reads/").order_by("-number")
    entries = [register.read(row) for row in rows]
    cells = tuple(
        (
            moment(entry.at),
            entry.by.how,
            ", ".join(entry.by.roles),
            entry.kind.replace(".", " "),
            entry.body.get("name", ""),
        )
        for entry in entries
    )
    columns = ("Time (UTC)", "Who", "Roles then", "What", "File")
    return Table("Read and taken away by", columns, (20, 22, 20, 18, 20), cells, "Nobody yet.")
