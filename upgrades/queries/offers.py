"""Which procedures an environment is offered, with which servers, and why not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from upgrades.domain.condition import Fact, holds
from upgrades.domain.procedure import Parameter, Procedure, Role
from upgrades.models import Application, Claim, Environment, ProcedureVersion
from upgrades.queries.conditions import present, spell
from upgrades.queries.facts import facts_at_start
from upgrades.queries.procedures import procedure_of


@dataclass(frozen=True, slots=True)
class Offer:
    """A procedure beside an environment. `why_not` is empty when it can be started; `taken` says which open run has
    its servers, so that it can only be rehearsed now.
    """

    procedure: str
    version: int
    title: str
    summary: str
    component: str
    servers: tuple[str, ...]
    why_not: str
    taken: str


def newest_versions() -> list[ProcedureVersion]:
    """The newest version of each procedure."""
    return list(
        ProcedureVersion.objects.order_by("procedure", "-version").distinct("procedure").order_by("procedure")
    )


def offers(environment: Environment) -> tuple[Offer, ...]:
    """Every procedure, those first that can be started here."""
    applications = applications_of(environment)
    taken = claims(environment)
    found = [_offer(environment, version, applications, taken) for version in newest_versions()]
    return tuple(sorted(found, key=lambda offer: (bool(offer.why_not), bool(offer.taken), offer.title)))


def applications_of(environment: Environment) -> list[Application]:
    return list(environment.applications.select_related("host", "peer"))


def claims(environment: Environment) -> dict[int, tuple[int, str]]:
    """Applications that belong to an open run, with its number and title: a server has one run at a time."""
    rows = Claim.objects.filter(application__environment=environment, released_at=None).select_related("run")
    return {row.application_id: (row.run_id, row.run.title) for row in rows if row.application_id is not None}


def _offer(
    environment: Environment,
    version: ProcedureVersion,
    applications: Sequence[Application],
    taken: Mapping[int, tuple[int, str]],
) -> Offer:
    procedure = procedure_of(version)
    bound = proposed(procedure, applications)
    return Offer(
        procedure=version.procedure,
        version=version.version,
        title=procedure.title,
        summary=procedure.summary,
        component=procedure.component,
        servers=tuple(application.name for application in bound.values()),
        why_not=_why_not(environment, procedure, bound),
        taken=claimed(bound.values(), taken),
    )


def _why_not(
    environment: Environment,
    procedure: Procedure,
    bound: Mapping[str, Application],
) -> str:
    for role in procedure.roles:
        if role.name not in bound:
            return f"No server here can be “{role.title}”: {wanted(role)} is needed."
    facts = facts_at_start(environment, bound)
    return not_meant(procedure, facts)


def not_meant(procedure: Procedure, facts: Mapping[str, Fact]) -> str:
    """Why the facts rule the procedure out; empty when they do not, or when it depends on an answer of the dialog."""
    if procedure.offered_when is None:
        return ""
    asked = {parameter.name for parameter in procedure.parameters}
    if holds(procedure.offered_when, facts) is True:
        return ""
    if holds(procedure.offered_when, facts) is None and any(name not in facts for name in asked):
        return ""
    return f"It is meant for {spell(procedure.offered_when)}; here {present(procedure.offered_when, facts)}."


def claimed(applications: Iterable[Application], taken: Mapping[int, tuple[int, str]]) -> str:
    """Which open run has one of these servers; empty when none has."""
    for application in applications:
        if application.pk in taken:
            run, title = taken[application.pk]
            return f"{application.name} belongs to run {run} (“{title}”), which is not over."
    return ""


def wanted(role: Role) -> str:
    """“a ConfigurationServer that is configured as backup”."""
    kind = f"a server of type {role.application_type}"
    return f"{kind} that is configured as {role.standing}" if role.standing else kind


def fits(role: Role, application: Application) -> bool:
    return application.type in role.application_types and role.standing in ("", application.standing)


def proposed(procedure: Procedure, applications: Sequence[Application]) -> dict[str, Application]:
    """The servers that the dialog proposes: the first that fits each role, and of a pair the other member."""
    bound: dict[str, Application] = {}
    for role in sorted(procedure.roles, key=lambda role: role.pair_of is not None):
        other = bound.get(role.pair_of or "")
        for application in applications:
            paired = role.pair_of is None or (other is not None and other.peer_id == application.pk)
            if fits(role, application) and paired and application not in bound.values():
                bound[role.name] = application
                break
    return bound


def default_of(parameter: Parameter, facts: Mapping[str, Fact]) -> str:
    """The answer that the dialog proposes: from the environment's facts, or the procedure's own."""
    found = facts.get((parameter.default_from or "").lower())
    if isinstance(found, bool):
        return "true" if found else "false"
    return found or parameter.default
