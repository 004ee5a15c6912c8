"""Verdicts: three values and a reason. Doubt never opens anything."""

import pytest

from tests.domain.scene import ANNA, BOTH, HA, OLGA, OTTO, REASON, Scene
from upgrades.domain import run, run_events
from upgrades.domain.gates import shown_digest, verdict
from upgrades.domain.refusal import BadInput, GateClosed


def at(step, **start):
    return Scene(**start).go_to(step)


@pytest.mark.parametrize(
    ("answers", "value", "pending"),
    [
        pytest.param([], "cannot-tell", True, id="nobody yet"),
        pytest.param(["pass"], "met", False, id="pass"),
        pytest.param(["fail"], "failed", False, id="fail"),
        pytest.param(["not-tested"], "cannot-tell", False, id="not tested"),
        pytest.param(["fail", "pass"], "met", False, id="the last one counts"),
        pytest.param(["pass", "not-tested"], "cannot-tell", False, id="taken back"),
    ],
)
@pytest.mark.bad_input("D11")
def test_confirmations(answers, value, pending):
    scene = at("read-only")
    for answer in answers:
        scene.confirm("switched-on", answer)
    found = scene.verdict("switched-on")
    assert (found.value, found.pending) == (value, pending)


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        pytest.param(True, "met", id="true"),
        pytest.param(False, "failed", id="false"),
        pytest.param(None, "cannot-tell", id="unknown"),
    ],
)
def test_checks_follow_the_facts(fact, value):
    scene = Scene(**{"environment.lca-current": fact})
    found = scene.verdict("lca-current")
    assert found.value == value
    if value != "met":
        assert "fra-cfg-02" in found.reason


def test_a_check_is_evaluated_anew_when_a_fact_changes():
    scene = Scene(**{"environment.lca-current": False})
    scene.report(run_events.FactSet(name="environment.lca-current", value=True))
    assert scene.verdict("lca-current").is_met


@pytest.mark.parametrize("value", ["met", "failed", "cannot-tell"])
def test_a_probe_says_what_the_agent_saw_last(value):
    scene = at("install-new")
    assert scene.verdict("names-equal").pending
    scene.probe("names-equal", "failed")
    scene.probe("names-equal", value)
    assert scene.verdict("names-equal").value == value


def test_without_its_agent_a_probe_cannot_tell_whatever_it_said_before():
    scene = at("install-new")
    scene.probe("names-equal")
    scene.report(run_events.AgentLost(host="fra-cfg-02", reason="no answer for 30 s"))
    found = scene.verdict("names-equal")
    assert (found.value, found.pending) == ("cannot-tell", False)
    assert "no answer for 30 s" in found.reason
    scene.report(run_events.AgentBack(host="fra-cfg-02"))
    assert scene.verdict("names-equal").pending, "it has to look again"
    scene.probe("names-equal")
    assert scene.verdict("names-equal").is_met


def test_a_probe_of_an_earlier_visit_does_not_count():
    scene = at("replace-folder")
    scene.begin()
    scene.probe("stopped")
    scene.restart()
    assert scene.verdict("stopped").pending


def test_evidence_names_what_is_attached():
    scene = at("backup-database")
    assert scene.verdict("database-copy").pending
    file = run.Attach(
        **scene.here, gate="database-copy", name="cfg_8130.dmp", sha256="9f2c" * 16, size=4096, evidence=1
    )
    scene.act(file)
    found = scene.verdict("database-copy")
    assert found.is_met
    assert "cfg_8130.dmp, SHA-256 9f2c9f2c9f2c" in found.reason


def test_an_event_gate_says_what_it_waits_for():
    scene = at("launch-new")
    scene.see("new", "00-05060", "21-22911", "21-25301")
    reason = scene.verdict("initialized").reason
    assert "21-22170" in reason
    assert "Last event seen: 21-25301." in reason


@pytest.mark.bad_input("D12")
def test_an_event_gate_without_its_agent_cannot_tell():
    scene = at("launch-new")
    scene.report(run_events.AgentLost(host="fra-cfg-02", reason="no answer for 30 s"))
    found = scene.verdict("initialized")
    assert (found.value, found.pending) == ("cannot-tell", False)


def test_events_do_not_count_before_the_step_begins():
    scene = at("stop-upgrade-mode")
    gate = HA.step("start-former").gate("initialized")
    assert "from the moment the step begins" in verdict(HA, scene.state, HA.step("start-former"), gate).reason


