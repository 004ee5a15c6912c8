"""Starting and ending the agent."""

import argparse
import signal
import sys
import threading
import time
from typing import Any, List

from agent import configuration
from agent.server import Agent, Server

_LAST_TURN = 5.0  # seconds that answers under way get when the agent is told to end


def main(arguments: List[str]) -> int:
    """Runs the agent until it is told to end; 0 then, 2 if the configuration is not accepted, 1 if it cannot listen."""
    parser = argparse.ArgumentParser(
        prog="agent", description="Shows the log lines of this host to the runbook server."
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="configuration (JSON)")
    parser.add_argument("--check", action="store_true", help="only check the configuration")
    options = parser.parse_args(arguments)
    try:
        loaded = configuration.load(options.config)
    except configuration.Mistakes as mistakes:
        sys.stderr.write("The configuration %s is not accepted:\n" % options.config)
        sys.stderr.writelines("- %s\n" % mistake for mistake in mistakes.found)
        return 2
    for warning in configuration.warnings(options.config, loaded):
        sys.stderr.write("warning: %s\n" % warning)
    if options.check:
        print("The configuration is accepted.")
        return 0
    try:
        server = Server(Agent(loaded))
    except (OSError, ValueError) as error:
        sys.stderr.write("The agent cannot listen on %s:%d: %s\n" % (loaded.host, loaded.port, error))
        return 1
    _serve(server)
    return 0


def _serve(server: Server) -> None:
    """Serves until SIGTERM or SIGINT; polls that wait end at once, answers under way are finished."""

    def end(*_: Any) -> None:
        server.agent.stopping.set()
        # Not from this thread: it is the one that serves, and shutdown waits for it.
        threading.Thread(target=server.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    print("listening on %s" % server.url, flush=True)
    server.serve_forever(poll_interval=0.1)
    until = time.monotonic() + _LAST_TURN
    while server.answering() and time.monotonic() < until:
        time.sleep(0.02)
    server.server_close()
