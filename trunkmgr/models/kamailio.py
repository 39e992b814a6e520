"""Tables of a Kamailio database that is not ours, as Django reads them there; never made, never migrated.

They belong to no installed app, so that no migration and no check of ours knows them; `trunkmgr.foreign.Router` leads
them to their database.  What a column holds is taken as it stands: others write there, and SQLite checks no length.
"""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models


class KamailioUacReg(models.Model):
    """Its `uacreg`, versions 5 and 6."""

    l_uuid = models.TextField(primary_key=True)
    l_username = models.TextField()
    l_domain = models.TextField()
    r_username = models.TextField()
    r_domain = models.TextField()
    realm = models.TextField()
    auth_username = models.TextField()
    auth_password = models.TextField()
    auth_ha1 = models.TextField()
    auth_proxy = models.TextField()
    expires = models.IntegerField()
    flags = models.IntegerField()
    reg_delay = models.IntegerField()
    contact_addr = models.TextField()
    socket = models.TextField()
    contact_user = models.TextField()
    """Not in version 5."""
    objects: ClassVar[models.Manager[KamailioUacReg]] = models.Manager()

    class Meta:
        app_label = "kamailio"
        managed = False
        db_table = settings.TRUNKMGR.reg_db_table

    def __str__(self) -> str:
        return self.l_uuid


class KamailioVersion(models.Model):
    """Its `version`: which form a table has."""

    table_name = models.TextField(primary_key=True)
    table_version = models.IntegerField()
    objects: ClassVar[models.Manager[KamailioVersion]] = models.Manager()

    class Meta:
        app_label = "kamailio"
        managed = False
        db_table = "version"

    def __str__(self) -> str:
        return f"{self.table_name} {self.table_version}"
