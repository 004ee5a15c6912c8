"""What is told of a run: replayed from histories, one event after the other."""

from itertools import pairwise

import pytest

from tests.domain.scene import ANNA, AUDITOR, BOTH, OLGA, REASON, Scene
from tests.domain.test_lca import after, plain
from upgrades.domain import run
from upgrades.domain.gates import shown_digest
from upgrades.domain.notice_text import one_line
from upgrades.domain.notices import DEFAULTS, TITLES, Kind, notices_of, told_by_role
from upgrades.domain.run_events import AgentLost, LogEventSeen
from upgrades.domain.run_state import begin, evolve


def told(scene):
    """Everything that is told of the history of a run when each event comes alone."""
    states = [begin(scene.history[0])]
    for recorded in scene.history[1:]:
        states.append(evolve(states[-1], recorded))
    found = notices_of(scene.procedure, None, states[0], scene.history[:1])
    for (before, now), recorded in zip(pairwise(states), scene.history[1:], strict=True):
        found += notices_of(scene.procedure, before, now, [recorded])
    return found


def kinds(scene):
    return [notice.kind for notice in told(scene)]


@pytest.fixture(scope="module")
def finished():
    scene = Scene()
    scene.do_all_steps()
    return scene


def test_each_approval_of_a_whole_run_is_asked_for_once_and_its_gate_told_open_once(finished):
    asked = [(notice.step, notice.gate) for notice in told(finished) if notice.kind is Kind.APPROVAL]
    opened = [(notice.step, notice.gate) for notice in told(finished) if notice.kind is Kind.GATE_OPEN]
    assert asked
    assert len(asked) == len(set(asked))
    assert set(asked) <= set(opened)
    assert "launch-new" in {step for step, _ in opened}


def test_every_event_has_an_identity_of_its_own(finished):
    identities = [notice.identity for notice in told(finished)]
    assert len(identities) == len(set(identities))


def test_nothing_of_a_log_line_or_of_what_somebody_typed_is_told(finished):
    scene = Scene()
    scene.deviate("skip")
    lines = [event.text for event in finished.events(LogEventSeen)]
    assert lines
    for notice in (*told(finished), *told(scene)):
        said = f"{notice.title} {notice.text} {notice.whom}"
        assert not any(line in said for line in lines)
        assert REASON not in said
        assert len(notice.title) <= 300
        assert len(notice.text) <= 600
        assert len(notice.identity) <= 180


def test_who_may_sign_is_told_by_rights_and_never_who_has_worked_on_the_run():
    scene = Scene()
    scene.go_to("stop-old")
    wanted = [notice for notice in told(scene) if notice.kind is Kind.APPROVAL][-1]
    assert wanted.rights == {"approver"}
    assert OLGA.id in wanted.barred
    assert not {ANNA.id, BOTH.id, AUDITOR.id} & wanted.barred
    assert wanted.whom == "the role approver"


def test_a_countdown_is_told_at_eighty_per_cent_and_at_its_end_with_its_length():
    site = plain().go_to("install-lca--one")
    after(site, 480)
    after(site, 3000)
    first, second = [notice for notice in told(site) if notice.kind is Kind.COUNTDOWN]
    assert first.title.startswith("Countdown is at 80 %: ")
    assert second.title.startswith("Countdown has run out: ")
    assert "10 min" in first.text


def test_a_lost_agent_is_told_for_the_gate_that_rests_on_it_and_not_twice_while_it_is_away():
    scene = Scene()
    scene.go_to("launch-new")
    before = kinds(scene).count(Kind.DOUBT)
    scene.report(AgentLost(host=scene.state.host("new"), reason="no answer"))
    assert kinds(scene).count(Kind.DOUBT) == before + 1
    scene.lines("new", "00-05060")
    assert kinds(scene).count(Kind.DOUBT) == before + 1


def test_a_server_that_goes_away_while_it_is_watched_is_told_as_failed():
    scene = Scene()
    scene.go_to("launch-new")
    scene.end_of("new")
    failed = [notice for notice in told(scene) if notice.title.startswith("Gate failed: ")]
    assert len(failed) == 1
    assert failed[0].step == "launch-new"


def test_a_rejection_is_told_to_those_who_asked():
    scene = Scene()
    scene.go_to("stop-old")
    step = scene.step
    digest = shown_digest(scene.procedure, scene.state, step, step.gate("approval"))
    scene.act(run.Reject(**scene.here, gate="approval", digest=digest, reason=REASON), ANNA)
    last = told(scene)[-1]
    assert (last.kind, last.gate) == (Kind.DOUBT, "approval")
    assert last.title.startswith("Gate failed: ")


def test_what_happens_in_one_transaction_is_told_as_it_stands_at_its_end(finished):
    """A step that was entered and left again at once asks for nothing."""
    states = [begin(finished.history[0])]
    for recorded in finished.history[1:]:
        states.append(evolve(states[-1], recorded))
    found = notices_of(finished.procedure, states[0], states[-1], finished.history[1:])
    assert Kind.APPROVAL not in {notice.kind for notice in found}


def test_every_kind_has_a_title_and_says_who_is_told():
    assert set(TITLES) == set(DEFAULTS) == set(Kind)


@pytest.mark.parametrize(
    ("rights", "kind", "by_role"),
    [
        (("approver",), Kind.APPROVAL, True),
        (("administrator",), Kind.APPROVAL, True),
        (("auditor", "group:database"), Kind.APPROVAL, True),
        (("operator",), Kind.APPROVAL, False),
        (("operator",), Kind.COUNTDOWN, True),
        (("auditor",), Kind.REVIEW, True),
        (("approver", "operator"), Kind.GATE_OPEN, False),
    ],
)
def test_what_a_role_brings(rights, kind, by_role):
    assert told_by_role(kind, rights) is by_role


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("two\r\nlines", "two lines"),
        ("a\u2028b\u2029c\x85d\x0be", "a b c d e"),
        ("left\u202eright\u200b", "leftright"),
        ("  many   blanks ", "many blanks"),
        ("\x1b[31mred", "[31mred"),
        ("Zürich · 東京", "Zürich · 東京"),
    ],
)
def test_one_line_has_no_breaks_and_nothing_that_turns_or_hides(text, line):
    assert one_line(text) == line
