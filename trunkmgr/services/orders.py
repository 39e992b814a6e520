"""Orders: what one worker shall do once, and its answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from trunkmgr import selectors
from trunkmgr.exceptions import NoWorker
from trunkmgr.models import Node, Order
from trunkmgr.models.credential import Secret
from trunkmgr.services import wake

#: Seconds between two looks at an order that one waits for.
LOOK = 0.02
NOBODY = "No SIP worker runs. Start it with `make run` (or `manage.py runsip`)."


def place(verb: str, payload: Mapping[str, Any], who: str = "", timeout: float = 5.0) -> list[Order]:
    """Order something and wake the workers; return an order for each that is concerned.  Raise NoWorker.

    With ``{"l_uuids": […]}`` these are the owners, and each gets its own accounts only; else every live worker. A
    payload holds row keys and plain options, never a secret.
    """
    concerned: list[tuple[Node, dict[str, Any]]] = []
    if "l_uuids" in payload:
        by_node: dict[Node, list[str]] = {}
        owned = selectors.owners(list(payload["l_uuids"]))
        for l_uuid in payload["l_uuids"]:
            node = owned.get(l_uuid)
            if node is None or not selectors.is_live(node):
                raise NoWorker(_no_worker(l_uuid, node))
            by_node.setdefault(node, []).append(l_uuid)
        concerned = [(node, {**payload, "l_uuids": mine}) for node, mine in by_node.items()]
    else:
        concerned = [(node, dict(payload)) for node in selectors.live_nodes()]
        if not concerned:
            raise NoWorker(NOBODY)
    with transaction.atomic():
        orders = [_write(node, verb, mine, who, timeout) for node, mine in concerned]
        transaction.on_commit(lambda: wake.wake([node.name for node, _ in concerned]))
    return orders


def place_one(
    verb: str, payload: Mapping[str, Any], who: str = "", timeout: float = 5.0, *, l_uuid: str = "",
    secret: Secret | None = None,
) -> Order:
    """Order something of one worker: the owner of `l_uuid`, else any that lives.  Raise NoWorker.

    A `secret` lies sealed in the order until the worker claims it.
    """
    node = selectors.owners([l_uuid]).get(l_uuid) if l_uuid else next(iter(selectors.live_nodes()), None)
    if l_uuid and (node is None or not selectors.is_live(node)):
        raise NoWorker(_no_worker(l_uuid, node))
    if node is None:
        raise NoWorker(NOBODY)
    with transaction.atomic():
        # Those that nobody claimed in time keep their secret no longer than until the next one.
        Order.objects.filter(deadline__lt=timezone.now()).exclude(secret="").update(secret="")
        order = _write(node, verb, payload, who, timeout, secret)
        transaction.on_commit(lambda: wake.wake([node.name]))
    return order


def _write(
    node: Node, verb: str, payload: Mapping[str, Any], who: str, timeout: float, secret: Secret | None = None,
) -> Order:
    deadline = timezone.now() + timedelta(seconds=timeout)
    order = Order(node=node, verb=verb, payload=dict(payload), who=who[:150], deadline=deadline)
    order.secret = secret or Secret()
    order.save()
    return order


def _no_worker(l_uuid: str, node: Node | None) -> str:
    if node is None:
        return f"No SIP worker owns {l_uuid}. Start one with `make run` (or `manage.py runsip`), or check the id."
    return f"The SIP worker {node.name}, which owns {l_uuid}, does not run on {node.host}. Start it again."


def wait(order: Order, timeout: float = 5.0, progress: Callable[[], None] | None = None) -> dict[str, Any]:
    """Return the worker's result, or ``{"ok": False, "message": …}`` when none came in `timeout` seconds.

    `progress` is called once a second meanwhile.
    """
    until = time.monotonic() + timeout
    tell = time.monotonic() + 1.0
    while True:
        result = Order.objects.filter(pk=order.pk).values_list("result", flat=True).first()
        if result is not None:
            return dict(result)
        if time.monotonic() >= until:
            return {"ok": False, "message": f"The SIP worker {order.node.name} has not answered in {timeout:g} s."}
        if progress and time.monotonic() >= tell:
            tell += 1.0
            progress()
        time.sleep(LOOK)


def claim(node: str) -> list[Order]:
    """Return the orders that the worker `node` shall run now; none is ever given out twice or past its deadline.

    A secret leaves the table with them.
    """
    now = timezone.now()
    open_orders = Order.objects.filter(node__name=node, claimed_time=None, deadline__gte=now)
    return [
        order for order in open_orders.order_by("pk")
        if Order.objects.filter(pk=order.pk, claimed_time=None, deadline__gte=now).update(
            claimed_time=now, secret="",
        )
    ]


def tell(order_id: int, steps: list[dict[str, Any]]) -> None:
    """Write how far an order has come, for those who watch."""
    Order.objects.filter(pk=order_id, finished_time=None).update(progress=steps)


def finish(order_id: int, result: Mapping[str, Any]) -> None:
    """Write the result for which the caller waits."""
    Order.objects.filter(pk=order_id, finished_time=None).update(finished_time=timezone.now(), result=dict(result))
