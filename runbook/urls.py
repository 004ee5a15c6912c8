"""All addresses: the application's own, and two for whoever watches over it."""

from django.urls import include, path

from runbook import health

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("", include("upgrades.web.urls")),
    path("", include("upgrades.web.account_urls")),
]
handler500 = "runbook.health.server_error"
