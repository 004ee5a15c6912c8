"""A whole plan headless: an environment of simulated servers is planned, and its items are carried out one by one.

Each item is started as a person starts it from the plan page, with what the start dialog proposes, and as soon as
nothing holds it: so what may run side by side does. After each run the environment is planned anew from the facts that
the run has changed.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import AbstractUser

from upgrades.adapters import simulator_client
from upgrades.domain.environment import DB_SERVER, LCA, MASTER, MESSAGE_SERVER, PROXY, SCS
from upgrades.domain.environment_records import Kind
from upgrades.domain.feature_freeze import freeze
from upgrades.domain.plan import Item
from upgrades.domain.plan_of_record import parts_done
from upgrades.domain.procedure import Procedure
from upgrades.models import Environment, Membership, PlanItem, Target
from upgrades.queries.environment_export import content_of
from upgrades.queries.environment_facts import picture_of
from upgrades.queries.plan import Planned, Proposal, plan_in_force, planned, proposal_of, recorded
from upgrades.queries.procedures import newest, procedure_of
from upgrades.services import environment_editing, environment_rules, planning, starting
from upgrades.services.rehearsal_crew import Rehearsal, crew
from upgrades.services.rehearsal_scenarios import Expected
from upgrades.services.simulated import environment_from_world

TARGETS = dict.fromkeys((MASTER, PROXY, SCS, MESSAGE_SERVER, LCA, DB_SERVER), "8.5.101")
_ONE_APPROVER = {"needs": [{"role": "approver", "signatures": 1}]}
POLICIES = {
    "start": _ONE_APPROVER,
    "point-of-no-return": _ONE_APPROVER,
    "deviation": {"role": "approver", "signatures": 1},
}
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

    def do_by_hand(self, item: Item) -> None:
        """Upgrade servers for which there is no procedure, and enter their new versions as an administrator does."""
        for part in item.parts:
            on_it = {"server": part.name}
            simulator_client.act(
                self.world,
                {"action": "install", "version": part.target, **on_it},
                *({"action": action, **on_it} for action in ("stop", "replace-folder", "start")),
            )
            entered = content_of(self.environment).get(Kind.APPLICATION, part.name)
            environment_editing.save_record(
                environment_id=self.environment.pk,
                kind=Kind.APPLICATION,
                name=part.name,
                texts={"version": part.target},
                seen=entered.digest() if entered is not None else "",
                by=self.operator,
                command_id=uuid.uuid4(),
            )

    def progress(self) -> tuple[int, int]:
        """How many parts of the plan of record are at their target, and how many there are."""
        record = plan_in_force(self.environment)
        items = [recorded(item) for item in record.items.all()] if record is not None else []
        picture = picture_of(Environment.objects.get(pk=self.environment.pk))
        return sum(parts_done(item, picture) for item in items), sum(len(item.parts) for item in items)

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
    environment.policies = POLICIES
    environment.save(update_fields=["policies"])
    for prefix, site in SITES.items():
        environment.hosts.filter(name__startswith=f"{prefix}-").update(site=site)
    Target.objects.bulk_create(
        Target(environment=environment, component=component, version=version)
        for component, version in TARGETS.items()
    )
    operator, approver = crew(environment)
    # Whoever follows a guide of its own enters the new version too.
    Membership.objects.create(environment=environment, user=operator, role=Membership.Role.ADMINISTRATOR)
    return PlanRehearsal(environment, operator, approver, world["world"])


@dataclass(slots=True)
class Course:
    """A plan on its way. `turn` lets the crews of all open runs act once and starts what nothing holds any more."""

    plan: PlanRehearsal
    open: dict[str, Rehearsal] = field(default_factory=dict)
    ended: dict[str, Rehearsal] = field(default_factory=dict)
    _looked: bool = False

    @property
    def is_over(self) -> bool:
        """Nothing is open, and nothing could be started when the plan was last looked at."""
        return self._looked and not self.open

    def turn(self) -> list[str]:
        """What has happened to the plan this time, a line each; what happens within the runs stands in their records.

        Raises `WentWrong` when a run ends otherwise than completed.
        """
        lines = []
        for key, rehearsal in list(self.open.items()):
            rehearsal.turn()
            complaint = rehearsal.finished(Expected(ending="completed"))
            if complaint:
                raise WentWrong(f"Run {rehearsal.run_id}: {complaint}")
            if complaint is not None:
                self.ended[key] = self.open.pop(key)
                self._looked = False
                lines.append(f"run {rehearsal.run_id} ended")
        return lines if self._looked else lines + self._start_what_can_begin()

    def _start_what_can_begin(self) -> list[str]:
        lines, result = [], self.plan.look()
        while item := next((item for item in result.plan.items if item.is_ready), None):
            if item.procedure:
                self.open[item.key] = self.plan.start(item)
                beside = f", beside {len(self.open) - 1} more" if len(self.open) > 1 else ""
                lines.append(f"run {self.open[item.key].run_id} started: {_told(item)}{beside}")
            else:
                self.plan.do_by_hand(item)
                lines.append(f"done by hand, by its own guide: {_told(item)}")
            result = self.plan.look()  # what was started holds others now
        self._looked = True
        return lines

    def stuck(self) -> list[str]:
        """What does not get on and why, a line each."""
        runs = [f"Run {run.run_id} stands at {run.stands_at()}" for run in self.open.values()]
        items = [
            f"{_told(item)} cannot begin: {'; '.join(blocker.text for blocker in item.blockers)}"
            for item in self.plan.look().plan.items
            if item.blockers
        ]
        return runs + items


class WentWrong(Exception):
    """A run of the plan that did not end as it must."""


def _told(item: Item) -> str:
    return f"{item.title} ({item.procedure})" if item.procedure else item.title


def _answers(procedure: Procedure, proposal: Proposal) -> dict[str, str]:
    """What the dialog proposes, and "no" to questions that it leaves open: such as a schema that stays."""
    open_questions = {
        parameter.name: "false"
        for parameter in procedure.parameters
        if parameter.type == "boolean" and not parameter.default and not parameter.default_from
    }
    return {**open_questions, **proposal.parameters}
