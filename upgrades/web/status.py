"""The status page: is there news of everybody, does the background work go on, what waits and what is lost."""

from __future__ import annotations

import hashlib
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.http import parse_etags
from django.views.decorators.http import require_safe

from upgrades.queries.status_page import StatusPage, status_page
from upgrades.web.environments import person
from upgrades.web.watchers import operates

PAGE = "upgrades/status/show.html"


@require_safe
def show_status(request: HttpRequest) -> HttpResponse:
    return render(request, PAGE, _context(request))


@require_safe
def status_board(request: HttpRequest) -> HttpResponse:
    """The live part; 304 while nothing of it is different."""
    context = _context(request)
    tags = [tag.removeprefix("W/") for tag in parse_etags(request.headers.get("If-None-Match", ""))]
    if context["etag"] in tags:
        return HttpResponse(status=304, headers={"ETag": context["etag"]})
    response = render(request, f"{PAGE}#board", context)
    response.headers["ETag"] = context["etag"]
    return response


def _context(request: HttpRequest) -> dict[str, Any]:
    user = person(request)
    page = status_page(user, timezone.now(), operates=operates(user))
    return {"page": page, "etag": _etag(page, user.pk)}


def _etag(page: StatusPage, user: int) -> str:
    """Of what is shown; the present time, which every page has of its own, is no part of it."""
    background = page.background
    shown = (
        background.life,
        background.working,
        background.ticks,
        background.queues,
        background.checkpoint_trouble,
        background.names_workers,
        page.environments,
    )
    return f'"{hashlib.sha256(repr(shown).encode()).hexdigest()[:20]}.{user}"'
