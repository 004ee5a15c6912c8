"""The state of a run: what its events add up to. `evolve` is the only place where state changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import reduce
from typing import NamedTuple, assert_never

from upgrades.domain import run_events as e
from upgrades.domain.condition import Fact
from upgrades.domain.event_rule import Kind, Observation
from upgrades.domain.frozen import replace
from upgrades.domain.run_events import Actor, Recorded


class RunStatus(StrEnum):
    RUNNING = "running"
    HELD = "held"
    CLOSING = "closing"
    ENDED = "ended"
    ABORTED = "aborted"


class StepStatus(StrEnum):
    CURRENT = "current"  # its turn, not begun
    BEGUN = "begun"
    DONE = "done"
    SKIPPED = "skipped"
    LEFT = "left"  # an outcome led away from it


GateKey = tuple[str, int, str]  # step, visit, gate


@dataclass(frozen=True, slots=True)
class StepState:
    """The latest visit of a step."""

    visit: int
    status: StepStatus
    entered_at: datetime
    begun_at: datetime | None = None
    ended_at: datetime | None = None
    begun_by: Actor | None = None
    ended_by: Actor | None = None
    reason: str = ""
    watermarks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Fact] = field(default_factory=dict)
    begun_seq: int = 0  # of the event that began it; what was recorded before does not count
    holder: Actor | None = None  # who carries it out: whoever began it, took it or was given it


@dataclass(frozen=True, slots=True)
class GateState:
    """What was recorded for one gate in one visit, oldest first."""

    confirmations: tuple[Recorded, ...] = ()
    evidence: tuple[Recorded, ...] = ()
    probe: Recorded | None = None
    signatures: tuple[Recorded, ...] = ()
    lapsed: frozenset[str] = frozenset()  # ids of signers whose latest signature lapsed
    rejection: Recorded | None = None
    expired: Recorded | None = None  # time ran out, and somebody has to ask again
    asked_at: datetime | None = None  # when the present request began, if that was after the step was entered
    rounds: int = 1  # requests so far
    observations: tuple[Observation, ...] = ()
    outcome: Recorded | None = None
    contradicted: frozenset[int] = frozenset()  # seq of the lines that contradicted the outcome
    overridden_by: int = 0  # number of the signed deviation


_NOTHING = GateState()


@dataclass(frozen=True, slots=True)
class Burden:
    """An open exposure or duty. `owner` is who took it over by name."""

    id: str  # "exposure:read-only", "duty:upgrade-the-peer"
    step: str
    since: datetime
    owner: Actor | None = None
    title: str = ""
    marks: tuple[tuple[int, int], ...] = ()  # (percent, limit in seconds) that its countdown has reached


@dataclass(frozen=True, slots=True)
class ClosedBurden:
    burden: Burden
    closed_at: datetime
    by: Actor
    text: str


@dataclass(frozen=True, slots=True)
class Deviation:
    number: int
    what: str
    step: str
    visit: int
    gate: str
    reason: str
    doubt: int
    asked_by: Actor
    asked_at: datetime
    decided_by: Actor | None = None
    signed: bool = False
    comment: str = ""
    fact: str = ""
    value: str = ""
    signatures: tuple[Recorded, ...] = ()
    review: Recorded | None = None

    @property
    def is_open(self) -> bool:
        return self.decided_by is None

    @property
    def is_emergency(self) -> bool:
        return self.what == "emergency"


class Counted(NamedTuple):
    """A client total, the event that recorded it, and its place in the server's log."""

    total: int
    seq: int
    file: str
    offset: int


