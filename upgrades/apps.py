"""The Django application."""

from django.apps import AppConfig


class UpgradesConfig(AppConfig):
    name = "upgrades"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Every process that changes runs knows how to tell a worker."""
        from upgrades import tasks  # noqa: F401
