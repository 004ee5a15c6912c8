"""Where a torture takes place: PostgreSQL, Redis, the simulator, two web servers, two workers, two beats and the signer of
checkpoints, all children of this process, on free ports, in one folder; proxies stand in between.

A program that dies is started again after a moment, as the restart rule of docker-compose.yml does; nothing else is ever
put right by hand.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import psycopg
import redis
import yaml

from runbook.celery import BEAT_READY, WORKER_READY
from runbook.stores import APP_ROLE, RedisServer, Stores, port_is_taken
from tests.torture.clocks import Clock
from tests.torture.disks import Disk
from tests.torture.history import History
from tests.torture.proxy import Proxy
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
_TEXTS = "SELECT procedure, version, text FROM upgrades_procedureversion"
NOT_OURS = (
    "DATABASE_URL",
    "REDIS_URL",
    "SECRET_KEY",
    "DJANGO_SETTINGS_MODULE",
    "RUNBOOK_HTTPS",
    "SIMULATOR_URL",
)


def some_ports(count):
    """Free ports below those that the system gives to connections: nothing takes them while a killed server is away."""
    found = []
    while len(found) < count:
        port = random.SystemRandom().randint(12_000, 30_000)
        if port not in found and not port_is_taken(port):
            found.append(port)
    return found


class Program:
    """One program that is kept running: begun again when it dies, unless it was stopped on purpose."""

    def __init__(self, name, command, ready, place):
        self.name, self.command, self.ready, self.place = name, command, ready, place
        self.log = place.folder / "log" / f"{name}.log"
        self.process, self.wanted, self.deaths = None, False, []

    def start(self):
        self.wanted = True
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._from = output.tell()
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.place.environment,
                cwd=ROOT,
                start_new_session=True,
            )
        self.place.guard.watch(self.process.pid)

    @property
    def is_ready(self):
        alive = self.process is not None and self.process.poll() is None
        with contextlib.suppress(OSError):
            return alive and self.ready(self.log.read_bytes()[self._from :].decode(errors="replace"))
        return False

    @property
    def children(self):
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def kill(self):
        """SIGKILL for it and all below it, as when its container dies."""
        children = self.children
        self._signal(
            [psutil.Process(self.process.pid)] if self.process.poll() is None else [], signal.SIGKILL
        )
        self._signal(children, signal.SIGKILL)
        self.process.wait(30)

    def freeze(self, on=True):
        own = [psutil.Process(self.process.pid)] if self.process.poll() is None else []
        self._signal([*own, *self.children], signal.SIGSTOP if on else signal.SIGCONT)

    def stop(self):
        self.wanted = False
        if self.process is None or self.process.poll() is not None:
            return
        children = self.children
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self._signal([*children, *self.children], signal.SIGKILL)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)

    @staticmethod
    def _signal(processes, number):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def _await(programs):
    """Comes back when all these programs serve."""
    for program in programs:
        wait_for(lambda program=program: program.is_ready, what=f"{program.name} ({program.log})")


class Guard:
    """A small process that outlives a killed harness for a moment and ends what it left running."""

    _PROGRAM = (
        "import os, signal, sys\n"
        "pids = [int(line) for line in sys.stdin]\n"  # until the other end of the pipe is gone
        "for pid in pids:\n"
        "    try: os.killpg(pid, signal.SIGKILL)\n"
        "    except OSError: pass\n"
    )

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._PROGRAM], stdin=subprocess.PIPE, start_new_session=True
        )

    def watch(self, pid):
        """End this process and its session when the harness is gone."""
        self._process.stdin.write(f"{pid}\n".encode())
        self._process.stdin.flush()

    def close(self):
        """The harness has ended everything itself."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()


