"""The settings for tools that read the code without running it: mypy, `makemigrations --check`.

They need no server and no secret, so this fills in what the real settings demand and takes the database away.
"""

import os

os.environ.update(
    SECRET_KEY="for-tools-that-never-serve-a-page-" + "0" * 20,
    DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
    REDIS_URL="redis://127.0.0.1:1/0",
)

from runbook.settings import *  # noqa: F403

DATABASES = {}
