"""Figures as a table: what was measured, in which unit, beside what it is compared with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the table. `ratio` compares with what was measured beside it in the same run; `goal` is words."""

    what: str
    value: str
    ratio: str = ""
    goal: str = ""
    met: bool | None = None


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def alternately(times: int, *works: Callable[[], object]) -> list[list[float]]:
    """The seconds of each of `works`, done in turn, so that what else the machine does hits all alike."""
    found: list[list[float]] = [[] for _ in works]
    for _ in range(times):
        for seconds, work in zip(found, works, strict=True):
            seconds.append(seconds_of(work))
    return found


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def spread(seconds: Sequence[float]) -> str:
    """p50 and p99 in milliseconds, and of how many."""
    p50, p99 = percentile(seconds, 50) * 1000, percentile(seconds, 99) * 1000
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms (n={len(seconds)})"


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """How many times as long `one` takes as `other`, by their medians."""
    return statistics.median(one) / statistics.median(other)


def table(figures: Sequence[Figure]) -> str:
    """The figures as a table in Markdown."""
    rows = [("what", "measured", "ratio", "goal", "")]
    rows += [
        (one.what, one.value, one.ratio, one.goal, {True: "met", False: "MISSED", None: ""}[one.met])
        for one in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
