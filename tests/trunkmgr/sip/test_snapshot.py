"""The picture that routing and admission read: conversion of rows, patching, host names."""

from __future__ import annotations

import ipaddress

import pytest

from sipengine.uac.account import UacAccount
from sipengine.uac.digest import Credentials
from trunkmgr.env import StaticCredential
from trunkmgr.models import Domain, Provider, UacReg, UacRegOptions
from trunkmgr.sip.snapshot import (
    Pbx,
    Peers,
    Scoped,
    Snapshot,
    TlsRule,
    Trunk,
    configured_credentials,
    host_of,
    pbx_of,
    peers_of,
    provider_of,
    trunk_of,
)


def trunk(l_uuid: str, **columns: object) -> Trunk:
    values = {"l_username": "100", "l_domain": "pbx.example", "r_username": l_uuid, "r_domain": "sip.example"}
    return Trunk(UacAccount(l_uuid=l_uuid, **{**values, **columns}), anonymous=False, provider_id=None)


@pytest.mark.parametrize(("uri", "host"), [
    ("sip:sip.example.com", "sip.example.com"),
    ("sips:user:pw@Proxy.Example:5061;transport=tcp", "proxy.example"),
    ("<sip:192.0.2.7:5070;lr>", "192.0.2.7"),
    ("sip:[2001:db8::1]:5060", "2001:db8::1"),
    ("2001:db8::1", "2001:db8::1"),
    ("sip.example.com:5060", "sip.example.com"),
    ("", ""),
])
def test_host_of_a_uri(uri: str, host: str) -> None:
    assert host_of(uri) == host


def test_rows_become_engine_values() -> None:
    row = UacReg(
        l_uuid="a1", l_username="100", l_domain="pbx.example", r_username="4930", r_domain="sip.example",
        auth_password="secret", flags=1,
    )
    provider = Provider(
        pk=7, name="P", domain="sip.example", proxy="sip:192.0.2.1", addresses="198.51.100.0/24\n192.0.2.9",
        socket="udp:192.0.2.5:5062",
    )
    row.options = UacRegOptions(account=row, provider=provider, inbound_identity="anonymous")
    found = trunk_of(row)
    assert found.account.auth_password == "secret"
    assert found.account.auth_proxy == "sip:192.0.2.1", "an account without outbound proxy takes its provider's"
    assert found.account.socket == "udp:192.0.2.5:5062", "and so does one without socket"
    row.socket = "tcp:192.0.2.5:5060"
    assert trunk_of(row).account.socket == "tcp:192.0.2.5:5060"
    assert (found.account.enabled, found.anonymous, found.provider_id) == (False, True, 7)
    assert not found.account.gin
    row.options.gin = True
    assert trunk_of(row).account.gin
    assert "secret" not in repr(found)
    assert provider_of(provider) == Peers(
        frozenset({"sip.example", "192.0.2.1", "192.0.2.9"}), (ipaddress.ip_network("198.51.100.0/24"),),
    )
    provider.size_rule = "udp-only"
    provider.tls_name, provider.tls_fingerprint = "srv-target", "AB:" * 31 + "CD"
    assert provider_of(provider).udp_only
    assert provider_of(provider).tls == TlsRule(server_name=True, fingerprint="ab" * 31 + "cd")
    assert pbx_of(Domain(l_domain="pbx.example", next_hop="sip:192.0.2.20:5080")) == Pbx(
        b"sip:192.0.2.20:5080", Peers(frozenset({"192.0.2.20"})),
    )


def test_standby_registrars_are_the_accounts_or_its_providers_and_may_call() -> None:
    provider = Provider(pk=7, name="P", domain="sip.example", registrars="sip:b.sip.example, sip:192.0.2.3")
    row = UacReg(l_uuid="a1", r_username="4930", r_domain="sip.example", auth_password="secret")
    row.options = UacRegOptions(account=row, provider=provider)
    assert trunk_of(row).account.registrars == ("sip:b.sip.example", "sip:192.0.2.3")
    assert provider_of(provider).hosts == {"sip.example", "b.sip.example", "192.0.2.3"}
    row.options.registrars = "sip:own.example"
    assert trunk_of(row).account.registrars == ("sip:own.example",)
    assert trunk_of(row).hosts == {"sip.example", "own.example"}