@dataclass(frozen=True, slots=True)
class RunState:
    """Everything that is true of a run after its events so far."""

    started: e.RunStarted
    starter: Actor
    started_at: datetime
    seq: int
    changed_at: datetime
    status: RunStatus = RunStatus.RUNNING
    hold_reason: str = ""
    held_at: datetime | None = None
    ending: str = ""
    ended_at: datetime | None = None
    current: str | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)
    steps: Mapping[str, StepState] = field(default_factory=dict)
    gates: Mapping[GateKey, GateState] = field(default_factory=dict)
    burdens: Mapping[str, Burden] = field(default_factory=dict)
    closed: tuple[ClosedBurden, ...] = ()
    deviations: Mapping[int, Deviation] = field(default_factory=dict)
    set_aside: frozenset[int] = frozenset()
    lost_agents: Mapping[str, str] = field(default_factory=dict)
    silences: Mapping[str, int] = field(
        default_factory=dict
    )  # host -> seq of the last time its agent was lost
    totals: Mapping[str, Counted] = field(default_factory=dict)  # application -> its newest client total
    executors: frozenset[str] = frozenset()  # ids of those who carried out any part
    gone_over: e.RunGoneOver | None = None  # the newest one: the text that the run follows since then
    route: tuple[str, ...] = ()  # steps to enter next, before the order of the text counts again
    kept: frozenset[str] = frozenset()  # steps that were done under an earlier text: they are passed over
    authors: frozenset[str] = frozenset()  # of every text that the run has followed
    review: Recorded | None = None  # of a run that is an emergency change

    @property
    def is_over(self) -> bool:
        return self.status in (RunStatus.ENDED, RunStatus.ABORTED)

    @property
    def text(self) -> tuple[str, int]:
        """Name and version of the procedure that the run follows now."""
        if self.gone_over is not None:
            return self.gone_over.procedure, self.gone_over.procedure_version
        return self.started.procedure, self.started.procedure_version

    def gate(self, step: str, gate: str, visit: int | None = None) -> GateState:
        """What is recorded for a gate; of a step that is still to come, for its first visit."""
        if visit is None:
            visit = self.visit(step)
        return self.gates.get((step, visit, gate), _NOTHING)

    def visit(self, step: str) -> int:
        """The number of the step's latest visit, or of the first when the run has not come there yet."""
        at = self.steps.get(step)
        return at.visit if at else 1

    @property
    def emergencies(self) -> tuple[Deviation, ...]:
        """The emergency overrides that were carried out: they mark the run for ever."""
        return tuple(item for item in self.deviations.values() if item.is_emergency and item.signed)

    @property
    def is_emergency(self) -> bool:
        """Whether the run itself is an emergency change: it is looked into afterwards, too."""
        return self.started.category == e.EMERGENCY and not self.started.rehearsal

    @property
    def reviews_open(self) -> tuple[int, ...]:
        """The numbers of the emergencies that no auditor has looked into yet; `WHOLE_RUN` for the run itself."""
        whole = (e.WHOLE_RUN,) if self.is_emergency and self.review is None else ()
        return (*whole, *(item.number for item in self.emergencies if item.review is None))

    def asked_at(self, step: str, gate: str) -> datetime | None:
        """Since when the present request for an approval stands; None while the step is still to come."""
        at = self.steps.get(step)
        return None if at is None else self.gate(step, gate).asked_at or at.entered_at

    def application(self, role: str) -> str:
        return self.started.bindings[role].application

    def host(self, role: str) -> str:
        return self.started.bindings[role].host

    @property
    def unowned(self) -> tuple[Burden, ...]:
        """The open exposures and duties that nobody has taken over."""
        return tuple(burden for burden in self.burdens.values() if burden.owner is None)


def barred(state: RunState, by_id: str) -> str:
    """Why this person may not approve anything in this run; empty when nothing stands against it (section 7)."""
    if by_id == state.starter.id:
        return "whoever started the run may not approve it"
    if by_id in state.authors:
        return "an author of this procedure version may not approve its runs"
    if by_id in state.executors:
        return "whoever carried out a part of the run may not approve it"
    at = state.steps.get(state.current or "")
    if at is not None and at.holder is not None and at.holder.id == by_id:
        return "whoever holds the present step may not approve it"
    return ""


def watch_id(step: str, visit: int, gate: str) -> str:
    return f"{step}#{visit}.{gate}"


def watch_key(watch: str) -> GateKey:
    """The gate that a watch id names."""
    step, _, rest = watch.partition("#")
    visit, _, gate = rest.partition(".")
    return step, int(visit), gate


def fold(history: Iterable[Recorded]) -> RunState:
    """The state after the whole history. The first event must be `RunStarted`."""
    events = iter(history)
    return reduce(evolve, events, begin(next(events)))


def evolved(state: RunState, more: Iterable[Recorded]) -> RunState:
    """The state after more of its history."""
    return reduce(evolve, more, state)


def begin(first: Recorded) -> RunState:
    started = first.event
    if not isinstance(started, e.RunStarted):
        raise TypeError(f"The first event of a run is {e.RunStarted.kind}, not {first.event.kind}.")
    return RunState(
        started=started,
        starter=first.by,
        started_at=first.at,
        seq=first.seq,
        changed_at=first.at,
        facts=dict(started.facts),
        executors=frozenset({first.by.id}),
        authors=frozenset(started.authors),
    )


