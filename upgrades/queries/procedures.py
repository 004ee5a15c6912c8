"""Procedure texts as the core understands them."""

from __future__ import annotations

from upgrades.adapters import event_store
from upgrades.domain.groups import expand
from upgrades.domain.procedure import Procedure
from upgrades.domain.record import canonical
from upgrades.domain.run_events import RunStarted
from upgrades.domain.start_approval import wants_start_approval, with_start_approval
from upgrades.models import ProcedureVersion, Run
from upgrades.procedures.loader import load


def _read(version: ProcedureVersion) -> Procedure:
    """By the hash of its text: of a row whose text was left out, that is fetched only where it is not known yet."""
    key = (version.procedure, version.version, version.text_hash)
    if key not in _texts:
        if len(_texts) >= KEPT:
            _texts.clear()
        name = f"{version.procedure}/{version.version}.yaml"
        _texts[key] = load(version.text.encode(), name=name, library=published_text)
    return _texts[key]


def published_text(name: str, version: int) -> bytes | None:
    """The text of a published procedure; None when there is none."""
    found = (
        ProcedureVersion.objects.filter(procedure=name, version=version)
        .values_list("text", flat=True)
        .first()
    )
    return found.encode() if found is not None else None


def procedure_of(version: ProcedureVersion, started: RunStarted | None = None) -> Procedure:
    """The procedure that a published version holds: as its text has it, or as the run that `started` carries it out.

    Texts never change, nor do the groups of a run, so each is read and expanded once per process.
    """
    procedure = _read(version)
    if started is None or not (procedure.groups or wants_start_approval(started)):
        return procedure
    key = (procedure.text_hash, canonical(started.groups), wants_start_approval(started))
    if key not in _expanded:
        if len(_expanded) >= KEPT:
            _expanded.clear()
        if procedure.groups:
            procedure = expand(procedure, started.groups, started.bindings)
        _expanded[key] = with_start_approval(procedure, started)
    return _expanded[key]


KEPT = 64
_texts: dict[tuple[str, int, str], Procedure] = {}
_expanded: dict[tuple[str, str, bool], Procedure] = {}


def procedure_in(run: Run) -> Procedure:
    """The procedure as `run` carries it out; one query beside those for its version."""
    first = event_store.read(run.events.filter(seq=1).values_list("text", flat=True)[0]).event
    return procedure_of(run.procedure, first if isinstance(first, RunStarted) else None)


def newest(procedure: str) -> ProcedureVersion:
    """The newest published version; `ProcedureVersion.DoesNotExist` when there is none."""
    return ProcedureVersion.objects.filter(procedure=procedure).order_by("-version")[0:1].get()
