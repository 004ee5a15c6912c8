"""Crash points: known by name, harmless in production. `make torture` kills at each of them."""

import os
import subprocess
import sys
from collections import Counter

from tests.torture.points import POINTS, ROOT, in_the_code


def test_the_code_has_the_crash_points_that_the_tests_know_each_once():
    found = in_the_code()
    assert Counter(name for name, _ in found) == Counter(list(POINTS)), found
    assert len(POINTS) >= 40


def test_a_crash_point_does_nothing_in_production():
    from upgrades.adapters import crash_points

    assert crash_points.VARIABLE not in os.environ
    assert crash_points.crash is crash_points._pass_by
    assert crash_points.crash("act.committed") is None


def test_the_settings_refuse_crash_points_where_runbook_serves_over_https(tmp_path):
    values = {
        "SECRET_KEY": "k" * 50,
        "DATABASE_URL": "postgresql://r@h/r",
        "REDIS_URL": "redis://h",
        "RUNBOOK_CRASH_AT": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", "from django.conf import settings; settings.DEBUG"],
        env={"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "runbook.settings", **values},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "RUNBOOK_CRASH_AT is set: it kills programs on purpose" in done.stderr
