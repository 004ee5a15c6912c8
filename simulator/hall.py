"""The hall in which worlds live: makes, keeps, moves on and removes them, with their agents. One lock guards
it all."""

from __future__ import annotations

import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from simulator.agents import AgentFailed, AgentProcess
from simulator.model import Refused
from simulator.scenarios import SCENARIOS
from simulator.script import STEPS
from simulator.spec import WORLDS, BadSpec
from simulator.world import World

AGENT_COMMAND = (sys.executable, "-m", "agent", "--config", "{config}")
SAVE_SECONDS = 1.0
LOOK_AFTER_SECONDS = 5.0


class NoSuchWorld(KeyError):
    """There is no world of that id."""


class Hall:
    """All worlds below `root`. `agent_command` may hold {config}; an empty one means worlds without
    agents."""

    def __init__(
        self,
        root: Path,
        *,
        agent_command: Sequence[str] = AGENT_COMMAND,
        working_folder: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._root = root.resolve()
        self._agent_command = tuple(agent_command)
        self._working_folder = working_folder or Path(__file__).resolve().parent.parent
        self._clock = clock
        self._worlds: dict[str, World] = {}
        self._agents: dict[str, list[AgentProcess]] = {}
        self._saved_at = 0.0
        self._wake = threading.Condition(threading.RLock())
        self._ending = False
        self._ticker: threading.Thread | None = None

    def open(self) -> None:
        """Bring back the worlds of an earlier time with their agents, and let time pass."""
        folder = self._root / "worlds"
        folder.mkdir(parents=True, exist_ok=True)
        with self._wake:
            for path in sorted(folder.glob("*/state.json")):
                self._bring_back(path.parent)
        self._ticker = threading.Thread(target=self._tick, name="ticker", daemon=True)
        self._ticker.start()

    def close(self) -> None:
        """Keep all worlds and end all agents."""
        with self._wake:
            self._ending = True
            self._wake.notify_all()
        if self._ticker is not None:
            self._ticker.join()
        with self._wake:
            for world in self._worlds.values():
                world.save()
            _end(agent for agents in self._agents.values() for agent in agents)

    # What the doors call

    def make(self, wish: Any) -> dict[str, Any]:
        """Make a world: {"world": "frankfurt", "scenario"?, "speed"?, …} for a known one, or a whole
        specification. Raises BadSpec; raises AgentFailed, with nothing left behind, when an agent does not
        start."""
        spec = _specification(wish)
        identity = f"{spec.get('name')}-{secrets.token_hex(3)}"
        path = self._root / "worlds" / identity
        world = World.create(spec, path, self._clock)
        agents = self._agents_of(path, world)
        try:
            # Outside the lock: starting takes a second, and the other worlds go on meanwhile.
            _start(agents, world)
        except AgentFailed:
            _end(agents)
            shutil.rmtree(path, ignore_errors=True)
            raise
        with self._wake:
            world.save()
            self._worlds[identity], self._agents[identity] = world, agents
            self._wake.notify_all()
            return self.view(identity)

    def identities(self) -> list[dict[str, str]]:
        with self._wake:
            return [
                {"world": identity, "name": world.spec["name"], "scenario": world.scenario.name}
                for identity, world in self._worlds.items()
            ]

    def ensure(self, name: str) -> None:
        """Make the known world `name` unless one of that name is there."""
        if all(world["name"] != name for world in self.identities()):
            self.make({"world": name})

    def view(self, identity: str, lines: int = 20) -> dict[str, Any]:
        with self._wake:
            world = self._world(identity)
            world.advance()
            agents = [agent.view() for agent in self._agents.get(identity, [])]
            return {"world": identity, "agents": agents, "scripted": list(STEPS), **world.view(lines)}

    def act(self, identity: str, action: Any) -> dict[str, Any]:
        """Do one action, or several in order: {"actions": [...]}. Raises Refused with what was done before
        it."""
        with self._wake:
            world = self._world(identity)
            several = action.get("actions") if isinstance(action, dict) else None
            done: list[str] = []
            try:
                # What was done before a refusal is told: no comprehension.
                for one in several if isinstance(several, list) else [action]:
                    done.append(world.act(one))  # noqa: PERF401
            except Refused as refusal:
                raise Refused(" ".join([*done, str(refusal)])) from refusal
            finally:
                self._follow(identity, world)
            return {"done": done, "said": " ".join(done)}

    def misbehave(self, identity: str, wish: Any) -> dict[str, Any]:
        with self._wake:
            world = self._world(identity)
            said = world.misbehave(wish)
            self._follow(identity, world)
            return {"said": said}

    def remove(self, identity: str) -> None:
        with self._wake:
            world = self._world(identity)
            _end(self._agents.pop(identity, []))
            del self._worlds[identity]
            shutil.rmtree(world.root, ignore_errors=True)

    # Inside

    def _world(self, identity: str) -> World:
        if identity not in self._worlds:
            raise NoSuchWorld(identity)
        return self._worlds[identity]

    def _agents_of(self, path: Path, world: World) -> list[AgentProcess]:
        if not self._agent_command:
            return []
        agents = []
        for host, configuration in world.agent_configurations().items():
            agent = AgentProcess(host, path / "agents", self._agent_command, self._working_folder)
            agent.configure(configuration)
            agents.append(agent)
        return agents

    def _bring_back(self, path: Path) -> None:
        world = World.load(path, self._clock)
        agents = self._agents_of(path, world)
        self._worlds[path.name], self._agents[path.name] = world, agents
        try:
            _start(agents, world)
        except AgentFailed as failure:
            world.note(str(failure))  # the world is worth having without it

    def _follow(self, identity: str, world: World) -> None:
        """After a change: keep it, bring the agents in line, let the ticker look at its clock anew."""
        for agent in self._agents.get(identity, []):
            if agent.host in world.agents_down:
                agent.stop()
            elif not agent.alive:
                agent.start()
                agent.wait_until_ready()
        world.save()
        self._wake.notify_all()

    def _tick(self) -> None:
        """Sleep until something is due in a world; in between, look whether an agent has died."""
        look_after = time.monotonic() + LOOK_AFTER_SECONDS
        with self._wake:
            while not self._ending:
                for world in self._worlds.values():
                    world.advance()
                self._save_changes()
                if time.monotonic() >= look_after:
                    self._revive()
                    look_after = time.monotonic() + LOOK_AFTER_SECONDS
                self._wake.wait(max(0.001, min(self._until_next(), look_after - time.monotonic())))

    def _until_next(self) -> float:
        times = [due for world in self._worlds.values() if (due := world.next_due()) is not None]
        wait = min(times, default=self._clock() + 3600) - self._clock()
        unsaved = any(world.changed for world in self._worlds.values())
        return min(wait, SAVE_SECONDS) if unsaved else wait

    def _save_changes(self) -> None:
        if time.monotonic() - self._saved_at < SAVE_SECONDS:
            return
        for world in self._worlds.values():
            if world.changed:
                world.save()
                self._saved_at = time.monotonic()

    def _revive(self) -> None:
        for identity, agents in self._agents.items():
            for agent in agents:
                if agent.host not in self._worlds[identity].agents_down:
                    agent.revive()


def _start(agents: list[AgentProcess], world: World) -> None:
    """Start all at once, then wait for each. Raises AgentFailed."""
    wanted = [agent for agent in agents if agent.host not in world.agents_down]
    for agent in wanted:
        agent.start()
    for agent in wanted:
        agent.wait_until_ready()


def _end(agents: Iterable[AgentProcess]) -> None:
    every = list(agents)
    for agent in every:
        agent.ask_to_end()
    for agent in every:
        agent.stop()


def _specification(wish: Any) -> dict[str, Any]:
    """A whole specification from what was asked for. Raises BadSpec."""
    if not isinstance(wish, dict):
        raise BadSpec(["A specification is a JSON object."])
    if "servers" in wish:
        return wish
    changes = dict(wish)
    name = changes.pop("world", "frankfurt")
    if name not in list(WORLDS):
        raise BadSpec([f"There is no known world {name!r}. Known are: {', '.join(WORLDS)}."])
    scenario = changes.get("scenario", "automatic")
    if scenario not in list(SCENARIOS):
        raise BadSpec([f"scenario: one of {', '.join(SCENARIOS)}."])
    return {**WORLDS[name](scenario), **changes}
