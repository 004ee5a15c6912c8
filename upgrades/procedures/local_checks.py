"""What must hold within one part of a procedure, whatever the rest says. Each is called once the part is built."""

from __future__ import annotations

import datetime
from typing import Any

from upgrades.domain import procedure as p
from upgrades.domain.answers import answer_of
from upgrades.domain.refusal import BadInput
from upgrades.procedures import known as k
from upgrades.procedures.forms import Reading
from upgrades.procedures.mistakes import nearest
from upgrades.procedures.strict_yaml import MapNode, Node, TextNode, folded


def _at(node: MapNode, key: str) -> Node:
    return node.get(key) or node


def check_role(role: p.Role, node: MapNode, to: Reading, item: str) -> None:
    if role.pair_of and role.pair_of == role.name:
        to.mistake(_at(node, "pair-of"), item, "A server is not its own pair. Name the other role.")


def check_group(group: p.Group, node: MapNode, to: Reading, item: str) -> None:
    if bool(group.application_type) == (group.pair_of is not None):
        to.mistake(node, item, "Say who belongs to it: by `type`, or by `pair-of`, not by both.")
    if bool(group.beside) != bool(group.runs):
        to.mistake(
            node,
            item,
            "`beside` and `runs` belong together: one says what stands beside, the other how it runs.",
        )
    if group.pair_of is not None and (group.beside or group.only or group.when):
        to.mistake(
            _at(node, "pair-of"),
            item,
            "The members are these two servers; leave out what chooses among many.",
        )


def check_parameter(parameter: p.Parameter, node: MapNode, to: Reading, item: str) -> None:
    if parameter.default_from is not None:
        kind = to.known.fact_type(parameter.default_from)
        role, _, what = parameter.default_from.partition(".")
        is_known = role == "environment" or (role in to.known.roles and what == "target")
        if kind is None or not is_known:
            known = [name for name in to.known.fact_names if name.startswith("environment.")]
            hint = nearest(parameter.default_from, [*known, "environment.target.ConfigurationServer"])
            to.mistake(_at(node, "default-from"), item, f"The environment has no fact of this name.{hint}")
        elif kind != parameter.type:
            to.mistake(
                _at(node, "default-from"), item, f"That fact is a {kind}, this parameter a {parameter.type}."
            )
    if parameter.default:
        _check_default(parameter, node, to, item)
    if parameter.required_when is not None and not parameter.required:
        to.mistake(_at(node, "required-when"), item, "It has `required: false` too. Keep one of the two.")


def _check_number(parameter: p.Parameter, place: Node, to: Reading, item: str) -> None:
    try:
        answer_of(parameter, parameter.default, {})
    except BadInput as mistake:
        to.mistake(place, item, f"The default cannot be used: {mistake.message}")


def _check_default(parameter: p.Parameter, node: MapNode, to: Reading, item: str) -> None:
    place = _at(node, "default")
    match parameter.type:
        case p.ParameterType.VERSION if not k.is_version(parameter.default):
            to.mistake(place, item, "The default is no version. Write digits and dots only, in quotes.")
        case p.ParameterType.VERSION if isinstance(place, TextNode) and not place.quoted:
            # Elsewhere 8.10 is the number 8.1.
            to.mistake(place, item, f'Put `{parameter.default}` in quotes: "{parameter.default}".')
        case p.ParameterType.BOOLEAN if parameter.default not in ("true", "false"):
            to.mistake(place, item, "The default is neither `true` nor `false`.")
        case p.ParameterType.NUMBER:
            _check_number(parameter, place, to, item)
        case p.ParameterType.DATE if not _is_date(parameter.default):
            to.mistake(place, item, "The default is no date. Write it as 2026-01-31.")


def _is_date(text: str) -> bool:
    try:
        return len(text) == 10 and bool(datetime.date.fromisoformat(text))
    except ValueError:
        return False


def check_exposure(kind: p.ExposureKind, node: MapNode, to: Reading, item: str) -> None:
    if kind.expected and kind.maximum and kind.expected > kind.maximum:
        to.mistake(_at(node, "expected"), item, "It is expected to last longer than `at-most` allows.")


def check_effect(effect: p.Effect, node: MapNode, to: Reading, item: str) -> None:
    if message := k.settable_mistake(effect.set, to.known):
        to.mistake(_at(node, "set"), item, message)
    elif message := k.value_mistake(effect.set, effect.to, to.known):
        to.mistake(_at(node, "to"), item, message)


def check_probe(gate: p.ProbeGate, node: MapNode, to: Reading, item: str) -> None:
    needs_folder = gate.probe in (p.Probe.FOLDER_EXISTS, p.Probe.NAMES_EQUAL)
    if needs_folder and gate.folder is None:
        to.mistake(
            node, item, f"`{gate.probe}` looks into a folder: add `folder: current`, `prepared` or `kept`."
        )
    if not needs_folder and gate.folder is not None:
        to.mistake(
            _at(node, "folder"),
            item,
            f"`{gate.probe}` looks at the process, not into a folder. Leave it out.",
        )


