"""How the installation itself is doing: signs of life, and how long gates took to open. None of it is the record."""

from __future__ import annotations

from django.db import models

from upgrades.models.run import Run


class Heartbeat(models.Model):
    """When a part of the installation last gave a sign of life: a worker, or the tick of the reconciler."""

    class Kind(models.TextChoices):
        WORKER = "worker"
        TICK = "tick"

    kind = models.CharField(max_length=10, choices=Kind.choices)
    name = models.CharField(max_length=200, blank=True)
    seen_at = models.DateTimeField()

    class Meta:
        ordering = ("kind", "name")
        constraints = [models.UniqueConstraint(fields=("kind", "name"), name="a_heart_beats_in_one_row")]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip()


class Attempt(models.Model):
    """Work that a process has begun; a row without a process is one that died of it (services/attempts.py).

    The table is not logged by the database: an attempt that the database itself ended is forgotten with it.
    """

    subject = models.CharField(max_length=60, db_index=True, help_text="“run 7”, “agent 3”.")
    begun_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.subject} at {self.begun_at}"


class GateOpening(models.Model):
    """An event gate opened: when the line that opened it had reached us, and when the outcome was stored.

    `on_host` is how old the line was when it was read, by the clock of its own host; empty where its time says nothing.
    Kept for a while, for figures (services/operation.py).
    """

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="openings")
    step = models.CharField(max_length=64)
    gate = models.CharField(max_length=64)
    read_at = models.DateTimeField()
    opened_at = models.DateTimeField(db_index=True)
    on_host = models.FloatField(
        null=True, blank=True, help_text="Seconds from the line's time to our reading."
    )

    def __str__(self) -> str:
        return f"{self.run_id}: {self.step}.{self.gate}"