def evolve(state: RunState, recorded: Recorded) -> RunState:
    """The state after one more event."""
    made = _apply(state, recorded)
    if made is state:
        made = replace(state, seq=recorded.seq, changed_at=recorded.at)
    else:
        # Nobody else has seen the new state yet, so what changes with every event needs no copy of its own.
        object.__setattr__(made, "seq", recorded.seq)
        object.__setattr__(made, "changed_at", recorded.at)
    if recorded.by.kind == "person" and isinstance(recorded.event, _EXECUTION):
        object.__setattr__(made, "executors", made.executors | {recorded.by.id})
    return made


# Whoever caused one of these took part in the execution and may not approve it (design.md section 7).
_EXECUTION = (
    e.StepTaken,
    e.StepBegun,
    e.StepCompleted,
    e.StepRestarted,
    e.GateConfirmed,
    e.EvidenceAttached,
    e.DeviationAsked,
)


def _apply(state: RunState, recorded: Recorded) -> RunState:
    event = recorded.event
    match event:  # cases are tried in turn: what a long run is full of stands first
        case e.LogEventSeen() | e.LogDoubtful() | e.ServerEnded():
            return _observation(state, recorded)
        case e.ProbeAnswered() | e.GateConfirmed() | e.EvidenceAttached() | e.OutcomeReached():
            return _gate(state, recorded)
        case e.NoteAdded() | e.AttemptRefused() | e.StepRestarted():
            return state
        case e.StepEntered() | e.StepBegun() | e.StepSkipped() | e.StepCompleted() | e.StepLeft():
            return _step(state, recorded)
        case e.ApprovalSigned() | e.ApprovalRejected() | e.ApprovalLapsed() | e.VerdictContradicted():
            return _gate(state, recorded)
        case e.ApprovalExpired() | e.ApprovalAsked():
            return _request(state, recorded)
        case e.StepTaken() | e.StepHandedOver():
            return _held_by(state, recorded)
        case e.ExposureOpened() | e.ExposureClosed() | e.ExposureMarked():
            return _burden(state, recorded)
        case e.DutyOwed() | e.DutyDone() | e.TakenOver() | e.BurdenInherited():
            return _burden(state, recorded)
        case e.DeviationAsked() | e.DeviationSigned() | e.DeviationRejected() | e.OverrideReviewed():
            return _deviation(state, recorded)
        case e.FactSet(name=name, value=value):
            return replace(state, facts={**state.facts, name: value})
        case e.AgentLost(host=host, reason=reason):
            lost = {**state.lost_agents, host: reason}
            return replace(state, lost_agents=lost, silences={**state.silences, host: recorded.seq})
        case e.AgentBack(host=host):
            rest = {name: why for name, why in state.lost_agents.items() if name != host}
            return replace(state, lost_agents=rest)
        case e.ClientTotalSeen(application=application, total=total, file=file, offset=offset):
            counted = Counted(total, recorded.seq, file, offset)
            return replace(state, totals={**state.totals, application: counted})
        case e.RunHeld(reason=reason):
            return replace(state, status=RunStatus.HELD, hold_reason=reason, held_at=recorded.at)
        case e.RunResumed():
            status = RunStatus.CLOSING if state.current is None else RunStatus.RUNNING
            return replace(state, status=status, hold_reason="", held_at=None)
        case e.RunGoneOver():
            return _gone_over(state, event)
        case e.RunClosing(ending=ending):
            held = state.status is RunStatus.HELD  # whoever resumes it lets it close
            status = RunStatus.HELD if held else RunStatus.CLOSING
            return replace(state, status=status, ending=ending, current=None)
        case e.RunEnded(ending=ending):
            return replace(state, status=RunStatus.ENDED, ending=ending, ended_at=recorded.at, current=None)
        case e.RunRolledBack():
            return _rolled_back(state, recorded, event)
        case e.RunAborted(reason=reason):
            return replace(
                state, status=RunStatus.ABORTED, ending="aborted", hold_reason=reason, ended_at=recorded.at
            )
        case e.RunStarted():
            raise ValueError("A run starts once.")
        case _:
            assert_never(event)


def _gone_over(state: RunState, event: e.RunGoneOver) -> RunState:
    done = {step for step, at in state.steps.items() if at.status is StepStatus.DONE}
    return replace(
        state,
        current=None,
        gone_over=event,
        route=tuple(event.through),
        kept=frozenset(done),
        authors=state.authors | set(event.authors),
    )


def _rolled_back(state: RunState, recorded: Recorded, event: e.RunRolledBack) -> RunState:
    text = f"It goes on in run {event.by_run}."
    closed = tuple(ClosedBurden(burden, recorded.at, recorded.by, text) for burden in state.burdens.values())
    return replace(
        state,
        status=RunStatus.ENDED,
        ending="rolled back",
        hold_reason=event.reason,
        ended_at=recorded.at,
        current=None,
        burdens={},
        closed=(*state.closed, *closed),
    )


