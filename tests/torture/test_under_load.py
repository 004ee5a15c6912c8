"""The short form of `make torture`, in every run of the suite: teams carry upgrades through while processes and stores die."""

import random
from collections import defaultdict

from tests.torture.place import Place
from tests.torture.points import POINTS
from tests.torture.rounds import check, crash_points, each_fault, several_at_once

IN_THE_SUITE = (
    "a worker is killed",
    "a worker is frozen for three leases and wakes up",
    "Redis loses everything (FLUSHALL)",
    "Redis is killed and away for 5 s",
    "PostgreSQL is killed with all its processes",
    "what PostgreSQL did is done and its answers are lost, for 5 s",
    "each agent in another way",
    "answers of the pages are lost for 8 s",
)


def test_upgrades_go_through_whatever_dies(tmp_path):
    """A kill at every crash point, eight faults, and some of them at once; nothing is lost, opened or done twice."""
    times, chance = defaultdict(list), random.Random(1)
    with Place(tmp_path / "place") as place:
        with place.crew(seed=1):
            crash_points(place, chance, print)
            each_fault(place, chance, times, print, IN_THE_SUITE)
            several_at_once(place, chance, times, print, trials=1)
        check(place, final=True)
        assert {path.stem for path in place.points.glob("*.hit")} == set(POINTS)
        assert set(times) == {*IN_THE_SUITE, "several at once"}
        (ended,) = place.query("SELECT count(*) FROM upgrades_run WHERE status = 'ended'")[0]
        assert ended > 0
