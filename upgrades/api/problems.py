"""Everything that goes wrong, as RFC 9457 tells it: a kind, a title, and a sentence that says what, why, what now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from django.http import HttpRequest, HttpResponse

from upgrades.domain.refusal import BadInput, NotAllowed, Refused, TooOften, Unavailable, VersionMoved
from upgrades.domain.run import BY_TOKEN
from upgrades.services.environment_editing import BadFields
from upgrades.services.runs import HeadMoved, NoSuchRun
from upgrades.services.sign_in import ProofNeeded
from upgrades.services.starting import BadAnswers

MEDIA_TYPE = "application/problem+json"
KIND = "urn:runbook:problem:"
AGAIN = 5  # seconds after which something that did not answer is worth another try
Fields = Sequence[Mapping[str, str]]


class Problem(Exception):
    """An answer that is a problem. `code` is for programs, `detail` for the person who reads the log at night."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        errors: Fields = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.headers = headers or {}
        self.errors = errors


def answer(request: HttpRequest, problem: Problem) -> HttpResponse:
    """The problem as a response. `instance` is the address that was asked, without what stood behind its “?”."""
    body: dict[str, Any] = {
        "type": f"{KIND}{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "instance": request.path,
    }
    if problem.errors:
        body["errors"] = [dict(one) for one in problem.errors]
    content = json.dumps(body, ensure_ascii=False).encode()
    return HttpResponse(
        content, status=problem.status, content_type=MEDIA_TYPE, headers=dict(problem.headers)
    )


def bad_request(detail: str, errors: Fields = (), *, code: str = "bad-input") -> Problem:
    """400: it cannot be used as it was sent."""
    return Problem(400, code, "The request cannot be used as it is", detail, errors=errors)


def not_found(detail: str) -> Problem:
    """404: not there, or not yours; the two look the same."""
    return Problem(404, "not-found", "Not there, or not yours", detail)


def of_refusal(refusal: Refused) -> Problem:
    """What a service refused, as a problem."""
    text = refusal.message
    match refusal:
        case NoSuchRun():
            return not_found(text)
        case NotAllowed() if text == BY_TOKEN:
            return Problem(403, "token-never-signs", "A token can never sign", text)
        case NotAllowed() | ProofNeeded():
            return Problem(403, refusal.code, "This is not allowed", text)
        case BadAnswers(mistakes=mistakes) | BadFields(mistakes=mistakes):
            errors = [{"field": name, "detail": told} for name, told in mistakes.items()]
            return bad_request(text, errors)
        case BadInput(field=name):
            return bad_request(text, [{"field": name, "detail": text}] if name else ())
        case HeadMoved():
            return Problem(412, refusal.code, "The run has gone on", text)
        case VersionMoved():
            return Problem(412, refusal.code, "Not the present version", text)
        case TooOften(wait=wait):
            return Problem(429, refusal.code, "Too many calls", text, {"Retry-After": str(wait)})
        case Unavailable():
            return Problem(503, refusal.code, "Something does not answer", text, {"Retry-After": str(AGAIN)})
    return Problem(409, refusal.code, _CONFLICTS.get(refusal.code, "Not as things stand now"), text)


_CONFLICTS = {
    "out-of-turn": "The run stands elsewhere",
    "gate-closed": "A gate is not open",
}
