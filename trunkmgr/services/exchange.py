"""Import and export of accounts: what a file would change, and changing it in one transaction.

Rows are known by `l_uuid`.  A column that the file lacks keeps what is stored, and so do two empty secret columns; a
row with one of the two secrets replaces both.  Accounts that the file lacks stay.  Only rows that differ are written
and logged.  All or nothing has its price: 10,000 rows hold SQLite's write lock for two seconds, far over the 50 ms
that other transactions keep; workers go on calling and registering meanwhile, and write their history after it.
An export holds no secret in clear text: none at all, or on request tokens that only this installation's keys open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import transaction
from django.db.models import QuerySet, TextChoices

from trunkmgr.exceptions import UndecryptableSecret
from trunkmgr.models import Change, Provider, UacReg, UacRegOptions
from trunkmgr.models.credential import Secret
from trunkmgr.models.uacreg import FLAG_DISABLED
from trunkmgr.services import accounts, changes, departures, foreign
from trunkmgr.services.exchange_file import (
    NUMBER_COLUMNS,
    OWN_COLUMNS,
    SECRET_COLUMNS,
    SEED_COLUMNS,
    FileRow,
    ImportRefused,
    Refusal,
    read_rows,
    write_csv,
    write_json,
)

#: Rows a statement; SQLite and PostgreSQL both take it in a few milliseconds.
_BATCH = 500
_NUMBER = re.compile(r"-?[0-9]{1,9}")
_OPEN_COLUMNS = tuple(column for column in SEED_COLUMNS if column not in SECRET_COLUMNS)

Progress = Callable[[int, int], None]


#: Columns of one word out of some, and the word that an empty one means.
_CHOICES: dict[str, TextChoices] = {
    "inbound_identity": UacRegOptions.InboundIdentity.KEEP,
    "inbound_from": UacRegOptions.InboundFrom.PROVIDER,
    "authentication": UacRegOptions.Authentication.PASSWORD,
}


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """One value that differs; of a secret only that it differs is said."""

    column: str
    old: str
    new: str

    def __str__(self) -> str:
        if self.column in SECRET_COLUMNS:
            return f"{self.column} changed"
        return f"{self.column} {self.old or '(empty)'} → {self.new or '(empty)'}"


@dataclass(frozen=True, slots=True)
class RowDiff:
    """What the import does, or would do, to one account."""

    line: int
    l_uuid: str
    verb: Literal["added", "changed", "unchanged"]
    changes: tuple[ColumnChange, ...]

    def __str__(self) -> str:
        if self.verb == "added":
            values = (f"{c.column} {'set' if c.column in SECRET_COLUMNS else c.new or '(empty)'}" for c in self.changes)
            return f"+ {self.l_uuid}: {', '.join(values)}"
        return f"{'~' if self.changes else '='} {self.l_uuid}: {', '.join(map(str, self.changes)) or 'unchanged'}"


@dataclass(slots=True)
class _Row:
    """A row of the file with the account as it will be stored."""

    diff: RowDiff
    account: UacReg
    options: UacRegOptions
    with_secrets: bool


def import_accounts(
    data: bytes | str, format: str | None = None, *, dry_run: bool = False, who: str = "",
    progress: Progress | None = None,
) -> list[RowDiff]:
    """Take a file's accounts over, all or none, and say what changed; a dry run writes nothing.

    `progress(done, total)` is called now and then.  Raises ImportRefused with every row that is wrong.
    """
    rows = read_rows(data, format)
    if dry_run:
        return [row.diff for row in _plan(rows, UacReg.objects.all(), progress)]
    with transaction.atomic():
        plan = _plan(rows, UacReg.objects.select_for_update(of=("self",)), progress)
        with departures.kept(row.diff.l_uuid for row in plan if row.diff.verb == "changed"):
            _write([row for row in plan if row.diff.verb != "unchanged"], who)
    return [row.diff for row in plan]


def export_accounts(format: str, *, with_encrypted_secrets: bool = False) -> Iterator[str]:
    """Yield the lines of a file with every account, in the order of `l_uuid`."""
    table = UacReg.objects.select_related("options__provider").order_by("l_uuid")
    if not with_encrypted_secrets:
        table = table.defer(*SECRET_COLUMNS)
    rows = (_values(account, with_encrypted_secrets) for account in table.iterator(_BATCH))
    return write_json(rows) if format == "json" else write_csv(rows)


def _values(account: UacReg, with_encrypted_secrets: bool) -> dict[str, str | int]:
    values: dict[str, str | int] = {column: getattr(account, column) for column in _OPEN_COLUMNS}
    for column in SECRET_COLUMNS:
        values[column] = _fresh(getattr(account, column)) if with_encrypted_secrets else ""
    return values | _own_values(account.get_options())


def _fresh(secret: Secret) -> str:
    """Seal anew: so a row in clear text leaves as a token too, and all under the newest key."""
    try:
        return Secret(secret.reveal()).sealed()
    except UndecryptableSecret:
        return secret.sealed()


def _own_values(options: UacRegOptions) -> dict[str, str]:
    return {
        "provider": options.provider.name if options.provider else "",
        "inbound_identity": str(options.inbound_identity),
        "inbound_from": str(options.inbound_from),
        "registrars": options.registrars,
        "at_once": "yes" if options.at_once else "no",
        "outbound_proxy": options.outbound_proxy,
        "digest_minimum": str(options.digest_minimum),
        "authentication": str(options.authentication),
        "numbers": options.numbers,
        "max_calls": str(options.max_calls),
        "max_rate": str(options.max_rate),
        "qualify": str(options.qualify),
        "outbound": "yes" if options.outbound else "no",
        "gin": "yes" if options.gin else "no",
        "note": options.note,
    }


def _providers() -> QuerySet[Provider]:
    return Provider.objects.select_related("profile").prefetch_related("profile__fields")


def _plan(rows: Sequence[FileRow], table: QuerySet[UacReg], progress: Progress | None) -> list[_Row]:
    refusals = _duplicates(rows)
    providers = {provider.name: provider for provider in _providers()}
    plan: list[_Row] = []
    for start in range(0, len(rows), _BATCH):
        batch = rows[start:start + _BATCH]
        stored = table.select_related("options__provider").in_bulk(
            {row.values["l_uuid"] for row in batch}, field_name="l_uuid",
        )
        for row in batch:
            try:
                plan.append(_plan_row(row, stored.get(row.values["l_uuid"]), providers))
            except ImportRefused as error:
                refusals += error.refusals
        if progress:
            progress(start + len(batch), len(rows))
    if refusals:
        raise ImportRefused(*sorted(refusals, key=lambda refusal: refusal.line or 0))
    return plan


def _duplicates(rows: Sequence[FileRow]) -> list[Refusal]:
    first: dict[str, int] = {}
    return [
        Refusal(row.line, "l_uuid", f"{row.values['l_uuid']} stands in line {line} too.")
        for row in rows if (line := first.setdefault(row.values["l_uuid"], row.line)) != row.line
    ]


def _plan_row(row: FileRow, stored: UacReg | None, providers: dict[str, Provider]) -> _Row:
    """Lay the row's values over the stored account.  Raises ImportRefused with all that is wrong with it."""
    account = stored or UacReg(l_uuid=row.values["l_uuid"])
    if foreign.is_foreign(account):
        cause = "It stands in the database of UAC_REG_DB_URL; change it there."
        raise ImportRefused(Refusal(row.line, "l_uuid", cause))
    options = account.get_options()
    before = _open_values(account, options)
    refusals: list[Refusal] = []
    for column, text in row.values.items():
        if column in SECRET_COLUMNS:
            continue
        try:
            if column == "provider":
                options.provider = _provider(text, providers)
            elif column in _CHOICES:
                setattr(options, column, _choice(text, _CHOICES[column]))
            elif column in ("max_calls", "max_rate", "qualify"):
                setattr(options, column, _number(column, text or "0"))
            elif column in ("at_once", "outbound", "gin"):
                setattr(options, column, _yes_or_no(text))
            elif column in ("note", "registrars", "outbound_proxy", "digest_minimum", "numbers"):
                setattr(options, column, text)
            else:
                setattr(account, column, _number(column, text) if column in NUMBER_COLUMNS else text)
        except ValueError as error:
            refusals.append(Refusal(row.line, column, str(error)))
    if not account.l_uuid:
        raise ImportRefused(*refusals, Refusal(row.line, "l_uuid", "It is empty; accounts are known by it."))
    if not stored:
        accounts.fill_in(account, options)
    after = _open_values(account, options)
    differing = [
        ColumnChange(column, str(before[column]), str(after[column]))
        for column in after if before[column] != after[column]
    ]
    secrets: list[ColumnChange] = []
    try:
        secrets = _lay_secrets(row, account)
    except UndecryptableSecret:
        refusals.append(Refusal(
            row.line, "auth_password",
            "No key in TRUNKMGR_FIELD_KEYS opens this token. Add the key under which the file was written.",
        ))
    differing += secrets
    verb: Literal["added", "changed", "unchanged"] = "added" if not stored else "changed" if differing else "unchanged"
    if verb != "unchanged":
        wrong = {refusal.column for refusal in refusals}
        refusals += [Refusal(row.line, *found) for found in _judge(account, options) if found[0] not in wrong]
    if refusals:
        raise ImportRefused(*refusals)
    return _Row(RowDiff(row.line, account.l_uuid, verb, tuple(differing)), account, options, bool(secrets))


