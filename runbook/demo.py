"""Starts everything on this machine and ends it again: `make demo`, `make demo-reset`, `make run`.

    python -m runbook.demo             a simulated environment, its servers and agents, and people to sign in as
    python -m runbook.demo --plain     the application alone, for an environment of your own
    python -m runbook.demo --reset     throws the data of earlier starts away first
    python -m runbook.demo --manage createsuperuser     a command of manage.py with the settings of the above

Data and logs are in `var/`. With DATABASE_URL and REDIS_URL set, those servers are used.
"""

import argparse
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runbook.celery import BEAT_READY, WORKER_READY
from runbook.environment import Environment, given_stores
from runbook.stores import APP_ROLE, Stores, StoreTrouble, port_is_taken
from runbook.supervisor import (
    AlreadyRunning,
    Program,
    ProgramEnded,
    Supervisor,
    answers,
    logs,
    only_one,
    signals_interrupt,
    undisturbed,
)

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
HOST = "127.0.0.1"
CHECKPOINTS_READY = "checkpoints: looking"


class CannotStart(Exception):
    """What keeps the launcher from starting, in a sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the launcher reads from its own variables."""

    port: int
    simulator_port: int
    redis_port: int | None
    workers: int

    @classmethod
    def read(cls, values: Mapping[str, str]) -> "Options":
        """SettingMistakes names every wrong one."""
        env = Environment(values)
        options = cls(
            port=env.number("RUNBOOK_PORT", 8000, 1, 65535),
            simulator_port=env.number("RUNBOOK_SIMULATOR_PORT", 8010, 1, 65535),
            redis_port=env.number("RUNBOOK_REDIS_PORT", 0, 1, 65535) or None,
            workers=env.number("RUNBOOK_WORKERS", 2, 1, 64),
        )
        env.finish()
        return options


