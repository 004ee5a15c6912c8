"""Steps and exposures as bars along one line of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from upgrades.domain import run_events as e
from upgrades.domain.run_state import StepStatus
from upgrades.queries.run_page.record import burden_title
from upgrades.queries.run_page.shapes import Bar, Tick, Timeline
from upgrades.queries.run_page.sight import Sight, clock, spoken

ROW = 18
FOOT = 20


@dataclass(frozen=True, slots=True)
class _Span:
    begins: datetime
    ends: datetime | None
    name: str
    tone: str = "go"


def timeline(sight: Sight) -> Timeline:
    """One row of steps, one for each kind of exposure. A run under way reaches on to its expected end."""
    begin, now = sight.state.started_at, sight.state.ended_at or sight.now
    total = max((_end(sight) - begin).total_seconds(), 1.0)
    steps, exposures = list(_steps(sight)), _exposures(sight)
    bars = [_bar(span, begin, now, total, 0, named=False) for span in steps]
    for row, (name, spans) in enumerate(exposures.items(), start=1):
        last = len(spans) - 1
        bars += [
            _bar(span, begin, now, total, row * ROW, named=place == last, name=name)
            for place, span in enumerate(spans)
        ]
    at = round(100 * (now - begin).total_seconds() / total, 2)
    return Timeline(
        height=(1 + len(exposures)) * ROW + FOOT,
        bars=tuple(bars),
        ticks=_ticks(sight, at, total, now - begin),
        now=None if sight.state.is_over else at,
    )


def _end(sight: Sight) -> datetime:
    if sight.state.ended_at is not None:
        return sight.state.ended_at
    remaining = 0.0
    for step in sight.procedure.steps:
        at = sight.state.steps.get(step.id)
        if step.aside or (at is not None and at.status not in (StepStatus.CURRENT, StepStatus.BEGUN)):
            continue
        spent = (sight.now - at.begun_at).total_seconds() if at is not None and at.begun_at else 0.0
        remaining += max(0.0, (step.expected or 0) - spent)
    return sight.now + timedelta(seconds=remaining)


def _steps(sight: Sight) -> Iterator[_Span]:
    begun: dict[tuple[str, int], datetime] = {}
    for item in sight.history:
        match item.event:
            case e.StepBegun(step=step, visit=visit):
                begun[step, visit] = item.at
            case e.StepCompleted(step=step, visit=visit):
                yield _Span(begun.pop((step, visit), item.at), item.at, _name(sight, step))
            case e.StepLeft(step=step, visit=visit) | e.StepRestarted(step=step, visit=visit):
                yield _Span(begun.pop((step, visit), item.at), item.at, _name(sight, step), "wait")
            case e.StepSkipped(step=step, visit=visit):
                begun.pop((step, visit), None)
    for (step, _visit), at in begun.items():
        yield _Span(at, None, _name(sight, step), "act")


def _name(sight: Sight, step: str) -> str:
    number = sight.numbers.get(step, "")
    return f"{number} · {sight.title(step)}" if number and number != "–" else sight.title(step)


def _exposures(sight: Sight) -> dict[str, list[_Span]]:
    found: dict[str, list[_Span]] = {}
    for closed in sight.state.closed:
        _add(sight, found, closed.burden.id, closed.burden.since, closed.closed_at)
    for burden in sight.state.burdens.values():
        _add(sight, found, burden.id, burden.since, None)
    return found


def _add(
    sight: Sight, found: dict[str, list[_Span]], burden: str, since: datetime, until: datetime | None
) -> None:
    if burden.startswith("exposure:"):
        name = burden_title(sight, burden)
        found.setdefault(name, []).append(_Span(since, until, name, "open"))


def _bar(
    span: _Span, begin: datetime, now: datetime, total: float, y: int, *, named: bool, name: str = ""
) -> Bar:
    ends = span.ends or now
    x = round(100 * (span.begins - begin).total_seconds() / total, 2)
    width = max(0.3, round(100 * (ends - span.begins).total_seconds() / total, 2))
    passed = clock(ends - span.begins)
    from_to = f"from {clock(span.begins - begin)}, {passed}{'' if span.ends else ' so far'}"
    return Bar(
        x=x,
        width=width,
        end=round(x + width, 2),
        y=y,
        label=f"{span.name}: {from_to}",
        tone=span.tone,
        name=name.lower() if named and x + width < 85 else "",
    )


def _ticks(sight: Sight, at: float, total: float, passed: timedelta) -> tuple[Tick, ...]:
    if sight.state.is_over:
        return (Tick(0, "0:00", "start"), Tick(100, clock(total), "end"))
    ticks: Sequence[Tick] = [Tick(0, "0:00", "start")]
    if at >= 8:
        ticks = [*ticks, Tick(at, f"now, {clock(passed)}", "middle" if at < 90 else "end")]
    if at < 80:
        ticks = [*ticks, Tick(100, f"about {spoken(total)}", "end")]
    return tuple(ticks)
