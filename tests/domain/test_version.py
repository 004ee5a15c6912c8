"""Versions are compared part by part, as numbers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upgrades.domain.version import NotAVersion, Version


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ("8.1.3", "8.5"),
        ("8.5", "8.5.0.1"),
        ("8.9", "8.10"),
        ("8.5.99", "8.5.101"),
        ("8", "8.0.1"),
        ("8.5.101.9", "8.5.101.38"),
    ],
)
@pytest.mark.bad_input("E11")
def test_order(less, more):
    assert Version.parse(less) < Version.parse(more)
    assert Version.parse(more) > Version.parse(less)
    assert Version.parse(less) != Version.parse(more)


@pytest.mark.parametrize(
    ("one", "other"), [("8.5", "8.5.0"), ("8", "8.0.0.0"), ("08.5", "8.5"), (" 8.5 ", "8.5")]
)
def test_equal_however_written(one, other):
    assert Version.parse(one) == Version.parse(other)
    assert hash(Version.parse(one)) == hash(Version.parse(other))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "8.",
        ".5",
        "8..5",
        "8,5",
        "v8.5",
        "8.5-1",
        "8.x",
        "1e3",
        "8.5.1.1.1.1.1",
        "1234567",
        "٨.٥",
        "8.5\n9",
    ],
)
@pytest.mark.bad_input("E11")
def test_no_versions(text):
    with pytest.raises(NotAVersion, match="is not a version"):
        Version.parse(text)


VERSIONS = st.lists(st.integers(0, 300), min_size=1, max_size=6).map(
    lambda parts: Version.parse(".".join(map(str, parts)))
)


@settings(deadline=None)
@given(VERSIONS, VERSIONS, VERSIONS)
def test_the_order_is_total_and_fits_equality(one, two, three):
    assert (one < two) + (one == two) + (one > two) == 1
    if one == two:
        assert hash(one) == hash(two)
    if one <= two <= three:
        assert one <= three
