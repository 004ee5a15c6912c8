"""The faults of the long form: what is done, for how long, and what ends it. Nothing here puts anything right by hand.

`FAULTS` maps a name to a `Fault`; `inject(place, chance)` does it and returns when it is over. Ids are those of the fault matrix.
"""

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import psutil
import psycopg
import redis

from tests.waiting import wait_for

DISKS, CLOCK = "disks of its own, which only root may mount", "libfaketime (Debian: apt-get install faketime)"
LEASE = 6.0  # seconds after which a worker that says nothing has lost its agents


@dataclass(frozen=True)
class Fault:
    """`goal`: seconds after its end within which work goes on by itself; `times`: how often a round does it;
    `heard`: it is over once the agents answer, not only once they are asked; `needs`: what not every machine has."""

    ids: str
    inject: Callable
    goal: float
    times: int = 1
    heard: bool = False
    needs: str = ""


FAULTS = {}


def fault(name, ids, goal, **more):
    def keep(inject):
        FAULTS[name] = Fault(ids, inject, goal, **more)
        return inject

    return keep


# Workers and beats.


def some_worker(place, chance):
    return chance.choice(place.kinds("worker-"))


@fault("a worker is killed", "F01 F02 F03", 10, times=4)  # it may be the one that follows nobody now
def _worker_killed(place, chance):
    some_worker(place, chance).kill()


@fault("both workers are killed at once", "F01 R24", 10)
def _workers_killed(place, chance):
    for worker in place.kinds("worker-"):
        worker.kill()


@fault("a process of a worker's pool is killed", "F04", 10)
def _pool_process_killed(place, chance):
    children = some_worker(place, chance).children
    if children:
        with contextlib.suppress(psutil.NoSuchProcess):
            chance.choice(children).send_signal(signal.SIGKILL)


@fault("a worker is frozen for three leases and wakes up", "F05", 10)
def _worker_frozen(place, chance):
    worker = some_worker(place, chance)
    worker.freeze()
    time.sleep(3 * LEASE)
    worker.freeze(on=False)


@fault("both beats are frozen for 20 s, then one is killed", "F09", 10)
def _beats_frozen(place, chance):
    beats = place.kinds("beat-")
    for beat in beats:
        beat.freeze()
    time.sleep(20)
    for beat in beats:
        beat.freeze(on=False)
    chance.choice(beats).kill()


@fault("every message comes 30 times", "F07", 10)
def _redelivered(place, chance):
    place.manage("shell", "--no-imports", "-c", _DELIVER_AGAIN)


_DELIVER_AGAIN = """
from upgrades import tasks
from upgrades.models import Run
open_runs = list(Run.objects.exclude(status__in=("ended", "aborted")).values_list("pk", flat=True))
for _ in range(30):
    tasks.poll_agents.delay()
    tasks.tick.delay()
    for run in open_runs:
        tasks.advance_run.delay(run)
"""


@fault("messages of a newer release come: unknown tasks, unknown fields", "F47", 10)
def _newer_release(place, chance):
    place.manage("shell", "--no-imports", "-c", _SEND_UNKNOWN)


_SEND_UNKNOWN = """
from runbook.celery import app
for _ in range(10):
    app.send_task("upgrades.tasks.of_the_next_release", args=[1])
    app.send_task("upgrades.tasks.advance_run", args=[1], kwargs={"reason": "of the next release"})
    app.send_task("upgrades.tasks.advance_run", args=["no number"])
"""


# Redis.


def plain_redis(place):
    return redis.Redis.from_url(place.stores.redis.url, socket_timeout=5)


@fault("Redis is killed and away for 5 s", "F10", 30)
def _redis_killed(place, chance):
    place.stores.redis.kill()
    time.sleep(5)
    place.start_stores()


@fault("Redis is away for 40 s", "F12", 30)
def _redis_away(place, chance):
    place.stores.redis.stop()
    time.sleep(40)
    place.start_stores()


@fault("Redis is away for 75 s, longer than a task may last", "F12", 30)
def _redis_away_for_long(place, chance):
    place.stores.redis.stop()
    time.sleep(75)
    place.start_stores()


@fault("Redis loses everything (FLUSHALL)", "F11", 30)
def _redis_flushed(place, chance):
    with plain_redis(place) as client:
        client.flushall()


@fault("Redis is full for 10 s (maxmemory, noeviction)", "F13", 30)
def _redis_full(place, chance):
    with plain_redis(place) as client:
        client.config_set("maxmemory", "1mb")
        time.sleep(10)
        client.config_set("maxmemory", "0")


