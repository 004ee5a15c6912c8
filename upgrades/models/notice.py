"""Notices: what happened, who is told, and what came of each message. The outbox of design.md section 3.

`Notice` and its deliveries are written in the transaction of the event that they tell of. A row decides, not a message
of the broker: it is due, somebody holds its lease, or it is over.
"""

from __future__ import annotations

from uuid import uuid4

from django.conf import settings
from django.db import models
from django.db.models import Q

from upgrades.models.environment import Environment
from upgrades.models.sealed import SealedText


class NoticeEndpoint(models.Model):
    """A program or a channel of a chat that an environment tells. Its address and its secret lie sealed.

    `host` and `fingerprint` are what people see of the address: addresses of chats are secrets themselves.
    """

    class Form(models.TextChoices):
        WEBHOOK = "webhook"
        SLACK = "slack"
        TEAMS = "teams"

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="notice_endpoints")
    name = models.CharField(max_length=80)
    form = models.CharField(max_length=10, choices=Form.choices)
    address = SealedText()
    host = models.CharField(max_length=300)
    fingerprint = models.CharField(max_length=16)
    secret = SealedText(blank=True, help_text="In base64; chats have none.")
    kinds = models.JSONField(default=list, help_text="What it is told (domain.notices.Kind).")
    paused = models.BooleanField(default=False)
    made_at = models.DateTimeField()

    class Meta:
        ordering = ("name",)
        constraints = [
            models.UniqueConstraint(fields=("environment", "name"), name="endpoint_names_are_unique")
        ]

    def __str__(self) -> str:
        return f"{self.environment}: {self.name}"


class NoticeChoice(models.Model):
    """That a person wants a kind of notice from an environment, or not; without a row the person's role decides."""

    class Channel(models.TextChoices):
        MAIL = "mail"

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="notice_choices"
    )
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="notice_choices")
    kind = models.CharField(max_length=20)
    channel = models.CharField(max_length=10, choices=Channel.choices)
    wanted = models.BooleanField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=("user", "environment", "kind", "channel"), name="a_choice_is_made_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.user_id}: {self.kind} by {self.channel} {'on' if self.wanted else 'off'}"


class Notice(models.Model):
    """Something that people are told of. `identity` names the event: whoever writes it again writes nothing.

    `title`, `text` and `whom` hold no secret and nothing that came out of a log.
    """

    identity = models.CharField(max_length=200, unique=True)
    kind = models.CharField(max_length=20)
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="notices")
    run = models.BigIntegerField(null=True, blank=True)
    run_title = models.CharField(max_length=300, blank=True)
    title = models.CharField(max_length=300)
    text = models.CharField(max_length=600)
    whom = models.CharField(max_length=300)
    path = models.CharField(max_length=300)
    at = models.DateTimeField()

    class Meta:
        ordering = ("-at", "-id")

    def __str__(self) -> str:
        return f"{self.kind}: {self.title}"


class NoticeDelivery(models.Model):
    """One message to one recipient by one way. `message_id` stays the same however often it is tried."""

    class State(models.TextChoices):
        WAITING = "waiting"
        SENT = "sent"
        PARKED = "parked"  # given up; an administrator can have it tried again
        DROPPED = "dropped"  # nobody is to be told any more

    notice = models.ForeignKey(Notice, on_delete=models.CASCADE, related_name="deliveries")
    channel = models.CharField(max_length=10)
    recipient = models.CharField(max_length=40, help_text="user:5 or endpoint:3")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.CASCADE, related_name="notice_deliveries"
    )
    endpoint = models.ForeignKey(
        NoticeEndpoint, null=True, on_delete=models.CASCADE, related_name="deliveries"
    )
    message_id = models.UUIDField(unique=True, default=uuid4)
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    attempts = models.PositiveIntegerField(default=0)
    next_at = models.DateTimeField()
    lease_token = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=200, blank=True)
    done_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        indexes = [
            models.Index(fields=("next_at",), condition=Q(state="waiting"), name="deliveries_that_wait")
        ]
        constraints = [
            models.UniqueConstraint(
                fields=("notice", "channel", "recipient"), name="nobody_is_told_twice_of_one_event"
            ),
            models.CheckConstraint(
                condition=Q(user__isnull=False, endpoint=None) | Q(user=None, endpoint__isnull=False),
                name="a_delivery_is_to_a_person_or_an_endpoint",
            ),
            models.CheckConstraint(
                condition=Q(state="waiting", done_at=None)
                | (~Q(state="waiting") & Q(done_at__isnull=False, lease_token=None)),
                name="a_delivery_that_is_over_is_nobody_s",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.notice_id} to {self.recipient} by {self.channel}: {self.state}"


class PlannedTime(models.Model):
    """When somebody means to carry out an item of an environment's plan, by the item's key in every plan."""

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="planned_times")
    key = models.CharField(max_length=200)
    begins_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    revision = models.PositiveIntegerField(default=0, help_text="Counts the changes; calendars compare it.")
    set_at = models.DateTimeField()
    set_by_name = models.CharField(max_length=200)

    class Meta:
        ordering = ("begins_at", "id")
        constraints = [
            models.UniqueConstraint(fields=("environment", "key"), name="an_item_has_one_planned_time"),
            models.CheckConstraint(
                condition=Q(ends_at__gt=models.F("begins_at")), name="a_planned_time_ends_after_it_begins"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.environment_id}: {self.key}"


class CalendarFeed(models.Model):
    """A person's secret address of planned runs. Of the secret only its hash is kept."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="calendar_feed"
    )
    token_hash = models.CharField(max_length=64, unique=True)
    made_at = models.DateTimeField()
    read_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"calendar of {self.user_id}"
