"""Runs whose steps are repeated host by host, through the services and the database."""

import time
from functools import partial

import pytest

from tests.factories import TARGETS, bind, make_environment, make_user, start
from tests.services.night import REASON, Night, check_every_run, crossed
from upgrades.domain import run as core
from upgrades.domain.environment_records import Kind
from upgrades.domain.refusal import GateClosed, NotAllowed, OutOfTurn
from upgrades.domain.run_state import RunStatus
from upgrades.models import Agent, Application, Host, Run, RunBurden
from upgrades.queries.environment_export import content_of
from upgrades.queries.environment_facts import picture_of
from upgrades.services.starting import BadAnswers

pytestmark = pytest.mark.django_db

OPTION = "disconnect-switchover-timeout"
DUTY = "duty:remove-option--scs"


def lca_night(**parameters):
    return Night(procedure="lca", bindings={}, parameters={"target": "8.5.101", OPTION: "600", **parameters})


def open_burdens(environment):
    rows = RunBurden.objects.filter(environment=environment, closed_at=None).order_by("burden")
    return list(rows.values_list("burden", "owner_name"))


# Starting.


@pytest.mark.requirement("LCA-2")
def test_the_start_records_the_hosts_in_their_order_and_enters_their_agents():
    night = lca_night()
    hosts = [member["key"] for member in night.state.started.groups["hosts"]]
    assert hosts == ["fra-cfg-01", "fra-cfg-02", "fra-scs-01"], "the host of the single SCS comes last"
    agents = Application.objects.filter(environment=night.environment, type="LCA").order_by("name")
    assert list(agents.values_list("name", "version")) == [
        (f"lca_{host}", "8.5.100") for host in ("fra-cfg-01", "fra-cfg-02", "fra-scs-01")
    ]


def test_starting_again_later_enters_no_agent_twice():
    night = lca_night()
    night.act(core.Abort(reason=REASON))
    start(night.environment, night.operator, "lca", bindings={}, parameters={"target": "8.5.101"})
    assert Application.objects.filter(environment=night.environment, type="LCA").count() == 3


def test_a_start_takes_the_agents_of_hosts_before_the_servers_that_they_follow(transactional_db):
    """As whoever stores the news of an agent does: neither may wait for the other."""
    night = lca_night()
    night.act(core.Abort(reason=REASON))
    again = partial(
        start, night.environment, night.operator, "lca", bindings={}, parameters={"target": "8.5.101"}
    )
    run, stored = crossed(
        lambda: Agent.objects.select_for_update(of=("self",)).get(host__name="fra-cfg-01"),
        again,
        lambda: Application.objects.select_for_update().get(name="lca_fra-cfg-01").name,
    )
    assert (run, stored) == (Run.objects.latest("pk").pk, "lca_fra-cfg-01")


def test_agents_that_are_all_at_the_target_leave_nothing_to_start():
    environment = make_environment()
    operator = make_user("operator", environment=environment)
    with pytest.raises(BadAnswers) as refused:
        start(environment, operator, "lca", bindings={}, parameters={"target": "8.5.100"})
    assert "Nothing is left to do" in refused.value.mistakes["groups"]
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"hosts": "fra-cfg-99"}, "parameter-hosts"),
        ({OPTION: "soon"}, f"parameter-{OPTION}"),
        ({OPTION: "0"}, f"parameter-{OPTION}"),
    ],
)
def test_an_answer_that_cannot_be_used_is_told_beside_its_field(parameters, field):
    with pytest.raises(BadAnswers) as refused:
        lca_night(**parameters)
    assert list(refused.value.mistakes) == [field]


def test_a_server_of_a_host_that_is_worked_on_belongs_to_that_run():
    night = lca_night()
    with pytest.raises(OutOfTurn, match="Upgrade Local Control Agents"):
        start(night.environment, night.operator)


@pytest.mark.requirement("ML-4")
def test_the_target_of_a_management_layer_server_is_that_of_its_type():
    environment = make_environment(targets={**TARGETS, "SCS": "8.5.107", "MessageServer": "8.5.103"})
    operator = make_user("operator", environment=environment)
    for name, target in (("messageserver", "8.5.103"), ("scs", "8.5.107")):
        run = start(
            environment, operator, "management-layer", bindings=bind(environment, server=name), parameters={}
        )
        started = Run.objects.get(pk=run).events.get(seq=1).text
        assert f'"target":"{target}"' in started


def test_a_configuration_server_is_no_management_layer_server():
    environment = make_environment()
    operator = make_user("operator", environment=environment)
    with pytest.raises(BadAnswers) as refused:
        start(environment, operator, "management-layer", bindings=bind(environment, server="confserv"))
    assert "SCS or MessageServer" in refused.value.mistakes["role-server"]


