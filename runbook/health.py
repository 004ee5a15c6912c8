"""What a watcher may ask, and the page of a failure.

`/healthz`: the process serves. Point a load balancer here: pages work while Redis is away, and say so
themselves while PostgreSQL is. `/readyz`: the whole works, background work included. Strangers see only whether;
those who watch over it see what is wrong (upgrades/web/watchers.py).
"""

import sys
from collections.abc import Callable
from datetime import timedelta
from importlib.metadata import version
from urllib.parse import quote

import redis
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import AbstractUser
from django.db import DatabaseError, Error, InterfaceError, OperationalError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django.views.defaults import server_error as plain_server_error

from upgrades.domain.freshness import has_passed
from upgrades.models import CheckpointWatch
from upgrades.queries import operation
from upgrades.web.watchers import is_watching_program, operates

KOMBU_AT_LEAST = (5, 7)  # older ones stop taking tasks for ever after Redis was away
POSTGRES_MUST_BE_ON = ("fsync", "full_page_writes", "synchronous_commit", "data_checksums")


class NotReady(Exception):
    """A part does not do its work; the text is for whoever repairs it and holds no address or password."""


def postgres_warnings() -> list[str]:
    """What is set in a way that can lose acknowledged work; NotReady when PostgreSQL does not answer."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(POSTGRES_MUST_BE_ON)]
            )
            found = dict(cursor.fetchall())
    except Error as error:
        connection.close()
        raise NotReady(
            f"PostgreSQL does not answer ({type(error).__name__}). Start it, or correct DATABASE_URL."
        ) from error
    return [f"PostgreSQL has {name} = {found.get(name)}. Turn it on." for name in POSTGRES_MUST_BE_ON
            if found.get(name) not in {"on", "remote_write", "remote_apply"}]  # fmt: skip


def redis_warnings() -> list[str]:
    """As `postgres_warnings`, for Redis: lost or evicted messages cost time, never a decision."""
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2)
    try:
        client.ping()
        persistence, memory = client.info("persistence"), client.info("memory")
    except redis.RedisError as error:
        raise NotReady(
            f"Redis does not answer ({type(error).__name__}). Start it, or correct REDIS_URL."
        ) from error
    finally:
        client.close()
    warnings = []
    if not persistence.get("aof_enabled"):
        warnings.append("Redis keeps nothing on disk. Set appendonly yes.")
    if memory.get("maxmemory_policy") != "noeviction":
        warnings.append(
            f"Redis may evict messages ({memory.get('maxmemory_policy')}). Set maxmemory-policy noeviction."
        )
    return warnings


def celery_warnings() -> list[str]:
    """What would let the task queue run a slow task twice, or stop a worker after an outage of Redis."""
    warnings = []
    if settings.CELERY_TASK_TIME_LIMIT >= settings.CELERY_VISIBILITY_TIMEOUT:
        warnings.append(
            "The hard time limit of tasks is not below the visibility timeout: slow tasks would run twice."
        )
    kombu = version("kombu")
    if tuple(int(part) for part in kombu.split(".")[:2]) < KOMBU_AT_LEAST:
        warnings.append(f"kombu {kombu} is older than 5.7 and may not come back after Redis was away.")
    return warnings


def migration_warnings() -> list[str]:
    """NotReady while the tables are not those of this release."""
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if missing:
        names = ", ".join(f"{migration.app_label} {migration.name}" for migration, _ in missing[:3])
        raise NotReady(f"{len(missing)} migrations are not applied (first: {names}). Run: manage.py migrate")
    return []


def record_warnings() -> list[str]:
    """NotReady while what makes the record append-only is not there; a warning when nobody signs checkpoints."""
    missing = operation.missing_guards()
    if missing:
        raise NotReady(
            f"The database does not guard the record: {', '.join(missing)} missing or switched off. Find out who changed "
            "it, verify the chains (manage.py verify) and restore the guards from the migrations."
        )
    watch = CheckpointWatch.objects.first()
    if watch is None or has_passed(CHECKPOINTS_LATE, watch.seen_at, timezone.now()):
        return ["Nobody signs checkpoints now. Start: manage.py sign_checkpoints"]
    return [f"Checkpoints: {watch.trouble}"] if watch.trouble else []


def work_warnings() -> list[str]:
    """NotReady while no worker takes tasks, or nothing rings the clock; both are told by rows, so also without Redis."""
    now, life = timezone.now(), operation.life()
    if not life.working(now):
        when = max((seen for _, seen in life.workers), default=None)
        last = f"the last one was seen at {when:%H:%M:%S} UTC" if when else "none was ever seen"
        raise NotReady(f"No worker takes tasks: {last}. Start: celery -A runbook worker")
    if not life.ticks(now):
        last = f"last at {life.tick:%H:%M:%S} UTC" if life.tick else "never yet"
        raise NotReady(
            f"The clock of the background work stands still: it ticked {last}. Start: celery -A runbook beat"
        )
    return []


def agent_warnings() -> list[str]:
    """Agents that do not answer, or that nobody asks. No reason to be not ready: pages say so, and gates stay shut."""
    agents = operation.agents(timezone.now())
    found = {
        f"{agents.in_trouble} of {agents.known} agents do not answer as they should.": agents.in_trouble,
        f"{agents.silent} of {agents.known} agents were not asked within two polls.": agents.silent,
        f"{agents.never_heard} of {agents.known} agents were never heard.": agents.never_heard,
    }
    return [sentence for sentence, count in found.items() if count]


CHECKPOINTS_LATE = timedelta(seconds=60)
CHECKS: dict[str, Callable[[], list[str]]] = {
    "postgresql": postgres_warnings,
    "redis": redis_warnings,
    "celery": celery_warnings,
    "migrations": migration_warnings,
    "record": record_warnings,
    "work": work_warnings,
    "agents": agent_warnings,
}


def part(check: Callable[[], list[str]]) -> dict[str, object]:
    """What a check finds, as it is told to those who watch over the installation."""
    try:
        return {"ok": True, "warnings": check()}
    except NotReady as reason:
        return {"ok": False, "reason": str(reason)}
    except DatabaseError as trouble:
        connection.close()
        return {"ok": False, "reason": f"It cannot be told: PostgreSQL refuses ({type(trouble).__name__})."}


@login_not_required
@require_safe
@never_cache
def healthz(_request: HttpRequest) -> HttpResponse:
    """200 as long as this process serves."""
    return HttpResponse("ok\n", content_type="text/plain")


@login_not_required
@require_safe
@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when all parts do their work, else 503. Per part `ok` and what is wrong, for those who watch over it."""
    parts = {name: part(check) for name, check in CHECKS.items()}
    ready = all(found["ok"] for found in parts.values())
    told = parts if _may_see_parts(request) else {}
    return JsonResponse({"ready": ready, **told}, status=200 if ready else 503)


