"""Bans: written by the workers that imposed them, lifted by operators."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from trunkmgr.exceptions import NoWorker
from trunkmgr.models import Ban, Node, Order
from trunkmgr.services import orders

TIMEOUT = 5.0


def standing() -> QuerySet[Ban]:
    """Bans that hold now."""
    return Ban.objects.filter(until_time__gt=timezone.now(), lifted_time=None).select_related("node")


def record(node: Node, bans: Iterable[tuple[str, str, datetime, datetime]]) -> None:
    """Keep new bans of a worker: address, rule, since, until."""
    Ban.objects.bulk_create(
        Ban(node=node, address=address, rule=rule, since_time=since, until_time=until)
        for address, rule, since, until in bans
    )


def of_node(node: Node) -> list[tuple[str, str, datetime, datetime]]:
    """Return what still holds of the bans of a worker, for its next start."""
    rows = standing().filter(node=node)
    return list(rows.values_list("address", "rule", "since_time", "until_time"))


def lift(addresses: Sequence[str], who: str) -> int:
    """End bans and tell the workers; return how many ended.  A worker that is away learns of it when it starts."""
    with transaction.atomic():
        count = standing().filter(address__in=addresses).update(lifted_time=timezone.now(), who=who[:150])
        with contextlib.suppress(NoWorker):
            orders.place(Order.Verb.UNBAN, {"addresses": list(addresses)}, who, TIMEOUT)
    return count
