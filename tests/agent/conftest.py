"""A real agent for tests: its own process, its own folders, a free port."""

import asyncio
import json
import os
import ssl
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from upgrades.adapters.agent_client import AgentAddress, AgentClient

ROOT = Path(__file__).resolve().parents[2]
SECRET = "5e" * 32
PYTHON = os.environ.get(
    "AGENT_PYTHON", sys.executable
)  # for the whole suite against an agent of another version


@dataclass
class RunningAgent:
    """An agent's process, the address to ask it at, and the log folder of each of its applications."""

    address: AgentAddress
    process: subprocess.Popen
    configuration: dict
    logs: dict[str, Path] = field(default_factory=dict)

    def write(self, application: str, text: str | bytes, name: str = "") -> Path:
        """Appends to a log file of the application (by default the one named after it)."""
        path = self.logs[application] / (name or f"{application}.log")
        with path.open("ab") as stream:
            stream.write(text.encode() if isinstance(text, str) else text)
        return path

    def end(self) -> int:
        """Ends the process as a service manager would; the exit code."""
        self.process.terminate()
        return self.process.wait(timeout=20)


def application_entry(folder: Path, name: str) -> dict:
    """An application's part of the configuration, with its folders made below `folder`."""
    for part in ("log", "current", "prepared"):
        (folder / name / part).mkdir(parents=True, exist_ok=True)
    return {
        "name": name,
        "type": "ConfigurationServer",
        "log": {"folder": str(folder / name / "log"), "pattern": f"{name}*.log"},
        "folders": {
            "current": str(folder / name / "current"),
            "prepared": str(folder / name / "prepared"),
            "kept": str(folder / name / "kept"),
        },
        "configuration": "confserv.conf",
        "start-file": "run.sh",
        "process": {"pid-file": str(folder / name / "current" / "server.pid")},
    }


def agent_configuration(folder: Path, *names: str, agent: str = "fra-cfg-01") -> dict:
    return {
        "agent": agent,
        "listen": "127.0.0.1:0",
        "keys": [{"id": "k1", "secret": SECRET}],
        "applications": [application_entry(folder, name) for name in names],
    }


@pytest.fixture
def start_agent(tmp_path):
    """A function that starts an agent with these applications; all are ended after the test.

    `change` alters the configuration before the start; `command` is what is run instead of `python -m agent`.
    """
    started = []

    def start(*names, change=lambda configuration: None, command=("-m", "agent"), agent="fra-cfg-01"):
        folder = tmp_path / agent
        configuration = agent_configuration(folder, *(names or ("confserv",)), agent=agent)
        change(configuration)
        file = folder / "agent.json"
        file.write_text(json.dumps(configuration))
        file.chmod(0o600)
        process = subprocess.Popen(
            [PYTHON, "-W", "error", *command, "--config", str(file)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        words = process.stdout.readline().split()
        assert words[:2] == ["listening", "on"]
        key = configuration["keys"][0]
        address = AgentAddress(configuration["agent"], words[2], key["id"], key["secret"])
        logs = {item["name"]: Path(item["log"]["folder"]) for item in configuration["applications"]}
        return RunningAgent(address, process, configuration, logs)

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def running(start_agent):
    """One agent that knows the application `confserv`."""
    return start_agent("confserv")


def new_client(**options) -> AgentClient:
    """A client that reads no certificate store, which takes longer than most tests."""
    options.setdefault("tls", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    return AgentClient(**options)


def ask(address: AgentAddress, question: str, *values, client: dict | None = None, **more):
    """The answer to one question: `ask(address, "poll", wait=1)`; `client` has options of the client."""

    async def answer():
        async with new_client(**(client or {})) as asking:
            return await getattr(asking, question)(address, *values, **more)

    return asyncio.run(answer())