def _may_see_parts(request: HttpRequest) -> bool:
    if is_watching_program(request):
        return True
    try:
        return isinstance(request.user, AbstractUser) and operates(request.user)
    except DatabaseError:  # nobody can be known now
        connection.close()
        return False


_PAGE = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>Runbook: {what}</title>"
    "<h1>{what}</h1><p>Nothing was changed that you have not seen confirmed. {now}</p></html>"
)
_FULL = "Runs can still be read. Tell whoever runs Runbook now, and send it again when {until}."
_BUSY = "Something else is at work in the same place", "Send it again in a few seconds."
# By SQLSTATE, where PostgreSQL answers and does not do it: what is wrong, and what now.
NOT_DONE = {
    "53100": (
        "The database takes nothing more: its disk is full",
        _FULL.format(until="there is room"),
    ),
    "25006": (
        "The database takes nothing now: it is read-only",
        _FULL.format(until="it takes changes again"),
    ),
    "55P03": _BUSY,  # the time for a lock is over
    "40P01": _BUSY,  # each of two waited for the other
}


def server_error(request: HttpRequest) -> HttpResponse:
    """503 with Retry-After while PostgreSQL is away or does not do it: an outage is no fault of a page. Else a plain 500."""
    failure = sys.exc_info()[1]
    state = getattr(getattr(failure, "__cause__", None), "sqlstate", None)
    if state in NOT_DONE:
        what, now = NOT_DONE[state]
        answer = _away(what, now)
        answer.headers["X-Refusal"] = quote(f"{what}. Nothing was changed. {now}")  # for the script of a page
        return answer
    if isinstance(failure, (OperationalError, InterfaceError)):
        now = "Load the page again in a few seconds; if this stays, tell whoever runs Runbook."
        return _away("The database does not answer", now)
    return plain_server_error(request)


def _away(what: str, now: str) -> HttpResponse:
    return HttpResponse(_PAGE.format(what=what, now=now), status=503, headers={"Retry-After": "5"})
