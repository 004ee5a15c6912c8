"""Wires the application: settings, addresses, Celery, servers, the launcher. Holds no logic of upgrades."""

from runbook.celery import (
    app as celery_app,
)  # so that every process, not only the worker, sends to our broker

__all__ = ["celery_app"]
