"""Texts that extend another one, and texts that a run can go over to: what they become, and which are refused."""

import hashlib

import pytest

from tests.procedures.test_loader import HEAD, STEPS
from upgrades.domain.condition import Is, parse_condition
from upgrades.domain.procedure import GoOver, WayBackGate
from upgrades.procedures.extending import simplified
from upgrades.procedures.loader import ProcedureMistakes, load, shipped, whole_text

BASE = HEAD + STEPS
OWN = """\
procedure: own-one
version: 1
title: My own
summary: For a proxy.
source: PRX-0
authors: [paula]
component: ConfigurationServerProxy
extends: {procedure: small-one, version: 1}
"""


def texts(**more):
    """A library of the small text and whatever else is given, `name_version`."""
    known = {("small-one", 1): BASE} | {
        (name.rpartition("_")[0].replace("_", "-"), int(name.rpartition("_")[2])): text
        for name, text in more.items()
    }
    return lambda name, version: known[name, version].encode() if (name, version) in known else None


def read(text, **more):
    return load(text.encode(), name="own.yaml", library=texts(**more))


def mistakes(text, **more):
    with pytest.raises(ProcedureMistakes) as caught:
        read(text, **more)
    return caught.value.mistakes


# What becomes of it.


def test_a_text_that_changes_nothing_is_the_other_one_under_its_own_name():
    base, own = load(BASE.encode(), name="small.yaml"), read(OWN)
    assert (own.id, own.title, own.authors) == ("own-one", "My own", ("paula",))
    assert own.steps == base.steps
    assert own.exposures == base.exposures


def test_the_whole_text_stands_for_itself_and_its_hash_covers_both_files():
    whole = whole_text(OWN.encode(), name="own.yaml", library=texts())
    alone = load(whole, name="anything.yaml", library=lambda _name, _version: None)
    assert alone == read(OWN)
    assert alone.text_hash == hashlib.sha256(whole).hexdigest()
    other_base = BASE.replace("title: First", "title: Firstly")
    assert read(OWN, small_one_1=other_base).text_hash != alone.text_hash
    assert read(OWN + "# read again\n").text_hash != alone.text_hash


def test_the_whole_text_does_not_depend_on_where_the_file_lies():
    assert whole_text(OWN.encode(), name="a", library=texts()) == whole_text(
        OWN.encode(), name="b", library=texts()
    )


@pytest.mark.parametrize("name", ["config-server-proxy", "config-server-proxy-ha"])
def test_shipped_texts_are_the_same_when_they_are_written_out(name):
    text = shipped(name, 1)
    whole = whole_text(text, name=name)
    assert load(whole, name="whole", library=lambda _name, _version: None) == load(text, name=name)
    assert b"extends:" not in whole


def test_roles_parameters_and_exposures_are_replaced_one_by_one():
    own = read(OWN + "roles:\n  new: {title: Proxy, type: ConfigurationServerProxy}\n")
    assert [(role.name, role.application_type) for role in own.roles] == [
        ("new", "ConfigurationServerProxy"),
        ("old", "ConfigurationServer"),
    ]


def test_steps_change_key_by_key_gates_and_outcomes_by_their_ids():
    own = read(
        OWN
        + """\
change:
  - id: launch
    title: Launch the proxy
    gates:
      - id: ready
        title: Proxy ready
        outcomes:
          - {id: again, title: Once more}
      - {id: same, kind: confirm, title: Same name, source: PRX-5, ask: It is.}
    also:
      notices:
        - {text: No file is carried over., source: PRX-3}
"""
    )
    step = own.step("launch")
    assert step.title == "Launch the proxy"
    assert [gate.id for gate in step.gates] == ["ready", "same"]
    rule = step.gate("ready").rule
    assert [outcome.title for outcome in rule.outcomes] == ["Good", "Once more"]
    assert (
        rule.outcomes[1].events
        == load(BASE.encode(), name="x").step("launch").gate("ready").rule.outcomes[1].events
    )
    assert [notice.text for notice in step.notices] == ["No file is carried over."]


