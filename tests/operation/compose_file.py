"""`docker-compose.yml` on this machine without a container engine: its commands, its environment, its health checks.

What a container would give is mapped: names of hosts to loopback, ports to free ones, volumes to folders, the stores' images
to the servers of the wheels. A folder that a service does not mount leads nowhere, as it would there.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import psycopg
import yaml

from runbook.stores import APP_ROLE, DATABASE, ROLE, Stores, free_port

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
STORES = ("postgres", "redis")
PLACE = re.compile(r"(?<![\w.])/(?:data|keys|backups|tmp|srv/static)\b")
PATIENCE = 90  # seconds; only keeps a broken program from hanging the suite


def interpolated(value, values):
    """`value` with `${NAME:-default}` and `${NAME:?sentence}` filled in, as compose does it."""
    if isinstance(value, dict):
        return {key: interpolated(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item, values) for item in value]
    if not isinstance(value, str):
        return value

    def fill(found):
        name, kind, rest = found.groups()
        if values.get(name):
            return values[name]
        if kind == "?":
            raise KeyError(f"{name}: {rest}")
        return rest or ""

    return VARIABLE.sub(fill, value).replace("$$", "$")


def services(values=None):
    """The services; with `values`, as an `.env` with them makes them."""
    found = yaml.safe_load(TEXT)["services"]
    return found if values is None else interpolated(found, values)


def seconds(text):
    return float(text.removesuffix("s"))


class Machine:
    """Where the services run."""

    def __init__(self, folder, values):
        self.folder, self.services = folder, services(values)
        self.stores = Stores(folder / "stores")
        (folder / "stores" / "redis").mkdir(parents=True, mode=0o700)
        (folder / "stores" / "redis" / "password").write_text(values["REDIS_PASSWORD"])
        self.stores.start()
        with psycopg.connect(self.stores.postgres.superuser_url, autocommit=True) as admin:
            admin.execute(f"DROP ROLE {APP_ROLE}")  # the image has none: `migrate` makes it
        self.ports = {"8000": str(free_port()), "8010": str(free_port())}
        self.running, self.completed = {}, set()
        self.run("image", ["python", "manage.py", "collectstatic", "--noinput"], {
            "DJANGO_SETTINGS_MODULE": "runbook.check_settings", "STATIC_FOLDER": str(folder / "static"),
        })  # fmt: skip

    def mapped(self, name, text):
        """A text of the service `name` as it is meant on this machine."""
        socket = str(self.stores.postgres.socket_folder)
        redis_port = self.stores.redis.url.rpartition(":")[2].partition("/")[0]
        mounted = [mount.split(":")[1] for mount in self.services.get(name, {}).get("volumes", [])]
        text = PLACE.sub(lambda found: str(self._folder(name, found[0], mounted)), text)
        text = text.replace("@postgres:5432/runbook", f"@/runbook?host={quote(socket)}")
        text = text.replace("@redis:6379", f"@127.0.0.1:{redis_port}").replace("0.0.0.0", "127.0.0.1")
        if name == "postgres":
            text = text.replace("127.0.0.1", socket)
        if name == "redis":
            text = text.replace("redis-cli", f"redis-cli -p {redis_port}")
        for port, ours in self.ports.items():
            text = re.sub(rf"(?<=127\.0\.0\.1:){port}\b|^{port}$", ours, text)
        return text

    def _folder(self, name, place, mounted):
        if place == "/tmp":
            own = self.folder / "of" / name
            own.mkdir(parents=True, exist_ok=True)
            return own
        if place != "/srv/static" and place not in mounted:
            return self.folder / "not-mounted"
        there = self.folder / place.split("/")[-1]
        there.mkdir(exist_ok=True)
        return there

    def environment(self, name):
        """What the service sees, and nothing of this process's own but where programs are."""
        tools = [
            Path(sys.executable).parent,
            self.stores.postgres._binaries,
            self.stores.redis._binary.parent,
        ]
        wanted = self.services[name].get("environment") or {}
        image = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "STATIC_FOLDER": "/srv/static"}
        return {
            "PATH": os.pathsep.join([*map(str, tools), os.defpath]),
            **{key: self.mapped(name, str(value)) for key, value in {**image, **wanted}.items()},
        }

    def command(self, name):
        service = self.services[name]
        return [self.mapped(name, part) for part in [*service.get("entrypoint", []), *service["command"]]]

    def run(self, name, command, environment):
        """A command to its end; what it said. It must end well."""
        with self.log(name).open("ab") as log:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env={"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}", **environment},
                stdout=log,
                stderr=log,
                check=False,
            )
        assert done.returncode == 0, self.said(name)
        return self.said(name)

    def log(self, name):
        return self.folder / f"{name}.log"

    def said(self, name):
        file = self.log(name)
        return file.read_text(errors="replace")[-4000:] if file.exists() else ""

    def up(self, *names):
        """Start services and before them what they wait for, in the order of `depends_on`."""
        for name in names:
            if name in self.running or name in self.completed or name in STORES:
                continue
            for other, how in (self.services[name].get("depends_on") or {}).items():
                self.up(other)
                if how["condition"] == "service_healthy":
                    self.until_healthy(other)
                else:
                    assert how["condition"] == "service_completed_successfully"
                    assert other in self.completed
            if self.services[name].get("restart") == "no":
                self.run(name, self.command(name), self.environment(name))
                self.completed.add(name)
            else:
                self._start(name)

    def _start(self, name):
        with self.log(name).open("ab") as log:
            self.running[name] = subprocess.Popen(
                self.command(name),
                cwd=ROOT,
                env=self.environment(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def is_healthy(self, name):
        kind, *test = self.services[name]["healthcheck"]["test"]
        mapped = [self.mapped(name, part) for part in test]
        command = ["sh", "-c", *mapped] if kind == "CMD-SHELL" else mapped
        return (
            subprocess.run(command, env=self.environment(name), capture_output=True, check=False).returncode
            == 0
        )

    def until_healthy(self, name):
        end = time.monotonic() + PATIENCE
        while not self.is_healthy(name):
            ended = name in self.running and self.running[name].poll() is not None
            assert not ended, f"{name} has ended: {self.said(name)}"
            assert time.monotonic() < end, f"{name} is not healthy: {self.said(name)}"
            time.sleep(0.3)

    def down(self):
        """SIGTERM to all that runs, the last one first; the exit codes. Each has its time of grace and no more."""
        codes = {}
        for name, process in reversed(list(self.running.items())):
            process.send_signal(signal.SIGTERM)
            codes[name] = process.wait(seconds(self.services[name]["stop_grace_period"]))
        self.running.clear()
        return codes

    def lose_everything(self):
        """New volumes: nothing is in the database and nothing in the folders but the backups."""
        with psycopg.connect(self.stores.postgres.superuser_url, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {DATABASE}")
            admin.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
        (self.folder / "data").rename(self.folder / "lost")
        self.completed.clear()

    def end(self):
        """Whatever is left, at the end of the tests."""
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.stores.stop()
