"""Making the n-th SQL statement, or the n-th commit, of a piece of work fail in earnest: the server itself refuses it or ends
the session, so that what the transaction had done is gone as it would be in life."""

import contextlib
import hashlib

import psycopg
from django.db import OperationalError, connection
from django.db.backends.base.base import BaseDatabaseWrapper

RAISE = "DO $$ BEGIN RAISE EXCEPTION 'torture' USING ERRCODE = '{}'; END $$"
FAULTS = {
    "serialization failure": RAISE.format("40001"),
    "deadlock": RAISE.format("40P01"),
    "disk full": RAISE.format("53100"),
    "connection lost": "SELECT pg_terminate_backend(pg_backend_pid())",
}
# What is no truth of Runbook: sessions, counters, who looks at a page, and texts that no act changes.
LEFT_OUT = (
    *(
        "django_session",
        "django_migrations",
        "django_content_type",
        "auth_permission",
        "upgrades_sharedcache",
    ),
    *("upgrades_presence", "upgrades_procedureversion", "upgrades_checkpointwatch"),
)


class Failing:
    """Inside `with failing(k, fault)`: the k-th statement fails; afterwards `fired` says whether there was one."""

    def __init__(self, k, fault):
        self.k, self.fault, self.passed, self.fired = k, FAULTS[fault], 0, False

    def __call__(self, execute, sql, params, many, context):
        self.passed += 1
        if self.passed == self.k:
            self.fired = True
            return execute(self.fault, None, False, context)
        return execute(sql, params, many, context)


@contextlib.contextmanager
def failing(k, fault):
    wrapper = Failing(k, fault)
    with connection.execute_wrapper(wrapper):
        try:
            yield wrapper
        finally:
            forget_connection()


class FailingCommit:
    def __init__(self, k):
        self.k, self.passed, self.fired = k, 0, False


@contextlib.contextmanager
def failing_commit(k, *, done):
    """The k-th commit fails. `done`: the server has it, and only its answer is lost; else it never came there."""
    state, proper = FailingCommit(k), BaseDatabaseWrapper._commit  # type: ignore[attr-defined]

    def commit(self):
        state.passed += 1
        if state.passed != state.k:
            return proper(self)
        state.fired = True
        if done:
            proper(self)
        self.connection.close()
        self.errors_occurred = True
        raise OperationalError("torture: the connection was lost at the commit")

    BaseDatabaseWrapper._commit = commit  # type: ignore[attr-defined]
    try:
        yield state
    finally:
        BaseDatabaseWrapper._commit = proper  # type: ignore[attr-defined]
        forget_connection()


def forget_connection():
    """As at the end of each request and task: a connection that had errors is not used again."""
    connection.needs_rollback = False
    connection.close()


class Eye:
    """Looks at the whole database from beside the application: `look` differs when anything differs."""

    def __init__(self):
        parameters = connection.get_connection_params()
        known = {
            name: parameters[name]
            for name in ("dbname", "user", "password", "host", "port")
            if parameters.get(name)
        }
        self.connection = psycopg.connect(**known, autocommit=True)
        names = [
            name
            for (name,) in self.connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
            )
            if name not in LEFT_OUT
        ]
        parts = [
            f"SELECT '{name}' AS name, coalesce(string_agg(row::text, '|' ORDER BY row::text), '') AS has FROM {name} AS row"
            for name in names
        ]
        self.sql = " UNION ALL ".join(parts)

    def look(self):
        return {
            name: hashlib.sha256(has.encode()).hexdigest() for name, has in self.connection.execute(self.sql)
        }

    def close(self):
        self.connection.close()
