"""Mirrors the accounts of a foreign Kamailio database into our own table, from where everything else reads them.

So a dead foreign database keeps the last picture, also over a restart, and nobody but this knows of two databases.
Kamailio writes no change log: the whole table is compared each time, by a keyed digest of each row that our options
keep.  Accounts of ours stay ours; a foreign row that has the `l_uuid` of one is refused.
"""

from __future__ import annotations

import logging
from hashlib import blake2b

from django.conf import settings
from django.db import transaction

from trunkmgr.models import Change, Registration, UacReg, UacRegOptions
from trunkmgr.models.uacreg import FLAG_DISABLED
from trunkmgr.services import accounts, changes, departures, foreign

log = logging.getLogger("trunkmgr.foreign")

WHO = "UAC_REG_DB_URL"
#: Rows a transaction, to stay under 50 ms.
CHUNK = 100

_UPDATED = [column for column in foreign.COLUMNS if column != "l_uuid"]


class Mirror:
    """Follows the foreign table; one a worker."""

    def __init__(self) -> None:
        self._missing: set[str] = set()
        self._told: dict[str, str] = {}

    def look(self) -> str:
        """Take over what differs; return in words what cannot be taken, empty when all is well.

        Raises ForeignDatabaseError where the table cannot be read; then nothing has changed.
        """
        table = foreign.read()
        digests = {l_uuid: digest(row) for l_uuid, row in table.rows.items()}
        mirrored = UacRegOptions.objects.exclude(mirror="").values_list("account_id", "mirror")
        known = {str(l_uuid): value for l_uuid, value in mirrored}
        there = set(UacReg.objects.values_list("l_uuid", flat=True))
        for l_uuid in digests.keys() & there - known.keys():
            table.refused[l_uuid] = "an account of our own has this l_uuid"
        differing = [
            l_uuid for l_uuid, value in digests.items()
            if l_uuid not in table.refused and (known.get(l_uuid) != value or l_uuid not in there)
        ]
        for start in range(0, len(differing), CHUNK):
            _store({l_uuid: (table.rows[l_uuid], digests[l_uuid]) for l_uuid in differing[start:start + CHUNK]})
        # A row that cannot be used is no row that is gone, and who rebuilds the table may be half-way through it.
        gone = (known.keys() & there) - table.rows.keys() - table.refused.keys()
        for l_uuid in sorted(gone & self._missing):
            _remove(l_uuid)
        self._missing = gone
        return self._tell(table.refused)

    def _tell(self, refused: dict[str, str]) -> str:
        for l_uuid, cause in refused.items():
            if self._told.get(l_uuid) != cause:
                log.error("The row %r of UAC_REG_DB_URL cannot be used: %s.", l_uuid, cause)
        self._told = refused
        if not refused:
            return ""
        l_uuid, cause = next(iter(refused.items()))
        rest = f", and {len(refused) - 1:,} more (the log names them)" if len(refused) > 1 else ""
        return f"The row {l_uuid!r} of UAC_REG_DB_URL cannot be used: {cause}{rest}."


def digest(row: foreign.Row) -> str:
    """Tell rows apart.  Keyed: whoever reads our database must not be able to try passwords against it."""
    key = str(settings.FIELD_KEYS[0]).encode()[:64]
    return blake2b(repr(row).encode(), key=key, digest_size=16).hexdigest()


def _store(rows: dict[str, tuple[foreign.Row, str]]) -> None:
    found = []
    for row, _ in rows.values():
        values: dict[str, str | int] = dict(zip(foreign.COLUMNS, row, strict=True))
        # Of the seed's flags only this bit is an operator's; the others are moments of a running Kamailio.
        values["flags"] = int(values["flags"]) & FLAG_DISABLED
        found.append(UacReg(**values))
    with transaction.atomic(), departures.kept(rows):
        UacReg.objects.bulk_create(found, update_conflicts=True, unique_fields=["l_uuid"], update_fields=_UPDATED)
        UacRegOptions.objects.bulk_create(
            [UacRegOptions(account_id=l_uuid, mirror=value) for l_uuid, (_, value) in rows.items()],
            update_conflicts=True, unique_fields=["account"], update_fields=["mirror"],
        )
        accounts.add_registrations(list(rows))
        changes.log(Change.Table.UACREG, rows, WHO)


def _remove(l_uuid: str) -> None:
    """Take an account out whose row is gone; our options stay, because who rebuilds the table brings it back."""
    with transaction.atomic(), departures.kept([l_uuid]):
        options = UacRegOptions.objects.get(account__l_uuid=l_uuid)
        Registration.objects.filter(account__l_uuid=l_uuid).delete()
        UacReg.objects.filter(l_uuid=l_uuid).delete()
        options.mirror = ""
        options.save(force_insert=True)
        changes.log(Change.Table.UACREG, l_uuid, WHO)
