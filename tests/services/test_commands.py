"""publish_procedures, seed_demo, rebuild and verify."""

import json
import shutil
from io import StringIO

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection

from tests.factories import frankfurt, make_environment, make_user, start
from upgrades.adapters import simulator_client
from upgrades.models import Agent, Environment, Membership, ProcedureVersion, RunBurden, RunRequest, RunStep
from upgrades.models import Run as RunRow
from upgrades.services.procedures import FOLDER

pytestmark = pytest.mark.django_db


def say(command, *arguments, **options):
    out = StringIO()
    call_command(command, *arguments, stdout=out, stderr=out, **options)
    return out.getvalue()


@pytest.fixture
def texts(tmp_path):
    shutil.copytree(FOLDER / "config-server-ha", tmp_path / "config-server-ha")
    return tmp_path


def test_publishing_twice_publishes_once(texts):
    assert say("publish_procedures", folder=texts) == "config-server-ha 1: published\n"
    assert say("publish_procedures", folder=texts) == "config-server-ha 1: is published\n"
    assert ProcedureVersion.objects.get().text == (texts / "config-server-ha/1.yaml").read_text()


@pytest.mark.bad_input("Y19")
def test_a_changed_text_under_a_published_number_is_refused_with_a_way_out(texts):
    say("publish_procedures", folder=texts)
    before = ProcedureVersion.objects.get().text
    file = texts / "config-server-ha/1.yaml"
    file.write_text(file.read_text() + "\n# one more line\n")

    with pytest.raises(
        CommandError, match=r"has changed since .* publish the change as config-server-ha/2.yaml"
    ):
        say("publish_procedures", folder=texts)
    assert ProcedureVersion.objects.get().text == before


def test_a_text_with_mistakes_publishes_nothing(texts):
    (texts / "zz-broken").mkdir()
    (texts / "zz-broken/1.yaml").write_text("procedure: zz-broken\n")

    with pytest.raises(CommandError, match=r"zz-broken/1\.yaml"):
        say("publish_procedures", folder=texts)
    assert not ProcedureVersion.objects.exists()


def test_a_text_in_the_wrong_place_is_refused(texts):
    shutil.move(texts / "config-server-ha/1.yaml", texts / "config-server-ha/2.yaml")

    with pytest.raises(CommandError, match="says of itself that it is config-server-ha, version 1"):
        say("publish_procedures", folder=texts)


# The demo.


@pytest.fixture
def simulator(monkeypatch):
    """A simulator that has the demo's world once somebody has made it."""
    made = []

    def create_world(spec):
        made.append(f"frankfurt-{len(made)}")
        world = frankfurt(made[-1])
        for agent in world["agents"]:
            agent["key"] = {"id": f"k{len(made)}", "secret": "1" * 64}
        return world

    monkeypatch.setattr(simulator_client, "create_world", create_world)
    monkeypatch.setattr(simulator_client, "worlds", lambda: frozenset(made))
    return made


def counts():
    models = (Environment, Membership, Agent, get_user_model())
    return [model.objects.count() for model in models] + [
        list(Environment.objects.values_list("world", "version", "policies"))
    ]


def test_seeding_twice_changes_nothing(simulator):
    first = say("seed_demo")
    before = counts()

    assert say("seed_demo") == first
    assert counts() == before
    assert simulator == ["frankfurt-0"]


def test_the_demo_tells_how_to_sign_in_and_the_password_is_right(simulator, client):
    text = say("seed_demo")
    password = text.split("the password of each is ")[1].split()[0]

    assert len(password) >= 15
    for name in ("operator", "approver", "auditor", "author", "administrator"):
        assert name in text
        assert client.login(username=name, password=password)


def test_the_demos_pair_stands_as_in_the_world(simulator):
    say("seed_demo")
    environment = Environment.objects.get()
    new = environment.applications.get(name="confserv_b")

    assert (new.standing, new.peer.name, new.peer.peer.name) == ("backup", "confserv", "confserv_b")
    assert dict(environment.targets.values_list("component", "version"))["ConfigurationServer"] == "8.5.101"
    assert set(environment.hosts.values_list("lca_version", flat=True)) == {"8.5.100"}
    assert not environment.applications.filter(type="LCA").exists()


def test_a_simulator_that_was_begun_anew_gets_its_world_again(simulator):
    say("seed_demo")
    simulator.clear()
    simulator += ["another"]

    say("seed_demo")

    assert Environment.objects.get().world == "frankfurt-1"
    assert set(Agent.objects.values_list("key_id", flat=True)) == {"k2"}


def test_without_a_simulator_the_demo_says_what_is_missing(settings):
    settings.SIMULATOR_URL = None

    with pytest.raises(CommandError, match="SIMULATOR_URL"):
        say("seed_demo")


# The record.


@pytest.fixture
def run():
    environment = make_environment()
    return start(environment, make_user("operator", environment=environment))


def rows():
    """What pages query, without the numbers that only count rewrites."""
    dump = {}
    for model in (RunRow, RunStep, RunBurden, RunRequest):
        left_out = {"version"} | (set() if model is RunRow else {"id"})
        names = [field.attname for field in model._meta.fields if field.attname not in left_out]
        dump[model.__name__] = sorted(map(str, model.objects.values_list(*names)))
    return json.dumps(dump)


def test_a_rebuild_gives_the_same_rows_again(run):
    before = rows()
    RunStep.objects.all().delete()
    RunRow.objects.update(title="something else", status="ended", steps_done=99, waits_for_worker=False)
    assert rows() != before

    text = say("rebuild")

    assert rows() == before
    assert f"run {run} rebuilt (1 of 1)" in text


def test_an_untouched_record_is_found_sound(run):
    assert say("verify") == "1 runs checked: every record is what was written.\n"
    assert say("verify", str(run)).startswith("1 runs checked")


def tamper(sql):
    """As somebody who owns the table could do it."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # or the table cannot be altered in this transaction
        cursor.execute("ALTER TABLE upgrades_runevent DISABLE TRIGGER record_is_append_only")
        cursor.execute(sql)
        cursor.execute("ALTER TABLE upgrades_runevent ENABLE TRIGGER record_is_append_only")


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        pytest.param(
            "UPDATE upgrades_runevent SET text = replace(text, 'CHG0042317', 'CHG0042318') WHERE seq = 1",
            "broken at event 1: its text is not the one that was hashed",
            id="a changed byte",
        ),
        pytest.param(
            "DELETE FROM upgrades_runevent WHERE seq = 2", "broken at event 2: event 2 is missing", id="a gap"
        ),
        pytest.param(
            "DELETE FROM upgrades_runevent WHERE seq >= 3", "broken at event 3: events 3 to", id="a cut end"
        ),
    ],
)
def test_verify_names_the_first_broken_event_and_fails(run, sql, words):
    tamper(sql)
    out = StringIO()

    with pytest.raises(CommandError, match="is not what was written") as failure:
        call_command("verify", stdout=out, stderr=out)
    assert f"run {run}: {words}" in out.getvalue()
    assert failure.value.returncode == 1


@pytest.mark.parametrize("command", ["verify", "rebuild"])
def test_a_run_that_is_not_there_is_named(command):
    with pytest.raises(CommandError, match="There is no run 4711"):
        say(command, "4711")


def test_no_runs_are_no_trouble():
    assert say("verify") == "0 runs checked: every record is what was written.\n"
    assert say("rebuild") == "There are no runs yet.\n"
