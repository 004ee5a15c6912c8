"""The inbox of signatures, its counter, and a request with all that is needed to decide it."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import uuid4

from django.contrib import messages
from django.contrib.auth.models import AbstractUser
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import parse_etags
from django.views.decorators.http import require_http_methods, require_safe

from upgrades.domain.refusal import ContentChanged, Refused
from upgrades.queries.approval_page import ApprovalPage, approval_page
from upgrades.queries.approvals import inbox
from upgrades.queries.run_page import Seen, seen_by, sight_of
from upgrades.queries.run_page.difference import Change, difference
from upgrades.services.people import actor_id
from upgrades.services.sign_in import ProofNeeded
from upgrades.web.answers import answer_refusal
from upgrades.web.environments import person
from upgrades.web.forms import FORMS, ActForm, sent_form
from upgrades.web.sign_in import ask_again, proof_of

LIST = "upgrades/approvals/list.html"
SHOW = "upgrades/approvals/show.html"
DECIDED = {
    "sign": "You signed it.",
    "reject": "You rejected it.",
    "ask-again": "It is asked again.",
}


@require_safe
def list_approvals(request: HttpRequest) -> HttpResponse:
    return render(request, LIST, _inbox(person(request)))


@require_safe
def approvals_board(request: HttpRequest) -> HttpResponse:
    """The live part of the inbox, with an ETag of what it says; 304 while that is the same."""
    context = _inbox(person(request))
    tags = [tag.removeprefix("W/") for tag in parse_etags(request.headers.get("If-None-Match", ""))]
    if context["etag"] in tags:
        return HttpResponse(status=304, headers={"ETag": context["etag"]})
    response = render(request, f"{LIST}#inbox", context)
    response.headers["ETag"] = context["etag"]
    return response


def _inbox(user: AbstractUser) -> dict[str, Any]:
    found = inbox(user, actor_id(user))
    return {"inbox": found, "etag": f'"{hashlib.sha256(repr(found).encode()).hexdigest()[:20]}.{user.pk}"'}


@require_safe
def count_approvals(request: HttpRequest) -> HttpResponse:
    """The number beside “Approvals”; each page asks for it, so it falls as it rises."""
    return render(request, "upgrades/approvals/count.html")


@require_http_methods(["GET", "HEAD", "POST"])
def decide(request: HttpRequest, run_id: int, step: str, gate: str) -> HttpResponse:
    """One request: what exactly is signed, and the forms to sign or reject it. Works from a phone, without script."""
    user = person(request)
    seen = _seen(run_id, user)
    if request.method != "POST":
        return _show(request, seen, user, step, gate)
    verb = request.POST.get("verb", "")
    if verb not in DECIDED:
        raise Http404("There is no such act.")
    form: ActForm | None = None
    try:
        form = sent_form(FORMS[verb], request)
        form.proof = proof_of(request)
        form.send(run_id, user)
    except ProofNeeded:
        return ask_again(
            request, what=f"{FORMS[verb].button}: request of run {run_id}", page=_address(run_id, step, gate)
        )
    except Refused as refusal:
        changed = request.POST.get("digest", "") if isinstance(refusal, ContentChanged) else ""
        again = _seen(run_id, user)
        return answer_refusal(
            refusal,
            lambda text, status: _show(
                request, again, user, step, gate, form, refusal=text, status=status, changed=changed
            ),
        )
    messages.success(request, DECIDED[verb])
    return HttpResponseRedirect(reverse("approvals"), status=303)


def _address(run_id: int, step: str, gate: str) -> str:
    return reverse("approval", args=[run_id, step, gate])


def _seen(run_id: int, user: AbstractUser) -> Seen:
    found = seen_by(run_id, user)
    if found is None:
        raise Http404("There is no such request, or you have no role in its environment.")
    return found


def _show(
    request: HttpRequest,
    seen: Seen,
    user: AbstractUser,
    step: str,
    gate: str,
    form: ActForm | None = None,
    *,
    refusal: str = "",
    status: int = 200,
    changed: str = "",
) -> HttpResponse:
    run, sight = sight_of(seen, user)
    page = approval_page(run, sight, step, gate)
    if page is None:
        raise Http404("There is no such request, or the run has not come to it.")
    changes: tuple[Change, ...] = difference(sight, step, gate, changed) if changed else ()
    context = {
        "page": page,
        "forms": {verb.replace("-", "_"): _form(verb, page, form) for verb in DECIDED},
        "refusal": refusal,
        "changes": changes,
        "rehearsal": page.rehearsal,
    }
    return render(request, SHOW, context, status=status)


def _form(verb: str, page: ApprovalPage, refused: ActForm | None) -> ActForm:
    """The form of `verb` for what the page shows now; the one that was refused keeps what was typed."""
    values: dict[str, Any] = {
        "step": page.step,
        "visit": page.visit,
        "gate": page.gate.id,
        "digest": page.approval.digest,
        "command_id": uuid4(),
    }
    form_class = FORMS[verb]
    if refused is not None and refused.verb == verb:
        typed = {name: refused.data.get(name, "") for name in form_class.base_fields}
        again = form_class({**typed, **values}, key=f"decide-{verb}")
        for name, mistakes in refused.errors.items():
            if name in again.fields and name not in again.errors:
                again.add_error(name, list(mistakes))
        return again
    return form_class(initial=values, key=f"decide-{verb}")
