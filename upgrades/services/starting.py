"""Starting a run: who plays which role, the answers of the dialog, and what must be so before anything begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from django.contrib.auth.models import AbstractUser
from django.db import transaction
from django.utils import timezone

from upgrades.adapters.crash_points import crash
from upgrades.domain import run_events as e
from upgrades.domain.answers import answer_of
from upgrades.domain.condition import Fact, Facts, holds
from upgrades.domain.environment import LCA, Server
from upgrades.domain.gates import applies
from upgrades.domain.groups import NOBODY, Chosen
from upgrades.domain.procedure import ConfirmGate, Parameter, Procedure, Role
from upgrades.domain.refusal import BadInput, NotAllowed
from upgrades.domain.run import REASON
from upgrades.domain.run_state import begin
from upgrades.domain.wording import checked, fill
from upgrades.models import Agent, Application, Environment, ProcedureVersion
from upgrades.queries.facts import facts_at_start
from upgrades.queries.groups import members
from upgrades.queries.people import ids_of
from upgrades.queries.procedures import newest, procedure_of
from upgrades.services import claims, planning, rehearsals, runs
from upgrades.services.agents import hold_agents
from upgrades.services.people import actor_for
from upgrades.services.polling import hurry
from upgrades.services.register import registering_refusals
from upgrades.services.runs import Done, NoSuchRun


@dataclass(frozen=True, slots=True)
class Answers:
    """What the start dialog sends: application per role, text per parameter, text per prerequisite confirmed."""

    bindings: Mapping[str, int]
    parameters: Mapping[str, str]
    confirmations: Mapping[str, str]
    change: str = ""
    category: str = "normal"
    reason: str = ""
    plan_item: int | None = None
    takes_back: int = 0  # the run whose work this one takes back, and what it leaves open
    inherits: tuple[e.BurdenInherited, ...] = ()


class BadAnswers(BadInput):
    """Everything that is wrong with a start dialog at once: `mistakes` by field."""

    def __init__(self, mistakes: dict[str, str]) -> None:
        super().__init__("The run was not started. " + " ".join(mistakes.values()))
        self.mistakes = mistakes


@registering_refusals
def start_run(
    *,
    environment_id: int,
    procedure: str,
    bindings: Mapping[str, int],
    parameters: Mapping[str, str],
    confirmations: Mapping[str, str],
    rehearsal: bool,
    change: str,
    by: AbstractUser,
    command_id: UUID,
    plan_item: int | None = None,
    category: str = "normal",
    reason: str = "",
) -> Done:
    """Start a run of the newest version of `procedure`; a rehearsal starts on a simulated copy of the environment.

    `plan_item` is the item of the plan of record that the run is to carry out; the run then shows there.
    Raises `BadAnswers` with every mistake of the dialog, `NotAllowed` without the role operator, `OutOfTurn` when one
    of the servers belongs to another open run.
    """
    answers = Answers(bindings, parameters, confirmations, change, category, reason, plan_item)
    environment = _environment(environment_id, by)
    actor = actor_for(by, environment)
    if "operator" not in actor.roles:
        raise NotAllowed(
            f"{actor.name} may not start runs here: that takes the role operator in {environment.name}."
        )
    before = runs.started_before(command_id, actor)
    if before is not None:
        return before
    version = newest(procedure)
    text = procedure_of(version)
    _check(environment, text, answers)
    if not rehearsal:
        started = _open(environment, version, text, answers, actor, command_id, rehearsal=False)
        crash("start.committed")
        return started
    copy, answers = _copy(environment, text, answers)
    done = None
    try:
        done = _open(copy, version, text, answers, actor, command_id, rehearsal=True)
    finally:
        if done is None or done.repeated:
            rehearsals.discard(copy)
    return done


def open_here(
    environment: Environment,
    procedure: str,
    answers: Answers,
    actor: e.Actor,
    command_id: UUID,
    *,
    rehearsal: bool,
) -> Done:
    """Start a run of `procedure` on the servers of this very environment, within the transaction of the caller."""
    version = newest(procedure)
    return _open(environment, version, procedure_of(version), answers, actor, command_id, rehearsal=rehearsal)


def _environment(environment_id: int, by: AbstractUser) -> Environment:
    found = Environment.objects.filter(pk=environment_id, memberships__user_id=by.pk).first()
    if found is None:
        raise NoSuchRun("There is no such environment, or you have no role in it.")
    return found


def _copy(environment: Environment, procedure: Procedure, answers: Answers) -> tuple[Environment, Answers]:
    target = _target(procedure, environment, answers)
    copy = rehearsals.simulated_copy(
        environment, procedure=procedure, target=target, parameters=answers.parameters
    )
    names = dict(Application.objects.filter(pk__in=answers.bindings.values()).values_list("pk", "name"))
    copied = dict(copy.applications.values_list("name", "pk"))
    bindings = {role: copied[names[application]] for role, application in answers.bindings.items()}
    return copy, replace(answers, bindings=bindings)


def _target(procedure: Procedure, environment: Environment, answers: Answers) -> str:
    stated = answers.parameters.get("target", "")
    return (
        stated
        or environment.targets.filter(component=procedure.component).values_list("version", flat=True).first()
        or ""
    )


def _check(
    environment: Environment, procedure: Procedure, answers: Answers
) -> tuple[dict[str, Application], dict[str, Fact], Chosen]:
    """The bound applications, all facts at the start and the members of groups; every mistake at once."""
    mistakes: dict[str, str] = {}
    bound = _bound(environment, procedure, answers, mistakes)
    facts = facts_at_start(environment, bound)
    facts |= _parameters(procedure, answers, facts, mistakes)
    chosen = Chosen({}, {}) if mistakes else _members(environment, procedure, bound, facts, mistakes)
    _confirmed(procedure, answers, mistakes)
    if (
        not mistakes
        and procedure.offered_when is not None
        and holds(procedure.offered_when, facts) is not True
    ):
        mistakes["procedure"] = (
            "This procedure is not meant for these servers; see its page for what it asks of them."
        )
    try:
        checked(answers.change, what="The change number", most=120)
    except BadInput as mistake:
        mistakes["change"] = mistake.message
    mistakes |= _about_the_change(answers)
    if mistakes:
        raise BadAnswers(mistakes)
    return bound, facts, chosen


def _about_the_change(answers: Answers) -> dict[str, str]:
    """What is wrong with the category and the reason of the change. An emergency is explained when it begins."""
    if answers.category not in e.CATEGORIES:
        return {"category": f"Choose one of {', '.join(e.CATEGORIES)}."}
    least = REASON if answers.category == e.EMERGENCY else 0
    try:
        checked(answers.reason, what="The reason", least=least, most=2000)
    except BadInput as mistake:
        return {"reason": mistake.message}
    return {}


def _members(
    environment: Environment,
    procedure: Procedure,
    bound: Mapping[str, Application],
    facts: Facts,
    mistakes: dict[str, str],
) -> Chosen:
    try:
        chosen = members(environment, procedure, bound, facts)
    except BadInput as mistake:
        mistakes[f"parameter-{mistake.field}" if mistake.field else "groups"] = mistake.message
        return Chosen({}, {})
    selective = [group for group in procedure.groups if group.when is not None]
    if selective and not any(chosen.groups[group.name] for group in selective):
        mistakes["groups"] = (
            "Nothing is left to do: everything that this procedure works on is at its target."
        )
    return chosen


def _bound(
    environment: Environment, procedure: Procedure, answers: Answers, mistakes: dict[str, str]
) -> dict[str, Application]:
    there = {
        application.pk: application for application in environment.applications.select_related("host", "peer")
    }
    bound: dict[str, Application] = {}
    for role in procedure.roles:
        application = there.get(answers.bindings.get(role.name, 0))
        if application is None:
            mistakes[f"role-{role.name}"] = f"Choose the application that is “{role.title}”."
        elif why := unfit(role, application):
            mistakes[f"role-{role.name}"] = why
        else:
            bound[role.name] = application
    for role in procedure.roles:
        other = bound.get(role.pair_of or "")
        mine = bound.get(role.name)
        if other is not None and mine is not None and mine.peer_id != other.pk and other.peer_id != mine.pk:
            mistakes[f"role-{role.name}"] = (
                f"{mine.name} and {other.name} are no HA pair. Choose two that are."
            )
    if len({application.pk for application in bound.values()}) < len(bound):
        mistakes["roles"] = "One application cannot play two roles. Choose another one for each."
    return bound


def unfit(role: Role, application: Application) -> str:
    """Why an application cannot play a role; empty when it can."""
    if application.type not in role.application_types:
        return (
            f"{application.name} is of type {application.type}; “{role.title}” is a {role.application_type}."
        )
    if role.standing and application.standing != role.standing:
        return f"{application.name} is configured as {application.standing}; “{role.title}” is the {role.standing}."
    return ""


def default_of(parameter: Parameter, facts: Facts) -> str:
    """The answer that the dialog proposes: from the environment's facts, or the procedure's own."""
    found = facts.get((parameter.default_from or "").lower())
    if isinstance(found, bool):
        return "true" if found else "false"
    return found or parameter.default


def _parameters(
    procedure: Procedure, answers: Answers, facts: Facts, mistakes: dict[str, str]
) -> dict[str, Fact]:
    found: dict[str, Fact] = {}
    for parameter in procedure.parameters:
        stated = answers.parameters.get(parameter.name, default_of(parameter, facts))
        try:
            found[parameter.name] = answer_of(parameter, stated, {**facts, **found})
        except BadInput as mistake:
            mistakes[f"parameter-{parameter.name}"] = f"{parameter.title}: {mistake.message}"
    return found


def _confirmed(procedure: Procedure, answers: Answers, mistakes: dict[str, str]) -> None:
    known = {gate.id for gate in procedure.steps[0].gates if isinstance(gate, ConfirmGate)}
    for gate, text in answers.confirmations.items():
        if gate not in known:
            mistakes[f"confirm-{gate}"] = f"“{gate}” is no prerequisite that a person confirms."
            continue
        try:
            checked(text, what="The text")
        except BadInput as mistake:
            mistakes[f"confirm-{gate}"] = mistake.message


@transaction.atomic
def _open(
    environment: Environment,
    version: ProcedureVersion,
    procedure: Procedure,
    answers: Answers,
    actor: e.Actor,
    command_id: UUID,
    *,
    rehearsal: bool,
) -> Done:
    Environment.objects.select_for_update().get(pk=environment.rehearsal_of_id or environment.pk)
    before = runs.started_before(command_id, actor)  # the same form, sent twice at once
    if before is not None:
        return before
    bound, facts, chosen = _check(environment, procedure, answers)
    hosts = _hosts(environment, bound, chosen)
    hold_agents(hosts)
    if procedure.groups:
        bound |= agents_and_servers(environment, chosen.roles)
        facts |= facts_at_start(environment, bound) | {f"{NOBODY}.there": False}
    asked = claims.wanted(procedure.component, bound.values())
    claims.refuse_if_held(asked)
    item = planning.item_for(environment, answers.plan_item, procedure.id)
    original = environment.rehearsal_of
    started = e.RunStarted(
        procedure=procedure.id,
        procedure_version=procedure.version,
        procedure_hash=procedure.text_hash,
        title=fill(procedure.title, facts),
        environment=environment.pk,
        environment_name=environment.name,
        rehearsal=rehearsal,
        bindings={
            role: e.Bound(
                application=application.name,
                application_type=application.type,
                host=application.host.name,
                version=application.version,
            )
            for role, application in bound.items()
        },
        facts=facts,
        policies=(original or environment).policies,
        # Texts name their authors by account; who acts in a run is known by an id.
        authors=[*procedure.authors, *sorted(ids_of(procedure.authors))],
        change=answers.change.strip(),
        category=answers.category,
        reason=answers.reason.strip(),
        clocks=_clocks(bound.values()),
        rehearsal_of=original.name if original is not None else "",
        takes_back=answers.takes_back,
        groups=chosen.groups,
    )
    procedure = procedure_of(version, started)
    done = runs.open_run(
        environment=environment,
        procedure_version_id=version.pk,
        procedure=procedure,
        started=started,
        bound=bound,
        first=[*answers.inherits, *_first(procedure, started, answers, actor)],
        by=actor,
        command_id=command_id,
    )
    claims.take(done.run, asked)
    planning.attach(done.run, item)
    hurry(hosts)  # last: whoever looks at an agent meanwhile cannot see the run yet
    return done


def _hosts(environment: Environment, bound: Mapping[str, Application], chosen: Chosen) -> set[int]:
    """The hosts of the applications that play the roles, also of those that are not entered yet."""
    names = {server.host for server in chosen.roles.values()}
    there = environment.hosts.filter(name__in=names).values_list("pk", flat=True)
    return {*there, *(application.host_id for application in bound.values())}


def _clocks(bound: Iterable[Application]) -> dict[str, int]:
    """How many milliseconds the clock of each host is ahead of ours, by its agent's last answer."""
    hosts = {application.host_id for application in bound}
    agents = Agent.objects.filter(host__in=hosts, seen_at__isnull=False).values_list(
        "host__name", "clock_skew"
    )
    return {name: round(ahead * 1000) for name, ahead in agents}


