"""The Django application."""

from django.apps import AppConfig


class UpgradesConfig(AppConfig):
    name = "upgrades"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Every process that changes runs knows how to tell a worker, and each sign-in begins by our rules."""
        from upgrades import tasks  # noqa: F401
        from upgrades.web import sign_in  # noqa: F401
