from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('trunkmgr', '0005_credential'),
    ]

    operations = [
        migrations.CreateModel(
            name='Dialog',
            fields=[
                ('key', models.CharField(help_text="Drawn by the engine, as the call's own.", max_length=32, primary_key=True, serialize=False)),
                ('node', models.CharField(db_index=True, max_length=64)),
                ('call_id', models.CharField(max_length=255)),
                ('l_uuid', models.CharField(blank=True, default='', max_length=64)),
                ('state', models.TextField(help_text='Sealed with TRUNKMGR_SEAL_KEYS, because it names hidden callers.')),
                ('expires_time', models.DateTimeField(db_index=True)),
                ('changed_time', models.DateTimeField()),
            ],
        ),
    ]
