"""The change log: a line for each row that was written, in the transaction of the change itself."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connection, transaction

from trunkmgr import selectors
from trunkmgr.models import Change
from trunkmgr.services import wake


def log(table: str, keys: str | Iterable[str], who: str = "") -> None:
    """Note that the rows `keys` of `table` were written or deleted, and wake the workers after commit."""
    names = [keys] if isinstance(keys, str) else list(keys)
    Change.objects.bulk_create([Change(table=table, key=key, who=who[:150]) for key in names], batch_size=500)
    # Once a transaction is enough, however many rows it writes.
    if names and not any(entry[1] is _wake_all for entry in connection.run_on_commit):
        transaction.on_commit(_wake_all)


def _wake_all() -> None:
    # Every worker holds the whole account table, because an inbound call may arrive at any of them.
    wake.wake(selectors.live_nodes().values_list("name", flat=True))