def _step(state: RunState, recorded: Recorded) -> RunState:
    event = recorded.event
    match event:
        case e.StepEntered(step=step, visit=visit):
            entered = StepState(visit=visit, status=StepStatus.CURRENT, entered_at=recorded.at)
            route = state.route[1:] if state.route[:1] == (step,) else state.route
            return replace(state, current=step, steps={**state.steps, step: entered}, route=route)
        case e.StepBegun(step=step):
            at = replace(
                state.steps[step],
                status=StepStatus.BEGUN,
                begun_at=recorded.at,
                begun_by=recorded.by,
                watermarks=event.watermarks,
                totals=event.totals,
                facts=state.facts,
                begun_seq=recorded.seq,
                holder=recorded.by if recorded.by.kind == "person" else state.steps[step].holder,
            )
            return replace(state, steps={**state.steps, step: at})
        case e.StepSkipped(step=step, visit=visit, reason=reason):
            known = state.steps.get(step)
            if known is None or known.visit != visit:
                known = StepState(visit, StepStatus.SKIPPED, entered_at=recorded.at)
            at = replace(
                known, status=StepStatus.SKIPPED, ended_at=recorded.at, ended_by=recorded.by, reason=reason
            )
            return replace(state, steps={**state.steps, step: at})
        case e.StepCompleted(step=step):
            return _ended(state, recorded, step, StepStatus.DONE, "")
        case e.StepLeft(step=step, outcome=outcome):
            return _ended(state, recorded, step, StepStatus.LEFT, outcome)
        case _:
            raise TypeError(event.kind)


def _ended(state: RunState, recorded: Recorded, step: str, status: StepStatus, reason: str) -> RunState:
    at = replace(state.steps[step], status=status, ended_at=recorded.at, ended_by=recorded.by, reason=reason)
    return replace(state, steps={**state.steps, step: at})


def _with_gate(state: RunState, key: GateKey, gate: GateState) -> RunState:
    return replace(state, gates={**state.gates, key: gate})


def _observation(state: RunState, recorded: Recorded) -> RunState:
    event = recorded.event
    match event:
        case e.LogEventSeen():
            place = (event.file, event.offset)
            seen = Observation(Kind.EVENT, place, event.event, event.text, recorded.seq)
        case e.LogDoubtful():
            seen = Observation(Kind(event.doubt), (event.file, event.offset), "", event.text, recorded.seq)
        case e.ServerEnded():
            seen = Observation(Kind.ENDED, ("process", event.change), "", event.text, recorded.seq)
        case _:
            raise TypeError(event.kind)
    key = watch_key(event.watch)
    gate = state.gates.get(key, _NOTHING)
    return _with_gate(state, key, replace(gate, observations=(*gate.observations, seen)))


def _gate(state: RunState, recorded: Recorded) -> RunState:
    event = recorded.event
    match event:
        case e.ProbeAnswered() | e.GateConfirmed() | e.EvidenceAttached() | e.OutcomeReached():
            pass
        case e.ApprovalSigned() | e.ApprovalRejected() | e.ApprovalLapsed() | e.VerdictContradicted():
            pass
        case _:
            raise TypeError(event.kind)
    key = (event.step, event.visit, event.gate)
    gate = state.gates.get(key, _NOTHING)
    match event:
        case e.ProbeAnswered():
            gate = replace(gate, probe=recorded)
        case e.GateConfirmed():
            gate = replace(gate, confirmations=(*gate.confirmations, recorded))
        case e.EvidenceAttached():
            gate = replace(gate, evidence=(*gate.evidence, recorded))
        case e.OutcomeReached():
            gate = replace(gate, outcome=recorded)
        case e.ApprovalSigned():
            gate = replace(
                gate,
                signatures=(*gate.signatures, recorded),
                lapsed=gate.lapsed - {recorded.by.id},
                rejection=None,
            )
        case e.ApprovalRejected():
            gate = replace(gate, rejection=recorded)
        case e.ApprovalLapsed():
            gate = replace(gate, lapsed=gate.lapsed | {event.signer})
        case e.VerdictContradicted():
            gate = replace(gate, contradicted=gate.contradicted | {event.line})
    return _with_gate(state, key, gate)


