"""Policies as values: slots, distinct people, what may be written, and what old runs have stored."""

from datetime import UTC, datetime
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upgrades.domain.policy import (
    Deputy,
    Expiry,
    Need,
    People,
    Person,
    Policy,
    Result,
    Signer,
    adds,
    checked_document,
    lacks_people,
    missing,
    only_holder_acts,
    people_in,
    policy_in,
    useful_rights,
)
from upgrades.domain.policy_text import read_deputies, read_groups, read_needs, write_needs
from upgrades.domain.refusal import BadInput

EACH = Policy(name="p", needs=(Need("group:database", 1), Need("group:network", 1)))


def signer(name, *rights, for_=None):
    return Signer(name, frozenset(rights), for_ or name)


def test_what_old_runs_have_stored_still_means_the_same():
    assert policy_in({"p": {"role": "approver", "signatures": 2}}, "p").needs == (Need("approver", 2),)
    assert policy_in({"p": {"role": "approver", "signatures": 0}}, "p").needs == ()
    assert policy_in({}, "p").needs == (Need("approver", 1),)
    assert not policy_in({"p": {"role": "approver", "signatures": 2}}, "p").override


@pytest.mark.bad_input("D02")
def test_one_person_fills_one_slot_even_when_in_both_groups():
    both = signer("anna", "group:database", "group:network")
    assert missing(EACH, [both]) in ((Need("group:network", 1),), (Need("group:database", 1),))
    assert missing(EACH, [both, both]) == missing(EACH, [both])
    assert missing(EACH, [both, signer("bo", "group:database")]) == ()
    assert missing(EACH, [signer("bo", "group:database"), both]) == ()


def test_two_of_one_group_are_not_one_each_of_two():
    one, two = signer("bo", "group:database"), signer("cy", "group:database")
    assert missing(EACH, [one, two]) == (Need("group:network", 1),)
    assert not adds(EACH, [one], two)
    assert useful_rights(EACH, [one]) == ("group:network",)


def test_a_deputy_and_whom_he_stands_in_for_are_one():
    policy = Policy(name="p", needs=(Need("approver", 2),))
    deputy, absent = signer("bo", "approver", for_="anna"), signer("anna", "approver")
    assert missing(policy, [deputy, absent]) == (Need("approver", 1),)
    assert missing(policy, [absent, deputy]) == (Need("approver", 1),)


rights = st.frozensets(st.sampled_from(["approver", "group:a", "group:b"]), max_size=3)
teams = st.lists(rights, max_size=5)
wishes = st.lists(
    st.builds(Need, st.sampled_from(["approver", "group:a", "group:b"]), st.integers(1, 2)),
    max_size=3,
    unique_by=lambda need: need.of,
)


@given(wishes, teams)
def test_a_policy_is_filled_exactly_when_the_people_can_be_put_into_its_slots(needs, team):
    slots = [need.of for need in needs for _ in range(need.signatures)]
    people = [Signer(str(place), mine, str(place)) for place, mine in enumerate(team)]
    possible = len(slots) <= len(people) and any(
        all(of in who.rights for of, who in zip(slots, order, strict=False))
        for order in permutations(people, len(slots))
    )
    assert (missing(Policy(name="p", needs=tuple(needs)), people) == ()) is possible


TEAM = [
    Person("user:1", "Olga", frozenset({"operator"})),
    Person("user:2", "Anna", frozenset({"approver"})),
    Person("user:3", "Bo", frozenset({"approver", "operator"})),
    Person("user:4", "Cy", frozenset({"administrator"})),
]
DAYS = {"from": "2026-12-01T00:00:00+00:00", "to": "2026-12-15T00:00:00+00:00"}


def needs(*items):
    return {"point-of-no-return": {"needs": list(items)}}


def test_a_document_is_brought_into_its_canonical_form():
    document = checked_document(
        {
            "start": {"needs": []},
            "point-of-no-return": {
                "needs": [{"role": "approver", "signatures": 1}, {"group": "database", "signatures": 1}],
                "expires": {"after": 1800, "result": "hold"},
                "ahead": True,
                "override": False,
            },
            "deviation": {"role": "approver", "signatures": 1, "never": ["way-back"]},
            "people": {
                "groups": {"database": ["user:3", "user:4"]},
                "deputies": [{"person": "user:2", "deputy": "user:3"} | DAYS],
            },
            "steps": {"holder": "only"},
        },
        TEAM,
    )
    policy = policy_in(document, "point-of-no-return")
    assert policy.expiry == Expiry(1800, Result.HOLD)
    assert policy.in_words == "1 approver and 1 of the group database"
    assert policy.ahead
    assert not policy.override
    assert policy_in(document, "deviation").never_waives("any", "way-back")
    assert policy_in(document, "start").needs == ()
    assert only_holder_acts(document)
    assert people_in(document).groups_of("user:4") == ("group:database",)
    assert checked_document(document, TEAM) == document