class Launcher:
    """One start, from the stores to the address that it prints."""

    def __init__(self, folder: Path, options: Options, *, simulated: bool) -> None:
        self._folder = folder
        self._options = options
        self._simulated = simulated
        self._supervisor = Supervisor(folder, self._say)
        self._begin = time.monotonic()
        self._sign_in = (
            f"The first administrator is made with: {PYTHON} -m runbook.demo --manage createsuperuser"
        )

    def run(self) -> None:
        """Starts all, prints how to sign in, and stays until Ctrl-C or until a program ends (ProgramEnded)."""
        self._supervisor.end_left_overs()
        self._check_ports()
        with self._stores(take_over=True) as (addresses, stores), self._programs():
            environment = self._environment(addresses)
            self._prepare(environment, self._for_servers(environment, stores))
            print(f"\nRunbook is at http://{HOST}:{self._options.port}/   (Ctrl-C ends it)", flush=True)
            print(self._sign_in, flush=True)
            self._watch(stores)

    def manage(self, command: list[str]) -> int:
        """Runs a command of manage.py on these stores, started for it where they do not run; its exit code.

        Stores of our own have the tables of this release then, also when nothing was ever started on them.
        """
        with self._stores() as (addresses, stores):
            environment = self._environment(addresses)
            if not port_is_taken(self._options.simulator_port):
                environment.pop("SIMULATOR_URL", None)  # none runs, so `rehearse` starts one of its own
            if stores is not None:
                self._manage(environment, "migrate", "--noinput")
            return subprocess.run(
                [PYTHON, "manage.py", *command], env=environment, cwd=ROOT, check=False
            ).returncode

    def _for_servers(self, environment: dict[str, str], stores: Stores | None) -> dict[str, str]:
        """What pages and workers get: on our own PostgreSQL, the role that may not change the record."""
        return {**environment, "DATABASE_URL": stores.postgres.app_url} if stores else environment

    def _prepare(self, environment: dict[str, str], for_servers: dict[str, str]) -> None:
        self._manage(environment, "migrate", "--noinput")
        if for_servers is not environment:
            self._manage(environment, "restrict_role", APP_ROLE)
        self._manage(environment, "make_checkpoint_key", "--if-missing")
        self._manage(environment, "collectstatic", "--noinput")
        self._manage(environment, "publish_procedures")
        if self._simulated:
            self._supervisor.start([self._simulator()], for_servers, ROOT)
            self._sign_in = self._manage(environment, "seed_demo")
        self._supervisor.start(self._servers(), for_servers, ROOT)

    def _check_ports(self) -> None:
        wanted = {"RUNBOOK_PORT": self._options.port}
        if self._simulated:
            wanted["RUNBOOK_SIMULATOR_PORT"] = self._options.simulator_port
        for variable, port in wanted.items():
            if port_is_taken(port):
                raise CannotStart(
                    f"Port {port} on {HOST} is taken by another program. End it, or choose another port, "
                    f"as: {variable}={port + 1} make {'demo' if self._simulated else 'run'}"
                )

    @contextlib.contextmanager
    def _stores(self, *, take_over: bool = False) -> Iterator[tuple[dict[str, str], Stores | None]]:
        if given_stores(os.environ):
            self._say("using the PostgreSQL and Redis of DATABASE_URL and REDIS_URL")
            yield {}, None
            return
        stores = Stores(self._folder / "stores", redis_port=self._options.redis_port)
        try:
            addresses = stores.start(take_over=take_over).environment()
            self._say("PostgreSQL and Redis")
            yield addresses, stores
        finally:
            with undisturbed():
                stores.stop()

    @contextlib.contextmanager
    def _programs(self) -> Iterator[None]:
        try:
            yield
        finally:
            print("\nEnding all programs …", flush=True)
            with undisturbed():
                self._supervisor.stop()

    def _environment(self, addresses: dict[str, str]) -> dict[str, str]:
        environment = {
            "SECRET_KEY": kept_secret(self._folder / "secret-key"),
            "RUNBOOK_HTTPS": "off",
            "EVIDENCE_FOLDER": str(self._folder / "evidence"),
            "STATIC_FOLDER": str(self._folder / "static"),
            "CHECKPOINT_KEY_FILE": str(self._folder / "checkpoint.key"),
            "CHECKPOINT_FILE": str(self._folder / "checkpoints.jsonl"),
            **os.environ,
            **addresses,
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "runbook.settings",
        }
        if self._simulated:
            environment["SIMULATOR_URL"] = f"http://{HOST}:{self._options.simulator_port}"
        return environment

    def _manage(self, environment: dict[str, str], *command: str) -> str:
        done = subprocess.run(
            [PYTHON, "manage.py", *command],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        log = self._folder / "log" / f"{command[0]}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(done.stdout)
        if done.returncode != 0:
            end = "\n".join(f"    {line}" for line in done.stdout.splitlines()[-15:])
            raise CannotStart(f"`manage.py {command[0]}` has failed. The end of what it said ({log}):\n{end}")
        self._say(command[0])
        return done.stdout.strip()

    def _simulator(self) -> Program:
        port = self._options.simulator_port
        listen = ["--listen", f"{HOST}:{port}", "--root", str(self._folder / "simulator")]
        return Program(
            "simulator",
            [PYTHON, "-m", "simulator", "serve", *listen],
            answers(f"http://{HOST}:{port}/health"),
        )

    def _servers(self) -> list[Program]:
        port, workers = str(self._options.port), str(self._options.workers)
        celery = [PYTHON, "-m", "celery", "-A", "runbook"]
        schedule = self._folder / "beat" / "schedule"
        schedule.parent.mkdir(parents=True, exist_ok=True)
        return [
            Program(
                "web",
                [PYTHON, "-m", "uvicorn", "runbook.asgi:application", "--host", HOST, "--port", port,
                 "--no-access-log", "--timeout-graceful-shutdown", "5"],
                answers(f"http://{HOST}:{port}/readyz"),
            ),
            Program("worker", [*celery, "worker", "--pool", "prefork", "--concurrency", workers], logs(WORKER_READY)),
            Program("checkpoints", [PYTHON, "manage.py", "sign_checkpoints"], logs(CHECKPOINTS_READY)),
            Program("beat", [*celery, "beat", "--schedule", str(schedule), "--pidfile="], logs(BEAT_READY)),
        ]  # fmt: skip

    def _watch(self, stores: Stores | None) -> None:
        while True:
            self._supervisor.check()
            dead = stores.dead() if stores else None
            if dead:
                raise ProgramEnded(f"{dead.name} has ended. See {dead.log}.")
            time.sleep(0.5)

    def _say(self, what: str) -> None:
        print(f"  {time.monotonic() - self._begin:5.1f} s  {what}", flush=True)


def kept_secret(file: Path) -> str:
    """The secret key of this folder's data; made at the first start, readable by nobody else."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(48))
    return file.read_text()


def reset(folder: Path) -> None:
    """Removes everything that earlier starts have left in the folder, but not the lock."""
    if given_stores(os.environ):
        raise CannotStart(
            "DATABASE_URL and REDIS_URL are set: nothing is thrown away on servers of your own. "
            "Empty that database yourself, or unset both."
        )
    Supervisor(folder, print).end_left_overs()
    Stores(folder / "stores").end()
    for path in folder.iterdir() if folder.exists() else ():
        if path.name == "lock":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def main(arguments: list[str] | None = None) -> int:
    """The command line. 0: ended by Ctrl-C; 1: something ended by itself or kept it from starting."""
    parser = argparse.ArgumentParser(prog="python -m runbook.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--plain", action="store_true", help="without the simulated world")
    parser.add_argument("--reset", action="store_true", help="throw the data away first")
    parser.add_argument("--manage", nargs=argparse.REMAINDER, help="only run this command of manage.py")
    parser.add_argument("--folder", type=Path, default=ROOT / "var", help="data and logs (default: var)")
    chosen = parser.parse_args(arguments)
    folder = chosen.folder.resolve()
    launcher = Launcher(folder, Options.read(os.environ), simulated=not chosen.plain)
    try:
        if chosen.manage:
            return launcher.manage(chosen.manage)
        with only_one(folder / "lock"), signals_interrupt():
            if chosen.reset:
                reset(folder)
            launcher.run()
    except KeyboardInterrupt:
        print("Ended.", flush=True)
        return 0
    except AlreadyRunning as other:
        print(
            f"Runbook runs already in {folder} (process {other}). End that one first with Ctrl-C.",
            file=sys.stderr,
        )
    except (CannotStart, ProgramEnded, StoreTrouble) as reason:
        print(f"\n{reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
