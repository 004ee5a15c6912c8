"""Starting a run: every mistake at once, nobody who may not, one open run per server, and once however often sent."""

import shutil
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from tests.factories import bind, make_environment, make_user, publish, start
from tests.services.night import Night, at_once, check_every_run
from upgrades.domain import run as core
from upgrades.domain.refusal import GateClosed, NotAllowed, OutOfTurn
from upgrades.models import Agent, CommandReceipt, Run
from upgrades.services import claims
from upgrades.services.procedures import publish as publish_text
from upgrades.services.runs import Done, NoSuchRun
from upgrades.services.starting import BadAnswers, start_run

pytestmark = pytest.mark.django_db


@pytest.fixture
def place():
    publish()
    return make_environment()


@pytest.fixture
def operator(place):
    return make_user("operator", environment=place)


def wishes(place, by, **changes):
    values = {
        "environment_id": place.pk,
        "procedure": "config-server-ha",
        "bindings": bind(place, new="confserv_b", old="confserv"),
        "parameters": {"target": "8.5.101", "database-upgraded": "false"},
        "confirmations": {"packages-delivered": "On both hosts."},
        "rehearsal": False,
        "change": "CHG0042317",
        "by": by,
        "command_id": uuid4(),
    }
    return values | changes


def test_a_run_starts_with_what_the_dialog_said(place, operator):
    done = start_run(**wishes(place, operator))
    run = Run.objects.get(pk=done.run)
    assert (run.status, run.change, run.starter_name) == ("running", "CHG0042317", operator.username)
    assert {(item.role, item.application.name) for item in run.bindings.all()} == {
        ("new", "confserv_b"),
        ("old", "confserv"),
    }
    kinds = list(run.events.values_list("kind", flat=True))
    assert kinds == ["run.started", "step.entered", "step.begun", "gate.confirmed"]
    check_every_run()


def test_all_mistakes_of_the_dialog_are_told_at_once(place, operator):
    with pytest.raises(BadAnswers) as refusal:
        start_run(
            **wishes(
                place,
                operator,
                bindings=bind(place, new="scs"),
                parameters={"target": "eight", "database-upgraded": "maybe", "keep-database-until": "soon"},
                confirmations={"no-such-gate": "x", "packages-delivered": "bell \x07"},
                change="C" * 121,
            )
        )
    assert set(refusal.value.mistakes) == {
        "role-new",
        "role-old",
        "parameter-target",
        "parameter-database-upgraded",
        "parameter-keep-database-until",
        "confirm-no-such-gate",
        "confirm-packages-delivered",
        "change",
    }
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"new": "confserv", "old": "confserv_b"}, "is configured as primary"),
        ({"new": "confserv_b", "old": "confserv_b"}, "is configured as backup"),
        ({"new": "confserv_b", "old": "messageserver"}, "is of type MessageServer"),
    ],
)
def test_servers_that_cannot_play_their_parts_are_refused(place, operator, names, says):
    with pytest.raises(BadAnswers, match=says):
        start_run(**wishes(place, operator, bindings=bind(place, **names)))


def test_a_server_of_another_environment_is_none_of_this_one(place, operator):
    other = make_environment("Another")
    with pytest.raises(BadAnswers, match="Choose the application"):
        start_run(**wishes(place, operator, bindings=bind(other, new="confserv_b", old="confserv")))


def test_a_parameter_that_the_others_make_necessary_is_asked_for(place, operator):
    upgraded = {"target": "8.5.101", "database-upgraded": "true"}
    with pytest.raises(BadAnswers) as refusal:
        start_run(**wishes(place, operator, parameters=upgraded))
    assert set(refusal.value.mistakes) == {"parameter-keep-database-until"}


@pytest.mark.parametrize("there", [True, False])
def test_a_stranger_cannot_tell_an_environment_from_none(place, there):
    stranger = make_user("operator", environment=make_environment("Another"), is_superuser=True)
    number = place.pk if there else place.pk + 1000
    with pytest.raises(NoSuchRun, match=r"^There is no such environment, or you have no role in it\.$"):
        start_run(**wishes(place, stranger, environment_id=number))


