"""Plans of record, claims of runs, findings of rules; and what the planner asks of an environment."""

import django.db.models.deletion
from django.db import migrations, models


# Runs that are under way already hold what they are bound to.
CLAIM = """
INSERT INTO upgrades_claim (run_id, application_id, claimed_at)
SELECT DISTINCT ON (binding.application_id) run.id, binding.application_id, run.started_at
    FROM upgrades_runbinding binding JOIN upgrades_run run ON run.id = binding.run_id
    WHERE run.status NOT IN ('ended', 'aborted')
    ORDER BY binding.application_id, run.id
"""


class Migration(migrations.Migration):
    dependencies = [
        ("upgrades", "0002_event_chain"),
    ]

    operations = [
        migrations.CreateModel(
            name="PlanItem",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("key", models.CharField(max_length=200)),
                ("position", models.PositiveIntegerField()),
                ("stage", models.CharField(max_length=40)),
                ("procedure", models.CharField(max_length=64)),
                ("title", models.CharField(max_length=300)),
                ("reason", models.TextField()),
                (
                    "sources",
                    models.JSONField(default=list, help_text="The requirement ids that give it its place."),
                ),
                (
                    "servers",
                    models.JSONField(
                        default=list, help_text="What it works on: kind, name, version now, version wanted."
                    ),
                ),
                (
                    "hosts",
                    models.JSONField(
                        default=list, help_text="The hosts whose LCA it works on, in the same shape."
                    ),
                ),
                (
                    "after",
                    models.JSONField(default=list, help_text="Keys of the items that must be done before."),
                ),
            ],
            options={
                "ordering": ("plan", "position"),
            },
        ),
        migrations.AddField(
            model_name="application",
            name="database",
            field=models.CharField(
                blank=True,
                help_text="The configuration database that it works with, if it is known.",
                max_length=200,
            ),
        ),
        migrations.AddField(
            model_name="application",
            name="dormant",
            field=models.BooleanField(
                default=False,
                help_text="A copy at the other site that does not run until that site takes over (INT-4).",
            ),
        ),
        migrations.AddField(
            model_name="application",
            name="folder",
            field=models.CharField(
                blank=True, help_text="The folder that it is installed in.", max_length=300
            ),
        ),
        migrations.AddField(
            model_name="environment",
            name="log_schema_version",
            field=models.CharField(
                blank=True, help_text="Schema of the Centralized Log Database.", max_length=40
            ),
        ),
        migrations.AddField(
            model_name="environment",
            name="schema_version",
            field=models.CharField(
                blank=True, help_text="Schema of the Configuration Database, such as 8.1.1.", max_length=40
            ),
        ),
        migrations.AddField(
            model_name="environment",
            name="single_language",
            field=models.BooleanField(
                blank=True,
                help_text="How the Configuration Database is used; empty: not known (PRX-1).",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="environment",
            name="uses_lrm",
            field=models.BooleanField(
                default=False, help_text="License Reporting Manager 8.5 is integrated here (INT-6)."
            ),
        ),
        migrations.AddField(
            model_name="host",
            name="os_name",
            field=models.CharField(
                blank=True,
                help_text="The operating system itself, such as Red Hat Enterprise Linux.",
                max_length=80,
            ),
        ),
        migrations.AddField(
            model_name="host",
            name="os_version",
            field=models.CharField(blank=True, help_text="Such as 2019, 9.4 or 22.04.", max_length=40),
        ),
        migrations.AddField(
            model_name="run",
            name="plan_item",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="runs",
                to="upgrades.planitem",
            ),
        ),
        migrations.CreateModel(
            name="PlanOfRecord",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "number",
                    models.PositiveIntegerField(help_text="Counts the plans of the environment: 1, 2, 3."),
                ),
                ("saved_at", models.DateTimeField()),
                ("saved_by_id", models.CharField(max_length=80)),
                ("saved_by_name", models.CharField(max_length=200)),
                ("digest", models.CharField(help_text="Of what was shown when it was saved.", max_length=64)),
                ("replaced_at", models.DateTimeField(blank=True, null=True)),
                (
                    "environment",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="plans",
                        to="upgrades.environment",
                    ),
                ),
            ],
            options={
                "ordering": ("environment", "-number"),
            },
        ),
        migrations.AddField(
            model_name="planitem",
            name="plan",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="items", to="upgrades.planofrecord"
            ),
        ),
        migrations.CreateModel(
            name="Claim",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("claimed_at", models.DateTimeField()),
                ("released_at", models.DateTimeField(blank=True, null=True)),
                (
                    "application",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="claims",
                        to="upgrades.application",
                    ),
                ),
                (
                    "host",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="claims",
                        to="upgrades.host",
                    ),
                ),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="claims", to="upgrades.run"
                    ),
                ),
            ],
            options={
                "ordering": ("run", "id"),
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("released_at", None)),
                        fields=("application",),
                        name="a_server_is_claimed_once",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("released_at", None)),
                        fields=("host",),
                        name="a_host_is_claimed_once",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("application", None), ("host__isnull", False)),
                            models.Q(("application__isnull", False), ("host", None)),
                            _connector="OR",
                        ),
                        name="a_claim_is_of_a_server_or_a_host",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Finding",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("rule", models.CharField(max_length=40)),
                (
                    "subject",
                    models.CharField(help_text="What it is about: servers, hosts, a file.", max_length=300),
                ),
                ("tone", models.CharField(help_text="stop, wait or info", max_length=10)),
                ("title", models.CharField(max_length=300)),
                ("text", models.TextField()),
                ("what_to_do", models.TextField()),
                ("sources", models.JSONField(default=list)),
                ("since", models.DateTimeField()),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                (
                    "environment",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="findings",
                        to="upgrades.environment",
                    ),
                ),
            ],
            options={
                "ordering": ("since", "id"),
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("ended_at", None)),
                        fields=("environment", "rule", "subject"),
                        name="a_finding_stands_once",
                    )
                ],
            },
        ),
        migrations.AddConstraint(
            model_name="planofrecord",
            constraint=models.UniqueConstraint(
                fields=("environment", "number"), name="plan_numbers_are_unique"
            ),
        ),
        migrations.AddConstraint(
            model_name="planofrecord",
            constraint=models.UniqueConstraint(
                condition=models.Q(("replaced_at", None)),
                fields=("environment",),
                name="one_plan_is_in_force",
            ),
        ),
        migrations.AddConstraint(
            model_name="planitem",
            constraint=models.UniqueConstraint(fields=("plan", "key"), name="a_plan_asks_for_it_once"),
        ),
        migrations.AddConstraint(
            model_name="planitem",
            constraint=models.UniqueConstraint(fields=("plan", "position"), name="plan_places_are_unique"),
        ),
        migrations.RunSQL(CLAIM, migrations.RunSQL.noop),
    ]
