"""Where the benchmark runs: a database of its own beside the one of the settings, and processes of its own."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg
import redis
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql

NAME = "runbook_bench"
COPY = f"{NAME}_copy"
MAINTENANCE = "postgres"  # a database is not copied or dropped by whoever is connected to it
REDIS_NUMBER = 9  # of Redis's sixteen numbered stores; the application uses 0
START_SECONDS = 60.0


class CannotMeasure(Exception):
    """What keeps the benchmark from being run, in a sentence that says what to do."""


@contextlib.contextmanager
def own_stores() -> Iterator[dict[str, str]]:
    """An empty database for the time being; gives the environment with which programs use it."""
    database = settings.DATABASES["default"]
    address = os.environ["DATABASE_URL"]
    with psycopg.connect(address, autocommit=True) as connection:
        drop = sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(NAME))
        try:
            connection.execute(drop + sql.SQL(" WITH (FORCE)"))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(NAME)))
        except psycopg.errors.InsufficientPrivilege as refusal:
            raise CannotMeasure(
                f"The benchmark makes a database of its own, and {database['USER']} may not make any. "
                "Unset DATABASE_URL and REDIS_URL: then servers are started for it."
            ) from refusal
        forget_messages(_redis())
        try:
            yield {
                **os.environ,
                "DATABASE_URL": urlunsplit(urlsplit(address)._replace(path=f"/{NAME}")),
                "REDIS_URL": _redis(),
                "RUNBOOK_HTTPS": "off",
                "RUNBOOK_LOG_LEVEL": "ERROR",
            }
        finally:
            # Not by force: an autovacuum of what was filled would stop that, and the plain command waits until it is gone.
            connection.execute(drop)


@contextlib.contextmanager
def copied() -> Iterator[tuple[BaseDatabaseWrapper, BaseDatabaseWrapper]]:
    """Connections to the benchmark's database and to a copy of it as it is now. `use` says which one is meant."""
    database = connections[DEFAULT_DB_ALIAS]
    copy = connections.create_connection(DEFAULT_DB_ALIAS)
    copy.settings_dict = {**copy.settings_dict, "NAME": COPY}
    database.close()  # nobody may be connected to what is copied
    drop = sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(COPY))
    with psycopg.connect(os.environ["DATABASE_URL"], dbname=MAINTENANCE, autocommit=True) as connection:
        connection.execute(drop + sql.SQL(" WITH (FORCE)"))
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(COPY), sql.Identifier(NAME))
        )
        try:
            yield database, copy
        finally:
            use(database)
            copy.close()
            connection.execute(drop)


def use(database: BaseDatabaseWrapper) -> None:
    """What this thread does from now on, it does in this database."""
    connections[DEFAULT_DB_ALIAS] = database


def _redis() -> str:
    return urlunsplit(urlsplit(settings.REDIS_URL)._replace(path=f"/{REDIS_NUMBER}"))


def forget_messages(address: str | None = None) -> None:
    """What an earlier benchmark left in its queues would be worked off in this one."""
    with redis.Redis.from_url(address or settings.REDIS_URL) as store:
        for key in store.scan_iter(f"{settings.CELERY_BROKER_TRANSPORT_OPTIONS['global_keyprefix']}*"):
            store.delete(key)


@contextlib.contextmanager
def program(*command: str, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """A program of ours that runs for as long as the block lasts."""
    with subprocess.Popen(  # noqa: S603 - programs of our own, no shell
        [sys.executable, *command], cwd=settings.BASE_DIR, text=True, stdin=subprocess.DEVNULL, **more
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def agents(folder: Path, count: int) -> Iterator[list[dict[str, str]]]:
    """So many agents in one process; gives the address of each."""
    with program("-m", "upgrades.bench.agents", str(folder), str(count), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise CannotMeasure(
                f"{count} agents could not be started in one process. Raise the limit of open files "
                "(ulimit -n) above 20 for each, or take fewer."
            )
        yield json.loads(line)


@contextlib.contextmanager
def worker(folder: Path, processes: int) -> Iterator[None]:
    """A Celery worker with its clock."""
    command = ["-m", "celery", "-A", "runbook", "worker", "--concurrency", str(processes), "--beat"]
    log = folder / "worker.log"
    with (
        log.open("w") as out,
        program(*command, "--schedule", str(folder / "beat"), stdout=out, stderr=out),
    ):
        yield


@contextlib.contextmanager
def web(folder: Path) -> Iterator[str]:
    """The web server; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", folder / "web.log"
    command = ["-m", "uvicorn", "runbook.asgi:application", "--port", str(port), "--no-access-log"]
    with log.open("w") as out, program(*command, stdout=out, stderr=out) as process:
        until = time.monotonic() + START_SECONDS
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > until:
                raise CannotMeasure(f"The web server did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield url


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=2.0).status_code < 500
    except httpx.TransportError:
        return False
