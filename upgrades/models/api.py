"""Tokens of the API, and the answers that are kept so that a request sent twice acts once."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from upgrades.models.environment import Environment


class ApiToken(models.Model):
    """A person's token. The token itself is shown once and stored nowhere: here is its SHA-256, and its id in the open.

    It never reaches further than its owner does at that moment. `level` and `filled_at` are its bucket: what it may
    still ask (services.tokens.take).
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    public_id = models.CharField(max_length=8, unique=True, help_text="The part by which people know it.")
    sha256 = models.CharField(max_length=64, unique=True)
    purpose = models.CharField(max_length=100)
    scopes = models.JSONField(help_text="What it is for (domain.api_scopes).")
    environment = models.ForeignKey(
        Environment,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="api_tokens",
        help_text="The only environment in which it counts; empty: all of its owner's.",
    )
    told_to = models.JSONField(
        default=list, help_text="Ids of the environments whose registers tell of its making."
    )
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_by = models.CharField(max_length=200, blank=True)
    level = models.FloatField(default=0)
    filled_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("-created_at", "-id")

    def __str__(self) -> str:
        return f"{self.public_id} of {self.user}"

    @property
    def is_over(self) -> bool:
        """Whether it counts no longer."""
        return self.revoked_at is not None or self.expires_at <= timezone.now()


class StoredAnswer(models.Model):
    """What was answered to a request with an `Idempotency-Key`, kept for a day for whoever asks the same again."""

    token = models.ForeignKey(ApiToken, on_delete=models.CASCADE, related_name="answers")
    key = models.CharField(max_length=255)
    request = models.CharField(max_length=64, help_text="SHA-256 of method, address and body.")
    status = models.PositiveSmallIntegerField()
    headers = models.JSONField(default=dict)
    body = models.TextField(blank=True)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [models.Index(fields=("at",), name="stored_answer_by_age")]
        constraints = [models.UniqueConstraint(fields=("token", "key"), name="a_key_is_answered_once")]

    def __str__(self) -> str:
        return f"{self.token_id}: {self.key}"
