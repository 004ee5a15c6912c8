"""The start dialog: what it proposes, what it says to wrong answers, and that nothing typed is lost."""

from uuid import uuid4

import pytest

from tests.factories import bind, frankfurt, give, make_environment, make_user, publish, server, start
from upgrades.models import Application, Run, RunEvent

pytestmark = pytest.mark.django_db


@pytest.fixture
def environment():
    publish()
    return make_environment()


@pytest.fixture
def operator(environment, client):
    user = make_user("operator", environment=environment, first_name="Nina", last_name="Adler")
    client.force_login(user)
    return user


def address(environment):
    return f"/environments/{environment.pk}/start/config-server-ha/"


def answers(environment, **changes):
    bound = bind(environment, new="confserv_b", old="confserv")
    return {
        "command_id": uuid4(),
        "kind": "live",
        "role-new": bound["new"],
        "role-old": bound["old"],
        "parameter-target": "8.5.101",
        "parameter-database-upgraded": "false",
        "parameter-keep-database-until": "",
        "change": "CHG0042317",
        "category": "normal",
        "reason": "",
        **changes,
    }


def test_the_dialog_proposes_the_pair_and_the_target(client, environment, operator):
    form = client.get(address(environment)).context["form"]
    names = dict(Application.objects.values_list("pk", "name"))

    assert [names[field.initial] for _, field in form.roles()] == ["confserv_b", "confserv"]
    assert form["parameter-target"].initial == "8.5.101"


def test_the_dialog_shows_what_is_so_and_what_is_to_come(client, environment, operator):
    make_user("approver", environment=environment, first_name="Tomas", last_name="Lindqvist")

    dialog = client.get(address(environment)).context["dialog"]

    stand = {gate.id: gate.verdict for gate in dialog.prerequisites}
    assert (stand["lca-current"], stand["packages-delivered"]) == ("met", "waiting")
    assert {item.title for item in dialog.exposures} >= {"Read-only", "Master not redundant"}
    assert [(item.whom, item.people) for item in dialog.signatures] == [("1 approver", ("Tomas Lindqvist",))]


def test_a_fact_that_is_not_so_is_said_before_the_start(client, environment, operator):
    environment.hosts.update(lca_version="8.5.000")

    dialog = client.get(address(environment)).context["dialog"]

    assert {gate.id: gate.verdict for gate in dialog.prerequisites}["lca-current"] == "failed"


@pytest.mark.bad_input("D09")
def test_that_nobody_can_sign_is_said_before_the_start(client, environment, operator):
    give(operator, environment, "approver")  # may not sign what he starts

    answer = client.get(address(environment))

    assert answer.context["dialog"].signatures[0].is_short
    assert "Too few people can sign." in answer.text


def test_a_run_starts_and_its_page_follows(client, environment, operator):
    answer = client.post(
        address(environment),
        answers(
            environment, **{"confirm-packages-delivered": "on", "text-packages-delivered": "both, I looked"}
        ),
    )

    run = Run.objects.get()
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/runs/{run.pk}/")
    assert (run.change, run.rehearsal, run.starter_name) == ("CHG0042317", False, "Nina Adler")
    assert "both, I looked" in RunEvent.objects.get(kind="gate.confirmed").text


def test_sending_the_dialog_twice_starts_one_run(client, environment, operator):
    sent = answers(environment)

    first, second = (client.post(address(environment), sent).headers["Location"] for _ in range(2))

    assert first == second
    assert Run.objects.count() == 1


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("kind", "", "Choose whether this is a rehearsal or live."),
        ("kind", "both", "both is not one of the available choices"),
        ("role-new", "", "Choose a server of type ConfigurationServer that is configured as backup."),
        ("role-new", "999999", "999999 is not one of the available choices"),
        ("role-new", "१", "is not one of the available choices"),
        ("parameter-target", "", "An answer is needed here."),
        ("parameter-target", "eight", "is not a version"),
        ("parameter-target", "8.5\0", "Null characters are not allowed."),
        ("parameter-database-upgraded", "", "Choose yes or no."),
        ("parameter-database-upgraded", "maybe", "maybe is not one of the available choices"),
        ("parameter-keep-database-until", "next week", "Ensure this value has at most 10|write a date as"),
        ("change", "x" * 121, "at most 120"),
        ("command_id", "1;2", "Enter a valid UUID"),
    ],
)
def test_a_wrong_answer_is_told_beside_its_field_and_the_others_stay(
    client, environment, operator, field, value, says
):
    answer = client.post(
        address(environment),
        answers(environment, **{"text-packages-delivered": "typed before", field: value}),
    )

    form = answer.context["form"]
    assert answer.status_code == 400
    assert any(says_one in " ".join(form.errors[field]) for says_one in says.split("|"))
    assert "typed before" in answer.text
    assert not Run.objects.exists()


