"""Doors from Celery to the services; a task opens no socket and carries no secret."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from trunkmgr import live
from trunkmgr.services import registrations

#: Plans in one channel message: some 40 kB, which Redis and the in-memory layer both take with ease.
CHUNK = 500


@shared_task(ignore_result=True)
def refresh_registrations() -> None:
    """Tell each SIP worker what falls due before the next tick."""
    for node, plans in registrations.plan_refreshes(timezone.now()).items():
        for start in range(0, len(plans), CHUNK):
            live.send(f"sip.{node}", {"type": "registrations.plan", "plans": plans[start:start + CHUNK]})
