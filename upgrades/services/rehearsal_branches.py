"""Which branches of the procedures a set of runs has taken: steps carried out and left out, outcomes reached.

So a rehearsal of everything can say what of the texts it never came to.
"""

from __future__ import annotations

from collections.abc import Iterator

from upgrades.adapters import event_store
from upgrades.domain import run_events as e
from upgrades.domain.procedure import Procedure

Branch = tuple[str, str, str]  # procedure, step, and "carried out", "left out" or "GATE: OUTCOME"

CARRIED_OUT, LEFT_OUT = "carried out", "left out"

# Outcomes that the simulated servers cannot bring about, with the reason; tests hand their lines to the rule instead.
_LAUNCH = ("config-server-ha-same-schema", "launch-new")
NOT_PLAYED: dict[Branch, str] = {
    (
        *_LAUNCH,
        "initialized: backup-without-announcement",
    ): "a simulated server logs 21-22902 before 21-22172, and with it the run has gone over already",
    (
        *_LAUNCH,
        "initialized: unplanned-database",
    ): "a simulated server logs 21-25301 before 21-22171, and with it the run has gone over already",
}


def branches(procedure: Procedure) -> Iterator[Branch]:
    """Every branch of the text: each step, each step that a condition can leave out, each outcome of each event gate."""
    for step in procedure.steps:
        yield procedure.id, step.id, CARRIED_OUT
        if step.when is not None and step.for_each is None:  # which copies there are is settled at the start
            yield procedure.id, step.id, LEFT_OUT
        for gate in step.event_gates:
            for outcome in gate.rule.outcomes:
                yield procedure.id, step.id, f"{gate.id}: {outcome.id}"


def taken(run_id: int) -> Iterator[Branch]:
    """The branches that this run has taken, under the procedure that it followed at that moment."""
    procedure = ""
    for recorded in event_store.load(run_id):
        match recorded.event:
            case e.RunStarted(procedure=name) | e.RunGoneOver(procedure=name):
                procedure = name
            case e.StepBegun(step=step):
                yield procedure, _in_the_text(step), CARRIED_OUT
            case e.StepSkipped(step=step):
                yield procedure, _in_the_text(step), LEFT_OUT
            case e.OutcomeReached(step=step, gate=gate, outcome=outcome):
                yield procedure, _in_the_text(step), f"{gate}: {outcome}"


def _in_the_text(step: str) -> str:
    """The step whose copy for one member this is."""
    return step.partition("--")[0]
