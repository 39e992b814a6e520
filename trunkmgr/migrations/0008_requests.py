from django.db import migrations, models

import trunkmgr.models.credential


class Migration(migrations.Migration):
    dependencies = [("trunkmgr", "0009_parameter")]

    operations = [
        migrations.CreateModel(
            name="ApiToken",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "name",
                    models.CharField(
                        help_text="Who or what uses it; stands in the log of orders.", max_length=64, unique=True
                    ),
                ),
                ("digest", models.CharField(editable=False, max_length=64, unique=True)),
                ("permissions", models.JSONField(default=list)),
                ("created_time", models.DateTimeField(auto_now_add=True)),
                ("created_by", models.CharField(blank=True, default="", editable=False, max_length=150)),
                ("used_time", models.DateTimeField(blank=True, editable=False, null=True, verbose_name="last used")),
            ],
            options={"verbose_name": "API token", "ordering": ["name"]},
        ),
        migrations.AlterModelOptions(
            name="order",
            options={"ordering": ["-pk"], "permissions": [("uac_req_send", "Can send SIP requests")]},
        ),
        migrations.AddField(
            model_name="order",
            name="secret",
            field=trunkmgr.models.credential.SecretField(
                blank=True, default="", help_text="What only the worker may read; wiped when it claims."
            ),
        ),
        migrations.AlterField(
            model_name="order",
            name="verb",
            field=models.CharField(
                choices=[
                    ("register", "Register"),
                    ("unregister", "Unregister"),
                    ("dump", "Dump"),
                    ("uac_req_send", "Uac Req Send"),
                ],
                max_length=16,
            ),
        ),
    ]
