"""A whole environment planned and carried out headless: every run of its plan, with real agents, workers and stores."""

import re

import pytest

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def carried_out(manage):
    """What `rehearse --plan` printed about the small environment of two sites."""
    done = manage("rehearse", "--plan", "two-small-sites", "--speed", "40")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


def started(said):
    """The runs of the plan in the order in which they were started, by their procedures; "by hand" where there is none."""
    lines = re.findall(r"run \d+ started: .*? \(([a-z-]+)\)|(done by hand), by its own guide", said)
    return [procedure or hand for procedure, hand in lines]


@pytest.mark.requirement("CS-W3")
@pytest.mark.requirement("INT-1")
@pytest.mark.requirement("LCA-P2")
@pytest.mark.requirement("CS-P3")
def test_the_whole_environment_reaches_its_targets_in_the_order_of_the_plan(carried_out):
    procedures = started(carried_out)
    assert sorted(procedures) == sorted(
        [
            *["management-layer"] * 2,
            "done by hand",
            *["lca"] * 3,
            *["config-server-ha", "config-server-proxy-ha", "config-server-proxy"],
        ]
    )
    place = procedures.index
    assert place("management-layer") < place("lca") < place("config-server-ha")
    assert place("done by hand") < place("config-server-ha")
    assert place("config-server-ha") < place("config-server-proxy-ha")
    assert "8 runs, all at their targets" in carried_out


def test_what_nothing_holds_runs_side_by_side(carried_out):
    """Which ones depends on how fast the machine is; that some do does not."""
    beside = re.findall(r"run \d+ started: (.+), beside [12] more", carried_out)
    assert beside


def test_the_record_of_all_its_runs_is_sound_afterwards(carried_out, manage):
    checked = manage("verify")
    assert checked.returncode == 0, checked.stdout + checked.stderr
