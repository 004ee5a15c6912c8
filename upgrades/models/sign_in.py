"""Where people are signed in."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone


class SignedIn(models.Model):
    """A session of a person, as the person sees it in the list of sessions. The session itself is Django's."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="sessions")
    session_key = models.CharField(max_length=40, unique=True)
    address = models.GenericIPAddressField()
    browser = models.CharField(max_length=200)
    began_at = models.DateTimeField(default=timezone.now)
    used_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("-used_at",)

    def __str__(self) -> str:
        return f"{self.user} from {self.address}"