# Clients (CSH-8a).


def totals(scene, **counted):
    for role, total in counted.items():
        scene.total(role, total)


def proof_of(scene):
    """What the gate rested on when its step was completed, and the next one came."""
    assert scene.state.current == "install-remaining"
    return scene.events(run_events.StepCompleted)[-1].proof["clients-moved"]


def test_clients_by_the_totals_of_both_servers():
    scene = at("await-clients")
    assert "has not logged a client total" in scene.verdict("clients-moved").reason
    totals(scene, new=40)
    assert scene.verdict("clients-moved").pending
    totals(scene, old=44)
    assert "still counts 44" in scene.verdict("clients-moved").reason
    totals(scene, old=0)
    assert "40 of the 84" in scene.verdict("clients-moved").reason
    totals(scene, new=84)
    assert "Proof by totals" in proof_of(scene)  # the worker completed it at once


def test_a_total_from_before_the_shutdown_proves_nothing():
    scene = at("stop-old")
    totals(scene, old=0, new=84)
    scene.satisfy()
    assert scene.state.current == "await-clients"
    assert scene.verdict("clients-moved").pending
    totals(scene, old=0)
    assert scene.verdict("clients-moved").pending
    totals(scene, new=84)  # the same figures, seen anew
    assert "Proof by totals" in proof_of(scene)


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        pytest.param("pass", "met", id="pass"),
        pytest.param("fail", "failed", id="fail"),
        pytest.param("not-tested", "cannot-tell", id="not tested"),
    ],
)
def test_clients_by_their_reconnection(answer, value):
    scene = at("await-clients")
    scene.confirm("clients-moved", answer)
    if value == "met":
        assert "Proof by reconnection" in proof_of(scene)
    else:
        assert scene.verdict("clients-moved").value == value


def test_not_tested_leaves_the_proof_to_the_totals():
    scene = at("await-clients")
    scene.confirm("clients-moved", "not-tested")
    totals(scene, old=0, new=84)
    assert "Proof by totals" in proof_of(scene)


def test_without_a_baseline_only_reconnection_proves_it():
    scene = at("stop-old")
    scene.sign()
    scene.act(run.Begin(**scene.here))
    scene.probe("stopped")
    scene.complete()
    totals(scene, old=0, new=84)
    found = scene.verdict("clients-moved")
    assert (found.value, found.pending) == ("cannot-tell", False)
    scene.confirm("clients-moved")
    assert "Proof by reconnection" in proof_of(scene)


@pytest.mark.requirement("CSH-8a")
@pytest.mark.requirement("CSM-6a")
@pytest.mark.parametrize(
    "counted",
    [
        pytest.param({"old": 0}, id="only the server that is left"),
        pytest.param({"new": 84}, id="only the server that is joined"),
        pytest.param({"old": 1, "new": 84}, id="one is still there"),
        pytest.param({"old": 0, "new": 83}, id="one is missing"),
    ],
)
def test_half_of_the_proof_by_totals_opens_nothing(counted):
    scene = at("await-clients")
    totals(scene, **counted)
    assert not scene.verdict("clients-moved").is_met
    assert scene.state.current == "await-clients"


@pytest.mark.requirement("CSH-8a")
@pytest.mark.parametrize("text", ["", "ok"])
def test_half_of_the_proof_by_reconnection_opens_nothing(text):
    scene = at("await-clients")
    with pytest.raises(BadInput, match="at least 3"):
        scene.act(run.Confirm(**scene.here, gate="clients-moved", answer="pass", text=text))
    assert not scene.verdict("clients-moved").is_met


def stopped(scene, marks, counted):
    """The old primary is shut down; these log positions and totals were taken before."""
    scene.sign()
    scene.act(run.Begin(**scene.here, watermarks=marks, totals=counted))
    scene.probe("stopped")
    scene.complete()
    return scene


def test_clients_that_the_new_server_had_already_are_none_that_came_over():
    marks = {"confserv": {"log-1": 0}, "confserv_b": {"log-1": 0}}
    scene = stopped(at("stop-old"), marks, {"confserv": 84, "confserv_b": 30})
    totals(scene, old=0, new=84)  # only 54 of 84 have come
    assert scene.verdict("clients-moved").pending
    totals(scene, new=113)
    assert (
        "113 of the 84 clients that confserv had and 30 of its own" in scene.verdict("clients-moved").reason
    )
    totals(scene, new=114)
    assert "Proof by totals" in proof_of(scene)


