"""The state of a run, without reading again what this process has read before.

Events are only ever appended, so a state stays true as long as the event that it ends with is in its place; the hash of
that event shows whether it is. This is memory, not state: whatever is forgotten here is read again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from upgrades.adapters.event_store import read
from upgrades.domain.run_state import RunState, evolve, fold
from upgrades.models import RunEvent

RUNS = 256  # of each process


@dataclass(frozen=True, slots=True)
class _Known:
    state: RunState
    head: str


_known: OrderedDict[int, _Known] = OrderedDict()
_lock = Lock()


def state_of(run_id: int) -> RunState:
    """The state after all events of the run, as this transaction sees them."""
    with _lock:
        known = _known.get(run_id)
    rows = _rows(run_id, known.state.seq if known else 1)
    if known is not None and (not rows or rows[0][:2] != (known.state.seq, known.head)):
        known, rows = None, _rows(run_id, 1)  # what was remembered was taken back, or is another run's
    if known is None:
        state = fold(read(text) for _, _, text in rows)
    else:
        state = known.state
        for _, _, text in rows[1:]:
            state = evolve(state, read(text))
    _remember(run_id, _Known(state, rows[-1][1]))
    return state


def _rows(run_id: int, first: int) -> list[tuple[int, str, str]]:
    events = RunEvent.objects.filter(run_id=run_id, seq__gte=first).order_by("seq")
    return list(events.values_list("seq", "hash", "text"))


def _remember(run_id: int, known: _Known) -> None:
    with _lock:
        _known[run_id] = known
        _known.move_to_end(run_id)
        while len(_known) > RUNS:
            _known.popitem(last=False)
