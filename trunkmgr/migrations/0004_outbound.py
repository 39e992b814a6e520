from django.db import migrations, models

import trunkmgr.models.validators


class Migration(migrations.Migration):
    dependencies = [("trunkmgr", "0010_order_reload")]

    operations = [
        migrations.AddField(
            model_name="uacregoptions",
            name="outbound_proxy",
            field=models.CharField(
                blank=True, default="", max_length=255, validators=[trunkmgr.models.validators.sip_uri],
                help_text=(
                    "sip: URI that calls to the provider go to; empty sends them to the server that took the REGISTER."
                ),
            ),
        ),
    ]