def _open_values(account: UacReg, options: UacRegOptions) -> dict[str, str | int]:
    return {column: getattr(account, column) for column in _OPEN_COLUMNS} | _own_values(options)


# The value itself is never repeated in a refusal: in a row whose columns slipped it may be the password.

def _provider(name: str, providers: dict[str, Provider]) -> Provider | None:
    if not name:
        return None
    if name not in providers:
        close = get_close_matches(name, providers, n=1)
        cure = f"Did you mean {close[0]!r}?" if close else "Make it first with: manage.py provider set"
        raise ValueError(f"No provider has this name. {cure}")
    return providers[name]


def _choice(text: str, usual: TextChoices) -> str:
    words = type(usual).values
    if text and text not in words:
        raise ValueError(f"Write one of {', '.join(words)}.")
    return text or str(usual)


def _yes_or_no(text: str) -> bool:
    if text not in ("", "yes", "no"):
        raise ValueError("Write yes or no.")
    return text == "yes"


def _number(column: str, text: str) -> int:
    if not _NUMBER.fullmatch(text.strip()):
        raise ValueError("This is no whole number.")
    # Of the seed's flags only this bit is an operator's; the others are moments of a running Kamailio.
    return int(text) & FLAG_DISABLED if column == "flags" else int(text)


def _lay_secrets(row: FileRow, account: UacReg) -> list[ColumnChange]:
    """Replace both secrets when the row has one.  Raises UndecryptableSecret for a foreign token."""
    given = {column: Secret(stored=row.values.get(column, "")) for column in SECRET_COLUMNS}
    differing: list[ColumnChange] = []
    if any(given.values()):
        for column, secret in given.items():
            if not _same(getattr(account, column), secret.reveal()):
                # What is laid in is sealed by the newest key, whatever key sealed the file's token.
                setattr(account, column, Secret(secret.reveal()))
                differing.append(ColumnChange(column, "", ""))
    return differing


