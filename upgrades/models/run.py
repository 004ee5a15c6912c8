"""Runs: their events, which are the truth, and the projections that lists and pages query.

The projections (`Run` apart from its key, `RunStep`, `RunBurden`, `RunRequest`) are written in the transaction that
appends the events and can be made anew from them (`manage.py rebuild`).
"""

from __future__ import annotations

from django.db import models

from upgrades.models.environment import Application, Environment
from upgrades.models.procedure import ProcedureVersion


class Run(models.Model):
    """One execution of one procedure version in one environment."""

    environment = models.ForeignKey(Environment, on_delete=models.PROTECT, related_name="runs")
    procedure = models.ForeignKey(ProcedureVersion, on_delete=models.PROTECT, related_name="runs")
    plan_item = models.ForeignKey(
        "PlanItem", null=True, blank=True, on_delete=models.SET_NULL, related_name="runs"
    )
    title = models.CharField(max_length=300)
    rehearsal = models.BooleanField()
    change = models.CharField(max_length=120, blank=True)
    status = models.CharField(max_length=10)
    ending = models.CharField(max_length=40, blank=True)
    reason = models.CharField(max_length=2100, blank=True)
    current_step = models.CharField(max_length=64, blank=True)
    current_title = models.CharField(max_length=300, blank=True)
    steps_done = models.PositiveIntegerField(default=0)
    steps_total = models.PositiveIntegerField(default=0)
    starter_id = models.CharField(max_length=80)
    starter_name = models.CharField(max_length=200)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    seq = models.PositiveIntegerField(default=0)
    head = models.CharField(max_length=64, blank=True, help_text="Hash of the newest event.")
    waits_for_worker = models.BooleanField(
        default=True, help_text="A worker has something to look at: a step to begin, a probe, a log."
    )
    emergencies = models.PositiveIntegerField(
        default=0, help_text="Emergency overrides that were carried out: they mark the run for ever."
    )
    reviews_open = models.PositiveIntegerField(
        default=0, help_text="Those among them that no auditor has reviewed yet."
    )
    parked_since = models.DateTimeField(
        null=True,
        blank=True,
        help_text="Workers that looked at it died, one after the other; it is tried once a minute.",
    )
    probes = models.JSONField(
        default=list, help_text="What agents are to look at now (services.projections.wanted_probes)."
    )
    version = models.PositiveIntegerField(
        default=0, help_text="Grows with each change that an open page would show."
    )

    class Meta:
        ordering = ("-started_at", "-id")
        indexes = [models.Index(fields=("status",), name="run_by_status")]

    def __str__(self) -> str:
        return f"Run {self.pk}: {self.title}"


class RunEvent(models.Model):
    """A link of the run's chain. `text` is the canonical record that `hash` covers; it is never printed anew.

    Written only through the database function `append_run_events`; changing or deleting a row is refused by the
    database itself.
    """

    # The unique index over run and place finds the events of a run too; a second one would only slow appending down.
    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="events", db_index=False)
    seq = models.PositiveIntegerField()
    kind = models.CharField(max_length=40)
    text = models.TextField()
    previous = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)

    class Meta:
        ordering = ("run", "seq")
        constraints = [models.UniqueConstraint(fields=("run", "seq"), name="a_run_has_one_event_per_place")]

    def __str__(self) -> str:
        return f"{self.run_id}/{self.seq} {self.kind}"


class RunBinding(models.Model):
    """The application that plays a role in the run."""

    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="bindings")
    role = models.CharField(max_length=64)
    application = models.ForeignKey(Application, on_delete=models.PROTECT, related_name="bindings")

    class Meta:
        constraints = [models.UniqueConstraint(fields=("run", "role"), name="a_role_is_bound_once")]

    def __str__(self) -> str:
        return f"{self.role} = {self.application}"


