"""The headers that Django and django-csp have no setting for."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
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
