"""Following an event rule: observations of one server, one at a time, in file order (design.md section 5).

After each event the outcomes are tried in the order in which they are written; the first that is complete is the
verdict and stays. The result depends on the log alone: cutting the stream anywhere, repeating parts of it, or handing
over parts of a file in another order changes nothing, because an observation is known by its place in the log.

Matching is deliberately strict: the stations of an outcome are taken at their first possible event, and a forbidden
event rules the outcome out for good. Strict can only keep a gate shut that might have opened, never the reverse.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from upgrades.domain.condition import Facts, holds
from upgrades.domain.procedure import EventRule, Outcome, PutOnHold

APPLICATION_STARTED = "00-05060"


class Kind(StrEnum):
    EVENT = "event"
    ENDED = "ended"  # the process is gone
    GAP = "gap"  # lines that could not be read
    UNREADABLE = "unreadable"  # a line of unknown format
    FOREIGN = "foreign"  # a file that may be of another server, or a copy


@dataclass(frozen=True, slots=True)
class Observation:
    """Something seen of the server. `place` is its identity: (log file, offset); a repeat has the same place."""

    kind: Kind
    place: tuple[str, int]
    event: str = ""  # such as 21-25301
    text: str = ""
    seq: int = 0  # of the run event that recorded it; names a doubt


@dataclass(frozen=True, slots=True)
class Station:
    """One expected event of an outcome and where it was seen, if it was."""

    one_of: frozenset[str]
    seen: Observation | None = None


@dataclass(frozen=True, slots=True)
class Track:
    """How far one outcome has come."""

    outcome: Outcome
    stations: tuple[Station, ...]
    ruled_out: str = ""

    @property
    def next_station(self) -> Station | None:
        return next((station for station in self.stations if station.seen is None), None)

    @property
    def complete(self) -> bool:
        return not self.ruled_out and self.next_station is None


@dataclass(frozen=True, slots=True)
class RuleResult:
    """Where a rule stands: every outcome's track, what was counted, what is in doubt, and the verdict if there is one.

    `outcome` is the first complete outcome. `doubts` are the gaps and unreadable lines before it that nobody has
    set aside: while there are any, the outcome does not count. `ended` is set when the server went away before an
    outcome was reached. `contradictions` are what came after the verdict and speaks against it.
    """

    tracks: tuple[Track, ...]
    counts: tuple[tuple[str, int], ...] = ()
    outcome: Outcome | None = None
    doubts: tuple[Observation, ...] = ()
    ended: Observation | None = None
    contradictions: tuple[tuple[str, Observation], ...] = ()
    last: Observation | None = None


def follow_rule(
    rule: EventRule,
    observations: Iterable[Observation],
    facts: Facts,
    set_aside: frozenset[int] = frozenset(),
) -> RuleResult:
    """The state of `rule` after `observations`; `set_aside` are doubts that two people dismissed."""
    result = RuleResult(tracks=tuple(_track(outcome, facts) for outcome in rule.outcomes))
    started = 0
    for observation in in_file_order(observations):
        if observation.event == APPLICATION_STARTED:
            started += 1
            if started > 1:  # a second start within one watch: the server went away in between
                observation = replace(observation, kind=Kind.ENDED, text="it was started again")
        result = _take(rule, result, observation, set_aside)
    return result


def in_file_order(observations: Iterable[Observation]) -> list[Observation]:
    """The observations without repeats, those of each file in the order of that file; what is of none keeps its place."""
    first: dict[tuple[Kind, tuple[str, int]], Observation] = {}
    for seen in observations:
        first.setdefault((seen.kind, seen.place), seen)
    ordered = list(first.values())
    places: dict[str, list[int]] = {}
    for place, seen in enumerate(ordered):
        if seen.kind is not Kind.ENDED:
            places.setdefault(seen.place[0], []).append(place)
    for slots in places.values():
        in_file = sorted((ordered[slot] for slot in slots), key=lambda seen: seen.place[1])
        for slot, seen in zip(slots, in_file, strict=True):
            ordered[slot] = seen
    return ordered


def _track(outcome: Outcome, facts: Facts) -> Track:
    stations = tuple(Station(one_of) for one_of in outcome.events)
    allowed = True if outcome.when is None else holds(outcome.when, facts)
    if allowed is True:
        return Track(outcome, stations)
    reason = (
        "a fact that decides is not known" if allowed is None else "not in this run: the facts say otherwise"
    )
    return Track(outcome, stations, ruled_out=reason)


def _take(rule: EventRule, result: RuleResult, seen: Observation, set_aside: frozenset[int]) -> RuleResult:
    result = replace(result, last=seen)
    if result.outcome is not None:
        return _watch_on(rule, result, seen)
    if result.ended is not None:
        return result
    match seen.kind:
        case Kind.ENDED:
            return replace(result, ended=seen)
        case Kind.GAP | Kind.UNREADABLE | Kind.FOREIGN:
            return result if seen.seq in set_aside else replace(result, doubts=(*result.doubts, seen))
        case Kind.EVENT:
            return _take_event(rule, result, seen)


def _take_event(rule: EventRule, result: RuleResult, seen: Observation) -> RuleResult:
    tracks = tuple(_advance(track, seen) for track in result.tracks)
    reached = next((track.outcome for track in tracks if track.complete), None)
    return replace(result, tracks=tracks, counts=_counted(rule, result, seen), outcome=reached)


def _counted(rule: EventRule, result: RuleResult, seen: Observation) -> tuple[tuple[str, int], ...]:
    counts = dict(result.counts)
    if seen.event in dict(rule.normal):
        counts[seen.event] = counts.get(seen.event, 0) + 1
    return tuple(sorted(counts.items()))


def _advance(track: Track, seen: Observation) -> Track:
    outcome = track.outcome
    if track.ruled_out or track.next_station is None:
        return track
    begun = track.stations[0].seen is not None
    if seen.event in outcome.none_before:
        return replace(track, ruled_out=f"{seen.event} was seen")
    if begun and seen.event in outcome.none_between:
        return replace(track, ruled_out=f"{seen.event} was seen in between")
    if seen.event not in track.next_station.one_of:
        return track
    at = track.stations.index(track.next_station)
    stations = (*track.stations[:at], Station(track.stations[at].one_of, seen), *track.stations[at + 1 :])
    return replace(track, stations=stations)


def _watch_on(rule: EventRule, result: RuleResult, seen: Observation) -> RuleResult:
    """After the verdict: the server's end, and outcomes that put on hold, contradict it."""
    if seen.kind is Kind.ENDED:
        if not rule.hold_on_end:
            return result
        return replace(result, contradictions=(*result.contradictions, ("the server went away", seen)))
    if seen.kind is not Kind.EVENT:
        return result
    tracks = tuple(_advance(track, seen) for track in result.tracks)
    newly = [
        track.outcome.title
        for before, track in zip(result.tracks, tracks, strict=True)
        if track.complete and not before.complete and isinstance(track.outcome.follow, PutOnHold)
    ]
    found = tuple((title, seen) for title in newly)
    return replace(
        result,
        tracks=tracks,
        counts=_counted(rule, result, seen),
        contradictions=result.contradictions + found,
    )
