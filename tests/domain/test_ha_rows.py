"""The general procedure for a pair, row by row of the source document (CSH-*, CS-*)."""

import pytest

from tests.domain.scene import HA, Scene
from upgrades.domain import run_events
from upgrades.domain.condition import holds
from upgrades.domain.procedure import ProbeGate
from upgrades.domain.refusal import GateClosed
from upgrades.domain.run_state import RunStatus

requirement = pytest.mark.requirement
LAUNCHED = ("00-05060", "21-22911", "21-25301", "21-22902", "21-22170")


def at(step, **start):
    return Scene(**start).go_to(step)


def shown(scene, step=None):
    """The notices of a step that concern this run, by their sources."""
    found = (HA.step(step) if step else scene.step).notices
    return {
        source
        for notice in found
        if notice.when is None or holds(notice.when, scene.state.facts) is not False
        for source in notice.source
    }


@requirement("CSH-1")
def test_nothing_is_stopped_before_a_copy_of_the_database_is_on_record():
    scene = at("backup-database")
    scene.attach("options-export")
    with pytest.raises(GateClosed, match="copy of the database"):
        scene.complete()


@requirement("CSH-2")
@requirement("CSH-2a")
@requirement("CSH-2b")
@requirement("CSM-2b")
def test_the_new_instance_lies_beside_the_running_one_and_its_three_names_are_compared():
    gate = HA.step("install-new").gate("names-equal")
    assert isinstance(gate, ProbeGate)
    assert (gate.server, gate.probe, gate.folder) == ("new", "names-equal", "prepared")
    scene = at("install-new")
    scene.probe("names-equal", "failed")
    with pytest.raises(GateClosed):
        scene.complete()
    assert scene.state.facts["new.mode"] == "backup"  # it still runs


@requirement("CSH-3")
@requirement("CSH-3x")
def test_read_only_is_confirmed_and_its_clock_runs_until_somebody_switched_it_off():
    scene = at("read-only")
    with pytest.raises(GateClosed):
        scene.complete()
    scene.confirm("switched-on")
    scene.complete()
    assert "exposure:read-only" in scene.state.burdens
    scene.go_to("start-former")
    scene.see("new", "00-05060", "21-22172")
    with pytest.raises(GateClosed, match="Read-only"):
        scene.complete()
    scene.confirm("read-only-off")
    scene.complete()
    assert "exposure:read-only" not in scene.state.burdens


@requirement("CSH-4")
@pytest.mark.parametrize("upgraded", [True, False])
def test_with_an_upgraded_database_the_new_instance_is_pointed_to_it_before_it_starts(upgraded):
    scene = at("replace-folder", database_upgraded=upgraded)
    assert ("point-to-new-database" in scene.done()) is upgraded


@requirement("CSH-5")
def test_the_backup_is_down_and_its_former_folder_seen_before_the_launch():
    for missing in ("stopped", "folder-kept"):
        scene = at("replace-folder")
        scene.begin()
        scene.probe({"stopped": "folder-kept", "folder-kept": "stopped"}[missing])
        with pytest.raises(GateClosed):
            scene.complete()


@requirement("CSH-6")
@requirement("CSH-6a")
@requirement("CSH-6f")
@pytest.mark.parametrize("missing", ["21-25301", "21-22170"])
def test_upgrade_mode_and_the_end_of_initialization_are_both_awaited(missing):
    scene = at("launch-new", old_version="8.5.000")  # no branch for versions older than 8.5
    scene.see("new", *(event for event in LAUNCHED if event != missing))
    assert scene.state.current == "launch-new"


@requirement("CSH-6b")
@pytest.mark.parametrize(
    ("events", "leads_to"),
    [
        pytest.param(("21-22911", "21-22902"), "force-upgrade-mode", id="never"),
        pytest.param(("21-22911", "21-25301", "21-22902"), "launch-new", id="in between"),
    ],
)
def test_upgrade_mode_that_was_not_found_in_time_leads_to_forcing_it(events, leads_to):
    scene = at("launch-new", old_version="8.1.3")
    scene.see("new", "00-05060", *events)
    assert scene.state.current == leads_to


@requirement("CSH-6c")
def test_compatible_servers_need_no_upgrade_mode_and_the_rest_is_left_out():
    scene = at("launch-new", old_version="8.5.100")
    scene.see("new", "00-05060", "21-22902", "21-22172")
    assert scene.state.current == "close-compatible"
    scene.satisfy()
    assert "stop-old" not in scene.done()


@requirement("CS-W2")
def test_a_compatible_end_still_owes_the_peer_its_upgrade():
    scene = at("launch-new", old_version="8.5.100")
    scene.see("new", "00-05060", "21-22902", "21-22172")
    scene.satisfy()
    assert scene.state.status is RunStatus.CLOSING
    assert "duty:upgrade-the-peer" in scene.state.burdens


