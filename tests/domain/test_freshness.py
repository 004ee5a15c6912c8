"""When what is known of a server is too old to be shown as the present state."""

from datetime import UTC, datetime, timedelta

import pytest

from upgrades.domain.freshness import CLOCKS_DIFFER, is_stale, too_old

NOW = datetime(2026, 11, 30, 3, tzinfo=UTC)
MOMENT = timedelta(milliseconds=1)


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize(
    ("beyond", "stale"),
    [(-MOMENT, False), (timedelta(), False), (MOMENT, True), (timedelta(days=1), True)],
)
def test_an_answer_is_old_after_two_polls(watched, beyond, stale):
    assert is_stale(NOW - too_old(watched=watched) - beyond, NOW, watched=watched) is stale


@pytest.mark.parametrize(("ahead", "stale"), [(CLOCKS_DIFFER, False), (CLOCKS_DIFFER + MOMENT, True)])
def test_an_answer_of_later_than_now_is_old_for_the_clock_was_set_back(ahead, stale):
    """F36: as long as the clock has not come to it again nobody could tell that the agent fell silent."""
    assert is_stale(NOW + ahead, NOW, watched=True) is stale


def test_who_never_answered_has_told_nothing_that_could_be_old():
    assert not is_stale(None, NOW, watched=True)
