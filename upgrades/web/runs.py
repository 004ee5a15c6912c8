"""A run: its page, its live region, everything that people do in it, and its evidence files."""

from __future__ import annotations

import hashlib
from typing import Any, cast
from urllib.parse import quote

from django.contrib.auth.models import AbstractUser
from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
)
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import parse_etags
from django.views.decorators.http import require_POST, require_safe

from upgrades.domain.refusal import ContentChanged, Refused, Unavailable
from upgrades.models import Run
from upgrades.queries.run_page import RunPage, Seen, run_page, seen_by, sight_of
from upgrades.queries.run_page.difference import Change, difference
from upgrades.queries.simulated import SimulatedPanel, panel
from upgrades.services import evidence, holding
from upgrades.services.runs import NoSuchRun
from upgrades.services.sign_in import ProofNeeded
from upgrades.web.answers import answer_refusal, wants_fragment
from upgrades.web.forms import FORMS, ActForm, RunForms, sent_form
from upgrades.web.sign_in import ask_again, proof_of
from upgrades.web.stream import stream_url

PAGE = "upgrades/runs/show.html"
BOARD = "upgrades/runs/show.html#board"


def _user(request: HttpRequest) -> AbstractUser:
    return cast(AbstractUser, request.user)


def _seen(request: HttpRequest, run_id: int) -> Seen:
    found = seen_by(run_id, _user(request))
    if found is None:
        raise Http404("There is no such run, or you have no role in its environment.")
    return found


@require_safe
def show_run(request: HttpRequest, run_id: int) -> HttpResponse:
    """The page of a run; once the run is over it is its report."""
    return _show(request, _seen(request, run_id), PAGE)


@require_safe
def run_board(request: HttpRequest, run_id: int) -> HttpResponse:
    """The live region. Its ETag is the version of the run as this person sees it, and whom it has no news of."""
    seen = _seen(request, run_id)
    etag = _etag(seen, _user(request))
    if etag in [tag.removeprefix("W/") for tag in parse_etags(request.headers.get("If-None-Match", ""))]:
        return HttpResponse(status=304, headers={"ETag": etag})
    return _show(request, seen, BOARD)


@require_POST
def act_on_run(request: HttpRequest, run_id: int, verb: str) -> HttpResponse:
    """One act of a person. Refused, the page comes again with the reason and what was typed."""
    if verb not in FORMS:
        raise Http404("There is no such act.")
    _seen(request, run_id)
    form: ActForm | None = None
    try:
        form = sent_form(FORMS[verb], request)
        form.proof = proof_of(request)
        form.send(run_id, _user(request))
    except ProofNeeded:
        run = Run.objects.only("title").get(pk=run_id)
        page = reverse("show-run", args=[run_id])
        return ask_again(request, what=f"{FORMS[verb].button}: {run.title}", page=page)
    except Refused as refusal:
        changed = form if isinstance(refusal, ContentChanged) else None
        return answer_refusal(
            refusal,
            lambda text, status: _again(request, run_id, form, refusal=text, status=status, changed=changed),
        )
    if wants_fragment(request):
        response = _again(request, run_id, None)
        response.headers["HX-Trigger"] = "approvals-changed"
        return response
    return HttpResponseRedirect(reverse("show-run", args=[run_id]), status=303)


def _again(
    request: HttpRequest,
    run_id: int,
    form: ActForm | None,
    *,
    refusal: str = "",
    status: int = 200,
    changed: ActForm | None = None,
) -> HttpResponse:
    template = BOARD if wants_fragment(request) else PAGE
    seen = _seen(request, run_id)
    changes = _changes(seen, _user(request), changed) if changed is not None else ()
    return _show(request, seen, template, form, refusal=refusal, status=status, changes=changes)


def _changes(seen: Seen, user: AbstractUser, form: ActForm) -> tuple[Change, ...]:
    """What is different since the form was made that somebody tried to sign with."""
    data = form.cleaned_data
    _, sight = sight_of(seen, user)
    return difference(sight, data["step"], data["gate"], data["digest"])


@require_safe
def run_presence(request: HttpRequest, run_id: int) -> HttpResponse:
    """Who else has the page open. Asking says that its reader has; nothing else is taken for a sign of life."""
    _seen(request, run_id)
    context = {"run": run_id, "others": holding.present(run_id, _user(request)), "every": holding.ASK_EVERY}
    return render(request, "upgrades/runs/presence.html", context)


def _show(
    request: HttpRequest,
    seen: Seen,
    template: str,
    form: ActForm | None = None,
    *,
    refusal: str = "",
    status: int = 200,
    changes: tuple[Change, ...] = (),
) -> HttpResponse:
    user = _user(request)
    page = run_page(seen, user, whole_record=request.GET.get("record") == "all")
    etag = _etag(seen, user)
    context: dict[str, Any] = {
        "page": page,
        "forms": RunForms(form),
        "rehearsal": page.rehearsal,
        "refusal": refusal,
        "changes": changes,
        "etag": etag,
        "panel": _panel(page),
        "stream_url": "" if page.is_over else stream_url("run", page.id, user.pk),
    }
    response = render(request, template, context, status=status)
    if template == BOARD and status == 200:
        response.headers["ETag"] = etag
    return response


def _panel(page: RunPage) -> SimulatedPanel | None:
    """The servers of a simulated environment, for whoever carries the run out."""
    if not page.simulated or page.is_over or "operator" not in page.roles:
        return None
    run = Run.objects.select_related("environment", "procedure").get(pk=page.id)
    return panel(run.environment, run)


def _etag(seen: Seen, user: AbstractUser) -> str:
    roles = hashlib.sha256(repr(seen.held).encode()).hexdigest()[:8]
    silent = ".silent-" + "-".join(map(str, seen.silent)) if seen.silent else ""
    return f'"{seen.version}.{seen.environment_version}.{user.pk}.{roles}{silent}"'


@require_safe
def run_evidence(request: HttpRequest, run_id: int, evidence_id: int) -> HttpResponseBase:
    """An evidence file: only ever a download, never shown, and only while it is what was attached."""
    try:
        row, file = evidence.open_file(run_id, evidence_id, _user(request))
    except NoSuchRun as refusal:
        raise Http404(refusal.message) from None
    except Unavailable as refusal:
        return HttpResponse(refusal.message, status=503, content_type="text/plain; charset=utf-8")
    response = FileResponse(file, content_type="application/octet-stream")
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(row.name, safe='')}"
    response.headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
