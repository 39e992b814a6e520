"""Writes the registration table and its history, and plans the refreshes.

Only the owning worker writes live state, and each write names the fencing number it was given: one that lost its
ownership meanwhile changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Q
from django.utils import timezone

from trunkmgr import selectors
from trunkmgr.models import Departure, FurtherRegistration, Node, Registration, RegistrationEvent, UacReg
from trunkmgr.models.registration import State, Trigger
from trunkmgr.services import accounts
from trunkmgr.services.text import fit

#: Beat plans so many seconds beyond its next tick, because a tick may be late.
BEYOND = 5.0
#: Silence after which another worker may take the registrations over.
SILENT = timedelta(seconds=30)
#: Rows a transaction, to stay under 50 ms.
CHUNK = 100

_STATE_COLUMNS = (
    "state", "cause", "code", "reason", "trigger", "granted", "bound_until_time", "next_attempt_time", "generation",
    "failures", "call_id", "cseq", "from_tag", "contact", "target", "round_trip", "realm_seen",
    "service_route", "path", "associated_uris", "digest", "covered", "coverable", "counted_time",
    "local_address", "seen_address", "stale",
)
_REFRESH_TIMES = ("bound_until_time", "next_attempt_time", "counted_time")
_REFRESH_TEXTS = ("trigger", "reason", "call_id", "local_address", "seen_address")
_REFRESH_NUMBERS = ("granted", "generation", "cseq", "round_trip", "covered", "coverable")
_refresh_times, _refresh_numbers = itemgetter("time", *_REFRESH_TIMES), itemgetter(*_REFRESH_NUMBERS)
_FURTHER_COLUMNS = ("state", "cause", "code", "reason", "granted", "bound_until_time", "next_attempt_time")
_QUALIFY_COLUMNS = ("qualify_state", "qualify_round_trip", "qualify_time")
_EVENT_COLUMNS = (
    "state", "trigger", "cause", "code", "reason", "granted", "round_trip", "target", "who", "lapsed_time", "covered",
    "coverable",
)


def plan_refreshes(now: datetime | None = None) -> dict[str, list[list[Any]]]:
    """Return what falls due before the next tick: by worker, ``[l_uuid, generation, ISO time]`` each."""
    until = (now or timezone.now()) + timedelta(seconds=settings.TRUNKMGR.reg_timer_interval + BEYOND)
    plans: dict[str, list[list[Any]]] = {}
    for node, l_uuid, generation, moment in selectors.registrations_due(until):
        plans.setdefault(node, []).append([l_uuid, generation, moment.isoformat()])
    return plans


def record(node: str, changes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write what the worker `node` saw; return the `l_uuid`s that it does not own (any more).

    Each change holds `l_uuid`, `fence`, `time` (aware) and columns of Registration, times as aware datetimes; and
    where they apply `news` (append to the history) and `who`. Those of one account apply in order.
    """
    refused: list[str] = []
    for start in range(0, len(changes), CHUNK):
        refused += _record(node, changes[start:start + CHUNK])
    return refused


def _record(node: str, changes: Sequence[Mapping[str, Any]]) -> list[str]:
    refused: dict[str, None] = {}
    events: list[RegistrationEvent] = []
    with transaction.atomic():
        rows = _owned(node, changes)
        touched: dict[str, Registration] = {}
        for change in changes:
            l_uuid = change["l_uuid"]
            row = rows.get(l_uuid)
            if row is None or row.fence != change["fence"]:
                refused[l_uuid] = None
                continue
            if row.state != change.get("state", row.state) or row.state_time is None:
                row.state_time = change["time"]
            for name in _STATE_COLUMNS:
                if name in change:
                    setattr(row, name, fit(Registration, name, change[name]))
            touched[l_uuid] = row
            if change.get("news"):
                events.append(_event(node, row, change))
        _upsert(touched, (*_STATE_COLUMNS, "state_time"))
        RegistrationEvent.objects.bulk_create(events)
    return list(refused)


def record_refreshes(node: str, changes: Sequence[Mapping[str, Any]]) -> int:
    """Write refreshes of the worker `node` that found all as it was; return how many rows it still owns.

    Each change holds `l_uuid`, `fence`, `time` (aware) and the columns that such a refresh moves.
    """
    # By hand: the models cost three hundred times the row's own work, and this is what runs all day.
    adapt = connection.ops.adapt_datetimefield_value
    rows = []
    for change in changes:
        # Connections speak UTC; to take an aware time for one of theirs costs Django more than the rest of it.
        times = [value and adapt(value.replace(tzinfo=None)) for value in _refresh_times(change)]
        texts = [fit(Registration, name, change[name]) for name in _REFRESH_TEXTS]
        rows.append((*times, *texts, *_refresh_numbers(change), change["l_uuid"], change["fence"], node))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.executemany(_refresh_statement(), rows)
        return cursor.rowcount