def check_clients(gate: p.ClientsGate, node: MapNode, to: Reading, item: str) -> None:
    if gate.leaving and gate.leaving == gate.joining:
        to.mistake(_at(node, "joining"), item, "Clients that leave a server join another one.")


# Event rules.


def check_outcome(outcome: p.Outcome, node: MapNode, to: Reading, item: str) -> None:
    stations = frozenset().union(*outcome.events)
    if both := sorted(stations & (outcome.none_before | outcome.none_between)):
        to.mistake(
            node, item, f"{', '.join(both)} is awaited and forbidden: the outcome can never be reached."
        )
    if outcome.none_between and len(outcome.events) == 1:
        to.mistake(_at(node, "none-between"), item, "There is only one event, so nothing can stand between.")


def check_event_gate(gate: p.EventGate, node: MapNode, to: Reading, item: str) -> None:
    rule = gate.rule
    if rule.outcomes and all(isinstance(outcome.follow, p.PutOnHold) for outcome in rule.outcomes):
        to.mistake(
            _at(node, "outcomes"), item, "Every outcome puts the run on hold: the gate can never open."
        )
    decisive = frozenset().union(*(_decisive(outcome) for outcome in rule.outcomes))
    for event in sorted({event for event, _ in rule.normal} & decisive):
        to.mistake(
            _at(node, "normal"), item, f"{event} decides an outcome, so it cannot be called normal as well."
        )
    for number, later in enumerate(rule.outcomes):
        for earlier in rule.outcomes[:number]:
            if _always_first(earlier, later):
                place, _ = to.places.get(id(later), (node.place, ""))
                to.mistakes.add(
                    place,
                    item,
                    f"The outcome `{later.id}` can never be reached: `{earlier.id}`, before it, is always complete first.",
                )
                break


def _decisive(outcome: p.Outcome) -> frozenset[str]:
    return frozenset().union(*outcome.events) | outcome.none_before | outcome.none_between


def _always_first(earlier: p.Outcome, later: p.Outcome) -> bool:
    """Whether whatever completes `later` has completed `earlier` before or with it."""
    if earlier.none_before or earlier.none_between or len(earlier.events) > len(later.events):
        return False
    if earlier.when is not None and earlier.when != later.when:
        return False
    pairs = zip(earlier.events, later.events, strict=False)
    return bool(earlier.events) and all(other <= one for one, other in pairs)


# Steps.


def check_step(step: p.Step, node: MapNode, to: Reading, item: str) -> None:
    _check_gates(step, node, to, item)
    if step.when is not None and not step.otherwise:
        to.mistake(
            _at(node, "when"), item, "Say under `otherwise` what the record says when the step is skipped."
        )
    if step.otherwise and step.when is None:
        to.mistake(_at(node, "otherwise"), item, "The step is never skipped: it has no `when`.")
    if step.destroys and not any(isinstance(gate, p.WayBackGate) for gate in step.needs):
        to.mistake(
            _at(node, "destroys"),
            item,
            "It stops, replaces or overwrites something, so it needs a gate of the kind `way-back` under `needs`.",
        )
    if step.completes is p.Completes.BY_ITSELF and not step.gates:
        to.mistake(
            _at(node, "completes"), item, "Without a gate it would complete at once, on nothing. Add a gate."
        )
    for key in ("opens", "closes"):
        _check_changes(getattr(step, key), key, node, to, item)


_ONLY_IN_NEEDS = (p.ApprovalGate, p.WayBackGate)


def _check_gates(step: p.Step, node: MapNode, to: Reading, item: str) -> None:
    first: dict[str, p.Gate] = {}
    for gate in step.all_gates:
        before = first.setdefault(folded(gate.id), gate)
        if gate.id and before is not gate:
            place, _ = to.places.get(id(gate), (node.place, ""))
            other, _ = to.places.get(id(before), (node.place, ""))
            lines = f"lines {other.line} and {place.line}"
            to.mistakes.add(
                place, item, f"The gate `{gate.id}` stands in this step twice ({lines}). Names must differ."
            )
    for gate in step.needs:
        if isinstance(gate, p.EventGate):
            _misplaced(
                gate,
                to,
                item,
                "Events count from the step's begin, so they cannot be awaited before it: move it to `gates`.",
            )
    for gate in step.gates:
        if isinstance(gate, _ONLY_IN_NEEDS):
            _misplaced(gate, to, item, "It must be settled before the step begins: move it to `needs`.")


def _misplaced(gate: p.Gate, to: Reading, item: str, message: str) -> None:
    if id(gate) in to.places:
        place, own = to.places[id(gate)]
        to.mistakes.add(place, own or item, message)


def _check_changes(changes: Any, key: str, node: MapNode, to: Reading, item: str) -> None:
    seen: set[tuple[str, p.Moment]] = set()
    for change in changes:
        if change.exposure and (change.exposure, change.at) in seen:
            to.mistake(_at(node, key), item, f"`{change.exposure}` stands under `{key}` twice. Keep one.")
        seen.add((change.exposure, change.at))