def test_a_total_whose_line_stands_before_the_mark_does_not_count_however_late_it_is_read():
    marks = {"confserv": {"log-1": 100_000}, "confserv_b": {"log-1": 100_000}}
    scene = stopped(at("stop-old"), marks, {"confserv": 84, "confserv_b": 0})
    totals(scene, old=0, new=84)
    assert scene.verdict("clients-moved").pending
    assert scene.events(run_events.ClientTotalSeen) == []


@pytest.mark.parametrize("missing", ["confserv", "confserv_b"])
def test_without_a_mark_in_both_logs_only_reconnection_proves_it(missing):
    marks = {name: {"log-1": 0} for name in ("confserv", "confserv_b") if name != missing}
    scene = stopped(at("stop-old"), marks, {"confserv": 84, "confserv_b": 0})
    totals(scene, old=0, new=84)
    found = scene.verdict("clients-moved")
    assert (found.value, found.pending) == ("cannot-tell", False)
    assert missing in found.reason
    scene.confirm("clients-moved")
    assert "Proof by reconnection" in proof_of(scene)


# Way back.


def test_the_way_back_names_what_is_missing():
    scene = at("backup-database")
    scene.attach("options-export")
    scene.deviate("override", gate="database-copy")
    scene.complete()
    scene.go_to("install-new")
    while scene.state.current != "replace-folder":
        scene.satisfy()
    reason = scene.verdict("way-back").reason
    assert "A copy of the configuration database (its check was overridden" in reason
    assert "options" not in reason
    with pytest.raises(GateClosed):
        scene.begin()


def test_the_way_back_rests_on_the_recorded_evidence():
    scene = at("stop-old")
    proof = scene.verdict("way-back").proof
    kinds = {scene.history[int(one.removeprefix("event ")) - 1].event.kind for one in proof}
    assert kinds == {"evidence.attached", "probe.answered"}


def test_the_former_database_belongs_to_the_way_back_only_when_there_is_one():
    for upgraded, proofs in ((False, 3), (True, 4)):
        assert len(at("stop-old", database_upgraded=upgraded).verdict("way-back").proof) == proofs


# Approvals.


def test_as_many_people_sign_as_the_policy_says():
    scene = at("stop-old", policies={"point-of-no-return": {"role": "approver", "signatures": 2}})
    scene.sign(by=ANNA)
    scene.sign(by=ANNA)
    assert len(scene.events(run_events.ApprovalSigned)) == 1
    assert scene.verdict("approval").reason.startswith("1 of 2 signed (Anna)")
    scene.sign(by=BOTH)
    assert scene.verdict("approval").is_met


def test_a_policy_may_ask_for_no_signature():
    scene = at("stop-old", policies={"point-of-no-return": {"role": "approver", "signatures": 0}})
    assert scene.verdict("approval").is_met


def test_a_rejection_shuts_the_gate_and_says_why():
    scene = at("stop-old")
    gate = scene.step.gate("approval")
    digest = shown_digest(HA, scene.state, scene.step, gate)
    scene.act(run.Reject(**scene.here, gate="approval", digest=digest, reason=REASON), ANNA)
    assert scene.verdict("approval").reason == f"Rejected by Anna: {REASON}"


def test_what_is_signed_covers_facts_exposures_way_back_and_evidence():
    scene = at("stop-old")
    gate = scene.step.gate("approval")

    def digest():
        return shown_digest(HA, scene.state, scene.step, gate)

    seen = [digest()]
    scene.report(run_events.FactSet(name="environment.lca-current", value=None))
    seen.append(digest())
    scene.act(run.Attach(**scene.here, text="a note that belongs here"), OTTO)
    seen.append(digest())
    assert len(set(seen)) == 3
    scene.act(run.AddNote(text="nothing that is signed"), OLGA)
    assert digest() == seen[-1]


def test_verdicts_are_a_function_of_the_record():
    scene = at("stop-old")
    for step in HA.steps:
        for gate in step.all_gates:
            assert verdict(HA, scene.state, step, gate) == verdict(HA, scene.state, step, gate)
