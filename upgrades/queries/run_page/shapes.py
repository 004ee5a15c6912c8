"""What the page of a run shows, as plain values. Texts are filled and free of invisible characters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from upgrades.domain.run_events import EMERGENCY


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a sentence of the procedure; `code` is what a person types."""

    text: str
    code: bool = False


Sentence = tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class May:
    """The core's own answer to “could this person do that now?”: its refusal is `why`.

    `mine` is False when the person lacks the right altogether: then nothing is offered.
    """

    allowed: bool
    why: str = ""
    mine: bool = True


@dataclass(frozen=True, slots=True)
class Review:
    """What an auditor found afterwards; `by` is empty while nobody has looked. `close`: may this person do it now?"""

    close: May
    by: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """An id of the source document and where the procedure's page cites it."""

    id: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Tile:
    """An exposure or the way back, in the shape of components/exposure.html."""

    label: str
    state: str
    note: str
    value: str = ""
    since: datetime | None = None
    limit: int | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class DialogAnswer:
    """An answer of the start dialog that can be corrected."""

    name: str
    title: str
    value: str


@dataclass(frozen=True, slots=True)
class StepRow:
    """A line of the list of steps, in the shape of components/step_list.html."""

    id: str
    number: str
    title: str
    state: str
    note: str = ""
    url: str = ""
    took: str = ""
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Phase:
    title: str
    steps: tuple[StepRow, ...]


@dataclass(frozen=True, slots=True)
class Station:
    ids: str
    text: str
    state: str
    note: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Other:
    """Another outcome of the rule, or an event that is normal and counted."""

    label: str
    ids: str
    text: str
    chip: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """A gap or an unreadable line that keeps a gate from telling."""

    seq: int
    what: str
    text: str
    may: May
    asked: int = 0


@dataclass(frozen=True, slots=True)
class NameRow:
    """One of the three names that must be the same (section, Application, `-s`)."""

    label: str
    value: str
    agrees: bool


@dataclass(frozen=True, slots=True)
class File:
    """A file or a text that somebody attached."""

    id: int
    name: str
    size: int
    sha256: str
    text: str
    by: str
    at: datetime
    step: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody stated at a confirm gate."""

    answer: str
    text: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Total:
    """A server's client count: before, and now (None: its log shows none)."""

    server: str
    before: int | None
    now: int | None
    wanted: str


@dataclass(frozen=True, slots=True)
class Signature:
    by: str
    roles: tuple[str, ...]
    at: datetime
    comment: str
    digest: str
    valid: bool
    step: str = ""
    title: str = ""
    rejected: bool = False
    deputy_of: str = ""
    ahead: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """One thing that a signature covers."""

    label: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """An approval with all that is needed to decide it. `missing`: whom it waits for, and how many.

    `could` are the names of those who could sign now; `nobody_left` says who is missing even if all of them did.
    """

    whom: str
    needed: int
    signed: int
    missing: tuple[Shown, ...]
    signatures: tuple[Signature, ...]
    barred: tuple[Shown, ...]
    could: tuple[str, ...]
    covers: tuple[Shown, ...]
    facts: tuple[Shown, ...]
    digest: str
    ahead: bool
    closed: bool
    due_at: datetime | None
    due_result: str
    nobody_left: str
    sign: May
    reject: May
    ask_again: May
    override: May
    signed_by_me: bool


