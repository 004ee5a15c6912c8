"""Each request has an id, and one line in the log: which page, which answer, how long it took.

The line names the route and never the address: tickets and other secrets can stand in an address.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from upgrades.adapters import log_context

ID_HEADER = "X-Request-Id"  # in which every answer tells its id
AN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+/=-]{7,99}", re.ASCII)
SLOW = 1.0  # seconds
READS = ("GET", "HEAD", "OPTIONS")

logger = logging.getLogger("runbook.requests")

GetResponse = Callable[[HttpRequest], HttpResponse]


def request_id(request: HttpRequest) -> str:
    """The id that the proxy gave, where one is named by the settings and says something like an id; else a new one."""
    header = settings.REQUEST_ID_HEADER
    told = request.headers.get(header, "") if header else ""
    return told if AN_ID.fullmatch(told) else uuid.uuid4().hex


def route_of(request: HttpRequest) -> str:
    """The name of the request's route: there are as many as addresses in urls.py, whatever is asked for."""
    match = request.resolver_match
    return (match.url_name if match else None) or "none"


class RequestLog:
    """Stands before all others, so that everything which they log has the id."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        known, began = request_id(request), time.perf_counter()
        token = log_context.begin(request=known)
        try:
            response = self.get_response(request)
            response.headers[ID_HEADER] = known
            took = time.perf_counter() - began
            logger.log(
                _level(request, response.status_code, took),
                "%s %s %s in %.0f ms",
                request.method if request.method in (*READS, "POST", "PUT", "PATCH", "DELETE") else "other",
                route_of(request),
                response.status_code,
                took * 1000,
            )
            return response
        finally:
            log_context.end(token)


def _level(request: HttpRequest, status: int, took: float) -> int:
    """Open pages ask every few seconds: what went well, quickly, and changed nothing is for those who look for it."""
    if status >= 500 or took > SLOW:
        return logging.WARNING
    return logging.DEBUG if request.method in READS and status < 400 else logging.INFO


class WhoAndWhere:
    """Adds who is signed in, and the run and environment of the address, once it is known that they may ask."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Any, _arguments: Any, named: dict[str, Any]
    ) -> HttpResponse | None:
        asked_who = getattr(
            view, "login_required", True
        )  # where it is not, nobody is looked up for a log line
        log_context.add(
            user=request.user.pk if asked_who else None,
            run=named.get("run_id"),
            environment=named.get("environment_id"),
            step=named.get("step"),
        )
        return None
