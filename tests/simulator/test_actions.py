"""What a person can do, what it does to folders and processes, and what is refused."""

import configparser
import os

import pytest

from simulator.model import Refused
from simulator.script import STEPS, actions_for
from simulator.spec import BadSpec, complete, frankfurt
from simulator.world import World


def act(play, action, server="confserv_b", **more):
    return play.world.act({"action": action, "server": server, **more})


def conf(play, key, server="confserv_b"):
    parser = configparser.ConfigParser()
    parser.read(play.world.disk.folder(play.server(server), key) / "confserv.conf")
    return parser


def test_an_installation_stands_beside_the_running_server_and_is_not_started(stage):
    play = stage()
    said = act(play, "install", version="8.5.101.45")
    assert "8.5.101.45" in said
    assert play.server("confserv_b").current.version == "8.1.3"
    assert conf(play, "prepared").sections() == ["confserv_b", "dbserver", "log"]


def test_replacing_keeps_the_old_folder_under_a_name_with_its_version(stage):
    play = stage()
    act(play, "install")
    act(play, "stop")
    act(play, "replace-folder")
    kept = play.world.disk.folder(play.server("confserv_b"), "kept")
    assert kept.name == "confserv_b_8.1.3"
    assert "8.1.3" in (kept / "confserv").read_text()
    assert not play.world.disk.folder(play.server("confserv_b"), "prepared").exists()
    act(play, "restore-folder")
    assert play.server("confserv_b").current.version == "8.1.3"
    assert not kept.exists()


def test_the_pid_file_is_there_exactly_while_the_server_runs(stage):
    play = stage()
    path = play.world.disk.pid_file(play.server("confserv_b"))
    assert int(path.read_text()) == os.getpid()
    act(play, "stop")
    assert not path.exists()
    act(play, "start")
    assert path.exists()
    act(play, "crash")
    assert not path.exists()


def test_upgrade_mode_and_database_stand_in_the_configuration_file(stage):
    play = stage()
    act(play, "set-upgrade-mode", on=True)
    act(play, "point-to-database", which="upgraded")
    assert conf(play, "current")["confserv_b"]["upgrade-mode"] == "1"
    assert conf(play, "current")["dbserver"]["dbname"] == "configuration_upgraded"
    act(play, "set-upgrade-mode", on=False)
    assert "upgrade-mode" not in conf(play, "current")["confserv_b"]


def test_an_option_is_set_and_deleted(stage):
    play = stage()
    option = {"section": "general", "option": "disconnect-switchover-timeout"}
    act(play, "set-option", "scs", value="600", **option)
    path = play.world.disk.folder(play.server("scs"), "current") / "scs.conf"
    assert "disconnect-switchover-timeout = 600" in path.read_text()
    act(play, "set-option", "scs", **option)
    assert "disconnect" not in path.read_text()


def test_a_folder_of_a_server_that_is_still_ending_is_replaced_afterwards(stage):
    play = stage()
    act(play, "install", "confserv")
    act(play, "stop", "confserv")
    assert "still ending" in act(play, "replace-folder", "confserv")
    play.wait()
    assert play.server("confserv").current.version == "8.5.101"


def test_a_change_through_the_primary_is_a_standard_event(stage):
    play = stage()
    act(play, "change-object", "confserv")
    assert play.numbers("confserv", {24201}) == [24201]


def test_a_crashed_primary_is_followed_by_its_backup_and_its_clients(stage):
    play = stage()
    act(play, "crash", "confserv")
    play.wait()
    assert play.server("confserv_b").mode == "primary"
    assert len(play.server("confserv_b").clients) == 84
    assert "CREATE ActiveAlarm" in play.log("scs")


def test_an_scs_pair_switches_over_by_itself(tmp_path):
    from tests.simulator.conftest import Stage

    pair = [
        {"name": "scs_a", "type": "SCS", "host": "h1", "peer": "scs_b"},
        {"name": "scs_b", "type": "SCS", "host": "h2", "peer": "scs_a", "role": "backup"},
    ]
    play = Stage(tmp_path, {"name": "two", "hosts": ["h1", "h2"], "servers": pair})
    act(play, "stop", "scs_a")
    play.wait()
    assert "SelfServer: Internal Change RUNMODE from 'backup' to 'primary'" in play.log("scs_b")
    act(play, "start", "scs_a")
    play.wait()
    assert play.server("scs_a").mode == "backup"