@dataclass(frozen=True, slots=True)
class WayBackRow:
    title: str
    ready: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRow:
    """A gate with its verdict, in the shape of components/gate_row.html, and the parts that its kind adds."""

    id: str
    kind: str
    title: str
    verdict: str
    reason: str
    sources: tuple[Source, ...] = ()
    stations: tuple[Station, ...] = ()
    others: tuple[Other, ...] = ()
    ruled_out: tuple[Other, ...] = ()
    since: datetime | None = None
    limit: int | None = None
    left: str = ""
    quiet: str = ""
    is_quiet: bool = False
    doubts: tuple[Doubt, ...] = ()
    names: tuple[NameRow, ...] = ()
    files: tuple[File, ...] = ()
    accepts: frozenset[str] = frozenset()
    ask: Sentence = ()
    answers: tuple[Answer, ...] = ()
    totals: tuple[Total, ...] = ()
    proof: str = ""
    approval: Approval | None = None
    way_back: tuple[WayBackRow, ...] = ()
    confirm: May = May(allowed=False, mine=False)
    attach: May = May(allowed=False, mine=False)
    override: May = May(allowed=False, mine=False)
    override_asked: int = 0

    @property
    def is_met(self) -> bool:
        return self.verdict == "met"


@dataclass(frozen=True, slots=True)
class AgentLine:
    """How far the agent has read the log of a watched server. `counted_from` is the watermark, `unread` bytes that are known
    to be there and were not read yet."""

    host: str
    application: str
    verdict: str
    trouble: str = ""
    seen_at: datetime | None = None
    position: int | None = None
    counted_from: int | None = None
    unread: int = 0
    is_old: bool = False  # there was no answer within two polls, and nobody has told why


@dataclass(frozen=True, slots=True)
class NoNews:
    """Hosts whose agents were not heard within two polls, the servers there, and since when at the longest."""

    hosts: str
    servers: str
    since: datetime


@dataclass(frozen=True, slots=True)
class NoticeRow:
    text: Sentence
    warn: bool
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentStep:
    """The step that the run stands at, in full."""

    id: str
    visit: int
    number: str
    title: str
    sources: tuple[Source, ...]
    chip: str
    tone: str
    begun: bool
    begun_at: datetime | None
    expected: str
    do: tuple[Sentence, ...]
    notices: tuple[NoticeRow, ...]
    needs: tuple[GateRow, ...]
    gates: tuple[GateRow, ...]
    agents: tuple[AgentLine, ...]
    files: tuple[File, ...]
    begin: May
    begins_by_itself: bool
    complete: May
    completes_by_itself: bool
    restart: May
    attach: May
    skip: May
    skip_asked: int
    destroys: bool
    holder: str = ""
    holder_is_me: bool = False
    only_holder: bool = False
    take: May = May(allowed=False, mine=False)
    hand_over: tuple[tuple[str, str], ...] = ()  # id and name of the operators who could have it

    @property
    def must_wait_to_begin(self) -> bool:
        return not self.begin.allowed

    @property
    def must_wait_to_complete(self) -> bool:
        return not self.complete.allowed


@dataclass(frozen=True, slots=True)
class Hold:
    reason: str
    since: datetime | None
    by: str
    resume: May


@dataclass(frozen=True, slots=True)
class BurdenRow:
    """An exposure or duty that is open, or was."""

    id: str
    kind: str
    title: str
    since: datetime
    step: str
    owner: str
    mine: bool
    take_over: May
    close: May
    closed_at: datetime | None = None
    closed_by: str = ""
    text: str = ""
    took: str = ""


@dataclass(frozen=True, slots=True)
class DeviationRow:
    """`signers` have signed; with `emergency` it is an override of an approval, and stays marked for ever."""

    number: int
    what: str
    reason: str
    asked_by: str
    asked_at: datetime
    decided_by: str
    comment: str
    status: str  # open, signed, rejected
    sign: May
    reject: May
    emergency: bool = False
    signers: tuple[str, ...] = ()
    needed: int = 1
    due_at: datetime | None = None
    review: May = May(allowed=False, mine=False)
    reviewed_by: str = ""
    review_text: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    text: str
    by: str
    at: datetime
    step: str


@dataclass(frozen=True, slots=True)
class Server:
    """A bound server, in the shape of components/server.html."""

    name: str
    place: str
    role: str
    tone: str
    down: bool
    plays: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    title: str
    left: Server
    right: Server | None
    link: str = ""
    link_text: str = ""
    link_tone: str = ""


