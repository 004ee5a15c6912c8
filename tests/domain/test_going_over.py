"""The pair of 8.1.3 on the same schema, and the going over to the general procedure with what is done (CSM-*)."""

import pytest

from tests.domain.scene import HA, Scene
from upgrades.domain import run, run_events
from upgrades.domain.run_state import RunStatus, StepStatus, fold
from upgrades.procedures.loader import builtin, load

CSM = next(
    load(text, name=path.parent.name)
    for path, text in builtin()
    if path.parent.name == "config-server-ha-same-schema"
)
TEXTS = {(text.id, text.version): text for text in (HA, CSM)}
BACKUP = ("00-05060", "21-22911", "21-25303", "21-22172")
NOT_ANNOUNCED = ("00-05060", "21-22911", "21-22902")


class SameSchema(Scene):
    """A run of the shorter procedure; it follows the other text once the run has gone over."""

    def __init__(self, **facts):
        stated = {"environment.schema": "8.1.1", "environment.schema-stays": True, "database-upgraded": None}
        super().__init__(CSM, **{**stated, **facts})

    def worker(self):
        while True:
            super().worker()
            if run.follows(self.procedure, self.state):
                return
            self.procedure = TEXTS[self.state.text]

    def launch(self, *events):
        self.go_to("launch-new")
        self.see("new", *events)
        return self


@pytest.mark.requirement("CSM-4e")
@pytest.mark.requirement("CSM-1")
@pytest.mark.requirement("CSM-2")
@pytest.mark.requirement("CSM-3")
@pytest.mark.requirement("CSM-4")
def test_the_announced_backup_goes_on_with_full_redundancy_and_without_read_only():
    scene = SameSchema().launch(*BACKUP)
    assert scene.done()[:5] == [
        "prerequisites",
        "backup-database",
        "install-new",
        "replace-folder",
        "launch-new",
    ]
    assert scene.state.current == "stop-old"
    assert scene.state.burdens == {}
    assert scene.state.facts["new.mode"] == "backup"


@pytest.mark.requirement("CSM-0")
@pytest.mark.parametrize(
    ("facts", "gate"),
    [
        pytest.param({"old.version": "8.5.100"}, "versions-known", id="other version"),
        pytest.param({"target": "8.5.102"}, "versions-known", id="other target"),
        pytest.param({"environment.schema": "8.5.1"}, "schema-stays", id="other schema"),
        pytest.param({"environment.schema-stays": False}, "schema-stays", id="schema goes"),
        pytest.param({"environment.schema": None}, "schema-stays", id="schema unknown"),
    ],
)
def test_the_short_way_is_for_8_1_3_on_schema_8_1_1_only(facts, gate):
    target = facts.pop("target", "8.5.101")
    scene = SameSchema(target=target, **facts)
    assert not scene.verdict(gate).is_met


@pytest.mark.requirement("CSM-0")
def test_versions_are_of_a_release_however_they_are_written():
    scene = SameSchema(**{"new.version": "8.1.300.25", "old.version": "8.1.3"})
    assert scene.verdict("versions-known").is_met


@pytest.mark.requirement("CSM-4b")
@pytest.mark.parametrize(
    "events",
    [
        pytest.param(NOT_ANNOUNCED, id="nothing announced"),
        pytest.param(("00-05060", "21-22911", "21-25301"), id="upgrade mode found"),
        pytest.param(("00-05060", "21-22172"), id="backup without announcement"),
    ],
)
def test_without_the_messages_the_run_goes_over_and_keeps_what_is_done(events):
    scene = SameSchema().launch(*events)
    over = scene.events(run_events.RunGoneOver)
    assert [(event.procedure, event.procedure_version, event.procedure_hash) for event in over] == [
        (HA.id, HA.version, HA.text_hash)
    ]
    assert scene.procedure is HA
    assert scene.state.current == "read-only"
    assert scene.state.steps["launch-new"].status is StepStatus.LEFT
    # Evidence stays where it was.
    for step, gate in (("backup-database", "database-copy"), ("replace-folder", "folder-kept")):
        assert scene.state.steps[step].status is StepStatus.DONE
        recorded = scene.state.gate(step, gate)
        assert recorded.evidence or recorded.probe


