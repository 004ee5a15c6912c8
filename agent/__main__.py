"""`python -m agent --config FILE`, or the same as one file: `python runbook-agent.pyz --config FILE`."""

import os
import sys
import types

if not __package__:
    # Inside the one-file form the modules lie at the top; they are made the package `agent` that they are elsewhere.
    package = types.ModuleType("agent")
    package.__path__ = [os.path.dirname(os.path.abspath(__file__))]  # type: ignore[attr-defined,unused-ignore]
    sys.modules["agent"] = package

from agent.starting import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
