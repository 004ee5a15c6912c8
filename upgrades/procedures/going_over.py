"""Proofs over two procedures: a run that goes over from one to the other keeps what is done, so both must mean the
same by the same names, and nothing that the second one rests on may be missing (CSM-4b).
"""

from __future__ import annotations

from collections.abc import Iterator

from upgrades.domain import procedure as p

Reached = frozenset[str]


def mistakes_of(
    source: p.Procedure, target: p.Procedure, through: tuple[str, ...], reached: Reached
) -> Iterator[str]:
    """What stands against going over from `source` to `target`. `reached` are the steps of `target` that lie ahead."""
    if source.groups or target.groups:
        yield "Members of groups are chosen when a run starts: neither text of a going-over may have groups."
        return
    yield from _through(target, through)
    yield from _roles(source, target)
    yield from _steps(source, target)
    yield from _burdens(source, target)
    yield from _answers(source, target)
    yield from _evidence(source, target, reached | set(through))


def _through(target: p.Procedure, through: tuple[str, ...]) -> Iterator[str]:
    for name in through:
        if not target.has_step(name):
            yield f"`{target.id}` has no step `{name}` to enter."
        elif target.step(name).when is not None:
            yield f"The step `{name}` of `{target.id}` may be skipped, so it cannot be entered by name."


def _roles(source: p.Procedure, target: p.Procedure) -> Iterator[str]:
    known = {role.name: role for role in source.roles}
    for role in target.roles:
        mine = known.get(role.name)
        if mine is None:
            yield f"`{target.id}` has a role `{role.name}`, and here nobody plays it."
        elif not set(mine.application_types) <= set(role.application_types):
            yield f"The role `{role.name}` is a {role.application_type} in `{target.id}`, here a {mine.application_type}."


def _steps(source: p.Procedure, target: p.Procedure) -> Iterator[str]:
    for step in source.steps:
        if not target.has_step(step.id):
            yield f"`{target.id}` has no step `{step.id}`; what was done in it would have no place there."
            continue
        other = target.step(step.id)
        for gate in step.all_gates:
            twin = other.gate(gate.id)
            if twin is not None and type(twin) is not type(gate):
                yield f"The gate `{gate.id}` of `{step.id}` is of another kind in `{target.id}`."


def _burdens(source: p.Procedure, target: p.Procedure) -> Iterator[str]:
    exposures = {kind.id for kind in source.exposures} - {kind.id for kind in target.exposures}
    duties = {kind.id for kind in source.duties} - {kind.id for kind in target.duties}
    for name in sorted(exposures):
        yield f"`{target.id}` has no exposure `{name}`, which may be open when the run goes over."
    for name in sorted(duties):
        yield f"`{target.id}` has no duty `{name}`, which may be owed when the run goes over."


def _answers(source: p.Procedure, target: p.Procedure) -> Iterator[str]:
    types = {parameter.name: parameter.type for parameter in source.parameters}
    stated = {effect.set for step in source.steps for effect in step.effects}
    for parameter in target.parameters:
        if parameter.name in types:
            if types[parameter.name] != parameter.type:
                yield f"`{parameter.name}` is a {parameter.type} in `{target.id}`, here a {types[parameter.name]}."
        elif parameter.required and parameter.required_when is None and parameter.name not in stated:
            yield f"`{target.id}` asks for `{parameter.name}`. Ask for it here, or set it as an effect of a step."


def _evidence(source: p.Procedure, target: p.Procedure, ahead: Reached | set[str]) -> Iterator[str]:
    for name in sorted(ahead):
        for gate in target.step(name).all_gates if target.has_step(name) else ():
            if not isinstance(gate, p.WayBackGate):
                continue
            for item in gate.items:
                passed = source.has_step(item.step) and source.step(item.step).gate(item.gate) is not None
                if not passed and item.step not in ahead and item.when is None:
                    yield (
                        f"The way back of `{name}` in `{target.id}` rests on `{item.step}.{item.gate}`, which a run that "
                        "goes over has never passed."
                    )
