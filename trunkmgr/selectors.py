"""Reads what spans several tables, in a fixed number of queries whatever their size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import F, QuerySet
from django.utils import timezone

from trunkmgr.models import (
    Call,
    Change,
    Domain,
    Node,
    Parameter,
    Provider,
    Registration,
    RegistrationEvent,
    UacReg,
)
from trunkmgr.models.registration import State, Trigger
from trunkmgr.models.uacreg import FLAG_DISABLED

#: A worker beats every few seconds; after so long without one it is not counted on.
LIVE = timedelta(seconds=15)

_SECRETS = ("auth_password", "auth_ha1")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a worker routes and registers by."""

    accounts: list[UacReg]
    """With options and provider loaded (`account.get_options()`)."""
    providers: list[Provider]
    domains: list[Domain]


def load_snapshot(l_uuids: Iterable[str] | None = None) -> Snapshot:
    """Read the whole picture in three queries; `l_uuids` limits the accounts to some."""
    accounts = UacReg.objects.select_related("options__provider")
    if l_uuids is not None:
        accounts = accounts.filter(l_uuid__in=list(l_uuids))
    return Snapshot(list(accounts), list(Provider.objects.all()), list(Domain.objects.all()))


def accounts() -> QuerySet[UacReg]:
    """Accounts with options, provider, registration and owner in one query; secrets stay sealed until revealed."""
    return UacReg.objects.select_related("options__provider", "registration__owner")


def changes_since(last_id: int) -> list[Change]:
    """Return the lines of the change log after `last_id`.  Ids may commit out of order: read with an overlap."""
    return list(Change.objects.filter(pk__gt=last_id).order_by("pk"))


def reg_active() -> bool:
    """Whether registrations are sent: what an operator said last, else what the environment says."""
    said = Parameter.objects.filter(name=Parameter.Name.REG_ACTIVE).values_list("value", flat=True).first()
    return bool(settings.TRUNKMGR.reg_active) if said is None else said == "1"


def notices() -> list[str]:
    """What an operator must not forget, one sentence each."""
    told = list(live_nodes().exclude(notice="").values_list("notice", flat=True).distinct().order_by("notice"))
    if reg_active():
        return told
    row = Parameter.objects.filter(name=Parameter.Name.REG_ACTIVE).first()
    since = f" since {timezone.localtime(row.time):%-d %b %Y %H:%M}" if row else " (UAC_REG_ACTIVE=0)"
    who = f" by {row.who}" if row and row.who else ""
    return [
        f"Registrations are stopped{since}{who}: nothing is renewed, bindings run out. "
        "Start them again with: manage.py uac reg_active 1",
        *told,
    ]


def live_nodes() -> QuerySet[Node]:
    """Workers that beat lately and were not stopped, the first known first."""
    return Node.objects.filter(stopped_time=None, heartbeat_time__gte=timezone.now() - LIVE).order_by("pk")


def is_live(node: Node) -> bool:
    return (
        node.stopped_time is None and node.heartbeat_time is not None
        and node.heartbeat_time >= timezone.now() - LIVE
    )


def owners(l_uuids: Iterable[str]) -> dict[str, Node]:
    """Return the owning worker of each account that has one."""
    rows = Registration.objects.filter(account_id__in=list(l_uuids), owner__isnull=False).select_related("owner")
    return {row.account_id: row.owner for row in rows if row.owner is not None}


def registrations_due(until: datetime) -> list[tuple[str, str, int, datetime]]:
    """Return ``(node, l_uuid, generation, next attempt)`` of enabled accounts due by `until`, whose worker lives."""
    due = (
        Registration.objects
        .annotate(disabled=F("account__flags").bitand(FLAG_DISABLED))
        .filter(
            disabled=0, account__expires__gt=0, next_attempt_time__lte=until,
            state__in=[State.REGISTERED, State.FAILING, State.REFUSED],
            owner__stopped_time=None, owner__heartbeat_time__gte=timezone.now() - LIVE,
        )
        .order_by("next_attempt_time")
        .values_list("owner__name", "account_id", "generation", "next_attempt_time")
    )
    return [(node, str(l_uuid), generation, moment) for node, l_uuid, generation, moment in due if moment is not None]


def _trunks() -> QuerySet[Registration]:
    return (
        Registration.objects.select_related("account__options__provider", "owner")
        .defer(*(f"account__{name}" for name in _SECRETS))
    )


def board_rows(l_uuids: Iterable[str] | None = None) -> list[Registration]:
    """Return registrations with account, options, provider and owner in one query, without secrets."""
    rows = _trunks().order_by("account_id")
    return list(rows if l_uuids is None else rows.filter(account_id__in=list(l_uuids)))


def trunk(l_uuid: str) -> Registration | None:
    """Return one row of the board."""
    return _trunks().filter(account__l_uuid=l_uuid).first()


def timeline(l_uuid: str, since: datetime, limit: int = 1000) -> list[RegistrationEvent]:
    """Return what happened since, the newest first."""
    return list(RegistrationEvent.objects.filter(l_uuid=l_uuid, time__gte=since)[:limit])


def history(l_uuid: str, since: datetime, limit: int) -> list[RegistrationEvent]:
    """Return how the registration went, the oldest first: the last event before `since`, and those after it.

    What OPTIONS told of the server is none of them: no state of the registration begins there.
    """
    events = RegistrationEvent.objects.filter(l_uuid=l_uuid).exclude(trigger=Trigger.OPTIONS)
    found = list(events.filter(time__gte=since)[:limit])[::-1]
    before = events.filter(time__lt=since).first() if len(found) < limit else None
    return [before, *found] if before else found


def calls_going_on() -> list[Call]:
    """Return the calls that have not ended, the newest first."""
    return list(Call.objects.filter(ended_time=None))


def calls_ended(limit: int) -> list[Call]:
    """Return the calls that ended last, the newest first."""
    return list(Call.objects.exclude(ended_time=None).order_by("-ended_time")[:limit])
