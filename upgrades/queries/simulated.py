"""The panel of simulated servers, beside an environment or a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from upgrades.adapters import simulator_client
from upgrades.domain.refusal import Refused
from upgrades.models import Environment, Run, RunStep
from upgrades.queries.procedures import procedure_in
from upgrades.queries.run_lines import OVER
from upgrades.queries.topology import TONES


@dataclass(frozen=True, slots=True)
class SimulatedServer:
    """One simulated server. `acts` are buttons: (action, label)."""

    name: str
    type: str
    host: str
    version: str
    prepared: str
    mode: str
    tone: str
    clients: int
    misbehaviours: tuple[str, ...]
    acts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class StepButton:
    """“Do what step 6 says”. `why_not` explains a locked button."""

    number: str
    title: str
    why_not: str


@dataclass(frozen=True, slots=True)
class SimulatedPanel:
    """`trouble` stands alone when the simulator does not answer."""

    environment: int
    run: int | None
    trouble: str = ""
    scenario: str = ""
    description: str = ""
    read_only: bool = False
    servers: tuple[SimulatedServer, ...] = ()
    hosts: tuple[str, ...] = ()
    step: StepButton | None = None
    misbehaviours: tuple[tuple[str, str], ...] = ()
    active: tuple[tuple[str, str], ...] = ()
    scenarios: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def panel(environment: Environment, run: Run | None = None) -> SimulatedPanel | None:
    """The panel of a simulated environment, with the button of the run's step; None for real servers."""
    if not environment.world:
        return None
    run_id = run.pk if run is not None else None
    try:
        world = simulator_client.state(environment.world)
        known = simulator_client.scenarios()
    except Refused as refusal:
        return SimulatedPanel(environment.pk, run_id, trouble=refusal.message)
    servers = [server for server in world["servers"] if server["type"] != "LCA"]
    return SimulatedPanel(
        environment=environment.pk,
        run=run_id,
        scenario=world["scenario"],
        description=world["description"],
        read_only=bool(world["read-only"]),
        servers=tuple(_server(server) for server in servers),
        hosts=tuple(dict.fromkeys(server["host"] for server in world["servers"])),
        step=_step(run, world["scripted"]) if run is not None else None,
        misbehaviours=tuple(known["misbehaviours"].items()),
        active=tuple(_active(world)),
        scenarios=tuple((name, item["description"]) for name, item in known["scenarios"].items()),
        notes=tuple(str(note["text"]) for note in world["notes"][-3:]),
    )


def _server(server: dict[str, Any]) -> SimulatedServer:
    prepared = server["folders"]["prepared"]
    return SimulatedServer(
        name=server["name"],
        type=server["type"],
        host=server["host"],
        version=server["version"],
        prepared=prepared["version"] or "" if prepared["exists"] else "",
        mode="stopping" if server["stopping"] else server["mode"],
        tone=TONES.get(server["mode"], "wait"),
        clients=server["clients"],
        misbehaviours=tuple(server["misbehaviours"]),
        acts=tuple(_acts(server)),
    )


def _acts(server: dict[str, Any]) -> list[tuple[str, str]]:
    if server["up"]:
        acts = [("stop", "Stop"), ("crash", "Crash")]
    else:
        acts = [("start", "Start")]
        if server["folders"]["prepared"]["exists"]:
            acts.append(("replace-folder", "Replace its folder"))
    if not server["folders"]["prepared"]["exists"]:
        acts.append(("install", "Install the target version"))
    return acts


def _active(world: dict[str, Any]) -> list[tuple[str, str]]:
    """What goes wrong now: (name, where)."""
    found = [(what, server["name"]) for server in world["servers"] for what in server["misbehaviours"]]
    found += [("agent-down", host) for host in world["agents-down"]]
    return found + [("clock-skew", host) for host, seconds in world["clock-skew"].items() if seconds]


def _step(run: Run, scripted: list[str]) -> StepButton | None:
    if not run.current_step or run.status in OVER:
        return None
    number = dict(procedure_in(run).numbers())[run.current_step]
    if run.current_step.partition("--")[0] not in scripted:
        return StepButton(number, run.current_title, "Nothing is done on the servers in this step.")
    begun = RunStep.objects.filter(run=run, step=run.current_step, status="begun").exists()
    why = "" if begun else "Begin the step first: what the servers log before that would not count."
    return StepButton(number, run.current_title, why)
