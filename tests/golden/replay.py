"""Histories in files, and their replay with the code of today.

A line is an event as it was stored, with a digest of the state behind it, and where a worker looked at the run then, how many
of the events that follow it decided. Replaying asks today's code for all three again.
"""

import json
from contextlib import contextmanager
from pathlib import Path

from tests.domain.scene import START
from upgrades.adapters.event_store import read, text_of
from upgrades.domain import run
from upgrades.domain.gates import verdicts
from upgrades.domain.groups import expand
from upgrades.domain.record import canonical, digest
from upgrades.domain.run_events import StepBegun, StepCompleted, to_body
from upgrades.domain.run_state import begin, evolve
from upgrades.procedures.loader import builtin, load

HERE = Path(__file__).parent
RUN = 1  # the number that the runs have in their files
TEXTS = {}


def text(name, version):
    """A shipped text; read once."""
    if not TEXTS:
        TEXTS.update({(path.parent.name, int(path.stem)): (path, content) for path, content in builtin()})
    found = TEXTS[name, version]
    if isinstance(found, tuple):
        found = TEXTS[name, version] = load(found[1], name=str(found[0]))
    return found


def view(state):
    """What of a state people see and gates rest on. What a later release adds is not in it, so an old digest stays."""
    return {
        "status": state.status,
        "hold": state.hold_reason,
        "ending": state.ending,
        "current": state.current,
        "text": list(state.text),
        "facts": dict(state.facts),
        "steps": {
            name: [at.visit, at.status, at.begun_by and at.begun_by.name, at.ended_by and at.ended_by.name]
            for name, at in state.steps.items()
        },
        "gates": {
            f"{step}/{visit}/{gate}": [
                len(found.confirmations),
                len(found.evidence),
                found.probe.event.value if found.probe else None,
                [signed.by.name for signed in found.signatures if signed.by.id not in found.lapsed],
                found.outcome.event.outcome if found.outcome else None,
                sorted(found.contradicted),
                found.overridden_by,
            ]
            for (step, visit, gate), found in state.gates.items()
        },
        "open": {
            name: [burden.since.isoformat(), burden.owner and burden.owner.name]
            for name, burden in state.burdens.items()
        },
        "closed": [[item.burden.id, item.closed_at.isoformat(), item.by.name] for item in state.closed],
        "deviations": {str(item.number): [item.what, item.signed] for item in state.deviations.values()},
    }


@contextmanager
def noting(looks):
    """Notes for every look of the worker at a run: behind which event, and how many events it decided."""
    real = run.settle

    def settle(procedure, state, at):
        news = real(procedure, state, at)
        looks.setdefault(state.seq, len(news))
        return news

    run.settle = settle
    try:
        yield
    finally:
        run.settle = real


def written(course):
    """The lines of a course that is carried out now."""
    looks = {}
    with noting(looks):
        history = course().history
    state, lines = None, []
    for recorded in history:
        state = begin(recorded) if state is None else evolve(state, recorded)
        line = {"event": json.loads(text_of(RUN, recorded)), "state": digest(view(state))[:16]}
        if recorded.seq in looks:
            line["next"] = looks[recorded.seq]
        lines.append(canonical(line))
    return lines


def differences(lines, *, released=True):
    """Where today's code goes another way than the one that wrote the lines: the first place, in a sentence; or None."""
    told = [json.loads(line) for line in lines]
    history = [read(canonical(line["event"])) for line in told]
    state = None
    for place, (line, recorded) in enumerate(zip(told, history, strict=True)):
        procedure = None if state is None else _procedure(state, released=released)
        shut = _shut(procedure, state, recorded.event) if procedure else []
        if shut:
            return f"event {recorded.seq} ({recorded.event.kind}): today {', '.join(shut)} would be shut"
        state = begin(recorded) if state is None else evolve(state, recorded)
        if digest(view(state))[:16] != line["state"]:
            return f"event {recorded.seq} ({recorded.event.kind}): the state behind it is another one"
        procedure = _procedure(state, released=released)
        if "next" in line and procedure:
            wanted = [_plain(item.event) for item in history[place + 1 : place + 1 + line["next"]]]
            found = [_plain(event) for event in run.settle(procedure, state, START)]
            if found != wanted:
                return f"behind event {recorded.seq} a worker would decide {found} and decided {wanted}"
    return None


def _procedure(state, *, released):
    """The text that the run follows; None where a text that no release has published was changed since."""
    name, version = state.text
    shipped = text(name, version)
    hashes = {state.started.procedure_hash, getattr(state.gone_over, "procedure_hash", "")}
    if shipped.text_hash not in hashes:
        assert not released, (
            f"{name} {version} was published and must not change: make version {version + 1} of it."
        )
        return None
    return expand(shipped, state.started.groups, state.started.bindings)


def _shut(procedure, state, event):
    if not isinstance(event, StepBegun | StepCompleted):
        return []
    step = procedure.step(event.step)
    gates = step.needs if isinstance(event, StepBegun) else step.gates
    return [gate.id for gate, found in verdicts(procedure, state, step, gates) if not found.is_met]


def _plain(event):
    return [event.kind, to_body(event)]
