"""An environment as the planner and the standing rules see it: an immutable picture of what is known now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from upgrades.domain.version import NotAVersion, Version

MASTER, PROXY, SCS = "ConfigurationServer", "ConfigurationServerProxy", "SCS"
MESSAGE_SERVER, DB_SERVER = "MessageServer", "RealDBServer"
# Components that have targets but are no Application objects.
LCA, CONFIGURATION_DATABASE, LOG_DATABASE = "LCA", "ConfigurationDatabase", "LogDatabase"

# Modes in which a server serves as primary; upgrade mode is the state between CSH-6 and CSH-10.
SERVING = frozenset({"primary", "upgrade-mode", "primary-upgrade-mode"})

CONFIGURATION_COMPONENTS = (MASTER, PROXY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A machine. `host_type` is what the Host object says, `os_name` and `os_version` what the machine runs."""

    name: str
    site: str = ""
    host_type: str = ""
    os_name: str = ""
    os_version: str = ""
    lca_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """An application. `mode` is primary, backup, upgrade-mode, primary-upgrade-mode, down, or empty when not known.

    `process` is up, down or unknown.
    """

    name: str
    type: str
    host: str
    version: str = ""
    standing: str = "standalone"
    peer: str = ""
    mode: str = ""
    process: str = "unknown"
    dormant: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """A live run that is not over. `sources` are the requirement ids of the step that it stands at."""

    id: int
    title: str
    procedure: str
    servers: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()

    def is_at(self, *ids: str) -> bool:
        """Whether its step rests on one of these requirements or on a part of one: CSH-6 holds for CSH-6e too."""
        return any(
            source == wanted or (source.startswith(wanted) and not source[len(wanted)].isdigit())
            for source in self.sources
            for wanted in ids
        )


@dataclass(frozen=True, slots=True)
class Unit:
    """What is upgraded together: an HA pair, primary first, or one server that stands alone."""

    servers: tuple[Server, ...]

    @property
    def is_pair(self) -> bool:
        return len(self.servers) > 1

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(server.name for server in self.servers)

    @property
    def first(self) -> Server:
        return self.servers[0]

    @property
    def type(self) -> str:
        return self.first.type

    @property
    def hosts(self) -> frozenset[str]:
        return frozenset(server.host for server in self.servers)

    @property
    def is_dormant(self) -> bool:
        return any(server.dormant for server in self.servers)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Hosts, servers, and what is known of the databases. Names are unique among hosts and among servers.

    `single_language` is None while nobody has said how the Configuration Database is used.
    """

    hosts: tuple[Host, ...] = ()
    servers: tuple[Server, ...] = ()
    targets: Mapping[str, str] = field(default_factory=dict)
    single_language: bool | None = None
    schema_version: str = ""
    log_schema_version: str = ""
    uses_lrm: bool = False
    disaster_recovery: bool = False

    @cached_property
    def by_name(self) -> dict[str, Server]:
        return {server.name: server for server in self.servers}

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """Every server exactly once, pairs joined, in the order of the names of their first servers.

        Two servers are a pair when one names the other as its peer; a peer that is not there, of another type, or
        claimed by somebody else already leaves a server alone.
        """
        peers: dict[str, str] = {}
        for server in sorted(self.servers, key=lambda server: server.name):
            peer = self.by_name.get(server.peer)
            if (
                peer is not None
                and peer.type == server.type
                and peer.dormant == server.dormant
                and peer.name != server.name
                and server.name not in peers
                and peer.name not in peers
            ):
                peers[server.name], peers[peer.name] = peer.name, server.name
        units = {
            frozenset((server.name, peers.get(server.name, server.name))): self._unit(server, peers)
            for server in self.servers
        }
        return tuple(sorted(units.values(), key=lambda unit: unit.names))

    def _unit(self, server: Server, peers: Mapping[str, str]) -> Unit:
        names = {server.name, peers.get(server.name, server.name)}
        members = [self.by_name[name] for name in names]
        return Unit(tuple(sorted(members, key=lambda item: (item.standing == "backup", item.name))))

    def units_of(self, *types: str, dormant: bool | None = None) -> tuple[Unit, ...]:
        return tuple(unit for unit in self.units if unit.type in types and dormant in (None, unit.is_dormant))

    def servers_of(self, *types: str) -> tuple[Server, ...]:
        """By name, so that what is made of them does not depend on how they were read."""
        found = (server for server in self.servers if server.type in types)
        return tuple(sorted(found, key=lambda server: server.name))


def reaches(version: str, target: str) -> bool | None:
    """Whether `version` is `target` or later; None when either is not known or cannot be read."""
    if not version or not target:
        return None
    try:
        return Version.parse(version) >= Version.parse(target)
    except NotAVersion:
        return None


def is_release(version: str, release: str) -> bool:
    """`Version.is_of` for texts; false when either is no version."""
    try:
        return Version.parse(version).is_of(Version.parse(release))
    except NotAVersion:
        return False
