"""The compose file: valid, closed, and its commands carry a run through on real servers and leave in order."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.operation.compose_file import ROOT, STORES, TEXT, VARIABLE, Machine, services

HERE = Path(__file__).parent
VALUES = {
    "SECRET_KEY": "".join(f"{number:02x}" for number in range(7, 255, 5)),
    "RUNBOOK_HOSTS": "runbook.example.org",
    "POSTGRES_PASSWORD": "p0stgres",
    "APP_DATABASE_PASSWORD": "appl1cation",
    "REDIS_PASSWORD": "red1s",
}
OURS = [name for name, service in services().items() if "build" in service]


def test_the_file_is_valid_by_the_compose_specification():
    schema = json.loads((HERE / "compose" / "compose-spec.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(yaml.safe_load(TEXT))] == []


def test_no_name_stands_twice_in_one_place():
    def twice(node):
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            yield from {key for key in keys if keys.count(key) > 1}
            for _, value in node.value:
                yield from twice(value)

    assert list(twice(yaml.compose(TEXT))) == []


def test_every_value_of_the_example_reaches_the_services_and_no_other_is_asked_for():
    explained = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    made_by_compose = set(services()["checkpoints"]["environment"]) - set(asked_for())
    of_make_demo = {"RUNBOOK_SIMULATOR_PORT", "RUNBOOK_REDIS_PORT"}
    of_the_image = {"STATIC_FOLDER"}
    of_several_web_servers_on_one_machine = {"RUNBOOK_METRICS_FOLDER"}
    left_out = made_by_compose | of_make_demo | of_the_image | of_several_web_servers_on_one_machine
    assert asked_for() == explained - left_out


def asked_for():
    return {name for name, _, _ in VARIABLE.findall(TEXT)}


@pytest.mark.parametrize(
    "name", ["SECRET_KEY", "RUNBOOK_HOSTS", "POSTGRES_PASSWORD", "APP_DATABASE_PASSWORD", "REDIS_PASSWORD"]
)
def test_a_missing_value_stops_compose_with_a_sentence(name):
    with pytest.raises(KeyError, match=f"{name}: set it in .env, see .env.example"):
        services({**VALUES, name: ""})


def test_every_container_is_without_rights_and_cannot_write_to_its_own_files():
    for name, service in services().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert name == "postgres" or service["user"] in ("10001:10001", "redis"), name
        assert not service.get("privileged"), name


def test_what_goes_on_has_a_health_check_and_a_time_to_leave():
    for name, service in services().items():
        if service["restart"] == "unless-stopped":
            assert service["healthcheck"]["test"], name
            assert service["stop_grace_period"], name


def test_only_migrations_and_restores_have_the_owner_s_password_and_only_the_signer_the_key():
    found = services(VALUES)
    owners = {name for name in OURS if VALUES["POSTGRES_PASSWORD"] in json.dumps(found[name])}
    keepers = {
        name
        for name, service in found.items()
        if any(":/keys" in volume for volume in service.get("volumes", []))
    }
    assert (owners, keepers) == ({"migrate", "restore"}, {"checkpoints"})


def test_nothing_is_published_beyond_this_machine():
    published = [port for service in services(VALUES).values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_redis_is_started_as_preflight_wants_it():
    command = services()["redis"]["command"][-1]
    for option in (
        "--appendonly yes",
        "--appendfsync everysec",
        "--maxmemory-policy noeviction",
        "--requirepass",
    ):
        assert option in command


def test_the_image_is_built_in_two_stages_from_hashed_packages_and_runs_without_root():
    text = (ROOT / "Dockerfile").read_text()
    assert len(re.findall(r"^FROM ", text, re.MULTILINE)) == 2
    assert "--require-hashes --only-binary :all:" in text
    assert re.findall(r"^USER (\w+)$", text, re.MULTILINE)[-1] == "runbook"
    assert "--uid 10001" in text, "the user of the compose file"


# Started for real.


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compose")
    folder.chmod(0o711)  # PostgreSQL may run under another account and must pass
    machine = Machine(folder, VALUES)
    try:
        yield machine
    finally:
        machine.end()


@pytest.mark.processes
def test_the_services_start_in_their_order_become_healthy_and_leave_in_order(machine):
    wanted = ["web", "worker", "beat", "checkpoints"]
    machine.up(*wanted)
    assert list(machine.running) == wanted
    assert machine.completed == {"migrate", "preflight"}
    assert "Fit for service." in machine.said("preflight")
    for name in (*STORES, *wanted):
        machine.until_healthy(name)
    assert machine.down() == dict.fromkeys(reversed(wanted), 0), {name: machine.said(name) for name in wanted}


@pytest.mark.processes
def test_the_demo_carries_a_run_through_and_all_of_it_comes_back_from_a_backup(machine):
    machine.up("demo")
    assert "Sign in as operator" in machine.said("demo")
    rehearse = [
        "python",
        "manage.py",
        "rehearse",
        "config-server-ha",
        "--scenario",
        "automatic",
        "--speed",
        "40",
    ]
    said = machine.run("rehearsal", rehearse, machine.environment("demo-worker"))
    assert "config-server-ha, automatic: ended as it must" in said
    machine.up("backup")
    assert machine.down() == {"demo-beat": 0, "demo-worker": 0, "demo-simulator": 0, "demo-web": 0}
    machine.lose_everything()
    [backup] = (machine.folder / "backups").iterdir()
    restore = machine.command("restore")[: len(machine.services["restore"]["entrypoint"])]
    said = machine.run("restore", [*restore, str(backup)], machine.environment("restore"))
    assert "every record is what was written" in said
    with pytest.raises(AssertionError, match="can sign in with the demo's password"):
        machine.up("web")  # preflight keeps the demo's people out of service
    machine.up("demo-web")
    machine.until_healthy("demo-web")
    assert machine.down() == {"demo-web": 0}
