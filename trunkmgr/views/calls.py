"""Calls going on, the newest first."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from trunkmgr import payloads, selectors
from trunkmgr.views.access import status_page

#: Nobody reads more; beyond it the page says how many there are.
LIMIT = 500


@status_page
def calls(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    going_on = selectors.calls_going_on()
    shown = going_on[:LIMIT]
    accounts = [row.account for row in selectors.board_rows({call.l_uuid for call in shown})]
    names = {account.l_uuid: f"{account.l_username}@{account.l_domain}" for account in accounts}
    rows = [
        {
            "call": call, "since": payloads.epoch(call.answered_time or call.started_time),
            "seconds": (now - (call.answered_time or call.started_time)).total_seconds(),
            "trunk": names.get(call.l_uuid, call.l_uuid),
            "url": reverse("status:trunk", args=[call.l_uuid]) if call.l_uuid else "",
        }
        for call in shown
    ]
    return render(request, "status/calls.html", {
        "here": "calls", "now": now, "now_epoch": payloads.epoch(now), "rows": rows, "total": len(going_on),
        "limit": LIMIT,
    })
