"""Facts: what is known of an environment and its applications, under the names that procedures use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from upgrades.domain.condition import Fact
from upgrades.domain.environment import is_release, reaches
from upgrades.domain.version import NotAVersion, Version
from upgrades.models import Application, Environment


def environment_facts(environment: Environment, bound: Iterable[Application]) -> dict[str, Fact]:
    """`environment.*`: targets, and whether LCA and SCS are current. A version nobody knows leaves a fact unknown."""
    targets = {target.component: target.version for target in environment.targets.all()}
    hosts = {application.host for application in bound}
    # Read whole: a page asks for the facts of each procedure that it offers, and has the applications at hand.
    there = list(environment.applications.all())
    servers = [server.version for server in there if server.type == "SCS"]
    facts: dict[str, Fact] = {
        f"environment.target.{component.lower()}": version for component, version in targets.items()
    }
    facts["environment.disaster-recovery"] = environment.disaster_recovery
    facts["environment.schema"] = environment.schema_version or None
    facts["environment.schema-stays"] = _schema_stays(environment, targets.get("ConfigurationDatabase"))
    facts["environment.lca-current"] = _all_reach([host.lca_version for host in hosts], targets.get("LCA"))
    facts["environment.scs-current"] = _all_reach(servers, targets.get("SCS"))
    versions = [one.version for one in there if one.type == "ConfigurationServer" and not one.dormant]
    proxies = targets.get("ConfigurationServerProxy")
    facts["environment.masters-current"] = _all_reach(versions, proxies)
    facts["environment.proxies-may-go-first"] = _proxies_may_go_first(environment, versions, proxies or "")
    return facts


def _proxies_may_go_first(environment: Environment, masters: list[str], target: str) -> bool | None:
    """PRX-1, the one exception: masters of 8.1.3 in single-language mode, proxies of 8.5. None: nobody knows the mode."""
    if not masters or not all(is_release(version, "8.1.3") for version in masters):
        return False
    if reaches(target, "8.5") is not True or reaches(target, "8.6") is not False:
        return False
    return environment.single_language


def facts_at_start(environment: Environment, bound: Mapping[str, Application]) -> dict[str, Fact]:
    """All facts of the environment and of the bound applications, with the target of each (`<role>.target`)."""
    facts = environment_facts(environment, bound.values()) | role_facts(bound)
    for role, application in bound.items():
        facts[f"{role}.target"] = facts.get(f"environment.target.{application.type.lower()}")
    return facts


def _schema_stays(environment: Environment, target: str | None) -> bool | None:
    """Whether no other schema is wanted than the one that is there; None when nobody knows which that is (CSM-0)."""
    if not environment.schema_version:
        return None
    return not target or reaches(environment.schema_version, target)


def _all_reach(versions: list[str], target: str | None) -> bool | None:
    """Whether every one of `versions` is at the target or later; None when a version or the target is not known."""
    if not versions or not target:
        return None
    try:
        wanted = Version.parse(target)
        reached = [Version.parse(version) >= wanted for version in versions if version]
    except NotAVersion:
        return None
    if False in reached:
        return False
    return None if len(reached) < len(versions) else True


def role_facts(bindings: Mapping[str, Application]) -> dict[str, Fact]:
    """`<role>.name`, `.host`, `.version`, `.mode`, `.type` of each bound application; empty values are unknown."""
    facts: dict[str, Fact] = {}
    for role, application in bindings.items():
        facts |= {
            role: application.name,
            f"{role}.name": application.name,
            f"{role}.host": application.host.name,
            f"{role}.version": application.version or None,
            f"{role}.mode": application.mode or None,
            f"{role}.type": application.type,
            f"{role}.there": True,
        }
    return facts
