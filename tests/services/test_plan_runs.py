"""Runs of a plan carried out: what they claim, and what their results make of the plan."""

from uuid import uuid4

import pytest

from tests.factories import make_user, publish
from tests.web.plan_scene import large_environment
from upgrades.domain.refusal import OutOfTurn
from upgrades.domain.run_state import RunStatus
from upgrades.models import Claim, Environment, PlanItem, Run
from upgrades.queries.plan import plan_in_force, planned, proposal_of
from upgrades.queries.procedures import newest, procedure_of
from upgrades.services import results
from upgrades.services.planning import save_plan
from upgrades.services.starting import start_run


@pytest.fixture
def place(db):
    publish()
    return large_environment()


@pytest.fixture
def operator(place):
    person = make_user("operator", environment=place)
    save_plan(environment_id=place.pk, digest=planned(place).digest, by=person, command_id=uuid4())
    return person


def start(place, operator, key, **changes):
    """Start the run of an item as the dialog proposes it."""
    item = PlanItem.objects.get(key=key)
    version = newest(item.procedure)
    proposal = proposal_of(place, item.pk, procedure_of(version))
    wishes = {
        "environment_id": place.pk,
        "procedure": item.procedure,
        "bindings": proposal.bindings,
        "parameters": proposal.parameters,
        "confirmations": {},
        "rehearsal": False,
        "change": "",
        "by": operator,
        "command_id": uuid4(),
        "plan_item": item.pk,
    }
    return start_run(**{**wishes, **changes}).run


def item_of(place, key):
    return next(item for item in planned(place).plan.items if item.key == key)


def test_the_dialog_of_a_pair_is_filled_with_its_servers(place, operator):
    run = start(place, operator, "server:scs+scs_b")
    names = {binding.application.name for binding in Run.objects.get(pk=run).bindings.all()}
    assert names == {"scs", "scs_b"}
    assert item_of(place, "server:scs+scs_b").run.id == run


def test_a_run_on_lca_claims_the_hosts_of_its_item_and_all_their_servers(place, operator):
    run = start(place, operator, "lca:Berlin")
    hosts = Claim.objects.filter(run=run, host__isnull=False).values_list("host__name", flat=True)
    item = PlanItem.objects.get(key="lca:Berlin")
    assert {part["name"] for part in item.hosts} <= set(hosts)
    servers = Claim.objects.filter(run=run).values_list("application__name", flat=True)
    assert {"proxy_ber_b", "confserv_b"} <= set(servers)


def test_a_server_on_a_host_whose_lca_is_worked_on_is_held(place, operator):
    run = start(place, operator, "lca:Berlin")
    blockers = item_of(place, "server:messageserver+messageserver_b").blockers
    assert f"run {run}" in blockers[0].text
    with pytest.raises(OutOfTurn, match=f"belongs to run {run}"):
        start(place, operator, "server:messageserver+messageserver_b")


def test_two_runs_on_separate_servers_go_on_side_by_side(place, operator):
    first = start(place, operator, "server:scs+scs_b")
    second = start(place, operator, "server:messageserver+messageserver_b")
    assert {item.run.id for item in planned(place).plan.items if item.run} == {first, second}


class Ended:
    """As much of a run's state as its results need."""

    status = RunStatus.ENDED

    def __init__(self, ending="completed", **facts):
        self.ending = ending
        self.facts = {name.replace("_", "-"): value for name, value in facts.items()}


@pytest.mark.parametrize(
    ("procedure", "ended", "field", "value"),
    [
        (
            "database-migration",
            Ended(target_schema="8.5.0", convert_languages=False),
            "schema_version",
            "8.5.0",
        ),
        (
            "database-migration",
            Ended(target_schema="8.5.0", convert_languages=True),
            "single_language",
            False,
        ),
        ("database-migration", Ended("aborted", target_schema="8.5.0"), "schema_version", "8.1.1"),
        ("database-migration", Ended(), "schema_version", "8.1.1"),
        ("log-database-schema", Ended(target_schema="8.5"), "log_schema_version", "8.5"),
        ("lrm-removal", Ended(), "uses_lrm", False),
        ("lrm-removal", Ended("aborted"), "uses_lrm", True),
        ("lca", Ended(target_schema="9"), "schema_version", "8.1.1"),
    ],
)
def test_a_completed_run_leaves_its_result_in_the_environment(place, procedure, ended, field, value):
    Environment.objects.filter(pk=place.pk).update(uses_lrm=True, single_language=True)
    run = Run(environment=place)
    results.apply(run, procedure, ended)
    assert getattr(Environment.objects.get(pk=place.pk), field) == value


def test_a_run_of_a_rehearsal_changes_nothing_of_the_plan(place, operator):
    run = start(place, operator, "server:scs+scs_b")
    Run.objects.filter(pk=run).update(rehearsal=True)
    record = plan_in_force(place)
    assert [row.rehearsal for item in record.items.all() for row in item.runs.all()] == [True]
