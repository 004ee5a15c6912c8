"""Servers of these tests' own, which may be set up wrongly."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from runbook.stores import APP_ROLE, Stores
from tests.record.conftest import stage, vault  # noqa: F401 - fixtures

ROOT = Path(__file__).resolve().parent.parent.parent


def manage(environment, *command):
    """`manage.py` with this environment, as at a shell."""
    return subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


class Place:
    """A PostgreSQL with the tables and both roles, and a Redis."""

    def __init__(self, stores):
        self.stores = stores
        self.owner = stores.urls.environment()
        self.app = {**self.owner, "DATABASE_URL": stores.postgres.app_url}
        for command in (("migrate", "--noinput"), ("restrict_role", APP_ROLE)):
            done = manage(self.owner, *command)
            assert done.returncode == 0, done.stderr

    def sql(self, *statements, database=None):
        """As the superuser, in the application's database."""
        url = self.stores.postgres.superuser_url.replace("/postgres?", f"/{database or 'runbook'}?")
        with psycopg.connect(url, autocommit=True) as admin:
            return [admin.execute(statement) for statement in statements]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    folder.chmod(0o711)  # PostgreSQL may run under another account and must pass
    with Stores(folder / "stores") as stores:
        yield Place(stores)
