"""The OpenAPI document, for people who are signed in and for tokens."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from upgrades.api import acts, audit, environments, notices, problems, procedures, runs, starting, times
from upgrades.api.door import caller_in
from upgrades.api.operations import PREFIX, api, problem_answers
from upgrades.domain.api_scopes import SCOPES

# Importing them declares their operations.
DECLARED = (acts, audit, environments, notices, procedures, runs, starting, times)
PROBLEM: dict[str, Any] = {
    "title": "Problem",
    "type": "object",
    "description": "What went wrong: what, why, what now (RFC 9457).",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "examples": [f"{problems.KIND}gate-closed"]},
        "title": {"type": "string", "examples": ["A gate is not open"]},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {
            "type": "string",
            "examples": ["Step 6 cannot be completed yet: it waits for 21-22170 from confserv_b."],
        },
        "instance": {"type": "string", "examples": ["/api/v1/runs/7/complete"]},
        "errors": {
            "type": "array",
            "description": "The fields that do not fit.",
            "items": {
                "type": "object",
                "required": ["field", "detail"],
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}


@cache
def document() -> dict[str, Any]:
    """What the API offers, as OpenAPI 3.1 tells it."""
    found: dict[str, Any] = json.loads(json.dumps(api.get_openapi_schema(path_prefix=f"/{PREFIX}")))
    found["servers"] = [{"url": "/"}]
    found["components"]["schemas"]["Problem"] = PROBLEM
    found["components"]["responses"] = problem_answers()
    schemes = found["components"]["securitySchemes"]
    schemes["Token"]["description"] = "A token from “Your account”: Authorization: Bearer rbk_…"
    for path in found["paths"].values():
        for operation in path.values():
            scope = operation["x-scope"]
            if scope == "none":
                del operation["responses"]["200"]
            else:
                text = operation.get("description", "").strip()
                operation["description"] = (
                    f"{text}\n\nNeeds a token with the scope `{scope}`: {SCOPES[scope].lower()}."
                )
    return found


def text() -> str:
    """The document as it is stored in docs/openapi.json."""
    return json.dumps(document(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


@login_not_required
def show(request: HttpRequest) -> HttpResponseBase:
    """The document. 401 for whoever is not signed in and has no token."""
    try:
        if request.method != "GET":
            raise problems.Problem(
                405, "method-not-allowed", "Not with this method", "This address takes GET.", {"Allow": "GET"}
            )
        if not request.user.is_authenticated or "Authorization" in request.headers:
            caller_in(request)
    except problems.Problem as problem:
        return problems.answer(request, problem)
    return HttpResponse(text().encode(), content_type="application/json; charset=utf-8")
