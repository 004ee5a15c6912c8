"""The panel of simulated servers, against a real simulator whose worlds have no agents."""

import pytest

from tests.factories import POLICIES, give, make_environment, make_user, start
from upgrades.adapters import simulator_client
from upgrades.models import Run, RunStep
from upgrades.queries.simulated import panel
from upgrades.services.simulated import environment_from_world

pytestmark = pytest.mark.django_db


@pytest.fixture
def environment(simulator):
    world = simulator_client.create_world({"world": "frankfurt", "speed": 1000})
    environment = environment_from_world(world, name="Production · Frankfurt")
    environment.policies = POLICIES
    environment.save()
    return environment


@pytest.fixture
def operator(environment, client):
    user = make_user("operator", environment=environment)
    client.force_login(user)
    return user


def press(client, environment, **fields):
    return client.post(f"/environments/{environment.pk}/simulated/", fields, follow=True)


def mode_of(environment, name):
    servers = simulator_client.state(environment.world)["servers"]
    return next(server for server in servers if server["name"] == name)


def test_a_button_stops_a_server_and_the_page_says_so(client, environment, operator):
    answer = press(client, environment, do="act", action="stop", server="confserv_b")

    assert "confserv_b is being stopped" in answer.text
    assert mode_of(environment, "confserv_b")["stopping"] or not mode_of(environment, "confserv_b")["up"]


def test_a_button_pressed_in_the_page_brings_the_panel_back(client, environment, operator):
    answer = client.post(
        f"/environments/{environment.pk}/simulated/",
        {"do": "act", "action": "install", "server": "confserv_b"},
        headers={"HX-Request": "true"},
    )

    assert answer.text.lstrip().startswith('<section class="card pad stack simulated" id="simulated">')
    assert "is installed in its prepared folder" in answer.text
    assert "prepared 8.5.101" in answer.text


def test_what_the_simulator_refuses_is_said_in_its_own_words(client, environment, operator):
    answer = client.post(
        f"/environments/{environment.pk}/simulated/",
        {"do": "act", "action": "start", "server": "confserv"},
        headers={"HX-Request": "true"},
    )

    assert answer.status_code == 409
    assert "confserv runs already" in answer.text


def test_something_goes_wrong_and_is_ended_again(client, environment, operator):
    press(client, environment, do="misbehave", what="clock-skew", where="host:fra-cfg-02")
    assert simulator_client.state(environment.world)["clock-skew"] == {"fra-cfg-02": 300.0}
    assert ("clock-skew", "fra-cfg-02") in panel(environment).active

    press(client, environment, do="heal", what="clock-skew", where="host:fra-cfg-02")
    assert panel(environment).active == ()


def test_the_servers_begin_anew_in_another_course(client, environment, operator):
    former = environment.world

    answer = press(client, environment, do="renew", scenario="forced")

    environment.refresh_from_db()
    assert environment.world != former
    assert simulator_client.worlds() == {environment.world}
    assert "in the course “forced”" in answer.text


def test_the_servers_do_not_begin_anew_under_an_open_run(client, environment, operator):
    run = start(environment, operator)

    answer = press(client, environment, do="renew", scenario="forced")

    assert f"Run {run} is under way here" in answer.text
    assert simulator_client.worlds() == {environment.world}


def test_a_step_is_not_done_before_it_has_begun(client, environment, operator):
    run = Run.objects.select_related("procedure").get(pk=start(environment, operator))

    Run.objects.filter(pk=run.pk).update(current_step="launch-new", current_title="Launch")
    run.refresh_from_db()
    button = panel(environment, run).step

    assert (button.number, button.why_not.split(":")[0]) == ("6", "Begin the step first")
    RunStep.objects.create(
        run=run,
        step="launch-new",
        visit=1,
        status="begun",
        entered_at=run.started_at,
        begun_at=run.started_at,
    )
    assert panel(environment, run).step.why_not == ""


def test_a_step_without_work_on_servers_says_so(client, environment, operator):
    run = start(environment, operator)

    answer = press(client, environment, do="step", run=run)

    assert "nothing is done on the servers" in answer.text


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"do": "act", "action": "reset"}, id="an action without a button"),
        pytest.param({"do": "step"}, id="a step without a run"),
        pytest.param({"do": "renew", "scenario": "no such"}, id="an unknown course"),
        pytest.param({"do": "misbehave", "what": "no such"}, id="an unknown fault"),
    ],
)
def test_what_no_button_sends_is_refused_and_changes_nothing(client, environment, operator, fields):
    before = simulator_client.worlds()

    answer = client.post(f"/environments/{environment.pk}/simulated/", fields, headers={"HX-Request": "true"})

    assert answer.status_code in (400, 409)
    assert simulator_client.worlds() == before


def test_only_operators_handle_the_servers(client, environment, operator):
    auditor = make_user("auditor", environment=environment)
    client.force_login(auditor)

    assert "Simulated servers</h3>" not in client.get(f"/environments/{environment.pk}/").text
    assert press(client, environment, do="act", action="stop", server="confserv").status_code == 403


def test_a_simulator_that_is_away_is_said_and_breaks_no_page(client, environment, operator, settings):
    settings.SIMULATOR_URL = "http://127.0.0.1:9"

    answer = client.get(f"/environments/{environment.pk}/")

    assert answer.status_code == 200
    assert "The simulator does not answer" in answer.text


def test_the_simulator_is_asked_on_this_machine_only(settings):
    settings.SIMULATOR_URL = "http://simulator.example:8010"

    with pytest.raises(simulator_client.SimulatorUnavailable, match="loopback address only"):
        simulator_client.worlds()


def test_real_servers_have_no_panel():
    environment = make_environment()
    user = make_user()
    give(user, environment, "operator")

    assert panel(environment) is None
