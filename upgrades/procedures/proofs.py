"""Proofs over the whole of a procedure: whatever the servers do, its paths lead somewhere and close what they open.

A path is what `run.py` can walk: the next step of the text that is no aside, the target of a go-to, or an end. A step
with `when` may be skipped, so the path around it exists too. An outcome that holds stays where it is: a person
resumes and begins the step again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from upgrades.domain import procedure as p
from upgrades.domain.condition import Condition
from upgrades.domain.groups import expand
from upgrades.procedures import going_over
from upgrades.procedures.forms import Reading
from upgrades.procedures.group_checks import check_use_of_groups, sample_groups
from upgrades.procedures.mistakes import Place

END = ""  # where every path leads
MAX_ASIDES = 10

Paths = dict[str, frozenset[str]]
Texts = Callable[[str, int], p.Procedure | None]


@dataclass(frozen=True, slots=True)
class _Proof:
    procedure: p.Procedure
    reading: Reading

    def mistake(self, part: object, message: str) -> None:
        place, item = self.reading.places.get(id(part), (Place(1, 1), ""))
        self.reading.mistakes.add(place, item, message)

    def position(self, step_id: str) -> int:
        return [step.id for step in self.procedure.steps].index(step_id)


def prove(procedure: p.Procedure, reading: Reading) -> None:
    """Add what is unsound to the mistakes. Its parts must be whole and every name in it known.

    A procedure with groups is proved as runs will have it: with no member, with several, and with each group alone.
    """
    proof = _Proof(procedure, reading)
    _first_step(proof)
    check_use_of_groups(procedure, reading)
    if not reading.mistakes.structure_is_whole:
        return
    for members in sample_groups(procedure):
        _prove(_Proof(expand(procedure, members, {}, reading.remember_copy), reading))


def _prove(proof: _Proof) -> None:
    procedure, reading = proof.procedure, proof.reading
    _asides(proof)
    if not reading.mistakes.structure_is_whole:
        return
    paths = {step.id: _targets(procedure, step) for step in procedure.steps}
    reached = _reachable(procedure.steps[0].id, paths)
    _everything_is_reached(proof, reached)
    _every_path_ends(proof, paths, reached)
    _exposures_close(proof)
    _goings_over(proof)
    for step in procedure.steps:
        _gates_lead_on(proof, step)
        _own_target(proof, step)
        for gate in step.all_gates:
            _gate(proof, step, gate, paths)


def _first_step(proof: _Proof) -> None:
    first = proof.procedure.steps[0]
    if first.for_each is not None:
        proof.reading.mistakes.structure_is_whole = False
        proof.mistake(
            first, "A run begins with the first step, and a group may be empty: take `for-each` from it."
        )
    if first.aside or first.when is not None:
        proof.mistake(
            first, "A run begins with the first step, so it can be neither an aside nor have a `when`."
        )


def _asides(proof: _Proof) -> None:
    in_a_row = 0
    for step in proof.procedure.steps:
        in_a_row = in_a_row + 1 if step.aside else 0
        if in_a_row == MAX_ASIDES + 1:
            proof.mistake(
                step, f"There are more than {MAX_ASIDES} asides in a row; the page has letters for no more."
            )


# Paths.


def _follows(step: p.Step) -> Iterator[p.Follow]:
    """Every way in which the step can be left."""
    outcomes = [outcome.follow for gate in step.event_gates for outcome in gate.rule.outcomes]
    yield from (follow for follow in outcomes if isinstance(follow, p.GoTo | p.EndRun | p.GoOver))
    if _can_complete(step):
        yield step.then


def _can_complete(step: p.Step) -> bool:
    return all(
        gate.when is not None or any(isinstance(outcome.follow, p.GoOn) for outcome in gate.rule.outcomes)
        for gate in step.event_gates
    )


def _leads_to(procedure: p.Procedure, step: p.Step, follow: p.Follow) -> str | None:
    match follow:
        case p.GoOn():
            following = procedure.after(step.id)
            return following.id if following else END
        case p.GoTo(target):
            return target
        case p.EndRun() | p.GoOver():
            return END
    return None


def _around(procedure: p.Procedure, target: str) -> frozenset[str]:
    """Where a path that aims at `target` can arrive: there, or behind it when it may be skipped."""
    arrived = {target}
    while target != END and procedure.step(target).when is not None:
        following = procedure.after(target)
        target = following.id if following else END
        arrived.add(target)
    return frozenset(arrived)


def _targets(procedure: p.Procedure, step: p.Step) -> frozenset[str]:
    found = {_leads_to(procedure, step, follow) for follow in _follows(step)}
    return frozenset().union(*(_around(procedure, target) for target in found if target is not None))


def _reachable(start: str, paths: Paths, without: str | None = None) -> frozenset[str]:
    reached: set[str] = set()
    ahead = [start]
    while ahead:
        here = ahead.pop()
        if here not in reached and here != without:
            reached.add(here)
            ahead += paths.get(here, frozenset())
    return frozenset(reached)


def _everything_is_reached(proof: _Proof, reached: frozenset[str]) -> None:
    for step in proof.procedure.steps:
        if step.id not in reached:
            how = "No go-to leads to this aside" if step.aside else "No path leads to this step"
            proof.mistake(step, f"{how}: a run could never come here.")


def _every_path_ends(proof: _Proof, paths: Paths, reached: frozenset[str]) -> None:
    for step in proof.procedure.steps:
        if step.id in reached and END not in _reachable(step.id, paths):
            circle = " → ".join(_circle(step.id, paths))
            proof.mistake(step, f"From here no path leads to an end of the run: {circle}.")


def _circle(start: str, paths: Paths) -> list[str]:
    walked = [start]
    while following := sorted(paths.get(walked[-1], ())):
        walked.append(following[0])
        if walked[-1] in walked[:-1]:
            break
    return walked


def _own_target(proof: _Proof, step: p.Step) -> None:
    for gate in step.event_gates:
        for outcome in gate.rule.outcomes:
            if outcome.follow == p.GoTo(step.id):
                proof.mistake(
                    outcome, "It leads back to its own step. A person begins a step again; leave it to him."
                )
    if step.then == p.GoTo(step.id):
        proof.mistake(step, "The step leads to itself.")


def _gates_lead_on(proof: _Proof, step: p.Step) -> None:
    for gate in step.event_gates:
        if all(isinstance(outcome.follow, p.PutOnHold) for outcome in gate.rule.outcomes):
            return  # said already
    if step.then != p.GoOn() and not _can_complete(step):
        proof.mistake(
            step, "It can never complete, because no outcome says `continue`; so its `then` has no meaning."
        )


# Exposures.


def _exposures_close(proof: _Proof) -> None:
    """Walk all paths, for each exposure by itself, open or not; at an end it must not be open."""
    for exposure in proof.procedure.exposures:
        openers = [step for step in proof.procedure.steps if _changes(step.opens, exposure.id)]
        left = _left_open(proof.procedure, exposure.id, proof.reading.texts) if openers else None
        if left is not None:
            proof.mistake(
                openers[0],
                f"It opens `{exposure.id}`, and there is a path to an end (behind `{left}`) on which nothing closes it.",
            )


def _goings_over(proof: _Proof) -> None:
    for over in p.goings_over(proof.procedure):
        text = proof.reading.texts(over.procedure, over.version)
        if text is None:
            continue  # said already
        paths = {step.id: _targets(text, step) for step in text.steps}
        known = [name for name in over.through if text.has_step(name)]
        reached = frozenset().union(*(_reachable(name, paths) for name in known))
        for message in going_over.mistakes_of(proof.procedure, text, over.through, reached - {END}):
            proof.mistake(over, message)


def _changes(changes: tuple[p.ExposureChange, ...], exposure: str) -> list[p.ExposureChange]:
    return [change for change in changes if change.exposure == exposure]


def _left_open(
    procedure: p.Procedure, exposure: str, texts: Texts, start: tuple[str, bool] | None = None
) -> str | None:
    """A step behind which the run can end while the exposure is open, or None."""
    seen: set[tuple[str, bool]] = set()
    ahead = [start or (procedure.steps[0].id, False)]
    while ahead:
        here = ahead.pop()
        if here in seen:
            continue
        seen.add(here)
        step = procedure.step(here[0])
        if any(
            is_open and not _closed_by(text, over, exposure)
            for text, over, is_open in _handed_over(procedure, step, exposure, texts, is_open=here[1])
        ):
            return step.id
        for target, is_open in _ways_out(procedure, step, exposure, is_open=here[1]):
            arrived = _around(procedure, target)
            if END in arrived and is_open:
                return step.id
            ahead += [(place, is_open) for place in arrived - {END}]
    return None


def _handed_over(
    procedure: p.Procedure, step: p.Step, exposure: str, texts: Texts, *, is_open: bool
) -> Iterator[tuple[p.Procedure | None, p.GoOver, bool]]:
    """The texts that the run can go over to from `step`, and whether the exposure may be open then."""
    begun = _after(procedure, step, exposure, p.Moment.BEGIN, is_open=is_open)
    complete = _after(procedure, step, exposure, p.Moment.COMPLETE, is_open=begun)
    outcomes = (outcome.follow for gate in step.event_gates for outcome in gate.rule.outcomes)
    ways = [(follow, begun) for follow in outcomes] + [(step.then, complete)]
    for follow, may_be_open in ways:
        if isinstance(follow, p.GoOver):
            yield texts(follow.procedure, follow.version), follow, may_be_open


def _closed_by(text: p.Procedure | None, over: p.GoOver, exposure: str) -> bool:
    """Whether the other text closes on every path what is open when a run comes to it."""
    if text is None or not text.has_step(over.through[-1]):
        return True  # said already
    return _left_open(text, exposure, lambda _name, _version: None, (over.through[-1], True)) is None


def _ways_out(
    procedure: p.Procedure, step: p.Step, exposure: str, *, is_open: bool
) -> Iterator[tuple[str, bool]]:
    """Where the step can lead, and whether the exposure may be open then. An outcome leaves it before it is complete."""
    begun = _after(procedure, step, exposure, p.Moment.BEGIN, is_open=is_open)
    for gate in step.event_gates:
        for outcome in gate.rule.outcomes:
            if isinstance(outcome.follow, p.GoTo | p.EndRun):
                yield _leads_to(procedure, step, outcome.follow) or END, begun
    if _can_complete(step) and not isinstance(step.then, p.GoOver):
        complete = _after(procedure, step, exposure, p.Moment.COMPLETE, is_open=begun)
        yield _leads_to(procedure, step, step.then) or END, complete


def _after(procedure: p.Procedure, step: p.Step, exposure: str, moment: p.Moment, *, is_open: bool) -> bool:
    """Whether the exposure may be open after the step's begin or completion. A closing under a condition counts only
    when every opening has the same condition."""
    openings = {change.when for other in procedure.steps for change in _changes(other.opens, exposure)}
    opened = any(change.at is moment for change in _changes(step.opens, exposure))
    closed = any(
        change.at is moment and (change.when is None or openings == {change.when})
        for change in _changes(step.closes, exposure)
    )
    return opened or (is_open and not closed)


# Gates that look elsewhere.


def _gate(proof: _Proof, step: p.Step, gate: p.Gate, paths: Paths) -> None:
    match gate:
        case p.EventGate():
            until = gate.rule.watch_until
            if until is not None and proof.position(until) <= proof.position(step.id):
                proof.mistake(
                    gate, f"`watch-until` names `{until}`, which does not lie later than this step."
                )
        case p.ClientsGate():
            if not _is_on_every_path(proof, gate.baseline, step.id, paths):
                proof.mistake(
                    gate, f"`baseline` names `{gate.baseline}`: not every path to this step passes it before."
                )
        case p.WayBackGate():
            for item in gate.items:
                _way_back_item(proof, step, item, paths)


_PROVING = (p.EvidenceGate, p.ProbeGate, p.ConfirmGate)


def _way_back_item(proof: _Proof, step: p.Step, item: p.WayBackItem, paths: Paths) -> None:
    earlier = proof.procedure.step(item.step)
    gate = earlier.gate(item.gate)
    if gate is None:
        known = ", ".join(other.id for other in earlier.all_gates) or "none"
        proof.mistake(item, f"The step `{item.step}` has no gate `{item.gate}`. Its gates are: {known}.")
        return
    if not isinstance(gate, _PROVING):
        proof.mistake(
            item,
            f"The gate `{item.gate}` proves nothing that one could go back to. Name evidence, a probe or a confirmation.",
        )
    if not _is_on_every_path(proof, item.step, step.id, paths, when=item.when):
        proof.mistake(
            item,
            f"Not every path to this step passes `{item.step}` before, so its evidence could be missing.",
        )
    conditions = {condition for condition in (gate.when, earlier.when) if condition is not None}
    if conditions and conditions != {item.when}:
        proof.mistake(item, f"`{item.gate}` is there only under a condition. Give this item the same `when`.")


def _is_on_every_path(
    proof: _Proof, earlier: str, later: str, paths: Paths, *, when: Condition | None = None
) -> bool:
    """Whether a run at `later` has surely passed `earlier`. A step that is skipped under the very condition under
    which nobody asks for it (`when`) counts as passed."""
    if earlier == later:
        return False
    start = proof.procedure.steps[0].id
    step = proof.procedure.step(earlier)
    if step.when is not None and step.when == when:
        paths = _unskipped(proof.procedure, step)
    return earlier == start or later not in _reachable(start, paths, without=earlier)


def _unskipped(procedure: p.Procedure, step: p.Step) -> Paths:
    """The paths when `step` is not skipped."""
    certain: Callable[[str], frozenset[str]] = lambda target: (  # noqa: E731
        frozenset({target}) if target == step.id else _around(procedure, target)
    )
    paths: Paths = {}
    for other in procedure.steps:
        found = {_leads_to(procedure, other, follow) for follow in _follows(other)}
        paths[other.id] = frozenset().union(*(certain(target) for target in found if target is not None))
    return paths
