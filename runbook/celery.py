"""The Celery application; its settings are the CELERY_ ones of `runbook.settings`."""

import logging
import logging.config
import os
from typing import Any

from celery import Celery
from celery.signals import beat_init, setup_logging, worker_ready

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "runbook.settings")

# The launcher waits for these lines in the logs.
WORKER_READY = "the worker takes tasks"
BEAT_READY = "beat has started"

logger = logging.getLogger("runbook.celery")

app = Celery("runbook")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect
def use_our_logging(**_: Any) -> None:
    """Celery's own set-up would replace the format and the levels of the settings."""
    from django.conf import settings

    logging.config.dictConfig(settings.LOGGING)


@worker_ready.connect
def say_worker_ready(**_: Any) -> None:
    """Celery calls this once the worker has its connection to Redis."""
    logger.info(WORKER_READY)


@beat_init.connect
def say_beat_ready(**_: Any) -> None:
    """Celery calls this when the schedule is read and the clock begins."""
    logger.info(BEAT_READY)