def _same(stored: Secret, clear: str) -> bool:
    try:
        return stored.reveal() == clear
    except UndecryptableSecret:
        return False


def _judge(account: UacReg, options: UacRegOptions) -> Iterator[tuple[str | None, str]]:
    """Yield column and reason of all that the models refuse; asks no database, unlike `full_clean`."""
    for check in (
        account.clean_fields, account.clean, lambda: account.check_authentication(options.authentication),
        lambda: options.clean_fields(exclude={"account", "provider"}),
    ):
        try:
            check()
        except ValidationError as error:
            for column, messages in error.message_dict.items():
                for message in messages:
                    yield None if column == NON_FIELD_ERRORS else column, message


def _write(rows: Sequence[_Row], who: str) -> None:
    """Insert or replace by `l_uuid`; stored secrets that the file does not give are left alone."""
    for update, part in (
        ([*_OPEN_COLUMNS, *SECRET_COLUMNS], [row for row in rows if row.with_secrets]),
        (list(_OPEN_COLUMNS), [row for row in rows if not row.with_secrets]),
    ):
        UacReg.objects.bulk_create(
            [row.account for row in part], batch_size=_BATCH, update_conflicts=True, unique_fields=["l_uuid"],
            update_fields=[column for column in update if column != "l_uuid"],
        )
    UacRegOptions.objects.bulk_create(
        [row.options for row in rows], batch_size=_BATCH, update_conflicts=True, unique_fields=["account"],
        update_fields=list(OWN_COLUMNS),
    )
    accounts.add_registrations([row.diff.l_uuid for row in rows if row.diff.verb == "added"])
    changes.log(Change.Table.UACREG, [row.diff.l_uuid for row in rows], who)
