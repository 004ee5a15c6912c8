"""Each procedure in its scenarios, headless: simulated servers with real agents, real workers, real stores."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runbook.stores import Stores
from upgrades.services.rehearsal_scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def manage(tmp_path_factory):
    """Runs a command of manage.py on stores of its own; what it printed."""
    folder = tmp_path_factory.mktemp("rehearsals")
    folder.chmod(0o711)
    stores = Stores(folder / "stores")
    environment = {name: value for name, value in os.environ.items() if name != "SIMULATOR_URL"}
    environment |= stores.start().environment()

    def run(*command):
        done = subprocess.run(
            [sys.executable, "manage.py", *command], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        return done.stdout

    try:
        run("migrate", "--noinput")
        yield run
    finally:
        stores.stop()


@pytest.mark.requirement("LCA-W")
@pytest.mark.requirement("LCA-L")
@pytest.mark.requirement("LCA-3a")
@pytest.mark.requirement("ML-6")
@pytest.mark.requirement("ML-7")
@pytest.mark.parametrize("procedure", ["lca", "management-layer"])
def test_every_scenario_ends_as_it_must(manage, procedure):
    said = manage("rehearse", procedure, "--all")
    ended = re.findall(rf"^{procedure}, (\S+): ended as it must$", said, re.MULTILINE)
    assert ended == list(SCENARIOS[procedure])
