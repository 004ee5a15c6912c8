"""The addresses of the API, each behind the door."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path, re_path

from upgrades.api import document
from upgrades.api.door import closed, nothing_here
from upgrades.api.operations import PREFIX, api

urlpatterns: list[URLPattern | URLResolver] = [
    path(f"{PREFIX}openapi.json", document.show, name="api-openapi"),
    *(
        path(f"{PREFIX}{address.pattern}", closed(address.callback), name=f"api-{address.name}")
        for address in api.urls[0]
        if isinstance(address, URLPattern) and address.name != "api-root"
    ),
    re_path(r"^api(?:/[\s\S]*)?$", nothing_here, name="api-nothing"),  # line ends in an address included
]