# Carrying it out.


@pytest.mark.requirement("LCA-3b")
def test_an_upgraded_agent_is_the_version_of_its_host():
    night = lca_night().go_to("check-host--fra-cfg-01")
    versions = dict(Host.objects.filter(environment=night.environment).values_list("name", "lca_version"))
    assert versions == {"fra-cfg-01": "8.5.101", "fra-cfg-02": "8.5.100", "fra-scs-01": "8.5.100"}
    agent = Application.objects.get(environment=night.environment, name="lca_fra-cfg-01")
    assert agent.version == "8.5.101"
    check_every_run()


@pytest.mark.requirement("LCA-W")
def test_a_worker_puts_the_warning_and_the_end_of_a_countdown_on_record():
    night = lca_night(**{OPTION: "1"}).go_to("install-lca--fra-cfg-01")
    until = time.monotonic() + 30
    while night.kinds.count("exposure.mark") < 2 and time.monotonic() < until:
        night.advance()
    night.advance()
    marks = [item.event for item in night.history if item.event.kind == "exposure.mark"]
    assert [(mark.exposure, mark.percent, mark.limit) for mark in marks] == [
        ("lca-down--fra-cfg-01", 80, 1),
        ("lca-down--fra-cfg-01", 100, 1),
    ]
    assert night.state.status is RunStatus.RUNNING, "time alone decides nothing"
    check_every_run()


# The option that must not stay.


@pytest.mark.requirement("LCA-5")
def test_an_aborted_run_leaves_the_option_to_a_second_person_on_the_environment():
    night = lca_night().go_to("stop-lca--fra-cfg-01")
    with pytest.raises(GateClosed, match="remove-option"):
        night.act(core.Abort(reason=REASON))
    with pytest.raises(NotAllowed):
        night.act(core.TakeOver(burden=DUTY, reason=REASON))
    night.act(core.TakeOver(burden=DUTY, reason=REASON), by=night.approver)
    night.act(core.Abort(reason=REASON))
    assert night.row.status == "aborted"
    assert open_burdens(night.environment) == [(DUTY, "Anna")]
    title = RunBurden.objects.get(burden=DUTY).title
    assert title == "Delete disconnect-switchover-timeout from section [general] of scs"
    check_every_run()


@pytest.mark.requirement("LCA-5")
def test_the_option_stays_open_until_whoever_took_it_over_reports_it_deleted():
    night = lca_night().go_to("stop-lca--fra-cfg-01")
    night.act(core.TakeOver(burden=DUTY, reason=REASON), by=night.approver)
    night.act(core.Abort(reason=REASON))
    with pytest.raises(NotAllowed):
        night.act(core.CloseBurden(burden=DUTY, text="It is deleted."))
    night.act(core.CloseBurden(burden=DUTY, text="It is deleted."), by=night.approver)
    assert open_burdens(night.environment) == []
    check_every_run()


@pytest.mark.requirement("LCA-5")
def test_the_option_stands_on_the_environment_before_the_step_that_sets_it_is_over():
    night = lca_night().go_to("set-option--scs")
    night.advance()
    assert (DUTY, "") in open_burdens(night.environment), "whatever dies now, the row is there"
    with pytest.raises(GateClosed):
        night.act(core.Abort(reason=REASON))


@pytest.mark.requirement("LCA-W")
def test_a_corrected_value_needs_a_second_person_and_moves_the_countdown():
    night = lca_night().go_to("install-lca--fra-cfg-01")
    night.act(core.CorrectFact(name=OPTION, value="1", reason=REASON))
    request = night.row.requests.get(kind="deviation")
    assert request.number == 1
    night.advance()
    assert night.state.facts[OPTION] == "600"
    night.act(core.SignDeviation(number=1), by=night.approver)
    until = time.monotonic() + 30
    while night.kinds.count("exposure.mark") < 2 and time.monotonic() < until:
        night.advance()
    assert night.state.facts[OPTION] == "1"
    assert {item.event.limit for item in night.history if item.event.kind == "exposure.mark"} == {1}
    check_every_run()


def test_an_agent_that_a_run_entered_is_no_server_of_the_environment_for_people():
    night = lca_night()
    content = content_of(night.environment)
    assert {record["type"] for record in content.all(Kind.APPLICATION)} == {
        "ConfigurationServer",
        "SCS",
        "MessageServer",
    }
    Host.objects.filter(environment=night.environment, name="fra-cfg-01").update(lca_version="8.5.107")
    hosts = {host.name: host.lca_version for host in picture_of(night.environment).hosts}
    assert hosts["fra-cfg-01"] == "8.5.107", "what people entered at the host counts"
