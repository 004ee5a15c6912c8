"""What the page says that starts a rollback: what is on record, and which way back fits."""

from __future__ import annotations

from dataclasses import dataclass

from upgrades.adapters import event_store
from upgrades.domain import rollback as way
from upgrades.domain import run as core
from upgrades.domain.procedure import Procedure
from upgrades.domain.refusal import OutOfTurn, Refused
from upgrades.domain.rollback import Choice, Known, Untouched
from upgrades.domain.run_state import RunState, fold
from upgrades.domain.wording import fill
from upgrades.models import ProcedureVersion, Run
from upgrades.queries.procedures import procedure_of


@dataclass(frozen=True, slots=True)
class RollbackPage:
    """`steps` are the titles of the rollback that fits; `carried` what goes over from this run to it."""

    run: int
    title: str
    environment: str
    known: Known
    choice: Choice
    procedure_title: str
    procedure_version: int
    steps: tuple[str, ...]
    carried: tuple[str, ...]
    rows: tuple[tuple[str, str], ...]
    may: bool


def way_back_known(procedure: Procedure, state: RunState) -> bool:
    """Whether a run under way has something to take back, by a procedure that is known."""
    try:
        return not state.is_over and bool(way.known(procedure, state).first)
    except Refused:
        return False


def rollback_page(
    run_id: int,
    roles_here: tuple[str, ...],
    *,
    operational: bool | None,
    former_database: bool | None,
    copy: bool | None,
) -> RollbackPage:
    """The page for these answers; None means as the record has it. Raises why there is nothing to take back.

    The caller has made sure that this person may see the run.
    """
    run = Run.objects.select_related("environment", "procedure").get(pk=run_id)
    state = fold(event_store.load(run_id))
    if state.is_over:
        raise OutOfTurn(
            f"This run is over ({state.ending}). Start a rollback from the page of its environment."
        )
    procedure = procedure_of(run.procedure, state.started)
    known = way.known(procedure, state)
    works = known.operational if operational is None else operational
    choice = known.choice(
        operational=works,
        former_database=known.former_database if former_database is None else former_database,
        copy=known.copy if copy is None else copy,
    )
    version = ProcedureVersion.objects.filter(procedure=choice.procedure).order_by("-version").first()
    roles = known.roles(choice.procedure)
    facts = {f"{role}.name": state.application(mine) for role, mine in roles.items()}
    facts |= {"back-to": known.back_to}
    text = procedure_of(version) if version is not None else None
    return RollbackPage(
        run=run_id,
        title=state.started.title,
        environment=state.started.environment_name,
        known=known,
        choice=choice,
        procedure_title=text.title if text is not None else "",
        procedure_version=version.version if version is not None else 0,
        steps=tuple(fill(step.title, facts) for step in text.steps if step.numbered)
        if text is not None
        else (),
        carried=tuple(item.title for item in core.inheritance(procedure, state, run_id)),
        rows=(*_rows(known, state), *_order(known, state, operational=works)),
        may="operator" in roles_here,
    )


def _order(known: Known, state: RunState, *, operational: bool) -> list[tuple[str, str]]:
    """RB-B1, where the servers of the run are masters."""
    if state.started.bindings[known.first].application_type != "ConfigurationServer":
        return []
    when = (
        "before this master" if way.proxies_first(operational=operational) else "once the master works again"
    )
    return [("Proxies that were upgraded", f"go back {when}")]


def _rows(known: Known, state: RunState) -> list[tuple[str, str]]:
    first = state.application(known.first)
    rows = [("Goes back to", f"version {known.back_to}"), ("Replaced in this run", first)]
    if known.second:
        second = state.application(known.second)
        if known.untouched is Untouched.NONE:
            rows[1] = ("Replaced in this run", f"{first} and {second}")
        else:
            rows.append(
                ("Still in place", f"{second}, {'down' if known.untouched is Untouched.DOWN else 'running'}")
            )
    rows.append(
        ("Folders of the old version", "seen by the agents" if known.old_folder else "not seen on every host")
    )
    rows.append(("Database", "upgraded in this run" if known.database_upgraded else "as it was"))
    return rows
