"""Each procedure in its scenarios, headless: simulated servers with real agents, real workers, real stores."""

import re

import pytest

from upgrades.services.rehearsal_scenarios import SCENARIOS

pytestmark = pytest.mark.processes


@pytest.mark.requirement("LCA-W")
@pytest.mark.requirement("LCA-L")
@pytest.mark.requirement("LCA-3a")
@pytest.mark.requirement("ML-6")
@pytest.mark.requirement("ML-7")
@pytest.mark.parametrize("procedure", ["lca", "management-layer"])
def test_every_scenario_ends_as_it_must(manage, procedure):
    done = manage("rehearse", procedure, "--all")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    ended = re.findall(rf"^{procedure}, (\S+): ended as it must$", done.stdout, re.MULTILINE)
    assert ended == list(SCENARIOS[procedure])