@lru_cache
def _refresh_statement() -> str:
    names = (*_REFRESH_TIMES, *_REFRESH_TEXTS, *_REFRESH_NUMBERS)
    changed = ", ".join(f'"{name}" = %s' for name in names)
    since = f"""CASE WHEN "state" = '{State.REGISTERED.value}' THEN "state_time" ELSE %s END"""
    return (
        f'UPDATE {Registration._meta.db_table} SET "state_time" = {since}, '  # noqa: S608 - our own columns
        f""""state" = '{State.REGISTERED.value}', {changed} WHERE "l_uuid" = %s AND "fence" = %s """
        f'AND "owner_id" = (SELECT "id" FROM {Node._meta.db_table} WHERE "name" = %s)'
    )


def record_further(changes: Sequence[Mapping[str, Any]]) -> None:
    """Write what became of bindings at further registrars: `l_uuid`, `registrar`, `gone` and the columns each."""
    rows = [
        FurtherRegistration(
            account_id=change["l_uuid"],
            **{name: fit(FurtherRegistration, name, change[name]) for name in ("registrar", *_FURTHER_COLUMNS)},
        )
        for change in changes if not change["gone"]
    ]
    with transaction.atomic():
        for change in changes:
            if change["gone"]:
                FurtherRegistration.objects.filter(account=change["l_uuid"], registrar=change["registrar"]).delete()
        FurtherRegistration.objects.bulk_create(
            rows, update_conflicts=True, unique_fields=["account", "registrar"], update_fields=list(_FURTHER_COLUMNS),
        )


def record_qualify(node: str, changes: Sequence[Mapping[str, Any]]) -> None:
    """Write what OPTIONS told the worker `node` of its accounts' servers, in order.

    Each change holds `l_uuid`, `fence`, `time` and `qualify_time` (aware), `qualify_state`, `qualify_round_trip`, and
    columns of the history row that it makes where it has a `cause`.
    """
    for start in range(0, len(changes), CHUNK):
        chunk = changes[start:start + CHUNK]
        with transaction.atomic():
            rows = _owned(node, chunk)
            touched: dict[str, Registration] = {}
            events: list[RegistrationEvent] = []
            for change in chunk:
                row = rows.get(change["l_uuid"])
                if row is None or row.fence != change["fence"]:
                    continue
                touched[row.account_id] = row
                for name in _QUALIFY_COLUMNS:
                    setattr(row, name, change[name])
                if change["cause"]:
                    events.append(_event(node, row, change, trigger=Trigger.OPTIONS))
            _upsert(touched, _QUALIFY_COLUMNS)
            RegistrationEvent.objects.bulk_create(events)


def _owned(node: str, changes: Sequence[Mapping[str, Any]]) -> dict[str, Registration]:
    """Lock the rows of `changes` that belong to the worker `node`."""
    names = {change["l_uuid"] for change in changes}
    rows = Registration.objects.select_for_update(of=("self",)).filter(owner__name=node, account_id__in=names)
    return {row.account_id: row for row in rows}


def _event(node: str, row: Registration, change: Mapping[str, Any], **values: Any) -> RegistrationEvent:
    event = RegistrationEvent(l_uuid=row.account_id, time=change["time"], node=node, state=row.state, **values)
    for name in _EVENT_COLUMNS:
        if name in change:
            setattr(event, name, fit(RegistrationEvent, name, change[name]))
    return event


def _upsert(rows: Mapping[str, Registration], columns: Sequence[str]) -> None:
    # An upsert of rows that this transaction has locked; bulk_update would write a CASE a column, ten times slower.
    Registration.objects.bulk_create(
        rows.values(), update_conflicts=True, unique_fields=["account"], update_fields=columns,
    )


def claim_ownership(node: str) -> dict[str, int]:
    """Take over registrations without an owner, or whose owner is silent for 30 s; return fence by `l_uuid`.

    Compare-and-set: of two workers that claim at once, one gets each row. Accounts that somebody else put into the
    table (Kamailio's tools, SQL) get their registration row first.  What left the table is taken over too.
    """
    accounts.add_registrations(list(
        UacReg.objects.filter(registration=None).exclude(l_uuid="").values_list("l_uuid", flat=True)
    ))
    now = timezone.now()
    claimant = Node.objects.get(name=node)
    silent = Node.objects.exclude(pk=claimant.pk).filter(
        Q(heartbeat_time=None) | Q(heartbeat_time__lt=now - SILENT)
    ).values_list("pk", flat=True)
    free = Q(owner=None) | Q(owner__in=list(silent))
    Departure.objects.filter(free).update(owner=claimant)
    names = list(Registration.objects.filter(free).values_list("account_id", flat=True))
    claimed: dict[str, int] = {}
    for start in range(0, len(names), CHUNK):
        chunk = names[start:start + CHUNK]
        with transaction.atomic():
            Registration.objects.filter(free, account_id__in=chunk).update(owner=claimant, fence=F("fence") + 1)
            mine = Registration.objects.filter(owner=claimant, account_id__in=chunk).only("account_id", "fence")
            claimed |= {row.account_id: row.fence for row in mine}
    return claimed
