"""What the start dialog shows: candidates for each role, prerequisites as they stand, and what is to come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from django.contrib.auth.models import AbstractUser

from upgrades.domain.condition import Condition, Fact, holds
from upgrades.domain.environment import Server
from upgrades.domain.exposure import limit_of
from upgrades.domain.groups import Chosen, expand
from upgrades.domain.policy import START, Policy, Signer, missing, policy_in
from upgrades.domain.procedure import (
    ApprovalGate,
    CheckGate,
    ConfirmGate,
    ExposureKind,
    Gate,
    Parameter,
    ParameterType,
    Procedure,
    Role,
)
from upgrades.domain.refusal import BadInput
from upgrades.domain.run_events import Actor
from upgrades.domain.version import NotAVersion, Version
from upgrades.domain.wording import fill
from upgrades.models import Application, Environment
from upgrades.queries.conditions import spell
from upgrades.queries.facts import facts_at_start
from upgrades.queries.groups import members
from upgrades.queries.offers import (
    applications_of,
    claimed,
    claims,
    default_of,
    fits,
    not_meant,
    proposed,
    wanted,
)
from upgrades.queries.people import actor_id, ids_of
from upgrades.queries.people import members as people_of

NOBODY_YET = Chosen({}, {})


@dataclass(frozen=True, slots=True)
class RoleChoice:
    """A role with the servers that can play it: (id, label). `chosen` is the id that is proposed or was chosen."""

    name: str
    title: str
    wanted: str
    candidates: tuple[tuple[int, str], ...]
    chosen: int | None


@dataclass(frozen=True, slots=True)
class ParameterChoice:
    """A question of the dialog with its present answer (as text). `needed`: an answer must be given."""

    name: str
    title: str
    type: ParameterType
    help: str
    source: tuple[str, ...]
    answer: str
    needed: bool


@dataclass(frozen=True, slots=True)
class Prerequisite:
    """A gate of the first step. `verdict` is one of met, failed, unknown (cannot tell) or waiting (a person states it)."""

    id: str
    title: str
    text: str
    source: tuple[str, ...]
    verdict: str
    is_confirmed: bool


@dataclass(frozen=True, slots=True)
class ExposureToCome:
    title: str
    text: str
    step: str
    expected: int | None
    maximum: int | None


@dataclass(frozen=True, slots=True)
class SignatureToCome:
    """A step that waits for signatures; `people` may give them, this person never."""

    step: str
    whom: str
    people: tuple[str, ...]
    lack: str

    @property
    def is_short(self) -> bool:
        return bool(self.lack)


@dataclass(frozen=True, slots=True)
class GroupToCome:
    """Servers that go through the same steps one after the other: (name, host) in that order; or why nobody can tell."""

    title: str
    members: tuple[tuple[str, str], ...]
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class StartDialog:
    procedure: str
    version: int
    title: str
    summary: str
    steps: int
    seconds: int
    roles: tuple[RoleChoice, ...]
    parameters: tuple[ParameterChoice, ...]
    prerequisites: tuple[Prerequisite, ...]
    exposures: tuple[ExposureToCome, ...]
    signatures: tuple[SignatureToCome, ...]
    obstacle: str
    taken: str
    groups: tuple[GroupToCome, ...] = ()


def start_dialog(
    environment: Environment,
    procedure: Procedure,
    user: AbstractUser,
    *,
    bindings: Mapping[str, int] | None = None,
    answers: Mapping[str, str] | None = None,
) -> StartDialog:
    """The dialog for the servers and answers that were chosen, or for those that are proposed."""
    applications = applications_of(environment)
    bound = _bound(procedure, applications, bindings)
    facts = facts_at_start(environment, bound)
    parameters = tuple(_parameter(parameter, answers, facts) for parameter in procedure.parameters)
    facts |= {choice.name: _fact(choice) for choice in parameters}
    chosen, trouble = _members(environment, procedure, bound, facts)
    facts |= {f"{role}.{name}": value for role, item in chosen.roles.items() for name, value in _known(item)}
    asked = procedure.roles
    procedure = expand(procedure, chosen.groups, {})
    steps = [step for step in procedure.steps if step.numbered and not step.aside]
    return StartDialog(
        procedure=procedure.id,
        version=procedure.version,
        title=fill(procedure.title, facts),
        summary=fill(procedure.summary, facts),
        steps=len(steps),
        seconds=sum(step.expected or 0 for step in steps if _has_part(step.when, facts)),
        roles=tuple(_role(role, applications, bound) for role in asked),
        parameters=parameters,
        prerequisites=tuple(_prerequisites(procedure, facts)),
        exposures=tuple(_exposures(procedure, facts)),
        signatures=tuple(_signatures(environment, procedure, facts, user)),
        obstacle=not_meant(procedure, facts),
        taken=claimed(bound.values(), claims(environment)),
        groups=tuple(_groups(procedure, bound, chosen, trouble)),
    )


def _members(
    environment: Environment,
    procedure: Procedure,
    bound: Mapping[str, Application],
    facts: Mapping[str, Fact],
) -> tuple[Chosen, str]:
    """Who would belong to the groups with these answers, or why that cannot be told."""
    if any(group.pair_of is not None and group.pair_of not in bound for group in procedure.groups):
        return NOBODY_YET, "Choose the server first."
    try:
        return members(environment, procedure, bound, facts), ""
    except BadInput as mistake:
        return NOBODY_YET, mistake.message


def _groups(
    procedure: Procedure, bound: Mapping[str, Application], chosen: Chosen, trouble: str
) -> Iterator[GroupToCome]:
    playing = {role: (item.name, item.host.name) for role, item in bound.items()}
    playing |= {role: (item.name, item.host) for role, item in chosen.roles.items()}
    for group in procedure.groups:
        found = chosen.groups.get(group.name, [])
        yield GroupToCome(group.title, tuple(playing[member["each"]] for member in found), trouble)


def _known(server: Server) -> tuple[tuple[str, Fact], ...]:
    return (("name", server.name), ("host", server.host), ("type", server.type))


def _bound(
    procedure: Procedure, applications: list[Application], bindings: Mapping[str, int] | None
) -> dict[str, Application]:
    if bindings is None:
        return proposed(procedure, applications)
    there = {application.pk: application for application in applications}
    return {
        role.name: there[bindings[role.name]] for role in procedure.roles if bindings.get(role.name) in there
    }


def _role(role: Role, applications: list[Application], bound: Mapping[str, Application]) -> RoleChoice:
    chosen = bound.get(role.name)
    return RoleChoice(
        name=role.name,
        title=role.title,
        wanted=wanted(role),
        candidates=tuple((item.pk, _label(item)) for item in applications if fits(role, item)),
        chosen=chosen.pk if chosen else None,
    )


def _label(application: Application) -> str:
    version = application.version or "version not known"
    mode = application.mode or "mode not known"
    return f"{application.name} on {application.host.name} ({version}, {mode})"


def _parameter(
    parameter: Parameter, answers: Mapping[str, str] | None, facts: Mapping[str, Fact]
) -> ParameterChoice:
    proposal = default_of(parameter, facts)
    answer = proposal if answers is None else answers.get(parameter.name, "")
    return ParameterChoice(
        name=parameter.name,
        title=parameter.title,
        type=parameter.type,
        help=_help(parameter),
        source=parameter.source,
        answer=answer,
        needed=parameter.required and parameter.required_when is None,
    )


def _help(parameter: Parameter) -> str:
    if parameter.required_when is None:
        return parameter.help
    return f"{parameter.help} Needed when {spell(parameter.required_when)}.".strip()


def _fact(choice: ParameterChoice) -> Fact:
    """The answer as the run's facts will have it; what cannot be read is not known yet."""
    text = choice.answer.strip()
    if choice.type is ParameterType.BOOLEAN:
        return {"true": True, "false": False}.get(text)
    if choice.type is ParameterType.VERSION and text:
        try:
            return Version.parse(text).text
        except NotAVersion:
            return None
    return text or None


