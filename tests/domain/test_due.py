"""Until when something may stay open."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.domain.scene import HA
from upgrades.domain.due import DUTY, burden_due
from upgrades.domain.run_state import Burden

SINCE = datetime(2026, 11, 24, 22, 0, tzinfo=UTC)


def due(burden, title=""):
    return burden_due(HA, Burden(burden, "a-step", SINCE, title=title))


def test_an_exposure_is_over_its_time_when_its_expected_length_is_over():
    kind = next(kind for kind in HA.exposures if kind.expected)
    assert due(f"exposure:{kind.id}") == SINCE + timedelta(seconds=kind.expected)


def test_an_exposure_that_the_text_does_not_know_is_never_late():
    assert due("exposure:no-such", "What another run left open") is None


@pytest.mark.parametrize(
    ("title", "late_from"),
    [
        ("Keep the former database until 2027-01-31", datetime(2027, 2, 1, tzinfo=UTC)),
        ("From 2026-12-01 until 2027-01-31", datetime(2027, 2, 1, tzinfo=UTC)),
        ("Delete the option of 2026-99-99", SINCE + DUTY),
        ("Upgrade confserv to 8.5.101 as well", SINCE + DUTY),
    ],
)
def test_a_duty_is_late_after_the_day_that_it_names_or_after_a_week(title, late_from):
    assert due("duty:any", title) == late_from
