"""Calls: those going on and those that ended last, the newest first."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from trunkmgr import payloads, selectors
from trunkmgr.models import Call
from trunkmgr.views.access import status_page

#: Nobody reads more; beyond it the page says how many there are.
LIMIT = 500
#: Of the calls that ended: enough to see the one that somebody asks about just now.
ENDED_SHOWN = 20


@status_page
def calls(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    going_on, ended = selectors.calls_going_on(), selectors.calls_ended(ENDED_SHOWN)
    shown = going_on[:LIMIT]
    accounts = [row.account for row in selectors.board_rows({call.l_uuid for call in (*shown, *ended)})]
    names = {account.l_uuid: f"{account.l_username}@{account.l_domain}" for account in accounts}

    def lines(calls: list[Call]) -> list[dict[str, Any]]:
        return [
            payloads.call_row(call, now) | {
                "trunk": names.get(call.l_uuid, call.l_uuid),
                "url": reverse("status:trunk", args=[call.l_uuid]) if call.l_uuid else "",
            }
            for call in calls
        ]

    return render(request, "status/calls.html", {
        "here": "calls", "now": now, "now_epoch": payloads.epoch(now), "rows": lines(shown), "total": len(going_on),
        "limit": LIMIT, "ended": lines(ended),
    })
