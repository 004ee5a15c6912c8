"""What a watcher may ask, and the page of a failure.

`/healthz`: the process serves. Point a load balancer here: pages work while Redis is away, and say so
themselves while PostgreSQL is. `/readyz`: both stores answer, and how they are set up.
"""

import sys
from collections.abc import Callable
from importlib.metadata import version

import redis
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import Error, InterfaceError, OperationalError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django.views.defaults import server_error as plain_server_error

KOMBU_AT_LEAST = (5, 7)  # older ones stop taking tasks for ever after Redis was away
POSTGRES_MUST_BE_ON = ("fsync", "full_page_writes", "synchronous_commit", "data_checksums")


class NotReady(Exception):
    """A store does not answer; the text is for whoever repairs it and holds no address or password."""


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


@login_not_required
@require_safe
@never_cache
def healthz(_request: HttpRequest) -> HttpResponse:
    """200 as long as this process serves."""
    return HttpResponse("ok\n", content_type="text/plain")


@login_not_required
@require_safe
@never_cache
def readyz(_request: HttpRequest) -> JsonResponse:
    """200 when both stores answer, else 503; per part `ok`, and what is wrong with its settings."""
    checks: dict[str, Callable[[], list[str]]] = {
        "postgresql": postgres_warnings,
        "redis": redis_warnings,
        "celery": celery_warnings,
    }
    parts: dict[str, dict[str, object]] = {}
    for name, check in checks.items():
        try:
            parts[name] = {"ok": True, "warnings": check()}
        except NotReady as reason:
            parts[name] = {"ok": False, "reason": str(reason)}
    ready = all(part["ok"] for part in parts.values())
    return JsonResponse({"ready": ready, **parts}, status=200 if ready else 503)


STORE_AWAY = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>Runbook: the database is away</title>"
    "<h1>The database does not answer</h1><p>Nothing was changed that you have not seen confirmed. "
    "Load the page again in a few seconds; if this stays, tell whoever runs Runbook.</p></html>"
)


def server_error(request: HttpRequest) -> HttpResponse:
    """503 with Retry-After while PostgreSQL is away: an outage is no fault of a page. Else a plain 500."""
    if isinstance(sys.exc_info()[1], (OperationalError, InterfaceError)):
        return HttpResponse(STORE_AWAY, status=503, headers={"Retry-After": "5"})
    return plain_server_error(request)
