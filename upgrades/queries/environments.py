"""What the pages about environments show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import AbstractUser

from upgrades.domain.policy import lacks_people, people_in, policies_in
from upgrades.models import Agent, Application, Environment, Host, Membership, Run, RunBurden, Target
from upgrades.queries.access import roles_in, visible_environments
from upgrades.queries.environment_watch import FindingView, standing_findings
from upgrades.queries.offers import Offer, offers
from upgrades.queries.people import policy_people
from upgrades.queries.policies import policy_notes
from upgrades.queries.run_lines import OVER, RunLine, run_lines
from upgrades.queries.topology import AgentView, Topology, VersionView, agent_view, reach, topology

PAST_RUNS = 10


@dataclass(frozen=True, slots=True)
class ComponentLine:
    """All servers of one type: the lowest version counts, since it is the one that is left to do."""

    component: str
    versions: tuple[VersionView, ...]


@dataclass(frozen=True, slots=True)
class AgentTrouble:
    host: str
    agent: AgentView


@dataclass(frozen=True, slots=True)
class EnvironmentCard:
    """An environment in the list. For a rehearsal's copy `original` is the name of what it copies."""

    id: int
    name: str
    original: str
    is_simulated: bool
    roles: tuple[str, ...]
    open_runs: tuple[RunLine, ...]
    exposures: tuple[str, ...]
    duties: tuple[str, ...]
    components: tuple[ComponentLine, ...]
    troubles: tuple[AgentTrouble, ...]
    hosts: int


@dataclass(frozen=True, slots=True)
class EnvironmentList:
    environments: tuple[EnvironmentCard, ...]
    rehearsals: tuple[EnvironmentCard, ...]

    @property
    def may_create(self) -> bool:
        """An administrator of any environment may make another one."""
        return any("administrator" in card.roles for card in self.environments)


def environment_list(user: AbstractUser, now: datetime) -> EnvironmentList:
    """All environments that the person may see; rehearsals apart, and only while their run is open."""
    found = list(
        visible_environments(user)
        .select_related("rehearsal_of")
        .prefetch_related("hosts__agent", "applications", "targets")
        .order_by("name", "pk")
    )
    roles = _roles(user)
    runs = _open_runs(found)
    burdens = _burdens_by_environment(found)
    cards = [
        _card(item, roles[item.rehearsal_of_id or item.pk], runs[item.pk], burdens[item.pk], now)
        for item in found
        if item.rehearsal_of_id is None or runs[item.pk] or burdens[item.pk]
    ]
    return EnvironmentList(
        environments=tuple(card for card in cards if not card.original),
        rehearsals=tuple(card for card in cards if card.original),
    )


def _roles(user: AbstractUser) -> defaultdict[int, list[str]]:
    roles: defaultdict[int, list[str]] = defaultdict(list)
    for environment, role in Membership.objects.filter(user_id=user.pk).values_list("environment_id", "role"):
        roles[environment].append(role)
    return roles


def _open_runs(found: Iterable[Environment]) -> defaultdict[int, list[RunLine]]:
    runs: defaultdict[int, list[RunLine]] = defaultdict(list)
    rows = Run.objects.filter(environment__in=found).exclude(status__in=OVER).select_related("environment")
    for line in run_lines(rows):
        runs[line.environment_id].append(line)
    return runs


def _burdens_by_environment(found: Iterable[Environment]) -> defaultdict[int, list[RunBurden]]:
    burdens: defaultdict[int, list[RunBurden]] = defaultdict(list)
    for row in RunBurden.objects.filter(environment__in=found, closed_at=None):
        burdens[row.environment_id].append(row)
    return burdens


def _card(
    environment: Environment,
    roles: list[str],
    runs: list[RunLine],
    burdens: list[RunBurden],
    now: datetime,
) -> EnvironmentCard:
    hosts = list(environment.hosts.all())
    agents = [(host.name, agent_view(_agent(host), now)) for host in hosts]
    return EnvironmentCard(
        id=environment.pk,
        name=environment.name,
        original=environment.rehearsal_of.name if environment.rehearsal_of else "",
        is_simulated=environment.is_simulated,
        roles=tuple(sorted(roles)),
        open_runs=tuple(runs),
        exposures=tuple(row.title for row in burdens if row.burden.startswith("exposure:")),
        duties=tuple(row.title for row in burdens if row.burden.startswith("duty:")),
        components=components(hosts, environment.applications.all(), environment.targets.all()),
        troubles=tuple(AgentTrouble(host, agent) for host, agent in agents if not agent.is_well),
        hosts=len(hosts),
    )


def _agent(host: Host) -> Agent | None:
    try:
        return host.agent
    except Agent.DoesNotExist:
        return None


