"""What the plan page shows: the plan for what is so now, the plan of record with its progress, and the difference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from django.contrib.auth.models import AbstractUser

from upgrades.domain import planner
from upgrades.domain.environment import OpenRun, Picture
from upgrades.domain.feature_freeze import freeze
from upgrades.domain.plan import STAGES, Expectation, Freeze, Item, Notice, Part, Plan
from upgrades.domain.plan_of_record import Change, Recorded, differences, is_done, parts_done
from upgrades.domain.procedure import Procedure
from upgrades.domain.record import digest
from upgrades.models import Environment, PlanItem, PlanOfRecord, ProcedureVersion, Run
from upgrades.queries.access import roles_in, visible_runs
from upgrades.queries.environment_facts import OVER, expectations, open_runs_of, picture_of
from upgrades.queries.offers import newest_versions, proposed

PAST_RUNS = 200  # of all procedures together, that expectations are made from


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan with what it was made from. `digest` changes when the runs, their order or their reasons do."""

    picture: Picture
    open_runs: tuple[OpenRun, ...]
    plan: Plan
    digest: str


def planned(environment: Environment, user: AbstractUser | None = None) -> Planned:
    """The plan for what is so now. Expectations rest on past runs that `user` may see; without one, on the texts."""
    versions = newest_versions()
    return _planned(environment, versions, expectations(versions, _past_runs(user)))


def _planned(
    environment: Environment, versions: Sequence[ProcedureVersion], history: Mapping[str, Expectation]
) -> Planned:
    picture, open_runs = picture_of(environment), open_runs_of(environment)
    published = [version.procedure for version in versions]
    made = planner.plan(picture, procedures=published, history=history, open_runs=open_runs)
    return Planned(picture, open_runs, made, digest({"items": [_essence(item) for item in made.items]}))


def _past_runs(user: AbstractUser | None) -> Iterable[Run]:
    if user is None:
        return ()
    done = visible_runs(user).filter(status="ended", ending="completed", rehearsal=False)
    return done.select_related("procedure").order_by("-ended_at")[:PAST_RUNS]


def _essence(item: Item) -> dict[str, object]:
    return {
        "key": item.key,
        "procedure": item.procedure,
        "parts": [asdict(part) for part in item.parts],
        "reason": item.reason,
        "sources": list(item.sources),
        "after": sorted({need.key for need in item.needs}),
    }


# The plan of record.


def plan_in_force(environment: Environment) -> PlanOfRecord | None:
    """The newest saved plan, with its items; a rehearsal's copy has none of its own."""
    return environment.plans.filter(replaced_at=None).prefetch_related("items__runs").first()


def recorded(item: PlanItem) -> Recorded:
    """A saved item as the core compares it."""
    return Recorded(
        key=item.key,
        procedure=item.procedure,
        title=item.title,
        parts=tuple(Part(**part) for part in (*item.servers, *item.hosts)),
        after=frozenset(item.after),
    )


def plan_with_work(environment: Environment, picture: Picture) -> int | None:
    """The number of the plan of record while something of it is left to do."""
    record = plan_in_force(environment)
    if record is None or all(is_done(recorded(item), picture) for item in record.items.all()):
        return None
    return record.number


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the start dialog is filled with for an item of the plan: application per role, text per parameter."""

    item: int
    bindings: dict[str, int]
    parameters: dict[str, str]


def proposal_of(environment: Environment, item_id: int, procedure: Procedure) -> Proposal | None:
    """The proposal for an item of the plan in force; None when it is not one. Other roles stay as they are proposed."""
    item = PlanItem.objects.filter(pk=item_id, plan__environment=environment, plan__replaced_at=None).first()
    if item is None:
        return None
    names = item.key.removeprefix("server:").split("+")
    servers = list(environment.applications.filter(name__in=names).select_related("host", "peer"))
    bound = proposed(procedure, servers)
    hosts = ", ".join(part["name"] for part in item.hosts)
    lists = {group.only: hosts for group in procedure.groups if group.only and hosts}
    return Proposal(item.pk, {role: application.pk for role, application in bound.items()}, lists)


# The page.


@dataclass(frozen=True, slots=True)
class RunOfItem:
    id: int
    rehearsal: bool
    is_over: bool
    ending: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Another item that must be done before."""

    number: int
    title: str
    reason: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlanLine:
    """An item as the page shows it. `state` is ready, waits, blocked, inside, running or done.

    `beside` are the numbers of the items that may run at the same time. `plan_item` is its id in the plan of record,
    None when it is not part of that.
    """

    number: int
    key: str
    stage: str
    title: str
    procedure: str
    procedure_title: str
    procedure_version: int | None
    reason: str
    sources: tuple[str, ...]
    parts: tuple[Part, ...]
    waits: tuple[Wait, ...]
    blockers: tuple[tuple[str, tuple[str, ...]], ...]
    inside: str
    beside: tuple[int, ...]
    state: str
    run: OpenRun | None
    runs: tuple[RunOfItem, ...]
    expected: Expectation | None
    alternatives: tuple[str, ...]
    plan_item: int | None

    @property
    def state_text(self) -> str:
        match self.state:
            case "ready":
                return "can begin" if self.procedure_version else "can begin by hand"
            case "waits":
                count = len(self.waits)
                return f"waits for {count} run{'s' * (count != 1)}"
            case "blocked":
                return "cannot begin"
            case "inside":
                return "within another run"
            case "running":
                return f"run {self.run.id} is under way" if self.run else "under way"
        return "done"

    @property
    def may_begin(self) -> bool:
        """Nothing holds it; what belongs into another run may begin as soon as that one may."""
        return self.state == "ready" or (self.state == "inside" and not self.waits)

    @property
    def versions(self) -> str:
        """“8.1.3 → 8.5.101”, or how many parts go to how many versions."""
        before, after = {part.version for part in self.parts}, {part.target for part in self.parts}
        start = next(iter(before)) if len(before) == 1 else f"{len(before)} versions"
        return f"{start} → {next(iter(after))}" if len(after) == 1 else start


