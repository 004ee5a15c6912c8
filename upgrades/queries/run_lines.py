"""A run as a line of a list, the same on every page that lists runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from upgrades.models import Run

OVER = ("ended", "aborted")

_STATUS = {
    "running": ("Running", "act"),
    "held": ("On hold", "wait"),
    "closing": ("Closing", "wait"),
    "ended": ("Ended", "go"),
    "aborted": ("Aborted", "stop"),
}


@dataclass(frozen=True, slots=True)
class RunLine:
    """What a list shows of a run. `ending` is empty while it is open; `reason` is why it is held or was aborted."""

    id: int
    title: str
    environment_id: int
    environment: str
    rehearsal: bool
    status: str
    status_text: str
    tone: str
    ending: str
    reason: str
    step: str
    done: int
    total: int
    starter: str
    started_at: datetime
    ended_at: datetime | None
    change: str
    emergencies: int = 0
    reviews_open: int = 0

    @property
    def is_over(self) -> bool:
        return self.status in OVER


def run_lines(runs: Iterable[Run]) -> tuple[RunLine, ...]:
    """The lines of runs that were fetched with their environment."""
    return tuple(_line(run) for run in runs)


def _line(run: Run) -> RunLine:
    text, tone = _STATUS.get(run.status, (run.status, ""))
    if run.status == "ended" and run.ending not in ("", "completed"):
        text = f"Ended: {run.ending}"
    return RunLine(
        id=run.pk,
        title=run.title,
        environment_id=run.environment_id,
        environment=run.environment.name,
        rehearsal=run.rehearsal,
        status=run.status,
        status_text=text,
        tone=tone,
        ending=run.ending,
        reason=run.reason,
        step=run.current_title,
        done=run.steps_done,
        total=run.steps_total,
        starter=run.starter_name,
        started_at=run.started_at,
        ended_at=run.ended_at,
        change=run.change,
        emergencies=run.emergencies,
        reviews_open=run.reviews_open,
    )
