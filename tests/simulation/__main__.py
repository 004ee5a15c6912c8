"""`python -m tests.simulation`: many seeded walks over all processors, checked, with a table of what they reached.

The base of the seeds is printed first and last. A walk in which the checker finds something writes its history into
the folder and prints the command that repeats it; any such walk makes the program fail.
"""

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

from tests.simulation.casts import NAMES, text_of
from tests.simulation.results import walk, walked
from tests.simulation.walk import Walk, history_hash

PROGRESS = 10  # seconds


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="how many walks")
    parser.add_argument("--base", type=int, help="the first seed; drawn by lot where it is left out")
    parser.add_argument("--seed", type=int, help="repeat this one walk")
    parser.add_argument("--procedure", choices=NAMES, help="walk through this one only")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--folder", type=Path, default=Path("var/walks"), help="where histories of red walks go"
    )
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return _repeat(options)
    base = options.base if options.base is not None else random.SystemRandom().randrange(10**9)
    _say(f"Seeds {base} to {base + options.runs - 1}.")
    reached = _Reached()
    seeds = [(base + number, options.procedure) for number in range(options.runs)]
    began = told = time.monotonic()
    with get_context("spawn").Pool(options.processes) as pool:
        for done, result in enumerate(pool.imap_unordered(walked, seeds, chunksize=20), 1):
            reached.take(result, options.folder)
            if time.monotonic() - told > PROGRESS:
                told = time.monotonic()
                _say(
                    f"{done} of {options.runs} walks, {done / (told - began):.0f} a second, {reached.red} red"
                )
    reached.tell(wholly=options.procedure is None)
    _say(
        f"{options.runs} walks, {reached.events} events, {time.monotonic() - began:.0f} s, {reached.red} red."
    )
    _say(f"Seeds {base} to {base + options.runs - 1}.")
    return 1 if reached.red else 0


def _repeat(options):
    result = walk(options.seed, options.procedure)
    tale = Walk(options.seed, name=options.procedure).play()
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / f"{options.seed}.json"
    path.write_text(json.dumps(tale, indent=1, sort_keys=True))
    _say(f"Seed {options.seed}: {result['name']}, {result['events']} events, endings {result['endings']}.")
    _say(f"History {history_hash(tale)} in {path}")
    for violation in result["found"]:
        _say(violation)
    return 1 if result["found"] else 0


class _Reached:
    """What all walks came to, for the table at the end."""

    def __init__(self):
        self.endings, self.steps = {name: Counter() for name in NAMES}, {name: set() for name in NAMES}
        self.red = self.events = 0

    def take(self, result, folder):
        self.events += result["events"]
        for name, ending in result["endings"]:
            self.endings[name][ending] += 1
        for name, step in result["steps"]:
            self.steps[name].add(step)
        if result["found"]:
            self.red += 1
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{result['seed']}.json"
            path.write_text(json.dumps(result["tale"], indent=1, sort_keys=True))
            _say(f"Seed {result['seed']} ({result['name']}) is red; its history is {path}. Repeat it:")
            _say(f"  make walks SEED={result['seed']}")
            for violation in result["found"][:5]:
                _say(f"  {violation}")

    def tell(self, *, wholly):
        _say(f"{'procedure':32} {'steps begun':>12}  endings")
        for name in NAMES:
            if not self.endings[name] and not wholly:
                continue
            endings = ", ".join(f"{ending} {count}" for ending, count in sorted(self.endings[name].items()))
            _say(f"{name:32} {len(self.steps[name]):>5} of {len(text_of(name).steps):<3}  {endings}")
            missing = [step.id for step in text_of(name).steps if step.id not in self.steps[name]]
            if missing:
                _say(f"{'':32} never begun: {', '.join(missing)}")


def _say(text):
    print(text, flush=True)  # noqa: T201 - a program for the shell


if __name__ == "__main__":
    sys.exit(main())
