"""What the seeded walks of tests/simulation found in the core, each told as the shortest story that shows it."""

from dataclasses import replace

import pytest

from tests.domain.scene import ANNA, BOTH, HA, OLGA, OTTO, REASON, SERVERS, Scene
from upgrades.domain import run
from upgrades.domain import run_events as e
from upgrades.domain.condition import parse_condition
from upgrades.domain.refusal import NotAllowed
from upgrades.domain.run_events import Actor
from upgrades.domain.run_state import RunStatus

HOST = "fra-cfg-02"
TESS = Actor("9", "Tess", roles=("approver", "operator"))
DEV = Actor("10", "Dev", roles=("auditor",), stands_for=(TESS,))


def at(step, **start):
    return Scene(**start).go_to(step)


def taken_in(scene, *lines):
    before = len(scene.history)
    scene.report(*lines)
    return [recorded.event for recorded in scene.history[before:] if recorded.event.kind == "log.event"]


def test_a_line_from_before_the_mark_is_not_taken_in_whoever_hands_it_over():
    scene = at("launch-new")
    scene.see("new", "21-25302")
    scene.restart()
    (line,) = scene.lines("new", "21-22170")
    assert taken_in(scene, replace(line, offset=0)) == []
    assert taken_in(scene, line) == [line]


def test_a_line_of_another_server_is_not_taken_in():
    scene = at("launch-new")
    (line,) = scene.lines("new", "21-22170")
    assert taken_in(scene, replace(line, application=SERVERS["old"])) == []


def test_lines_count_in_the_order_of_their_file_however_they_are_handed_over():
    scene = at("launch-new", old_version="8.5.100")
    scene.report(*reversed(scene.lines("new", "21-25301", "21-22902", "21-22172", "21-22170")))
    assert [reached.outcome for reached in scene.events(e.OutcomeReached)] == ["upgrade-mode"]


def test_a_line_that_comes_late_and_stands_before_the_evidence_holds_the_run():
    scene = at("start-former")
    late, last = scene.lines("new", "21-25301", "21-22172")
    scene.report(last)
    assert scene.verdict("initialized").is_met
    scene.report(late)
    assert not scene.verdict("initialized").is_met
    assert scene.state.status is RunStatus.HELD
    assert "handed over late" in scene.state.hold_reason


def test_a_branch_is_not_taken_on_a_verdict_that_a_late_line_contradicts():
    scene = at("launch-new")
    late, *lines = scene.lines("new", "21-25300", "21-22911", "21-22902")
    scene.act(run.Hold(reason="wait a moment"))
    scene.report(*lines)
    scene.report(late)
    scene.resume()
    assert scene.state.current == "launch-new"
    assert scene.events(e.VerdictContradicted)


def test_after_a_silence_the_agent_has_to_look_again():
    scene = at("install-new")
    scene.probe("names-equal")
    scene.report(e.AgentLost(host=HOST, reason="no answer for 30 s"))
    scene.report(e.AgentBack(host=HOST))
    found = scene.verdict("names-equal")
    assert found.pending
    assert "not looked again" in found.reason
    scene.probe("names-equal")
    assert scene.verdict("names-equal").is_met


def test_what_was_seen_for_a_step_that_is_behind_outlasts_a_silence():
    scene = at("stop-old")
    scene.report(e.AgentLost(host=HOST, reason="no answer for 30 s"))
    scene.report(e.AgentBack(host=HOST))
    assert scene.verdict("way-back").is_met


def test_a_signature_that_lapsed_does_not_come_back_with_what_it_covered():
    scene = at("stop-old", policies={"point-of-no-return": {"role": "approver", "signatures": 2}})
    scene.sign()
    scene.report(e.FactSet(name="environment.lca-current", value=None))
    scene.sign()
    scene.report(e.FactSet(name="environment.lca-current", value=True))
    scene.sign(by=BOTH)
    assert "1 of 2" in scene.verdict("approval").reason


def test_a_signature_for_somebody_lapses_when_that_person_works_on_the_run():
    scene = at("stop-old")
    scene.sign(by=DEV)
    assert scene.verdict("approval").is_met
    with pytest.raises(NotAllowed, match="so another person carries it out"):
        scene.begin(by=TESS)
    scene.act(run.AskDeviation(**scene.here, what="skip", reason=REASON), TESS)
    assert not scene.verdict("approval").is_met
    assert [lapsed.signer for lapsed in scene.events(e.ApprovalLapsed)] == [DEV.id]


def test_half_of_a_deviations_signatures_does_not_count_once_its_signer_works_on_the_run():
    two = {"needs": [{"role": "approver", "signatures": 2}]}
    scene = at("backup-database", policies={"deviation": two})
    scene.act(run.AskDeviation(**scene.here, what="skip", reason=REASON), OTTO)
    scene.act(run.SignDeviation(number=1), BOTH)
    scene.attach("database-copy", by=BOTH)
    scene.act(run.SignDeviation(number=1), ANNA)
    assert scene.state.current == "backup-database"
    assert scene.state.deviations[1].is_open
    scene.act(run.SignDeviation(number=1), TESS)
    assert scene.state.current != "backup-database"


def test_an_older_total_that_comes_late_changes_nothing():
    scene = at("await-clients")
    scene.total("new", 84)
    scene.total("old", 40)
    (newer,) = [seen for seen in scene.events(e.ClientTotalSeen) if seen.application == SERVERS["old"]]
    scene.report(replace(newer, total=0, offset=newer.offset - 40))
    assert scene.state.current == "await-clients"
    assert scene.state.totals[SERVERS["old"]].total == 40


def test_whether_a_step_is_skipped_depends_on_what_the_one_before_has_brought_about():
    steps = tuple(
        replace(step, when=parse_condition("new.mode = down")) if step.id == "launch-new" else step
        for step in HA.steps
    )
    scene = Scene(replace(HA, steps=steps)).go_to("replace-folder")
    assert scene.state.facts["new.mode"] == "backup"
    scene.satisfy()
    assert scene.state.current == "launch-new"


def test_whoever_acts_is_recorded_as_the_record_gives_it_back():
    recorded = replace(DEV, roles=("b", "a")).as_recorded
    assert recorded == Actor("10", "Dev", roles=("a", "b"))
    assert OLGA.as_recorded == OLGA
