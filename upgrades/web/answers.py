"""The one place that turns refusals into answers."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from django.http import Http404, HttpRequest, HttpResponse
from django_htmx.middleware import HtmxDetails

from upgrades.domain.refusal import BadInput, NotAllowed, Refused, Unavailable
from upgrades.services.runs import NoSuchRun
from upgrades.services.sign_in import ProofNeeded

TOLD = 1200  # characters of a message that fit into a header


def wants_fragment(request: HttpRequest) -> bool:
    """Whether htmx asks for a part of the page. A page from the history is wanted whole."""
    htmx: HtmxDetails | None = getattr(request, "htmx", None)
    return bool(htmx) and htmx is not None and not htmx.boosted and not htmx.history_restore_request


def status_of(refusal: Refused) -> int:
    """404 what is not there or not yours, 403 without the right, 400 bad input, 503 try again, else 409."""
    match refusal:
        case NoSuchRun():
            return 404
        case NotAllowed() | ProofNeeded():
            return 403
        case BadInput():
            return 400
        case Unavailable():
            return 503
    return 409


def answer_refusal(refusal: Refused, show: Callable[[str, int], HttpResponse]) -> HttpResponse:
    """What `show` makes of the message: the region or the page again, with the status of the refusal.

    The message goes along in a header too: htmx does not swap every status, and the script of the page then shows it
    at the head of the page and leaves everything else, and what was typed, as it is.
    """
    status = status_of(refusal)
    if status == 404:
        raise Http404(refusal.message)
    response = show(refusal.message, status)
    response.headers["X-Refusal"] = quote(refusal.message[:TOLD])
    return response
