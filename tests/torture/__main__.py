"""The long form: `make torture SEED=7 ROUNDS=3`. Each round, while teams work: a kill at every crash point, every fault of
`faults.py`, each in an order of its own, then several faults at once; after each the checker looks, and the time until work
went on by itself is taken. PARTS=points,faults,together leaves out the others; ONLY=text takes the faults whose name has it.

A red run leaves history, logs, seed and a dump of the database in the folder that it names.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from tests.torture.clocks import LIBRARIES
from tests.torture.disks import apart
from tests.torture.faults import CLOCK, DISKS, FAULTS
from tests.torture.place import Place
from tests.torture.rounds import check, crash_points, each_fault, several_at_once


def say(text):
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def one_round(folder, seed, parts, times, names, disks):
    chance = random.Random(seed)
    with Place(folder, disks=disks) as place:
        try:
            with place.crew(seed=seed):
                if "points" in parts:
                    crash_points(place, chance, say)
                if "faults" in parts:
                    each_fault(place, chance, times, say, names)
                if "together" in parts:
                    several_at_once(place, chance, times, say)
            check(place, final=True)
            runs, events = place.query("SELECT count(*), sum(seq) FROM upgrades_run")[0]
            lines = place.query("SELECT count(*) FROM upgrades_logline")[0][0]
            deaths = sum(len(program.deaths) for program in place.programs.values())
            say(
                f"green: 0 violations in {runs} runs with {events} events and {lines} lines; programs died {deaths} times"
            )
        except BaseException:
            dump(place)
            raise


def dump(place):
    """What the folder of a red run needs beside its own files: disks in memory are gone with this process."""
    for log in (place.folder / "stores").glob("*.log"):
        shutil.copy(log, place.folder / "log")
    program = place.stores.postgres._binaries / "pg_dump"
    with (place.folder / "database.sql").open("wb") as out:
        subprocess.run([str(program), place.admin_url], stdout=out, check=False)


def table(times):
    """The times as a table in Markdown, the worst of each."""
    lines = ["| fault | in the matrix | tried | work went on after, worst | goal |", "|---|---|---|---|---|"]
    for name in [*FAULTS, "several at once"]:
        if times[name]:
            fault = FAULTS.get(name)
            goal = f"{fault.goal} s" if fault else "60 s"
            ids = fault.ids if fault else "F52"
            lines.append(f"| {name} | {ids} | {len(times[name])} | {max(times[name]):.1f} s | {goal} |")
    return "\n".join(lines)


def main():
    seed, rounds = int(os.environ.get("SEED") or time.time()), int(os.environ.get("ROUNDS") or 1)
    parts = (os.environ.get("PARTS") or "points,faults,together").split(",")
    only = os.environ.get("ONLY", "")
    there = {"", *([DISKS] if apart() else []), *([CLOCK] if LIBRARIES else [])}
    names = [name for name, fault in FAULTS.items() if only in name and fault.needs in there]
    times = defaultdict(list)
    say(f"seed {seed}, {rounds} rounds, load average {os.getloadavg()[0]:.1f}")
    for name in [name for name, fault in FAULTS.items() if fault.needs not in there]:
        say(f"NOT TRIED, it needs {FAULTS[name].needs}: {name}")
    for number in range(rounds):
        folder = Path(tempfile.mkdtemp(prefix=f"torture-{seed + number}-"))
        say(f"round {number + 1}, seed {seed + number}")
        try:
            one_round(folder, seed + number, parts, times, names, DISKS in there)
        except AssertionError as trouble:
            (folder / "seed").write_text(str(seed + number))
            say(
                f"RED with seed {seed + number}: history, logs, seed and database.sql are in {folder}\n{trouble}"
            )
            return 1
    print(table(times))
    say(f"green, seed {seed}, {rounds} rounds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
