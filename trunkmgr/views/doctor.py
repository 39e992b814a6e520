"""Pre-flight of one trunk: the button's page, which tells each step while the worker goes on."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone

from trunkmgr import payloads, selectors
from trunkmgr.exceptions import NoWorker
from trunkmgr.models import Order
from trunkmgr.services import preflight
from trunkmgr.views.access import status_page

#: Icon and word of each state of a step.
SHOWN = {
    "good": ("ok", "good"), "remark": ("fail", "a remark"), "bad": ("ref", "this must be mended"),
    "skipped": ("off", "left out"), "running": ("work", "under way"),
}


@status_page
def doctor(request: HttpRequest, l_uuid: str) -> HttpResponse:
    """Begin a check (POST), or show the last one as far as it has come (GET); the page asks again until its end."""
    registration = selectors.trunk(l_uuid)
    now = timezone.now()
    base = {"here": "trunk", "now": now, "now_epoch": payloads.epoch(now), "l_uuid": l_uuid}
    if registration is None:
        return render(request, "status/gone.html", base, status=404)
    may_change = request.user.has_perm("trunkmgr.change_uacreg")
    if request.method == "POST":
        if not may_change:
            messages.error(request, "You may look at trunks, and not check them.", extra_tags="bad")
            return redirect("status:doctor", l_uuid)
        try:
            preflight.begin(l_uuid, request.user.get_username(), trial=request.POST.get("trial") != "no")
        except NoWorker as error:
            messages.error(request, str(error), extra_tags="bad")
        return redirect("status:doctor", l_uuid)
    order = Order.objects.filter(verb=Order.Verb.DOCTOR, payload__l_uuid=l_uuid).first()
    result = order.result if order is not None else None
    late = order is not None and result is None and order.deadline < now
    steps = (result.get("steps", []) if result else order.progress) if order is not None else []
    return render(request, "status/doctor.html", base | {
        "account": registration.account, "order": order, "result": result, "late": late, "may_change": may_change,
        "under_way": order is not None and result is None and not late,
        "steps": [_shown(step) for step in steps],
    })


def _shown(step: dict[str, Any]) -> dict[str, Any]:
    icon, word = SHOWN[step["state"]]
    took = "" if not step["seconds"] or step["seconds"] < 0.001 else f"{step['seconds'] * 1000:.0f} ms"
    return {**step, "icon": icon, "word": word, "took": took}
