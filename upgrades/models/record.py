"""The record beside the runs' own chains: the register, the checkpoints, and what auditors keep for themselves.

`RegisterEntry`, `CheckpointLeaf` and `Checkpoint` are append-only: they are written through functions of the database
alone, and refer to nothing, so that no deletion elsewhere can touch them.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models


class RegisterEntry(models.Model):
    """A link of one of the register's books. The database gives number and time; `text` is what `hash` covers.

    Books, each numbered from 1 without holes: `runs/<environment>` (runs started, starts refused),
    `access/<environment>` (roles of people and groups, API tokens, policies, what is kept), `reads/<environment>`
    (evidence opened, records and lists exported), `keys` (which key signs checkpoints from when on), `system` (backups
    taken and put back).
    """

    book = models.CharField(max_length=60)
    number = models.PositiveIntegerField()
    kind = models.CharField(max_length=40)
    run = models.BigIntegerField(null=True, blank=True)
    at = models.DateTimeField()
    text = models.TextField()
    previous = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)

    class Meta:
        ordering = ("book", "number")
        indexes = [models.Index(fields=("run",), name="register_by_run")]
        constraints = [
            models.UniqueConstraint(fields=("book", "number"), name="a_book_has_one_entry_per_number")
        ]

    def __str__(self) -> str:
        return f"{self.book} {self.number}: {self.kind}"


class CheckpointLeaf(models.Model):
    """The head of a chain as a checkpoint found it; `position` counts the leaves of the tree from 0."""

    position = models.BigIntegerField(primary_key=True)
    subject = models.CharField(max_length=80)
    seq = models.PositiveIntegerField()
    hash = models.CharField(max_length=64)

    class Meta:
        ordering = ("position",)
        constraints = [
            models.UniqueConstraint(fields=("subject", "seq"), name="a_head_is_sealed_once"),
        ]

    def __str__(self) -> str:
        return f"{self.position}: {self.subject} {self.seq}"


class Checkpoint(models.Model):
    """A signed note over the first `size` leaves."""

    number = models.PositiveIntegerField(primary_key=True)
    size = models.BigIntegerField()
    at = models.DateTimeField()
    note = models.TextField()

    class Meta:
        ordering = ("number",)

    def __str__(self) -> str:
        return f"Checkpoint {self.number}"


class CheckpointDelivery(models.Model):
    """Whether a checkpoint has left the system: to the file, to the auditors' mail boxes."""

    class Channel(models.TextChoices):
        FILE = "file"
        MAIL = "mail"

    checkpoint = models.ForeignKey(Checkpoint, on_delete=models.PROTECT, related_name="deliveries")
    channel = models.CharField(max_length=10, choices=Channel.choices)
    done_at = models.DateTimeField(null=True, blank=True)
    trouble = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ("checkpoint", "channel")
        constraints = [
            models.UniqueConstraint(fields=("checkpoint", "channel"), name="a_checkpoint_leaves_once")
        ]

    def __str__(self) -> str:
        return f"{self.checkpoint_id} by {self.channel}"


class CheckpointWatch(models.Model):
    """One row: when the checkpoint process last looked, and what keeps it from signing."""

    seen_at = models.DateTimeField()
    trouble = models.CharField(max_length=1000, blank=True)

    def __str__(self) -> str:
        return self.trouble or "no trouble"


class SavedSearch(models.Model):
    """A choice of filters that a person keeps under a name. `query` is the part behind the question mark."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="searches")
    name = models.CharField(max_length=80)
    query = models.CharField(max_length=1000, blank=True)

    class Meta:
        ordering = ("name", "id")
        constraints = [models.UniqueConstraint(fields=("user", "name"), name="search_names_are_unique")]

    def __str__(self) -> str:
        return self.name
