"""Whole runs of the shipped HA procedure: every branch of it, and what people may and may not do on the way."""

from datetime import timedelta

import pytest

from tests.domain import scene as scenes
from tests.domain.scene import ANNA, AUDITOR, AUTHOR, BOTH, OLGA, OTTO, REASON, Scene
from upgrades.domain import run, run_events
from upgrades.domain.refusal import BadInput, GateClosed, NotAllowed, OutOfTurn
from upgrades.domain.run_state import RunStatus, StepStatus, fold

COMMON = ["prerequisites", "backup-database", "install-new", "read-only"]
LAST = [
    "stop-old",
    "await-clients",
    "install-remaining",
    "start-remaining",
    "stop-upgrade-mode",
    "start-former",
]


def at(step, **start):
    return Scene(**start).go_to(step)


# Paths.


def test_a_pair_that_finds_upgrade_mode_by_itself_is_upgraded():
    scene = Scene().finish()
    assert (scene.state.status, scene.state.ending) == (RunStatus.ENDED, "completed")
    assert scene.done() == [*COMMON, "replace-folder", "launch-new", *LAST]
    assert scene.state.steps["point-to-new-database"].status is StepStatus.SKIPPED
    assert scene.state.burdens == {}
    assert {burden.burden.id for burden in scene.state.closed} == {
        "exposure:read-only",
        "exposure:not-redundant",
        "exposure:no-switchover",
        "exposure:client-downtime",
    }
    facts = scene.state.facts
    assert (facts["new.version"], facts["old.version"]) == ("8.5.101", "8.5.101")
    assert (facts["new.mode"], facts["old.mode"]) == ("backup", "primary")


def test_upgrade_mode_that_is_not_found_is_forced_and_the_launch_repeated():
    scene = at("launch-new")
    scene.see("new", "00-05060", "21-22911", "21-22902")
    assert scene.state.current == "force-upgrade-mode"
    assert "duty:remove-upgrade-mode" not in scene.state.burdens
    scene.begin()
    assert "exposure:no-switchover" not in scene.state.burdens
    scene.satisfy()
    assert (scene.state.current, scene.visit) == ("launch-new", 2)
    assert "duty:remove-upgrade-mode" in scene.state.burdens
    scene.see("new", "00-05060", "21-25300", "21-22911", "21-22902", "21-22170")
    assert scene.state.current == "stop-old"
    scene.finish()
    assert scene.state.ending == "completed"
    assert scene.state.burdens == {}
    assert "option-removed" in next(
        event.proof for event in scene.events(run_events.StepCompleted) if event.step == "stop-upgrade-mode"
    )


def test_the_gate_about_the_option_is_there_only_when_it_was_entered():
    scene = at("stop-upgrade-mode")
    assert "option-removed" not in [gate.id for gate, _ in scene.open_gates()]


def test_compatible_servers_end_the_run_and_leave_the_peer_as_a_duty():
    scene = at("launch-new", old_version="8.5.100")
    scene.see("new", "00-05060", "21-22911", "21-22902", "21-22172")
    assert scene.state.current == "close-compatible"
    assert set(scene.state.burdens) == {"exposure:read-only"}
    scene.satisfy()
    assert scene.state.status is RunStatus.CLOSING
    assert set(scene.state.burdens) == {"duty:upgrade-the-peer"}
    scene.act(run.TakeOver(burden="duty:upgrade-the-peer", reason=REASON), ANNA)
    assert (scene.state.status, scene.state.ending) == (RunStatus.ENDED, "compatible")
    assert scene.state.burdens["duty:upgrade-the-peer"].owner == ANNA
    assert scene.state.facts["new.version"] == "8.5.101"


def test_the_follow_up_run_for_the_peer_owes_nothing():
    scene = Scene(old_version="8.5.100", **{"old.version": "8.5.101"}).go_to("launch-new")
    scene.see("new", "00-05060", "21-22911", "21-22902", "21-22172")
    scene.satisfy()
    assert (scene.state.status, scene.state.ending) == (RunStatus.ENDED, "compatible")


def test_an_upgraded_database_adds_its_steps_gates_and_the_duty_to_keep_the_former_one():
    scene = Scene(database_upgraded=True, **{"environment.disaster-recovery": True})
    scene.go_to("point-to-new-database")
    assert [gate.id for gate, _ in scene.open_gates()] == ["database-entered", "replicated"]
    scene.go_to("install-remaining").satisfy()
    assert "database-entered" in scene.events(run_events.StepCompleted)[-1].proof
    scene.finish()
    assert scene.state.ending == "completed"
    duty = scene.state.burdens["duty:keep-legacy-database"]
    assert duty.title == "Keep the former configuration database until 2026-06-01"
    assert duty.owner == ANNA