@requirement("CS-W2")
def test_a_run_does_not_end_with_two_versions_in_the_pair():
    scene = at("start-former")
    scene.see("new", "00-05060", "21-22172")
    scene.report(run_events.FactSet(name="old.version", value="8.5.100"))
    assert not scene.verdict("versions-equal").is_met


@requirement("CSH-6d")
@pytest.mark.parametrize("event", ["21-25300", "21-25301"])
def test_both_ways_into_upgrade_mode_count(event):
    scene = at("launch-new")
    scene.see("new", "00-05060", "21-22911", event, "21-22902", "21-22170")
    assert scene.state.current == "stop-old"
    assert scene.state.facts["new.mode"] == "upgrade-mode"


@requirement("CSH-6e")
def test_the_refusals_to_become_backup_are_counted_and_harm_nothing():
    scene = at("launch-new")
    scene.see(
        "new", "00-05060", "21-22911", "21-25301", *["21-25302"] * 5, "21-22902", "21-25302", "21-22170"
    )
    assert scene.state.current == "stop-old"
    scene.see("new", "21-25302")
    assert scene.state.status is RunStatus.RUNNING


@requirement("CSH-6x")
@pytest.mark.parametrize("upgraded", [True, False])
def test_the_reader_knows_when_both_servers_go_read_only_by_themselves(upgraded):
    assert ("CSH-6x" in shown(at("launch-new", database_upgraded=upgraded))) is not upgraded


@requirement("CSH-7")
@requirement("CSH-7n")
def test_the_original_primary_is_stopped_behind_a_signature_and_the_reader_knows_that_sessions_end():
    scene = at("stop-old")
    assert "CSH-7n" in shown(scene)
    with pytest.raises(GateClosed, match="approved"):
        scene.begin()
    scene.satisfy()
    assert scene.state.facts["old.mode"] == "down"
    assert scene.state.facts["new.mode"] == "primary-upgrade-mode"
    assert "exposure:client-downtime" in scene.state.burdens


@requirement("CSH-8")
@requirement("CSH-8b")
@pytest.mark.parametrize("upgraded", [True, False])
def test_the_remaining_server_is_installed_under_its_name_and_reads_the_upgraded_database(upgraded):
    scene = at("install-remaining", database_upgraded=upgraded)
    names = {gate.id for gate, _ in scene.open_gates()}
    assert "names-equal" in names
    assert ("database-entered" in names) is upgraded
    assert any("confserv" in notice.text for notice in scene.step.notices)


@requirement("CSH-9")
@requirement("CSH-10e")
def test_the_remaining_server_must_come_up_as_backup():
    scene = at("start-remaining")
    scene.see("old", "00-05060", "21-22902")
    assert scene.state.current == "start-remaining"
    wrong = at("start-remaining")
    wrong.see("old", "00-05060", "21-25301")
    assert wrong.state.status is RunStatus.HELD
    scene.see("old", "21-22172")
    assert scene.state.current == "stop-upgrade-mode"


@requirement("CSH-10")
@requirement("CSH-11")
def test_the_server_in_upgrade_mode_goes_down_and_comes_back_as_backup():
    scene = at("start-former")
    assert (scene.state.facts["old.mode"], scene.state.facts["new.mode"]) == ("primary", "down")
    scene.see("new", "00-05060", "21-22172")
    scene.confirm("read-only-off")
    scene.complete()
    assert scene.state.facts["new.mode"] == "backup"


@requirement("CS-L1")
@pytest.mark.parametrize("upgraded", [True, False])
def test_that_sessions_do_not_survive_a_new_database_is_said_before_anything_begins(upgraded):
    assert ("CS-L1" in shown(Scene(database_upgraded=upgraded))) is upgraded


@requirement("CS-L2")
def test_without_redundancy_a_clock_runs_from_the_stop_until_the_new_server_is_ready():
    scene = at("replace-folder")
    assert "exposure:not-redundant" not in scene.state.burdens
    scene.begin()
    assert "exposure:not-redundant" in scene.state.burdens
    scene.go_to("stop-upgrade-mode")
    assert "exposure:not-redundant" not in scene.state.burdens


@requirement("CS-L3")
def test_while_a_new_server_starts_the_page_says_that_nothing_may_switch_over():
    for step, role, events in (
        ("launch-new", "new", LAUNCHED),
        ("start-remaining", "old", ("00-05060", "21-22172")),
    ):
        scene = at(step)
        assert "exposure:no-switchover" in scene.state.burdens
        scene.see(role, *events)
        assert "exposure:no-switchover" not in scene.state.burdens


@requirement("CS-W1")
@requirement("INT-3")
def test_the_last_step_warns_of_new_features_before_all_proxies_are_done():
    told = [notice for notice in HA.step("start-former").notices if "CS-W1" in notice.source]
    assert told[0].warn
