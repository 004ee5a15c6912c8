"""Many real agents in one process: `python -m upgrades.bench.agents FOLDER COUNT` prints a JSON list of their addresses.

Each has its own port, key, log folder and threads, exactly as when it is started alone; only the interpreter is
shared, and with it one processor core. So the figures are worse than those of agents on hosts of their own.
"""

from __future__ import annotations

import json
import secrets
import signal
import sys
import threading
from pathlib import Path

from agent import configuration
from agent.server import Agent, Server


def name_of(number: int) -> str:
    return f"bench-{number:04d}"


def application_of(number: int) -> str:
    """Even numbers hold the primary of a pair, odd ones its backup."""
    return "confserv_b" if number % 2 else "confserv"


def log_of(folder: Path, number: int) -> Path:
    return folder / name_of(number) / f"{application_of(number)}.log"


def _folder(folder: Path, application: str) -> str:
    """What the probes of the first steps look for: a server that is installed and does not run."""
    folder.mkdir()
    (folder / "confserv.conf").write_text(f"[{application}]\nport=2020\n")
    (folder / "run.sh").write_text(f"./confserv -s {application}\n")
    return str(folder)


def serve(folder: Path, number: int) -> tuple[Server, str]:
    """The agent of that number, listening; and its secret."""
    log, secret = log_of(folder, number), secrets.token_hex(32)
    log.parent.mkdir(parents=True)
    log.write_text("Local time:       2026-11-24T10:00:00.000\n")
    file = log.parent / "agent.json"
    application = {
        "name": application_of(number),
        "type": "ConfigurationServer",
        "log": {"folder": str(log.parent), "pattern": "confserv*.log"},
        "folders": {
            name: _folder(log.parent / name, application_of(number)) for name in ("prepared", "kept")
        },
        "configuration": "confserv.conf",
        "start-file": "run.sh",
        "process": {"pid-file": str(log.parent / "server.pid")},
    }
    written = {
        "agent": name_of(number),
        "listen": "127.0.0.1:0",
        "keys": [{"id": "k1", "secret": secret}],
        "applications": [application, {"name": f"scs-{number}", "type": "SCS"}],
    }
    file.touch(mode=0o600)
    file.write_text(json.dumps(written))
    return Server(Agent(configuration.load(str(file)))), secret


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    over = threading.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: over.set())
    addresses = []
    for number in range(count):
        server, secret = serve(folder, number)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 1.0}, daemon=True).start()
        addresses.append({"agent": name_of(number), "url": server.url, "secret": secret})
    sys.stdout.write(json.dumps(addresses) + "\n")
    sys.stdout.flush()
    over.wait()


if __name__ == "__main__":
    main()