@pytest.mark.parametrize(
    ("upgraded", "event"),
    [pytest.param(True, "21-22170", id="upgraded"), pytest.param(False, "21-22171", id="not upgraded")],
)
def test_a_server_on_the_wrong_database_holds_the_run_until_the_step_begins_again(upgraded, event):
    scene = at("launch-new", database_upgraded=upgraded)
    scene.see("new", "00-05060", "21-22911", "21-25301", "21-22902", event)
    assert scene.state.status is RunStatus.HELD
    assert "correct the database" in scene.state.hold_reason
    assert scene.verdict("initialized").value == "failed"
    with pytest.raises(OutOfTurn, match="on hold"):
        scene.restart()
    scene.resume()
    scene.end_of("new")  # the person stops it, as the page says: no further hold
    assert scene.state.status is RunStatus.RUNNING
    with pytest.raises(GateClosed):
        scene.complete()
    scene.restart()
    assert scene.visit == 2
    scene.finish()
    assert scene.state.ending == "completed"


@pytest.mark.parametrize(
    ("start", "events"),
    [
        pytest.param({"database_upgraded": True}, ("21-22911", "21-22172"), id="backup on upgraded database"),
        pytest.param({}, ("21-22911", "21-25303", "21-22172"), id="same schema"),
    ],
)
def test_outcomes_that_do_not_fit_the_run_hold_it(start, events):
    scene = at("launch-new", **start)
    scene.see("new", "00-05060", *events)
    assert scene.state.status is RunStatus.HELD


@pytest.mark.parametrize(
    ("step", "role"),
    [pytest.param("start-remaining", "old", id="CSH-9"), pytest.param("start-former", "new", id="CSH-11")],
)
@pytest.mark.parametrize("event", ["21-25300", "21-25301", "21-22170", "21-22171"])
def test_upgrade_mode_after_the_move_holds_the_run(step, role, event):
    scene = at(step)
    scene.see(role, "00-05060", event)
    assert scene.state.status is RunStatus.HELD


def test_a_server_that_ends_before_it_is_ready_is_said_and_the_step_begins_again():
    scene = at("launch-new")
    scene.see("new", "00-05060", "21-22911", "21-25301")
    scene.end_of("new")
    assert "went away before it was ready" in scene.verdict("initialized").reason
    scene.see("new", "21-22170")
    assert scene.state.current == "launch-new"
    scene.restart()
    assert scene.verdict("initialized").pending
    scene.finish()
    assert scene.state.ending == "completed"


def test_a_second_start_within_one_watch_is_an_end():
    scene = at("launch-new")
    scene.see("new", "00-05060", "21-22911", "21-25301", "00-05060", "21-22911", "21-25301", "21-22170")
    assert scene.state.current == "launch-new"
    assert scene.verdict("initialized").value == "failed"


@pytest.mark.parametrize("doubt", ["gap", "unreadable"])
def test_a_doubt_keeps_the_gate_shut_until_a_second_person_sets_it_aside(doubt):
    scene = at("launch-new")
    scene.see("new", "00-05060", "21-25301", doubt, "21-22170")
    assert scene.state.current == "launch-new"
    found = scene.verdict("initialized")
    assert (found.value, found.pending) == ("cannot-tell", False)
    number = next(r.seq for r in scene.history if isinstance(r.event, run_events.LogDoubtful))
    with pytest.raises(NotAllowed):
        scene.deviate("doubt", doubt=number, second=BOTH, by=BOTH)
    scene.act(run.SignDeviation(number=1), ANNA)
    assert scene.state.current == "stop-old"
    assert scene.events(run_events.OutcomeReached)[0].outcome == "upgrade-mode"


def test_a_doubt_of_somewhere_else_cannot_be_set_aside():
    scene = at("launch-new")
    with pytest.raises(BadInput):
        scene.act(run.AskDeviation(**scene.here, what="doubt", reason=REASON, doubt=3))


@pytest.mark.parametrize(
    "contradiction",
    [
        pytest.param(lambda scene: scene.end_of("new"), id="the server ends"),
        pytest.param(lambda scene: scene.see("new", "00-05060"), id="the server starts again"),
        pytest.param(lambda scene: scene.see("new", "21-22171"), id="22171 where 22170 was due"),
    ],
)
def test_what_contradicts_a_verdict_holds_the_run(contradiction):
    scene = at("stop-old")
    contradiction(scene)
    assert scene.state.status is RunStatus.HELD
    assert len(scene.events(run_events.VerdictContradicted)) == 1
    with pytest.raises(OutOfTurn, match="on hold"):
        scene.sign()
    scene.resume()
    scene.sign()
    assert scene.begin()


