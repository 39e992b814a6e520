"""Writes what devices have registered, behind the worker that answered them; reads it back; takes it away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone

from trunkmgr.models import Change, Location
from trunkmgr.services import changes
from trunkmgr.services.text import fit

_COLUMNS = (
    "username", "domain", "contact", "received", "path", "expires", "q", "callid", "cseq", "last_modified",
    "user_agent", "instance", "reg_id",
)


def record(node: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the newest state of some bindings: `ruid` and the columns of Location, times aware."""
    Location.objects.bulk_create(
        [
            Location(ruid=row["ruid"], node=node, **{name: fit(Location, name, row[name]) for name in _COLUMNS})
            for row in rows
        ],
        update_conflicts=True, unique_fields=["ruid"], update_fields=["node", *_COLUMNS],
    )


def forget(ruids: Iterable[str]) -> None:
    """Delete bindings that ended."""
    Location.objects.filter(ruid__in=list(ruids)).delete()


def forget_expired() -> int:
    """Delete what ran out, also of workers that do not come back."""
    return Location.objects.filter(expires__lte=timezone.now()).delete()[0]


def standing() -> list[Location]:
    """Return what counts."""
    forget_expired()
    return list(Location.objects.order_by("last_modified"))


def remove(ruids: Iterable[str], who: str = "") -> int:
    """Take bindings away, as an operator; return how many there were.  The device may register again."""
    with transaction.atomic():
        found = sorted(Location.objects.filter(ruid__in=list(ruids)).values_list("ruid", flat=True))
        Location.objects.filter(ruid__in=found).delete()
        changes.log(Change.Table.LOCATION, found, who)
    return len(found)
