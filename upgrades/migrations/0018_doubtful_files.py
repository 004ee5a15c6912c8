from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('upgrades', '0017_who_gave_groups'),
    ]

    operations = [
        migrations.AlterField(
            model_name='logline',
            name='kind',
            field=models.CharField(choices=[('event', 'Event'), ('total', 'Total'), ('unreadable', 'Unreadable'), ('gap', 'Gap'), ('foreign', 'Foreign')], max_length=10),
        ),
    ]
