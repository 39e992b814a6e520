"""Writes what it takes to take back a binding whose account is deleted or names another one by now.

Whether a worker runs or not: one that does un-REGISTERs at once and strikes the row out, else the next one finds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from django.utils import timezone

from trunkmgr.models import Departure, Node, Registration, UacReg
from trunkmgr.models.registration import State

#: Rows a query.
CHUNK = 500

#: Columns that a binding has its name from; with proxy, socket, instance and `gin` (`UacAccount.same_binding`).
NAMES = ("r_username", "r_domain", "contact_user", "contact_addr")
_COLUMNS = (*NAMES, "l_uuid", "realm", "auth_username", "auth_password", "auth_ha1")
_BINDING = ("call_id", "owner", "from_tag", "cseq", "contact", "bound_until_time")


@contextmanager
def kept(l_uuids: Iterable[str]) -> Iterator[None]:
    """Keep the bindings of these accounts that the block's writes leave behind; in the transaction of those writes."""
    names = list(l_uuids)
    before = [row for start in range(0, len(names), CHUNK) for row in _standing(names[start:start + CHUNK])]
    yield
    for start in range(0, len(before), CHUNK):
        _keep(before[start:start + CHUNK])


def _standing(l_uuids: Sequence[str]) -> list[UacReg]:
    rows = UacReg.objects.filter(l_uuid__in=l_uuids, registration__bound_until_time__gt=timezone.now())
    return list(rows.exclude(registration__call_id="").select_related("registration", "options__provider"))


def _keep(before: Sequence[UacReg]) -> None:
    """Write a row for each of these accounts that has another binding now, or none."""
    rows = UacReg.objects.filter(l_uuid__in=[row.l_uuid for row in before]).select_related("options__provider")
    now = {row.l_uuid: _named(row) for row in rows}
    left = [row for row in before if now.get(row.l_uuid) != _named(row)]
    if not left:
        return
    # Of two edits at once both may find the same binding.
    Departure.objects.bulk_create([_departure(row) for row in left], ignore_conflicts=True)
    # What the account is bound to from now on is not known yet; its numbers and its owner stay.
    Registration.objects.filter(account__in=[row.l_uuid for row in left]).update(
        call_id="", cseq=0, from_tag="", contact="", bound_until_time=None, next_attempt_time=None, granted=None,
        failures=0, target="", digest="", service_route="", path="", associated_uris="", local_address="",
        seen_address="", stale="",
        state=State.UNREGISTERED, state_time=timezone.now(),
    )


def _named(row: UacReg) -> tuple[object, ...]:
    options = row.get_options()
    return _proxy(row), _socket(row), options.gin, options.named_instance, *(getattr(row, name) for name in NAMES)


def _proxy(row: UacReg) -> str:
    """Where REGISTER goes, if not to `r_domain`."""
    provider = row.get_options().provider
    return row.auth_proxy or (provider.proxy if provider else "")


def _socket(row: UacReg) -> str:
    """What REGISTER leaves from."""
    provider = row.get_options().provider
    return row.socket or (provider.socket if provider else "")


def _departure(row: UacReg) -> Departure:
    registration, digest = row.registration, row.registration.digest
    return Departure(
        **{name: getattr(row, name) for name in _COLUMNS}, **{name: getattr(registration, name) for name in _BINDING},
        auth_proxy=_proxy(row), socket=_socket(row), instance=row.get_options().named_instance,
        # What the provider took once is not undercut by whoever answers in its place (RFC 7616 §5.8).
        digest_minimum=row.get_options().digest_minimum or (digest if digest != "MD5" else ""),
    )


def of_node(node: Node) -> list[Departure]:
    """Return the bindings that this worker has to take back, the oldest first."""
    forget_expired()
    return list(Departure.objects.filter(owner=node).order_by("pk"))


def forget(call_ids: Iterable[str]) -> None:
    """Delete what was taken back."""
    Departure.objects.filter(call_id__in=list(call_ids)).delete()


def forget_expired() -> int:
    """Delete what lapsed, also of workers that do not come back."""
    return Departure.objects.filter(bound_until_time__lte=timezone.now()).delete()[0]
