"""Where the policy of an environment wants the start of a run approved, its first step waits for that.

Approving and starting stay two acts: the run is there, with its answers and its servers, and the approver sees just
what will be done; nothing has been touched. A rehearsal touches no server and waits for nobody.
"""

from __future__ import annotations

from dataclasses import replace

from upgrades.domain.policy import START, policy_in
from upgrades.domain.procedure import ApprovalGate, Procedure
from upgrades.domain.run_events import RunStarted

GATE = "approved-start"


def wants_start_approval(started: RunStarted) -> bool:
    return (
        not started.rehearsal and START in started.policies and bool(policy_in(started.policies, START).needs)
    )


def with_start_approval(procedure: Procedure, started: RunStarted) -> Procedure:
    """The procedure as this run carries it out: with the approval before its first step, if the policy asks for it."""
    if not wants_start_approval(started):
        return procedure
    first, *rest = procedure.steps
    gate = ApprovalGate(id=GATE, title="The start of this run is approved", source=(), policy=START)
    return replace(procedure, steps=(replace(first, needs=(gate, *first.needs)), *rest))
