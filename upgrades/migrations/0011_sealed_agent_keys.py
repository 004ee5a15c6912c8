"""Agents' keys are sealed in the table from here on, and an agent may have a certificate that its TLS rests on."""

from django.db import migrations, models

from upgrades.models.sealed import SealedText, seal, unseal


def _each(schema_editor, change):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT id, secret FROM upgrades_agent")
        for number, secret in cursor.fetchall():
            cursor.execute("UPDATE upgrades_agent SET secret = %s WHERE id = %s", [change(secret), number])


def seal_all(apps, schema_editor):
    _each(schema_editor, lambda text: seal(text) if text else text)


def unseal_all(apps, schema_editor):
    _each(schema_editor, lambda text: unseal(text) if text else text)


class Migration(migrations.Migration):
    dependencies = [("upgrades", "0010_api")]

    operations = [
        migrations.AddField(
            model_name="agent",
            name="certificate",
            field=models.TextField(
                blank=True,
                default="",
                help_text="PEM: what its TLS must rest on. Empty: the authorities of the system.",
            ),
            preserve_default=False,
        ),
        migrations.AlterField(model_name="agent", name="secret", field=SealedText()),
        migrations.RunPython(seal_all, unseal_all),
    ]
