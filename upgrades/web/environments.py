"""Pages about environments."""

from __future__ import annotations

import hashlib

from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from upgrades.models import Environment
from upgrades.queries.environments import (
    EnvironmentPage,
    environment_list,
    environment_page,
    find_environment,
)
from upgrades.queries.simulated import SimulatedPanel, panel
from upgrades.services.people import actor_id
from upgrades.web.stream import stream_url


def person(request: HttpRequest) -> User:
    """The one who is signed in; the middleware has seen to it that somebody is."""
    assert isinstance(request.user, User)
    return request.user


def environment_or_404(request: HttpRequest, environment_id: int) -> Environment:
    """The environment, if this person may see it: “not there” and “not yours” look the same."""
    environment = find_environment(person(request), environment_id)
    if environment is None:
        raise Http404("There is no such environment, or you have no role in it.")
    return environment


@require_safe
def list_environments(request: HttpRequest) -> HttpResponse:
    shown = environment_list(person(request), timezone.now())
    return render(request, "upgrades/environments/list.html", {"page": shown})


@require_safe
def show_environment(request: HttpRequest, environment_id: int) -> HttpResponse:
    return _answer(request, environment_id, "upgrades/environments/show.html")


@require_safe
def environment_board(request: HttpRequest, environment_id: int) -> HttpResponse:
    """The part of the page that stays live; 304 while nothing of it has changed."""
    return _answer(request, environment_id, "upgrades/environments/board.html")


def _answer(request: HttpRequest, environment_id: int, template: str) -> HttpResponse:
    environment = environment_or_404(request, environment_id)
    user = person(request)
    page = environment_page(environment, user, actor_id(user), timezone.now())
    simulated = panel(environment) if "operator" in page.roles else None
    etag = _etag(page, simulated)
    if template.endswith("board.html") and request.headers.get("If-None-Match") == etag:
        return HttpResponse(status=304, headers={"ETag": etag})
    context = {
        "page": page,
        "panel": simulated,
        "etag": etag,
        "stream_url": stream_url("environment", environment.pk, user.pk),
        "rehearsal": page.is_rehearsal,
    }
    response = render(request, template, context)
    response.headers["ETag"] = etag
    return response


def _etag(page: EnvironmentPage, simulated: SimulatedPanel | None) -> str:
    """Of everything that is shown, not of the version alone: agents are heard without a new version."""
    return f'"{page.version}-{hashlib.sha256(repr((page, simulated)).encode()).hexdigest()[:16]}"'
