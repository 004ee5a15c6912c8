"""A world: its servers, its clock, what is due in it, and what a person can do to it.

Nothing here sleeps or runs by itself. Whoever owns a world calls `act` and `misbehave`, and `advance` when
`next_due` has come; every effect carries the time it was due at into the log. The whole state is JSON
(`state`, `World.load`).
"""

from __future__ import annotations

import heapq
import json
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from simulator import actions, misbehaviours, reactions
from simulator.disk import Disk
from simulator.logs import TEXTS, Layout, LogFile, event_line, free_line
from simulator.model import Folder, Refused, Server
from simulator.scenarios import SCENARIOS, Scenario
from simulator.spec import complete, path_name

NOTES_KEPT = 60


class World:
    """One world in a folder of its own. Made with `World.create` or `World.load`."""

    def __init__(self, spec: dict[str, Any], root: Path, clock: Callable[[], float]) -> None:
        self.spec = spec
        self.root = root
        self.clock = clock
        self.disk = Disk(root)
        self.now = clock()
        self.servers: dict[str, Server] = {}
        self.due: list[tuple[float, int, str, dict[str, Any]]] = []
        self.counter = 0
        self.read_only = False
        self.waiting: dict[str, list[int]] = {}  # pair -> clients without a server
        self.arriving: list[str] = []  # pairs whose clients are on their way
        self.trouble: dict[str, str] = {}  # pair -> "none" or "two" primaries, as SCS last said
        self.agents_down: list[str] = []
        self.skew: dict[str, float] = {}
        self.notes: list[dict[str, str]] = []
        self.changed = True

    # Making and keeping

    @classmethod
    def create(cls, spec: Any, root: Path, clock: Callable[[], float] = time.time) -> World:
        """A new world from a specification, with its files written. Raises BadSpec."""
        world = cls(complete(spec), root, clock)
        world.begin()
        return world

    @classmethod
    def load(cls, root: Path, clock: Callable[[], float] = time.time) -> World:
        """The world kept in `root/state.json`. Its time stood still meanwhile: what was due is still to
        come."""
        kept = json.loads((root / "state.json").read_text())
        world = cls(kept["spec"], root, clock)
        pause = max(0.0, world.now - kept["now"])
        world.due = [(at + pause, number, name, args) for at, number, name, args in kept["due"]]
        for name, fields in kept["servers"].items():
            folders = {key: Folder(**folder) for key, folder in fields.pop("folders").items()}
            world.servers[name] = Server(folders=folders, **fields)
        for key in ("counter", "read_only", "waiting", "arriving", "trouble", "agents_down", "skew", "notes"):
            setattr(world, key, kept[key])
        for server in world.servers.values():
            if server.up:
                world.disk.set_pid(server, os.getpid())
        return world

    def save(self) -> None:
        """Write the state beside the old one and put it in its place."""
        partial = self.root / "state.json.new"
        partial.write_text(json.dumps(self.state()))
        partial.replace(self.root / "state.json")
        self.changed = False

    def state(self) -> dict[str, Any]:
        keys = ("counter", "read_only", "waiting", "arriving", "trouble", "agents_down", "skew", "notes")
        return {
            "spec": self.spec,
            "now": self.clock(),
            "due": self.due,
            "servers": {name: asdict(server) for name, server in self.servers.items()},
            **{key: getattr(self, key) for key in keys},
        }

    def begin(self) -> None:
        """Put every server into its first state: all up, all clients on the primaries."""
        self.now = self.clock()
        self.disk.wipe()
        self.due, self.waiting, self.arriving, self.trouble = [], {}, [], {}
        self.agents_down, self.skew, self.read_only = [], {}, False
        self.servers = {given["name"]: _server(given, 99 + n) for n, given in enumerate(self.spec["servers"])}
        for server in self.servers.values():
            for key in server.folders:
                self.disk.write(server, key)
            given = next(item for item in self.spec["servers"] if item["name"] == server.name)
            if not given["down"]:
                reactions.stand_from_the_start(self, server, given["clients"], serves=self._serves(given))
        for what, role, value in self.scenario.misbehaviours:
            for server in self.roles(role):
                misbehaviours.set_misbehaviour(self, what, server, None, value)
        self.later(reactions.CHECK_POINT_SECONDS * self.speed, "check-point")
        self.note(f"World {self.spec['name']} begins. {self.scenario.description}")

    def _serves(self, given: dict[str, Any]) -> bool:
        """Whether it serves when the world begins: a primary does, and a backup whose primary is down."""
        peers = [other for other in self.spec["servers"] if other["name"] == given["peer"]]
        return given["role"] == "primary" or any(peer["down"] for peer in peers)

    # Facts

    @property
    def scenario(self) -> Scenario:
        return SCENARIOS[self.spec["scenario"]]

    @property
    def speed(self) -> float:
        return float(self.spec["speed"])

    def server(self, name: Any) -> Server:
        """The server of that name. Raises Refused with the names there are."""
        if not isinstance(name, str) or name not in self.servers:
            raise Refused(f"There is no server {name!r} here. There are: {', '.join(self.servers)}.")
        return self.servers[name]

    def peer(self, server: Server) -> Server | None:
        return self.servers.get(server.peer or "")

    def members(self, pair: str) -> list[Server]:
        return [server for server in self.servers.values() if server.pair == pair]

    def roles(self, role: str) -> list[Server]:
        """The servers that play "new" or "old" in an upgrade of the pairs of Configuration Servers of this
        world."""
        wanted = "backup" if role == "new" else "primary"
        pairs = [server for server in self.servers.values() if server.configuration and server.peer]
        return [server for server in pairs if server.role == wanted]

    def managed(self) -> bool:
        """Whether an SCS is at work; a world without any is taken as managed from elsewhere."""
        every = [server for server in self.servers.values() if server.type == "SCS"]
        return not every or any(server.mode == "primary" for server in every)

    def chance(self) -> float:
        """A number from 0 to 1 that depends on the seed and on how many were taken."""
        self.counter += 1
        return zlib.crc32(f"{self.spec['seed']}/{self.counter}".encode()) / 2**32

    # Time

    def later(self, delay: float, name: str, **args: Any) -> None:
        """Let the effect `name` happen in `delay` simulated seconds."""
        self.counter += 1
        heapq.heappush(self.due, (self.now + delay / self.speed, self.counter, name, args))
        self.changed = True

    def next_due(self) -> float | None:
        return self.due[0][0] if self.due else None

    def advance(self) -> int:
        """Do all that is due by now, in order. Returns how many effects there were."""
        until, done = self.clock(), 0
        while self.due and self.due[0][0] <= until:
            at, _, name, args = heapq.heappop(self.due)
            with self._at(at):
                reactions.EFFECTS[name](self, **args)
            done += 1
        return done

    @contextmanager
    def _at(self, moment: float) -> Iterator[None]:
        self.now = max(self.now, moment)
        self.changed = True
        yield

    # What people do

    def act(self, action: Any) -> str:
        """Do one action, e.g. {"action": "stop", "server": "confserv"}. Returns a sentence; raises
        Refused."""
        self.advance()
        with self._at(self.clock()):
            sentence = actions.perform(self, action)
        self.advance()
        self.note(sentence)
        return sentence

    def misbehave(self, wish: Any) -> str:
        """Begin or end a misbehaviour, e.g. {"what": "no-25301", "server": "confserv_b"}. Raises Refused."""
        self.advance()
        with self._at(self.clock()):
            sentence = misbehaviours.perform(self, wish)
        self.note(sentence)
        return sentence

    def note(self, sentence: str) -> None:
        moment = datetime.fromtimestamp(self.now, UTC).isoformat(timespec="milliseconds")
        self.notes = [*self.notes, {"at": moment, "text": sentence}][-NOTES_KEPT:]
        self.changed = True

    # Logs

    def layout(self, server: Server) -> Layout:
        gap = " " if server.configuration else "   "  # SCS files were seen with three blanks
        return Layout(
            application=server.name,
            application_type=server.type,
            host=server.host,
            message=server.message_format,
            time=server.time_format,
            gap=gap,
            utc_offset=self.spec["utc-offset"],
        )

    def log_file(self, server: Server) -> LogFile:
        base = path_name(server.name)
        return LogFile(self.disk.logs(server), base, name=server.log_name, segment=server.log_segment)

    def log_time(self, server: Server) -> float:
        return self.now + self.skew.get(server.host, 0.0)

    def open_log(self, server: Server, segment: int = 1) -> None:
        """Begin a new log file of the server (unless it is silent)."""
        if server.misbehaviours.get("silent"):
            return
        file = self.log_file(server)
        file.open_file(
            self.layout(server),
            self.log_time(server),
            version=server.current.version,
            command_line=self.disk.command_line(server),
            segment=segment,
        )
        server.log_name, server.log_segment = file.name, file.segment
        self.changed = True

    def lines(self, server: Server, lines: list[str]) -> None:
        """Append finished lines to the server's log; a silent server, or one never started, writes
        nothing."""
        if lines and server.log_name and not server.misbehaviours.get("silent"):
            self.log_file(server).append(lines)

    def event(
        self, server: Server, number: int, text: str = "", level: str = "Std", more: tuple[str, ...] = ()
    ) -> None:
        """Write one event; `more` are its continuation lines."""
        line = event_line(self.layout(server), self.log_time(server), level, number, text or TEXTS[number])
        self.lines(server, [line, *more])

    def say(self, server: Server, text: str, more: tuple[str, ...] = ()) -> None:
        """Write one line without level and number."""
        self.lines(server, [free_line(self.layout(server), self.log_time(server), text), *more])

    # Views

    def agent_configurations(self) -> dict[str, dict[str, Any]]:
        """Host -> its agent's configuration, without address and keys."""
        return {
            host: {
                "agent": host,
                "applications": [
                    self._application(server) for server in self.servers.values() if server.host == host
                ],
            }
            for host in self.spec["hosts"]
        }

    def _application(self, server: Server) -> dict[str, Any]:
        base = path_name(server.name)
        return {
            "name": server.name,
            "type": server.type,
            "log": {"folder": str(self.disk.logs(server)), "pattern": f"{base}*.log"},
            "folders": {key: str(self.disk.folder(server, key)) for key in ("current", "prepared", "kept")},
            "configuration": self.disk.configuration(server),
            "start-file": "run.sh",
            "process": {"pid-file": str(self.disk.pid_file(server))},
        }

    def view(self, lines: int = 20) -> dict[str, Any]:
        """Everything a page or a test wants to see of this world."""
        new, old = self.roles("new"), self.roles("old")
        upcoming = self.next_due()
        return {
            "name": self.spec["name"],
            "scenario": self.scenario.name,
            "description": self.scenario.description,
            "target": self.spec["target"],
            "database-upgraded": self.scenario.database_upgraded,
            "speed": self.speed,
            "time": datetime.fromtimestamp(self.clock(), UTC).isoformat(timespec="milliseconds"),
            "next-in": None
            if upcoming is None
            else max(0.0, math.ceil((upcoming - self.clock()) * 1000) / 1000),
            "roles": {"new": new[0].name if new else None, "old": old[0].name if old else None},
            "read-only": self.read_only,
            "waiting-clients": {pair: len(clients) for pair, clients in self.waiting.items() if clients},
            "pairs": {
                pair: self.trouble.get(pair, "normal")
                for pair in sorted({server.pair for server in self.servers.values() if server.peer})
            },
            "clock-skew": self.skew,
            "agents-down": self.agents_down,
            "servers": [self.server_view(server, lines) for server in self.servers.values()],
            "notes": self.notes,
        }

    def server_view(self, server: Server, lines: int) -> dict[str, Any]:
        return {
            "name": server.name,
            "type": server.type,
            "host": server.host,
            "version": server.current.version,
            "role": server.role,
            "peer": server.peer,
            "port": server.port,
            "mode": server.mode,
            "dormant": server.dormant,
            "up": server.up,
            "stopping": server.stopping,
            "clients": len(server.clients),
            "database": server.current.database,
            "database-read": server.database_read if server.up else None,
            "upgrade-mode-option": server.current.upgrade_mode,
            "read-only": reactions.read_only_reasons(self, server),
            "folders": {
                key: {
                    "path": str(self.disk.folder(server, key)),
                    "version": server.folders[key].version if key in server.folders else None,
                    "database": server.folders[key].database if key in server.folders else None,
                    "exists": key in server.folders,
                }
                for key in ("current", "prepared", "kept")
            },
            "log": {
                "folder": str(self.disk.logs(server)),
                "file": server.log_name,
                "lines": self.log_file(server).tail(lines),
            },
            "misbehaviours": server.misbehaviours,
        }


def _server(given: dict[str, Any], dbid: int) -> Server:
    folders = {"current": Folder(given["version"], given["name"], given["database"])}
    if given["kept-version"] is not None:
        folders["kept"] = Folder(given["kept-version"], given["name"], given["kept-database"])
    return Server(
        name=given["name"],
        type=given["type"],
        host=given["host"],
        dbid=dbid,
        port=given["port"],
        role=given["role"],
        peer=given["peer"],
        message_format=given["log-format"],
        time_format=given["time-format"],
        folders=folders,
        first_version=given["kept-version"] or given["version"],
        dormant=given["dormant"],
    )
