"""`uac_reg_lookup` and `uac_reg_lookup_uri`: from the user part that is called to the account.

An immutable picture in memory, replaced whole.  Like the seed module it does not ask whether the account is registered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from sipengine.uac.account import UacAccount

#: RFC 3261 §25.1: `unreserved` and `user-unreserved`, the bytes a user part holds as they are.
USER_UNRESERVED = "-_.!~*'()&=+$,;?/"


def escape_user(text: str) -> bytes:
    """Write `text` as the user part of a SIP URI."""
    return quote_from_bytes(text.encode(), safe=USER_UNRESERVED).encode()


def escape_param(text: str) -> bytes:
    """Write `text` as the value of a URI parameter."""
    return quote_from_bytes(text.encode(), safe="-_.!~*'()").encode()


def unescape_user(user: bytes) -> bytes:
    """Undo the escapes of a user part, for comparison only (RFC 3261 §19.1.4)."""
    return unquote_to_bytes(user) if user.find(b"%") >= 0 else user


class AccountRow(NamedTuple):
    """What a lookup gives."""

    account: UacAccount
    contact_uri: bytes
    """``sip:l_username@l_domain``, the new R-URI of an inbound call."""
    user: str
    """Its user part, unescaped."""

    @property
    def l_uuid(self) -> str:
        return self.account.l_uuid

    def called(self, number: bytes) -> AccountRow:
        """The same for a call to one of its numbers, a user part: that is who is called, as it was written."""
        uri = b"sip:%b@%b" % (number, self.account.l_domain.encode())
        return AccountRow(self.account, uri, unescape_user(number).decode(errors="replace"))


def _row(account: UacAccount) -> AccountRow:
    uri = b"sip:" + escape_user(account.l_username) + b"@" + account.l_domain.encode()
    return AccountRow(account, uri, account.l_username)


class AccountTable:
    """Accounts by the user part of their Contact.  Never changes; the `with_…` calls give a patched copy."""

    __slots__ = ("_by_contact_user", "_by_username", "_by_uuid", "_gin")

    def __init__(self, accounts: Iterable[UacAccount] = ()) -> None:
        self._by_uuid: dict[bytes, AccountRow] = {}
        self._by_contact_user: dict[bytes, tuple[AccountRow, ...]] = {}
        self._by_username: dict[bytes, tuple[AccountRow, ...]] = {}
        self._gin: dict[str, AccountRow] = {}
        for account in accounts:
            self._add(account)

    def __len__(self) -> int:
        return len(self._by_uuid)

    def __contains__(self, l_uuid: str) -> bool:
        return unescape_user(l_uuid.encode()) in self._by_uuid

    def get(self, l_uuid: str) -> AccountRow | None:
        return self._by_uuid.get(unescape_user(l_uuid.encode()))

    def uac_reg_lookup(self, user: bytes, line: bytes = b"") -> AccountRow | None:
        """Find the account whose Contact a provider called: `user` and `line` parameter of the R-URI.

        `line` decides where it is ours; then the user as `l_uuid`; then as `contact_user`, if only one account has it.
        With a `line` the user is the number that is called where the account registers all of a PBX (`gin`).
        """
        if line and (row := self._by_uuid.get(unescape_user(line))) is not None:
            return row.called(user) if row.account.gin and user else row
        user = unescape_user(user)
        if (row := self._by_uuid.get(user)) is not None:
            return row
        return _only(self._by_contact_user.get(user, ()))

    @property
    def gin(self) -> Collection[AccountRow]:
        """All accounts that register the numbers of a PBX at once."""
        return self._gin.values()

    def of_username(self, user: bytes) -> tuple[AccountRow, ...]:
        """All accounts of a local user, whatever their domain."""
        return self._by_username.get(unescape_user(user), ())

    def uac_reg_lookup_uri(self, user: bytes, host: bytes = b"") -> AccountRow | None:
        """Find the account of a local user, with `host` also by its `l_domain`; None when several have that user."""
        rows = self._by_username.get(unescape_user(user), ())
        if host:
            rows = tuple(r for r in rows if r.account.l_domain.encode().lower() == host.lower())
        return _only(rows)

    def with_account(self, account: UacAccount) -> AccountTable:
        return self.with_accounts((account,))

    def with_accounts(self, accounts: Iterable[UacAccount]) -> AccountTable:
        table = self._copy()
        for account in accounts:
            table._remove(account.l_uuid)
            table._add(account)
        return table

    def without(self, *l_uuids: str) -> AccountTable:
        table = self._copy()
        for l_uuid in l_uuids:
            table._remove(l_uuid)
        return table

    def _copy(self) -> AccountTable:
        table = AccountTable()
        table._by_uuid = self._by_uuid.copy()
        table._by_contact_user = self._by_contact_user.copy()
        table._by_username = self._by_username.copy()
        table._gin = self._gin.copy()
        return table

    def _add(self, account: UacAccount) -> None:
        row = _row(account)
        self._by_uuid[unescape_user(account.l_uuid.encode())] = row
        if account.contact_user:
            _append(self._by_contact_user, account.contact_user.encode(), row)
        _append(self._by_username, account.l_username.encode(), row)
        if account.gin:
            self._gin[account.l_uuid] = row

    def _remove(self, l_uuid: str) -> None:
        row = self._by_uuid.pop(unescape_user(l_uuid.encode()), None)
        if row is not None:
            _discard(self._by_contact_user, row.account.contact_user.encode(), row)
            _discard(self._by_username, row.account.l_username.encode(), row)
            self._gin.pop(row.l_uuid, None)


def _only(rows: tuple[AccountRow, ...]) -> AccountRow | None:
    return rows[0] if len(rows) == 1 else None


def _append(index: dict[bytes, tuple[AccountRow, ...]], key: bytes, row: AccountRow) -> None:
    index[key] = (*index.get(key, ()), row)


def _discard(index: dict[bytes, tuple[AccountRow, ...]], key: bytes, row: AccountRow) -> None:
    rows = tuple(r for r in index.get(key, ()) if r is not row)
    if rows:
        index[key] = rows
    else:
        index.pop(key, None)
