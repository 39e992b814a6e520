"""`manage.py runsip`: a SIP worker as a process of its own, beside `web` and Celery."""

from __future__ import annotations

from typing import Any

from channels.management.commands import runworker
from django.conf import settings
from django.core.management import CommandError

from trunkmgr.sip.worker import SipWorker


class Command(runworker.Command):
    help = "Run a SIP worker: registrations, calls, and orders from the web and Celery. Needs REDIS_URL."
    worker_class = SipWorker

    def add_arguments(self, parser: Any) -> None:
        """The worker's channel follows from TRUNKMGR_NODE, so the stock arguments do not apply."""

    def handle(self, *args: Any, **options: Any) -> None:
        env = settings.TRUNKMGR
        if env.embedded:
            raise CommandError(
                "REDIS_URL is not set, so a SIP worker of its own could not be reached by the web and Celery. "
                "Set REDIS_URL, or run everything in one process with `manage.py up`."
            )
        super().handle(*args, channels=[f"sip.{env.node}"], **options)
