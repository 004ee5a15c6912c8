"""The checker is proved: it has nothing to say of the application, and names each fault that is planted in it."""

import ast
import sys
from pathlib import Path

import pytest

from tests.agent.conftest import start_agent  # noqa: F401 - a fixture
from tests.torture import checker
from tests.torture.mutants import MUTANTS
from upgrades.domain import gates
from upgrades.services import runs

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def workload(start_agent, tmp_path, monkeypatch, evidence_folder):  # noqa: F811 - the fixture
    from tests.torture.workload import Workload

    monkeypatch.setattr(runs, "_alarm", [])
    workload = Workload(tmp_path, start_agent)
    yield workload
    workload.close()


@pytest.mark.parametrize("scene", ["acts", "logs", "signatures", "leases", "silence", "clocks"])
def test_the_checker_has_nothing_to_say_of_the_application(workload, scene):
    workload.play(scene)
    assert workload.violations() == []


@pytest.fixture
def _nothing_is_remembered():
    """What rules came to is remembered by the process; what they come to under a mutant must not be."""
    gates._followed.cache_clear()
    followed = gates._followed
    yield
    followed.cache_clear()


@pytest.mark.usefixtures("_nothing_is_remembered")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_fault_is_found(workload, mutant, monkeypatch):
    with mutant.weakened(), monkeypatch.context() as planted:
        mutant.plant(planted.setattr)
        tripped = None
        try:
            workload.play(mutant.scene)
        except Exception as trouble:  # the fault may trip the workload; what counts is what is stored
            tripped = trouble
        found = workload.violations()
    wanted = [line for line in found if line.startswith(f"{mutant.caught_as} ") and mutant.words in line]
    assert wanted, (found, tripped)


def test_the_checker_imports_nothing_but_the_standard_library_and_psycopg():
    tree = ast.parse(Path(checker.__file__).read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "it imports from beside itself"
            names.add(node.module)
    assert {name.partition(".")[0] for name in names} <= {*sys.stdlib_module_names, "psycopg"}
    assert not any(isinstance(node, ast.Name) and node.id == "__import__" for node in ast.walk(tree))


def test_there_are_enough_mutants_and_they_reach_every_invariant():
    assert len(MUTANTS) >= 14
    assert {mutant.caught_as for mutant in MUTANTS} == {f"I{number}" for number in range(1, 13)}
