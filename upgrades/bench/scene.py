"""The runs of the benchmark: pairs of servers whose logs lie with the benchmark's own agents."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User

from upgrades.adapters import event_store
from upgrades.bench.agents import application_of, log_of, name_of
from upgrades.domain import run as core
from upgrades.domain import run_events as e
from upgrades.domain.refusal import Refused
from upgrades.domain.run_state import RunState, StepStatus, fold
from upgrades.models import Environment, Membership, Run, Target
from upgrades.queries.procedures import procedure_of
from upgrades.services import runs, starting
from upgrades.services.rehearsal_crew import next_acts
from upgrades.services.simulated import environment_from_world

GATE = "launch-new"  # the step whose gate opens by what its server logs
NEXT = "stop-old"  # the step that the run comes to when it opens
REASON = "Not a part of what is measured here."
OLD, CURRENT = "8.1.3", "8.5.100"
LIMIT = 60.0
NOBODY = "http://127.0.0.1:9"
NOTE = "The phones are quiet."
OPENING = "10:00:01.000 Std 25301 synthetic\n10:00:02.000 Std 22170 synthetic\n"


@dataclass(slots=True)
class Pair:
    """A pair of servers in an environment of its own, and the run whose gate is open now."""

    environment: Environment
    log: Path
    bindings: dict[str, int]
    run: int = 0

    @property
    def state(self) -> RunState:
        return fold(event_store.load(self.run))


class Team:
    """Who acts: one starts and works, the other takes over what stays open."""

    def __init__(self) -> None:
        self.operator = User.objects.create(username="bench-operator")
        self.approver = User.objects.create(username="bench-approver")

    def join(self, environment: Environment) -> None:
        for user, role in ((self.operator, "operator"), (self.approver, "approver")):
            Membership.objects.create(environment=environment, user=user, role=role)

    def act(self, pair: Pair, command: core.Command, *, by: User | None = None) -> None:
        runs.act(run_id=pair.run, command=command, by=by or self.operator, command_id=uuid.uuid4())

    def note(self, pair: Pair) -> None:
        """The act that is measured: it is allowed at any time and leads to nothing else."""
        self.act(pair, core.AddNote(text=NOTE))

    def start(self, pair: Pair) -> None:
        """A new run on the pair's servers, as old as they were at first."""
        pair.environment.applications.filter(pk__in=pair.bindings.values()).update(version=OLD)
        pair.run = starting.start_run(
            environment_id=pair.environment.pk,
            procedure="config-server-ha",
            bindings=pair.bindings,
            parameters={"target": "8.5.101", "database-upgraded": "false"},
            confirmations={},
            rehearsal=False,
            change="",
            by=self.operator,
            command_id=uuid.uuid4(),
        ).run

    def open_gate(self, pair: Pair) -> None:
        """Start a run and do what comes before the gate, until the gate waits for its log."""
        self.start(pair)
        until = time.monotonic() + LIMIT
        while not self._waits(pair):
            if time.monotonic() > until:
                raise TimeoutError(f"Run {pair.run} stands at {pair.state.current} after {LIMIT:g} seconds.")

    def _waits(self, pair: Pair) -> bool:
        """Do what is to be done next; True when nothing is but to wait for the log."""
        run = Run.objects.select_related("procedure").get(pk=pair.run)
        state = pair.state
        if state.current == GATE:
            if state.steps[GATE].status is StepStatus.BEGUN:
                return True
            runs.advance_run(pair.run)
            return False
        for question in run.probes:  # the agents say so too, a little later
            place = {name: question[name] for name in ("step", "visit", "gate")}
            runs.report(pair.run, [e.ProbeAnswered(**place, value="met", text="It is so.")])
        for _, command in next_acts(procedure_of(run.procedure, state.started), pair.state):
            try:
                self.act(pair, command)
            except Refused:
                return False  # a worker was faster, or an agent said otherwise; look again
        runs.advance_run(pair.run)
        return False

    def end(self, pair: Pair) -> None:
        """End the pair's run, so that another can start on its servers."""
        for burden in pair.state.unowned:
            self.act(pair, core.TakeOver(burden=burden.id, reason=REASON), by=self.approver)
        self.act(pair, core.Abort(reason=REASON))


def pair_of(
    number: int, agents: Sequence[dict[str, str]], folder: Path, team: Team, *, name: str = "Bench"
) -> Pair:
    """The pair whose servers stand on the hosts of these two agents, the first of which has that (even) number."""
    numbers = (number, number + 1)
    world = {
        "world": "",
        "servers": [
            *(_server(number) for number in numbers),
            *(_other("LCA", number) for number in numbers),
            _other("SCS", number),
        ],
        "agents": [_agent(agent) for agent in agents],
    }
    environment = environment_from_world(world, name=f"{name} {number}")
    Target.objects.bulk_create(
        Target(environment=environment, component=component, version=CURRENT) for component in ("LCA", "SCS")
    )
    team.join(environment)
    ids = dict(environment.applications.exclude(standing="standalone").values_list("standing", "pk"))
    return Pair(environment, log_of(folder, numbers[1]), {"new": ids["backup"], "old": ids["primary"]})


def unwatched_pair(number: int, team: Team, *, name: str = "Bench") -> Pair:
    """A pair with a run for which nobody works: its agents are never asked, and no bell of this process rings."""
    runs.on_wake(lambda _run: None)
    agents = [{"agent": name_of(one), "url": NOBODY, "secret": "0" * 64} for one in (number, number + 1)]
    pair = pair_of(number, agents, Path(), team, name=name)
    team.start(pair)
    return pair


def idle_agents(agents: Sequence[dict[str, str]], *, name: str = "Bench, idle") -> None:
    """Register agents that no run needs: they are only asked for their health."""
    if agents:
        first = int(agents[0]["agent"].rpartition("-")[2])
        servers = [
            {**_server(first + place), "name": f"server-{place}", "peer": None, "role": "primary"}
            for place in range(len(agents))
        ]
        world = {"world": "", "servers": servers, "agents": [_agent(agent) for agent in agents]}
        environment_from_world(world, name=name)


def _server(number: int) -> dict[str, Any]:
    is_backup = bool(number % 2)
    return {
        "name": application_of(number),
        "type": "ConfigurationServer",
        "host": name_of(number),
        "version": OLD,
        "role": "backup" if is_backup else "primary",
        "peer": application_of(number + 1),
        "port": 2020,
        "mode": "backup" if is_backup else "primary",
    }


def _other(kind: str, number: int) -> dict[str, Any]:
    """What has to be current on a host before the pair is upgraded."""
    names = {"name": f"{kind.lower()}-{number}", "type": kind, "version": CURRENT}
    return {**_server(number), **names, "peer": None}


def _agent(agent: dict[str, str]) -> dict[str, Any]:
    key = {"id": "k1", "secret": agent["secret"]}
    return {"host": agent["agent"], "agent": agent["agent"], "url": agent["url"], "key": key}
