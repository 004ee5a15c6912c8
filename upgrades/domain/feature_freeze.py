"""The feature freeze: who keeps new features of Configuration Server out (INT-3, CS-W1)."""

from __future__ import annotations

from collections.abc import Sequence

from upgrades.domain.environment import CONFIGURATION_COMPONENTS, OpenRun, Picture, reaches
from upgrades.domain.plan import Freeze, Holder
from upgrades.domain.version import Version


def freeze(picture: Picture, open_runs: Sequence[OpenRun] = ()) -> Freeze:
    """Who keeps new features out (INT-3, CS-W1): every component older than the newest, or below its target once begun.

    While all run the same version and no run is under way on them, there is no migration and nothing is frozen.
    """
    servers = picture.servers_of(*CONFIGURATION_COMPONENTS)
    known = [server.version for server in servers if reaches(server.version, server.version)]
    newest = max(known, key=lambda version: Version.parse(version), default="")
    mixed = any(reaches(version, newest) is False for version in known)
    migrating = any(run.servers & {server.name for server in servers} for run in open_runs)
    # A version that nobody knows may be an old one: once somebody has reached a target, doubt keeps the freeze.
    reached = any(reaches(server.version, picture.targets.get(server.type, "")) for server in servers)
    doubtful = reached and len(known) < len(servers)
    if not (mixed or migrating or doubtful):
        return Freeze(())
    holders = []
    for server in sorted(servers, key=lambda server: (server.type, server.name)):
        wanted = [newest, picture.targets.get(server.type, "")] if migrating else [newest]
        if reaches(server.version, server.version) is None:
            holders.append(Holder(server.name, "its version is not known"))
        elif below := [version for version in wanted if reaches(server.version, version) is False]:
            holders.append(Holder(server.name, f"{server.version}, not {below[-1]} yet"))
    return Freeze(tuple(holders))