def test_a_patch_leaves_the_old_picture_alone() -> None:
    old = Snapshot().patched(trunks={"a": trunk("a"), "b": trunk("b")})
    new = old.patched(trunks={"a": trunk("a", l_username="200"), "b": None, "c": trunk("c")})
    assert sorted(old.trunks) == ["a", "b"]
    assert sorted(new.trunks) == ["a", "c"]
    assert old.table.uac_reg_lookup(b"a").contact_uri == b"sip:100@pbx.example"
    assert new.table.uac_reg_lookup(b"a").contact_uri == b"sip:200@pbx.example"
    assert new.table.uac_reg_lookup(b"b") is None


def test_next_hop_ignores_case() -> None:
    picture = Snapshot().patched(domains={"pbx.example": Pbx(b"sip:192.0.2.20", Peers())})
    assert picture.next_hop("PBX.example") == b"sip:192.0.2.20"
    assert picture.next_hop("other.example") is None


def test_what_is_no_network_admits_nobody() -> None:
    assert peers_of("300.1.1.1/8", ()) == Peers()


def scoped(name: str, realm: str = "", l_uuid: str | None = None, provider_id: int | None = None) -> Scoped:
    return Scoped(Credentials(name.encode(), b"x", realm=realm.encode()), l_uuid, provider_id)


def order(picture: Snapshot, trunk: Trunk) -> list[str]:
    return [credentials.username.decode() for credentials in picture.credentials_for(trunk)]


def test_credentials_of_an_account_its_provider_and_everybody_in_this_order() -> None:
    mine = Trunk(trunk("a", auth_username="own", auth_password="x").account, anonymous=False, provider_id=7)
    other = trunk("b", auth_password="x")
    picture = Snapshot().patched(trunks={"a": mine, "b": other}, credentials={
        1: scoped("everybody", "r1"), 2: scoped("provider", "r1", provider_id=7), 3: scoped("account", l_uuid="a"),
        4: scoped("provider, any", provider_id=7), 5: scoped("account, realm", "r1", l_uuid="a"),
        6: scoped("everybody, later", "r1"), 7: scoped("other provider", "r1", provider_id=8),
    })
    assert order(picture, mine) == [
        "account, realm", "provider", "own", "account", "provider, any", "everybody, later", "everybody",
    ]
    assert order(picture, other) == ["b", "everybody, later", "everybody"], "the remote user where no other is named"
    assert order(picture, trunk("c")) == ["everybody, later", "everybody"], "no secret of its own"


def test_what_is_configured_comes_last_and_the_last_of_it_first() -> None:
    configured = configured_credentials([StaticCredential("first", "r", "p:1"), StaticCredential("last", "r", "x")])
    assert configured[0] == Credentials(b"first", b"p:1", realm=b"r")
    picture = Snapshot(configured=configured)
    assert order(picture, trunk("a", auth_password="x")) == ["a", "last", "first"]
    picture = picture.patched(credentials={1: scoped("row", "r")})
    assert order(picture, trunk("a", auth_password="x")) == ["a", "row", "last", "first"]


def test_a_realm_of_the_account_goes_along_with_its_own_secret() -> None:
    (own,) = Snapshot().credentials_for(trunk("a", realm="sip.example", auth_ha1="0" * 32))
    assert own == Credentials(b"a", b"", b"0" * 32, b"sip.example")


def test_a_patch_of_credentials() -> None:
    old = Snapshot().patched(credentials={1: scoped("first", "r"), 2: scoped("second", "r")})
    new = old.patched(trunks={"a": trunk("a")}).patched(credentials={1: None, 2: scoped("second anew", "r")})
    assert order(old, trunk("a")) == ["second", "first"]
    assert order(new, trunk("a")) == ["second anew"]
