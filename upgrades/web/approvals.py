"""The inbox of signatures."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from upgrades.queries.approvals import inbox
from upgrades.services.people import actor_id
from upgrades.web.environments import person


@require_safe
def list_approvals(request: HttpRequest) -> HttpResponse:
    user = person(request)
    return render(request, "upgrades/approvals/list.html", {"inbox": inbox(user, actor_id(user))})