@pytest.mark.parametrize(
    ("document", "why"),
    [
        pytest.param(needs({"role": "approver", "signatures": 0}), "open for nothing", id="0 needed"),
        pytest.param(needs({"role": "approver", "signatures": -1}), "open for nothing", id="-1 needed"),
        pytest.param(needs({"role": "approver", "signatures": True}), "open for nothing", id="no number"),
        pytest.param(needs({"group": "database", "signatures": 1}), "no group database", id="no such group"),
        pytest.param(needs({"role": "operator", "signatures": 1}), "do not sign", id="operators"),
        pytest.param(needs({"role": "auditor", "signatures": 1}), "do not sign", id="auditors"),
        pytest.param(
            needs({"role": "approver", "signatures": 4}), "can never be filled", id="too few people"
        ),
        pytest.param(
            needs({"role": "approver", "signatures": 1}, {"role": "approver", "signatures": 1}),
            "asked for twice",
            id="twice",
        ),
        pytest.param(
            needs({"group": "a", "signatures": 2}) | {"people": {"groups": {"a": ["user:2"]}}},
            "it has 1",
            id="2 of a group of 1",
        ),
        pytest.param(
            needs({"group": "a", "signatures": 1}, {"group": "b", "signatures": 1})
            | {"people": {"groups": {"a": ["user:2"], "b": ["user:2"]}}},
            "can never be filled",
            id="one each of two groups with one and the same person",
        ),
        pytest.param({"people": {"groups": {"a": ["user:99"]}}}, "no role", id="a stranger in a group"),
        pytest.param({"people": {"groups": {"a": []}}}, "nobody in it", id="an empty group"),
        pytest.param({"deviation": {"needs": []}}, "takes a second person", id="deviation for nothing"),
        pytest.param(
            {"start": {"needs": [], "expires": {"after": 600, "result": "approve"}}},
            "nothing else",
            id="approve",
        ),
        pytest.param(
            {"start": {"needs": [], "expires": {"after": 10, "result": "lapse"}}}, "5 minutes", id="10 s"
        ),
        pytest.param(
            {"people": {"deputies": [{"person": "user:2", "deputy": "user:2"} | DAYS]}},
            "himself",
            id="own deputy",
        ),
        pytest.param({"steps": {"holder": "nobody"}}, "only", id="nobody acts"),
        pytest.param({"Start": {"needs": []}}, "its name", id="capital letters"),
    ],
)
@pytest.mark.bad_input("Y14")
def test_a_policy_that_opens_for_nothing_or_never_is_refused(document, why):
    with pytest.raises(BadInput, match=why):
        checked_document(document, TEAM)


def test_whoever_starts_cannot_be_the_only_one_who_could_sign():
    policy = Policy(name="p", needs=(Need("approver", 1),))
    alone = [Person("user:3", "Bo", frozenset({"approver", "operator"}))]
    assert "1 of the role approver is missing" in lacks_people(policy, People(), alone)
    assert lacks_people(policy, People(), [*alone, TEAM[0]]) == ""


def test_a_deputy_stands_in_from_the_first_moment_to_before_the_last():
    begins, ends = datetime(2026, 12, 1, tzinfo=UTC), datetime(2026, 12, 15, tzinfo=UTC)
    people = People(deputies=(Deputy("anna", "bo", begins, ends),))
    assert people.stood_in_for("bo", begins) == ("anna",)
    assert people.stood_in_for("bo", ends) == ()
    assert people.stood_in_for("anna", begins) == ()


# As people type them.


def test_lines_are_read_and_written_back():
    assert read_needs(" 2 role approver \n\n1 GROUP database", "x") == [
        {"role": "approver", "signatures": 2},
        {"group": "database", "signatures": 1},
    ]
    assert write_needs(EACH) == "1 group database\n1 group network"
    assert read_groups("database: nina, oskar,", {"nina": "user:1", "oskar": "user:2"}) == {
        "database": ["user:1", "user:2"]
    }
    assert read_deputies(
        "nina by oskar from 2026-12-01 to 2026-12-01", {"nina": "user:1", "oskar": "user:2"}
    ) == [
        {
            "person": "user:1",
            "deputy": "user:2",
            "from": "2026-12-01T00:00:00+00:00",
            "to": "2026-12-02T00:00:00+00:00",
        }
    ]


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (read_needs, "approver"),
        (read_needs, "2 approver"),
        (read_needs, "x role approver"),
        (lambda text, _: read_groups(text, {}), "database nina"),
        (lambda text, _: read_groups(text, {}), "database: nina"),
        (lambda text, _: read_groups(text, {"n": "1"}), "a: n\na: n"),
        (lambda text, _: read_deputies(text, {}), "nina by oskar"),
        (lambda text, _: read_deputies(text, {"n": "1", "o": "2"}), "n by o from 2026-13-01 to 2026-12-01"),
        (lambda text, _: read_deputies(text, {"n": "1", "o": "2"}), "n by o from 2026-12-01 to 9999-12-31"),
        (lambda text, _: read_deputies(text, {"n": "1", "o": "2"}), "n by o from 1999-12-31 to 2026-12-01"),
        (read_needs, f"{'9' * 5000} role approver"),
    ],
)
def test_what_is_not_understood_is_refused(read, text):
    with pytest.raises(BadInput):
        read(text, "x")
