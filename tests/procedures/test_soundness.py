"""Proofs over whole procedures: each of them fails when the shipped text, or a small one, is damaged in one place."""

import re

import pytest

from tests.procedures.test_loader import HEAD, STEPS, changed, mistakes_of, only_mistake
from upgrades.procedures.loader import builtin, load

TEXT = next(text.decode() for path, text in builtin() if path.parent.name == "config-server-ha")


def damaged(step, old, new, times=1):
    """The shipped text with one part of one step exchanged."""
    head, start, rest = TEXT.partition(f"  - id: {step}\n")
    body, following, tail = rest.partition("\n  - id: ")
    assert old in body, (step, old)
    return head + start + body.replace(old, new, times) + following + tail


CLOSES = re.compile(r"    closes:\n(?:      .*\n)+")


@pytest.mark.parametrize(
    ("text", "item", "message"),
    [
        pytest.param(
            damaged("force-upgrade-mode", "go-to: launch-new", "go-to: force-upgrade-mode"),
            "step force-upgrade-mode",
            "leads to itself",
            id="own target",
        ),
        pytest.param(
            damaged("force-upgrade-mode", "go-to: launch-new", "go-to: nowhere"),
            "step force-upgrade-mode",
            "no step `nowhere`",
            id="no target",
        ),
        pytest.param(
            damaged("launch-new", "go-to: force-upgrade-mode", "go-to: close-compatible"),
            "step force-upgrade-mode",
            "No go-to leads",
            id="unreachable aside",
        ),
        pytest.param(
            damaged("read-only", "    opens:", "    then: {end: early}\n    opens:"),
            "step point-to-new-database",
            "No path leads to this step",
            id="unreachable steps",
        ),
        pytest.param(
            damaged("start-former", "      - exposure: read-only\n        at: complete\n", ""),
            "step read-only",
            "opens `read-only`",
            id="read-only stays open",
        ),
        pytest.param(
            damaged("close-compatible", "      - exposure: read-only\n        at: complete\n", ""),
            "step read-only",
            "behind `close-compatible`",
            id="read-only stays open when compatible",
        ),
        pytest.param(
            damaged("close-compatible", "      - exposure: no-switchover\n        at: begin\n", ""),
            "step launch-new",
            "opens `no-switchover`",
            id="no-switchover stays open",
        ),
        pytest.param(
            damaged("start-former", "      - exposure: not-redundant\n        at: complete\n", ""),
            "step replace-folder",
            "opens `not-redundant`",
            id="opened twice, closed once",
        ),
        pytest.param(
            damaged("await-clients", "at: complete", "at: complete\n        when: database-upgraded"),
            "step stop-old",
            "opens `client-downtime`",
            id="closed only sometimes",
        ),
        pytest.param(
            damaged("stop-old", "kind: way-back", "kind: confirm"),
            "step stop-old, gate way-back",
            "`ask` is missing",
            id="no way back",
        ),
        pytest.param(
            damaged("stop-old", "        policy: point-of-no-return\n", ""),
            "step stop-old, gate approval",
            "`policy` is missing",
            id="no policy",
        ),
        pytest.param(
            damaged("stop-old", "gate: folder-kept", "gate: folders-kept"),
            "step stop-old, gate way-back, item 1",
            "has no gate `folders-kept`",
            id="way back to no gate",
        ),
        pytest.param(
            damaged(
                "stop-old",
                "            step: replace-folder\n            gate: folder-kept",
                "            step: install-remaining\n            gate: folder-kept",
            ),
            "step stop-old, gate way-back, item 1",
            "Not every path",
            id="way back to a later step",
        ),
        pytest.param(
            damaged(
                "stop-old",
                "            step: replace-folder\n            gate: folder-kept",
                "            step: force-upgrade-mode\n            gate: stopped",
            ),
            "step stop-old, gate way-back, item 1",
            "Not every path",
            id="way back to an aside",
        ),
        pytest.param(
            damaged("stop-old", "            when: database-upgraded\n", ""),
            "step stop-old, gate way-back, item 4",
            "the same `when`",
            id="way back without its condition",
        ),
        pytest.param(
            damaged(
                "stop-old",
                "            step: backup-database\n            gate: database-copy",
                "            step: launch-new\n            gate: initialized",
            ),
            "step stop-old, gate way-back, item 2",
            "proves nothing",
            id="way back to an event",
        ),
        pytest.param(
            damaged("launch-new", "watch-until: stop-upgrade-mode", "watch-until: read-only"),
            "step launch-new, gate initialized",
            "does not lie later",
            id="watch until before",
        ),
        pytest.param(
            damaged("launch-new", "watch-until: stop-upgrade-mode", "watch-until: launch-new"),
            "step launch-new, gate initialized",
            "does not lie later",
            id="watch until itself",
        ),
        pytest.param(
            damaged("await-clients", "baseline: stop-old", "baseline: start-remaining"),
            "step await-clients, gate clients-moved",
            "not every path",
            id="baseline later",
        ),
        pytest.param(
            damaged("await-clients", "joining: new", "joining: old"),
            "step await-clients, gate clients-moved",
            "join another one",
            id="clients stay",
        ),
        pytest.param(
            damaged("launch-new", 'events: ["21-22911", "21-22902"]', "events: []"),
            "step launch-new, gate initialized, outcome not-detected",
            "at least 1",
            id="outcome without events",
        ),
        pytest.param(
            damaged("start-remaining", 'events: ["21-22172"]', 'events: ["21-22170"]'),
            "step start-remaining, gate initialized",
            "can never be reached",
            id="outcome in the shadow of another",
        ),
        pytest.param(
            damaged("start-remaining", "            then: continue", "            then: {hold: Stop.}"),
            "step start-remaining, gate initialized",
            "can never open",
            id="nothing goes on",
        ),
        pytest.param(
            damaged("point-to-new-database", "    otherwise:", "    # otherwise:"),
            "step point-to-new-database",
            "`otherwise`",
            id="skipped without a word",
        ),
        pytest.param(
            damaged("install-new", "        folder: prepared\n", ""),
            "step install-new, gate names-equal",
            "`folder: current`",
            id="probe of no folder",
        ),
        pytest.param(
            damaged(
                "replace-folder",
                "        probe: process-down\n",
                "        probe: process-down\n        folder: kept\n",
            ),
            "step replace-folder, gate stopped",
            "Leave it out",
            id="probe of too much",
        ),
        pytest.param(
            damaged(
                "prerequisites",
                "    numbered: false",
                "    when: database-upgraded\n    otherwise: No.\n    numbered: false",
            ),
            "step prerequisites",
            "first step",
            id="conditional first step",
        ),
    ],
)
def test_the_shipped_text_is_unsound_when_it_is_damaged(text, item, message):
    assert text != TEXT
    found = mistakes_of(text)
    assert any(one.item == item and message in one.message for one in found), [str(one) for one in found]


