"""The way in: who calls, how often, what they may ask, and that what was asked twice is done once.

`closed` wraps each address and `guarded` each operation behind it. What an operation allows stands beside it as `Rules`
(upgrades/api/operations.py); what its caller may do in the end is decided by the services, as on the pages.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote
from uuid import UUID, uuid5

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import AbstractUser
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse
from django.http.multipartparser import MultiPartParserError
from django.http.response import HttpResponseBase
from ninja.operation import Operation

from upgrades.api import keys
from upgrades.api.json_body import check_text, read_json
from upgrades.api.problems import AGAIN, Problem, answer, bad_request, not_found
from upgrades.models import Environment, Run
from upgrades.services import tokens
from upgrades.services.tokens import Caller

logger = logging.getLogger(__name__)

JSON, MULTIPART = "application/json", "multipart/form-data"
SMALL = 1024 * 1024  # bytes of a body that is no evidence file
AROUND_A_FILE = 64 * 1024
COMMANDS = UUID("6f1c7f3a-52d8-5c8e-9a52-8e9d2e6a2b41")
View = Callable[..., HttpResponseBase]


@dataclass(frozen=True, slots=True)
class Rules:
    """What an operation asks of a request. `scope` is empty where a token needs none."""

    scope: str
    takes: tuple[str, ...] = ()
    needs_match: bool = False
    acts_once: bool = False
    never: bool = False  # only a person does it: whatever is sent, the answer is the core's refusal
    shows_once: str = ""  # a field of the answer that is in the first one alone

    @property
    def limit(self) -> int:
        if MULTIPART in self.takes:
            return int(settings.EVIDENCE_MAX_BYTES) + AROUND_A_FILE
        return SMALL


class ApiRequest(HttpRequest):
    """A request behind the door."""

    caller: Caller
    value: Any  # the JSON that was sent
    command_id: UUID
    seen: str  # the version that If-Match names


# Whom an operation works for.


def person(request: HttpRequest) -> AbstractUser:
    return cast(ApiRequest, request).caller.user


def only_in(request: HttpRequest) -> int | None:
    """The one environment in which the token counts; None: all of its owner's."""
    return cast(ApiRequest, request).caller.token.environment_id


def command_id(request: HttpRequest) -> UUID:
    return cast(ApiRequest, request).command_id


def seen(request: HttpRequest) -> str:
    return cast(ApiRequest, request).seen


# Each address.


def closed(view: View) -> View:
    """The view behind the door: only a token opens it, and whatever goes wrong is a problem."""

    @login_not_required
    @functools.wraps(view)
    def behind(request: HttpRequest, *arguments: Any, **named: Any) -> HttpResponseBase:
        try:
            cast(ApiRequest, request).caller = caller_in(request)
            response = view(request, *arguments, **named)
        except Problem as problem:
            response = answer(request, problem)
        except Http404 as missing:
            response = answer(request, not_found(str(missing) or "There is nothing here."))
        except Exception as failure:
            response = answer(request, _failed(failure))
        if response.status_code == 405 and "Allow" in response.headers:
            allowed = ", ".join(sorted(response.headers["Allow"].split(", ")))
            response = answer(request, _not_offered(request, allowed))
        response.headers["Cache-Control"] = "no-store"
        return response

    behind.csrf_exempt = True  # type: ignore[attr-defined]  # no cookie counts here
    return behind


def _not_offered(request: HttpRequest, allowed: str) -> Problem:
    text = f"{request.method} is nothing that this address does. It takes {allowed}."
    return Problem(405, "method-not-allowed", "Not with this method", text, {"Allow": allowed})


def _failed(failure: Exception) -> Problem:
    if isinstance(failure, RequestDataTooBig):
        return _too_large()
    if isinstance(failure, SuspiciousOperation | MultiPartParserError):
        return bad_request("The body cannot be taken apart. Nothing was done. Send it anew.")
    logger.exception("a call of the API failed")
    if isinstance(failure, DatabaseError):
        text = "The database did not take it now. Nothing was done. Try again shortly, with the same key."
        return Problem(503, "unavailable", "Something does not answer", text, {"Retry-After": str(AGAIN)})
    text = (
        "Something went wrong here, and it is in the log. Whether anything was done can be seen in the run."
    )
    return Problem(500, "internal", "Something went wrong here", text)


@closed
def nothing_here(_request: HttpRequest) -> HttpResponseBase:
    """Every address under the API that is none."""
    raise not_found("The API has no such address. /api/v1/openapi.json lists those that it has.")


def caller_in(request: HttpRequest) -> Caller:
    """Who calls: 401 without a token that counts, 429 when it has asked too often."""
    if tokens.revoke_told(unquote(request.get_full_path())):
        raise _who(
            "A token stood in the address. Addresses end in logs and histories, so that token is revoked. Make a new "
            "one, and send it in the header Authorization."
        )
    header = request.headers.get("Authorization", "")
    form = re.fullmatch(r"Bearer ([A-Za-z0-9_-]{1,100})", header, re.IGNORECASE)
    caller = tokens.caller_of(form[1]) if form is not None else None
    if caller is None:
        raise _who(
            "There is no token in the header Authorization (“Bearer rbk_…”), or it does not count: it is wrong, over, "
            "revoked, or its owner's account is shut. Make one under “Your account”."
        )
    wait = tokens.take(caller.token)
    if wait:
        text = f"This token makes {settings.API_RATE} calls a minute at most. Nothing was done. Ask again in {wait} s."
        raise Problem(429, "too-many-requests", "Too many calls", text, {"Retry-After": str(wait)})
    return caller