def test_servers_that_are_no_pair_are_refused_beside_the_field(client, operator):
    world = frankfurt()
    world["servers"] += [
        server("other", "ConfigurationServer", "fra-scs-01", "8.1.3", peer="other_b"),
        server("other_b", "ConfigurationServer", "fra-scs-01", "8.1.3", role="backup", peer="other"),
    ]
    environment = make_environment("Two pairs", world=world)
    give(operator, environment, "operator")
    other = bind(environment, old="other")["old"]

    answer = client.post(address(environment), answers(environment, **{"role-old": other}))

    assert answer.status_code == 400
    assert "are no HA pair" in " ".join(answer.context["form"].errors["role-old"])


def test_servers_of_an_open_run_are_refused_with_its_number(client, environment, operator):
    run = start(environment, operator)

    shown = client.get(address(environment)).text
    answer = client.post(address(environment), answers(environment))

    assert f"belongs to run {run}" in shown
    assert answer.status_code == 409
    assert f"belongs to run {run}" in answer.text
    assert "CHG0042317" in answer.text


@pytest.mark.bad_input("FM04")
def test_an_answer_that_came_twice_starts_nothing(client, environment, operator):
    answer = client.post(address(environment), answers(environment, kind=["live", "rehearsal"]))

    assert answer.status_code == 400
    assert "the same field more than once" in answer.text
    assert not Run.objects.exists()


def test_looking_again_starts_nothing_and_asks_what_follows_from_the_answers(client, environment, operator):
    sent = answers(environment, **{"parameter-database-upgraded": "true", "look": "1", "change": "CHG7"})

    answer = client.post(address(environment), sent)

    assert answer.status_code == 200
    assert not answer.context["form"].errors
    assert "legacy-database-kept" in {gate.id for gate in answer.context["dialog"].prerequisites}
    assert 'value="CHG7"' in answer.text
    assert not Run.objects.exists()


@pytest.mark.parametrize("digits", [50, 5000])
def test_a_server_of_an_endless_number_is_none_of_those_here(client, environment, operator, digits):
    typed = answers(environment, **{"role-new": "9" * digits, "reason": "Typed before."})

    looked = client.post(address(environment), typed | {"look": "1"})
    started = client.post(address(environment), typed)

    assert (looked.status_code, started.status_code) == (200, 400)
    assert "Typed before." in looked.text
    assert "role-new" in started.context["form"].errors
    assert not Run.objects.exists()


def test_without_a_simulator_there_is_no_rehearsal_and_the_dialog_says_why(
    client, environment, operator, settings
):
    settings.SIMULATOR_URL = None

    assert "A rehearsal needs a simulator" in client.get(address(environment)).text
    answer = client.post(address(environment), answers(environment, kind="rehearsal"))
    assert "kind" in answer.context["form"].errors


def test_a_simulator_that_is_away_loses_nothing_that_was_typed(client, environment, operator, settings):
    settings.SIMULATOR_URL = "http://127.0.0.1:9"

    answer = client.post(address(environment), answers(environment, kind="rehearsal"))

    assert answer.status_code == 503
    assert "The simulator does not answer" in answer.text
    assert "CHG0042317" in answer.text


def test_the_dialog_asks_the_database_a_bounded_number_of_questions(
    client, environment, operator, django_assert_max_num_queries
):
    with django_assert_max_num_queries(16):
        client.get(address(environment))


def test_an_emergency_says_why(client, environment, operator):
    answer = client.post(address(environment), answers(environment, category="emergency"))
    assert answer.status_code == 400
    assert "at least 20 characters" in str(answer.context["form"].errors["reason"])
    assert not Run.objects.exists()
    reason = "The primary fails every hour; calls are lost."
    answer = client.post(address(environment), answers(environment, category="emergency", reason=reason))
    assert answer.status_code == 303
    page = client.get(answer["Location"]).content.decode()
    assert "Emergency change." in page
    assert reason in page


def test_a_category_that_nobody_knows_is_refused(client, environment, operator):
    answer = client.post(address(environment), answers(environment, category="urgent"))
    assert answer.status_code == 400
    assert "category" in answer.context["form"].errors
