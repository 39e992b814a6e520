from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("trunkmgr", "0004_outbound")]

    operations = [
        migrations.AlterModelOptions(name="order", options={"ordering": ["-pk"]}),
        migrations.CreateModel(
            name="SipRequest",
            fields=[],
            options={"verbose_name": "SIP request", "proxy": True, "indexes": [], "constraints": []},
            bases=("trunkmgr.order",),
        ),
    ]