@pytest.mark.parametrize("role", ["approver", "auditor", "author", "administrator"])
def test_only_operators_start_runs(place, role):
    person = make_user(role, environment=place, is_superuser=True)
    with pytest.raises(NotAllowed, match="role operator"):
        start_run(**wishes(place, person))


@pytest.mark.bad_input("D14")
def test_a_server_belongs_to_one_open_run_at_a_time(place, operator):
    first = start_run(**wishes(place, operator))
    with pytest.raises(OutOfTurn, match=f"belongs to run {first.run}"):
        start_run(**wishes(place, operator))
    Run.objects.filter(pk=first.run).update(status="aborted")
    claims.sweep()  # the abort itself would have released them; this one is only a row
    assert start_run(**wishes(place, operator)).run != first.run


def test_the_same_start_sent_twice_starts_one_run(place, operator):
    wish = wishes(place, operator)
    first, again = start_run(**wish), start_run(**wish)
    assert (again.run, again.seq, again.repeated) == (first.run, first.seq, True)
    assert Run.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_the_same_start_sent_ten_times_at_once_starts_one_run_and_is_answered_the_same(place, operator):
    wish = wishes(place, operator)
    answers = at_once(*[partial(start_run, **wish)] * 10)
    assert {(done.run, done.seq) for done in answers} == {(answers[0].run, answers[0].seq)}
    assert [done.repeated for done in answers].count(False) == 1
    assert Run.objects.count() == CommandReceipt.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.bad_input("D14")
def test_ten_starts_on_the_same_servers_at_once_start_one_run(place, operator):
    answers = at_once(*(partial(start_run, **wishes(place, operator)) for _ in range(10)))
    assert [type(answer) for answer in answers].count(Done) == 1
    assert [type(answer) for answer in answers].count(OutOfTurn) == 9
    assert Run.objects.count() == 1
    check_every_run()


def test_the_agents_of_a_new_run_are_asked_at_once(place, operator):
    start_run(**wishes(place, operator))
    hurried = Agent.objects.exclude(due_at=None)
    assert {agent.host.name for agent in hurried} == {"fra-cfg-01", "fra-cfg-02"}


def test_a_start_that_fails_leaves_nothing(place, operator):
    start(place, operator)
    before = Run.objects.count()
    with pytest.raises(OutOfTurn):
        start_run(**wishes(place, operator))
    assert Run.objects.count() == before


def worlds():
    from upgrades.adapters import simulator_client

    return simulator_client.worlds()


def test_a_rehearsal_starts_on_a_copy_and_leaves_the_servers_themselves_free(place, operator, simulator):
    done = start_run(**wishes(place, operator, rehearsal=True))
    run = Run.objects.select_related("environment").get(pk=done.run)
    assert (run.rehearsal, run.environment.rehearsal_of, run.environment.world) == (True, place, *worlds())
    assert start_run(**wishes(place, operator)).run != done.run


@pytest.mark.django_db(transaction=True)
def test_a_rehearsal_sent_five_times_at_once_makes_one_copy(place, operator, simulator):
    wish = wishes(place, operator, rehearsal=True)
    answers = at_once(*[partial(start_run, **wish)] * 5)
    assert all(isinstance(answer, Done) for answer in answers), answers
    assert {(done.run, done.seq) for done in answers} == {(answers[0].run, answers[0].seq)}
    assert place.copies.count() == len(worlds()) == Run.objects.count() == 1


NEEDS = """    needs:
      - id: approval
        kind: approval
        title: The window is approved
        source: CSH-7
        policy: point-of-no-return
"""


def test_a_first_step_that_needs_an_approval_waits_for_it(tmp_path):
    shipped = Path("upgrades/procedures")
    shutil.copytree(shipped, tmp_path / "procedures")
    text = (shipped / "config-server-ha/1.yaml").read_text().replace("\nversion: 1\n", "\nversion: 77\n")
    gates = "    gates:\n      - id: packages-delivered\n"
    own = tmp_path / "procedures/config-server-ha/77.yaml"
    own.write_text(text.replace(gates, NEEDS + gates, 1))
    publish("config-server-ha")
    publish_text(own)
    night = Night()
    assert night.row.procedure.version == 77
    assert night.state.steps["prerequisites"].status == "current"
    with pytest.raises(GateClosed, match="The window is approved"):
        night.act(core.Begin(step="prerequisites", visit=1))