def through_proxy(proxy, mode, seconds, **changes):
    proxy.set(mode, **changes)
    time.sleep(seconds)
    proxy.set("open")
    if mode != "slow":
        proxy.reset()  # a connection that stood still for so long is dead to both ends


@fault("Redis answers each piece after half a second, for 20 s", "F15", 30)
def _redis_slow(place, chance):
    through_proxy(place.redis, "slow", 20, delay=0.5)


@fault("packets to and from Redis vanish for 20 s", "F15", 60)
def _redis_half_open(place, chance):
    through_proxy(place.redis, "hole", 20)


@fault("connections to Redis are reset, five times", "F10", 30)
def _redis_reset(place, chance):
    for _ in range(5):
        place.redis.reset()
        time.sleep(0.5)


@fault("Redis fails over to a replica that lacks the last second, and back to one that lacks more", "F14", 15)
def _redis_failover(place, chance):
    first = place.redis.target
    with place.replica_of_redis() as replica:
        replica.replicaof("no", "one")  # what comes from now on never gets there
        time.sleep(1)
        place.redis.target = ("127.0.0.1", replica.connection_pool.connection_kwargs["port"])
        place.stores.redis.kill()
        place.redis.reset()
        time.sleep(5)
        place.start_stores()
        place.redis.target = first
        place.redis.reset()


# PostgreSQL.


@fault("PostgreSQL is killed with all its processes", "F16", 30)
def _postgresql_killed(place, chance):
    place.stores.postgres.kill()
    place.start_stores()


@fault("PostgreSQL is stopped and away for 15 s", "F17", 30)
def _postgresql_away(place, chance):
    place.stores.postgres.stop()
    time.sleep(15)
    place.start_stores()


@fault("all sessions of PostgreSQL are ended, five times", "F18", 10)
def _sessions_ended(place, chance):
    for _ in range(5):
        place.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        time.sleep(chance.uniform(0.2, 1.0))


@fault("what PostgreSQL did is done and its answers are lost, for 5 s", "F21", 30)
def _answers_lost(place, chance):
    through_proxy(place.database, "deaf", 5)


@fault("somebody's session holds the row of every run for 8 s", "F22", 10)
def _rows_held(place, chance):
    with place.session() as stuck:
        stuck.execute("SELECT 1 FROM upgrades_run FOR UPDATE")
        time.sleep(8)


# Agents.


def each_agent(place, chance, modes, seconds):
    """Each agent behind a proxy of its own, in a way of its own."""
    with place.before_agents() as proxies:
        time.sleep(3)  # so that each has something to say again
        for proxy in proxies:
            mode, changes = chance.choice(modes)
            proxy.set(mode, **changes)
        time.sleep(seconds)


def agents(name, ids, modes, seconds=15, goal=10):
    @fault(name, ids, goal, heard=True)
    def _(place, chance):
        each_agent(place, chance, modes, seconds)


agents("agents refuse connections", "F23", [("closed", {})])
agents("packets to and from agents vanish", "F23", [("hole", {})])
agents("agents answer each piece after 20 s", "F24", [("slow", {"delay": 20.0})], 25)
agents("agents answer one byte a second", "F24", [("drip", {"delay": 1.0})], 20)
agents("answers of agents are cut off", "F27", [("cut", {"bytes_left": at}) for at in (20, 180, 400, 900)])
agents("answers of agents are lost", "F23", [("deaf", {})])
agents("each question reaches its agent twice", "F25", [("twice", {})])
agents("agents say again what they said before", "F25 F28", [("stale", {})])
agents(
    "each agent in another way",
    "F23 F24 F25 F27",
    [
        ("open", {}),
        ("closed", {}),
        ("hole", {}),
        ("slow", {"delay": 3.0}),
        ("drip", {"delay": 0.2}),
        ("cut", {"bytes_left": 300}),
        ("deaf", {}),
        ("twice", {}),
        ("stale", {}),
    ],
    30,
)


@fault("agents answer in each other's place", "F28", 10, heard=True)
def _agents_mixed_up(place, chance):
    with place.before_agents() as proxies:
        targets = [proxy.target for proxy in proxies]
        for proxy, other in zip(proxies, [*targets[1:], *targets[:1]], strict=True):
            proxy.target = other
            proxy.reset()
        time.sleep(12)


def in_each_world(place, chance, what, value=True, hosts=None):
    """Have the simulator do something in every world; the hosts or servers that it was done to."""
    done = []
    for world, names in place.worlds().items():
        for host in names if hosts is None else chance.sample(names, min(hosts, len(names))):
            with contextlib.suppress(httpx.HTTPError):  # the world is just being removed
                place.misbehave(world, {"what": what, "host": host, "value": value})
                done.append((world, host))
    return done


