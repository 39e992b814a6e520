"""The board: all trunks at a glance.  The server draws the first hundred rows; the script takes over from there."""

from __future__ import annotations

from typing import Any

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from trunkmgr import payloads, selectors
from trunkmgr.causes import Shown
from trunkmgr.views.access import status_page

PAGE = 100
#: Where people look for each total, whatever its number is.
TOTALS = (Shown.REGISTERED, Shown.REFRESHING, Shown.FAILING, Shown.REFUSED, Shown.DISABLED, Shown.UNKNOWN)


@status_page
def board(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    rows = sorted((payloads.seen_row(each, now) for each in selectors.board_rows()), key=worst_first)
    counts = dict.fromkeys(Shown, 0)
    for row in rows:
        counts[Shown(row["state"])] += 1
    only = request.GET.get("state", "")
    page = Paginator([row for row in rows if only in ("", row["state"])], PAGE).get_page(request.GET.get("page"))
    calls = payloads.calls_going_on()
    for row in page:
        row |= {"calls": calls.get(row["l_uuid"], 0), "url": reverse("status:trunk", args=[row["l_uuid"]])}
    return render(request, "status/board.html", {
        "here": "board", "now": now, "now_epoch": payloads.epoch(now), "page": page, "only": only, "total": len(rows),
        "totals": [{"key": state.value, "label": state.label, "count": counts[state]} for state in TOTALS],
        "blank": {"url": "#", "state": "unk"},
        **headline(counts, sum(calls.values())),
    })


def worst_first(row: dict[str, Any]) -> tuple[object, ...]:
    """Sort key: what needs a person first, the longest outage on top; the rest by name."""
    shown = Shown(row["state"])
    return shown.rank, (row["since"] or 0) if shown.needs_attention else 0, row["local"], row["l_uuid"]


def headline(counts: dict[Shown, int], calls: int) -> dict[str, str]:
    """Say first what needs a person, then the numbers."""
    total, bad = sum(counts.values()), sum(number for shown, number in counts.items() if shown.needs_attention)
    if not total:
        return {"headline": "Welcome", "subline": "Nothing to watch yet."}
    if bad:
        head = f"{bad:,} of {total:,} trunk{'' if total == 1 else 's'} need{'s' if bad == 1 else ''} attention"
    else:
        head = "The trunk is fine" if total == 1 else f"All {total:,} trunks are fine"
    return {
        "headline": head,
        "subline": f"{counts[Shown.REFUSED]:,} refused by the provider, {counts[Shown.FAILING]:,} failing, "
        f"{counts[Shown.UNKNOWN]:,} unknown. {calls:,} call{'' if calls == 1 else 's'} now.",
    }
