"""What each course of an upgrade leaves in the logs of the right servers."""

import pytest

from simulator.model import manner_of_start
from simulator.scenarios import SCENARIOS
from tests.simulator.conftest import UPGRADE

COURSES = [
    name
    for name, scenario in SCENARIOS.items()
    if "start-former" in scenario.steps and not scenario.misbehaviours
]


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_launch_of_each_scenario_logs_the_events_that_it_announces(stage, name):
    play = stage(name)
    play.play_until("launch-new")
    assert tuple(play.launch()) == SCENARIOS[name].events
    assert play.numbers("confserv") == []


@pytest.mark.parametrize("name", ["automatic", "database-upgraded"])
def test_orders_to_become_backup_are_refused_between_25301_and_the_end_of_initialization(stage, name):
    play = stage(name)
    play.play_until("launch-new")
    numbers = play.numbers("confserv_b")
    end = numbers.index(SCENARIOS[name].events[-1])
    assert numbers[:end].count(25302) >= 2
    assert numbers.index(25301) < numbers.index(25302) < numbers.index(22902) < end
    assert "from 'primary' to 'backup'" in play.log("scs")


def test_forced_upgrade_mode_logs_25300_after_the_first_start_found_nothing(stage):
    play = stage("forced")
    play.play_until("launch-new")
    assert play.server("confserv_b").mode == "initializing"
    play.play("force-upgrade-mode", "launch-new")
    assert play.launch() == [22911, 22902, 22911, 25300, 22902, 22170]
    assert play.server("confserv_b").mode == "upgrade-mode"


@pytest.mark.parametrize("name", COURSES)
def test_a_whole_course_ends_with_two_upgraded_servers_and_all_clients_on_the_first(stage, name):
    play = stage(name)
    play.play_until("start-former")
    old, new = play.server("confserv"), play.server("confserv_b")
    assert (old.mode, new.mode) == ("primary", "backup")
    assert {old.current.version, new.current.version} == {"8.5.101"}
    assert (len(old.clients), len(new.clients)) == (84, 0)
    assert play.numbers("confserv")[-1] == play.numbers("confserv_b")[-1] == 22172
    assert play.world.trouble == {"confserv|confserv_b": "normal"}


def totals(play, name):
    return [
        int(line.rpartition(" ")[2])
        for line in play.log(name).splitlines()
        if "Total number of clients" in line
    ]


def test_clients_leave_the_old_server_and_arrive_at_the_new_one_in_the_same_number(stage):
    play = stage()
    play.play_until("launch-new")
    before = totals(play, "confserv")[-1]
    play.play("stop-old")
    falling, rising = totals(play, "confserv")[1:], totals(play, "confserv_b")
    assert falling == sorted(falling, reverse=True)
    assert rising == sorted(rising)
    assert (falling[-1], rising[-1]) == (0, before)
    assert play.numbers("confserv_b", {24300}) == [24300] * before
    assert play.numbers("confserv_b", {4522}) == [4522] * before


def test_clients_read_the_configuration_anew_only_from_a_server_in_upgrade_mode(stage):
    play = stage()
    play.play_until("start-former")
    assert len(play.numbers("confserv_b", {24215})) == 84  # CSH-7n
    assert play.numbers("confserv", {24215}) == []  # CSH-10: sessions are restored


def test_both_servers_are_read_only_while_they_share_the_database_in_upgrade_mode(stage):
    play = stage()
    play.play("install-new", "replace-folder", "launch-new")
    assert [server["read-only"] for server in play.world.view()["servers"][:2]] == [["upgrade mode"]] * 2
    play.play("stop-old")
    assert play.world.view()["servers"][1]["read-only"] == []


def test_an_upgraded_database_leaves_the_old_server_writable(stage):
    play = stage("database-upgraded")
    play.play("install-new", "point-to-new-database", "replace-folder", "launch-new")
    assert [server["read-only"] for server in play.world.view()["servers"][:2]] == [[], []]


def test_the_remaining_server_must_be_pointed_to_the_upgraded_database_too(stage):
    play = stage("database-upgraded")
    play.play_until("stop-old")
    for action in ("install", "replace-folder", "start"):
        play.world.act({"action": action, "server": "confserv"})
        play.wait()
    assert play.server("confserv").mode == "initializing"
    assert 22172 not in play.numbers("confserv")  # CSH-8b


def test_scs_says_that_a_pair_has_two_primaries_and_when_it_is_normal_again(stage):
    play = stage()
    play.play_until("stop-old")
    assert play.numbers("scs", {20621, 20622, 20623}) == [20622, 20623]


