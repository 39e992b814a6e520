"""The Django application."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class TrunkmgrConfig(AppConfig):
    name = "trunkmgr"
    verbose_name = "Trunks"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from trunkmgr import checks  # noqa: F401  (registers)
        from trunkmgr.services.shipped_profiles import load

        post_migrate.connect(load, sender=self)
