"""The Django application."""

from __future__ import annotations

from django.apps import AppConfig


class TrunkmgrConfig(AppConfig):
    name = "trunkmgr"
    verbose_name = "Trunks"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from trunkmgr import checks  # noqa: F401  (registers)
