"""The panel of simulated servers: one address for all its buttons."""

from __future__ import annotations

from urllib.parse import quote

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render, resolve_url
from django.views.decorators.http import require_POST

from upgrades.domain.refusal import BadInput, NotAllowed, Refused
from upgrades.models import Environment, Run
from upgrades.queries.simulated import panel
from upgrades.services import simulated
from upgrades.web.answers import TOLD, status_of, wants_fragment
from upgrades.web.environments import environment_or_404, person

ACTIONS = frozenset({"stop", "start", "crash", "install", "replace-folder"})


@require_POST
def act(request: HttpRequest, environment_id: int) -> HttpResponse:
    """Does what the button says. With htmx the panel comes back, else its page again; both say what happened."""
    environment = environment_or_404(request, environment_id)
    if not environment.world:
        raise Http404(
            "These servers are not simulated: what is done to them is done at the servers themselves."
        )
    run = _run(request, environment)
    said, refused, status = "", "", 200
    try:
        said = _do(request, environment, run)
    except NotAllowed as refusal:
        raise PermissionDenied(refusal.message) from refusal
    except Refused as refusal:
        refused, status = refusal.message, status_of(refusal)
    if wants_fragment(request):
        return _fragment(request, environment, run, said=said, refused=refused, status=status)
    (messages.success if said else messages.error)(request, said or refused)
    page = resolve_url("show-run", run.pk) if run else resolve_url("environment", environment.pk)
    return HttpResponseRedirect(f"{page}#simulated", status=303)


def _fragment(
    request: HttpRequest, environment: Environment, run: Run | None, *, said: str, refused: str, status: int
) -> HttpResponse:
    environment.refresh_from_db(fields=["world"])
    context = {"panel": panel(environment, run), "said": said, "refused": refused}
    response = render(request, "upgrades/simulated/panel.html", context, status=status)
    if refused:
        response.headers["X-Refusal"] = quote(refused[:TOLD])
    return response


def _run(request: HttpRequest, environment: Environment) -> Run | None:
    number = request.POST.get("run", "")
    if not number:
        return None
    found = number.isascii() and number.isdigit()
    run = (
        environment.runs.select_related("procedure").filter(pk=int(number)).first()
        if found and len(number) < 19
        else None
    )
    if run is None:
        raise Http404("There is no such run here.")
    return run


def _do(request: HttpRequest, environment: Environment, run: Run | None) -> str:
    post, user = request.POST, person(request)
    server, host = _place(post.get("where", ""))
    match post.get("do", ""):
        case "step" if run is not None:
            return simulated.do_step(run_id=run.pk, by=user)
        case "act" if post.get("action", "") in ACTIONS:
            action = {"action": post["action"], "server": post.get("server", "")}
            return simulated.act(environment_id=environment.pk, action=action, by=user)
        case "misbehave" | "heal" as wish:
            return simulated.misbehave(
                environment_id=environment.pk,
                what=post.get("what", ""),
                server=server,
                host=host,
                over=wish == "heal",
                by=user,
            )
        case "renew":
            return simulated.renew(environment_id=environment.pk, scenario=post.get("scenario", ""), by=user)
    raise BadInput("Nobody knows this button. Load the page again.")


def _place(where: str) -> tuple[str, str]:
    """`server:confserv` or `host:fra-cfg-01` as (server, host)."""
    kind, _, name = where.partition(":")
    return (name, "") if kind == "server" else ("", name) if kind == "host" else ("", "")
