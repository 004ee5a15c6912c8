"""`python -m simulator serve --listen 127.0.0.1:7200 --root DIR [--world frankfurt]`."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from simulator.agents import AgentFailed
from simulator.hall import AGENT_COMMAND, Hall
from simulator.service import Service, serve
from simulator.spec import WORLDS


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    address, _, port = options.listen.rpartition(":")
    command = shlex.split(options.agent_command) if options.agent_command is not None else AGENT_COMMAND
    hall = Hall(Path(options.root), agent_command=command)
    try:
        service = Service((address, int(port)), hall)
    except (OSError, ValueError) as error:
        return _complain(f"The simulator cannot listen on {options.listen}: {error}")
    try:
        hall.open()
        if options.world:
            hall.ensure(options.world)
    except AgentFailed as error:
        hall.close()
        return _complain(str(error))
    sys.stdout.write(f"listening on {service.url}\n")
    sys.stdout.flush()
    serve(service, hall)
    return 0


def _complain(text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulator", description="Simulated worlds of servers.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("serve", help="serve worlds over HTTP on a loopback address")
    command.add_argument(
        "--listen", default="127.0.0.1:7200", help="address and port; port 0 takes a free one"
    )
    command.add_argument("--root", required=True, help="folder in which the worlds live")
    command.add_argument("--world", choices=sorted(WORLDS), help="make this world unless it is there")
    command.add_argument(
        "--agent-command", help="command line of an agent, with {config}; empty for worlds without agents"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
