"""What the pages for changing an environment show."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from upgrades.domain.environment import LCA
from upgrades.domain.environment_records import Ident, Kind, ident
from upgrades.models import Agent, Application, Claim, Environment, Host, RunBinding, Target
from upgrades.queries.run_lines import OVER
from upgrades.queries.topology import AgentView, agent_view


def held_by_runs(environment: Environment) -> dict[Ident, tuple[int, str]]:
    """What open runs work on, with number and title of the run: applications, their hosts, whatever else they claim."""
    held: dict[Ident, tuple[int, str]] = {}
    bindings = RunBinding.objects.filter(application__environment=environment).exclude(run__status__in=OVER)
    claims = Claim.objects.filter(released_at=None, run__environment=environment)
    columns = ("application__name", "application__host__name", "run_id", "run__title")
    for name, host, run, title in (
        *bindings.values_list(*columns),
        *claims.exclude(application=None).values_list(*columns),
    ):
        held.setdefault(ident(Kind.APPLICATION, str(name)), (run, title))
        held.setdefault(ident(Kind.HOST, str(host)), (run, title))
    for host, run, title in claims.exclude(host=None).values_list("host__name", "run_id", "run__title"):
        held.setdefault(ident(Kind.HOST, str(host)), (run, title))
    return held


@dataclass(frozen=True, slots=True)
class HostLine:
    """`run` is the open run that works on it; while there is one, nothing of the host is changed."""

    id: int
    name: str
    site: str
    system: str
    lca: str
    agent: AgentView
    run: int | None


@dataclass(frozen=True, slots=True)
class ApplicationLine:
    id: int
    name: str
    type: str
    version: str
    host: str
    port: int | None
    standing: str
    peer: str
    dormant: bool
    run: int | None


@dataclass(frozen=True, slots=True)
class EditPage:
    """Everything of an environment that can be changed by hand."""

    id: int
    name: str
    targets: tuple[Target, ...]
    hosts: tuple[HostLine, ...]
    applications: tuple[ApplicationLine, ...]


def edit_page(environment: Environment, now: datetime) -> EditPage:
    """Six queries, however large the environment is."""
    held = held_by_runs(environment)

    def run_of(kind: Kind, name: str) -> int | None:
        found = held.get(ident(kind, name))
        return found[0] if found else None

    return EditPage(
        id=environment.pk,
        name=environment.name,
        targets=tuple(environment.targets.order_by("component")),
        hosts=tuple(
            _host_line(host, run_of(Kind.HOST, host.name), now)
            for host in environment.hosts.select_related("agent")
        ),
        applications=tuple(
            _application_line(application, run_of(Kind.APPLICATION, application.name))
            for application in environment.applications.exclude(type=LCA)
            .select_related("host", "peer")
            .order_by("name")
        ),
    )


def _host_line(host: Host, run: int | None, now: datetime) -> HostLine:
    system = " ".join(part for part in (host.os_name or host.host_type, host.os_version) if part)
    return HostLine(
        host.pk, host.name, host.site, system, host.lca_version, agent_view(agent_of(host), now), run
    )


def _application_line(application: Application, run: int | None) -> ApplicationLine:
    return ApplicationLine(
        id=application.pk,
        name=application.name,
        type=application.type,
        version=application.version,
        host=application.host.name,
        port=application.port,
        standing=application.standing,
        peer=application.peer.name if application.peer else "",
        dormant=application.dormant,
        run=run,
    )


def agent_of(host: Host) -> Agent | None:
    try:
        return host.agent
    except Agent.DoesNotExist:
        return None
