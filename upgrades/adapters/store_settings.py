"""How PostgreSQL and Redis are really set up, asked of the servers as the present role: for `manage.py preflight`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import redis
from django.db import DatabaseError, connection

from upgrades.adapters.database_role import WITHHELD

POSTGRES_SETTINGS = ("synchronous_commit", "fsync", "full_page_writes", "data_checksums")
TIMEOUT = 3.0


class NotSeen(Exception):
    """A server did not tell; the text says why and what to do, and holds no address or password."""


@dataclass(frozen=True, slots=True)
class PostgresSeen:
    """`settings` as they are in force for the role that asked; `owned` is what it could change the shape of or drop,
    `excess` the rights on tables that `restrict_role` withholds. Both count what it may become by SET ROLE. `ahead` is the
    server's clock less ours, in seconds."""

    version: int
    settings: Mapping[str, str]
    role: str
    is_superuser: bool
    tables: int
    owned: tuple[str, ...]
    excess: tuple[str, ...]
    ahead: float


@dataclass(frozen=True, slots=True)
class RedisSeen:
    """`policy`: what happens when memory is full. `fsync` is None where the server does not let us ask."""

    version: str
    role: str
    policy: str
    append_only: bool
    write_failed: bool
    fsync: str | None


def ask_postgres(clock: Callable[[], float] = time.time) -> PostgresSeen:
    """A session of its own begins, so that what a role or database was given as defaults is in force. NotSeen."""
    connection.close()
    try:
        with connection.cursor() as cursor:
            ahead = _ahead(cursor, clock)
            cursor.execute("SELECT current_setting('server_version_num')::int, current_user")
            version, role = cursor.fetchone()
            cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
            is_superuser = bool(cursor.fetchone()[0])
            cursor.execute(
                "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(POSTGRES_SETTINGS)]
            )
            settings = dict(cursor.fetchall())
            cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
            tables = cursor.fetchone()[0]
            cursor.execute(_OWNED)
            owned = tuple(name for (name,) in cursor.fetchall())
            asked = [
                (table, right)
                for table, rights in WITHHELD.items()
                for right in (*rights, "TRUNCATE", "TRIGGER")
            ]
            cursor.execute(_EXCESS, [[table for table, _ in asked], [right for _, right in asked]])
            excess = tuple(f"{right} in {table}" for table, right in cursor.fetchall())
    except DatabaseError as error:
        connection.close()
        raise NotSeen(
            f"PostgreSQL does not answer ({type(error).__name__}). Start it, or correct DATABASE_URL."
        ) from error
    return PostgresSeen(version, settings, role, is_superuser, tables, owned, excess, ahead)


# A member of the owner is an owner; a superuser is a member of everybody.
_OWNED = """
SELECT 'database ' || datname FROM pg_database
    WHERE datname = current_database() AND pg_has_role(current_user, datdba, 'MEMBER')
UNION ALL SELECT 'schema public' FROM pg_namespace
    WHERE nspname = 'public' AND pg_has_role(current_user, nspowner, 'MEMBER')
UNION ALL SELECT 'function ' || proname FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace AND pg_has_role(current_user, proowner, 'MEMBER')
UNION ALL SELECT 'table ' || relname FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND pg_has_role(current_user, relowner, 'MEMBER')
"""
# A right on one column counts as one on the table. A table that is not there gives no answer.
_EXCESS = """
SELECT name, withheld FROM unnest(%s::text[], %s::text[]) AS asked (name, withheld) WHERE EXISTS (
    SELECT FROM pg_roles WHERE pg_has_role(current_user, oid, 'MEMBER') AND CASE WHEN withheld IN ('INSERT', 'UPDATE')
        THEN has_any_column_privilege(oid, to_regclass('public.' || name), withheld)
        ELSE has_table_privilege(oid, to_regclass('public.' || name), withheld) END)
"""


def _ahead(cursor: Any, clock: Callable[[], float]) -> float:
    """The nearest of three looks: what the answer's way took is at most half of each look's length."""
    looks = []
    for _ in range(3):
        before = clock()
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        told = cursor.fetchone()[0]
        after = clock()
        looks.append((after - before, told - (before + after) / 2))
    return float(min(looks)[1])


def ask_redis(url: str) -> RedisSeen:
    """NotSeen when it does not answer."""
    with _client(url) as client:
        try:
            info: dict[str, Any] = client.info()
        except redis.RedisError as error:
            raise NotSeen(
                f"Redis does not answer ({type(error).__name__}). Start it, or correct REDIS_URL."
            ) from error
        return RedisSeen(
            version=str(info.get("redis_version", "")),
            role=str(info.get("role", "")),
            policy=str(info.get("maxmemory_policy", "")),
            append_only=bool(info.get("aof_enabled")),
            write_failed=info.get("aof_last_write_status") == "err",
            fsync=_fsync(client),
        )


@contextlib.contextmanager
def _client(url: str) -> Iterator[Any]:
    client = redis.Redis.from_url(
        url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, decode_responses=True
    )
    try:
        yield client
    finally:
        client.close()


def _fsync(client: Any) -> str | None:
    """INFO does not tell this one, and an account may be kept from asking for it."""
    try:
        found: dict[str, str] = client.config_get("appendfsync")
    except redis.RedisError:
        return None
    return found.get("appendfsync")
