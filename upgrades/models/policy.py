"""Changes of an environment's policies, and who has the page of a run open."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from upgrades.models.environment import Environment
from upgrades.models.run import Run


class PolicyChange(models.Model):
    """A change of policies that waits for a second person, or was decided. The register tells each of its steps.

    `document` is the whole document as it would be, `before` as it was when the change was proposed.
    """

    class Status(models.TextChoices):
        OPEN = "open"
        CONFIRMED = "confirmed"
        REJECTED = "rejected"
        WITHDRAWN = "withdrawn"

    environment = models.ForeignKey(Environment, on_delete=models.PROTECT, related_name="policy_changes")
    before = models.JSONField()
    document = models.JSONField()
    reason = models.CharField(max_length=2000)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.OPEN)
    asked_by_id = models.CharField(max_length=80)
    asked_by_name = models.CharField(max_length=200)
    asked_at = models.DateTimeField()
    decided_by_id = models.CharField(max_length=80, blank=True)
    decided_by_name = models.CharField(max_length=200, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)
    comment = models.CharField(max_length=2000, blank=True)

    class Meta:
        ordering = ("-asked_at", "-id")
        constraints = [
            models.UniqueConstraint(
                fields=("environment",),
                condition=models.Q(status="open"),
                name="one_change_of_policies_is_open",
            ),
            models.CheckConstraint(
                condition=~models.Q(status="confirmed") | ~models.Q(decided_by_id=models.F("asked_by_id")),
                name="a_second_person_confirms_policies",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.environment_id}: {self.status} change of policies"


class Presence(models.Model):
    """Somebody had the page of a run open at `seen_at`. The page says so itself every half minute, and no longer."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="presences")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="presences")
    name = models.CharField(max_length=200)
    seen_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=("run", "user"), name="a_person_is_present_once")]

    def __str__(self) -> str:
        return f"{self.name} at run {self.run_id}"
