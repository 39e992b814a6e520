"""`manage.py up`: everything in one process, the embedded set-up."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import sys
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, CommandError, call_command
from django.db import Error as DatabaseError

from trunkmgr import live, processes

ADMINISTRATOR = "admin"

#: Seconds between two turns of Python's threads: with the default of 5 ms three busy ones delay a SIP message by 83
#: ms (p99), with this by 14 ms.
SWITCH_INTERVAL = 0.0005


class Command(BaseCommand):
    help = "Prepare the database and run everything in this process: web, SIP, Celery worker and beat."

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        return super().create_parser(
            prog_name, subcommand, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EXAMPLES, **kwargs,
        )

    def handle(self, *args: Any, **options: Any) -> None:
        env = settings.TRUNKMGR
        if not env.embedded:
            raise CommandError(
                "REDIS_URL is set, so this installation runs as several processes. Start `manage.py web`, "
                "`manage.py runsip`, `celery -A trunkmgr.celery worker` and `celery -A trunkmgr.celery beat`, "
                "or unset REDIS_URL."
            )
        sys.setswitchinterval(SWITCH_INTERVAL)
        try:
            self.prepare()
        except DatabaseError as error:
            raise CommandError(processes.database_problem(error)) from error
        processes.run(self.serve)

    def progress(self, text: str) -> None:
        self.stderr.write(text, self.style.NOTICE)
        self.stderr.flush()

    def prepare(self) -> None:
        """Bring the database up to date, and make somebody who can log in."""
        self.progress("Preparing the database …")
        call_command("migrate", interactive=False, verbosity=0)
        users = get_user_model().objects
        if not users.filter(is_superuser=True, is_active=True).exists():
            password = secrets.token_urlsafe(12)
            users.create_superuser(ADMINISTRATOR, password=password)
            self.stdout.write(
                f"Administrator {ADMINISTRATOR} made, password {password} (shown this once; change it in the admin)."
            )
            self.stdout.flush()

    async def serve(self, stop: asyncio.Event) -> None:
        """Start all parts, print the ready line, wait for `stop`, end all parts."""
        live.LOOP = asyncio.get_running_loop()
        web = processes.WebServer()
        self.progress("Opening sockets …")
        from channels.layers import get_channel_layer

        from trunkmgr.asgi import application
        from trunkmgr.sip.worker import SipWorker

        worker = SipWorker(application, [f"sip.{settings.TRUNKMGR.node}"], get_channel_layer())
        await worker.start()
        serving = asyncio.create_task(worker.arun(), name="sip")
        await web.start()
        self.progress("Starting Celery …")
        processes.PARTS += [processes.CeleryThread(), processes.BeatThread()]
        for part in processes.PARTS:
            part.start()
        watching = asyncio.create_task(processes.watch(), name="watch")
        processes.settle()
        self.stdout.write(f"trunkmgr ready: {web.url} · SIP {worker.sockets} · accounts {worker.accounts}")
        self.stdout.flush()

        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([stopping, serving], return_when=asyncio.FIRST_COMPLETED)
        self.progress("Stopping: calls being set up get their answer …")
        stopping.cancel()
        watching.cancel()
        # Each part has seconds to end and none waits for another, so together they stay under ten.
        parts = (asyncio.to_thread(part.stop) for part in processes.PARTS)
        await asyncio.gather(worker.drain(), web.stop(), *parts)
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        live.LOOP = None


EXAMPLES = """\
examples:
  manage.py up
      everything on 127.0.0.1:8000 and SIP port 5060
  TRUNKMGR_HTTP=127.0.0.1:8080 TRUNKMGR_SIP_LISTEN=udp:192.0.2.1:5060,tcp:192.0.2.1:5060 manage.py up
      other addresses; .env.example names every variable

It is ready with the line that begins with `trunkmgr ready`, and ends with SIGTERM or Ctrl-C.
"""
