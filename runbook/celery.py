"""The Celery application; its settings are the CELERY_ ones of `runbook.settings`."""

import contextlib
import logging
import logging.config
import os
import threading
import time
from contextvars import Token
from datetime import timedelta
from typing import Any

import psutil
from celery import Celery, bootsteps
from celery.beat import PersistentScheduler
from celery.signals import (
    beat_init,
    before_task_publish,
    heartbeat_sent,
    setup_logging,
    task_postrun,
    task_prerun,
    worker_ready,
)

from upgrades.adapters import alive, log_context

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "runbook.settings")

# The launcher waits for these lines in the logs.
WORKER_READY = "the worker takes tasks"
BEAT_READY = "beat has started"

REQUEST = "runbook_request"  # the header of a message that names the request which it comes from

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


@heartbeat_sent.connect
def worker_is_alive(**_: Any) -> None:
    """A worker calls this every two seconds, as long as Redis takes its heartbeat."""
    alive.tell_alive()


CLOCK_MOVES = timedelta(seconds=1)  # by less it is kept right all the time


class Clock(PersistentScheduler):
    """Beat's schedule; each turn of it is a sign of life."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Sends what is due; the seconds until the next turn."""
        alive.tell_alive()
        self._begin_again_where_set_back()
        return float(super().tick(*args, **kwargs))

    def _begin_again_where_set_back(self) -> None:
        """After the system's clock was set back nothing would be sent until it comes to the time of the last turn again."""
        now = self.app.now()
        latest = now + CLOCK_MOVES
        ahead = [
            entry for entry in self.schedule.values() if entry.last_run_at and entry.last_run_at > latest
        ]
        for entry in ahead:
            entry.last_run_at = now
        if ahead:
            logger.warning("the clock was set back; the schedule begins again now")
            self._heap = None  # Celery makes it anew from the entries


# The end of a worker.

# Seconds; what a task has to do at its end takes CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT at most.
ENDED_WITHIN = 30.0
HUNG = 70  # exit code


class EndsForCertain(bootsteps.StartStopStep):
    """A worker that hangs in its own end takes no tasks, and nobody starts another one: so it is ended, with its pool."""

    def close(self, parent: Any) -> None:  # noqa: ARG002 - Celery's own signature
        """Celery calls this when the worker begins to end, before anything that may hang."""
        threading.Thread(target=_end_for_certain, daemon=True).start()


def _end_for_certain() -> None:
    time.sleep(ENDED_WITHIN)
    logger.critical("this worker could not end by itself within %.0f s and is ended", ENDED_WITHIN)
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    os._exit(HUNG)


app.steps["worker"].add(EndsForCertain)


# A sign of life of this worker, as a row.

SAY_ALIVE_EVERY = 3.0  # seconds; Celery's own heartbeat comes every two
AFTER_TROUBLE = 15.0  # while the database is away, the worker's loop is not to wait for it again and again
_next_sign = 0.0


@heartbeat_sent.connect
def say_alive(sender: Any, **_: Any) -> None:
    """Celery calls this in the worker's own process while it is connected to Redis: so it takes tasks."""
    global _next_sign
    if time.monotonic() < _next_sign:
        return
    from django.db import DatabaseError, connection

    from upgrades.models import Heartbeat
    from upgrades.services import operation

    _next_sign = time.monotonic() + SAY_ALIVE_EVERY
    try:
        operation.alive(Heartbeat.Kind.WORKER, sender.eventer.hostname)
    except DatabaseError as trouble:
        _next_sign = time.monotonic() + AFTER_TROUBLE
        logger.warning("no sign of life could be stored: %s", trouble)
    finally:
        connection.close()  # the processes of the pool must not inherit it


# Which task a line of the log belongs to, and which request rang for it.

_tokens: dict[str, Token[log_context.Scope]] = {}


@before_task_publish.connect
def say_which_request_rang(headers: dict[str, Any], **_: Any) -> None:
    """Celery calls this with the headers of a message before it is sent."""
    known = log_context.fields().get("request")
    if known is not None:
        headers[REQUEST] = known


@task_prerun.connect
def begin_lines_of_task(task_id: str, task: Any, **_: Any) -> None:
    """Celery calls this in the process, and thread, that then runs the task."""
    _tokens[task_id] = log_context.begin(
        task=task.name.rpartition(".")[2], task_id=task_id, request=getattr(task.request, REQUEST, None)
    )


@task_postrun.connect
def end_lines_of_task(task_id: str, **_: Any) -> None:
    """Celery calls this after the task, whatever came of it."""
    token = _tokens.pop(task_id, None)
    if token is not None:
        log_context.end(token)
