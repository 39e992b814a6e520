
import django.db.models.deletion
import trunkmgr.models.credential
import trunkmgr.models.validators
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('trunkmgr', '0007_registration_routes'),
    ]

    operations = [
        migrations.AlterField(
            model_name='change',
            name='key',
            field=models.CharField(help_text='l_uuid, l_domain, or the id of a provider or credential.', max_length=128),
        ),
        migrations.AlterField(
            model_name='change',
            name='table',
            field=models.CharField(choices=[('uacreg', 'Uacreg'), ('provider', 'Provider'), ('domain', 'Domain'), ('credential', 'Credential')], max_length=16),
        ),
        migrations.CreateModel(
            name='Credential',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('realm', models.CharField(blank=True, default='', help_text='The realm of the challenge, letter by letter; empty answers every realm of the account or provider.', max_length=128, validators=[trunkmgr.models.validators.plain_text])),
                ('username', models.CharField(max_length=128, validators=[trunkmgr.models.validators.plain_text], verbose_name='user')),
                ('password', trunkmgr.models.credential.SecretField(blank=True, default='')),
                ('ha1', trunkmgr.models.credential.SecretField(blank=True, default='', verbose_name='HA1')),
                ('note', models.CharField(blank=True, default='', max_length=200, validators=[trunkmgr.models.validators.plain_text])),
                ('account', models.ForeignKey(blank=True, db_column='l_uuid', db_constraint=False, help_text='Only calls of this account.', null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='credentials', to='trunkmgr.uacreg', to_field='l_uuid')),
                ('provider', models.ForeignKey(blank=True, help_text="Only calls of this provider's accounts.", null=True, on_delete=django.db.models.deletion.CASCADE, related_name='credentials', to='trunkmgr.provider')),
            ],
            options={
                'ordering': ['realm', 'username', 'pk'],
            },
        ),
    ]
