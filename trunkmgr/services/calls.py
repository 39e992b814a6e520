"""Writes call records in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone

from trunkmgr.models import Call
from trunkmgr.services.text import fit

#: Rows a transaction, to stay under 50 ms.
CHUNK = 100

_COLUMNS = (
    "call_id", "l_uuid", "direction", "caller", "callee", "anonymous", "started_time", "answered_time", "ended_time",
    "code", "reason",
)


def record(node: str, changes: Sequence[Mapping[str, Any]]) -> int:
    """Write what `node` saw of calls: each change holds `key` and any columns of Call; return how many were written.

    Changes of one call are laid over each other and over what is stored. One whose start was never told
    is left out: it would be a record without caller and callee.
    """
    laid: dict[str, dict[str, Any]] = {}
    for change in changes:
        laid.setdefault(change["key"], {}).update(change)
    keys = list(laid)
    return sum(_record(node, {key: laid[key] for key in keys[at:at + CHUNK]}) for at in range(0, len(keys), CHUNK))


def _record(node: str, changes: Mapping[str, Mapping[str, Any]]) -> int:
    with transaction.atomic():
        stored = Call.objects.in_bulk(list(changes), field_name="key")
        rows = []
        for key, change in changes.items():
            call = stored.get(key) or Call(key=key)
            for name in _COLUMNS:
                if name in change:
                    setattr(call, name, fit(Call, name, change[name]))
            call.node = node
            # The key decides what is written over, not the id, which a new call does not have yet.
            call.pk = None
            if call.started_time is not None:
                rows.append(call)
        Call.objects.bulk_create(
            rows, update_conflicts=True, unique_fields=["key"], update_fields=[*_COLUMNS, "node"],
        )
    return len(rows)


def end_orphans(node: str) -> int:
    """End the calls that a stopped worker left open: nobody will tell their end any more."""
    return Call.objects.filter(node=node, ended_time=None).update(
        ended_time=timezone.now(), reason="The worker was restarted",
    )