class RunStep(models.Model):
    """The latest visit of a step."""

    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="steps")
    step = models.CharField(max_length=64)
    visit = models.PositiveIntegerField()
    status = models.CharField(max_length=10)
    entered_at = models.DateTimeField()
    begun_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("run", "id")
        constraints = [models.UniqueConstraint(fields=("run", "step"), name="a_step_stands_once")]

    def __str__(self) -> str:
        return f"{self.run_id}: {self.step}"


class RunBurden(models.Model):
    """An exposure or a duty, open or closed. An owned one stands on the environment after its run."""

    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="burdens")
    environment = models.ForeignKey(Environment, on_delete=models.PROTECT, related_name="burdens")
    burden = models.CharField(max_length=80)
    title = models.CharField(max_length=300)
    opened_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)
    due_at = models.DateTimeField(
        null=True, blank=True, help_text="When an exposure lasts longer than expected, or a duty is overdue."
    )
    owner_id = models.CharField(max_length=80, blank=True)
    owner_name = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ("run", "opened_at", "id")
        indexes = [models.Index(fields=("environment", "closed_at"), name="burden_by_environment")]
        constraints = [
            models.UniqueConstraint(
                fields=("run", "burden", "opened_at"), name="a_burden_opens_once_at_a_time"
            )
        ]

    def __str__(self) -> str:
        return f"{self.run_id}: {self.burden}"


class RunRequest(models.Model):
    """Somebody's signature is wanted: an approval or a deviation. Rows of decided requests are removed."""

    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="requests")
    environment = models.ForeignKey(Environment, on_delete=models.PROTECT, related_name="requests")
    kind = models.CharField(max_length=10)  # approval or deviation
    step = models.CharField(max_length=64)
    gate = models.CharField(max_length=64, blank=True)
    number = models.PositiveIntegerField(default=0)
    title = models.CharField(max_length=400)
    role = models.CharField(max_length=20)
    signed = models.PositiveIntegerField(default=0)
    needed = models.PositiveIntegerField(default=1)
    since = models.DateTimeField()
    barred = models.JSONField(default=list, help_text="Ids of those who may not sign.")
    of = models.JSONField(
        default=list, help_text="The rights under which one more signature helps; empty: that of `role`."
    )
    whom = models.CharField(max_length=300, blank=True, help_text="The same in words.")
    signers = models.JSONField(default=list, help_text="Ids of those whose signatures count now.")
    ahead = models.BooleanField(default=False, help_text="It may be signed now; the run comes to it later.")
    emergency = models.BooleanField(default=False)
    closed = models.BooleanField(
        default=False,
        help_text="Rejected or run out: it waits for somebody to ask again, not for a signature.",
    )
    due_at = models.DateTimeField(
        null=True, blank=True, help_text="When a worker lets it run out (services.runs.advance_run)."
    )

    class Meta:
        ordering = ("since", "id")
        constraints = [
            models.UniqueConstraint(
                fields=("run", "kind", "step", "gate", "number"), name="a_request_stands_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.run_id}: {self.kind} {self.step}"


class CommandReceipt(models.Model):
    """A command that was carried out, by the id that its sender made: sent twice, it acts once."""

    command_id = models.UUIDField(primary_key=True)
    run = models.ForeignKey(Run, null=True, on_delete=models.PROTECT, related_name="receipts")
    actor_id = models.CharField(max_length=80)
    act = models.CharField(max_length=40)
    seq = models.PositiveIntegerField()
    answer = models.CharField(max_length=300, blank=True)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.command_id}: {self.act}"


class Evidence(models.Model):
    """An uploaded file. Its hash is in the run's record; the file itself lies under its own id, never under its name."""

    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="evidence_files")
    name = models.CharField(max_length=255)
    size = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    file = models.FileField(max_length=200)
    uploaded_by = models.CharField(max_length=200)
    uploaded_at = models.DateTimeField()

    class Meta:
        ordering = ("run", "id")

    def __str__(self) -> str:
        return f"{self.run_id}: {self.name}"
