"""Event rules: the order of events decides, and nothing about how they arrived."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.domain.scene import HA, Scene
from upgrades.domain.event_rule import Kind, Observation, follow_rule
from upgrades.domain.procedure import EventRule, GoOn, Outcome, PutOnHold
from upgrades.domain.run_events import OutcomeReached

LAUNCH = HA.step("launch-new").gate("initialized").rule
OLD = {"old.version": "8.1.3", "database-upgraded": False}
NEWER = {"old.version": "8.5.100", "database-upgraded": False}
UPGRADED = {"old.version": "8.1.3", "database-upgraded": True}

SHORT = {
    "start": "00-05060",
    "911": "21-22911",
    "902": "21-22902",
    "300": "21-25300",
    "301": "21-25301",
    "302": "21-25302",
    "303": "21-25303",
    "170": "21-22170",
    "171": "21-22171",
    "172": "21-22172",
    "other": "21-24201",
}


def observations(text):
    """`911 302 gap 170` as observations at their places."""
    kinds = {"gap": Kind.GAP, "unreadable": Kind.UNREADABLE, "end": Kind.ENDED}
    return [
        Observation(
            kinds.get(word, Kind.EVENT), ("log", number * 100), SHORT.get(word, ""), word, seq=number + 1
        )
        for number, word in enumerate(text.split())
    ]


def outcome_of(text, facts, rule=LAUNCH):
    reached = follow_rule(rule, observations(text), facts).outcome
    return reached.id if reached else None


@pytest.mark.parametrize(
    ("facts", "text", "outcome"),
    [
        pytest.param(OLD, "start 911 301 902 170", "upgrade-mode", id="CSH-6a"),
        pytest.param(
            OLD, "start 911 301 302 302 902 302 170", "upgrade-mode", id="CSH-6e refusals are normal"
        ),
        pytest.param(OLD, "911 other 301 other 170", "upgrade-mode", id="others between"),
        pytest.param(
            OLD, "300 911 902 170", "upgrade-mode", id="CSH-6d forced before it reaches the primary"
        ),
        pytest.param(OLD, "911 300 902 170", "upgrade-mode", id="CSH-6d forced"),
        pytest.param(OLD, "911 301 902", None, id="not ready yet"),
        pytest.param(OLD, "170 301", None, id="other order"),
        pytest.param(OLD, "170", None, id="ready without upgrade mode"),
        pytest.param(OLD, "911 902", "not-detected", id="CSH-6b"),
        pytest.param(OLD, "902 911", None, id="CSH-6b in the other order"),
        pytest.param(OLD, "301 911 902 170", "not-detected", id="CSH-6b: before 22911 does not count"),
        pytest.param(OLD, "911 902 301 170", "not-detected", id="CSH-6b: after 22902 is too late"),
        pytest.param(NEWER, "911 902 172", "compatible", id="CSH-6c"),
        pytest.param(NEWER, "911 902", None, id="CSH-6c not ready yet"),
        pytest.param(NEWER, "172 902", None, id="CSH-6c in the other order"),
        pytest.param(NEWER, "911 301 902 172", None, id="CSH-6c not after upgrade mode"),
        pytest.param(NEWER, "911 301 902 170", "upgrade-mode", id="upgrade mode beside an 8.5"),
        pytest.param(OLD, "911 301 902 171", "unplanned-database", id="171 without an upgraded database"),
        pytest.param(UPGRADED, "911 301 902 170", "wrong-database", id="170 with an upgraded database"),
        pytest.param(UPGRADED, "911 301 902 171", "upgrade-mode", id="171 with an upgraded database"),
        pytest.param(UPGRADED, "911 902 171", "not-detected", id="CSH-6b with an upgraded database"),
        pytest.param(
            {**NEWER, "database-upgraded": True},
            "911 902 172",
            "backup-on-upgraded-database",
            id="172 upgraded",
        ),
        pytest.param(OLD, "911 303 172", "same-schema", id="CSM-4e"),
        pytest.param(
            {}, "911 902 172 301 170", "upgrade-mode", id="unknown facts rule out what depends on them"
        ),
    ],
)
def test_launch(facts, text, outcome):
    assert outcome_of(text, facts) == outcome


def rule(*outcomes, **more):
    return EventRule(server="new", outcomes=outcomes, **more)


def outcome(name, *events, follow=None, **more):
    stations = tuple(frozenset(event.split("|")) for event in events)
    return Outcome(id=name, title=name, source=("CSH-6",), events=stations, follow=follow or GoOn(), **more)


@pytest.mark.parametrize(
    ("text", "reached"),
    [
        pytest.param("301 170", True, id="in order"),
        pytest.param("301 302 170", True, id="others between"),
        pytest.param("170 301", False, id="other order"),
        pytest.param("170 301 170", True, id="an early one does not count"),
        pytest.param("301 911 170", False, id="forbidden between"),
        pytest.param("911 301 170", True, id="forbidden between stands before"),
        pytest.param("301 170 911", True, id="forbidden between comes after"),
        pytest.param("902 301 170", False, id="forbidden before"),
        pytest.param("301 902 170", False, id="forbidden before, in the middle"),
        pytest.param("301 170 902", True, id="forbidden before comes after"),
        pytest.param("301 911 301 170", False, id="ruled out for good"),
    ],
)
def test_between_and_before(text, reached):
    one = outcome(
        "one",
        "21-25301",
        "21-22170",
        none_between=frozenset({"21-22911"}),
        none_before=frozenset({"21-22902"}),
    )
    assert (outcome_of(text, {}, rule(one)) == "one") is reached


def test_the_first_written_of_two_that_are_complete_at_once_is_the_verdict():
    first, second = outcome("first", "21-22170"), outcome("second", "21-22911|21-22170")
    assert outcome_of("170", {}, rule(first, second)) == "first"
    assert outcome_of("170", {}, rule(second, first)) == "second"


def test_the_verdict_stays():
    held = outcome("held", "21-22171", follow=PutOnHold("other database"))
    result = follow_rule(rule(outcome("good", "21-22170"), held), observations("170 171 170"), {})
    assert result.outcome.id == "good"
    assert [title for title, _ in result.contradictions] == ["held"]


def test_refusals_are_counted_before_and_after_the_verdict():
    result = follow_rule(LAUNCH, observations("911 301 302 302 170 302"), OLD)
    assert dict(result.counts) == {"21-25302": 3}


def test_the_end_of_the_server_stops_the_rule():
    result = follow_rule(LAUNCH, observations("911 301 end 170"), OLD)
    assert (result.outcome, result.ended.text) == (None, "end")


def test_a_doubt_is_kept_with_the_outcome_until_it_is_set_aside():
    seen = observations("911 gap 301 unreadable 170 gap")
    assert [doubt.seq for doubt in follow_rule(LAUNCH, seen, OLD).doubts] == [2, 4]
    assert [doubt.seq for doubt in follow_rule(LAUNCH, seen, OLD, frozenset({2})).doubts] == [4]
    assert follow_rule(LAUNCH, seen, OLD, frozenset({2, 4})).doubts == ()


WORDS = st.lists(st.sampled_from([*SHORT, "gap", "unreadable", "end"]), max_size=14)


@settings(deadline=None)
@given(WORDS, st.data())
def test_repeats_change_nothing(words, data):
    seen = observations(" ".join(words))
    repeated = []
    for number, one in enumerate(seen):
        repeated.append(one)
        if again := data.draw(st.integers(0, number + 1), label="how many are sent again"):
            repeated += seen[number + 1 - again : number + 1]
    for facts in (OLD, NEWER, UPGRADED):
        assert follow_rule(LAUNCH, repeated, facts) == follow_rule(LAUNCH, seen, facts)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([*SHORT.values(), "gap"]), max_size=12),
    st.sampled_from([False, True]),
    st.data(),
)
def test_the_verdict_of_a_run_does_not_depend_on_how_the_stream_was_cut(events, upgraded, data):
    whole, cut = READY[upgraded].copy(), READY[upgraded].copy()
    lines = whole.lines("new", *events)
    whole.report(*lines)
    while lines:
        size = data.draw(st.integers(1, len(lines)), label="lines in this answer")
        again = data.draw(st.booleans(), label="sent twice")
        for _ in range(1 + again):
            cut.report(*lines[:size])
        lines = lines[size:]
    assert verdict_of(whole) == verdict_of(cut)


def verdict_of(scene):
    reached = scene.events(OutcomeReached)
    return [(event.step, event.visit, event.outcome) for event in reached[:1]]


READY = {upgraded: Scene(database_upgraded=upgraded).go_to("launch-new") for upgraded in (False, True)}
