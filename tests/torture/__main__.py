"""The long form: `make torture SEED=7 ROUNDS=3`. Each round, while teams work: a kill at every crash point, every fault of
`faults.py`, each in an order of its own, then several faults at once; after each the checker looks, and the time until work
went on by itself is taken. PARTS=points,faults,together leaves out the others; ONLY=text takes the faults whose name has it.

A red run leaves history, logs, seed and a dump of the database in the folder that it names.
"""

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

from tests.torture.faults import FAULTS, TOGETHER
from tests.torture.place import Place, wait_for
from tests.torture.points import POINTS

AT_ONCE = 6
TRIALS_TOGETHER = 4
NEEDED = (
    "SELECT agent.id, agent.lease_token FROM upgrades_agent AS agent"
    " WHERE (agent.due_at IS NULL OR agent.due_at < '2100-01-01') AND EXISTS (SELECT 1 FROM upgrades_runbinding AS bound"
    " JOIN upgrades_run AS run ON run.id = bound.run_id AND run.status NOT IN ('ended', 'aborted')"
    " JOIN upgrades_application AS app ON app.id = bound.application_id WHERE app.host_id = agent.host_id)"
)
FOLLOWED = " AND (agent.seen_at >= %s OR agent.lease_until > now() AND NOT agent.lease_token = ANY(%s))"


def say(text):
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def check(place, final=False):
    found = place.violations(final=final)
    assert not found, "\n".join(found)


def goes_on(place):
    """Seconds from now until each agent of an open run was heard, or is followed by somebody new, and each page server serves."""
    (mark,) = place.query("SELECT clock_timestamp()")[0]
    begun = time.monotonic()
    before = [token for _, token in place.query(NEEDED) if token is not None]

    def all_are_followed():
        needed = {agent for agent, _ in place.query(NEEDED)}
        followed = {agent for agent, _ in place.query(NEEDED + FOLLOWED, mark, before)}
        return needed <= followed and all(web.is_ready for web in place.kinds("web-"))

    wait_for(all_are_followed, 180, "that all agents are followed again")
    return time.monotonic() - begun


def crash_points(place, chance):
    """A kill at every point, some at a time."""
    names = chance.sample(sorted(POINTS), len(POINTS))
    for at in range(0, len(names), AT_ONCE):
        batch = names[at : at + AT_ONCE]
        for point in batch:
            place.arm(point)
        wait_for(lambda batch=batch: all(map(place.was_hit, batch)), 240, f"the passing of {batch}")
        check(place)
    assert {path.stem for path in place.points.glob("*.hit")} == set(POINTS)
    say(f"{len(POINTS)} of {len(POINTS)} crash points hit, 0 violations")


def each_fault(place, chance, times, only=""):
    for name in chance.sample(sorted(FAULTS), len(FAULTS)):
        if only in name:
            with place.fault(name):
                FAULTS[name].inject(place, chance)
            times[name].append(goes_on(place))
            check(place)
            say(f"{name}: work went on after {times[name][-1]:.1f} s, 0 violations")


def do(name, place, chance, wrong):
    try:
        FAULTS[name].inject(place, chance)
    except Exception as trouble:
        # Another fault may take away what this one needs; what must never happen is for the checker to say.
        wrong.append(f"{name}: {trouble!r}")


def several_at_once(place, chance, times):
    for _ in range(TRIALS_TOGETHER):
        names, wrong = chance.sample(TOGETHER, chance.randint(2, 5)), []
        with place.fault(" + ".join(names)):
            threads = [
                threading.Thread(target=do, args=(name, place, random.Random(chance.random()), wrong))
                for name in names
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            place.start_stores()
        times["several at once"].append(goes_on(place))
        check(place)
        say(f"{' + '.join(names)}: work went on after {times['several at once'][-1]:.1f} s, 0 violations")
        for text in wrong:
            say(f"    not all of it could be done: {text}")


def one_round(folder, seed, parts, times, only=""):
    chance = random.Random(seed)
    with Place(folder) as place:
        try:
            with place.crew(seed=seed):
                if "points" in parts:
                    crash_points(place, chance)
                if "faults" in parts:
                    each_fault(place, chance, times, only)
                if "together" in parts:
                    several_at_once(place, chance, times)
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
    times = defaultdict(list)
    say(f"seed {seed}, {rounds} rounds, load average {os.getloadavg()[0]:.1f}")
    for number in range(rounds):
        folder = Path(tempfile.mkdtemp(prefix=f"torture-{seed + number}-"))
        say(f"round {number + 1}, seed {seed + number}")
        try:
            one_round(folder, seed + number, parts, times, only)
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
