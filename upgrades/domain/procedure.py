"""A procedure as data: what its text (YAML) means once it is read and found sound.

Nothing here runs; `run.py` carries a procedure out. Names of application roles (“new”, “old”) are bound to
applications of an environment when a run starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from upgrades.domain.condition import Condition

Sources = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A part that an application of the environment plays in a run. It is of one of `application_types`."""

    name: str
    title: str
    application_types: tuple[str, ...]
    standing: str = ""  # "primary", "backup", "standalone", or "" for any
    pair_of: str | None = None

    @property
    def application_type(self) -> str:
        """“SCS or MessageServer”."""
        return " or ".join(self.application_types)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Applications for each of which a run carries out the same steps, one after the other (`groups.py`).

    Either all of a type, or, with `pair_of`, the server that plays that role and its peer: the running backup first.
    With `beside`, only those on whose host a server of that type stands which runs as one of `runs` (`none`: no such
    server), in the order in which these are written. `only` names a parameter that lists hosts; empty, it leaves none out.
    """

    name: str
    title: str
    application_type: str = ""
    pair_of: str | None = None
    beside: str = ""
    runs: tuple[str, ...] = ()
    when: Condition | None = None
    only: str | None = None


class ParameterType(StrEnum):
    VERSION = "version"
    BOOLEAN = "boolean"
    NUMBER = "number"
    TEXT = "text"
    DATE = "date"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A question of the start dialog; its answer is a fact of the run under the parameter's name."""

    name: str
    title: str
    type: ParameterType
    help: str = ""
    source: Sources = ()
    default_from: str | None = (
        None  # a fact of the environment, such as `environment.target.ConfigurationServer`
    )
    default: str = ""
    required_when: Condition | None = None
    required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureKind:
    """A period in which the system is weaker: what it is called and how long it may last, in seconds.

    `maximum_from` names the fact that holds the maximum: the exposure is a countdown, and follows that fact.
    `copy_of` is its id in the text when it is one of several, a copy for a member of a group; `family` is then what
    all of them are called.
    """

    id: str
    title: str
    text: str
    source: Sources
    expected: int | None = None
    maximum: int | None = None
    maximum_from: str | None = None
    copy_of: str = ""
    family: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DutyKind:
    """Something owed to the environment that outlives the run."""

    id: str
    title: str
    source: Sources


class Moment(StrEnum):
    BEGIN = "begin"
    COMPLETE = "complete"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureChange:
    exposure: str
    at: Moment
    when: Condition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """A duty that a step creates (`owes`) or fulfils (`fulfils`), when it completes unless `at` says otherwise."""

    duty: str
    at: Moment = Moment.COMPLETE
    when: Condition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A fact that is true once the step is complete, such as `new.mode` = `upgrade-mode`. `to` may name a fact."""

    set: str
    to: str
    when: Condition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something the reader must know at this step; `warn` makes it stand out."""

    text: str
    source: Sources
    warn: bool = False
    when: Condition | None = None


# What follows an outcome or a step.


@dataclass(frozen=True, slots=True)
class GoOn:
    """The next step of the procedure."""


@dataclass(frozen=True, slots=True)
class GoTo:
    step: str


@dataclass(frozen=True, slots=True)
class PutOnHold:
    reason: str


@dataclass(frozen=True, slots=True)
class EndRun:
    """The run ends under this name (“completed”, “compatible”)."""

    ending: str


@dataclass(frozen=True, slots=True)
class GoOver:
    """The run goes on under another text, and what is done stays done (CSM-4b).

    It enters the steps `through` in this order, then goes on as that text says and passes over what was done before.
    `text_hash` and `authors` are those of that text.
    """

    procedure: str
    version: int
    through: tuple[str, ...]
    text_hash: str = ""
    authors: tuple[str, ...] = ()


Follow = GoOn | GoTo | PutOnHold | EndRun | GoOver


# Event rules (design.md section 5).


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Events in this order, each “one of”; what must not stand between or before; and what follows."""

    id: str
    title: str
    source: Sources
    events: tuple[frozenset[str], ...]
    follow: Follow
    none_between: frozenset[str] = frozenset()
    none_before: frozenset[str] = frozenset()
    when: Condition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRule:
    """What the log of one server must show after the watermark.

    `normal` are events that may stand anywhere: counted and shown, never an error. `quiet_after` (seconds) is the
    time after which the page asks a person; it never decides. After the verdict the rule keeps its watch until
    step `watch_until` begins (to the end of the run when None).
    """

    server: str
    outcomes: tuple[Outcome, ...]
    normal: tuple[tuple[str, str], ...] = ()
    titles: tuple[tuple[str, str], ...] = ()
    quiet_after: int | None = None
    hold_on_end: bool = True
    watch_until: str | None = None

    @property
    def numbers(self) -> frozenset[str]:
        """Every event that the rule counts, forbids or tolerates."""
        found: set[str] = {event for event, _ in self.normal}
        for outcome in self.outcomes:
            found |= frozenset().union(*outcome.events) | outcome.none_between | outcome.none_before
        return frozenset(found)


# Gates.


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseGate:
    id: str
    title: str
    source: Sources
    when: Condition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmGate(BaseGate):
    """A person states it: pass, fail or not tested, with text. Only pass opens."""

    ask: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckGate(BaseGate):
    """The facts say so."""

    condition: Condition
    otherwise: str


class Probe(StrEnum):
    PROCESS_UP = "process-up"
    PROCESS_DOWN = "process-down"
    FOLDER_EXISTS = "folder-exists"
    NAMES_EQUAL = "names-equal"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeGate(BaseGate):
    """The agent looked and it is so."""

    server: str
    probe: Probe
    folder: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceGate(BaseGate):
    """A file or a text of the demanded kind is attached."""

    accepts: frozenset[str]  # of {"file", "text"}
    ask: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventGate(BaseGate):
    """An outcome of the rule is reached."""

    rule: EventRule


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientsGate(BaseGate):
    """All clients have moved: by reconnection of all, or by both servers' totals (CSH-8a).

    The baseline is the last total of `leaving` that its log shows when step `baseline` begins.
    """

    leaving: str
    joining: str
    baseline: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalGate(BaseGate):
    """N of M people sign this content; who and how many is the environment's policy of that name."""

    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WayBackItem:
    """One thing that the way back needs, and the earlier gate whose evidence shows that it is there."""

    title: str
    step: str
    gate: str
    when: Condition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WayBackGate(BaseGate):
    """The rollback that is possible now, with the evidence that it is."""

    items: tuple[WayBackItem, ...]


