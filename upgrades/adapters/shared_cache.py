"""Django's cache in a table of PostgreSQL, shared by all web processes: sign-in counts its attempts here.

Values are JSON: what comes back out of the table can be wrong, but it cannot run. Losing the table loses counters only,
so it is unlogged. `add` is one statement, so of any number of callers exactly one is first.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django.db import connection

TABLE = "upgrades_sharedcache"
LONGEST = 255  # characters of a key; a longer one is kept by its digest
SWEPT = 20  # entries past their time that each write takes away
EXPIRES = "clock_timestamp() + make_interval(secs => %s)"
FOR_EVER = 10 * 365 * 24 * 3600


class SharedCache(BaseCache):
    """`get`, `add`, `set`, `delete` and `clear` over `upgrades_sharedcache`."""

    def __init__(self, _location: str, params: dict[str, Any]) -> None:
        super().__init__(params)

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        row = self._run(
            f"SELECT value FROM {TABLE} WHERE key = %s AND expires > clock_timestamp()",  # noqa: S608
            [self._key(key, version)],
        )
        return default if row is None else json.loads(row[0])

    def add(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        row = self._run(
            f"INSERT INTO {TABLE} AS held (key, value, expires) VALUES (%s, %s, {EXPIRES}) "  # noqa: S608
            "ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, expires = EXCLUDED.expires "
            "WHERE held.expires <= clock_timestamp() RETURNING 1",
            [self._key(key, version), json.dumps(value), self._seconds(timeout)],
        )
        return row is not None

    def set(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        self._run(
            f"INSERT INTO {TABLE} (key, value, expires) VALUES (%s, %s, {EXPIRES}) "  # noqa: S608
            "ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, expires = EXCLUDED.expires",
            [self._key(key, version), json.dumps(value), self._seconds(timeout)],
        )
        # Whoever else sweeps holds other rows: nobody waits for anybody.
        self._run(
            f"DELETE FROM {TABLE} WHERE key IN (SELECT key FROM {TABLE} "  # noqa: S608
            "WHERE expires <= clock_timestamp() LIMIT %s FOR UPDATE SKIP LOCKED)",
            [SWEPT],
        )

    def delete(self, key: str, version: int | None = None) -> bool:
        row = self._run(
            f"DELETE FROM {TABLE} WHERE key = %s RETURNING 1",  # noqa: S608
            [self._key(key, version)],
        )
        return row is not None

    def clear(self) -> None:
        self._run(f"DELETE FROM {TABLE}", [])  # noqa: S608

    def _key(self, key: str, version: int | None) -> str:
        made = str(self.make_key(key, version=version))
        return made if len(made) <= LONGEST else hashlib.sha256(made.encode()).hexdigest()

    def _seconds(self, timeout: Any) -> float:
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        return float(FOR_EVER if timeout is None else timeout)

    def _run(self, statement: str, values: list[Any]) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchone() if cursor.description else None
