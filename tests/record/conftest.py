"""A run with evidence, and an auditor's own things. Imports of the application wait until Django is set up."""

import importlib.util
import subprocess
import sys

import pytest


@pytest.fixture
def vault(tmp_path):
    from tests.record.scene import Vault

    return Vault(tmp_path)


@pytest.fixture
def stage(db, monkeypatch):
    """A run that stands in the middle of things, with two files of evidence attached."""
    from tests.record.scene import attach, note
    from tests.web.run_scene import Stage, no_agents

    no_agents(monkeypatch)
    stage = Stage()
    for number in (1, 2):
        note(stage, f"All is quiet, look {number}.")
        attach(stage, f"screen {number}.txt", f"what was on screen {number}\n".encode())
    return stage


@pytest.fixture
def exported(tmp_path):
    """The bundle of a stage's run, saved as an auditor would save it."""
    from upgrades.services.exports import export_bundle

    def export(stage, name="record.zip"):
        bundle = export_bundle(stage.run_id, stage.auditor)
        path = tmp_path / name
        with bundle.file:
            path.write_bytes(bundle.file.read())
        assert path.stat().st_size == bundle.size
        return path

    return export


@pytest.fixture
def verify():
    """The verifier as an auditor runs it: exit code and what it said."""
    from upgrades.services.exports import verifier

    def run(*arguments):
        command = [sys.executable, "-I", str(verifier()), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode, done.stdout

    return run


@pytest.fixture(scope="session")
def verifier_module():
    """The verifier's own functions."""
    from upgrades.services.exports import verifier

    spec = importlib.util.spec_from_file_location("verify_record", verifier())
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
