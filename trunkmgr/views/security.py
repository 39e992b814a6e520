"""Security: what was refused by which rule, and which addresses are banned."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from trunkmgr import payloads, selectors
from trunkmgr.models import Ban
from trunkmgr.services import bans
from trunkmgr.sip.rules import RULES
from trunkmgr.views.access import status_page

#: Of the bans that are over: what somebody asks about after a night.
PAST_SHOWN = 50
#: Of those that hold; the admin has them all.
SHOWN = 200
#: Why an address was banned, in words.
CAUSES = {
    "stranger": "Connected again and again, and is no provider and no PBX",
    "authentication": "Gave wrong credentials again and again",
}


@status_page
def security(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    standing = list(bans.standing()[:SHOWN + 1])
    past = Ban.objects.exclude(pk__in=[ban.pk for ban in standing]).select_related("node")[:PAST_SHOWN]
    rules = refused()
    total = len(standing)
    return render(request, "status/security.html", {
        "here": "security", "now": now, "now_epoch": payloads.epoch(now), "rules": rules,
        "refused": sum(row["count"] for row in rules), "standing": [_line(ban) for ban in standing[:SHOWN]],
        "total": f"More than {SHOWN}" if total > SHOWN else total, "past": [_line(ban) for ban in past],
        "may_lift": request.user.has_perm("trunkmgr.change_ban"),
    })


def refused() -> list[dict[str, Any]]:
    """How often each rule refused something, over all live workers since their start; the most first."""
    counts: dict[str, int] = {}
    for node in selectors.live_nodes():
        for rule, count in node.load.get("rules", {}).items():
            counts[rule] = counts.get(rule, 0) + count
    rows = [{"rule": rule, "says": RULES.get(rule, ""), "count": count} for rule, count in counts.items()]
    return sorted(rows, key=lambda row: (-int(str(row["count"])), str(row["rule"])))


def _line(ban: Ban) -> dict[str, Any]:
    over = "lifted by " + ban.who if ban.lifted_time else "ran out"
    return {
        "ban": ban, "cause": CAUSES.get(ban.rule, ban.rule), "over": over,
        "ended": ban.lifted_time or ban.until_time,
    }