@dataclass(frozen=True, slots=True)
class TailLine:
    clock: str
    number: str
    text: str
    kind: str
    server: str


@dataclass(frozen=True, slots=True)
class Tail:
    """The newest log lines of the bound servers, in the order in which they were read."""

    id: str
    server: str
    lines: tuple[TailLine, ...]

    @property
    def many(self) -> bool:
        return len({line.server for line in self.lines}) > 1


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    width: float
    end: float
    y: int
    label: str
    tone: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    x: float
    text: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Timeline:
    height: int
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    now: float | None


@dataclass(frozen=True, slots=True)
class Entry:
    """An event of the run in words. `quote` is what somebody or something else wrote."""

    seq: int
    at: datetime
    by: str
    by_kind: str
    text: str
    quote: str = ""
    tone: str = ""
    is_line: bool = False  # the quotation is a line of a log


@dataclass(frozen=True, slots=True)
class Account:
    """What became of a step: when, by whom, and on what proof."""

    id: str
    number: str
    title: str
    state: str
    visit: int
    begun_at: datetime | None
    ended_at: datetime | None
    took: str
    begun_by: str
    ended_by: str
    reason: str
    proof: tuple[Shown, ...]
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """Everything that the page of a run shows to one person at one version of the run."""

    id: int
    title: str
    version: int
    environment_id: int
    environment: str
    rehearsal: bool
    simulated: bool
    procedure: str
    procedure_id: str
    procedure_version: int
    procedure_hash: str
    change: str
    category: str
    reason: str
    starter: str
    starter_is_me: bool
    started_at: datetime
    ended_at: datetime | None
    took: str
    status: str
    status_text: str
    tone: str
    ending: str
    position: str
    roles: tuple[str, ...]
    can_roll_back: bool
    tiles: tuple[Tile, ...]
    phases: tuple[Phase, ...]
    step: CurrentStep | None
    hold: Hold | None
    burdens: tuple[BurdenRow, ...]
    closed: tuple[BurdenRow, ...]
    deviations: tuple[DeviationRow, ...]
    notes: tuple[Note, ...]
    no_news: NoNews | None
    parked_since: datetime | None  # workers that looked at this run died, one after the other
    pairs: tuple[Pair, ...]
    tail: Tail | None
    timeline: Timeline
    record: tuple[Entry, ...]
    record_more: int
    accounts: tuple[Account, ...]
    signatures: tuple[Signature, ...]
    files: tuple[File, ...]
    whole: bool
    head: str
    review: Review
    clocks: Mapping[str, int]
    answers: tuple[DialogAnswer, ...] = ()
    may: Mapping[str, May] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.status in ("ended", "aborted")

    @property
    def open_deviations(self) -> tuple[DeviationRow, ...]:
        return tuple(row for row in self.deviations if row.status == "open")

    @property
    def emergencies(self) -> tuple[DeviationRow, ...]:
        """The emergency overrides that were carried out."""
        return tuple(row for row in self.deviations if row.emergency and row.status == "signed")

    @property
    def is_emergency(self) -> bool:
        """Whether the run is an emergency change, not a rehearsal of one."""
        return self.category == EMERGENCY and not self.rehearsal

    @property
    def shows_burdens(self) -> bool:
        """While steps go on the exposures above say it all; what is owed, taken over or left at the end is listed."""
        return self.status == "closing" or any(row.owner or row.kind == "duty" for row in self.burdens)

    @property
    def begin_label(self) -> str:
        return f"Begin {self._named}"

    @property
    def complete_label(self) -> str:
        return f"Complete {self._named}"

    @property
    def _named(self) -> str:
        number = self.step.number if self.step is not None else ""
        return f"step {number}" if number and number != "–" else "this step"

    @property
    def acts(self) -> bool:
        """Whether there is anything at all that this person may do in the run."""
        return bool({"operator", "approver"} & set(self.roles))