def _request(state: RunState, recorded: Recorded) -> RunState:
    """A request runs out of time, or begins anew. What was signed for the one before does not count for the next."""
    event = recorded.event
    if not isinstance(event, e.ApprovalExpired | e.ApprovalAsked):
        raise TypeError(event.kind)
    key = (event.step, event.visit, event.gate)
    gate = state.gates.get(key, _NOTHING)
    gate = replace(gate, lapsed=frozenset(signed.by.id for signed in gate.signatures))
    if isinstance(event, e.ApprovalExpired) and event.result != "lapse":
        return _with_gate(state, key, replace(gate, expired=recorded))
    anew = replace(gate, rejection=None, expired=None, asked_at=recorded.at, rounds=gate.rounds + 1)
    return _with_gate(state, key, anew)


def _held_by(state: RunState, recorded: Recorded) -> RunState:
    event = recorded.event
    match event:
        case e.StepTaken():
            holder = recorded.by
        case e.StepHandedOver():
            holder = Actor(event.to_id, event.to_name, roles=("operator",))
        case _:
            raise TypeError(event.kind)
    at = replace(state.steps[event.step], holder=holder)
    return replace(state, steps={**state.steps, event.step: at})


def _burden(state: RunState, recorded: Recorded) -> RunState:
    event = recorded.event
    match event:
        case e.ExposureOpened():
            opened = Burden(f"exposure:{event.exposure}", event.step, recorded.at)
            return replace(state, burdens={**state.burdens, opened.id: opened})
        case e.DutyOwed():
            owed = Burden(f"duty:{event.duty}", event.step, recorded.at, title=event.title)
            return replace(state, burdens={**state.burdens, owed.id: owed})
        case e.BurdenInherited():
            owner = Actor(event.owner_id, event.owner_name) if event.owner_id else None
            since = datetime.fromisoformat(event.since)
            left = Burden(event.burden, state.current or "", since, owner, event.title)
            return replace(state, burdens={**state.burdens, left.id: left})
        case e.TakenOver():
            taken = replace(state.burdens[event.burden], owner=recorded.by)
            return replace(state, burdens={**state.burdens, taken.id: taken})
        case e.ExposureMarked(exposure=exposure, percent=percent, limit=limit):
            burden = state.burdens[f"exposure:{exposure}"]
            marked = replace(burden, marks=(*burden.marks, (percent, limit)))
            return replace(state, burdens={**state.burdens, marked.id: marked})
        case e.ExposureClosed():
            return _closed(state, recorded, f"exposure:{event.exposure}", event.text)
        case e.DutyDone():
            return _closed(state, recorded, f"duty:{event.duty}", event.text)
        case _:
            raise TypeError(event.kind)


def _closed(state: RunState, recorded: Recorded, burden_id: str, text: str) -> RunState:
    rest = {name: burden for name, burden in state.burdens.items() if name != burden_id}
    closed = ClosedBurden(state.burdens[burden_id], recorded.at, recorded.by, text)
    return replace(state, burdens=rest, closed=(*state.closed, closed))


def _deviation(state: RunState, recorded: Recorded) -> RunState:
    event = recorded.event
    match event:
        case e.DeviationAsked():
            asked = Deviation(
                number=event.number,
                what=event.what,
                step=event.step,
                visit=event.visit,
                gate=event.gate,
                reason=event.reason,
                doubt=event.doubt,
                asked_by=recorded.by,
                asked_at=recorded.at,
                fact=event.fact,
                value=event.value,
            )
            return replace(state, deviations={**state.deviations, asked.number: asked})
        case e.DeviationRejected():
            return _decided(state, recorded, event.number, signed=False, comment=event.reason)
        case e.OverrideReviewed(number=e.WHOLE_RUN):
            return replace(state, review=recorded)
        case e.OverrideReviewed():
            reviewed = replace(state.deviations[event.number], review=recorded)
            return replace(state, deviations={**state.deviations, event.number: reviewed})
        case e.DeviationSigned():
            asked = state.deviations[event.number]
            asked = replace(asked, signatures=(*asked.signatures, recorded))
            state = replace(state, deviations={**state.deviations, event.number: asked})
            if not event.decides:
                return state
            state = _decided(state, recorded, event.number, signed=True, comment=event.comment)
            if asked.what == "doubt":
                return replace(state, set_aside=state.set_aside | {asked.doubt})
            if asked.what in ("override", "emergency"):
                key = (asked.step, asked.visit, asked.gate)
                gate = state.gates.get(key, _NOTHING)
                return _with_gate(state, key, replace(gate, overridden_by=asked.number))
            return state
        case _:
            raise TypeError(event.kind)


def _decided(state: RunState, recorded: Recorded, number: int, *, signed: bool, comment: str) -> RunState:
    decided = replace(state.deviations[number], decided_by=recorded.by, signed=signed, comment=comment)
    return replace(state, deviations={**state.deviations, number: decided})