def test_every_requirement_of_the_procedure_is_carried_out_by_something():
    cited = set(re.findall(r"\b(?:GEN|INT|CS|CSH|RB|ML|CSM)-[A-Z]{0,2}\d+[a-z]*", TEXT))
    general = {
        "GEN-1",
        "CS-W1",
        "CS-W2",
        "CS-W3",
        "CS-R1",
        "CS-R2",
        "CS-L1",
        "CS-L2",
        "CS-L3",
        "CS-P1",
        "CS-P2",
        "CS-P3",
    }
    steps = {f"CSH-{number}" for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)}
    parts = {"2a", "2b", "3x", "4dr", "6a", "6b", "6c", "6d", "6x", "6e", "6f", "7n", "8a", "8b", "10e"}
    assert general | steps | {f"CSH-{part}" for part in parts} <= cited


def test_the_numbers_of_the_steps_are_those_of_the_source():
    numbers = {number: step for step, number in load(TEXT.encode(), name="x").numbers()}
    procedure = load(TEXT.encode(), name="x")
    for number in range(1, 12):
        assert f"CSH-{number}" in procedure.step(numbers[str(number)]).source
    assert (numbers["6a"], numbers["6b"]) == ("force-upgrade-mode", "close-compatible")


# Circles.


@pytest.mark.bad_input("Y11")
def test_y11_a_circle_without_a_way_out_is_printed():
    circle = changed("    closes:\n", "    then: {go-to: launch}\n    closes:\n")
    found = mistakes_of(circle)
    assert any("launch → last → launch" in one.message or "last → launch" in one.message for one in found)
    assert {one.item for one in found} >= {"step first", "step launch", "step last"}


@pytest.mark.bad_input("Y11")
def test_y11_a_circle_of_three_steps_that_nobody_can_leave():
    step = "  - {id: %s, title: T, source: CSH-1, phase: P, do: [x], then: {go-to: %s}}\n"
    text = HEAD + "steps:\n" + step % ("one", "two") + step % ("two", "three") + step % ("three", "one")
    assert [one.message for one in mistakes_of(text)] == [
        "From here no path leads to an end of the run: one → two → three → one.",
        "From here no path leads to an end of the run: two → three → one → two.",
        "From here no path leads to an end of the run: three → one → two → three.",
    ]


def test_a_circle_that_an_outcome_leaves_is_sound():
    assert load((HEAD + STEPS).encode(), name="x")


def test_an_outcome_does_not_lead_back_to_its_own_step():
    found = mistakes_of(changed("then: {go-to: mend},", "then: {go-to: launch},"))
    assert any(one.item.endswith("outcome again") and "own step" in one.message for one in found)


def test_a_step_that_destroys_needs_a_way_back():
    found = only_mistake(changed("    aside: true", "    aside: true\n    destroys: true"))
    assert (found.item, "way-back" in found.message) == ("step mend", True)


def test_more_asides_in_a_row_than_letters():
    aside = "  - {id: aside-%d, title: T, source: CSH-1, phase: P, do: [x], aside: true}\n"
    text = HEAD + STEPS + "".join(aside % number for number in range(11))
    assert any("more than 10 asides" in one.message for one in mistakes_of(text))
