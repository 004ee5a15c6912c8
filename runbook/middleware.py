"""The headers that Django and django-csp have no setting for."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import render
from django.utils.cache import patch_vary_headers

GetResponse = Callable[[HttpRequest], HttpResponse]

# Every feature that a page could ask for is off; WebAuthn stays, for passkeys.
PERMISSIONS_POLICY = ", ".join(
    [
        *(
            f"{feature}=()"
            for feature in (
                "accelerometer",
                "autoplay",
                "camera",
                "display-capture",
                "encrypted-media",
                "fullscreen",
                "geolocation",
                "gyroscope",
                "magnetometer",
                "microphone",
                "midi",
                "payment",
                "picture-in-picture",
                "screen-wake-lock",
                "usb",
                "xr-spatial-tracking",
            )
        ),
        "publickey-credentials-get=(self)",
        "publickey-credentials-create=(self)",
    ]
)


def security_headers(get_response: GetResponse) -> GetResponse:
    """Adds Permissions-Policy, Cross-Origin-Resource-Policy, `Vary: HX-Request`; `no-store` for a session's pages."""

    def add_headers(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS_POLICY)
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        patch_vary_headers(response, ["HX-Request"])
        # What depends on the session says so in Vary; asking for the user would query it for static files.
        if "Cookie" in response.headers.get("Vary", "") and not response.headers.get("Cache-Control"):
            response.headers["Cache-Control"] = "no-store"
        return response

    return add_headers


OTHER_PARTS = 1024 * 1024  # bytes of a form beside its file
NOT_ARRIVED = "runbook.not_arrived"  # in the scope: the status for a request whose body did not arrive


def largest_body() -> int:
    """The bytes of the largest form that a page takes."""
    return int(settings.EVIDENCE_MAX_BYTES) + OTHER_PARTS


def body_limit(get_response: GetResponse) -> GetResponse:
    """413 for a body that says that it is larger than the largest form, before a byte of it is read or stored.

    And 408 or 503 for one that did not arrive as a whole (runbook/arrival.py): no page gets such a request.
    """

    def check(request: HttpRequest) -> HttpResponse:
        said = request.META.get("CONTENT_LENGTH") or "0"
        if not (said.isascii() and said.isdigit() and len(said) < 19):
            return render(request, "400.html", status=400)
        if int(said) > largest_body():
            response = render(request, "413.html", {"limit": settings.EVIDENCE_MAX_BYTES}, status=413)
            response.headers["Connection"] = "close"
            return response
        not_arrived = request.META.get("asgi.scope", {}).get(NOT_ARRIVED)
        if not_arrived is not None:
            response = render(request, "408.html", status=not_arrived)
            response.headers["Connection"] = "close"
            return response
        return get_response(request)

    return check


METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS"})


def known_methods(get_response: GetResponse) -> GetResponse:
    """405 for methods that no page takes, also where a library's view would answer them as if they were a GET."""

    def check(request: HttpRequest) -> HttpResponse:
        if request.method not in METHODS and not request.path_info.startswith("/api/"):
            return HttpResponseNotAllowed(sorted(METHODS))
        return get_response(request)

    return check
