"""Conditions over facts: what they say, and that doubt never turns into truth."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upgrades.domain.condition import (
    All,
    AnyOf,
    Compare,
    Is,
    Not,
    NotACondition,
    holds,
    names,
    parse_condition,
)

FACTS = {
    "yes": True,
    "no": False,
    "target": "8.5.101",
    "old.version": "8.1.3",
    "new.version": "8.5.101.0",
    "new.mode": "backup",
    "empty": "",
    "unknown": None,
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("no", False),
        ("unknown", None),
        ("never-heard-of", None),
        ("target", None),  # a text is neither true nor false
        ("not no", True),
        ("not unknown", None),
        ("not not yes", True),
        ("yes and no", False),
        ("yes and unknown", None),
        ("no and unknown", False),
        ("yes or unknown", True),
        ("no or unknown", None),
        ("no or no", False),
        ("yes or no and no", True),
        ("(yes or no) and no", False),
        ("not (yes and no)", True),
        ("old.version < 8.5", True),
        ("old.version >= 8.5", False),
        ("old.version <= 8.1.3.0", True),
        ("old.version > 8.1", True),
        ("new.version = old.version", False),
        ("new.version != old.version", True),
        ("new.version = 8.5.101", True),
        ("new.mode = backup", True),
        ("new.mode != primary", True),
        ("new.mode < 8.5", None),
        ("empty = backup", None),
        ("unknown = 8.5", None),
        ("old.version < unknown.version", None),
        ("  old.version<8.5  ", True),
    ],
)
def test_what_a_condition_says(text, value):
    assert holds(parse_condition(text), FACTS) is value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "and",
        "yes and",
        "yes no",
        "not",
        "(yes",
        "yes)",
        "()",
        "yes or or no",
        "8.5 < old.version",
        "old.version <",
        "old.version < )",
        "old.version < (",
        "old.version = not",
        "old.version == 8.5",
        "Yes",
        "yes; no",
        "yes & no",
        "“yes”",
        "x" * 10 + ".",
        "(" * 500 + "yes" + ")" * 500,
        "not " * 500 + "yes",
    ],
)
def test_what_is_no_condition(text):
    with pytest.raises(NotACondition):
        parse_condition(text)


def test_names_are_all_facts_that_are_read():
    condition = parse_condition("yes and (old.version < new.version or not new.mode = backup)")
    assert names(condition) == {"yes", "old.version", "new.version", "new.mode"}


FACT_NAMES = ("a", "b", "c.version", "d.version")
VALUES = {"a": st.booleans(), "b": st.booleans(), "c.version": st.sampled_from(["8.1", "8.5"])}
VALUES["d.version"] = VALUES["c.version"]
LEAVES = st.sampled_from([Is("a"), Is("b")]) | st.builds(
    Compare,
    st.sampled_from(["c.version", "d.version"]),
    st.sampled_from(["<", "<=", ">", ">=", "=", "!="]),
    st.just("d.version"),
    other_is_fact=st.just(True),
)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(All, st.tuples(inner, inner))
        | st.builds(AnyOf, st.tuples(inner, inner))
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(CONDITIONS, st.fixed_dictionaries(VALUES), st.sets(st.sampled_from(FACT_NAMES)))
def test_learning_more_never_overturns_what_was_known(condition, facts, hidden):
    before = holds(condition, {name: value for name, value in facts.items() if name not in hidden})
    after = holds(condition, facts)
    assert after is not None
    assert before in (None, after)
