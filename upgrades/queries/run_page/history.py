"""The events of a run and the state that they add up to, without reading again what cannot have changed.

Events are only ever appended, so what was read once stays true; each look reads what came since. This is memory, not
state: whatever is forgotten here is read again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from threading import Lock

from upgrades.adapters import event_store
from upgrades.domain.run_events import Recorded
from upgrades.domain.run_state import RunState, evolve, fold
from upgrades.models import Run

RUNS = 32  # of each process


@dataclass(frozen=True, slots=True)
class History:
    events: tuple[Recorded, ...]
    state: RunState


_known: OrderedDict[tuple[int, datetime], History] = OrderedDict()
_lock = Lock()


def history_of(run: Run) -> History:
    """All events of the run so far, and its state after them."""
    key = (run.pk, run.started_at)
    with _lock:
        known = _known.get(key)
    if known is None:
        events = tuple(event_store.load(run.pk))
        found = History(events, fold(events))
    else:
        news = event_store.load(run.pk, after=known.state.seq) if run.seq != known.state.seq else []
        state = known.state
        for item in news:
            state = evolve(state, item)
        found = History((*known.events, *news), state)
    with _lock:
        _known[key] = found
        _known.move_to_end(key)
        while len(_known) > RUNS:
            _known.popitem(last=False)
    return found