def _has_part(condition: Condition | None, facts: Mapping[str, Fact]) -> bool:
    """False only when the facts surely rule it out; doubt keeps it in the picture."""
    return condition is None or holds(condition, facts) is not False


def _prerequisites(procedure: Procedure, facts: Mapping[str, Fact]) -> Iterator[Prerequisite]:
    for gate in procedure.steps[0].gates:
        if not _has_part(gate.when, facts):
            continue
        verdict, text = _stands(gate, facts)
        yield Prerequisite(
            id=gate.id,
            title=fill(gate.title, facts),
            text=text,
            source=gate.source,
            verdict=verdict,
            is_confirmed=isinstance(gate, ConfirmGate),
        )


def _stands(gate: Gate, facts: Mapping[str, Fact]) -> tuple[str, str]:
    match gate:
        case ConfirmGate(ask=ask):
            return "waiting", fill(ask, facts)
        case CheckGate(condition=condition, otherwise=otherwise):
            held = holds(condition, facts)
            if held:
                return "met", "The environment's facts say so."
            return ("unknown" if held is None else "failed"), fill(otherwise, facts)
        case _:
            return "waiting", "It is looked at once the run has started."


def _exposures(procedure: Procedure, facts: Mapping[str, Fact]) -> Iterator[ExposureToCome]:
    """Each exposure at the first step on the main course that opens it."""
    numbers, seen = dict(procedure.numbers()), set()
    for step in procedure.steps:
        if step.aside or not _has_part(step.when, facts):
            continue
        for change in step.opens:
            kind: ExposureKind = procedure.exposure(change.exposure)
            family = kind.copy_of or kind.id
            if family in seen or not _has_part(change.when, facts):
                continue
            seen.add(family)
            yield ExposureToCome(
                title=fill(kind.family or kind.title, facts),
                text=fill(kind.text, facts),
                step=f"{numbers[step.id]} · {fill(step.title, facts)}",
                expected=kind.expected,
                maximum=limit_of(kind, facts),
            )


def _signatures(
    environment: Environment, procedure: Procedure, facts: Mapping[str, Fact], user: AbstractUser
) -> Iterator[SignatureToCome]:
    numbers = dict(procedure.numbers())
    barred = {actor_id(user), *ids_of(procedure.authors)}
    others = [person for person in people_of(environment) if person.id not in barred]
    start = policy_in(environment.policies, START)
    if START in environment.policies and start.needs:
        yield _to_come("The start of a live run", start, others)
    for step in procedure.steps:
        for gate in step.needs:
            if not isinstance(gate, ApprovalGate) or step.aside or not _has_part(step.when, facts):
                continue
            policy = policy_in(environment.policies, gate.policy)
            if policy.needs and _has_part(gate.when, facts):
                yield _to_come(f"{numbers[step.id]} · {fill(step.title, facts)}", policy, others)


def _to_come(title: str, policy: Policy, others: Sequence[Actor]) -> SignatureToCome:
    """Who could give it, and who is missing even if all of them did (D09)."""
    able = [person for person in others if set(person.roles) & set(policy.rights)]
    lack = missing(policy, [Signer(person.id, frozenset(person.roles), person.id) for person in able])
    return SignatureToCome(
        title,
        policy.in_words,
        tuple(person.name for person in able),
        " and ".join(f"{need.signatures} of {need.whom}" for need in lack),
    )
