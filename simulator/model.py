"""What a world consists of: servers, their folders, and the refusal of an action. Plain data, kept as
JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

CONFIGURATION_TYPES = frozenset({"ConfigurationServer", "ConfigurationServerProxy"})
DATABASES = ("old", "upgraded")
SERVING = frozenset({"primary", "upgrade-mode"})


class Refused(Exception):
    """An action that cannot be done now; its text says what, why and what to do."""


@dataclass(slots=True)
class Folder:
    """The content of an installation folder, as far as the world cares."""

    version: str
    section: str
    database: str = "old"
    upgrade_mode: bool = False
    options: dict[str, str] = field(default_factory=dict)  # "section/option" -> value


@dataclass(slots=True)
class Server:
    """One server. `mode` is primary, backup, upgrade-mode, initializing or down; `life` counts its starts."""

    name: str
    type: str
    host: str
    dbid: int
    port: int
    role: str  # as configured: primary or backup
    peer: str | None
    message_format: str
    time_format: str
    folders: dict[str, Folder]  # keys: current, prepared, kept
    first_version: str
    dormant: bool = False  # a copy at another site that does not run
    mode: str = "down"
    life: int = 0
    stopping: bool = False
    claims_primary: bool = False  # in upgrade mode it behaves as primary while it still initializes
    database_read: str = "old"  # the database it really opened, see wrong-database
    read_only_logged: bool = False
    clients: list[list[int]] = field(default_factory=list)  # [index of the client, its number on this server]
    next_client: int = 10
    log_name: str = ""
    log_segment: int = 0
    misbehaviours: dict[str, Any] = field(default_factory=dict)
    then: list[dict[str, Any]] = field(default_factory=list)  # actions that wait until it has ended

    @property
    def up(self) -> bool:
        return self.mode != "down"

    @property
    def serves(self) -> bool:
        return self.mode in SERVING

    @property
    def counts_as_primary(self) -> bool:
        return self.serves or (self.up and self.claims_primary)

    @property
    def current(self) -> Folder:
        return self.folders["current"]

    @property
    def configuration(self) -> bool:
        return self.type in CONFIGURATION_TYPES

    @property
    def pair(self) -> str:
        """The same text for both members of a pair, the server's own name if it has none."""
        return "|".join(sorted(filter(None, (self.name, self.peer))))


def version_key(version: str) -> tuple[int, ...]:
    """Numbers of a version for comparison: `8.5.101.45` gives (8, 5, 101, 45)."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def family(version: str) -> tuple[int, ...]:
    return version_key(version)[:2]


def manner_of_start(server: Server, peer: Server | None, behaviour: str, *, undetected: bool) -> str:
    """How a Configuration Server comes up, given its peer: the key of a sequence in `reactions.SEQUENCES`.

    `behaviour` is the scenario's: detect, not-detected, compatible or same-schema. `undetected` suppresses
    21-25301.
    """
    if server.current.upgrade_mode:
        return "forced"  # CSH-6d
    if peer is None or not peer.serves:
        return "alone"
    mine, theirs = family(server.current.version), family(peer.current.version)
    same_database = server.database_read == peer.database_read
    if mine == theirs or (behaviour == "compatible" and mine > theirs):
        if same_database:
            return "compatible"  # CSH-6c, CSH-9
        return "database-differs" if peer.mode == "upgrade-mode" else "detected"
    if mine < theirs:
        return "peer-newer"
    if behaviour == "same-schema" and same_database and theirs < (8, 5):
        return "same-schema"  # CSM-4e
    if undetected or (behaviour == "not-detected" and theirs < (8, 5)):
        return "not-detected"  # CSH-6b
    return "detected"  # CSH-6a