@pytest.mark.requirement("CSM-4b")
def test_upgrade_mode_is_forced_before_the_server_is_launched_again_and_nothing_is_done_twice():
    scene = SameSchema().launch(*NOT_ANNOUNCED)
    scene.satisfy()
    assert scene.state.current == "force-upgrade-mode"
    scene.satisfy()
    assert (scene.state.current, scene.visit) == ("launch-new", 2)
    scene.see("new", "00-05060", "21-25300", "21-22911", "21-22902", "21-22170")
    assert scene.state.current == "stop-old"
    scene.finish()
    assert (scene.state.status, scene.state.ending) == (RunStatus.ENDED, "completed")
    assert scene.state.burdens == {}
    for step in ("backup-database", "install-new", "replace-folder"):
        assert scene.done().count(step) == 1


def test_the_open_exposures_go_over_and_are_closed_there():
    scene = SameSchema().launch(*NOT_ANNOUNCED)
    assert set(scene.state.burdens) == {"exposure:no-switchover", "exposure:not-redundant"}
    scene.finish()
    assert scene.state.burdens == {}


def test_replayed_from_its_events_the_run_stands_at_the_same_place():
    scene = SameSchema().launch(*NOT_ANNOUNCED)
    for seq in range(2, len(scene.history) + 1):
        fold(scene.history[:seq])  # no prefix is beyond folding
    assert fold(scene.history) == scene.state
    written = [run_events.to_body(item.event) for item in scene.history]
    kinds = [item.event.kind for item in scene.history]
    again = [run_events.from_body(kind, body) for kind, body in zip(kinds, written, strict=True)]
    assert again == [item.event for item in scene.history]


def test_the_authors_of_both_texts_are_barred_from_approving():
    scene = SameSchema().launch(*NOT_ANNOUNCED)
    assert scene.state.authors == {*CSM.authors, *HA.authors}


def test_with_the_text_that_was_left_nothing_follows():
    scene = SameSchema().launch(*NOT_ANNOUNCED)
    assert run.advance(CSM, scene.state) == []


@pytest.mark.requirement("CSM-5")
@pytest.mark.requirement("CSM-6a")
@pytest.mark.requirement("CSM-6")
@pytest.mark.requirement("CSM-7")
@pytest.mark.requirement("CSM-8e")
@pytest.mark.requirement("CSM-8")
@pytest.mark.requirement("CSM-9")
def test_the_rest_of_the_short_way():
    scene = SameSchema().launch(*BACKUP)
    scene.satisfy()  # the way back, the signature, the shutdown
    assert scene.state.facts["new.mode"] == "primary"
    assert scene.state.current == "await-clients"
    assert not scene.verdict("clients-moved").is_met
    scene.total("old", 0)
    scene.total("new", 83)
    assert scene.state.current == "await-clients"
    scene.total("new", 84)
    assert scene.state.current == "install-remaining"
    scene.satisfy()
    assert scene.state.current == "start-remaining"
    scene.see("old", "00-05060", "21-22902")
    assert scene.state.current == "start-remaining"
    scene.see("old", "21-22172")
    assert scene.state.current == "stop-upgrade-mode"
    scene.satisfy()
    scene.see("new", "00-05060", "21-22172")
    assert not scene.verdict("log-reviewed").is_met
    scene.confirm("log-reviewed")
    scene.complete()
    assert (scene.state.status, scene.state.ending) == (RunStatus.ENDED, "completed")
    facts = scene.state.facts
    assert (facts["old.mode"], facts["new.mode"], facts["new.version"]) == ("primary", "backup", "8.5.101")


def test_a_skipped_step_of_the_route_leads_on_along_it():
    scene = SameSchema().launch(*NOT_ANNOUNCED)
    scene.deviate("skip")
    assert scene.state.current == "force-upgrade-mode"


def test_a_backup_that_was_never_announced_goes_over_to_the_general_procedure():
    scene = SameSchema().launch("00-05060", "21-22911", "21-22172")
    assert outcomes(scene) == ["backup-without-announcement"]
    assert scene.state.text == ("config-server-ha", 1)


def test_an_upgraded_database_holds_the_run_where_the_schema_stays():
    scene = SameSchema().launch("00-05060", "21-22911", "21-22171")
    assert outcomes(scene) == ["unplanned-database"]
    assert scene.state.status is RunStatus.HELD


def outcomes(scene):
    return [
        recorded.event.outcome
        for recorded in scene.history
        if isinstance(recorded.event, run_events.OutcomeReached) and recorded.event.gate == "initialized"
    ]