def agents_and_servers(environment: Environment, roles: Mapping[str, Server]) -> dict[str, Application]:
    """The applications that play `roles`. A Local Control Agent is entered when a run first works on it."""
    hosts = {host.name: host for host in environment.hosts.all()}
    for server in roles.values():
        if server.type == LCA:
            Application.objects.update_or_create(
                environment=environment,
                name=server.name,
                defaults={"host": hosts[server.host], "type": LCA, "version": server.version},
            )
    known = {item.name: item for item in environment.applications.select_related("host", "peer")}
    return {role: known[server.name] for role, server in roles.items()}


def _first(procedure: Procedure, started: e.RunStarted, answers: Answers, actor: e.Actor) -> list[e.RunEvent]:
    """What the dialog confirmed already, as confirmations of the first step."""
    state = begin(e.Recorded(1, timezone.now(), actor, started))
    step = procedure.steps[0]
    begun: list[e.RunEvent] = []
    # Else the step waits, as any other would: for its signatures, and where its gates read logs, for whoever begins it,
    # which takes the watermarks. What was confirmed counts when it begins.
    if not (step.needs or step.event_gates):
        begun.append(e.StepBegun(step=step.id, visit=1))
    return begun + [
        e.GateConfirmed(
            step=step.id, visit=1, gate=gate.id, answer="pass", text=answers.confirmations[gate.id]
        )
        for gate in step.gates
        if isinstance(gate, ConfirmGate) and gate.id in answers.confirmations and applies(gate, state)
    ]
