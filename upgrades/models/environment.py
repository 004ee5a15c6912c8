"""Environments: hosts, applications, pairs, versions, and who may do what there."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone


class Environment(models.Model):
    """A set of hosts and applications that is upgraded together. A rehearsal works on a copy (`rehearsal_of`)."""

    name = models.CharField(max_length=120)
    rehearsal_of = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="copies"
    )
    world = models.CharField(
        max_length=80, blank=True, help_text="The simulator's world behind it, if it is simulated."
    )
    disaster_recovery = models.BooleanField(default=False)
    single_language = models.BooleanField(
        null=True, blank=True, help_text="How the Configuration Database is used; empty: not known (PRX-1)."
    )
    schema_version = models.CharField(
        max_length=40, blank=True, help_text="Schema of the Configuration Database, such as 8.1.1."
    )
    log_schema_version = models.CharField(
        max_length=40, blank=True, help_text="Schema of the Centralized Log Database."
    )
    uses_lrm = models.BooleanField(
        default=False, help_text="License Reporting Manager 8.5 is integrated here (INT-6)."
    )
    policies = models.JSONField(
        default=dict,
        help_text="Per policy name: which role signs, and how many people (design.md section 7).",
    )
    version = models.PositiveIntegerField(
        default=1, help_text="Grows with each change; open pages compare it."
    )
    rules_due_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="When a worker looks at the standing rules again; a change makes it now.",
    )
    keep_days = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="How long what agents reported is kept; never shorter than the installation's policy, which holds if empty.",
    )
    pruned_at = models.DateTimeField(
        null=True, blank=True, help_text="When what is older was removed (services/retention.py)."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name", "id")
        constraints = [
            models.UniqueConstraint(
                fields=("name",), condition=Q(rehearsal_of=None), name="environment_names_are_unique"
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_simulated(self) -> bool:
        return bool(self.world)


class Host(models.Model):
    """A machine. `lca_version` is the Local Control Agent on it; empty when it is not known."""

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="hosts")
    name = models.CharField(max_length=253)
    site = models.CharField(max_length=80, blank=True)
    host_type = models.CharField(
        max_length=40, blank=True, help_text="Type of the Host object: Linux, Windows, …"
    )
    os_name = models.CharField(
        max_length=80, blank=True, help_text="The operating system itself, such as Red Hat Enterprise Linux."
    )
    os_version = models.CharField(max_length=40, blank=True, help_text="Such as 2019, 9.4 or 22.04.")
    lca_version = models.CharField(max_length=40, blank=True)

    class Meta:
        ordering = ("name",)
        constraints = [models.UniqueConstraint(fields=("environment", "name"), name="host_names_are_unique")]

    def __str__(self) -> str:
        return self.name


class Application(models.Model):
    """A server: one Application object. `mode` is what is known of it now; `standing` is how it is configured."""

    class Standing(models.TextChoices):
        PRIMARY = "primary"
        BACKUP = "backup"
        STANDALONE = "standalone"

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="applications")
    host = models.ForeignKey(Host, on_delete=models.PROTECT, related_name="applications")
    name = models.CharField(max_length=120)
    type = models.CharField(max_length=60, help_text="The application type, as ConfigurationServer or SCS.")
    version = models.CharField(max_length=40, blank=True)
    standing = models.CharField(max_length=12, choices=Standing.choices, default=Standing.STANDALONE)
    peer = models.OneToOneField(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="peer_of"
    )
    port = models.PositiveIntegerField(null=True, blank=True)
    folder = models.CharField(max_length=300, blank=True, help_text="The folder that it is installed in.")
    dormant = models.BooleanField(
        default=False,
        help_text="A copy at the other site that does not run until that site takes over (INT-4).",
    )
    database = models.CharField(
        max_length=200, blank=True, help_text="The configuration database that it works with, if it is known."
    )
    mode = models.CharField(
        max_length=20, blank=True, help_text="primary, backup, upgrade-mode, down; empty: not known"
    )
    # What its agent reported last.
    process_state = models.CharField(max_length=10, default="unknown")
    process_reason = models.CharField(max_length=300, blank=True)
    log_trouble = models.TextField(blank=True, help_text="What it cannot read of the log. Empty: nothing.")
    client_total = models.PositiveIntegerField(null=True, blank=True)
    client_total_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("type", "name")
        constraints = [
            models.UniqueConstraint(fields=("environment", "name"), name="application_names_are_unique"),
            models.CheckConstraint(condition=~Q(peer=F("id")), name="no_application_is_its_own_peer"),
        ]

    def __str__(self) -> str:
        return self.name


class Target(models.Model):
    """The version that a component type of the environment is to reach.

    Beside the application types, `LCA`, `ConfigurationDatabase` and `LogDatabase` (their schemas) are components here.
    """

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="targets")
    component = models.CharField(max_length=60)
    version = models.CharField(max_length=40)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=("environment", "component"), name="one_target_per_component")
        ]

    def __str__(self) -> str:
        return f"{self.component} {self.version}"


class Membership(models.Model):
    """A person's role in an environment (design.md section 7). An auditor has no other role there: a trigger sees to it.

    `group` names the provider's group that it follows (services/members.py); empty where a person gave it. Then
    `given_by` is whoever gave the group its role. A role to sign counts in runs that start after `given_at`, or in all
    once a second administrator has confirmed it.
    """

    class Role(models.TextChoices):
        OPERATOR = "operator"
        APPROVER = "approver"
        AUTHOR = "author"
        AUDITOR = "auditor"
        ADMINISTRATOR = "administrator"

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=20, choices=Role.choices)
    group = models.CharField(max_length=200, blank=True)
    given_at = models.DateTimeField(default=timezone.now)
    given_by = models.CharField(max_length=40, blank=True, help_text="The id that runs know the giver by.")
    confirmed_by = models.CharField(
        max_length=40, blank=True, help_text="As given_by: a second administrator."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=("environment", "user", "role"), name="a_role_is_given_once"),
            models.CheckConstraint(
                condition=Q(confirmed_by="") | ~Q(confirmed_by=F("given_by")),
                name="confirmed_by_a_second_person",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user}: {self.role} in {self.environment}"


class GroupRole(models.Model):
    """What a group of the sign-in provider may do in an environment. Only this table turns groups into roles.

    Whoever gave it the role does not have it by this group: nobody gives a role to themselves.
    """

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="group_roles")
    group = models.CharField(max_length=200)
    role = models.CharField(max_length=20, choices=Membership.Role.choices)
    given_by = models.CharField(
        max_length=40, blank=True, help_text="As that of a membership; empty where nobody knows."
    )

    class Meta:
        ordering = ("group", "role")
        constraints = [
            models.UniqueConstraint(fields=("environment", "group", "role"), name="a_group_has_a_role_once")
        ]

    def __str__(self) -> str:
        return f"{self.group}: {self.role} in {self.environment}"
