from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("trunkmgr", "0002_provider_size_rule")]

    operations = [
        migrations.AddField(
            model_name="node",
            name="load",
            field=models.JSONField(
                blank=True,
                default=dict,
                help_text="Overload as of the last heartbeat: share refused, wait, times, refused.",
            ),
        ),
    ]
