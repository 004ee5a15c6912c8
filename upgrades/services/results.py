"""What a run that is completed has made of its environment beside its servers: the schemas, and what was uninstalled.

Versions and modes of servers follow from the effects of steps; these facts belong to no server.
"""

from __future__ import annotations

from upgrades.domain.condition import Fact
from upgrades.domain.run_state import RunState
from upgrades.models import Environment, Run

COMPLETED = "completed"
SCHEMA = "target-schema"  # the parameter that says which schema was reached


def apply(run: Run, procedure: str, state: RunState) -> None:
    """Take the result of a completed run into the facts of its environment; other runs and endings change nothing."""
    if state.ending != COMPLETED:
        return
    changes = _changes(procedure, state.facts.get(SCHEMA), state.facts.get("convert-languages"))
    if changes:
        Environment.objects.filter(pk=run.environment_id).update(**changes)


def _changes(procedure: str, schema: Fact, converted: Fact) -> dict[str, str | bool]:
    match procedure:
        case "database-migration" if isinstance(schema, str):
            return {"schema_version": schema, **({"single_language": False} if converted is True else {})}
        case "log-database-schema" if isinstance(schema, str):
            return {"log_schema_version": schema}
        case "lrm-removal":
            return {"uses_lrm": False}
    return {}
