"""Plans, the start dialog and the start of a run, and the way back from one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from django.http import HttpRequest, HttpResponse
from pydantic import Field

from upgrades.api.acts import answered
from upgrades.api.door import command_id, person, seen
from upgrades.api.environments import original
from upgrades.api.operations import MAY_CONFLICT, operation
from upgrades.api.problems import Problem, not_found
from upgrades.api.shapes import Done, In, Name, Number, Out
from upgrades.domain import run as core
from upgrades.domain.api_scopes import OPERATE
from upgrades.models import ProcedureVersion
from upgrades.queries.access import roles_in
from upgrades.queries.plan import plan_page
from upgrades.queries.procedures import newest, procedure_of
from upgrades.queries.rollback import rollback_page
from upgrades.queries.run_page import seen_by
from upgrades.queries.start_dialog import start_dialog
from upgrades.services.planning import save_plan
from upgrades.services.rollback import Stated, start_rollback
from upgrades.services.starting import start_run

PLANS, STARTING = "Plans", "Starting"

# Plans.


class PartOfPlan(Out):
    kind: str
    name: str
    version: str
    target: str


class Wait(Out):
    number: int
    title: str
    reason: str
    sources: list[str]


class PlanLine(Out):
    """An item of the plan. `state` is ready, waits, blocked, inside, running or done; `plan_item` its id when it was saved."""

    number: int
    key: str
    stage: str
    title: str
    procedure: str
    reason: str
    sources: list[str]
    parts: list[PartOfPlan]
    waits: list[Wait]
    state: str
    plan_item: int | None


class Stage(Out):
    id: str
    title: str
    lines: list[PlanLine]


class ChangeOfPlan(Out):
    kind: str
    title: str
    text: str


class PlanOfRecord(Out):
    number: int
    saved_at: datetime
    saved_by: str
    done: int
    total: int
    changes: list[ChangeOfPlan]


class PlanNotice(Out):
    text: str
    sources: list[str]


class Plan(Out):
    """The plan for what is so now, beside the plan of record. `digest` is sent to save it."""

    id: int
    name: str
    stages: list[Stage]
    notices: list[PlanNotice]
    record: PlanOfRecord | None
    digest: str
    seconds: int | None
    left: int


class SavePlan(In):
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", examples=["0f" * 32])


class Saved(Out):
    environment: int
    number: int


@operation("GET", "environments/{int:environment_id}/plan", Plan, tag=PLANS)
def show_plan(request: HttpRequest, environment_id: int) -> object:
    """The runs that bring the environment to its target versions, in their order, each with its reason."""
    return plan_page(original(request, environment_id), person(request))


@operation("POST", "environments/{int:environment_id}/plan", Saved, tag=PLANS, scope=OPERATE, status=201)
def save_plan_of_record(request: HttpRequest, environment_id: int, sent: SavePlan) -> Saved:
    """Make the plan that was shown the plan of record."""
    number = save_plan(
        environment_id=environment_id,
        digest=sent.digest,
        by=person(request),
        command_id=command_id(request),
    )
    return Saved(environment=environment_id, number=number)


# Starting.


class Candidate(Out):
    id: int
    label: str


class RoleOffer(Out):
    """A role with the servers that can play it; `chosen` is proposed."""

    name: str
    title: str
    wanted: str
    candidates: list[Candidate]
    chosen: int | None


class Question(Out):
    name: str
    title: str
    type: str
    help: str
    source: list[str]
    answer: str
    needed: bool


class Prerequisite(Out):
    """`is_confirmed`: a person states it; send a text under its id in `confirmations`."""

    id: str
    title: str
    text: str
    source: list[str]
    verdict: str
    is_confirmed: bool


class ExposureToCome(Out):
    title: str
    text: str
    step: str
    expected: int | None
    maximum: int | None


class SignatureToCome(Out):
    step: str
    whom: str
    people: list[str]
    lack: str


class Dialog(Out):
    """What starting asks for. `obstacle`: it is not meant for these servers; `taken`: an open run has them."""

    procedure: str
    version: int
    title: str
    summary: str
    steps: int
    seconds: int
    roles: list[RoleOffer]
    parameters: list[Question]
    prerequisites: list[Prerequisite]
    exposures: list[ExposureToCome]
    signatures: list[SignatureToCome]
    obstacle: str
    taken: str


def _version(procedure: str) -> ProcedureVersion:
    try:
        return newest(procedure)
    except ProcedureVersion.DoesNotExist:
        raise not_found("No procedure is published under this name.") from None


@operation("GET", "environments/{int:environment_id}/start/{slug:procedure}", Dialog, tag=STARTING)
def show_start(request: HttpRequest, environment_id: int, procedure: str) -> dict[str, object]:
    """What starting a procedure here asks for, what is proposed, and what is to come."""
    environment = original(request, environment_id)
    version = _version(procedure)
    if "operator" not in roles_in(person(request), environment):
        text = f"Starting a run takes the role operator in {environment.name}. An administrator there can give it."
        raise Problem(403, "not-allowed", "This is not allowed", text)
    shown = start_dialog(environment, procedure_of(version), person(request))
    told: dict[str, object] = {name: getattr(shown, name) for name in Dialog.model_fields}
    told["roles"] = [
        {
            "name": role.name,
            "title": role.title,
            "wanted": role.wanted,
            "candidates": [{"id": pk, "label": label} for pk, label in role.candidates],
            "chosen": role.chosen,
        }
        for role in shown.roles
    ]
    return told


Texts = dict[Annotated[str, Field(max_length=100)], Annotated[str, Field(max_length=4000)]]


class Start(In):
    """The answers of the start dialog. `bindings`: application (its id) per role."""

    procedure: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", examples=["config-server-ha"])
    bindings: dict[Annotated[str, Field(max_length=100)], int] = Field(
        max_length=100, examples=[{"new": 2, "old": 1}]
    )
    parameters: Texts = Field(default_factory=dict, max_length=100, examples=[{"target": "8.5.101"}])
    confirmations: Texts = Field(default_factory=dict, max_length=100)
    kind: Literal["live", "rehearsal"]
    change: str = Field("", max_length=120, examples=["CHG0042317"])
    category: Literal["standard", "normal", "emergency"] = "normal"
    reason: str = Field("", max_length=2000, description="Why the run is made; an emergency needs it")
    plan_item: Number | None = None


@operation("POST", "environments/{int:environment_id}/runs", Done, tag=STARTING, scope=OPERATE, status=201)
def start_in_environment(
    request: HttpRequest, response: HttpResponse, environment_id: int, sent: Start
) -> Done:
    """Start a run of the newest version of a procedure, live or as a rehearsal on simulated copies."""
    _version(sent.procedure)
    done = start_run(
        environment_id=environment_id,
        procedure=sent.procedure,
        bindings=sent.bindings,
        parameters=sent.parameters,
        confirmations=sent.confirmations,
        rehearsal=sent.kind == "rehearsal",
        change=sent.change,
        by=person(request),
        command_id=command_id(request),
        plan_item=sent.plan_item,
        category=sent.category,
        reason=sent.reason,
    )
    response.headers["Location"] = f"/api/v1/runs/{done.run}"
    return answered(response, done)


# The way back.


class FittingWayBack(Out):
    """The rollback that fits these answers, why, and what goes over from the run to it."""

    run: int
    procedure: str
    title: str
    reason: str
    steps: list[str]
    carried: list[str]
    operational: bool
    former_database: bool
    copy_there: bool


Yes = Literal["yes", "no"]


@operation("GET", "runs/{int:run_id}/roll-back", FittingWayBack, tag=STARTING, says=MAY_CONFLICT)
def show_way_back(
    request: HttpRequest,
    run_id: int,
    operational: Yes | None = None,
    former_database: Yes | None = None,
    copy_there: Yes | None = None,
) -> FittingWayBack:
    """Which way back fits, as the record has it or with these answers."""
    found = seen_by(run_id, person(request))
    if found is None:
        raise not_found("There is no such run, or you have no role in its environment.")
    page = rollback_page(
        run_id,
        found.roles,
        operational=_yes(operational),
        former_database=_yes(former_database),
        copy=_yes(copy_there),
    )
    known = page.known
    return FittingWayBack(
        run=run_id,
        procedure=page.choice.procedure,
        title=page.procedure_title,
        reason=page.choice.reason,
        steps=list(page.steps),
        carried=list(page.carried),
        operational=known.operational if operational is None else operational == "yes",
        former_database=known.former_database if former_database is None else former_database == "yes",
        copy_there=known.copy if copy_there is None else copy_there == "yes",
    )


def _yes(answer: str | None) -> bool | None:
    return None if answer is None else answer == "yes"


class RollBack(In):
    """What is stated of the present, and the procedure that was shown for it."""

    procedure: Name
    operational: bool
    former_database: bool
    copy_there: bool
    reason: str = Field(min_length=core.REASON, max_length=2000)


@operation(
    "POST",
    "runs/{int:run_id}/roll-back",
    Done,
    tag=STARTING,
    scope=OPERATE,
    status=201,
    needs_match=True,
)
def roll_back_run(request: HttpRequest, response: HttpResponse, run_id: int, sent: RollBack) -> Done:
    """Start the rollback that fits; the run ends as “rolled back” in the same act."""
    done = start_rollback(
        run_id=run_id,
        stated=Stated(
            operational=sent.operational, former_database=sent.former_database, copy=sent.copy_there
        ),
        procedure=sent.procedure,
        reason=sent.reason,
        by=person(request),
        command_id=command_id(request),
        head=seen(request),
    )
    response.headers["Location"] = f"/api/v1/runs/{done.run}"
    return answered(response, done)