Gate = (
    ConfirmGate | CheckGate | ProbeGate | EvidenceGate | EventGate | ClientsGate | ApprovalGate | WayBackGate
)


class Completes(StrEnum):
    BY_PERSON = "by-person"
    BY_ITSELF = "by-itself"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step. `needs` must be met before it begins, `gates` before it completes.

    A step that stops, replaces or overwrites something (`destroys`) must need a way back. An `aside` is reached
    only by a branch. A step with `needs` of approval or way back is begun by a person: approving and starting are
    two acts.
    """

    id: str
    title: str
    source: Sources
    phase: str
    do: tuple[str, ...]
    notices: tuple[Notice, ...] = ()
    when: Condition | None = None
    otherwise: str = ""
    needs: tuple[Gate, ...] = ()
    gates: tuple[Gate, ...] = ()
    opens: tuple[ExposureChange, ...] = ()
    closes: tuple[ExposureChange, ...] = ()
    effects: tuple[Effect, ...] = ()
    owes: tuple[Owed, ...] = ()
    fulfils: tuple[Owed, ...] = ()
    aside: bool = False
    numbered: bool = True
    destroys: bool = False
    completes: Completes = Completes.BY_PERSON
    then: Follow = field(default_factory=GoOn)
    expected: int | None = None  # seconds
    for_each: str | None = None  # the group; steps of one group that follow each other are repeated together
    copy_of: str = ""  # its id in the text, when it is the copy for one member
    cast: tuple[tuple[str, str], ...] = ()  # each, beside, peer -> the role of the run that this member has

    @property
    def begun_by_person(self) -> bool:
        return any(isinstance(gate, ApprovalGate | WayBackGate) for gate in self.needs)

    @property
    def event_gates(self) -> tuple[EventGate, ...]:
        return tuple(gate for gate in self.gates if isinstance(gate, EventGate))

    @property
    def all_gates(self) -> tuple[Gate, ...]:
        return self.needs + self.gates

    def gate(self, gate_id: str) -> Gate | None:
        return next((gate for gate in self.all_gates if gate.id == gate_id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Procedure:
    """A published, versioned text. `text_hash` is the SHA-256 of the YAML file that it was read from."""

    id: str
    version: int
    title: str
    summary: str
    source: Sources
    authors: tuple[str, ...]
    component: str
    parameters: tuple[Parameter, ...]
    exposures: tuple[ExposureKind, ...]
    steps: tuple[Step, ...]
    duties: tuple[DutyKind, ...] = ()
    roles: tuple[Role, ...] = ()
    groups: tuple[Group, ...] = ()
    offered_when: Condition | None = None
    text_hash: str = ""

    def step(self, step_id: str) -> Step:
        return next(step for step in self.steps if step.id == step_id)

    def has_step(self, step_id: str) -> bool:
        return any(step.id == step_id for step in self.steps)

    def exposure(self, exposure_id: str) -> ExposureKind:
        return next(kind for kind in self.exposures if kind.id == exposure_id)

    def group(self, name: str) -> Group:
        return next(group for group in self.groups if group.name == name)

    def duty(self, duty_id: str) -> DutyKind:
        return next(kind for kind in self.duties if kind.id == duty_id)

    def after(self, step_id: str) -> Step | None:
        """The next step in the order of the text that is no aside, or None at the end."""
        ids = [step.id for step in self.steps]
        rest = self.steps[ids.index(step_id) + 1 :]
        return next((step for step in rest if not step.aside), None)

    def numbers(self) -> Iterator[tuple[str, str]]:
        """Step ids with the number that the page shows: 1, 2, 3; an aside has its predecessor's with a letter."""
        count, letter = 0, 0
        for step in self.steps:
            if not step.numbered:
                yield step.id, "–"
            elif step.aside:
                letter += 1
                yield step.id, f"{count}{'abcdefghij'[letter - 1]}"
            else:
                count, letter = count + 1, 0
                yield step.id, str(count)


def goings_over(procedure: Procedure) -> Iterator[GoOver]:
    """Every way in which a run can leave this text for another one."""
    for step in procedure.steps:
        outcomes = (outcome.follow for gate in step.event_gates for outcome in gate.rule.outcomes)
        yield from (follow for follow in (*outcomes, step.then) if isinstance(follow, GoOver))
