"""A run as one person looks at it: the folded events, and how the parts of the page ask them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from upgrades.domain import run as core
from upgrades.domain.log_events import visible
from upgrades.domain.procedure import Procedure, Step
from upgrades.domain.refusal import NotAllowed, Refused
from upgrades.domain.run_events import Actor, Recorded
from upgrades.domain.run_state import RunState
from upgrades.domain.wording import fill
from upgrades.queries.run_page.shapes import May, Segment, Sentence, Source

ENOUGH = "x" * core.REASON  # stands for what the person would write


@dataclass(frozen=True)
class Sight:
    """The run's procedure, history and state, who looks, and when."""

    procedure: Procedure
    history: tuple[Recorded, ...]
    state: RunState
    me: Actor
    now: datetime
    numbers: Mapping[str, str] = field(default_factory=dict)
    members: tuple[Actor, ...] = ()  # everybody with a role here now; left out when the run is over

    @cached_property
    def by_seq(self) -> dict[int, Recorded]:
        return {item.seq: item for item in self.history}

    @cached_property
    def names(self) -> dict[str, str]:
        """Names of everybody who appears in the record, by id."""
        return {item.by.id: item.by.name for item in self.history}

    def say(self, text: str) -> str:
        """A text of the procedure with this run's facts in it."""
        return visible(fill(text, self.state.facts))

    def plain(self, text: str) -> str:
        """The same for a title: without the backticks that mark code."""
        return self.say(text).replace("`", "")

    def title(self, step: str) -> str:
        return self.plain(self.procedure.step(step).title) if self.procedure.has_step(step) else step

    def label(self, step: str) -> str:
        """“step 6”, or the title of a step that has no number."""
        number = self.numbers.get(step, "")
        return f"step {number}" if number and number != "–" else f"“{self.title(step)}”" if step else ""

    def named(self, step: str) -> str:
        """“step 6, “Launch …””, or the title alone of a step that has no number."""
        number = self.numbers.get(step, "")
        title = f"“{self.title(step)}”"
        return f"step {number}, {title}" if number and number != "–" else title

    def may(self, command: core.Command) -> May:
        """The core's answer to `command`, so that what is offered is what would be accepted."""
        try:
            core.decide(self.procedure, self.state, command, self.me)
        except NotAllowed as refusal:
            return May(allowed=False, why=refusal.message, mine=False)
        except Refused as refusal:
            return May(allowed=False, why=refusal.message)
        return May(allowed=True)

    def sentence(self, text: str) -> Sentence:
        """`text` with its facts, cut at backticks: every second piece is code."""
        pieces = self.say(text).split("`")
        return tuple(Segment(piece, code=place % 2 == 1) for place, piece in enumerate(pieces) if piece)

    def sources(self, ids: Iterable[str], step: Step) -> tuple[Source, ...]:
        return tuple(Source(source, f"step-{step.id}") for source in ids)


def clock(span: timedelta | float) -> str:
    """“6:12” or “1:04:09”."""
    seconds = max(0, int(span.total_seconds() if isinstance(span, timedelta) else span))
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"


def spoken(seconds: float) -> str:
    """“25 min”, “1 h 05 min”, “40 s”."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes:02} min" if minutes else f"{hours} h"
    return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
