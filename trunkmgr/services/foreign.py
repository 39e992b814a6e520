"""Reads, and only where it is allowed writes, the table `uacreg` of a Kamailio database that is not ours.

Takes table versions 5 and 6 (the latter has `contact_user`).  Secrets stand there in clear text: Kamailio reads nothing
else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import DatabaseError, connections

from trunkmgr.exceptions import ForeignDatabaseError
from trunkmgr.foreign import ALIAS
from trunkmgr.models import UacReg
from trunkmgr.models.kamailio import KamailioUacReg, KamailioVersion

log = logging.getLogger("trunkmgr.foreign")

#: The seed's columns in its loader's order; the last came with version 6.
COLUMNS = (
    "l_uuid", "l_username", "l_domain", "r_username", "r_domain", "realm", "auth_username", "auth_password", "auth_ha1",
    "auth_proxy", "expires", "flags", "reg_delay", "contact_addr", "socket", "contact_user",
)
SECRETS = frozenset({"auth_password", "auth_ha1"})
NUMBERS = frozenset({"expires", "flags", "reg_delay"})
VERSIONS = (5, 6)
#: Rows fetched at once.
CHUNK = 500

Row = tuple[str | int, ...]


@dataclass(slots=True)
class Table:
    """What was read."""

    rows: dict[str, Row] = field(default_factory=dict)
    """By l_uuid, in the order of COLUMNS."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why a row cannot be used, by its l_uuid."""


def is_set() -> bool:
    return bool(settings.TRUNKMGR.reg_db_url)


def may_write() -> bool:
    return is_set() and bool(settings.TRUNKMGR.reg_db_write)


def read() -> Table:
    """Read the whole table.  Raises ForeignDatabaseError with cause and cure."""
    table = Table()
    with _answering():
        for row in KamailioUacReg.objects.values_list(*_columns()).iterator(CHUNK):
            _take(table, row)
    return table


def is_foreign(account: UacReg) -> bool:
    """Whether the account is another database's; without UAC_REG_DB_URL what was mirrored last is ours."""
    return is_set() and bool(account.pk) and bool(account.get_options().mirror)


def save(account: UacReg, stored: UacReg) -> None:
    """Have an edit of a foreign account take effect there.  Raises ValidationError where that cannot be."""
    values = {name: _clear(account, name) for name in COLUMNS if _differs(account, stored, name)}
    if not may_write() and values.keys() <= {"flags"}:
        # As the seed does it: switched off or on here only, until the row there changes.
        return
    if values:
        refuse_unless_writable(account.l_uuid)
        account.full_clean()
        if SECRETS & values.keys():
            log.warning("A secret of %s goes in clear text to UAC_REG_DB_URL.", account.l_uuid)
        with _told():
            KamailioUacReg.objects.filter(pk=account.l_uuid).update(**values)


def remove(l_uuid: str) -> None:
    """Delete a foreign account there.  Raises ValidationError where that cannot be."""
    refuse_unless_writable(l_uuid)
    with _told():
        KamailioUacReg.objects.filter(pk=l_uuid).delete()


def refuse_unless_writable(l_uuid: str) -> None:
    if not may_write():
        raise ValidationError(
            f"{l_uuid} stands in the database of UAC_REG_DB_URL, which is only read here. Change it there, "
            "or set UAC_REG_DB_WRITE=1 (passwords are then written there in clear text)."
        )


@contextmanager
def _told() -> Iterator[None]:
    try:
        with _answering():
            yield
    except ForeignDatabaseError as error:
        raise ValidationError(str(error)) from None


def _differs(account: UacReg, stored: UacReg, name: str) -> bool:
    new, old = getattr(account, name), getattr(stored, name)
    return bool(new.sealed() != old.sealed() if name in SECRETS else new != old)


def _clear(account: UacReg, name: str) -> str | int:
    value = getattr(account, name)
    clear: str | int = value.reveal() if name in SECRETS else value
    return clear


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except DatabaseError as error:
        connections[ALIAS].close()
        cause = " ".join(str(error).split()).rstrip(".")
        raise ForeignDatabaseError(f"The database of UAC_REG_DB_URL does not answer as it should: {cause}.") from None


def _columns() -> tuple[str, ...]:
    """Check the table, and return the columns to read."""
    name, connection = KamailioUacReg._meta.db_table, connections[ALIAS]
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        if name not in tables:
            raise ForeignDatabaseError(
                f"The database of UAC_REG_DB_URL has no table {name}. Make it with kamdbctl, or set UAC_REG_DB_TABLE."
            )
        there = {column.name for column in connection.introspection.get_table_description(cursor, name)}
    if KamailioVersion._meta.db_table in tables:
        version = KamailioVersion.objects.filter(pk=name).values_list("table_version", flat=True).first()
        if version is not None and version not in VERSIONS:
            raise ForeignDatabaseError(_version(name, f"is version {version}"))
    if missing := [column for column in COLUMNS[:-1] if column not in there]:
        raise ForeignDatabaseError(_version(name, f"lacks {', '.join(missing)}"))
    return COLUMNS if COLUMNS[-1] in there else COLUMNS[:-1]


def _version(name: str, what: str) -> str:
    return (
        f"The table {name} of UAC_REG_DB_URL {what}; versions 5 and 6 are read (Kamailio 5.5 and newer). "
        "Upgrade it, or bring the accounts in with `manage.py uacreg import`."
    )


def _take(table: Table, row: tuple[Any, ...]) -> None:
    l_uuid = _text(row[0])
    values: list[str | int] = []
    for column, limit, value in zip(COLUMNS, _LIMITS, (*row, ""), strict=False):
        if column in NUMBERS:
            try:
                number = int(value or 0)
            except (TypeError, ValueError):
                table.refused[l_uuid] = f"{column} is no number"
                return
            if not 0 <= number < 2**31:
                table.refused[l_uuid] = f"{column} is below 0 or too large"
                return
            values.append(number)
            continue
        text = value if isinstance(value, str) else _text(value)
        if len(text) > limit or "\0" in text:
            table.refused[l_uuid] = f"{column} is longer than {limit} characters or holds a NUL"
            return
        values.append(text)
    if l_uuid:
        table.rows[l_uuid] = tuple(values)
    else:
        table.refused[l_uuid] = "l_uuid is empty, accounts are known by it"


def _text(value: Any) -> str:
    return "" if value is None else value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


#: What our own columns hold; a secret may be as long as the forms take it.
_LIMITS = tuple(getattr(UacReg._meta.get_field(column), "max_length", None) or 128 for column in COLUMNS)
