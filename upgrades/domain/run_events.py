"""What can happen in a run. A run is its events; nothing else is true of it.

Each event turns into a JSON-ready body and back. `EVENT_FORMAT` is the format of the bodies; a body of an older
format is brought up to date in `_UPCASTS`, step by step, so that runs of earlier releases still load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, ClassVar

from upgrades.domain.condition import Fact
from upgrades.domain.frozen import maker, positional_maker, replace

EVENT_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acted, with name and roles as they were then. `kind` is person, worker or system.

    Among the roles stand the groups (`group:database`). `stands_for` are those whose deputy this person is at this
    moment; it is not stored with what the person does, a signature says itself for whom it was given. `token` is the
    id of the API token through which the person acts, which makes nobody another person; empty on the pages.
    `unconfirmed` are the roles that no second administrator has confirmed, each with when it was given; not stored.
    """

    id: str
    name: str
    kind: str = "person"
    roles: tuple[str, ...] = ()
    stands_for: tuple[Actor, ...] = ()
    token: str = field(default="", compare=False)
    unconfirmed: tuple[tuple[str, datetime], ...] = field(default=(), compare=False)

    @property
    def how(self) -> str:
        """The name, and through what, for lists and reports."""
        return f"{self.name} (API token {self.token})" if self.token else self.name

    def late(self, started_at: datetime) -> tuple[str, ...]:
        """The roles that came while a run that started then was under way: they sign nothing in it (trust.md 10.1)."""
        return tuple(role for role, given_at in self.unconfirmed if given_at > started_at)

    def signing(self, started_at: datetime) -> Actor:
        """As whom this person signs in a run that started then: without late roles, own ones and those stood in for."""
        late = self.late(started_at)
        return replace(
            self,
            roles=tuple(role for role in self.roles if role not in late),
            stands_for=tuple(person.signing(started_at) for person in self.stands_for),
        )

    def why_late(self, started_at: datetime) -> str:
        """What keeps late roles from signing, for the person who asks; empty where there are none."""
        return " ".join(
            f"The role {', '.join(sorted(late))} came to {person.name} after this run had started, so it signs nothing in "
            "it until a second administrator has confirmed it."
            for person in (self, *self.stands_for)
            if (late := person.late(started_at))
        )

    @property
    def as_recorded(self) -> Actor:
        """The actor as the record has it, and as whoever reads the record gets it back."""
        return from_stored(stored(self))


def stored(actor: Actor) -> dict[str, Any]:
    """The actor as records have it; who acts on the pages has no token there."""
    told: dict[str, Any] = {
        "id": actor.id,
        "name": actor.name,
        "kind": actor.kind,
        "roles": sorted(actor.roles),
    }
    return {**told, "token": actor.token} if actor.token else told


def from_stored(told: Mapping[str, Any]) -> Actor:
    """The actor that `stored` wrote."""
    return _actor(told["id"], told["name"], told["kind"], tuple(told["roles"]), (), told.get("token", ""), ())


_actor = positional_maker(Actor)


WORKER = Actor(id="worker", name="Runbook worker", kind="worker")


@dataclass(frozen=True, slots=True)
class Bound:
    """The application that plays a role in this run, with its facts at the start."""

    application: str
    application_type: str
    host: str
    version: str