def test_reset_brings_the_first_state_back(stage):
    play = stage()
    play.play_until("stop-old")
    play.world.act({"action": "reset"})
    assert [server.mode for server in play.world.servers.values()][:2] == ["primary", "backup"]
    assert len(play.files("confserv_b")) == 1


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("stop", "an object"),
        ({"action": "dance"}, "Nobody knows"),
        ({"action": "stop"}, "There are: confserv, confserv_b"),
        ({"action": "stop", "server": ["confserv"]}, "There is no server"),
        ({"action": "stop", "server": "confserv", "now": True}, "knows no parameter now"),
        ({"action": "start", "server": "confserv"}, "runs already"),
        ({"action": "replace-folder", "server": "confserv"}, "still runs"),
        ({"action": "install", "server": "confserv", "version": "../8"}, "not a version"),
        ({"action": "restore-folder", "server": "confserv"}, "still runs"),
        ({"action": "point-to-database", "server": "confserv", "which": "third"}, "no database"),
        ({"action": "point-to-database", "server": "confserv", "folder": "kept"}, "no folder 'kept'"),
        ({"action": "point-to-database", "server": "confserv", "folder": []}, "no folder|is current"),
        ({"action": "set-option", "server": "scs"}, "Name the section"),
        ({"action": "set-option", "server": "scs", "section": "a\n", "option": "b"}, "plain texts"),
        ({"action": "change-object", "server": "confserv_b"}, "only a primary"),
    ],
)
def test_an_action_that_is_not_possible_is_refused_with_the_reason(stage, action, words):
    with pytest.raises(Refused, match=words):
        stage().world.act(action)


def test_replacing_without_a_prepared_folder_is_refused(stage):
    play = stage()
    act(play, "stop")
    with pytest.raises(Refused, match="Install the new version first"):
        act(play, "replace-folder")


def test_a_kept_world_goes_on_where_it_stood(stage):
    play = stage()
    play.play("install-new", "replace-folder")
    act(play, "start")
    play.wait(2)
    play.world.save()
    assert play.numbers("confserv_b") == [22911, 25301, 25302]
    play.clock.now += 5000  # nobody was there to see this time pass
    play.world = World.load(play.world.root, play.clock)
    assert play.world.advance() == 0
    play.wait()
    assert play.launch() == [22911, 25301, 22902, 22170]
    assert play.world.state()["servers"]["confserv_b"]["mode"] == "upgrade-mode"


ROLES = {"new": "B", "old": "A"}


def test_the_person_installs_what_the_parameters_say():
    assert actions_for("install-new", ROLES, {"target": "8.5.9"}) == [
        {"action": "install", "server": "B", "version": "8.5.9"}
    ]
    assert actions_for("install-remaining", ROLES, {"database-upgraded": True}) == [
        {"action": "install", "server": "A"},
        {"action": "point-to-database", "server": "A", "which": "upgraded", "folder": "prepared"},
        {"action": "replace-folder", "server": "A"},
    ]


def test_the_person_does_nothing_for_a_step_without_an_act():
    assert actions_for("sign", ROLES, {}) == []


@pytest.mark.parametrize("step", STEPS)
def test_every_action_of_the_person_is_known(step):
    from simulator.actions import ACTIONS

    roles = dict.fromkeys(("new", "old", "server", "first", "second", "each", "beside", "peer"), "A")
    answers = {"target": "8.5.9", "database-upgraded": True, "disconnect-switchover-timeout": "600"}
    for action in actions_for(step, roles, answers):
        assert set(action) - {"action"} <= set(ACTIONS[action["action"]][1])


def test_every_host_gets_an_lca_and_every_server_its_defaults():
    spec = complete(frankfurt())
    assert [server["name"] for server in spec["servers"] if server["type"] == "LCA"] == [
        "lca_fra-cfg-01",
        "lca_fra-cfg-02",
        "lca_fra-scs-01",
    ]
    assert [server["clients"] for server in spec["servers"]][:2] == [84, 0]


def test_all_mistakes_of_a_specification_are_named_at_once():
    bad = {
        "name": "../etc",
        "hosts": ["..", "a"],
        "servers": [{"name": "x", "type": 5, "host": "a"}, 7],
        "scenario": [],
        "speed": True,
        "colour": "red",
    }
    with pytest.raises(BadSpec) as refusal:
        complete(bad)
    text = str(refusal.value)
    for word in ("name:", "hosts:", "Server 1: type", "Server 2", "scenario:", "speed:", "'colour'"):
        assert word in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peer": "nobody"}, "its peer 'nobody' is not there"),
        ({"host": "mars"}, "is not in hosts"),
        ({"role": "primary"}, "one primary"),
        ({"name": "conf serv_b"}, "its peer 'confserv_b' is not there"),
    ],
)
def test_a_pair_that_does_not_fit_is_refused(change, words):
    spec = frankfurt()
    spec["servers"][1] |= change
    with pytest.raises(BadSpec, match=words):
        complete(spec)


def test_two_names_that_share_a_folder_are_refused():
    spec = frankfurt()
    spec["servers"] += [
        {"name": "a b", "type": "SCS", "host": "fra-scs-01"},
        {"name": "a_b", "type": "SCS", "host": "fra-scs-01"},
    ]
    with pytest.raises(BadSpec, match="share the name"):
        complete(spec)
