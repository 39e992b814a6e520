"""Orders that look at one account before or while it works: the doctor, and what would be sent for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from trunkmgr.models import Order
from trunkmgr.services import orders

#: Seconds that a doctor has; its steps together need less (`sip.doctor`).
DOCTOR = 75.0
PREVIEW = 12.0


def begin(l_uuid: str, who: str = "", *, trial: bool = True) -> Order:
    """Have the owner of an account look at it from DNS to a trial REGISTER; raise NoWorker."""
    return orders.place_one(Order.Verb.DOCTOR, {"l_uuid": l_uuid, "trial": trial}, who, DOCTOR, l_uuid=l_uuid)


def follow(order: Order, on_step: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Wait for the result; `on_step` is told of each step once, when it has ended."""
    told, until = 0, time.monotonic() + DOCTOR + 1.0
    while True:
        progress, result = Order.objects.values_list("progress", "result").get(pk=order.pk)
        steps: list[dict[str, Any]] = progress if result is None else result.get("steps", [])
        while told < len(steps) and (result is not None or steps[told]["state"] != "running"):
            on_step(steps[told])
            told += 1
        if result is not None:
            return dict(result)
        if time.monotonic() >= until:
            silent = f"The SIP worker {order.node.name} has not answered in {DOCTOR:g} s."
            return {"ok": False, "message": silent, "steps": []}
        time.sleep(0.1)


def preview(l_uuid: str, who: str = "", number: str = "") -> dict[str, Any]:
    """Return what would be sent for an account, as `sip.preview.Preview.run` tells it; raise NoWorker."""
    order = orders.place_one(
        Order.Verb.PREVIEW, {"l_uuid": l_uuid, "number": number}, who, PREVIEW, l_uuid=l_uuid,
    )
    return orders.wait(order, PREVIEW)
