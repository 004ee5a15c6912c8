from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('upgrades', '0017_who_gave_groups'),
    ]

    operations = [
        migrations.AddField(
            model_name='application',
            name='log_trouble',
            field=models.TextField(blank=True, default='', help_text='What it cannot read of the log. Empty: nothing.'),
            preserve_default=False,
        ),
        migrations.AlterField(
            model_name='logline',
            name='kind',
            field=models.CharField(choices=[('event', 'Event'), ('total', 'Total'), ('unreadable', 'Unreadable'), ('gap', 'Gap'), ('foreign', 'Foreign')], max_length=10),
        ),
        # A head that names another server was kept as a line that nobody can read, and so not told to steps begun later.
        migrations.RunSQL(
            "UPDATE upgrades_logline SET kind = 'foreign' WHERE kind = 'unreadable' AND text LIKE 'the head of %'",
            "UPDATE upgrades_logline SET kind = 'unreadable' WHERE kind = 'foreign' AND text LIKE 'the head of %'",
        ),
    ]