def _who(detail: str) -> Problem:
    return Problem(401, "not-signed-in", "No token that counts", detail, {"WWW-Authenticate": "Bearer"})


# Each operation.


def guarded(run: View) -> View:
    """The operation, once the request keeps to its rules."""
    operation = cast(Operation, run.__self__)  # type: ignore[attr-defined]
    rules: Rules = operation.view_func.rules  # type: ignore[attr-defined]
    asked = frozenset(_query_names(operation))

    def keep(request: HttpRequest, **named: Any) -> HttpResponseBase:
        mine = cast(ApiRequest, request)
        _check_scope(mine, rules)
        _check_place(mine, named)
        if rules.never:
            mine.command_id = uuid5(COMMANDS, f"{mine.caller.token.pk} {keys.once()}")
            return run(request, **named)
        _check_query(request, asked)
        mine.value = _body(request, rules)
        mine.seen = _match(request) if rules.needs_match else ""
        if not (rules.acts_once or (keys.HEADER in request.headers and request.method != "GET")):
            mine.command_id = uuid5(COMMANDS, f"{mine.caller.token.pk} {keys.once()}")
            return run(request, **named)
        key = keys.key_in(request)
        mine.command_id = uuid5(COMMANDS, f"{mine.caller.token.pk} {key}")
        return keys.answer_once(
            request, mine.caller.token, key, lambda: run(request, **named), hides=rules.shows_once
        )

    return keep


def _query_names(operation: Operation) -> Iterable[str]:
    for model in operation.models:
        if model.__ninja_param_source__ == "query":
            yield from getattr(model, "__ninja_flatten_map__", None) or model.model_fields


def _check_scope(request: ApiRequest, rules: Rules) -> None:
    token = request.caller.token
    if rules.scope and rules.scope not in token.scopes:
        text = (
            f"This takes a token with the scope “{rules.scope}”; this one has {', '.join(token.scopes)}. Nothing was done. Make "
            "another one under “Your account”."
        )
        raise Problem(403, "scope-missing", "The token is not for this", text)


def _check_place(request: ApiRequest, named: dict[str, Any]) -> None:
    """A token for one environment knows of no other, whatever its owner sees."""
    only = request.caller.token.environment_id
    if only is None:
        return
    places = Environment.objects.none()
    if "environment_id" in named:
        places = Environment.objects.filter(pk=named["environment_id"])
    elif "run_id" in named:
        places = Environment.objects.filter(
            pk__in=Run.objects.filter(pk=named["run_id"]).values("environment")
        )
    else:
        return
    place = places.values_list("pk", "rehearsal_of_id").first()
    if place is None or only not in place:
        raise not_found("There is nothing of this number where this token counts.")


def _check_query(request: HttpRequest, asked: frozenset[str]) -> None:
    for name, values in request.GET.lists():
        if name not in asked:
            known = ", ".join(sorted(asked)) or "none"
            raise bad_request(
                f"“{name[:60]}” is no parameter here. Known are: {known}.",
                [{"field": name[:60], "detail": "not known"}],
                code="unknown-parameter",
            )
        if len(values) > 1:
            raise bad_request(f"“{name}” came more than once, so it is not clear what is meant.")
        check_text(str(values[0]))


def _body(request: HttpRequest, rules: Rules) -> Any:
    """The JSON that was sent; 413 and 415 before anything of it is read."""
    length = request.META.get("CONTENT_LENGTH") or "0"
    size = int(length) if length.isascii() and length.isdigit() and len(length) < 16 else SMALL + 1
    if size > rules.limit:
        raise _too_large()
    if not rules.takes:
        if size and request.method not in ("GET", "HEAD"):
            raise bad_request("This takes no body. Nothing was done. Send it without one.")
        return None
    if request.content_type not in rules.takes or not _is_utf8(request):
        raise Problem(
            415,
            "unsupported-media-type",
            "Not in this form",
            f"This takes {' or '.join(rules.takes)}, in UTF-8 where it is text. Nothing was done.",
        )
    return read_json(request.body) if request.content_type == JSON else None


def _is_utf8(request: HttpRequest) -> bool:
    charset = (request.content_params or {}).get("charset", "utf-8")
    return charset.lower() in ("utf-8", "utf8")


def _too_large() -> Problem:
    return Problem(
        413,
        "too-large",
        "More than is taken",
        f"The body is larger than is taken here: {SMALL:,} bytes, {settings.EVIDENCE_MAX_BYTES:,} for an evidence file. "
        "Nothing was done.",
    )


_TAG = re.compile(r'"([0-9a-f]{64})"')


def _match(request: HttpRequest) -> str:
    """The version that the caller has seen; 428 without one. `*` names none."""
    header = request.headers.get("If-Match", "").strip()
    if header in ("", "*"):
        raise Problem(
            428,
            "version-needed",
            "Say what you saw",
            "A change takes If-Match with the ETag of what you read before: so nobody acts on what is no longer so. "
            "Nothing was done.",
        )
    form = _TAG.fullmatch(header)
    if form is None:
        raise Problem(
            412,
            "head-moved",
            "Not the present version",
            "If-Match names no version that was ever here: it is one strong ETag as it was given, quotes included. "
            "Nothing was done.",
        )
    return form[1]


def tagged(response: HttpResponse, version: str) -> None:
    """Name the version of what is answered, for the If-Match of the next request."""
    response.headers["ETag"] = f'"{version}"'
