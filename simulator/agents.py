"""The agents of a world: one process per host, started from a command line that whoever serves the worlds
gives."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

READY = "listening on"
READY_SECONDS = 20.0
END_SECONDS = 5.0
REVIVALS = 5


class AgentFailed(Exception):
    """An agent that did not begin to listen; the text has its last words."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # A port that waits in TIME_WAIT is free for a server.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


class AgentProcess:
    """The agent of one host. Its configuration, keys and port are files below `folder`, so they outlive a
    restart."""

    def __init__(self, host: str, folder: Path, command: Sequence[str], working_folder: Path) -> None:
        self.host = host
        self._folder = folder
        self._command = list(command)
        self._working_folder = working_folder
        self._process: subprocess.Popen[bytes] | None = None
        self._configuration: dict[str, Any] = {}
        self._revivals = 0

    @property
    def _file(self) -> Path:
        return self._folder / f"{self.host}.json"

    @property
    def _pid_file(self) -> Path:
        return self._folder / f"{self.host}.pid"

    @property
    def _output(self) -> Path:
        return self._folder / f"{self.host}.out"

    def configure(self, content: dict[str, Any]) -> None:
        """Write the configuration; the key and the port of an earlier one are kept, the port only if it is
        free."""
        self._folder.mkdir(parents=True, exist_ok=True)
        before = json.loads(self._file.read_text()) if self._file.exists() else {}
        port = int(before["listen"].rpartition(":")[2]) if before else free_port()
        if self._end_leftover():
            # A process that ends loses its command line a moment before its sockets.
            _until(lambda: is_free(port), END_SECONDS)
        if not is_free(port):
            port = free_port()
        key = {"id": "k1", "secret": secrets.token_hex(32)}
        self._write({**content, "listen": f"127.0.0.1:{port}", "keys": before.get("keys", [key])})

    def _write(self, configuration: dict[str, Any]) -> None:
        self._configuration = configuration
        self._file.touch(mode=0o600)
        self._file.write_text(json.dumps(configuration, indent=1))

    def view(self) -> dict[str, Any]:
        """Host, address, agent id, key and state ("up", "down") as the one who registers the agent needs
        them."""
        return {
            "host": self.host,
            "url": f"http://{self._configuration['listen']}",
            "agent": self._configuration["agent"],
            "key": dict(self._configuration["keys"][0]),
            "state": "up" if self.alive else "down",
        }

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def revive(self) -> None:
        """Start an agent that died, but not for ever: one that keeps dying is left down."""
        if not self.alive and self._revivals < REVIVALS:
            self._revivals += 1
            self.start()

    def start(self) -> None:
        """Start the process; `wait_until_ready` says whether it listens."""
        if self.alive:
            return
        command = [part.replace("{config}", str(self._file)) for part in self._command]
        with self._output.open("wb") as output:
            # The command comes from whoever started the simulator, never from a request.
            self._process = subprocess.Popen(  # noqa: S603
                command, cwd=self._working_folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self._pid_file.write_text(str(self._process.pid))

    def wait_until_ready(self, seconds: float = READY_SECONDS) -> None:
        """Return when the agent has said that it listens. Raises AgentFailed when it ended or said
        nothing."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if READY in self._output.read_text(errors="replace"):
                return
            if not self.alive:
                break
            time.sleep(0.02)
        words = self._output.read_text(errors="replace").strip()[-1000:]
        self.stop()
        raise AgentFailed(f"The agent of {self.host} did not start. Its last words: {words or 'none'}")

    def ask_to_end(self) -> None:
        if self._process is not None and self.alive:
            self._process.terminate()

    def stop(self) -> None:
        """End the process and wait for it."""
        self.ask_to_end()
        if self._process is not None:
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None
        self._pid_file.unlink(missing_ok=True)

    def _end_leftover(self) -> bool:
        """End the agent that a killed simulator left behind, only one that runs with our very configuration file;
        whether there was one."""
        if not self._pid_file.exists():
            return False
        pid = int(self._pid_file.read_text() or 0)
        found = self._is_ours(pid)
        with suppress(OSError):
            if self._is_ours(pid):
                os.kill(pid, signal.SIGTERM)
                _until(lambda: not self._is_ours(pid), END_SECONDS)
        self._pid_file.unlink(missing_ok=True)
        return found

    def _is_ours(self, pid: int) -> bool:
        command_line = Path(f"/proc/{pid}/cmdline")
        return command_line.exists() and os.fsencode(self._file) in command_line.read_bytes().split(b"\0")


def _until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
