"""The HTTP control, over a real socket, with a stand-in for the agent."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from simulator.agents import AgentFailed
from simulator.hall import Hall
from simulator.service import Service

REPOSITORY = Path(__file__).resolve().parents[2]

STAND_IN = textwrap.dedent("""\
    import json, signal, socket, sys
    configuration = json.load(open(sys.argv[1]))
    assert set(configuration) == {"agent", "listen", "keys", "applications"}
    listener = socket.create_server(("127.0.0.1", int(configuration["listen"].rpartition(":")[2])))
    print("listening on http://" + configuration["listen"], flush=True)
    signal.pause()
""")


@pytest.fixture
def stand_in(tmp_path):
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    return (sys.executable, "-W", "ignore", str(path), "{config}")


class Client:
    def __init__(self, url):
        self.url = url

    def __call__(self, method, path, body=None, kind="application/json", **headers):
        """Status and content of the answer."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = Request(self.url + path, data, {"Content-Type": kind, **headers}, method=method)
        try:
            with urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)


class Running:
    """A service in this process."""

    def __init__(self, root, command):
        self.hall = Hall(root, agent_command=command)
        self.hall.open()
        self.service = Service(("127.0.0.1", 0), self.hall)
        self.thread = threading.Thread(target=self.service.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        self.ask = Client(self.service.url)

    def close(self):
        self.service.shutdown()
        self.service.server_close()
        self.thread.join()
        self.hall.close()


@pytest.fixture
def run(tmp_path):
    """Start services: `run()`, `run(command)`; all end with the test."""
    started = []

    def start(command=()):
        started.append(Running(tmp_path / "root", command))
        return started[-1]

    yield start
    for running in started:
        if running.thread.is_alive():
            running.close()


def until(condition, seconds=20.0):
    """Await a condition; fails when it does not come true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)
    return found


def make(ask, **wish):
    status, world = ask("POST", "/worlds", {"world": "frankfurt", "speed": 100, **wish})
    assert status == 201
    return world


def server(ask, identity, name):
    _, world = ask("GET", f"/worlds/{identity}?lines=500")
    return next(one for one in world["servers"] if one["name"] == name)


def test_a_world_is_made_played_and_removed(run):
    ask = run().ask
    world = make(ask)
    path = f"/worlds/{world['world']}"
    assert world["roles"] == {"new": "confserv_b", "old": "confserv"}
    actions = [
        {"action": name, "server": "confserv_b"} for name in ("install", "stop", "replace-folder", "start")
    ]
    status, answer = ask("POST", f"{path}/act", {"actions": actions})
    assert status == 200
    assert len(answer["done"]) == 4
    until(lambda: server(ask, world["world"], "confserv_b")["mode"] == "upgrade-mode")
    assert any(" 22170 " in line for line in server(ask, world["world"], "confserv_b")["log"]["lines"])
    folder = Path(world["servers"][0]["log"]["folder"])
    assert ask("DELETE", path) == (200, {"removed": world["world"]})
    assert not folder.exists()
    assert ask("GET", path)[0] == 404


def test_health_and_scenarios_say_what_there_is(run):
    ask = run().ask
    assert ask("GET", "/health") == (200, {"state": "up", "worlds": 0})
    _, answer = ask("GET", "/scenarios")
    assert answer["scenarios"]["automatic"]["events"] == ["21-22911", "21-25301", "21-22902", "21-22170"]
    assert "split-brain" in answer["misbehaviours"]
    assert answer["worlds"]["frankfurt"]["clients"] == 84


def test_worlds_and_agents_outlive_the_service(run, stand_in):
    first = run(stand_in)
    world = make(first.ask)
    first.ask("POST", f"/worlds/{world['world']}/act", {"action": "stop", "server": "confserv_b"})
    first.ask("POST", f"/worlds/{world['world']}/misbehave", {"what": "silent", "server": "scs"})
    first.close()
    second = run(stand_in)
    _, again = second.ask("GET", f"/worlds/{world['world']}")
    assert again["agents"] == world["agents"]  # ids, keys, ports, and up
    assert [agent["state"] for agent in again["agents"]] == ["up", "up", "up"]
    assert server(second.ask, world["world"], "confserv_b")["mode"] == "down"
    assert server(second.ask, world["world"], "scs")["misbehaviours"] == {"silent": True}


def test_an_agent_is_stopped_and_started_on_request(run, stand_in):
    ask = run(stand_in).ask
    path = f"/worlds/{make(ask)['world']}"

    def states():
        return [agent["state"] for agent in ask("GET", path)[1]["agents"]]

    ask("POST", f"{path}/misbehave", {"what": "agent-down", "host": "fra-cfg-02"})
    assert states() == ["up", "down", "up"]
    ask("POST", f"{path}/misbehave", {"what": "agent-down", "host": "fra-cfg-02", "value": False})
    assert states() == ["up", "up", "up"]


def pids(root):
    return [int(path.read_text() or 0) for path in sorted(root.glob("worlds/*/agents/*.pid"))]


def test_agents_left_behind_by_a_killed_service_are_ended_and_replaced(run, stand_in, tmp_path, monkeypatch):
    # The first service stays open, but looks after nothing: to the second it is as if it had been killed.
    monkeypatch.setattr("simulator.hall.LOOK_AFTER_SECONDS", 3600)
    world = make(run(stand_in).ask)
    before = pids(tmp_path / "root")
    second = Running(tmp_path / "root", stand_in)
    try:
        after = pids(tmp_path / "root")
        agents = second.ask("GET", f"/worlds/{world['world']}")[1]["agents"]
    finally:
        second.close()  # else its thread would outlive a failed test, and pytest with it
    assert not set(before) & set(after)
    assert agents == world["agents"]


def test_an_agent_that_dies_is_started_again(run, stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr("simulator.hall.LOOK_AFTER_SECONDS", 0.05)
    make(run(stand_in).ask)
    before = pids(tmp_path / "root")
    os.kill(before[0], signal.SIGKILL)
    until(lambda: pids(tmp_path / "root")[0] not in (0, before[0]))


def test_a_world_whose_agent_does_not_start_leaves_nothing_behind(tmp_path):
    hall = Hall(tmp_path, agent_command=(sys.executable, "-c", "raise SystemExit('no such key')"))
    hall.open()
    with pytest.raises(AgentFailed, match="no such key"):
        hall.make({})
    hall.close()
    assert list((tmp_path / "worlds").iterdir()) == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/worlds", {"colour": "red"}, 400, "Unknown key 'colour'"),
        ("POST", "/worlds", {"world": "atlantis"}, 400, "no known world"),
        ("POST", "/worlds", b"{", 400, "not JSON"),
        ("POST", "/worlds", b"[" * 200000, 400, "not JSON"),
        ("GET", "/worlds/..%2f..", None, 404, "no world"),
        ("GET", "/nothing", None, 404, "Nothing answers"),
        ("POST", "/worlds/ID/act", {"action": "start", "server": "confserv"}, 409, "runs already"),
        (
            "POST",
            "/worlds/ID/act",
            {"action": "set-option", "server": "scs", "section": 1, "option": 2},
            409,
            "plain",
        ),
        ("POST", "/worlds/ID/misbehave", {"what": "dance"}, 409, "What shall go wrong"),
        ("GET", "/worlds/ID?lines=many", None, 400, "lines is a whole number"),
    ],
)
def test_a_bad_request_is_answered_with_a_sentence(run, method, path, body, status, words):
    ask = run().ask
    path = path.replace("ID", make(ask)["world"])
    found, answer = ask(method, path, body)
    assert found == status
    assert re.search(words, answer["error"])


def test_what_a_foreign_page_could_send_is_refused(run):
    ask = run().ask
    assert ask("POST", "/worlds", {}, kind="text/plain")[0] == 400
    assert ask("GET", "/worlds", Host="evil.example:80")[0] == 400


def test_only_loopback_addresses_are_listened_on(tmp_path):
    with pytest.raises(ValueError, match="loopback"):
        Service(("0.0.0.0", 0), Hall(tmp_path, agent_command=()))


def start_process(root, *more):
    command = [
        sys.executable,
        "-m",
        "simulator",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--root",
        str(root),
        *more,
    ]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert line.startswith("listening on http://127.0.0.1:"), line
    return process, Client(line.split()[-1])


def end(process):
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    process.stdout.close()


@pytest.mark.processes
def test_the_process_ends_its_real_agents_and_brings_them_back(tmp_path):
    process, ask = start_process(tmp_path, "--world", "frankfurt")
    world = ask("GET", "/worlds")[1]["worlds"][0]["world"]
    before = ask("GET", f"/worlds/{world}")[1]["agents"]
    assert [agent["state"] for agent in before] == ["up"] * 3
    pids = [int(path.read_text()) for path in tmp_path.glob("worlds/*/agents/*.pid")]
    end(process)
    assert all(not Path(f"/proc/{pid}").exists() for pid in pids)
    process, ask = start_process(tmp_path, "--world", "frankfurt")
    assert [one["world"] for one in ask("GET", "/worlds")[1]["worlds"]] == [world]
    assert ask("GET", f"/worlds/{world}")[1]["agents"] == before
    end(process)


def test_a_step_is_done_as_its_procedure_says(run):
    service = run()
    world = service.ask("POST", "/worlds", {"world": "frankfurt"})[1]["world"]
    roles = {"new": "confserv_b", "old": "confserv"}

    status, content = service.ask("POST", f"/worlds/{world}/do-step", {"step": "install-new", "roles": roles})

    assert (status, content["done"][0].split()[0]) == (200, "confserv_b")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param({"step": "clients-moved", "roles": {}}, 409, id="nothing is done in this step"),
        pytest.param({"step": "launch-new", "roles": {}}, 400, id="a role is missing"),
        pytest.param({"roles": {}}, 400, id="no step"),
        pytest.param({"step": "launch-new", "roles": []}, 400, id="roles are no object"),
    ],
)
def test_a_step_that_cannot_be_done_is_refused_with_a_reason(run, body, status):
    service = run()
    world = service.ask("POST", "/worlds", {"world": "frankfurt"})[1]["world"]

    assert service.ask("POST", f"/worlds/{world}/do-step", body)[0] == status
