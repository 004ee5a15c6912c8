"""The store and the transactions of a walk: load, decide, append, as the services do it, with crashes in between.

Everything that the checker reads is written here: each event as its stored text, each act with its outcome.
"""

import hashlib
import json
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from enum import Enum

from tests.simulation import casts
from upgrades.domain import run as core
from upgrades.domain import run_events as e
from upgrades.domain.record import GENESIS, canonical, link
from upgrades.domain.refusal import NotAllowed, Refused
from upgrades.domain.run_events import EVENT_FORMAT, WORKER, Recorded
from upgrades.domain.run_state import evolve, fold


def stored_text(run, recorded):
    """The text under which an event is stored: everything that its hash covers."""
    return canonical(
        {
            "v": EVENT_FORMAT,
            "run": run,
            "seq": recorded.seq,
            "at": recorded.at.isoformat(),
            "kind": recorded.event.kind,
            "by": e.stored(recorded.by),
            "body": e.to_body(recorded.event),
        }
    )


def read(text):
    stored = json.loads(text)
    return Recorded(
        stored["seq"],
        datetime.fromisoformat(stored["at"]),
        e.from_stored(stored["by"]),
        e.from_body(stored["kind"], stored["body"], stored["v"]),
    )


@dataclass
class Stored:
    """A run in the store. `state` is memory: a crash forgets it, and it is folded from the texts again."""

    number: int
    procedure: object
    state: object = None
    events: list = field(default_factory=list)
    head: str = GENESIS
    portraits: list = field(default_factory=list)
    receipts: dict = field(default_factory=dict)


class Crashed(Exception):
    """The process died; whoever asked got no answer."""


class Desk:
    """Runs, and everything that is done to them."""

    def __init__(self, now):
        self.now = now  # gives the virtual time
        self.runs = []
        self.acts = []
        self.texts = {}

    # Starting.

    def open(self, started, by, first=()):
        procedure = casts.carried_out(started.procedure, started)
        run = Stored(len(self.runs) + 1, procedure)
        self.runs.append(run)
        self.know(started.procedure)
        self.append(run, [(by, [*core.start(procedure, started), *first])])
        self.note(run, "Start", by, 0, "accepted")
        return run

    def know(self, name):
        text = casts.text_of(name)
        key = f"{name}/{text.version}"
        self.texts.setdefault(key, {"hash": text.text_hash, "json": casts.plain_text_of(name)})

    # Acts.

    def send(self, run, command, by, command_id="", *, crash=""):
        """A command as the services carry it out. True when it was accepted; None when nobody knows."""
        act, before = type(command).__name__, run.state.seq
        if command_id in run.receipts:
            self.note(run, act, by, before, "accepted", command_id, repeated=True)
            return True
        now = self.now()
        late = core.run_out(run.procedure, run.state, now)
        found = run.state
        for place, event in enumerate(late):
            found = evolve(found, Recorded(run.state.seq + 1 + place, now, WORKER, event))
        try:
            events = core.decide(run.procedure, found, command, by)
        except Refused as refusal:
            self.note(run, act, by, before, "refused", command_id, refusal=refusal)
            if isinstance(refusal, NotAllowed):
                reason = refusal.message[:500]
                self.append(run, [(by, [e.AttemptRefused(act=act, reason=reason)])])
                self.note(run, "AttemptRefused", by, before, "accepted")
            return False
        if crash == "before":
            self.note(run, act, by, before, "unknown", command_id)
            self.crash(run)
            return None
        self.append(run, [(WORKER, late), (by, events)])
        if command_id:
            run.receipts[command_id] = act
        self.note(run, act, by, before, "unknown" if crash else "accepted", command_id)
        if crash:
            self.crash(run)
            return None
        return True

    def report(self, run, items, *, crash=""):
        """What a worker takes in, and what follows from it by itself."""
        before, now = run.state.seq, self.now()
        if run.state.is_over:
            return
        events = core.decide(run.procedure, run.state, core.Report(events=tuple(items)), WORKER)
        state = run.state
        for place, event in enumerate(events):
            state = evolve(state, Recorded(run.state.seq + 1 + place, now, WORKER, event))
        events = [*events, *core.settle(run.procedure, state, now)]
        if crash == "before":
            self.crash(run)
            return
        if events:
            self.append(run, [(WORKER, events)])
        handed = [{"kind": item.kind, "body": e.to_body(item)} for item in items]
        self.note(run, "Report", WORKER, before, "unknown" if crash else "accepted", items=handed)
        if crash:
            self.crash(run)

    # The store.

    def append(self, run, acts):
        now = self.now()
        events = [(by.as_recorded, event) for by, caused in acts for event in caused]
        while events:
            for by, event in events:
                self._append_one(run, Recorded(len(run.events) + 1, now, by, event))
            events = []
            if not core.follows(run.procedure, run.state):
                name, _version = run.state.text
                self.know(name)
                run.procedure = casts.carried_out(name, run.state.started)
                events = [(WORKER, event) for event in core.settle(run.procedure, run.state, now)]

    def _append_one(self, run, recorded):
        text = stored_text(run.number, recorded)
        run.head = link(run.head, text)
        run.events.append({"text": text, "hash": run.head})
        run.state = fold([recorded]) if run.state is None else evolve(run.state, recorded)

    def crash(self, run):
        """Whatever is in memory is gone. The state is read anew from the store, and both are put on paper."""
        live = run.state
        run.state = fold(read(stored["text"]) for stored in run.events)
        run.portraits.append(
            {
                "seq": run.state.seq,
                "live": _digest(live),
                "replayed": _digest(run.state),
                "summary": summary(run.state),
            }
        )

    def note(self, run, act, by, before, outcome, command_id="", *, refusal=None, repeated=False, items=()):
        self.acts.append(
            {
                "run": run.number,
                "id": command_id,
                "act": act,
                "who": _person(by),
                "before": before,
                "after": len(run.events),
                "at": self.now().isoformat(),
                "outcome": outcome,
                "code": refusal.code if refusal else "",
                "message": refusal.message if refusal else "",
                "repeated": repeated,
                "items": list(items),
            }
        )

    def told(self):
        return {
            "texts": self.texts,
            "runs": [
                {"number": run.number, "events": run.events, "portraits": run.portraits} for run in self.runs
            ],
            "acts": self.acts,
        }


def _person(by):
    return {
        "id": by.id,
        "name": by.name,
        "kind": by.kind,
        "roles": list(by.roles),
        "stands_for": [{"id": one.id, "roles": list(one.roles)} for one in by.stands_for],
    }


def summary(state):
    """What the application says of a run in few words."""
    return {
        "seq": state.seq,
        "status": str(state.status),
        "ending": state.ending,
        "current": state.current,
        "facts": dict(state.facts),
        "steps": {name: [at.visit, str(at.status)] for name, at in state.steps.items()},
        "burdens": {name: one.owner.id if one.owner else None for name, one in state.burdens.items()},
        "deviations": {
            str(number): "" if one.is_open else "signed" if one.signed else "rejected"
            for number, one in state.deviations.items()
        },
        "executors": sorted(state.executors),
    }


def _digest(state):
    text = json.dumps(_plain(state), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value):
    """Any part of a state as JSON data: the same for two states that are equal."""
    if isinstance(value, Enum | datetime):
        return str(value)
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(json.dumps(_plain(inner), default=str) for inner in value)
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value