def components(
    hosts: Iterable[Host], applications: Iterable[Application], targets: Iterable[Target]
) -> tuple[ComponentLine, ...]:
    """Per component that has a target, the different versions in use beside it."""
    versions: defaultdict[str, set[str]] = defaultdict(set)
    for application in applications:
        versions[application.type].add(application.version)
    versions["LCA"] = {host.lca_version for host in hosts}
    return tuple(
        ComponentLine(
            target.component,
            tuple(reach(version, target.version) for version in sorted(versions[target.component])),
        )
        for target in sorted(targets, key=lambda target: target.component)
        if versions[target.component]
    )


# One environment.


@dataclass(frozen=True, slots=True)
class BurdenLine:
    """An exposure or duty that stands on the environment. `is_mine`: this person may close it."""

    run: int
    run_is_over: bool
    burden: str
    kind: str
    title: str
    opened_at: datetime
    owner: str
    is_mine: bool


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    username: str
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolicyLine:
    """What needs how many signatures of whom, and what else holds."""

    name: str
    whom: str
    notes: tuple[str, ...]
    lack: str  # who is missing to fill it; empty: there are enough people


@dataclass(frozen=True, slots=True)
class EnvironmentPage:
    """Everything the page of an environment shows, at one version of it."""

    id: int
    name: str
    original_id: int | None
    original: str
    is_simulated: bool
    disaster_recovery: bool
    version: int
    roles: tuple[str, ...]
    topology: Topology
    open_runs: tuple[RunLine, ...]
    past_runs: tuple[RunLine, ...]
    more_past_runs: bool
    findings: tuple[FindingView, ...]
    burdens: tuple[BurdenLine, ...]
    offers: tuple[Offer, ...]
    targets: tuple[tuple[str, str], ...]
    policies: tuple[PolicyLine, ...]
    members: tuple[Member, ...]

    @property
    def may_start(self) -> bool:
        return "operator" in self.roles and self.original_id is None

    @property
    def is_rehearsal(self) -> bool:
        return self.original_id is not None


def find_environment(user: AbstractUser, environment_id: int) -> Environment | None:
    """The environment, or None when it is not there or none of this person's business."""
    return (
        visible_environments(user)
        .filter(pk=environment_id)
        .select_related("rehearsal_of")
        .prefetch_related("targets", "applications")
        .first()
    )


def environment_page(
    environment: Environment, user: AbstractUser, person: str, now: datetime
) -> EnvironmentPage:
    """The page of an environment for this person (`person` is the id that runs know the user by)."""
    runs = environment.runs.select_related("environment")
    past = list(runs.filter(status__in=OVER)[: PAST_RUNS + 1])
    return EnvironmentPage(
        id=environment.pk,
        name=environment.name,
        original_id=environment.rehearsal_of_id,
        original=environment.rehearsal_of.name if environment.rehearsal_of else "",
        is_simulated=environment.is_simulated,
        disaster_recovery=environment.disaster_recovery,
        version=environment.version,
        roles=tuple(sorted(roles_in(user, environment))),
        topology=topology(environment, now),
        open_runs=run_lines(runs.exclude(status__in=OVER)),
        past_runs=run_lines(past[:PAST_RUNS]),
        more_past_runs=len(past) > PAST_RUNS,
        findings=standing_findings(environment),
        burdens=_burden_lines(environment, person),
        offers=offers(environment) if environment.rehearsal_of_id is None else (),
        targets=tuple(sorted((target.component, target.version) for target in environment.targets.all())),
        policies=_policies(environment),
        members=_members(environment),
    )


def _burden_lines(environment: Environment, person: str) -> tuple[BurdenLine, ...]:
    rows = environment.burdens.filter(closed_at=None).select_related("run").order_by("opened_at", "pk")
    return tuple(
        BurdenLine(
            run=row.run_id,
            run_is_over=row.run.status in OVER,
            burden=row.burden,
            kind=row.burden.partition(":")[0],
            title=row.title,
            opened_at=row.opened_at,
            owner=row.owner_name,
            is_mine=bool(row.owner_id) and row.owner_id == person,
        )
        for row in rows
    )


def _policies(environment: Environment) -> tuple[PolicyLine, ...]:
    people, groups = policy_people(environment), people_in(environment.policies)
    return tuple(
        PolicyLine(
            policy.name.replace("-", " "),
            policy.in_words,
            policy_notes(policy),
            lacks_people(policy, groups, people),
        )
        for policy in policies_in(environment.policies)
    )


def _members(environment: Environment) -> tuple[Member, ...]:
    owner = environment.rehearsal_of_id or environment.pk
    rows = Membership.objects.filter(environment_id=owner, user__is_active=True).select_related("user")
    people: dict[int, Member] = {}
    for row in rows.order_by("user__username", "role"):
        user = row.user
        known = people.get(user.pk) or Member(user.get_full_name() or user.username, user.username, ())
        people[user.pk] = Member(known.name, known.username, (*known.roles, row.role))
    return tuple(people.values())