@dataclass(frozen=True, slots=True)
class PlanStage:
    id: str
    title: str
    lines: tuple[PlanLine, ...]
    after: tuple[
        tuple[str, str], ...
    ]  # title of a stage that holds this one, and the requirements that say so


@dataclass(frozen=True, slots=True)
class RecordView:
    """The plan of record. `changes` is what planning anew would change."""

    number: int
    saved_at: datetime
    saved_by: str
    done: int
    total: int
    changes: tuple[Change, ...]

    @property
    def percent(self) -> int:
        return round(100 * self.done / self.total) if self.total else 100


@dataclass(frozen=True, slots=True)
class PlanPage:
    id: int
    name: str
    roles: tuple[str, ...]
    targets: tuple[tuple[str, str], ...]
    has_servers: bool
    stages: tuple[PlanStage, ...]
    edges: tuple[tuple[str, str], ...]
    notices: tuple[Notice, ...]
    freeze: Freeze
    record: RecordView | None
    digest: str
    seconds: int | None
    left: int

    @property
    def lines(self) -> tuple[PlanLine, ...]:
        return tuple(line for stage in self.stages for line in stage.lines)

    @property
    def may_save(self) -> bool:
        """Somebody may make it the plan of record, and it is not that already."""
        if "operator" not in self.roles or not self.left:
            return False
        return self.record is None or bool(self.record.changes)


def plan_page(environment: Environment, user: AbstractUser) -> PlanPage:
    """The page for this person; eleven queries however large the environment is."""
    versions = newest_versions()
    result = _planned(environment, versions, expectations(versions, _past_runs(user)))
    record = plan_in_force(environment)
    saved = list(record.items.all()) if record is not None else []
    stages = _Stages(result.plan, versions, saved, result.picture).made()
    return PlanPage(
        id=environment.pk,
        name=environment.name,
        roles=tuple(sorted(roles_in(user, environment))),
        targets=tuple(sorted(result.picture.targets.items())),
        has_servers=bool(result.picture.servers),
        stages=stages,
        edges=_edges(result.plan),
        notices=result.plan.notices,
        freeze=freeze(result.picture, result.open_runs),
        record=_record_view(record, saved, result),
        digest=result.digest,
        seconds=result.plan.seconds,
        left=len(result.plan.items),
    )


def _record_view(
    record: PlanOfRecord | None, saved: Sequence[PlanItem], result: Planned
) -> RecordView | None:
    if record is None:
        return None
    items = [recorded(item) for item in saved]
    return RecordView(
        number=record.number,
        saved_at=record.saved_at,
        saved_by=record.saved_by_name,
        done=sum(parts_done(item, result.picture) for item in items),
        total=sum(len(item.parts) for item in items),
        changes=differences(items, result.plan, result.picture),
    )


