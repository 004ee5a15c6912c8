"""The plan of an environment: its page, and saving it as the plan of record."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render, resolve_url
from django.views.decorators.http import require_http_methods

from upgrades.domain.refusal import BadInput, Refused
from upgrades.models import Environment
from upgrades.queries.plan import plan_page
from upgrades.queries.plan_picture import pictures
from upgrades.services.planning import save_plan
from upgrades.web.answers import answer_refusal
from upgrades.web.environments import environment_or_404, person


@require_http_methods(["GET", "HEAD", "POST"])
def show_plan(request: HttpRequest, environment_id: int) -> HttpResponse:
    """The plan for what is so now beside the plan of record; a POST makes it the plan of record."""
    environment = environment_or_404(request, environment_id)
    if environment.rehearsal_of_id is not None:
        raise Http404(
            "The copy of a rehearsal has no plan. Look at the plan of the environment that it copies."
        )
    if request.method != "POST":
        return _page(request, environment)
    try:
        number = save_plan(
            environment_id=environment.pk,
            digest=request.POST.get("digest", ""),
            by=person(request),
            command_id=_command_id(request),
        )
    except Refused as refusal:
        return answer_refusal(refusal, lambda text, status: _page(request, environment, text, status))
    messages.success(request, f"Plan {number} is the plan of record now.")
    return HttpResponseRedirect(resolve_url("plan", environment.pk), status=303)


def _command_id(request: HttpRequest) -> UUID:
    try:
        return UUID(request.POST.get("command_id", ""))
    except ValueError:
        raise BadInput(
            "This form came without its number. Load the page again and repeat your act."
        ) from None


def _page(
    request: HttpRequest, environment: Environment, refusal: str = "", status: int = 200
) -> HttpResponse:
    page = plan_page(environment, person(request))
    drawn = pictures(page.stages, page.edges)
    context = {"page": page, "pictures": drawn, "refusal": refusal}
    return render(request, "upgrades/plans/show.html", context, status=status)
