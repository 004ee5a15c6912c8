"""The launcher: waits for health, names what went wrong, and leaves no process behind."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from runbook.demo import Options, kept_secret
from runbook.environment import SettingMistakes
from runbook.stores import free_port
from runbook.supervisor import AlreadyRunning, Program, ProgramEnded, Supervisor, answers, logs, only_one
from tests.waiting import wait_for

pytestmark = pytest.mark.processes
ROOT = Path(__file__).parent.parent
SERVES = "import time; print('ready', flush=True); time.sleep(600)"


def program(name, code, line="ready"):
    return Program(name, [sys.executable, "-c", code], logs(line))


@pytest.fixture
def said():
    return []


@pytest.fixture
def supervisor(tmp_path, said):
    supervisor = Supervisor(tmp_path, said.append)
    yield supervisor
    supervisor.stop()


def pids(folder):
    return [row["pid"] for row in json.loads((folder / "processes.json").read_text())]


def ended(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_programs_are_told_when_healthy_and_all_end(supervisor, said, tmp_path):
    supervisor.start([program("one", SERVES), program("two", SERVES)], os.environ, tmp_path)
    started = pids(tmp_path)
    supervisor.check()
    assert sorted(said) == ["one", "two"]
    assert not any(ended(pid) for pid in started)
    supervisor.stop()
    assert all(ended(pid) for pid in started)


def test_a_program_that_ends_is_named_with_the_end_of_its_log(supervisor, tmp_path):
    broken = program("web", "import sys; print('no module named upgrades'); sys.exit(3)")
    with pytest.raises(
        ProgramEnded, match=r"(?s)web has ended with code 3.*web\.log.*no module named upgrades"
    ):
        supervisor.start([broken], os.environ, tmp_path)


def test_a_program_that_is_killed_later_is_named_with_its_signal(supervisor, tmp_path):
    supervisor.start([program("worker", SERVES)], os.environ, tmp_path)
    [pid] = pids(tmp_path)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProgramEnded, match="worker was ended by SIGKILL"):
        supervisor.check()


def test_what_an_earlier_start_has_logged_does_not_count_as_healthy(supervisor, tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "beat.log").write_text("ready\n")
    with pytest.raises(ProgramEnded, match="beat has ended with code 1"):
        supervisor.start([program("beat", "raise SystemExit(1)")], os.environ, tmp_path)


def test_the_children_of_a_program_end_with_it(supervisor, tmp_path):
    child = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SERVES!r}]).pid, flush=True); "
    supervisor.start([program("worker", child + SERVES)], os.environ, tmp_path)
    grandchild = int((tmp_path / "log" / "worker.log").read_text().split()[0])
    supervisor.stop()
    wait_for(lambda: ended(grandchild))


def test_what_a_killed_launcher_left_behind_is_ended_by_the_next(tmp_path, said):
    code = (
        "import os, sys; from pathlib import Path; from runbook.supervisor import *; from tests.test_demo import *;"
        f"s = Supervisor(Path({str(tmp_path)!r}), print); s.start([program('web', SERVES)], os.environ, Path('/'));"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True)
    [left] = pids(tmp_path)
    assert not ended(left)
    Supervisor(tmp_path, said.append).end_left_overs()
    wait_for(lambda: ended(left))
    assert said == [f"web still runs from an earlier start (process {left}); ending it."]


def test_a_left_over_number_of_another_process_is_left_alone(tmp_path, said):
    me = {"name": "web", "pid": os.getpid(), "born": psutil.Process().create_time() - 1000}
    (tmp_path / "processes.json").write_text(json.dumps([me]))
    Supervisor(tmp_path, said.append).end_left_overs()
    assert said == []


def test_only_one_launcher_works_in_a_folder(tmp_path):
    with (
        only_one(tmp_path / "lock"),
        pytest.raises(AlreadyRunning, match=str(os.getpid())),
        only_one(tmp_path / "lock"),
    ):
        pass
    with only_one(tmp_path / "lock"):
        pass


def test_the_secret_is_kept_and_private(tmp_path):
    secret = kept_secret(tmp_path / "var" / "secret-key")
    assert len(secret) >= 50
    assert kept_secret(tmp_path / "var" / "secret-key") == secret
    assert (tmp_path / "var" / "secret-key").stat().st_mode & 0o077 == 0


def test_the_web_server_answers_pages_and_stream_and_ends_in_order(supervisor, tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "runbook.asgi:application", "--port", str(port)]
    site = f"http://127.0.0.1:{port}"
    supervisor.start([Program("web", command, answers(f"{site}/healthz"))], os.environ, ROOT)
    page = httpx.get(f"{site}/healthz", trust_env=False)
    assert (page.status_code, page.text) == (200, "ok\n")
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert httpx.get(f"{site}/stream/runs/1/", trust_env=False).status_code == 403, "a stream needs a ticket"
    supervisor.stop()
    assert "Application shutdown complete" in (tmp_path / "log" / "web.log").read_text()


def test_a_wrong_port_is_a_sentence():
    with pytest.raises(
        SettingMistakes, match=r"RUNBOOK_PORT is .80000.\. Set it to a whole number from 1 to 65535"
    ):
        Options.read({"RUNBOOK_PORT": "80000"})


def launch(folder, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "runbook.demo", "--folder", str(folder), *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_taken_port_is_named_with_the_variable_that_changes_it(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = launch(tmp_path, RUNBOOK_PORT=str(port))
    assert done.returncode == 1
    assert f"Port {port} on 127.0.0.1 is taken by another program." in done.stderr
    assert f"RUNBOOK_PORT={port + 1} make demo" in done.stderr


def test_a_second_start_in_the_same_folder_names_the_first(tmp_path):
    with only_one(tmp_path / "lock"):
        done = launch(tmp_path)
    assert done.returncode == 1
    assert f"Runbook runs already in {tmp_path} (process {os.getpid()})" in done.stderr


def test_one_store_address_alone_stops_the_launcher(tmp_path):
    done = launch(tmp_path, REDIS_URL="redis://127.0.0.1:1/0")
    assert done.returncode == 1
    assert "REDIS_URL is set, but DATABASE_URL is not." in done.stderr


def test_a_reset_does_not_touch_servers_of_somebody_else(tmp_path):
    done = launch(
        tmp_path, "--reset", REDIS_URL="redis://127.0.0.1:1/0", DATABASE_URL="postgresql://a@127.0.0.1:1/a"
    )
    assert done.returncode == 1
    assert "nothing is thrown away on servers of your own" in done.stderr


def test_manage_runs_a_command_on_stores_that_are_started_for_it(tmp_path):
    done = launch(
        tmp_path, "--manage", "shell", "-c", "from django.db import connection as c; c.ensure_connection()"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "stores" / "postgresql" / "PG_VERSION").exists()
    assert not (tmp_path / "stores" / "postgresql" / "postmaster.pid").exists()


def test_a_command_finds_tables_where_nothing_was_ever_started_and_no_simulator_that_does_not_run(tmp_path):
    told = "from django.conf import settings as s; from upgrades.models import Run; print(Run.objects.count(), s.SIMULATOR_URL)"
    port = str(free_port())
    done = launch(tmp_path, "--manage", "shell", "-v", "0", "-c", told, RUNBOOK_SIMULATOR_PORT=port)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "0 None"
