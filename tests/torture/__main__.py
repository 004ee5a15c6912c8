"""The long form: `make torture SEED=7 ROUNDS=3`. Each round kills at every crash point in an order of its own, then whole
workers, Redis and PostgreSQL under load, and prints how long it took until work went on by itself.

A red run leaves history, logs, seed and a dump of the database in the folder that it names.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.torture.place import Place, wait_for
from tests.torture.points import POINTS

AT_ONCE = 6


def say(text):
    print(text, flush=True)


def newest(place):
    return place.query("SELECT count(*) FROM upgrades_runevent")[0][0]


def goes_on_after(place, name):
    """Seconds until an event is appended again, all from now."""
    before, begun = newest(place), time.monotonic()
    wait_for(lambda: newest(place) > before, 120, f"an event after {name}")
    return time.monotonic() - begun


def polls_again_after(place, name):
    """Seconds until every agent of an open run was heard again."""
    (mark,), begun = place.query("SELECT clock_timestamp()")[0], time.monotonic()
    missing = (
        "SELECT count(*) FROM upgrades_agent AS agent WHERE seen_at < %s AND EXISTS (SELECT 1 FROM upgrades_runbinding AS bound"
        " JOIN upgrades_run AS run ON run.id = bound.run_id AND run.status NOT IN ('ended', 'aborted')"
        " JOIN upgrades_application AS app ON app.id = bound.application_id WHERE app.host_id = agent.host_id)"
    )
    wait_for(lambda: place.query(missing, mark)[0][0] == 0, 120, f"all agents after {name}")
    return time.monotonic() - begun


def points(place, chance):
    names = chance.sample(sorted(POINTS), len(POINTS))
    for at in range(0, len(names), AT_ONCE):
        batch = names[at : at + AT_ONCE]
        for point in batch:
            place.arm(point)
        wait_for(lambda batch=batch: all(map(place.was_hit, batch)), 150, f"the passing of {batch}")
        check(place)
    say(f"  {len(names)} of {len(POINTS)} crash points hit")


def check(place, final=False):
    found = place.violations(final=final)
    assert not found, "\n".join(found)


def kills(place):
    """Whole processes, under load; the times are those from the moment at which the fault is over."""
    with place.fault("worker killed"):
        place.programs["worker-0"].kill()
    say(
        f"  worker killed: all agents heard again after {polls_again_after(place, 'a worker was killed'):.1f} s"
    )
    check(place)
    with place.fault("redis killed"):
        place.stores.redis.kill()
        time.sleep(5)
        place.stores.redis.start()
    say(
        f"  Redis killed, 5 s away: all agents heard again after {polls_again_after(place, 'Redis was back'):.1f} s"
    )
    check(place)
    with place.fault("postgresql killed"):
        place.stores.postgres.kill()
        place.stores.postgres.start()
    say(f"  PostgreSQL killed: the next event after {goes_on_after(place, 'PostgreSQL was back'):.1f} s")
    check(place)


def one_round(folder, seed):
    chance = random.Random(seed)
    with Place(folder) as place:
        try:
            with place.crew(seed=seed):
                points(place, chance)
                kills(place)
            check(place, final=True)
            runs, events = place.query("SELECT count(*), sum(seq) FROM upgrades_run")[0]
            say(f"  0 violations of I1 to I12 in {runs} runs with {events} events")
        except BaseException:
            dump(place)
            raise


def dump(place):
    program = place.stores.postgres._binaries / "pg_dump"
    with (place.folder / "database.sql").open("wb") as out:
        subprocess.run([str(program), place.admin_url], stdout=out, check=False)


def main():
    seed, rounds = int(os.environ.get("SEED") or time.time()), int(os.environ.get("ROUNDS") or 1)
    say(f"seed {seed}, {rounds} rounds")
    for number in range(rounds):
        folder = Path(tempfile.mkdtemp(prefix=f"torture-{seed + number}-"))
        say(f"round {number + 1}, seed {seed + number}")
        try:
            one_round(folder, seed + number)
        except AssertionError as trouble:
            (folder / "seed").write_text(str(seed + number))
            say(
                f"RED with seed {seed + number}: history, logs, seed and database.sql are in {folder}\n{trouble}"
            )
            return 1
    say(f"green, seed {seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
