"""Writes what calls that are going on need after a restart; reads it back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.utils import timezone

from trunkmgr.models import Dialog
from trunkmgr.services.text import fit

_COLUMNS = ("call_id", "l_uuid", "state", "expires_time", "changed_time")


def record(node: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the newest state of some calls: `key` and the columns of Dialog, times aware."""
    Dialog.objects.bulk_create(
        [
            Dialog(key=row["key"], node=node, **{name: fit(Dialog, name, row[name]) for name in _COLUMNS})
            for row in rows
        ],
        update_conflicts=True, unique_fields=["key"], update_fields=["node", *_COLUMNS],
    )


def forget(keys: Iterable[str]) -> None:
    """Delete the state of calls that are over."""
    Dialog.objects.filter(key__in=list(keys)).delete()


def forget_expired() -> int:
    """Delete what nothing was heard of for too long, also of workers that do not come back."""
    return Dialog.objects.filter(expires_time__lte=timezone.now()).delete()[0]


def going_on(node: str) -> list[Dialog]:
    """Return the calls of this worker that may still go on."""
    forget_expired()
    return list(Dialog.objects.filter(node=node).order_by("changed_time"))