class Place:
    """`with Place(folder) as place:` has everything running; with `disks` the stores and the evidence lie on small ones."""

    def __init__(self, folder, *, webs=2, workers=2, beats=2, speed=40.0, disks=False):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)  # PostgreSQL may run under another account and must pass
        self.points = folder / "points"
        self.points.mkdir(exist_ok=True)
        self.disks = {name: Disk(folder / name) for name in ("stores", "evidence")} if disks else {}
        self.history = History(folder / "history.jsonl")
        self.stores = Stores(folder / "stores")
        self.speed, self.counts = speed, (webs, workers, beats)
        self.programs, self.page_proxies = {}, []
        self._over = threading.Event()
        self.guard = Guard()

    def __enter__(self):
        try:
            self._begin()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def _begin(self):
        self.start_stores()
        self.database = Proxy(str(self.stores.postgres.socket_folder / ".s.PGSQL.5432"))
        redis_port = int(self.stores.redis.url.rpartition(":")[2].partition("/")[0])
        self.redis = Proxy(("127.0.0.1", redis_port))
        self.simulator_port, *self.web_ports = some_ports(1 + self.counts[0])
        kept = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
        self.owner = {
            **kept,
            "DATABASE_URL": self.stores.postgres.url,
            "REDIS_URL": self.stores.redis.url,
            "SECRET_KEY": "of-the-torture-" + "0" * 40,
            "RUNBOOK_HTTPS": "off",
            "RUNBOOK_PROOF_SECONDS": "900",
            "EVIDENCE_FOLDER": str(self.folder / "evidence"),
            "STATIC_FOLDER": str(self.folder / "static"),
            "CHECKPOINT_KEY_FILE": str(self.folder / "checkpoint.key"),
            "CHECKPOINT_FILE": str(self.folder / "checkpoints.jsonl"),
            "SIMULATOR_URL": f"http://127.0.0.1:{self.simulator_port}",
            "DJANGO_SETTINGS_MODULE": "runbook.settings",
            "PYTHONUNBUFFERED": "1",
        }
        self.manage("migrate", "--noinput")
        self.manage("restrict_role", APP_ROLE)
        self.manage("make_checkpoint_key")
        self.manage("publish_procedures")
        secret = self.stores.redis.url.partition("://:")[2].partition("@")[0]
        self.environment = {
            **self.owner,
            "DATABASE_URL": f"postgresql://{APP_ROLE}@127.0.0.1:{self.database.port}/runbook?sslmode=disable",
            "REDIS_URL": f"redis://:{secret}@127.0.0.1:{self.redis.port}/0",
            "RUNBOOK_CRASH_AT": str(self.points),
        }
        self._define()
        for program in self.programs.values():
            program.start()
        _await(self.programs.values())
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _define(self):
        webs, workers, beats = self.counts
        celery = [sys.executable, "-m", "celery", "-A", "runbook"]
        listen = ["--listen", f"127.0.0.1:{self.simulator_port}", "--root", str(self.folder / "simulator")]
        self._add("simulator", ["-m", "simulator", "serve", *listen], "listening on")
        for number in range(webs):
            port = self.web_ports[number]
            web = ["-m", "uvicorn", "runbook.asgi:application", "--host", "127.0.0.1", "--port", str(port)]
            self._add(f"web-{number}", [*web, "--no-access-log"], f"http://127.0.0.1:{port}/readyz")
            self.page_proxies.append(Proxy(("127.0.0.1", port)))
        for number in range(workers):
            name = f"worker-{number}@here"
            self._add(
                f"worker-{number}",
                [*celery[1:], "worker", "--pool", "prefork", "--concurrency", "2", "-n", name],
                WORKER_READY,
            )
        for number in range(beats):
            schedule = str(self.folder / f"beat-{number}")
            self._add(
                f"beat-{number}", [*celery[1:], "beat", "--schedule", schedule, "--pidfile="], BEAT_READY
            )
        self._add("checkpoints", ["manage.py", "sign_checkpoints", "--every", "0.5"], "checkpoints: looking")

    def _add(self, name, arguments, sign):
        def answers(_log):
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(sign, timeout=2, trust_env=False).status_code == 200
            return False

        ready = answers if sign.startswith("http") else lambda log: sign in log
        self.programs[name] = Program(name, [sys.executable, *arguments], ready, self)

    def _keep(self):
        """Start again what died; how it died goes into the history."""
        while not self._over.wait(0.2):
            for program in list(self.programs.values()):
                code = program.process.poll() if program.process else None
                if program.wanted and code is not None and not self._over.is_set():
                    program.deaths.append((time.monotonic(), code))
                    self.history.note("restart", program=program.name, code=code)
                    program.start()

    # Looking and acting.

    @property
    def urls(self):
        """Where browsers find Runbook: each web server behind a proxy."""
        return [proxy.url for proxy in self.page_proxies]

    def kinds(self, prefix):
        return [program for name, program in self.programs.items() if name.startswith(prefix)]

    def manage(self, *command, check=True):
        """A command of manage.py as the owner of the database, past every proxy; what it printed."""
        done = subprocess.run(
            [sys.executable, "manage.py", *command], env=self.owner, cwd=ROOT, capture_output=True, text=True
        )
        assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done

    def query(self, sql, *values):
        with psycopg.connect(self.admin_url, autocommit=True) as own:
            cursor = own.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

    def arm(self, point, passing=1):
        """Have the process killed that next passes the crash point (or for the n-th time from now)."""
        self.history.note("arm", point=point)
        (self.points / f"{point}.hit").unlink(missing_ok=True)
        (self.points / f"{point}@{passing}").touch()

    def disarm(self):
        for armed in self.points.glob("*@*"):
            armed.unlink(missing_ok=True)

    def was_hit(self, point):
        return (self.points / f"{point}.hit").exists()

    @contextlib.contextmanager
    def fault(self, name, **values):
        """What is done inside stands in the history with its beginning and end."""
        self.history.note("fault-begins", fault=name, **values)
        try:
            yield
        finally:
            self.history.note("fault-ends", fault=name, **values)

    def start_stores(self):
        """Start what does not run of PostgreSQL and Redis; both answer afterwards."""
        self.stores.start()
        for store in (self.stores.postgres, self.stores.redis):
            self.guard.watch(store.pid)

    @contextlib.contextmanager
    def replica_of_redis(self):
        """A client of a second Redis that follows the first one and has all of it; it ends with the block."""
        server = RedisServer(self.folder / "replica")
        server.start()
        self.guard.watch(server.pid)
        try:
            with (
                redis.Redis.from_url(self.stores.redis.url) as first,
                redis.Redis.from_url(server.url) as replica,
            ):
                here = first.connection_pool.connection_kwargs
                replica.config_set("masterauth", here["password"])
                replica.replicaof(here["host"], here["port"])
                wait_for(
                    lambda: replica.info("replication")["master_link_status"] == "up", what="the replica"
                )
                yield replica
        finally:
            server.stop()

    @contextlib.contextmanager
    def own_clock(self):
        """A clock that every program of Runbook goes by while the block lasts; they begin anew for it, and again without it."""
        clock, before = Clock(self.folder / "clock"), self.environment
        self.history.note("clock")  # from now on times in the record may go back
        try:
            self._begin_anew({**before, **clock.environment})
            yield clock
        finally:
            self._begin_anew(before)

    def _begin_anew(self, environment):
        self.environment = environment
        programs = [program for name, program in self.programs.items() if name != "simulator"]
        for program in programs:
            program.kill()
        _await(programs)

    @contextlib.contextmanager
    def session(self):
        """A session of the database past every proxy; what it did is rolled back."""
        with psycopg.connect(self.admin_url) as own:
            yield own
            own.rollback()

    @contextlib.contextmanager
    def before_agents(self):
        """A proxy before each agent that is there now, while the block lasts."""
        rows = self.query("SELECT id, url FROM upgrades_agent WHERE due_at IS NULL OR due_at < '2100-01-01'")
        proxies = {}
        try:
            for key, url in rows:
                host, port = url.removeprefix("http://").split(":")
                proxies[key] = Proxy((host, int(port)))
                self.query("UPDATE upgrades_agent SET url = %s WHERE id = %s", proxies[key].url, key)
            yield list(proxies.values())
        finally:
            for key, url in rows:
                if key in proxies:
                    self.query("UPDATE upgrades_agent SET url = %s WHERE id = %s", url, key)
                    proxies[key].close()

    def worlds(self):
        """The hosts of each world that is in use, by the world's name."""
        found = {}
        for world, host in self.query(
            "SELECT environment.world, host.name FROM upgrades_agent AS agent"
            " JOIN upgrades_host AS host ON host.id = agent.host_id"
            " JOIN upgrades_environment AS environment ON environment.id = agent.environment_id"
            " WHERE environment.world <> '' AND (agent.due_at IS NULL OR agent.due_at < '2100-01-01') ORDER BY 1, 2"
        ):
            found.setdefault(world, []).append(host)
        return found

    def bound_servers(self):
        """World and name of each server of a simulated environment that runs, and that an open run is about."""
        return self.query(
            "SELECT DISTINCT environment.world, app.name FROM upgrades_runbinding AS bound"
            " JOIN upgrades_run AS run ON run.id = bound.run_id AND run.status NOT IN ('ended', 'aborted')"
            " JOIN upgrades_application AS app ON app.id = bound.application_id"
            " JOIN upgrades_environment AS environment ON environment.id = app.environment_id"
            " WHERE environment.world <> '' AND app.process_state = 'up' ORDER BY 1, 2"
        )

    def misbehave(self, world, wish):
        """Have something go wrong in a world, as `simulator/misbehaviours.py` names it."""
        address = f"{self.owner['SIMULATOR_URL']}/worlds/{world}/misbehave"
        httpx.post(address, json=wish, timeout=10, trust_env=False).raise_for_status()

    @contextlib.contextmanager
    def crew(self, *, seed, clients=3, played=""):
        """Teams at work while the block lasts; afterwards they end what they have begun. AssertionError if they could not."""
        stop = self.folder / "stop"
        stop.unlink(missing_ok=True)
        environment = {
            **self.owner,
            "TORTURE_SPEED": str(self.speed),
            "TORTURE_WORLDS": str(self.folder / "simulator"),
            "TORTURE_PLAYED": played,
        }
        command = [
            sys.executable,
            "-m",
            "tests.torture.crew",
            str(self.history.path),
            str(stop),
            str(seed),
            str(clients),
        ]
        log = self.folder / "log" / "crew.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*command, *self.urls],
                env=environment,
                cwd=ROOT,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.guard.watch(process.pid)
        try:
            yield process
            stop.touch()
            code = process.wait(420)
        finally:
            stop.touch()
            if process.poll() is None:
                process.kill()
                process.wait()
        assert code == 0, f"the teams did not get through ({log}):\n{log.read_text()[-3000:]}"

    @property
    def admin_url(self):
        return self.stores.postgres.superuser_url.replace("/postgres?", "/runbook?")

    def write_rules(self):
        """The published texts as plain data, read by YAML's own reader: the checker follows the rules anew."""
        rules = {f"{name}/{version}": yaml.safe_load(text) for name, version, text in self.query(_TEXTS)}
        file = self.folder / "rules.json"
        file.write_text(json.dumps(rules, default=str))
        return file

    def violations(self, *, final=False):
        """What the checker, a process of its own, finds."""
        command = [sys.executable, str(ROOT / "tests" / "torture" / "checker.py"), self.admin_url]
        command += ["--history", self.history.path, "--rules", self.write_rules()]
        command += ["--logs", self.folder / "simulator", "--logs", self.folder / "ground-truth"]
        command += ["--checkpoints", self.folder / "checkpoints.jsonl", *(["--final"] if final else [])]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, env={"PATH": os.defpath}
        )
        assert done.stderr == "", done.stderr[-3000:]
        return done.stdout.splitlines()

    def close(self):
        self._over.set()
        for program in self.programs.values():
            program.wanted = False
            with contextlib.suppress(Exception):
                program.freeze(on=False)
                program.process.terminate()
        for program in reversed(list(self.programs.values())):
            program.stop()
        for proxy in (
            *self.page_proxies,
            getattr(self, "database", None),
            getattr(self, "redis", None),
        ):
            if proxy is not None:
                proxy.close()
        self.stores.stop()
        for disk in self.disks.values():
            disk.close()
        self.guard.close()
        self.history.close()
