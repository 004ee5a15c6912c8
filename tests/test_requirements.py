"""Every demand is answered by something and proved by a test; the page that says so is up to date."""

import ast

import pytest

from tests import coverage_map


def test_every_demand_is_answered_by_an_item_or_a_rule():
    items, rules = coverage_map.items(), coverage_map.rules()
    assert [name for name in coverage_map.IDS if not items[name] and not rules[name]] == []


def test_every_demand_is_exercised_by_a_test():
    found = coverage_map.tests()
    assert [name for name in coverage_map.IDS if not found[name]] == []
    assert set(found) == set(coverage_map.IDS), "a mark names a demand that nobody knows"


def test_the_page_is_what_make_coverage_map_writes():
    assert coverage_map.PAGE.read_text("utf-8") == coverage_map.page(), (
        "run `make coverage-map` and commit it"
    )


@pytest.mark.parametrize(
    ("body", "counts"),
    [
        ("assert 'CSH-1' in step.source", False),
        ("assert 'CSH-1' in step.source\n    assert run.ending == 'completed'", True),
        ("with pytest.raises(GateClosed): complete()", True),
        ("walk()", False),
    ],
)
def test_looking_for_the_id_alone_does_not_count(body, counts):
    test = ast.parse(f"def test_it():\n    {body}").body[0]
    assert coverage_map.exercises(test, "CSH-1") is counts
