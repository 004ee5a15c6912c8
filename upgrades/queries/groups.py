"""Groups of a procedure against an environment: who belongs to them, before a run has recorded it."""

from __future__ import annotations

from collections.abc import Mapping

from upgrades.domain.condition import Fact
from upgrades.domain.environment import LCA, Server
from upgrades.domain.groups import Chosen, choose
from upgrades.domain.procedure import Procedure
from upgrades.models import Application, Environment, Host


def members(
    environment: Environment,
    procedure: Procedure,
    bound: Mapping[str, Application],
    facts: Mapping[str, Fact],
) -> Chosen:
    """Who belongs to the groups now, in order; two queries if it has any. `BadInput` when that cannot be told."""
    if not procedure.groups:
        return Chosen({}, {})
    names = {role: application.name for role, application in bound.items()}
    return choose(procedure, servers_of(environment), names, facts)


def servers_of(environment: Environment) -> list[Server]:
    """All applications and one Local Control Agent for each host. Its version is the host's."""
    applications = list(environment.applications.select_related("host", "peer"))
    own = {item.host_id: item.name for item in applications if item.type == LCA}
    return [
        *(_server(item) for item in applications if item.type != LCA),
        *(_lca(host, own.get(host.pk) or lca_name(host)) for host in environment.hosts.all()),
    ]


def lca_name(host: Host) -> str:
    """What the Local Control Agent of a host is called where nobody gave it a name."""
    return f"lca_{host.name}"


def _lca(host: Host, name: str) -> Server:
    return Server(name=name, type=LCA, host=host.name, version=host.lca_version)


def _server(item: Application) -> Server:
    return Server(
        name=item.name,
        type=item.type,
        host=item.host.name,
        version=item.version,
        standing=item.standing,
        peer=item.peer.name if item.peer is not None else "",
        mode=item.mode,
        dormant=item.dormant,
    )
