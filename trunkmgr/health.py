"""Whether this installation does its work, for `/healthz`: database, SIP workers, and our own threads."""

from __future__ import annotations

from typing import Any

from django.db import Error as DatabaseError
from django.http import HttpRequest, JsonResponse
from django.utils import timezone

from trunkmgr import processes, selectors
from trunkmgr.models import Node


def report() -> dict[str, Any]:
    """Return `{"ok", "database", "workers": {name: seconds since the last beat}, "load", "threads": {name: alive}}`."""
    threads = {part.name: part.alive for part in processes.PARTS}
    now = timezone.now()
    try:
        nodes = list(Node.objects.filter(stopped_time=None))
    except DatabaseError as error:
        return {"ok": False, "database": " ".join(str(error).split()), "workers": {}, "load": {}, "threads": threads}
    return {
        "ok": any(selectors.is_live(node) for node in nodes) and all(threads.values()),
        "database": "ok",
        "workers": {
            node.name: round((now - node.heartbeat_time).total_seconds(), 1) if node.heartbeat_time else None
            for node in nodes
        },
        "load": {node.name: node.load for node in nodes},
        "threads": threads,
    }


def healthz(request: HttpRequest) -> JsonResponse:
    """Answer a monitor without a login: 200 while calls and registrations are looked after, else 503."""
    found = report()
    return JsonResponse(found, status=200 if found["ok"] else 503, headers={"Cache-Control": "no-store"})
