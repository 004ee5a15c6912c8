"""Published procedure texts."""

from __future__ import annotations

from django.db import models


class ProcedureVersion(models.Model):
    """A published version never changes: a run keeps the hash of the text that it follows."""

    procedure = models.CharField(max_length=64)
    version = models.PositiveIntegerField()
    title = models.CharField(max_length=200)
    component = models.CharField(max_length=60)
    text = models.TextField()
    text_hash = models.CharField(max_length=64)
    published_at = models.DateTimeField()

    class Meta:
        ordering = ("procedure", "-version")
        constraints = [
            models.UniqueConstraint(fields=("procedure", "version"), name="a_version_is_published_once"),
            models.UniqueConstraint(fields=("text_hash",), name="a_text_is_published_once"),
        ]

    def __str__(self) -> str:
        return f"{self.procedure} {self.version}"
