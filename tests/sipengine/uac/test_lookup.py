"""`uac_reg_lookup` and its table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sipengine.uac.account import UacAccount
from sipengine.uac.lookup import AccountTable

ALICE = UacAccount("uuid-1", "alice", "pbx.example", "t1", "p.example", contact_user="+4930")
BOB = UacAccount("uuid-2", "bob", "pbx.example", "t2", "p.example", contact_user="shared")
CAROL = UacAccount("uuid-3", "bob", "other.example", "t3", "q.example", contact_user="shared")
TABLE = AccountTable([ALICE, BOB, CAROL])


@pytest.mark.parametrize(
    ("user", "line", "l_uuid"),
    [
        (b"uuid-1", b"", "uuid-1"), (b"+4930", b"", "uuid-1"), (b"%2B4930", b"", "uuid-1"),
        (b"uuid%2D2", b"", "uuid-2"),
        (b"shared", b"uuid-3", "uuid-3"), (b"shared", b"", None), (b"shared", b"nobody", None), (b"alice", b"", None),
        (b"UUID-1", b"", None), (b"", b"", None),
    ],
)
def test_lookup(user: bytes, line: bytes, l_uuid: str | None) -> None:
    row = TABLE.uac_reg_lookup(user, line)
    assert (row.l_uuid if row else None) == l_uuid


def test_contact_uri_is_the_new_request_uri() -> None:
    row = TABLE.uac_reg_lookup(b"uuid-1")
    assert row is not None and row.contact_uri == b"sip:alice@pbx.example"
    odd = AccountTable([replace(ALICE, l_username="a b@c")]).uac_reg_lookup(b"uuid-1")
    assert odd is not None and odd.contact_uri == b"sip:a%20b%40c@pbx.example"


def test_lookup_uri_by_local_user() -> None:
    assert TABLE.uac_reg_lookup_uri(b"alice").l_uuid == "uuid-1"  # type: ignore[union-attr]
    assert TABLE.uac_reg_lookup_uri(b"bob") is None
    assert TABLE.uac_reg_lookup_uri(b"bob", b"OTHER.example").l_uuid == "uuid-3"  # type: ignore[union-attr]


def test_patches_leave_the_old_picture_alone() -> None:
    changed = TABLE.with_account(replace(ALICE, l_username="ann", contact_user="+4940"))
    assert changed.uac_reg_lookup(b"+4930") is None and TABLE.uac_reg_lookup(b"+4930") is not None
    assert changed.uac_reg_lookup(b"+4940").contact_uri == b"sip:ann@pbx.example"  # type: ignore[union-attr]
    assert changed.uac_reg_lookup_uri(b"alice") is None
    gone = TABLE.without("uuid-2", "nobody")
    assert len(gone) == 2 and len(TABLE) == 3 and "uuid-2" not in gone and "uuid-2" in TABLE
    assert gone.uac_reg_lookup(b"shared").l_uuid == "uuid-3"  # type: ignore[union-attr]
    assert gone.get("uuid-1") is not None


def test_secrets_do_not_show() -> None:
    assert "topsecret" not in repr(AccountTable([replace(ALICE, auth_password="topsecret")]).get("uuid-1"))