EMERGENCY = "emergency"
CATEGORIES = ("standard", "normal", EMERGENCY)  # of a change, as change management calls them
DEVIATIONS = ("skip", "override", "doubt", "correct", EMERGENCY)  # what a deviation may be asked for
WHOLE_RUN = 0  # in the place of an override's number: the run itself


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    kind: ClassVar[str] = "run.started"
    procedure: str
    procedure_version: int
    procedure_hash: str
    title: str
    environment: int
    environment_name: str
    rehearsal: bool
    bindings: dict[str, Bound]
    facts: dict[str, Fact]
    policies: dict[str, dict[str, Any]]
    authors: list[str]
    change: str = ""
    category: str = "normal"  # of the change: one of CATEGORIES
    reason: str = ""  # why it is done and what it is expected to touch
    clocks: dict[str, int] = field(
        default_factory=dict
    )  # host -> ms that its clock was ahead when the run started
    rehearsal_of: str = ""
    takes_back: int = 0  # the run whose work this one takes back
    # Group -> its members in order: their `key`, and which role of the run is `each`, `beside` and `peer` for it.
    groups: dict[str, list[dict[str, str]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEntered:
    """The step became the current one. `visit` counts the times (a branch may lead back)."""

    kind: ClassVar[str] = "step.entered"
    step: str
    visit: int


# Beside the files of a watermark: what was known by then, as the number of the last gap in the log and of the last change
# of the process. Times would not do: a clock that is set back makes what comes later look older.
GAPS, CHANGES = "gaps", "changes"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBegun:
    """The step began. `watermarks` per application: the end of each of its log files, by file identity, `GAPS` and
    `CHANGES` (the latter not in steps that began before there was such a mark).

    Only what lies behind a watermark counts. `totals` are the last known client totals, the baselines of CSH-8a.
    """

    kind: ClassVar[str] = "step.begun"
    step: str
    visit: int
    watermarks: dict[str, dict[str, int]] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSkipped:
    """By a branch of the procedure (`deviation` empty), or by a signed deviation."""

    kind: ClassVar[str] = "step.skipped"
    step: str
    visit: int
    reason: str
    deviation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCompleted:
    """The step ended well. `proof` says per gate what it rested on."""

    kind: ClassVar[str] = "step.completed"
    step: str
    visit: int
    proof: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLeft:
    """An outcome led away from the step before it was complete (CSH-6b)."""

    kind: ClassVar[str] = "step.left"
    step: str
    visit: int
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRestarted:
    """A person begins the step again: everything seen so far in this visit stops counting."""

    kind: ClassVar[str] = "step.restarted"
    step: str
    visit: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEventSeen:
    """A log event of a watched server, with the line itself and its place."""

    kind: ClassVar[str] = "log.event"
    watch: str
    application: str
    file: str
    offset: int
    event: str
    level: str
    logged_at: str
    text: str
    line_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDoubtful:
    """A gap, or a line of unknown format, behind the watermark; or a file with lines there that may be no log of this server.

    `doubt` is gap, unreadable or foreign.
    """

    kind: ClassVar[str] = "log.doubtful"
    watch: str
    application: str
    doubt: str
    file: str
    offset: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEnded:
    """The agent saw that the watched server's process went away. `change` is its number among the process changes."""

    kind: ClassVar[str] = "server.ended"
    watch: str
    application: str
    change: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLost:
    kind: ClassVar[str] = "agent.lost"
    host: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentBack:
    kind: ClassVar[str] = "agent.back"
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTotalSeen:
    kind: ClassVar[str] = "clients.total"
    application: str
    total: int
    file: str
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeAnswered:
    """What the agent found: `value` met, failed or cannot-tell, the sentence, and the raw answer."""

    kind: ClassVar[str] = "probe.answered"
    step: str
    visit: int
    gate: str
    value: str
    text: str
    answer: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeReached:
    kind: ClassVar[str] = "gate.outcome"
    step: str
    visit: int
    gate: str
    outcome: str
    lines: list[int]  # seq of the events that it rests on


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictContradicted:
    kind: ClassVar[str] = "gate.contradicted"
    step: str
    visit: int
    gate: str
    reason: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfirmed:
    """A person's statement: `answer` is pass, fail or not-tested."""

    kind: ClassVar[str] = "gate.confirmed"
    step: str
    visit: int
    gate: str
    answer: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceAttached:
    """A file (`sha256`, `size`, `evidence` is its row) or a text. `gate` is empty for a file attached to the step."""

    kind: ClassVar[str] = "evidence.attached"
    step: str
    visit: int
    gate: str
    name: str = ""
    sha256: str = ""
    size: int = 0
    evidence: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalSigned:
    """A signature over the digest of what was shown. `proof`: how the signer had just shown who signs."""

    kind: ClassVar[str] = "approval.signed"
    step: str
    visit: int
    gate: str
    digest: str
    comment: str = ""
    proof: str = ""
    ahead: bool = False  # given before the step was current: it covers the plan alone (gates.shown_ahead)
    for_id: str = ""  # a deputy signs for this person, under the roles of that person
    for_name: str = ""
    for_roles: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRejected:
    kind: ClassVar[str] = "approval.rejected"
    step: str
    visit: int
    gate: str
    digest: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalLapsed:
    """What was signed is no longer what is shown; the signature stays in the record as lapsed."""

    kind: ClassVar[str] = "approval.lapsed"
    step: str
    visit: int
    gate: str
    signer: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalExpired:
    """The request was not decided within `after` seconds. `result` is lapse, reject or hold; never more than that."""

    kind: ClassVar[str] = "approval.expired"
    step: str
    visit: int
    gate: str
    after: int
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalAsked:
    """After a rejection, or when time ran out, somebody asks again: a new request, for which nobody has signed."""

    kind: ClassVar[str] = "approval.asked"
    step: str
    visit: int
    gate: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTaken:
    """A person takes the step, with a reason when somebody else holds it."""

    kind: ClassVar[str] = "step.taken"
    step: str
    visit: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepHandedOver:
    """Who holds the step gives it to another operator."""

    kind: ClassVar[str] = "step.handed-over"
    step: str
    visit: int
    to_id: str
    to_name: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRefused:
    """Somebody tried what they may not do. `act` names the command."""

    kind: ClassVar[str] = "attempt.refused"
    act: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FactSet:
    kind: ClassVar[str] = "fact.set"
    name: str
    value: Fact
    step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureOpened:
    kind: ClassVar[str] = "exposure.opened"
    exposure: str
    step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureClosed:
    kind: ClassVar[str] = "exposure.closed"
    exposure: str
    step: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureMarked:
    """An open exposure has lasted `percent` of the `limit` (seconds) that it had then."""

    kind: ClassVar[str] = "exposure.mark"
    exposure: str
    percent: int
    limit: int
    passed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DutyOwed:
    kind: ClassVar[str] = "duty.owed"
    duty: str
    title: str
    step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DutyDone:
    kind: ClassVar[str] = "duty.done"
    duty: str
    text: str = ""
    step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver:
    """A second person takes an open exposure or duty over by name: it stands on the environment from here."""

    kind: ClassVar[str] = "burden.taken-over"
    burden: str  # "exposure:read-only" or "duty:upgrade-the-peer"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BurdenInherited:
    """An exposure or duty that another run left open goes on here, with its own beginning and, if it has one, its owner."""

    kind: ClassVar[str] = "burden.inherited"
    burden: str
    title: str
    since: str  # ISO 8601
    from_run: int
    owner_id: str = ""
    owner_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviationAsked:
    """`what`, one of DEVIATIONS, is skip (the step), override (the gate), doubt (the gap or line recorded as event
    `doubt`), correct (the fact becomes `value`), or emergency (go on without the signatures that `gate` asks for)."""

    kind: ClassVar[str] = "deviation.asked"
    number: int
    what: str
    step: str
    visit: int
    gate: str
    reason: str
    doubt: int = 0
    fact: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviationSigned:
    """`decides`: with this signature the deviation has all that its policy asks for."""

    kind: ClassVar[str] = "deviation.signed"
    number: int
    comment: str = ""
    proof: str = ""
    decides: bool = True
    for_id: str = ""
    for_name: str = ""
    for_roles: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideReviewed:
    """An auditor has looked into an emergency and closes its review; the mark on the run stays.

    `number` is that of the overridden approval, or `WHOLE_RUN` where the run itself was an emergency change.
    """

    kind: ClassVar[str] = "override.reviewed"
    number: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviationRejected:
    kind: ClassVar[str] = "deviation.rejected"
    number: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteAdded:
    kind: ClassVar[str] = "note.added"
    step: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHeld:
    kind: ClassVar[str] = "run.held"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResumed:
    kind: ClassVar[str] = "run.resumed"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunGoneOver:
    """The run goes on under another text: it enters the steps `through` first, and keeps what is done."""

    kind: ClassVar[str] = "run.gone-over"
    procedure: str
    procedure_version: int
    procedure_hash: str
    authors: list[str]
    through: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunClosing:
    """The last step is behind; the run ends as `ending` once no exposure or duty is left without an owner."""

    kind: ClassVar[str] = "run.closing"
    ending: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """`ending` as the procedure names it: completed, compatible."""

    kind: ClassVar[str] = "run.ended"
    ending: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRolledBack:
    """The run is over: run `by_run` takes back what it did, and carries on what it had open."""

    kind: ClassVar[str] = "run.rolled-back"
    by_run: int
    procedure: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAborted:
    kind: ClassVar[str] = "run.aborted"
    reason: str


RunEvent = (
    RunStarted
    | StepEntered
    | StepBegun
    | StepSkipped
    | StepCompleted
    | StepLeft
    | StepRestarted
    | LogEventSeen
    | LogDoubtful
    | ServerEnded
    | AgentLost
    | AgentBack
    | ClientTotalSeen
    | ProbeAnswered
    | OutcomeReached
    | VerdictContradicted
    | GateConfirmed
    | EvidenceAttached
    | ApprovalSigned
    | ApprovalRejected
    | ApprovalLapsed
    | ApprovalExpired
    | ApprovalAsked
    | StepTaken
    | StepHandedOver
    | AttemptRefused
    | FactSet
    | ExposureOpened
    | ExposureClosed
    | ExposureMarked
    | DutyOwed
    | DutyDone
    | TakenOver
    | BurdenInherited
    | DeviationAsked
    | DeviationSigned
    | DeviationRejected
    | OverrideReviewed
    | NoteAdded
    | RunHeld
    | RunResumed
    | RunGoneOver
    | RunClosing
    | RunEnded
    | RunRolledBack
    | RunAborted
)

EVENT_TYPES: dict[str, type[RunEvent]] = {cls.kind: cls for cls in RunEvent.__args__}

_MAKERS: dict[str, Callable[..., RunEvent]] = {kind: maker(made) for kind, made in EVENT_TYPES.items()}

# format -> what turns a body of that format into one of the next
_UPCASTS: dict[int, Callable[[str, dict[str, Any]], dict[str, Any]]] = {}


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event in its place: its number in the run, when it was written, and who caused it."""

    seq: int
    at: datetime
    by: Actor
    event: RunEvent


def to_body(event: RunEvent) -> dict[str, Any]:
    """The JSON-ready fields of `event` (without its kind)."""
    return {item.name: _plain(getattr(event, item.name)) for item in fields(event)}


def _plain(value: Any) -> Any:
    if isinstance(value, Bound):
        return {item.name: getattr(value, item.name) for item in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return value


def from_body(kind: str, body: dict[str, Any], event_format: int = EVENT_FORMAT) -> RunEvent:
    """The event that `to_body` wrote; bodies of older formats are brought up to date first."""
    for step in range(event_format, EVENT_FORMAT):
        body = _UPCASTS[step](kind, body)
    if kind == RunStarted.kind:
        bindings = {role: Bound(**bound) for role, bound in body["bindings"].items()}
        body = {**body, "bindings": bindings}
    return _MAKERS[kind](**body)
