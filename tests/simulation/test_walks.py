"""Seeded walks through every shipped procedure, each judged by the checker; `make walks` takes many more."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.__main__ import main
from tests.simulation.casts import NAMES, TEXTS, text_of
from tests.simulation.checker import invariants
from tests.simulation.desk import stored_text
from tests.simulation.results import walk
from tests.simulation.walk import Walk, history_hash
from upgrades.adapters import event_store
from upgrades.domain.run_events import Recorded

WALKS = 300
CHECKER = Path(invariants.__file__).parent
ROOT = CHECKER.parents[2]


@pytest.mark.parametrize("name", NAMES)
def test_walks_through_a_procedure_break_no_invariant(name):
    each = -(-WALKS // len(NAMES))
    at = NAMES.index(name)
    results = [walk(number * len(NAMES) + at) for number in range(each)]
    assert all(result["name"] == name for result in results)
    found = {f"make walks SEED={result['seed']}": result["found"] for result in results if result["found"]}
    assert found == {}


def test_every_procedure_that_is_shipped_is_walked_through():
    assert set(NAMES) == {path.parent.name for path in (ROOT / "upgrades/procedures").glob("*/1.yaml")}
    assert len(TEXTS) == 16
    assert all(text_of(name).steps for name in NAMES)


@pytest.mark.parametrize("name", ["config-server-ha", "lca", "rollback-folders"])
def test_the_same_seed_gives_the_same_history_in_any_process(name):
    program = (
        "from tests.simulation.walk import Walk, history_hash;"
        f"print(history_hash(Walk(7, name={name!r}).play()), end='')"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": order},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for order in ("1", "2")
    }
    assert hashes == {history_hash(Walk(7, name=name).play())}


def test_the_program_walks_in_processes_and_repeats_one(tmp_path, capsys):
    given = ["--base", "160", "--folder", str(tmp_path), "--processes", "2"]
    assert main([*given, "--runs", "16"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == told[-1] == "Seeds 160 to 175."
    assert any(line.startswith("lca ") and "completed 1" in line for line in told)
    assert main([*given, "--seed", "163"]) == 0
    assert json.loads((tmp_path / "163.json").read_text())["seed"] == 163


def test_other_clocks_make_no_difference_to_what_a_run_decides():
    tales = [Walk(3, name="config-server-ha", skewed=skewed).play() for skewed in (False, True)]
    assert history_hash(tales[0]) != history_hash(tales[1]), "the clocks do differ"
    assert invariants.differences(*tales) == []


def test_the_checker_imports_nothing_of_the_application():
    own = f"{'tests.simulation.checker'}"
    for path in CHECKER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in names:
                assert name.startswith(own) or name.partition(".")[0] in sys.stdlib_module_names, path


def test_the_checker_runs_by_itself_on_a_written_history(tmp_path):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    tale = Walk(5, name="lrm-removal").play()
    good.write_text(json.dumps(tale))
    del tale["runs"][0]["events"][3]
    bad.write_text(json.dumps(tale))
    code = "import sys; from tests.simulation.checker.__main__ import main; found = main(sys.argv[1:]);"
    code += "assert not {'upgrades', 'django', 'yaml'} & set(sys.modules); sys.exit(found)"
    runs = [
        subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True)
        for path in (good, bad)
    ]
    assert [run.returncode for run in runs] == [0, 1], runs[0].stdout + runs[0].stderr
    assert "I7: run 1, event 4: the chain of stored events is broken here" in runs[1].stdout


def test_a_walk_stores_events_as_the_event_store_does():
    run = Walk(2, name="config-server-ha")
    run.play()
    for stored in run.desk.runs[0].events:
        recorded = event_store.read(stored["text"])
        assert event_store.text_of(1, recorded) == stored["text"] == stored_text(1, recorded)
        assert event_store.record(recorded.seq, [recorded.event], by=recorded.by, at=recorded.at) == [
            Recorded(recorded.seq, recorded.at, recorded.by, recorded.event)
        ]
