"""All addresses: the application's own, and three for whoever watches over it."""

from django.urls import include, path

from runbook import health
from upgrades.web.metrics import show_metrics

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", show_metrics, name="metrics"),
    path("", include("upgrades.api.urls")),
    path("", include("upgrades.web.urls")),
    path("", include("upgrades.web.account_urls")),
]
handler500 = "runbook.health.server_error"
