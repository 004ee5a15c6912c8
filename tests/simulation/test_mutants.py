"""The checker finds each fault that is planted in the core, within so many walks."""

import pytest

from tests.simulation.casts import NAMES
from tests.simulation.checker.invariants import check, differences
from tests.simulation.mutants import MUTANTS
from tests.simulation.walk import Walk
from upgrades.domain import gates

WALKS = 200  # of the procedures in which the fault can show; most are found within ten


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_fault_is_found(mutant, monkeypatch):
    gates._followed.cache_clear()
    mutant.plant(monkeypatch.setattr)
    try:
        found = set()
        for seed in range(WALKS):
            name = mutant.procedures[seed % len(mutant.procedures)]
            found |= caught(mutant, seed, name)
            if found & mutant.caught_as:
                return
        pytest.fail(f"{WALKS} walks, and only {sorted(found)} was found")
    finally:
        monkeypatch.undo()
        gates._followed.cache_clear()


def caught(mutant, seed, name):
    tale = Walk(seed, name=name).play()
    found = check(tale)
    if "I12" in mutant.caught_as:
        found += differences(tale, Walk(seed, name=name, skewed=True).play())
    return {violation.invariant for violation in found}


def test_there_are_enough_of_them_and_they_reach_every_invariant():
    assert len(MUTANTS) >= 20
    assert set().union(*(mutant.caught_as for mutant in MUTANTS)) >= {
        "I1",
        "I2",
        "I3",
        "I4",
        "I7",
        "I8",
        "I11",
    }
    assert set().union(*(mutant.procedures for mutant in MUTANTS)) <= set(NAMES)
