"""What the tables say since the last look: the change log, the rows it names, and now and then everything.

Runs in the worker's database thread.  A look that fails has changed nothing and is repeated.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Max, Q
from django.utils import timezone

from sipengine.registrar.registrar import Device
from trunkmgr import models, selectors
from trunkmgr.models import Change, Credential, Domain, Location, Provider, UacReg
from trunkmgr.sip.snapshot import (
    Pbx,
    Peers,
    Scoped,
    Snapshot,
    Trunk,
    configured_credentials,
    credential_of,
    device_of,
    pbx_of,
    provider_of,
    trunk_of,
)

log = logging.getLogger("trunkmgr.sip")

#: No transaction of ours lasts longer, so a line with a lower id shows up within this time (PostgreSQL gives ids out at
#: the INSERT, and they become visible at the COMMIT).
OVERLAP = timedelta(seconds=60)

#: Parameters of one query; SQLite takes 32,766, older ones 999.
ROWS_PER_QUERY = 500


@dataclass(slots=True)
class Patch:
    """New rows for a snapshot; None where a row is gone."""

    trunks: dict[str, Trunk | None] = field(default_factory=dict)
    domains: dict[str, Pbx | None] = field(default_factory=dict)
    providers: dict[int, Peers | None] = field(default_factory=dict)
    credentials: dict[int, Scoped | None] = field(default_factory=dict)
    reg_active: bool | None = None
    """None where it did not change."""
    devices: dict[str, Device | None] = field(default_factory=dict)
    unbound: set[str] = field(default_factory=set)
    """`ruid` of bindings that an operator took away."""

    def keep_known(self, known: Mapping[str, Trunk]) -> None:
        """Leave accounts as we knew them whose secret no key opens by now: what registers goes on registering."""
        for l_uuid, trunk in list(self.trunks.items()):
            if trunk is not None and trunk.account.problem and l_uuid in known:
                del self.trunks[l_uuid]

    def __bool__(self) -> bool:
        rows = self.trunks or self.domains or self.providers or self.credentials or self.devices or self.unbound
        return bool(rows) or self.reg_active is not None


class ChangeLog:
    """Follows the table of changes by rising id, with an overlap, each line once.

    What `read` returns counts as known only after `done`: a look that failed half-way is repeated whole.
    """

    def __init__(self) -> None:
        self._floor = 0
        self._seen: dict[int, datetime] = {}

    def start(self) -> None:
        """Count what stands in the log as known; called before the first snapshot is read."""
        old = Change.objects.filter(time__lt=timezone.now() - OVERLAP).aggregate(last=Max("id"))
        self._floor = old["last"] or 0
        self._seen = dict(Change.objects.filter(id__gt=self._floor).values_list("id", "time"))

    def read(self) -> tuple[list[tuple[str, str]], dict[int, datetime]]:
        """Return (table, key) of the new lines, and the lines to pass to `done` once they are dealt with."""
        ids = Change.objects.filter(id__gt=self._floor)
        if ids.count() == len(self._seen):  # once a second, and after an import the overlap holds thousands of lines
            return [], {}
        lines = ids.order_by("id").values_list("id", "table", "key", "time")
        new = [line for line in lines if line[0] not in self._seen]
        return [(table, key) for _, table, key, _ in new], {line[0]: line[3] for line in new}

    def done(self, lines: Mapping[int, datetime]) -> None:
        """Mark lines as known, and forget those that the overlap no longer covers."""
        self._seen.update(lines)
        horizon = timezone.now() - OVERLAP
        past = [number for number, time in self._seen.items() if time < horizon]
        if past:
            self._floor = max(self._floor, *past)
            self._seen = {number: time for number, time in self._seen.items() if number > self._floor}


def read_rows(changed: Iterable[tuple[str, str]]) -> Patch:
    """Read the rows behind lines of the change log; an account is also read when its provider changed."""
    keys: dict[str, set[str]] = {table: set() for table in Change.Table.values}
    for table, key in changed:
        keys[table].add(key)
    patch = Patch()
    providers = {int(key) for key in keys[Change.Table.PROVIDER]}
    if providers:
        patch.providers.update(dict.fromkeys(providers))
        patch.providers.update({row.pk: provider_of(row) for row in Provider.objects.filter(pk__in=providers)})
    if keys[Change.Table.DOMAIN]:
        patch.domains.update(dict.fromkeys(name.lower() for name in keys[Change.Table.DOMAIN]))
        rows = Domain.objects.filter(l_domain__in=keys[Change.Table.DOMAIN])
        patch.domains.update({row.l_domain.lower(): pbx_of(row) for row in rows})
    if keys[Change.Table.CREDENTIAL]:
        numbers = {int(key) for key in keys[Change.Table.CREDENTIAL]}
        patch.credentials.update(dict.fromkeys(numbers))
        patch.credentials.update(read_credentials(Q(pk__in=numbers)))
    if keys[Change.Table.DEVICE]:
        patch.devices.update(dict.fromkeys(keys[Change.Table.DEVICE]))
        domains = {key.rpartition("@")[2] for key in keys[Change.Table.DEVICE]}
        rows_of = models.Device.objects.filter(domain__in=domains)
        patch.devices.update(read_devices(row for row in rows_of if row.aor in patch.devices))
    if keys[Change.Table.LOCATION]:
        gone = keys[Change.Table.LOCATION]
        patch.unbound = gone - set(Location.objects.filter(ruid__in=gone).values_list("ruid", flat=True))
    if keys[Change.Table.PARAMETER]:
        patch.reg_active = selectors.reg_active()
    l_uuids = sorted(keys[Change.Table.UACREG])
    patch.trunks.update(dict.fromkeys(l_uuids))
    starts = range(0, len(l_uuids), ROWS_PER_QUERY)
    conditions = [Q(l_uuid__in=l_uuids[start:start + ROWS_PER_QUERY]) for start in starts]
    if providers:
        conditions.append(Q(options__provider__in=providers))
    for condition in conditions:
        patch.trunks.update(read_trunks(condition))
    return patch


def read_trunks(condition: Q) -> dict[str, Trunk]:
    """Read accounts by l_uuid."""
    rows = UacReg.objects.filter(condition).select_related("options__provider")
    return {row.l_uuid: trunk_of(row) for row in rows}


def read_credentials(condition: Q) -> dict[int, Scoped]:
    """Read credentials by id, without those that no key of ours opens."""
    rows = ((row.pk, credential_of(row)) for row in Credential.objects.filter(condition))
    return {pk: scoped for pk, scoped in rows if scoped is not None}


def read_devices(rows: Iterable[models.Device]) -> dict[str, Device]:
    """Make devices of rows, by address-of-record, without those that may not register."""
    devices = (device_of(row) for row in rows)
    return {device.aor: device for device in devices if device is not None}


def read_snapshot() -> Snapshot:
    """Read everything; raise UndecryptableSecret when accounts hold secrets and our keys open none of them."""
    trunks = read_trunks(Q())
    unreadable = [trunk.account.l_uuid for trunk in trunks.values() if trunk.account.problem]
    if unreadable and not any(trunk.account.auth_password or trunk.account.auth_ha1 for trunk in trunks.values()):
        row = UacReg.objects.get(l_uuid=unreadable[0])
        row.auth_password.reveal()
        row.auth_ha1.reveal()
    return Snapshot(configured=configured_credentials(settings.TRUNKMGR.credentials)).patched(
        trunks=trunks,
        domains={row.l_domain.lower(): pbx_of(row) for row in Domain.objects.all()},
        providers={row.pk: provider_of(row) for row in Provider.objects.all()},
        credentials=read_credentials(Q()),
        reg_active=selectors.reg_active(),
        devices=read_devices(models.Device.objects.all()),
    )


def compare(old: Snapshot) -> Patch:
    """Read everything and return what differs from `old`: finds what bypassed the change log."""
    new = read_snapshot()
    patch = Patch(
        trunks=_difference(old.trunks, new.trunks),
        domains=_difference(old.domains, new.domains),
        providers=_difference(old.providers, new.providers),
        credentials=_difference(old.credentials, new.credentials),
        reg_active=None if old.reg_active == new.reg_active else new.reg_active,
        devices=_difference(old.devices, new.devices),
    )
    patch.keep_known(old.trunks)
    return patch


def _difference(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> dict[Any, Any]:
    changed = {key: value for key, value in new.items() if old.get(key) != value}
    return {**changed, **dict.fromkeys(key for key in old if key not in new)}
