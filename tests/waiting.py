"""Waiting for what other threads and processes do; the limit only keeps a broken program from hanging the suite."""

import time

LIMIT = 90.0  # seconds


def wait_for(condition, seconds=LIMIT, what="what was awaited"):
    """The first true value of `condition`; an AssertionError that names `what` when there is none in time."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not come within {seconds:g} s"
        time.sleep(0.05)
    return found