def test_the_watch_over_the_new_server_ends_when_it_is_stopped_on_purpose():
    scene = at("stop-upgrade-mode")
    scene.begin()
    scene.end_of("new")
    assert scene.state.status is RunStatus.RUNNING


def test_the_watch_over_the_old_server_goes_on_to_the_end():
    scene = at("start-former")
    scene.end_of("old")
    assert scene.state.status is RunStatus.HELD


def test_events_of_the_other_server_and_from_before_the_step_do_not_count():
    scene = at("replace-folder")
    scene.see("new", "21-25301", "21-22170")
    scene.go_to("launch-new")
    scene.see("old", "21-25301", "21-22170")
    assert scene.state.current == "launch-new"
    assert scene.events(run_events.LogEventSeen) == []


# Exposures.


def test_exposures_open_and_close_where_the_source_says():
    scene = Scene()
    seen = {}
    for step in ("replace-folder", "launch-new", *LAST):
        scene.go_to(step)
        seen[step] = sorted(burden.removeprefix("exposure:") for burden in scene.state.burdens)
    assert seen == {
        "replace-folder": ["read-only"],
        "launch-new": ["no-switchover", "not-redundant", "read-only"],
        "stop-old": ["not-redundant", "read-only"],
        "await-clients": ["client-downtime", "not-redundant", "read-only"],
        "install-remaining": ["not-redundant", "read-only"],
        "start-remaining": ["no-switchover", "not-redundant", "read-only"],
        "stop-upgrade-mode": ["read-only"],
        "start-former": ["no-switchover", "not-redundant", "read-only"],
    }


# Who may do what.


def test_a_late_click_hits_nothing():
    scene = at("install-new")
    with pytest.raises(OutOfTurn, match="not the current step"):
        scene.act(run.Begin(step="backup-database", visit=1))
    before = len(scene.history)
    assert scene.act(run.Complete(step="backup-database", visit=1)) == []
    assert len(scene.history) == before


def test_a_step_does_not_begin_without_its_mark_in_the_log():
    scene = at("launch-new")
    scene.act(run.Restart(**scene.here, reason=REASON))
    state = scene.state
    assert state.steps["launch-new"].status is StepStatus.BEGUN  # the worker marked it anew
    before = fold(scene.history[:-1])
    with pytest.raises(GateClosed, match="not marked"):
        run.decide(scene.procedure, before, run.Begin(step="launch-new", visit=2), OLGA)


@pytest.mark.parametrize(
    ("place", "begin"),
    [
        ("fe00-1-aaaa", 500),  # named by the mark
        ("fe00-2-bbbb", 0),  # came later
        ("fe00-3-aaaa", 500),  # came later, and begins as one that is named
        ("fe01-1-aaaa~1", 500),
        ("fe00-1-aaaa~2", 0),  # shrank later; a gap says so
        ("fe00-9-cccc", 90),  # begins as one does of which two generations are named
    ],
)
def test_a_file_that_the_mark_does_not_name_counts_whole_but_a_copy_does_not(place, begin):
    mark = {"fe00-1-aaaa": 500, "fe00-4-cccc": 90, "fe00-4-cccc~1": 20, run_events.GAPS: 7}
    assert run.counts_from(mark, place) == begin


def test_nothing_begins_without_a_way_back():
    scene = at("stop-old")
    scene.sign()
    scene.deviate("override", gate="way-back", second=BOTH)
    assert scene.verdict("way-back").is_met
    scene = at("backup-database")
    scene.deviate("skip")
    scene.go_to("replace-folder")
    with pytest.raises(GateClosed, match="No way back is proved"):
        scene.begin()


@pytest.mark.parametrize(
    ("who", "why"),
    [
        pytest.param(OLGA, "role approver", id="starter without the role"),
        pytest.param(AUTHOR, "author", id="author"),
        pytest.param(AUDITOR, "role approver", id="auditor"),
    ],
)
def test_who_may_not_sign(who, why):
    scene = at("stop-old")
    with pytest.raises(NotAllowed, match=why):
        scene.sign(by=who)


def test_whoever_carried_out_a_part_may_not_sign():
    scene = at("prerequisites")
    scene.confirm("packages-delivered", by=BOTH)
    scene.go_to("stop-old")
    with pytest.raises(NotAllowed, match="carried out a part"):
        scene.sign(by=BOTH)