def test_what_is_left_out_takes_along_whatever_refers_to_it():
    own = read(OWN + "leave-out: [read-only, tidy-up]\n")
    assert own.exposures == ()
    assert own.duties == ()
    assert all(step.opens == () and step.closes == () for step in own.steps)


def test_a_gate_that_is_left_out_is_gone_from_the_ways_back():
    extra = BASE.replace(
        "items: [{title: Copy, step: first, gate: copied}]",
        "items: [{title: Copy, step: first, gate: copied}, {title: More, step: first, gate: more}]",
    ).replace(
        "    opens:\n      - {exposure: read-only, at: begin}\n  - id: launch",
        "      - {id: more, kind: evidence, title: More, source: CSH-1, accepts: [file], ask: More.}\n"
        "    opens:\n      - {exposure: read-only, at: begin}\n  - id: launch",
    )
    own = read(OWN + "leave-out: [first.more]\n", small_one_1=extra)
    gate = own.step("last").gate("back")
    assert isinstance(gate, WayBackGate)
    assert [item.gate for item in gate.items] == ["copied"]


CONDITIONAL = BASE.replace(
    "    gates:\n      - {id: copied",
    "    notices:\n"
    "      - {text: With a new one., source: CS-L1, when: database-upgraded}\n"
    "      - {text: With the old one., source: CS-L1, when: not database-upgraded}\n"
    "      - {text: Only some., source: CS-L1, when: not database-upgraded and old.version < 8.5}\n"
    "    gates:\n      - {id: copied",
)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        pytest.param("false", [("With the old one.", False), ("Only some.", True)], id="no"),
        pytest.param("true", [("With a new one.", False)], id="yes"),
    ],
)
def test_a_settled_answer_is_not_asked_and_rules_out_what_depends_on_it(given, told):
    own = read(OWN + f"given: {{database-upgraded: {given}}}\n", small_one_1=CONDITIONAL)
    assert [parameter.name for parameter in own.parameters] == ["target"]
    notices = own.step("first").notices
    assert [(notice.text, notice.when is not None) for notice in notices] == told


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("yes-it-is", True),
        ("not yes-it-is", False),
        ("yes-it-is and other", Is("other")),
        ("yes-it-is or other", True),
        ("not-so or other", Is("other")),
        ("not-so and other", False),
        ("not (yes-it-is and other)", parse_condition("not other")),
        ("other and more", parse_condition("other and more")),
    ],
)
def test_conditions_are_settled_as_far_as_they_can_be(text, left):
    assert simplified(parse_condition(text), {"yes-it-is": True, "not-so": False}) == left


# What is refused.


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        pytest.param(
            OWN.replace("small-one", "small-two"), 8, "no sound procedure `small-two`", id="no base"
        ),
        pytest.param(OWN.replace("version: 1}", "version: x}"), 8, "Write `extends:", id="version"),
        pytest.param(OWN + "leave-out: [frist]\n", 9, "Did you mean `first`", id="leave-out"),
        pytest.param(OWN + "change:\n  - {id: lauch, title: X}\n", 10, "Did you mean `launch`", id="change"),
        pytest.param(OWN + "change:\n  - {title: X}\n", 10, "names its step", id="nameless change"),
        pytest.param(OWN + "given: {target: false}\n", 9, "is asked as yes or no", id="given of a version"),
        pytest.param(OWN + "given: {target: maybe}\n", 9, "yes or no", id="given no answer"),
        pytest.param(OWN + "steps: []\n", 9, "changes its steps with `change`", id="steps of its own"),
        pytest.param(
            OWN + "change:\n  - {id: first, tittle: X}\n", 10, "`tittle` is not known", id="unknown key"
        ),
        pytest.param(OWN + "colour: red\n", 9, "`colour` is not known", id="unknown head"),
    ],
)
def test_mistakes_are_told_where_they_were_written(text, line, message):
    found = [one for one in mistakes(text) if message in one.message]
    assert found, [str(one) for one in mistakes(text)]
    assert (found[0].file, found[0].line) == ("own.yaml", line)


