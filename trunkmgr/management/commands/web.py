"""`manage.py web`: the web server as a process of its own, beside `runsip` and Celery."""

from __future__ import annotations

import asyncio
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError

from trunkmgr import processes


class Command(BaseCommand):
    help = "Serve admin and status pages. Needs REDIS_URL, through which the SIP workers talk to the pages."

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.TRUNKMGR.embedded:
            raise CommandError(
                "REDIS_URL is not set, so a web process of its own could not hear the SIP worker. "
                "Set REDIS_URL, or run everything in one process with `manage.py up`."
            )
        processes.run(self.serve)

    async def serve(self, stop: asyncio.Event) -> None:
        web = processes.WebServer()
        await web.start()
        self.stdout.write(f"trunkmgr ready: {web.url}")
        self.stdout.flush()
        await stop.wait()
        await web.stop()