class _Stages:
    """Numbers what is done of the plan of record and what is left, stage by stage."""

    def __init__(
        self, plan: Plan, versions: Sequence[ProcedureVersion], saved: Sequence[PlanItem], picture: Picture
    ) -> None:
        self.plan = plan
        self.versions = {version.procedure: version for version in versions}
        self.saved = {item.key: item for item in saved}
        open_keys = {item.key for item in plan.items}
        self.done = [item for item in saved if item.key not in open_keys and is_done(recorded(item), picture)]
        by_stage = {stage: [item.key for item in self.done if item.stage == stage] for stage in STAGES}
        for stage in plan.stages:
            by_stage[stage.id] += [item.key for item in stage.items]
        keys = [key for stage in STAGES for key in by_stage[stage]]
        self.numbers = {key: number for number, key in enumerate(keys, 1)}

    def made(self) -> tuple[PlanStage, ...]:
        titles = {item.key: item.title for item in self.plan.items}
        open_items = {stage.id: stage.items for stage in self.plan.stages}
        stages = []
        for stage, title in STAGES.items():
            lines = [self._done_line(item) for item in self.done if item.stage == stage]
            lines += [self._line(item, titles, open_items[stage]) for item in open_items.get(stage, ())]
            if lines:
                stages.append(PlanStage(stage, title, tuple(lines), _holds(self.plan, stage)))
        return tuple(stages)

    def _line(self, item: Item, titles: Mapping[str, str], stage: Sequence[Item]) -> PlanLine:
        saved = self.saved.get(item.key)
        version = self.versions.get(item.procedure)
        beside = (
            [other.key for other in stage if other.group == item.group and other is not item]
            if item.group
            else []
        )
        return PlanLine(
            number=self.numbers[item.key],
            key=item.key,
            stage=item.stage,
            title=item.title,
            procedure=item.procedure,
            procedure_title=version.title if version is not None else "",
            procedure_version=version.version if version is not None else None,
            reason=item.reason,
            sources=item.sources,
            parts=item.parts,
            waits=tuple(
                Wait(self.numbers[need.key], titles[need.key], need.reason, need.sources)
                for need in item.needs
            ),
            blockers=tuple((blocker.text, blocker.sources) for blocker in item.blockers),
            inside=titles.get(item.inside, ""),
            beside=tuple(self.numbers[key] for key in beside),
            state=_state(item),
            run=item.run,
            runs=_runs_of(saved),
            expected=item.expected,
            alternatives=tuple(name for name in item.alternatives if name in self.versions),
            plan_item=saved.pk if saved is not None else None,
        )

    def _done_line(self, item: PlanItem) -> PlanLine:
        version = self.versions.get(item.procedure)
        return PlanLine(
            number=self.numbers[item.key],
            key=item.key,
            stage=item.stage,
            title=item.title,
            procedure=item.procedure,
            procedure_title=version.title if version is not None else "",
            procedure_version=version.version if version is not None else None,
            reason=item.reason,
            sources=tuple(item.sources),
            parts=recorded(item).parts,
            waits=(),
            blockers=(),
            inside="",
            beside=(),
            state="done",
            run=None,
            runs=_runs_of(item),
            expected=None,
            alternatives=(),
            plan_item=item.pk,
        )


def _state(item: Item) -> str:
    if item.run is not None:
        return "running"
    if item.blockers:
        return "blocked"
    if item.inside:
        return "inside"
    return "waits" if item.needs else "ready"


def _runs_of(item: PlanItem | None) -> tuple[RunOfItem, ...]:
    if item is None:
        return ()
    runs = sorted(item.runs.all(), key=lambda run: run.pk)
    return tuple(
        RunOfItem(run.pk, run.rehearsal, run.status in OVER, run.ending or run.status) for run in runs
    )


def _stage_needs(plan: Plan) -> dict[tuple[str, str], set[str]]:
    """Which stage holds which (before, after), and by which requirements."""
    stage_of = {item.key: item.stage for item in plan.items}
    found: dict[tuple[str, str], set[str]] = {}
    for item in plan.items:
        for need in item.needs:
            pair = (stage_of[need.key], item.stage)
            if pair[0] != pair[1]:
                found.setdefault(pair, set()).update(need.sources)
    return found


def _holds(plan: Plan, stage: str) -> tuple[tuple[str, str], ...]:
    needs = _stage_needs(plan)
    return tuple(
        (STAGES[before], ", ".join(sorted(needs[before, stage])))
        for before in STAGES
        if (before, stage) in needs
    )


def _edges(plan: Plan) -> tuple[tuple[str, str], ...]:
    """The stages that hold each other, without what follows from the others: what an arrow is drawn for."""
    pairs = set(_stage_needs(plan))
    after: dict[str, set[str]] = {}
    for before, behind in pairs:
        after.setdefault(before, set()).add(behind)

    def reached(stage: str) -> set[str]:
        direct = after.get(stage, set())
        return direct | {far for near in direct for far in reached(near)}

    order = list(STAGES)
    kept = [
        (before, behind)
        for before, behind in pairs
        if not any(behind in reached(near) for near in after[before] if near != behind)
    ]
    return tuple(sorted(kept, key=lambda pair: (order.index(pair[0]), order.index(pair[1]))))
