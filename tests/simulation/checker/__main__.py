"""`python -m tests.simulation.checker FILE …`: checks the histories that walks have written."""

import json
import sys
from pathlib import Path

from tests.simulation.checker.invariants import check


def main(names):
    bad = 0
    for name in names:
        found = check(json.loads(Path(name).read_text()))
        bad += bool(found)
        for violation in found:
            print(f"{name}: {violation}")  # noqa: T201 - a program for the shell
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