def test_without_scs_nobody_orders_and_nobody_promotes(stage):
    play = stage()
    play.world.act({"action": "stop", "server": "scs"})
    play.wait()
    play.play_until("launch-new")
    assert 25302 not in play.numbers("confserv_b")
    play.play("stop-old", "install-remaining", "start-remaining", "stop-upgrade-mode")
    assert play.server("confserv").mode == "backup"
    play.world.act({"action": "start", "server": "scs"})
    play.wait()
    assert play.server("confserv").mode == "primary"
    assert len(play.server("confserv").clients) == 84


def test_a_lost_lca_makes_scs_switch_over_after_its_timeout(stage):
    play = stage()
    play.world.act(
        {
            "action": "set-option",
            "server": "scs",
            "section": "general",
            "option": "disconnect-switchover-timeout",
            "value": "600",
        }
    )
    play.world.act({"action": "stop", "server": "lca_fra-cfg-01"})
    play.wait(599)
    assert play.server("confserv").mode == "primary"
    play.wait(60)
    assert (play.server("confserv").mode, play.server("confserv_b").mode) == ("backup", "primary")


def test_an_lca_that_comes_back_in_time_changes_nothing(stage):
    play = stage()
    play.world.act({"action": "stop", "server": "lca_fra-cfg-01"})
    play.wait(5)
    play.world.act({"action": "start", "server": "lca_fra-cfg-01"})
    play.wait(600)
    assert play.server("confserv").mode == "primary"


def test_a_refused_order_is_repeated_ever_more_rarely(stage):
    play = stage()
    play.play_until("launch-new")
    play.wait(24 * 3600)
    assert play.numbers("confserv_b").count(25302) < 50


def test_an_idle_world_has_nothing_to_do_until_the_next_check_point(stage):
    play = stage()
    play.play_until("start-former")
    began = play.clock.now - 60 * len(play.world.scenario.steps)
    assert [(at, name) for at, _, name, _ in play.world.due] == [(began + 3600, "check-point")]


def test_speed_divides_the_waiting(stage):
    play = stage(speed=100)
    play.play("install-new", "replace-folder")
    play.world.act({"action": "start", "server": "confserv_b"})
    play.wait(0.1)
    assert play.launch() == [22911, 25301, 22902, 22170]


def test_the_same_seed_gives_the_same_log(tmp_path):
    from simulator.spec import frankfurt
    from tests.simulator.conftest import Stage

    logs = []
    for name in ("one", "two"):
        play = Stage(tmp_path / name, frankfurt())
        play.play_until("start-former")
        logs.append(play.log("confserv_b").replace(str(tmp_path / name), ""))
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("mine", "theirs", "behaviour", "manner"),
    [
        pytest.param("8.5.101", "8.1.3", "detect", "detected", id="CSH-6a"),
        pytest.param("8.5.101", "8.1.3", "not-detected", "not-detected", id="CSH-6b"),
        pytest.param(
            "8.5.101", "8.5.000", "not-detected", "compatible", id="not-detected is about older than 8.5"
        ),
        pytest.param("8.5.101", "8.5.100", "detect", "compatible", id="CSH-6c"),
        pytest.param("8.5.101", "8.1.3", "compatible", "compatible", id="the scenario says so"),
        pytest.param("8.5.101", "8.1.3", "same-schema", "same-schema", id="CSM-4e"),
        pytest.param("8.1.3", "8.5.101", "detect", "peer-newer", id="an old one beside an upgraded one"),
    ],
)
def test_how_a_server_comes_up_depends_on_its_peer(stage, mine, theirs, behaviour, manner):
    play = stage()
    play.server("confserv_b").current.version = mine
    play.server("confserv").current.version = theirs
    found = manner_of_start(play.server("confserv_b"), play.server("confserv"), behaviour, undetected=False)
    assert found == manner


def test_a_standalone_server_starts_as_primary_without_upgrade_events(tmp_path):
    from tests.simulator.conftest import Stage

    only = {"name": "confserv", "type": "ConfigurationServer", "host": "one"}
    play = Stage(tmp_path, {"name": "alone", "hosts": ["one"], "servers": [only], "clients": 5})
    for action in ("install", "stop", "replace-folder", "start"):
        play.world.act({"action": action, "server": "confserv"})
    play.wait()
    assert (play.server("confserv").mode, len(play.server("confserv").clients)) == ("primary", 5)
    assert play.numbers("confserv", UPGRADE) == []
