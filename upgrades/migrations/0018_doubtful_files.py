from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('upgrades', '0016_one_index_of_events'),
    ]

    operations = [
        migrations.AlterField(
            model_name='logline',
            name='kind',
            field=models.CharField(choices=[('event', 'Event'), ('total', 'Total'), ('unreadable', 'Unreadable'), ('gap', 'Gap'), ('foreign', 'Foreign')], max_length=10),
        ),
    ]
