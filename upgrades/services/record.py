"""The record as a whole: is it what was written?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from upgrades.adapters.event_store import BrokenLink, broken_links
from upgrades.models import Run


def broken_runs(run_ids: Iterable[int]) -> Iterator[tuple[int, BrokenLink | None]]:
    """Each run with the first event of it that does not fit, or None for a sound one."""
    for run_id in run_ids:
        yield run_id, next(broken_links(run_id), None) or _missing_end(run_id)


def _missing_end(run_id: int) -> BrokenLink | None:
    """A chain whose last links are gone is sound in itself; the run's own row tells where it ended."""
    run = Run.objects.only("seq", "head").get(pk=run_id)
    last = run.events.order_by("-seq").values_list("seq", "hash").first()
    seq, newest = last or (0, "")
    if seq < run.seq:
        return BrokenLink(run_id, seq + 1, f"events {seq + 1} to {run.seq} are missing")
    if newest != run.head:
        return BrokenLink(run_id, seq, "it is not the event that was written last")
    return None
