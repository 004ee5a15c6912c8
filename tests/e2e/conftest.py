"""The whole product as a new user starts it: the launcher of `make demo`, with its own stores, on free ports."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from runbook.stores import Stores, free_port

ROOT = Path(__file__).resolve().parent.parent.parent
NOT_OURS = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "DJANGO_SETTINGS_MODULE", "RUNBOOK_HTTPS")


class Demo:
    """A demo that runs: its address, and what it printed until it was ready."""

    def __init__(self, url: str, said: str, process: subprocess.Popen[str]) -> None:
        self.url, self.said, self.process = url, said, process


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo, ended with Ctrl-C when the module is over; whatever it started must be gone then."""
    folder = tmp_path_factory.mktemp("demo")
    folder.chmod(0o711)
    environment = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
    environment |= {
        "RUNBOOK_PORT": str(free_port()),
        "RUNBOOK_SIMULATOR_PORT": str(free_port()),
        "EVIDENCE_FOLDER": str(folder / "evidence"),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "runbook.demo", "--folder", str(folder / "var")],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # As from a terminal. Whatever a shell starts in the background is deaf to it, and so are its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    said = []
    for line in process.stdout:
        said.append(line)
        if "The environment to begin with" in line:
            break
    else:
        process.communicate(timeout=60)
        pytest.fail("The demo did not start:\n" + "".join(said))
    started = psutil.Process(process.pid).children(recursive=True)
    yield Demo(f"http://127.0.0.1:{environment['RUNBOOK_PORT']}", "".join(said), process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=90)
    left = [child for child in started if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert not left, f"the demo left behind: {left}"


@pytest.fixture(scope="module")
def manage(tmp_path_factory):
    """Runs a command of manage.py on stores of its own; the finished process with what it printed."""
    folder = tmp_path_factory.mktemp("rehearsals")
    folder.chmod(0o711)  # PostgreSQL may run under another account and must pass
    stores = Stores(folder / "stores")
    environment = {name: value for name, value in os.environ.items() if name != "SIMULATOR_URL"}
    environment |= stores.start().environment()

    def run(*command):
        return subprocess.run(
            [sys.executable, "manage.py", *command], cwd=ROOT, env=environment, capture_output=True, text=True
        )

    try:
        migrated = run("migrate", "--noinput")
        assert migrated.returncode == 0, migrated.stderr[-3000:]
        yield run
    finally:
        stores.stop()
