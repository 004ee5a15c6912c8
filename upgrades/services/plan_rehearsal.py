"""A whole plan headless: an environment of simulated servers is planned, and its items are carried out one by one.

Each item is started as a person starts it from the plan page, with what the start dialog proposes; after each run the
environment is planned anew from the facts that the run has changed.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import AbstractUser

from upgrades.domain.feature_freeze import freeze
from upgrades.domain.plan import Item
from upgrades.domain.procedure import Procedure
from upgrades.models import Environment, PlanItem, Target
from upgrades.queries.plan import Planned, Proposal, planned, proposal_of
from upgrades.queries.procedures import newest, procedure_of
from upgrades.services import environment_rules, planning, starting
from upgrades.services.rehearsal_crew import Rehearsal, crew
from upgrades.services.simulated import environment_from_world

TARGETS = dict.fromkeys(
    ("ConfigurationServer", "ConfigurationServerProxy", "SCS", "MessageServer", "LCA"), "8.5.101"
)
SITES = {"fra": "Frankfurt", "ham": "Hamburg"}
WORLDS = ("two-sites", "two-small-sites")


@dataclass(frozen=True, slots=True)
class PlanRehearsal:
    """An environment on its way to its targets, with the crew that takes it there."""

    environment: Environment
    operator: AbstractUser
    approver: AbstractUser
    world: str

    def look(self) -> Planned:
        """The plan for what is so now."""
        return planned(Environment.objects.get(pk=self.environment.pk), self.operator)

    def save(self) -> int:
        """Make the plan for what is so now the plan of record; its number."""
        return planning.save_plan(
            environment_id=self.environment.pk,
            digest=self.look().digest,
            by=self.operator,
            command_id=uuid.uuid4(),
        )

    def start(self, item: Item) -> Rehearsal:
        """Start the run of an item of the plan of record with what its start dialog proposes."""
        saved = PlanItem.objects.get(plan__environment=self.environment, plan__replaced_at=None, key=item.key)
        procedure = procedure_of(newest(item.procedure))
        proposal = proposal_of(self.environment, saved.pk, procedure)
        if proposal is None:
            raise RuntimeError(f"The start dialog has no proposal for {item.title}.")
        done = starting.start_run(
            environment_id=self.environment.pk,
            procedure=item.procedure,
            bindings=proposal.bindings,
            parameters=_answers(procedure, proposal),
            confirmations={},
            rehearsal=False,  # the environment itself is a simulated one
            change="",
            by=self.operator,
            command_id=uuid.uuid4(),
            plan_item=saved.pk,
        )
        return Rehearsal(done.run, self.operator, self.approver, self.world)

    def complaints(self) -> list[str]:
        """What is not as it must be at the end: items left, servers of unknown version, the freeze, the standing rules."""
        result = self.look()
        found = [f"{item.title} is still to do" for item in result.plan.items]
        found += [f"the version of {part.name} is not known" for part in result.plan.unknown]
        held = freeze(result.picture, result.open_runs)
        found += [f"feature freeze: {held.text}"] if held.is_on else []
        environment_rules.check(self.environment.pk)
        standing = self.environment.findings.filter(ended_at=None)
        return found + [f"{row.rule} {row.subject}: {row.title}" for row in standing]


def prepare(world: Mapping[str, Any]) -> PlanRehearsal:
    """The environment of `world`, with its sites, the versions that it is to reach, and a crew."""
    environment = environment_from_world(world, name=f"Plan · {world['name']} · {world['world']}")
    for prefix, site in SITES.items():
        environment.hosts.filter(name__startswith=f"{prefix}-").update(site=site)
    Target.objects.bulk_create(
        Target(environment=environment, component=component, version=version)
        for component, version in TARGETS.items()
    )
    operator, approver = crew(environment)
    return PlanRehearsal(environment, operator, approver, world["world"])


def next_item(result: Planned) -> Item | None:
    """The first item of the plan that nothing holds; None when there is none."""
    return next((item for item in result.plan.items if item.is_ready and item.procedure), None)


def _answers(procedure: Procedure, proposal: Proposal) -> dict[str, str]:
    """What the dialog proposes, and "no" to questions that it leaves open: such as a schema that stays."""
    open_questions = {
        parameter.name: "false"
        for parameter in procedure.parameters
        if parameter.type == "boolean" and not parameter.default and not parameter.default_from
    }
    return {**open_questions, **proposal.parameters}
