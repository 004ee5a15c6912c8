"""How an operation is declared: its address, its rules, what it answers, and how the OpenAPI document tells of all that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import pydantic
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.decorators import decorate_view
from ninja.errors import HttpError, ValidationError
from ninja.parser import Parser
from ninja.security import HttpBearer

from upgrades.api import problems
from upgrades.api.door import JSON, MULTIPART, ApiRequest, Rules, guarded
from upgrades.api.keys import HEADER, LONGEST
from upgrades.domain.api_scopes import READ
from upgrades.domain.refusal import Refused
from upgrades.services.tokens import Caller

F = TypeVar("F", bound=Callable[..., Any])
PREFIX = "api/v1/"


class Token(HttpBearer):
    """The token of the request, which the door has looked at already."""

    def authenticate(self, request: HttpRequest, token: str) -> Caller | None:  # noqa: ARG002
        return getattr(request, "caller", None)


class ReadAtTheDoor(Parser):
    """The body as the door has read it: once, and strictly."""

    def parse_body(self, request: HttpRequest) -> Any:
        return request.value if isinstance(request, ApiRequest) else getattr(request, "value", None)


api = NinjaAPI(
    title="Runbook",
    version="1",
    description=(
        "What the pages can do but signing, for programs that act for a person. A token does what its owner may do, at most, and "
        "never signs. Every POST takes an Idempotency-Key; changes of a run or a record take If-Match. Lists go on by cursors; "
        "whatever goes wrong is application/problem+json. More in docs/api.md."
    ),
    openapi_url=None,
    docs_url=None,
    urls_namespace="api",
    parser=ReadAtTheDoor(),
    auth=Token(),
)


def operation(
    method: str,
    path: str,
    answer: Any,
    *,
    tag: str,
    scope: str = READ,
    status: int = 200,
    takes: Sequence[str] | None = None,
    needs_match: bool = False,
    never: bool = False,
    shows_once: str = "",
    says: Mapping[str, Any] | None = None,
) -> Callable[[F], F]:
    """Offer the function at `path`. `says` adds to what the OpenAPI document tells of it; `takes` are types of its body.

    `shows_once` names a field of the answer that is a secret: kept nowhere, and empty when the answer is given again.
    """
    acts_once = method == "POST" and not never
    rules = Rules(
        scope=scope,
        takes=tuple(takes if takes is not None else [JSON] if acts_once else []),
        needs_match=needs_match,
        acts_once=acts_once,
        never=never,
        shows_once=shows_once,
    )

    def declare(view: F) -> F:
        view.rules = rules  # type: ignore[attr-defined]
        decorate_view(guarded)(view)
        api.api_operation(
            [method],
            path,
            response={status: answer},
            operation_id=view.__name__,
            summary=(view.__doc__ or view.__name__).strip().split("\n")[0].rstrip("."),
            tags=[tag],
            openapi_extra=_told(rules, status, says or {}),
        )(view)
        return view

    return declare


# What the document says of every operation.

_PROBLEMS = {
    400: "It cannot be used as it was sent",
    401: "No token that counts",
    403: "Not allowed, or the token is not for this",
    404: "Not there, or not yours",
    405: "Not with this method",
    409: "Not as things stand now",
    412: "If-Match names another version than the present one",
    413: "More than is taken",
    415: "Not in a form that is taken",
    422: "The key was used for something else",
    428: "If-Match is missing",
    429: "Too many calls; Retry-After says when",
    503: "Something that is needed does not answer; Retry-After says when",
}
_TAG = '"' + "0f" * 32 + '"'


def _told(rules: Rules, status: int, says: Mapping[str, Any]) -> dict[str, Any]:
    if rules.never:
        return {"x-scope": "none", "responses": {code: _problem(code) for code in (401, 403, 404, 405, 429)}}
    wanted = {400, 401, 403, 404, 405, 429, 503}
    wanted |= {409, 413, 415, 422} if rules.takes or rules.acts_once else set()
    wanted |= {409, 412, 422, 428} if rules.needs_match else set()
    responses: dict[int, Any] = {code: _problem(code) for code in sorted(wanted)}
    parameters = []
    if rules.acts_once:
        responses[status] = {
            "headers": {
                "Idempotency-Replayed": {
                    "description": "“true” when this key was answered before",
                    "schema": {"type": "string"},
                }
            }
        }
        parameters.append(
            {
                "in": "header",
                "name": HEADER,
                "required": True,
                "description": "An id that you make: the same request sent twice with it acts once.",
                "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST, "pattern": "^[!-~]+$"},
                "example": "8d0f6f4e-2a4f-4f0e-9a41-0f5a8c2b7d11",
            }
        )
    if rules.needs_match:
        parameters.append(
            {
                "in": "header",
                "name": "If-Match",
                "required": True,
                "description": "The ETag of what you read, so that nobody acts on what is no longer so.",
                "schema": {"type": "string", "pattern": '^"[0-9a-f]{64}"$'},
                "example": _TAG,
            }
        )
    told: dict[str, Any] = {"x-scope": rules.scope or "none", "responses": responses}
    if parameters:
        told["parameters"] = parameters
    for name, value in says.items():
        if name == "responses":
            told["responses"] |= value
        else:
            told[name] = value
    return told


def _problem(status: int) -> dict[str, Any]:
    return {"$ref": f"#/components/responses/Problem{status}"}


def problem_answers() -> dict[str, Any]:
    """The answers that operations refer to."""
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        f"Problem{status}": {"description": text, "content": content} for status, text in _PROBLEMS.items()
    }


MAY_CONFLICT = {"responses": {409: _problem(409)}}


def file_answer(description: str, *types: str) -> dict[str, Any]:
    """What `says` of an operation that hands out a file."""
    content: dict[str, Any] = {name: {"schema": {}} for name in types}
    return {"responses": {200: {"description": description, "content": content}}}


def raw_body(description: str, *types: str) -> dict[str, Any]:
    """What `says` of an operation that takes a file as its body."""
    content = {name: {"schema": {"type": "string", "format": "binary"}} for name in types}
    return {"requestBody": {"required": True, "description": description, "content": content}}


def form_body(fields: type[pydantic.BaseModel]) -> dict[str, Any]:
    """What `says` of an operation that takes a form: these fields, and a file in the field “file”."""
    schema = fields.model_json_schema()
    schema["properties"] |= {"file": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": {MULTIPART: {"schema": schema}}}}


# What goes wrong behind the door.


@api.exception_handler(problems.Problem)
def _told_problem(request: HttpRequest, problem: problems.Problem) -> HttpResponse:
    return problems.answer(request, problem)


@api.exception_handler(Refused)
def _refused(request: HttpRequest, refusal: Refused) -> HttpResponse:
    return problems.answer(request, problems.of_refusal(refusal))


@api.exception_handler(Http404)
def _missing(request: HttpRequest, missing: Http404) -> HttpResponse:
    return problems.answer(request, problems.not_found(str(missing)))


@api.exception_handler(PermissionDenied)
def _denied(request: HttpRequest, denied: PermissionDenied) -> HttpResponse:
    problem = problems.Problem(403, "not-allowed", "This is not allowed", str(denied))
    return problems.answer(request, problem)


@api.exception_handler(ValidationError)
def _misfit(request: HttpRequest, mistake: ValidationError) -> HttpResponse:
    return problems.answer(request, misfit(mistake.errors))


@api.exception_handler(pydantic.ValidationError)
def _misfit_in_form(request: HttpRequest, mistake: pydantic.ValidationError) -> HttpResponse:
    return problems.answer(request, misfit(mistake.errors(include_url=False, include_input=False)))


@api.exception_handler(HttpError)
def _http(request: HttpRequest, mistake: HttpError) -> HttpResponse:
    problem = problems.Problem(mistake.status_code, "bad-input", "Not as it was sent", mistake.message)
    return problems.answer(request, problem)


def misfit(mistakes: Sequence[Mapping[str, Any]]) -> problems.Problem:
    """400 that names each field that does not fit. Values are not repeated: one of them could be a secret."""
    errors = [
        {"field": ".".join(str(part) for part in one["loc"]), "detail": str(one["msg"])}
        for one in mistakes[:50]
    ]
    told = "; ".join(f"{one['field']}: {one['detail']}" for one in errors[:5])
    return problems.bad_request(f"Nothing was done. {told}.", errors)