def test_what_the_change_breaks_in_the_other_text_is_told_there():
    found = mistakes(OWN + "leave-out: [last]\n")
    assert {one.file for one in found} == {"small-one/1.yaml"}


def test_a_base_with_mistakes_cannot_be_extended():
    assert (
        "no sound procedure"
        in mistakes(OWN, small_one_1=BASE.replace("go-to: launch", "go-to: nowhere"))[0].message
    )


def test_a_text_cannot_extend_itself():
    circle = OWN.replace("small-one", "own-one")
    assert "no sound procedure" in mistakes(circle, own_one_1=circle)[0].message


# Going over.

OVER = BASE.replace("procedure: small-one", "procedure: short-one").replace(
    "then: {go-to: mend}", "then: {go-over: small-one, version: 1, through: [mend]}"
)
SHORT = OVER.replace("    aside: true\n    then: {go-to: launch}\n", "")


def test_a_going_over_knows_hash_and_authors_of_the_other_text():
    own = read(SHORT)
    base = load(BASE.encode(), name="x")
    outcome = own.step("launch").gate("ready").rule.outcomes[1]
    assert outcome.follow == GoOver("small-one", 1, ("mend",), base.text_hash, base.authors)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param(
            "version: 1, through",
            "version: 2, through",
            "no sound procedure `small-one`, version 2",
            id="version",
        ),
        pytest.param("through: [mend]", "through: [amend]", "has no step `amend`", id="step"),
        pytest.param(", through: [mend]", "", "To go over takes", id="incomplete"),
        pytest.param("  - id: first\n", "  - id: foremost\n", "has no step `foremost`", id="steps differ"),
        pytest.param(
            "kind: evidence, title: Copy, source: CSH-1, accepts: [file], ask",
            "kind: confirm, title: Copy, source: CSH-1, ask",
            "of another kind",
            id="gate of another kind",
        ),
        pytest.param(
            "  read-only: {title: Read-only, text",
            "  read-onlier: {title: Read-only, text",
            "has no exposure `read-onlier`",
            id="exposure",
        ),
        pytest.param("  tidy-up:", "  tidy-more:", "has no duty `tidy-more`", id="duty"),
        pytest.param(
            "  database-upgraded: {title: Database upgraded, type: boolean}\n",
            "",
            "asks for `database-upgraded`",
            id="answer",
        ),
        pytest.param(
            "new: {title: Backup, type: ConfigurationServer",
            "new: {title: Backup, type: MessageServer",
            "The role `new`",
            id="role",
        ),
    ],
)
def test_a_run_can_only_go_over_to_a_text_that_means_the_same_by_the_same_names(old, new, message):
    assert old in SHORT
    text = SHORT.replace(old, new)
    if "read-onlier" in new:
        text = text.replace("exposure: read-only", "exposure: read-onlier")
    if "foremost" in new:
        text = text.replace("step: first", "step: foremost")
    assert any(message in one.message for one in mistakes(text)), [str(one) for one in mistakes(text)]


def test_what_is_open_when_the_run_goes_over_must_be_closed_by_the_other_text():
    leaving = BASE.replace("    closes:\n      - {exposure: read-only, at: complete}\n", "").replace(
        "    opens:\n      - {exposure: read-only, at: begin}\n", ""
    )
    found = mistakes(SHORT, small_one_1=leaving)
    assert any("opens `read-only`" in one.message for one in found), [str(one) for one in found]


def test_two_texts_that_go_over_to_each_other_are_refused():
    back = BASE.replace(
        "then: {go-to: mend}", "then: {go-over: short-one, version: 1, through: [launch]}"
    ).replace("    aside: true\n    then: {go-to: launch}\n", "")
    assert any(
        "no sound procedure" in one.message for one in mistakes(SHORT, small_one_1=back, short_one_1=SHORT)
    )
