"""Agents, the log files that they read, and what was read."""

from __future__ import annotations

from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import Q

from upgrades.models.environment import Application, Environment, Host
from upgrades.models.sealed import SealedText


class Agent(models.Model):
    """The agent on one host. A worker polls it while it holds the lease; `trouble` is empty while it answers."""

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="agents")
    host = models.OneToOneField(Host, on_delete=models.CASCADE, related_name="agent")
    agent_id = models.CharField(max_length=120)
    url = models.URLField(max_length=300)
    key_id = models.CharField(max_length=64)
    secret = SealedText()
    certificate = models.TextField(
        blank=True, help_text="PEM: what its TLS must rest on. Empty: the authorities of the system."
    )
    version = models.CharField(max_length=40, blank=True)
    seen_at = models.DateTimeField(null=True, blank=True)
    clock_skew = models.FloatField(default=0, help_text="Seconds that the agent's clock is ahead of ours.")
    trouble = models.CharField(max_length=300, blank=True)
    trouble_since = models.DateTimeField(null=True, blank=True)
    due_at = models.DateTimeField(null=True, blank=True)
    lease_token = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    leases_expired = models.PositiveIntegerField(
        default=0, help_text="How often whoever followed it was gone without giving it back."
    )

    class Meta:
        ordering = ("agent_id",)
        constraints = [
            models.UniqueConstraint(fields=("environment", "agent_id"), name="agent_ids_are_unique")
        ]

    def __str__(self) -> str:
        return self.agent_id


A_LINE = 64 * 1024  # bytes; of a longer line, this is what an agent sends


class LogFile(models.Model):
    """One file of an application's log, as its agent identifies it, and how far it has been read.

    `generation` counts how often a file of this identity shrank: what follows a shrink is another file to us.
    """

    application = models.ForeignKey(Application, on_delete=models.CASCADE, related_name="log_files")
    identity = models.CharField(max_length=200)
    generation = models.PositiveIntegerField(default=0)
    name = models.CharField(max_length=300)
    cursor = models.BigIntegerField(default=0)
    mark = models.CharField(
        max_length=80, blank=True, help_text="Proves to the agent that it is the same file still."
    )
    size = models.BigIntegerField(
        default=0, help_text="As it was last reported; beyond the cursor is not read yet."
    )
    state = models.CharField(max_length=10, default="open")
    parser_state = models.JSONField(default=dict)
    seen_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)
        constraints = [
            models.UniqueConstraint(
                fields=("application", "identity", "generation"), name="a_log_file_is_known_once"
            )
        ]

    def __str__(self) -> str:
        return self.place

    @property
    def place(self) -> str:
        """The identity as run events cite it."""
        return f"{self.identity}~{self.generation}" if self.generation else self.identity

    @property
    def unread(self) -> int:
        """Bytes that are known to be there and were not read yet; less than a line's worth may be one that is not whole."""
        rest = self.size - self.cursor
        return rest if self.state == "open" and rest > A_LINE else 0

    def next_generation(self) -> LogFile:
        """What this file is to us once it has shrunk: unread, and not stored yet."""
        return LogFile(
            application_id=self.application_id, identity=self.identity, generation=self.generation + 1
        )


class LogLine(models.Model):
    """A record of a log file: an event, a client total, a line nobody can read, a gap, or why the file may be foreign.

    `raw` are the bytes as they stood in the file; `text` is for people. A gap has no bytes.
    """

    class Kind(models.TextChoices):
        EVENT = "event"
        TOTAL = "total"
        UNREADABLE = "unreadable"
        GAP = "gap"
        FOREIGN = "foreign"

    file = models.ForeignKey(LogFile, on_delete=models.CASCADE, related_name="lines")
    offset = models.BigIntegerField()
    length = models.PositiveIntegerField()
    kind = models.CharField(max_length=10, choices=Kind.choices)
    event = models.CharField(max_length=20, blank=True)
    level = models.CharField(max_length=20, blank=True)
    logged_at = models.CharField(max_length=40, blank=True)
    total = models.PositiveIntegerField(null=True, blank=True)
    text = models.TextField()
    raw = models.BinaryField()
    read_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=("file", "offset", "kind"), name="a_line_is_stored_once")
        ]
        indexes = [
            models.Index(fields=("file", "kind", "event"), name="line_by_event"),
            models.Index(fields=("read_at",), condition=Q(kind="gap"), name="gaps_by_time"),
            # Rows come in the order of time, so that a few bytes for each megabyte find the old ones.
            BrinIndex(fields=("read_at",), name="lines_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.file}@{self.offset}"


class ProcessChange(models.Model):
    """The agent saw that an application's process came up or went away."""

    application = models.ForeignKey(Application, on_delete=models.CASCADE, related_name="process_changes")
    state = models.CharField(max_length=10)
    before = models.CharField(max_length=10)
    reason = models.CharField(max_length=300, blank=True)
    seen_at = models.DateTimeField()

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.application}: {self.before} → {self.state}"
