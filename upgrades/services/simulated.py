"""Simulated environments: made from a world of the simulator, and what people do to their servers.

A real server is never touched from here: every function asks for an environment that a simulated world stands behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import AbstractUser
from django.db import transaction

from upgrades.adapters import event_store, simulator_client
from upgrades.domain.groups import roles_of
from upgrades.domain.procedure import Step
from upgrades.domain.refusal import BadInput, NotAllowed, OutOfTurn
from upgrades.domain.run_state import RunState, StepStatus, fold
from upgrades.models import Agent, Application, Environment, Host, Run, Target
from upgrades.queries.procedures import procedure_of
from upgrades.services.people import actor_for
from upgrades.services.runs import announce_environment

LCA = "LCA"  # stands on its host, not among the applications: the Host object has no Application of its own for it
_MODES = frozenset({"primary", "backup", "upgrade-mode", "down"})


@transaction.atomic
def environment_from_world(
    world: Mapping[str, Any], *, name: str, original: Environment | None = None
) -> Environment:
    """A new environment whose hosts, applications, pairs and agents are those of `world` (as the simulator shows it).

    With `original` it is its copy for a rehearsal: policies, targets and disaster recovery are those of the original,
    and so are the rights of people.
    """
    environment = Environment.objects.create(
        name=name,
        world=world["world"],
        rehearsal_of=original,
        disaster_recovery=original.disaster_recovery if original else False,
        policies=original.policies if original else {},
    )
    if original is not None:
        for name in ("single_language", "schema_version", "log_schema_version", "uses_lrm"):
            setattr(environment, name, getattr(original, name))
        environment.save()
    hosts = _hosts(environment, world, original)
    _applications(environment, hosts, world)
    _agents(environment, hosts, world)
    if original is not None:
        Target.objects.bulk_create(
            Target(environment=environment, component=target.component, version=target.version)
            for target in original.targets.all()
        )
    return environment


def _hosts(
    environment: Environment, world: Mapping[str, Any], original: Environment | None
) -> dict[str, Host]:
    lca = {server["host"]: server["version"] for server in world["servers"] if server["type"] == LCA}
    known = {host.name: host for host in original.hosts.all()} if original else {}
    hosts = {}
    for name in dict.fromkeys(server["host"] for server in world["servers"]):
        like = known.get(name)
        hosts[name] = Host.objects.create(
            environment=environment,
            name=name,
            site=like.site if like else "",
            host_type=like.host_type if like else "Linux",
            lca_version=lca.get(name, ""),
        )
    return hosts


def _applications(environment: Environment, hosts: Mapping[str, Host], world: Mapping[str, Any]) -> None:
    made: dict[str, Application] = {}
    for server in world["servers"]:
        if server["type"] != LCA:
            made[server["name"]] = Application.objects.create(
                environment=environment,
                host=hosts[server["host"]],
                name=server["name"],
                type=server["type"],
                version=server["version"],
                standing=server["role"] if server["peer"] else Application.Standing.STANDALONE,
                port=server["port"] or None,
                mode=_mode(server),
                dormant=bool(server.get("dormant")),
            )
    for server in world["servers"]:
        if server["peer"] in made:
            Application.objects.filter(pk=made[server["name"]].pk).update(peer=made[server["peer"]])


def _mode(server: Mapping[str, Any]) -> str:
    return str(server["mode"]) if server["mode"] in _MODES else ""


def _agents(environment: Environment, hosts: Mapping[str, Host], world: Mapping[str, Any]) -> None:
    for agent in world["agents"]:
        Agent.objects.update_or_create(
            host=hosts[agent["host"]],
            defaults={
                "environment": environment,
                "agent_id": agent["agent"],
                "url": agent["url"],
                "key_id": agent["key"]["id"],
                "secret": agent["key"]["secret"],
                # What was known belongs to the agent before this one.
                "seen_at": None,
                "trouble": "",
                "trouble_since": None,
                "due_at": None,
            },
        )


# What people do to simulated servers.


def act(*, environment_id: int, action: Mapping[str, Any], by: AbstractUser) -> str:
    """Do one action on the simulated servers, such as {"action": "stop", "server": "confserv"}; what happened."""
    return simulator_client.act(_world(environment_id, by), action)


def misbehave(
    *, environment_id: int, what: str, by: AbstractUser, server: str = "", host: str = "", over: bool = False
) -> str:
    """Let something go wrong on a server, a host or everywhere, or end it (`over`); what happened."""
    world = _world(environment_id, by)
    return simulator_client.misbehave(world, what, server=server, host=host, value=not over)


def do_step(*, run_id: int, by: AbstractUser) -> str:
    """Do on the simulated servers what the run's current step tells the operator to do; what happened.

    `OutOfTurn` before the step has begun: what the servers log before that would not count.
    """
    run = Run.objects.select_related("environment", "procedure").filter(pk=run_id).first()
    if run is None:
        raise BadInput("There is no such run.")
    world = _world(run.environment_id, by)
    state = fold(event_store.load(run.pk))
    if state.is_over or state.current is None:
        raise OutOfTurn("The run has no current step, so there is nothing to do on its servers.")
    if state.steps[state.current].status is not StepStatus.BEGUN:
        raise OutOfTurn(
            "The step has not begun yet, and what the servers log before that would not count. Begin it first."
        )
    step = procedure_of(run.procedure, state.started).step(state.current)
    return play(world, step, state)


def play(world: str, step: Step, state: RunState) -> str:
    """Do on the servers of `world` what `step` tells the operator to do; what happened. `SimulatorRefused` when in
    this step nothing is done on them."""
    roles = roles_of(step, state.started.bindings)
    return simulator_client.do_step(world, step.copy_of or step.id, roles, dict(state.facts))


def renew(*, environment_id: int, scenario: str, by: AbstractUser) -> str:
    """Begin the simulated servers of an environment anew, in the course `scenario`. Not while a run is under way."""
    old = _world(environment_id, by)
    environment = Environment.objects.get(pk=environment_id)
    open_run = environment.runs.exclude(status__in=("ended", "aborted")).first()
    if open_run is not None:
        raise OutOfTurn(f"Run {open_run.pk} is under way here. End it before the servers begin anew.")
    renew_world(environment, scenario)
    simulator_client.delete(old)
    return f"The simulated servers have begun anew, in the course “{scenario}”."


def renew_world(environment: Environment, scenario: str = "automatic") -> None:
    """Put a fresh world of the demo behind `environment`: first versions, all servers up, new agents."""
    world = simulator_client.create_world({"world": "frankfurt", "scenario": scenario})
    with transaction.atomic():
        environment.world = world["world"]
        environment.save(update_fields=["world"])
        hosts = {host.name: host for host in environment.hosts.all()}
        for server in world["servers"]:
            if server["type"] == LCA:
                Host.objects.filter(environment=environment, name=server["host"]).update(
                    lca_version=server["version"]
                )
            else:
                Application.objects.filter(environment=environment, name=server["name"]).update(
                    version=server["version"],
                    mode=_mode(server),
                    process_state="unknown",
                    process_reason="",
                    log_trouble="",
                    client_total=None,
                    client_total_at=None,
                )
        _agents(environment, hosts, world)
        announce_environment(environment.pk)


def _world(environment_id: int, by: AbstractUser) -> str:
    """The world behind an environment in which this person may act."""
    environment = Environment.objects.filter(pk=environment_id).first()
    roles = actor_for(by, environment).roles if environment is not None else ()
    if environment is None or not roles:
        raise BadInput("There is no such environment, or you have no role in it.")
    if not environment.world:
        raise BadInput(
            "These are no simulated servers. What is done to them is done at the servers themselves."
        )
    if "operator" not in roles:
        raise NotAllowed("Simulated servers are handled by operators. Ask somebody with the role operator.")
    return environment.world