def test_whoever_signed_a_step_does_not_carry_it_out():
    scene = at("stop-old")
    scene.sign(by=BOTH)
    with pytest.raises(NotAllowed, match="another person carries it out"):
        scene.begin(by=BOTH)
    scene.begin(by=OTTO)
    scene.probe("stopped")
    with pytest.raises(NotAllowed, match="another person carries it out"):
        scene.complete(by=BOTH)


def test_a_signature_lapses_when_what_it_covers_changes_and_can_be_given_anew():
    scene = at("stop-old")
    scene.sign()
    scene.report(run_events.FactSet(name="environment.scs-current", value=False))
    assert [event.signer for event in scene.events(run_events.ApprovalLapsed)] == [ANNA.id]
    with pytest.raises(GateClosed, match="0 of 1 signed"):
        scene.begin()
    scene.sign()
    assert scene.begin()


def test_a_signature_over_what_is_no_longer_shown_is_refused():
    scene = at("stop-old")
    with pytest.raises(OutOfTurn, match="changed since"):
        scene.act(run.Sign(**scene.here, gate="approval", digest="0" * 64), ANNA)


def test_approving_does_not_begin_the_step():
    scene = at("stop-old")
    scene.sign()
    assert scene.state.steps["stop-old"].status is StepStatus.CURRENT


def test_an_approval_cannot_be_overridden():
    scene = at("stop-old")
    with pytest.raises(NotAllowed, match="cannot be overridden"):
        scene.deviate("override", gate="approval")


def test_an_override_opens_one_gate_and_stays_in_the_record():
    scene = at("install-new")
    scene.probe("names-equal", "failed")
    with pytest.raises(GateClosed):
        scene.complete()
    scene.deviate("override", gate="names-equal")
    scene.complete()
    assert "Overridden as deviation 1" in scene.events(run_events.StepCompleted)[-1].proof["names-equal"]


def test_a_run_is_not_aborted_over_what_nobody_owns():
    scene = at("stop-old")
    with pytest.raises(GateClosed, match="read-only"):
        scene.act(run.Abort(reason=REASON))
    with pytest.raises(NotAllowed, match="second person"):
        scene.act(run.TakeOver(burden="exposure:read-only", reason=REASON))
    for burden in scene.state.unowned:
        scene.act(run.TakeOver(burden=burden.id, reason=REASON), ANNA)
    scene.act(run.Abort(reason=REASON))
    assert scene.state.status is RunStatus.ABORTED
    scene.act(run.CloseBurden(burden="exposure:read-only", text="switched off by me"), ANNA)
    assert "exposure:read-only" not in scene.state.burdens
    with pytest.raises(OutOfTurn, match="is over"):
        scene.act(run.AddNote(text="too late"))


def test_a_skipped_last_step_leaves_its_exposures_to_an_owner():
    scene = at("start-former")
    scene.deviate("skip")
    assert scene.state.status is RunStatus.CLOSING
    assert {burden.id for burden in scene.state.unowned} == {
        "exposure:read-only",
        "exposure:not-redundant",
        "exposure:no-switchover",
    }


def test_versions_that_nobody_knows_stop_the_run_at_its_first_step():
    scene = Scene(**{"old.version": None})
    for gate in ("packages-delivered", "related-components"):
        scene.confirm(gate)
    assert scene.verdict("versions-known").value == "cannot-tell"
    with pytest.raises(GateClosed, match="The versions of both servers"):
        scene.complete()


def test_a_watch_ends_where_it_is_to_end_whatever_the_clock_says(monkeypatch):
    scene = Scene().go_to("start-remaining")
    monkeypatch.setattr(scenes, "START", scenes.START - timedelta(minutes=5))
    scene.go_to("stop-upgrade-mode")
    while scene.state.steps["stop-upgrade-mode"].begun_at is None:
        scene.begin()
    scene.end_of("new")  # as the step wants it: no server of which somebody still watches whether it stays
    assert scene.state.status is RunStatus.RUNNING


def test_a_run_on_hold_stays_so_when_its_last_step_is_skipped():
    scene = Scene().go_to("start-former")
    scene.act(run.Hold(reason="The data centre has an alarm."))
    scene.deviate("skip", second=ANNA)
    assert (scene.state.status, scene.state.current) == (RunStatus.HELD, None)
    scene.act(run.Resume(reason="The alarm was a test."))
    assert scene.state.status is RunStatus.ENDED or scene.state.status is RunStatus.CLOSING
