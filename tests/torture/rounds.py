"""What is done to a place while teams work: kills at every crash point, each fault, several faults at once.

After each the checker looks, and the time until work went on by itself is taken. `say` gets a line for each.
"""

import contextlib
import random
import threading
import time

from tests.torture.faults import FAULTS, TOGETHER
from tests.torture.points import POINTS, WHEN_NO_LOOP_LIVES
from tests.waiting import wait_for

AT_ONCE = 6
TRIALS_TOGETHER = 4
NEEDED = (
    "SELECT agent.id FROM upgrades_agent AS agent"
    " WHERE (agent.due_at IS NULL OR agent.due_at < '2100-01-01') AND EXISTS (SELECT 1 FROM upgrades_runbinding AS bound"
    " JOIN upgrades_run AS run ON run.id = bound.run_id AND run.status NOT IN ('ended', 'aborted')"
    " JOIN upgrades_application AS app ON app.id = bound.application_id WHERE app.host_id = agent.host_id)"
)
HEARD = " AND agent.seen_at >= %s"
# Of a log that a run rests on, more is known to be there than one answer holds.
BEHIND = (
    "SELECT file.id FROM upgrades_logfile AS file JOIN upgrades_runbinding AS bound USING (application_id)"
    " JOIN upgrades_run AS run ON run.id = bound.run_id AND run.status NOT IN ('ended', 'aborted')"
    " JOIN upgrades_application AS app ON app.id = bound.application_id"
    " JOIN upgrades_agent AS agent ON agent.host_id = app.host_id"
    " WHERE file.state = 'open' AND file.size > file.cursor + 524288"
    " AND (agent.due_at IS NULL OR agent.due_at < '2100-01-01')"
)
# Who follows an agent lives: its lease was taken or made longer since.
FOLLOWED = " AND (agent.seen_at >= %s OR agent.lease_until > %s + interval '6 s')"


def check(place, final=False):
    found = place.violations(final=final)
    assert not found, "\n".join(found)


def goes_on(place, heard=False):
    """Seconds from now until each agent of an open run is followed by a worker that lives, its logs are read up to their ends,
    and each page server serves.

    With `heard` until each agent has answered, too; one that has nothing to say answers after five seconds.
    """
    (mark,) = place.query("SELECT clock_timestamp()")[0]
    begun = time.monotonic()
    more, marks = (HEARD, (mark,)) if heard else (FOLLOWED, (mark, mark))

    def all_are_followed():
        needed, followed = set(place.query(NEEDED)), set(place.query(NEEDED + more, *marks))
        serving = all(web.is_ready for web in place.kinds("web-"))
        return needed <= followed and serving and not place.query(BEHIND)

    wait_for(all_are_followed, 180, "that all agents are followed again")
    return time.monotonic() - begun


def crash_points(place, chance, say):
    """A kill at every point, some at a time."""
    names = chance.sample(sorted(POINTS), len(POINTS))
    for at in range(0, len(names), AT_ONCE):
        batch = names[at : at + AT_ONCE]
        for point in batch:
            place.arm(point)
        pass_by(place, [point for point in batch if point not in WHEN_NO_LOOP_LIVES])
        for point in sorted(WHEN_NO_LOOP_LIVES.intersection(batch)):
            pass_without_loops(place, point)
        check(place)
    assert {path.stem for path in place.points.glob("*.hit")} == set(POINTS)
    say(f"{len(POINTS)} of {len(POINTS)} crash points hit, 0 violations")


def pass_by(place, points, seconds=240):
    """Waits until each of the points has killed."""
    wait_for(lambda: all(map(place.was_hit, points)), seconds, f"the passing of {points}")


def pass_without_loops(place, point, tries=5):
    """The same for a point that is passed when every loop has died; one that was called just then may live on."""
    for _ in range(tries - 1):
        with contextlib.suppress(AssertionError):
            return pass_by(place, [point], 30)
        for worker in place.kinds("worker-"):
            worker.kill()
    return pass_by(place, [point], 60)


def each_fault(place, chance, times, say, names=tuple(FAULTS)):
    """Each fault by itself, in an order of its own; their times go into `times`."""
    for name in chance.sample(sorted(names), len(names)):
        for _ in range(FAULTS[name].times):
            with place.fault(name):
                FAULTS[name].inject(place, chance)
            times[name].append(goes_on(place, FAULTS[name].heard))
            check(place)
            say(f"{name}: work went on after {times[name][-1]:.1f} s, 0 violations")


def do(name, place, chance, wrong):
    try:
        FAULTS[name].inject(place, chance)
    except Exception as trouble:
        # Another fault may take away what this one needs; what must never happen is for the checker to say.
        text = str(trouble).strip().rpartition("\n")[2]  # of a traceback of a program, what it ends with
        wrong.append(f"{name}: {type(trouble).__name__}: {text}")


def several_at_once(place, chance, times, say, trials=TRIALS_TOGETHER):
    for _ in range(trials):
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
        times["several at once"].append(goes_on(place, heard=True))
        check(place)
        say(f"{' + '.join(names)}: work went on after {times['several at once'][-1]:.1f} s, 0 violations")
        for text in wrong:
            say(f"    not all of it could be done: {text}")
