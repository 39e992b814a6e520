"""The Celery application: beat plans registrations, workers run tasks.py.  It does no SIP and opens no SIP socket."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "trunkmgr.settings")

app = Celery("trunkmgr")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["trunkmgr"])
