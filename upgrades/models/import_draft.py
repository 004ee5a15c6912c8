"""Uploaded files that wait for somebody to look at what they would change."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models

from upgrades.models.environment import Environment


class ImportDraft(models.Model):
    """A file without mistakes, kept between the page that shows the difference and the button that applies it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="import_drafts")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="import_drafts")
    name = models.CharField(max_length=255)
    data = models.BinaryField()
    remove_unlisted = models.BooleanField()
    made_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-made_at",)

    def __str__(self) -> str:
        return f"{self.environment}: {self.name}"
