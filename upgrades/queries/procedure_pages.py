"""Procedures as people read them: the list, and the text of one version."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from upgrades.domain import procedure as p
from upgrades.domain.condition import Condition
from upgrades.models import ProcedureVersion
from upgrades.queries.conditions import spell
from upgrades.queries.procedures import procedure_of

GATE_KINDS = {
    p.ConfirmGate: "a person confirms",
    p.CheckGate: "facts of the environment",
    p.ProbeGate: "the agent looks",
    p.EvidenceGate: "evidence is attached",
    p.EventGate: "log events",
    p.ClientsGate: "clients have moved",
    p.ApprovalGate: "signatures",
    p.WayBackGate: "the way back is open",
}
PROBES = {
    p.Probe.PROCESS_UP: "its process is up",
    p.Probe.PROCESS_DOWN: "its process is gone",
    p.Probe.FOLDER_EXISTS: "the folder is there",
    p.Probe.NAMES_EQUAL: "section, Application and start name are one",
}


@dataclass(frozen=True, slots=True)
class ProcedureLine:
    """A procedure in the list: its newest version, and how many there are."""

    procedure: str
    version: int
    title: str
    summary: str
    component: str
    steps: int
    versions: int
    published_at: datetime


def procedure_list() -> tuple[ProcedureLine, ...]:
    """All published procedures, each by its newest version."""
    versions: defaultdict[str, list[ProcedureVersion]] = defaultdict(list)
    for version in ProcedureVersion.objects.order_by("procedure", "-version"):
        versions[version.procedure].append(version)
    return tuple(_line(found) for found in versions.values())


def _line(versions: list[ProcedureVersion]) -> ProcedureLine:
    newest = versions[0]
    procedure = procedure_of(newest)
    return ProcedureLine(
        procedure=newest.procedure,
        version=newest.version,
        title=procedure.title,
        summary=procedure.summary,
        component=procedure.component,
        steps=len([step for step in procedure.steps if step.numbered and not step.aside]),
        versions=len(versions),
        published_at=newest.published_at,
    )


@dataclass(frozen=True, slots=True)
class OutcomeText:
    """What events, in this order, lead where. `but` are conditions and what must not stand there."""

    title: str
    source: p.Sources
    events: tuple[str, ...]
    but: tuple[str, ...]
    follows: str


@dataclass(frozen=True, slots=True)
class GateText:
    """`details` are lines of plain text; `items` are things with sources of their own (a way back needs them)."""

    id: str
    title: str
    kind: str
    source: p.Sources
    when: str
    details: tuple[str, ...]
    outcomes: tuple[OutcomeText, ...] = ()
    normal: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StepText:
    id: str
    number: str
    title: str
    phase: str
    source: p.Sources
    when: str
    otherwise: str
    do: tuple[str, ...]
    notices: tuple[p.Notice, ...]
    needs: tuple[GateText, ...]
    gates: tuple[GateText, ...]
    changes: tuple[str, ...]
    follows: str
    expected: int | None
    is_aside: bool


@dataclass(frozen=True, slots=True)
class ProcedurePage:
    """One version, readable. `first_of` maps a source id to the anchor of the step that first cites it."""

    procedure: p.Procedure
    text_hash: str
    published_at: datetime
    versions: tuple[int, ...]
    steps: tuple[StepText, ...]
    sources: tuple[tuple[str, str], ...]

    @property
    def is_newest(self) -> bool:
        return self.procedure.version == max(self.versions)


def procedure_page(name: str, number: int) -> ProcedurePage | None:
    """The page of a version, or None when it is not published."""
    version = ProcedureVersion.objects.filter(procedure=name, version=number).first()
    if version is None:
        return None
    procedure = procedure_of(version)
    steps = tuple(_steps(procedure))
    known = ProcedureVersion.objects.filter(procedure=name).order_by("-version")
    return ProcedurePage(
        procedure=procedure,
        text_hash=version.text_hash,
        published_at=version.published_at,
        versions=tuple(known.values_list("version", flat=True)),
        steps=steps,
        sources=tuple(_sources(procedure)),
    )


def _sources(procedure: p.Procedure) -> Iterator[tuple[str, str]]:
    """Each source id with the step that cites it first, in the order of the ids."""
    found: dict[str, str] = {}
    for step in procedure.steps:
        cited = [*step.source, *(source for notice in step.notices for source in notice.source)]
        cited += [source for gate in step.all_gates for source in gate.source]
        for source in cited:
            found.setdefault(source, step.id)
    yield from sorted(found.items())


def _steps(procedure: p.Procedure) -> Iterator[StepText]:
    numbers = dict(procedure.numbers())
    for step in procedure.steps:
        yield StepText(
            id=step.id,
            number=numbers[step.id],
            title=step.title,
            phase=step.phase,
            source=step.source,
            when=_when(step.when),
            otherwise=step.otherwise,
            do=step.do,
            notices=step.notices,
            needs=tuple(_gate(procedure, gate) for gate in step.needs),
            gates=tuple(_gate(procedure, gate) for gate in step.gates),
            changes=tuple(_changes(procedure, step)),
            follows="" if isinstance(step.then, p.GoOn) else _follow(procedure, step.then),
            expected=step.expected,
            is_aside=step.aside,
        )


def _when(condition: Condition | None) -> str:
    return spell(condition) if condition is not None else ""


def _gate(procedure: p.Procedure, gate: p.Gate) -> GateText:
    rule = gate.rule if isinstance(gate, p.EventGate) else None
    return GateText(
        id=gate.id,
        title=gate.title,
        kind=GATE_KINDS[type(gate)],
        source=gate.source,
        when=_when(gate.when),
        details=tuple(_details(procedure, gate)),
        outcomes=tuple(_outcome(procedure, outcome) for outcome in rule.outcomes) if rule else (),
        normal=rule.normal if rule else (),
    )


def _details(procedure: p.Procedure, gate: p.Gate) -> Iterator[str]:
    match gate:
        case p.ConfirmGate(ask=ask) | p.EvidenceGate(ask=ask):
            yield ask
        case p.CheckGate(condition=condition, otherwise=otherwise):
            yield f"Opens when {spell(condition)}."
            yield f"Otherwise: {otherwise}"
        case p.ProbeGate(server=server, probe=probe, folder=folder):
            yield f"Of {server}: {PROBES[probe]}{f' ({folder})' if folder else ''}."
        case p.EventGate(rule=rule):
            yield f"Read from the log of {rule.server}, behind the place where it stood when the step began."
        case p.ClientsGate(leaving=leaving, joining=joining):
            yield f"All clients of {leaving} are with {joining}: each has reconnected, or the totals of both say so."
        case p.ApprovalGate(policy=policy):
            yield f"Who signs, and how many, is the policy “{policy.replace('-', ' ')}” of the environment."
        case p.WayBackGate(items=items):
            for item in items:
                yield f"{item.title} (shown by step “{procedure.step(item.step).title}”)"


def _outcome(procedure: p.Procedure, outcome: p.Outcome) -> OutcomeText:
    but = []
    if outcome.when is not None:
        but.append(f"when {spell(outcome.when)}")
    if outcome.none_between:
        but.append(f"none of {', '.join(sorted(outcome.none_between))} in between")
    if outcome.none_before:
        but.append(f"none of {', '.join(sorted(outcome.none_before))} before")
    return OutcomeText(
        title=outcome.title,
        source=outcome.source,
        events=tuple(" or ".join(sorted(one_of)) for one_of in outcome.events),
        but=tuple(but),
        follows=_follow(procedure, outcome.follow),
    )


def _follow(procedure: p.Procedure, follow: p.Follow) -> str:
    match follow:
        case p.GoOn():
            return "the step is met"
        case p.GoTo(step=step):
            return f"go to step {dict(procedure.numbers())[step]}, “{procedure.step(step).title}”"
        case p.PutOnHold(reason=reason):
            return f"the run is put on hold: {reason}"
        case p.EndRun(ending=ending):
            return f"the run ends as “{ending}”"
        case p.GoOver(procedure=other):
            return f"the run goes over to the procedure “{other}” and keeps what is done"


def _changes(procedure: p.Procedure, step: p.Step) -> Iterator[str]:
    for change in step.opens:
        yield f"Exposure opens when the step {_moment(change)}: {procedure.exposure(change.exposure).title}"
    for change in step.closes:
        yield f"Exposure closes when the step {_moment(change)}: {procedure.exposure(change.exposure).title}"
    for owed in step.owes:
        yield f"Duty from here on{_if(owed.when)}: {procedure.duty(owed.duty).title}"
    for owed in step.fulfils:
        yield f"Duty fulfilled{_if(owed.when)}: {procedure.duty(owed.duty).title}"
    for effect in step.effects:
        yield f"Then {effect.set} is {effect.to}{_if(effect.when)}"


def _moment(change: p.ExposureChange) -> str:
    return ("begins" if change.at is p.Moment.BEGIN else "ends") + _if(change.when)


def _if(condition: Condition | None) -> str:
    return f" (when {spell(condition)})" if condition is not None else ""
