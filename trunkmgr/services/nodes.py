"""SIP workers come, live and go; one name is never carried by two of them."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from trunkmgr.exceptions import NodeTaken
from trunkmgr.models import Ban, Change, Node, Order, Registration
from trunkmgr.services import calls
from trunkmgr.services.text import fit

#: A worker that was silent for longer than this does not defend its name any more.
TAKEN_FOR = timedelta(seconds=15)
#: How long orders and lines of the change log are of use to anybody.
ORDERS_KEPT = timedelta(days=1)
CHANGES_KEPT = timedelta(days=7)
#: The orders of SIP requests are the only record of who sent what.
REQUESTS_KEPT = timedelta(days=90)


def start(name: str, listen: Sequence[str] = ()) -> Node:
    """Take the name for this process; raise NodeTaken while another live worker has it.

    Returns the row with a fresh `instance`. Also ends the calls that a predecessor left, and drops old orders and
    changes.
    """
    now, host = timezone.now(), socket.gethostname()
    with transaction.atomic():
        node = Node.objects.select_for_update().filter(name=name).first()
        if node is None:
            try:
                with transaction.atomic():
                    node = Node.objects.create(name=name)
            except IntegrityError:
                node = Node.objects.select_for_update().get(name=name)
        if _lives(node, host):
            raise NodeTaken(
                f"The SIP worker {name} already runs on {node.host} (process {node.pid}). Stop it first, "
                "or give this one another name in TRUNKMGR_NODE."
            )
        node.instance = secrets.token_hex(16)
        node.host, node.pid, node.listen = host, os.getpid(), list(listen)
        node.started_time = node.heartbeat_time = now
        node.stopped_time = None
        node.save()
        calls.end_orphans(name)
    requests = Q(verb=Order.Verb.UAC_REQ_SEND)
    Order.objects.filter(~requests, deadline__lt=now - ORDERS_KEPT).delete()
    Order.objects.filter(requests, deadline__lt=now - REQUESTS_KEPT).delete()
    Change.objects.filter(time__lt=now - CHANGES_KEPT).delete()
    Ban.objects.filter(until_time__lt=now - REQUESTS_KEPT).delete()
    return node


def _lives(node: Node, host: str) -> bool:
    if node.heartbeat_time is None or node.stopped_time is not None:
        return False
    if timezone.now() - node.heartbeat_time > TAKEN_FOR:
        return False
    if node.host != host or node.pid is None:
        return True
    # Our own process id on our own host: a container was restarted and the predecessor is gone.
    return node.pid != os.getpid() and _runs(node.pid)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def heartbeat(
    node: Node, listen: Sequence[str] | None = None, load: Mapping[str, object] | None = None, notice: str = "",
) -> bool:
    """Say that the worker lives, and how loaded it is.

    False when another instance has taken the name, and this one must stop.
    """
    values: dict[str, object] = {"heartbeat_time": timezone.now(), "notice": fit(Node, "notice", notice)}
    if listen is not None:
        values["listen"] = list(listen)
    if load is not None:
        values["load"] = dict(load)
    return bool(Node.objects.filter(pk=node.pk, instance=node.instance).update(**values))


def stopped(node: Node) -> None:
    """Note an orderly stop.  Bindings stay at the registrars, and registrations stay with their owner."""
    now = timezone.now()
    Node.objects.filter(pk=node.pk, instance=node.instance).update(heartbeat_time=now, stopped_time=now)


def owned(node: Node) -> dict[str, int]:
    """Return the fencing number of each registration that the worker owns, by `l_uuid`."""
    rows: Iterable[tuple[Any, int]] = Registration.objects.filter(owner=node).values_list("account_id", "fence")
    return dict(rows)
