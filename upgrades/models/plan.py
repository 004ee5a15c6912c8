"""Plans of record, the claims of runs, and what the rules on an environment have found."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from upgrades.models.environment import Application, Environment, Host
from upgrades.models.run import Run


class PlanOfRecord(models.Model):
    """A plan that somebody saved. The newest one of an environment is in force: it has no `replaced_at`."""

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="plans")
    number = models.PositiveIntegerField(help_text="Counts the plans of the environment: 1, 2, 3.")
    saved_at = models.DateTimeField()
    saved_by_id = models.CharField(max_length=80)
    saved_by_name = models.CharField(max_length=200)
    digest = models.CharField(max_length=64, help_text="Of what was shown when it was saved.")
    replaced_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("environment", "-number")
        constraints = [
            models.UniqueConstraint(fields=("environment", "number"), name="plan_numbers_are_unique"),
            models.UniqueConstraint(
                fields=("environment",), condition=Q(replaced_at=None), name="one_plan_is_in_force"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.environment}: plan {self.number}"


class PlanItem(models.Model):
    """A run that the plan asks for. `key` names the same work in every plan of the environment."""

    plan = models.ForeignKey(PlanOfRecord, on_delete=models.CASCADE, related_name="items")
    key = models.CharField(max_length=200)
    position = models.PositiveIntegerField()
    stage = models.CharField(max_length=40)
    procedure = models.CharField(max_length=64)
    title = models.CharField(max_length=300)
    reason = models.TextField()
    sources = models.JSONField(default=list, help_text="The requirement ids that give it its place.")
    servers = models.JSONField(
        default=list, help_text="What it works on: kind, name, version now, version wanted."
    )
    hosts = models.JSONField(default=list, help_text="The hosts whose LCA it works on, in the same shape.")
    after = models.JSONField(default=list, help_text="Keys of the items that must be done before.")

    class Meta:
        ordering = ("plan", "position")
        constraints = [
            models.UniqueConstraint(fields=("plan", "key"), name="a_plan_asks_for_it_once"),
            models.UniqueConstraint(fields=("plan", "position"), name="plan_places_are_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.plan}: {self.title}"


class Claim(models.Model):
    """A server or a host that an open run holds. The database itself refuses a second holder.

    A claim is released in the transaction that ends its run, so none outlives it.
    """

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="claims")
    application = models.ForeignKey(
        Application, null=True, blank=True, on_delete=models.PROTECT, related_name="claims"
    )
    host = models.ForeignKey(Host, null=True, blank=True, on_delete=models.PROTECT, related_name="claims")
    claimed_at = models.DateTimeField()
    released_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("run", "id")
        constraints = [
            models.UniqueConstraint(
                fields=("application",), condition=Q(released_at=None), name="a_server_is_claimed_once"
            ),
            models.UniqueConstraint(
                fields=("host",), condition=Q(released_at=None), name="a_host_is_claimed_once"
            ),
            models.CheckConstraint(
                condition=Q(application=None, host__isnull=False) | Q(application__isnull=False, host=None),
                name="a_claim_is_of_a_server_or_a_host",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.run_id} holds {self.application or self.host}"


class Finding(models.Model):
    """What a rule on the environment has found, and since when. `ended_at` is empty while it stands."""

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="findings")
    rule = models.CharField(max_length=40)
    subject = models.CharField(max_length=300, help_text="What it is about: servers, hosts, a file.")
    tone = models.CharField(max_length=10, help_text="stop, wait or info")
    title = models.CharField(max_length=300)
    text = models.TextField()
    what_to_do = models.TextField()
    sources = models.JSONField(default=list)
    since = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("since", "id")
        constraints = [
            models.UniqueConstraint(
                fields=("environment", "rule", "subject"),
                condition=Q(ended_at=None),
                name="a_finding_stands_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}"
