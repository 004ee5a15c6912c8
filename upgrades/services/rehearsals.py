"""Rehearsals: a simulated copy of an environment, on which any run can be tried (design.md section 10)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from django.db import transaction

from upgrades.adapters import simulator_client
from upgrades.domain.procedure import Procedure
from upgrades.domain.rollback import TYPES
from upgrades.domain.version import NotAVersion, Version
from upgrades.models import Application, Environment
from upgrades.services.simulated import environment_from_world


def simulated_copy(
    environment: Environment, *, procedure: Procedure, target: str, parameters: Mapping[str, str]
) -> Environment:
    """A copy of `environment` whose hosts, servers and agents are simulated. Its people are those of the original."""
    specification = _specification(environment, procedure, target, parameters)
    world = simulator_client.create_world(specification)
    return environment_from_world(world, name=environment.name, original=environment)


def discard(copy: Environment) -> None:
    """Remove a copy on which no run was started, and the simulated servers behind it."""
    simulator_client.delete(copy.world)
    with transaction.atomic():
        copy.applications.all().delete()
        copy.delete()


def _specification(
    environment: Environment, procedure: Procedure, target: str, parameters: Mapping[str, str]
) -> dict[str, Any]:
    applications = list(environment.applications.select_related("host", "peer").order_by("pk"))
    name = re.sub(r"[^a-z0-9]+", "-", environment.name.lower()).strip("-")[:24] or "environment"
    specification: dict[str, Any] = {
        "name": f"{name}-{uuid.uuid4().hex[:8]}",
        "hosts": [host.name for host in environment.hosts.order_by("pk")],
        "servers": [_server(application, parameters) for application in applications],
        "scenario": scenario_for(procedure, applications, parameters),
    }
    return {**specification, "target": target} if target else specification


def _server(application: Application, parameters: Mapping[str, str]) -> dict[str, Any]:
    server: dict[str, Any] = {
        "name": application.name,
        "type": application.type,
        "host": application.host.name,
        "role": "backup" if application.standing == Application.Standing.BACKUP else "primary",
        "peer": application.peer.name if application.peer is not None else None,
        "dormant": application.dormant,
        "down": application.dormant or application.mode == "down",
    }
    if application.type in TYPES and BACK_TO in parameters:
        server["kept-version"] = parameters[BACK_TO]  # a rollback is rehearsed with something to go back to
    return {**server, "version": application.version} if application.version else server


BACK_TO = "back-to"


def scenario_for(procedure: Procedure, applications: list[Application], parameters: Mapping[str, str]) -> str:
    """How the simulated servers will react: as real ones of these versions would, by the source document (CSH-6, CSM-4)."""
    if procedure.id == "config-server-ha-same-schema":
        return "same-schema"
    if parameters.get("database-upgraded") == "true":
        return "database-upgraded"
    versions = [item.version for item in applications if item.type == procedure.component and item.version]
    try:
        compatible = bool(versions) and all(
            Version.parse(version) >= Version.parse("8.5") for version in versions
        )
    except NotAVersion:
        compatible = False
    return "compatible" if compatible else "automatic"
