"""Each misbehaviour, and what is left of it in logs and state."""

import pytest

from simulator.misbehaviours import MISBEHAVIOURS
from simulator.model import Refused

BEFORE = ("install-new", "replace-folder")


def wrong(play, what, server="confserv_b", **more):
    return play.world.misbehave({"what": what, "server": server, **more})


def test_no_25301_leaves_the_server_initializing_until_it_is_stopped(stage):
    play = stage()
    wrong(play, "no-25301")
    play.play(*BEFORE, "launch-new")
    assert play.numbers("confserv_b") == [22911, 22902]
    play.wait(3600)
    assert play.numbers("confserv_b") == [22911, 22902]


@pytest.mark.parametrize(("scenario", "event"), [("automatic", 22171), ("database-upgraded", 22170)])
def test_wrong_database_ends_in_the_event_that_the_plan_does_not_expect(stage, scenario, event):
    play = stage(scenario)
    wrong(play, "wrong-database")
    play.play_until("launch-new")
    assert play.launch()[-1] == event


def test_wrong_database_is_mended_by_pointing_to_the_right_one_after_a_wrong_start(stage):
    play = stage("wrong-database")
    play.play_until("launch-new")
    play.world.act({"action": "stop", "server": "confserv_b"})
    play.world.act({"action": "point-to-database", "server": "confserv_b", "which": "old"})
    play.world.act({"action": "start", "server": "confserv_b"})
    play.wait()
    assert play.launch()[-1] == 22170


def test_slow_lca_delays_the_promotion(stage):
    play = stage()
    wrong(play, "slow-lca", value=30)
    play.world.act({"action": "stop", "server": "confserv"})
    play.wait(20)
    assert (play.server("confserv").mode, play.server("confserv_b").mode) == ("down", "backup")
    play.wait(20)
    assert play.server("confserv_b").mode == "primary"


def test_a_crash_while_initializing_happens_as_often_as_asked(stage):
    play = stage()
    wrong(play, "crash-while-initializing")
    play.play(*BEFORE, "launch-new")
    assert not play.world.disk.pid_file(play.server("confserv_b")).exists()
    assert play.launch() == [22911, 25301]
    play.play("launch-new")
    assert play.launch()[-1] == 22170


def test_split_brain_makes_the_backup_primary_and_is_healed(stage):
    play = stage()
    wrong(play, "split-brain")
    assert play.server("confserv_b").mode == play.server("confserv").mode == "primary"
    wrong(play, "split-brain", value=False)
    assert play.server("confserv_b").mode == "backup"
    assert play.numbers("scs", {10329, 10330, 20622, 20623}) == [10329, 20622, 10330, 20623]


def test_the_split_brain_scenario_strikes_when_the_remaining_server_has_become_backup(stage):
    play = stage("split-brain")
    play.play_until("start-remaining")
    assert play.server("confserv").mode == "primary"
    assert play.server("confserv_b").mode == "upgrade-mode"
    assert play.numbers("scs", {10329}) == [10329]


def test_rotation_in_mid_launch_begins_a_segment_with_its_own_header(stage):
    play = stage("rotation")
    play.play_until("launch-new")
    first, second, third = (path.read_text() for path in play.files("confserv_b"))
    assert "File:             (1)" in first
    assert "25301" in second
    assert "22170" not in second
    assert third.startswith("Local time:")
    assert "File:             (2)" in third
    assert "22170" in third


def test_truncation_empties_the_file_and_the_server_writes_on(stage):
    play = stage()
    size = play.files("confserv")[0].stat().st_size
    wrong(play, "truncate-log", "confserv")
    text = play.log("confserv")
    assert len(text) < size
    assert text.startswith("12:00:00.000 Trc 04120 Check point 2025-11-25T12:00:00")


def test_a_shrunk_log_keeps_its_first_line(stage):
    play = stage()
    before = play.log("confserv")
    wrong(play, "shrink-log", "confserv")
    after = play.log("confserv")
    assert len(after) < len(before)
    assert before.startswith(after)


def test_clock_skew_moves_the_times_of_one_host_only(stage):
    play = stage()
    wrong(play, "clock-skew", value=-420)
    play.play("read-only")
    assert "11:53:00.000 (simulated text) read-only mode is on" in play.log("confserv_b")
    assert "12:00:00.000 (simulated text) read-only mode is on" in play.log("confserv")


def test_an_unknown_format_stands_in_the_middle_of_the_launch(stage):
    play = stage("unknown-format")
    play.play_until("launch-new")
    text = play.log("confserv_b")
    assert text.index("25301") < text.index("<14>1 simulated;") < text.index("22170")


def test_a_slow_start_takes_as_many_times_as_long(stage):
    play = stage()
    wrong(play, "slow-start", value=20)
    play.play(*BEFORE, "launch-new")
    assert 22170 not in play.launch()
    play.wait(100)
    assert play.launch()[-1] == 22170


def test_a_silent_server_works_and_writes_nothing(stage):
    play = stage("silent")
    before = play.log("confserv_b")
    play.play_until("launch-new")
    assert play.server("confserv_b").mode == "upgrade-mode"
    assert play.log("confserv_b") == before
    wrong(play, "silent", value=False)
    play.world.act({"action": "set-read-only", "on": False})


def test_a_wrong_section_stands_in_the_prepared_configuration_file(stage):
    play = stage()
    wrong(play, "wrong-section")
    play.play("install-new")
    folder = play.world.disk.folder(play.server("confserv_b"), "prepared")
    assert "[confserv_b_new]" in (folder / "confserv.conf").read_text()
    assert "-s confserv_b\n" in (folder / "run.sh").read_text()


def test_agents_can_be_wished_down_by_host_and_up_again(stage):
    play = stage()
    play.world.misbehave({"what": "agent-down", "host": "fra-cfg-01"})
    assert play.world.agents_down == ["fra-cfg-01"]
    play.world.misbehave({"what": "agent-down", "value": False})
    assert play.world.agents_down == []


def test_a_burst_is_so_many_lines_at_once_and_one_in_a_hundred_is_an_event(stage):
    play = stage()
    play.play(*BEFORE, "launch-new")
    before = play.log("confserv_b")
    wrong(play, "log-burst", value=250)
    burst = play.log("confserv_b").removeprefix(before).splitlines()
    assert len(burst) == 250
    assert sum("Trc 04541 Message" in line for line in burst) == 3


@pytest.mark.parametrize("what", MISBEHAVIOURS)
def test_each_can_be_begun_and_ended_for_the_whole_world(stage, what):
    play = stage()
    play.world.misbehave({"what": what})
    play.wait()
    play.world.misbehave({"what": what, "value": False})
    assert all(not server.misbehaviours for server in play.world.servers.values())


@pytest.mark.parametrize(
    "wish",
    [
        "silent",
        {"what": "nonsense"},
        {"what": ["silent"]},
        {"what": "silent", "server": "nobody"},
        {"what": "silent", "host": "nowhere"},
        {"what": "silent", "extra": 1},
        {"what": "slow-start", "value": "much"},
        {"what": "log-burst", "value": 5_000_001},
        {"what": "clock-skew", "value": float("nan")},
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(stage, wish):
    with pytest.raises(Refused):
        stage().world.misbehave(wish)
