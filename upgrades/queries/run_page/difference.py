"""What of a request for a signature is another now than when its reader opened it (D05)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from upgrades.domain.gates import digest_to_sign
from upgrades.domain.procedure import ApprovalGate, Step
from upgrades.domain.run_state import RunState, begin, evolve
from upgrades.queries.run_page.gate_rows import covers, fact_text
from upgrades.queries.run_page.sight import Sight


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that a signature covers; empty where it was or is not there."""

    label: str
    before: str
    now: str


def difference(sight: Sight, step_id: str, gate_id: str, digest: str) -> tuple[Change, ...]:
    """The changes since the run was as `digest` says; none when it never was so.

    Nothing has to be kept for this: what was shown follows from the events until then, and the digest proves it.
    """
    step = sight.procedure.step(step_id) if sight.procedure.has_step(step_id) else None
    gate = step.gate(gate_id) if step is not None else None
    if step is None or not isinstance(gate, ApprovalGate):
        return ()
    then = _state_of(sight, step, gate, digest)
    if then is None:
        return ()
    before, now = _content(replace(sight, state=then), step, gate), _content(sight, step, gate)
    return tuple(
        Change(label, before.get(label, ""), now.get(label, ""))
        for label in dict.fromkeys([*before, *now])
        if before.get(label) != now.get(label)
    )


def _state_of(sight: Sight, step: Step, gate: ApprovalGate, digest: str) -> RunState | None:
    """The newest state of the run in which this was what had to be signed."""
    states = [begin(sight.history[0])]
    for item in sight.history[1:]:
        states.append(evolve(states[-1], item))
    for state in reversed(states):
        if digest_to_sign(sight.procedure, state, step, gate) == digest:
            return state
    return None


def _content(sight: Sight, step: Step, gate: ApprovalGate) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for item in covers(sight, step, gate):
        found.setdefault(item.label, []).append(item.value)
    for name, value in sorted(sight.state.facts.items()):
        found.setdefault(f"Fact {name}", []).append(fact_text(value))
    return {label: "; ".join(values) for label, values in found.items()}