@fault("an agent on each site is stopped for 10 s and starts anew", "F26", 10, heard=True)
def _agents_restarted(place, chance):
    stopped = in_each_world(place, chance, "agent-down", hosts=1)
    time.sleep(10)
    for world, host in stopped:
        with contextlib.suppress(httpx.HTTPError):
            place.misbehave(world, {"what": "agent-down", "host": host, "value": False})


@fault("the clocks of all servers jump by up to a day", "F34 F35", 10)
def _clocks(place, chance):
    for seconds in (86_400, -86_400, chance.randint(-86_400, 86_400)):
        in_each_world(place, chance, "clock-skew", seconds)
        time.sleep(3)
    in_each_world(place, chance, "clock-skew", value=False)


@fault("all logs begin a new segment", "F30", 10)
def _rotated(place, chance):
    for _ in range(3):
        in_each_world(place, chance, "rotate-log")
        time.sleep(chance.uniform(0.1, 1.0))


@fault("a server logs a million lines at once", "F38", 60, heard=True)
def _burst(place, chance):
    world, server = chance.choice(wait_for(place.bound_servers, what="a run that is open"))
    with contextlib.suppress(httpx.HTTPError):  # the world is just being removed
        place.misbehave(world, {"what": "log-burst", "server": server, "value": 1_000_000})


# Disks.


@fault("the disk of PostgreSQL and Redis is full for 20 s", "F19", 60, needs=DISKS)
def _stores_full(place, chance):
    place.disks["stores"].fill()
    time.sleep(10)
    # PostgreSQL had room left in what it had taken before. It ends itself when a new piece of its log finds none.
    wait_for(lambda: _has_ended(place), what="the end of PostgreSQL on a full disk")
    time.sleep(10)
    place.disks["stores"].make_room()
    place.start_stores()


def _has_ended(place):
    """Has PostgreSQL ended itself? Asks it for a new piece of its log, for which the disk has no room."""
    try:
        place.query("SELECT pg_switch_wal()")
    except psycopg.Error:
        return True
    return False


@fault("the disk of the evidence is full for 10 s, then read-only for 10 s", "F48", 10, needs=DISKS)
def _evidence_full(place, chance):
    disk = place.disks["evidence"]
    disk.fill()
    time.sleep(10)
    disk.make_room()
    disk.read_only()
    time.sleep(10)
    disk.read_only(on=False)


# The clock.


@fault(
    "the clock of pages and workers goes back by 290 s, and ahead by an hour",
    "F36",
    30,
    heard=True,
    needs=CLOCK,
)
def _own_clock(place, chance):
    with place.own_clock() as clock:
        for seconds in (-290, 0, 3600, 0):
            clock.set(seconds)
            time.sleep(8)


# Web servers and clients.


@fault("a web server is killed", "F45", 10)
def _web_killed(place, chance):
    chance.choice(place.kinds("web-")).kill()


@fault("answers of the pages are lost for 8 s", "F21 F39", 10)
def _pages_lost(place, chance):
    for proxy in place.page_proxies:
        proxy.set("deaf")
    time.sleep(8)
    for proxy in place.page_proxies:
        proxy.set("open")


@fault("each request of the browsers arrives twice, for 8 s", "F39", 10)
def _requests_twice(place, chance):
    for proxy in place.page_proxies:
        proxy.set("twice")
    time.sleep(8)
    for proxy in place.page_proxies:
        proxy.set("open")


@fault("the signer of checkpoints is killed, three times", "F50", 10)
def _signer_killed(place, chance):
    for _ in range(3):
        place.programs["checkpoints"].kill()
        time.sleep(chance.uniform(0.5, 2.0))


@fault("everything but the stores is killed at once", "R24", 30)
def _all_killed(place, chance):
    for name in sorted(place.programs):
        if name != "simulator":
            place.programs[name].kill()


# Several at once.

TOGETHER = (
    "a worker is killed",
    "a process of a worker's pool is killed",
    "every message comes 30 times",
    "Redis is killed and away for 5 s",
    "Redis loses everything (FLUSHALL)",
    "PostgreSQL is killed with all its processes",
    "all sessions of PostgreSQL are ended, five times",
    "what PostgreSQL did is done and its answers are lost, for 5 s",
    "each agent in another way",
    "the clocks of all servers jump by up to a day",
    "a web server is killed",
    "answers of the pages are lost for 8 s",
)
