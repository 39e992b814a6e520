"""Admission: which source address is whose."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from sipengine.exceptions import Reject
from sipengine.transport.peers import TlsPolicy
from sipengine.uac.account import UacAccount
from trunkmgr.models import Provider
from trunkmgr.sip import middleware
from trunkmgr.sip.middleware import NOBODY, PBX, PROVIDER, Admission, PeerMiddleware
from trunkmgr.sip.snapshot import Pbx, Snapshot, TlsRule, Trunk, peers_of, provider_of


def picture(proxy: str = "sip:sip.example") -> Snapshot:
    account = UacAccount(
        l_uuid="a", l_username="1", l_domain="pbx.example", r_username="1", r_domain="sip.example", auth_proxy=proxy,
    )
    return Snapshot().patched(
        trunks={"a": Trunk(account, False, None)},
        domains={"pbx.example": Pbx(b"sip:192.0.2.20", peers_of("192.0.2.64/28", ("sip:192.0.2.20",)))},
        providers={1: peers_of("198.51.100.0/24\n2001:db8::5", ("provider.example",))},
    )


@pytest.fixture
def admission() -> Admission:
    admission = Admission()
    admission.swap(picture())
    return admission


@pytest.mark.parametrize(("address", "kind"), [
    ("192.0.2.20", PBX), ("192.0.2.65", PBX), ("192.0.2.80", NOBODY), ("198.51.100.7", PROVIDER),
    ("2001:db8::5", PROVIDER), ("203.0.113.1", NOBODY), ("no-address", NOBODY),
])
def test_configured_addresses(admission: Admission, address: str, kind: int) -> None:
    assert admission.kind(address) == kind
    assert admission.kind(address) == kind, "from the cache"


def test_names_admit_what_the_resolver_says_and_no_longer(admission: Admission) -> None:
    assert admission.names() == {"sip.example", "provider.example"}
    assert admission.kind("203.0.113.1") == NOBODY
    admission.resolved("sip.example", "SRV", frozenset({"203.0.113.1"}))
    admission.resolved("sip.example", "A", frozenset({"203.0.113.3"}))
    assert admission.kind("203.0.113.1") == PROVIDER
    admission.resolved("sip.example", "SRV", frozenset({"203.0.113.2"}))
    assert (admission.kind("203.0.113.1"), admission.kind("203.0.113.2")) == (NOBODY, PROVIDER)
    assert admission.kind("203.0.113.3") == PROVIDER, "the answer to the other question stays"


@pytest.mark.checklist("B13")
def test_the_rule_of_a_provider_says_which_certificates_count() -> None:
    plain = picture("sip:registrar.example")
    rule = TlsRule(server_name=True, wildcard=True, fingerprint="ab", client_certificate=True)
    trunk = replace(plain.trunks["a"], provider_id=1)
    admission = Admission()
    admission.swap(plain.patched(trunks={"a": trunk}, providers={1: replace(plain.providers[1], tls=rule)}))
    two = ("registrar.example", "s1.example")
    assert admission.tls(two, "203.0.113.1") == TlsPolicy(two, True, "ab", True), "the account's registrar"
    assert admission.tls(("provider.example", "s1.example"), "203.0.113.1").fingerprint == "ab"
    assert admission.tls(("elsewhere.example", "s1.example"), "198.51.100.7") == TlsPolicy(("elsewhere.example",))
    # Where a Contact or a Route names an address alone, it is one of the names that lead there.
    assert admission.tls((), "198.51.100.7") == TlsPolicy(("provider.example",), True, "ab", True)
    assert admission.tls((), "203.0.113.9") == TlsPolicy(("203.0.113.9",))
    admission.resolved("registrar.example", "SRV", frozenset({"203.0.113.9"}))
    assert admission.tls((), "203.0.113.9").names == ("provider.example", "registrar.example")
    admission.swap(plain)
    assert admission.tls(two, "203.0.113.1") == TlsPolicy(("registrar.example",)), "a rule that is taken back"


def test_a_provider_that_is_udp_only_is_so_at_all_its_addresses() -> None:
    admission = Admission()
    plain = picture("sip:registrar.example")
    udp_only = replace(plain.providers[1], udp_only=True)
    trunk = replace(plain.trunks["a"], provider_id=1)
    admission.swap(plain.patched(trunks={"a": trunk}))
    assert not admission.udp_only("198.51.100.7")
    admission.swap(plain.patched(trunks={"a": trunk}, providers={1: udp_only}))
    assert admission.udp_only("198.51.100.7") and admission.udp_only("2001:db8::5")
    assert not admission.udp_only("192.0.2.20"), "the PBX"
    assert not admission.udp_only("203.0.113.1")
    admission.resolved("registrar.example", "A", frozenset({"203.0.113.1"}))
    assert admission.udp_only("203.0.113.1"), "where its accounts register"
    admission.swap(plain.patched(trunks={"a": trunk}))
    assert not admission.udp_only("198.51.100.7"), "the provider changed its mind"


def test_two_addresses_are_one_peer_by_configuration_or_by_a_name_that_leads_to_both(admission: Admission) -> None:
    assert admission.same_peer("198.51.100.7", "198.51.100.8") and admission.same_peer("198.51.100.7", "2001:db8::5")
    assert admission.same_peer("192.0.2.20", "192.0.2.65")
    assert not admission.same_peer("198.51.100.7", "192.0.2.20"), "a provider does not answer for the PBX"
    assert not admission.same_peer("203.0.113.1", "203.0.113.2")
    admission.resolved("sip.example", "SRV", frozenset({"203.0.113.1", "203.0.113.2"}))
    assert admission.same_peer("203.0.113.1", "203.0.113.2")
    assert not admission.same_peer("203.0.113.1", "203.0.113.3")


def test_the_address_that_an_account_registers_at_may_call(admission: Admission) -> None:
    assert admission.kind("203.0.113.9") == NOBODY
    admission.registered_at("a", "203.0.113.9")
    assert admission.kind("203.0.113.9") == PROVIDER
    admission.registered_at("a", "203.0.113.10")
    assert admission.kind("203.0.113.9") == NOBODY, "the account moved on"
    admission.swap(admission.snapshot.patched(trunks={"a": None}))
    assert admission.kind("203.0.113.10") == NOBODY, "the account is gone"


def test_one_address_may_be_provider_and_pbx() -> None:
    admission = Admission()
    admission.swap(picture(proxy="sip:192.0.2.20:5070"))
    assert admission.kind("192.0.2.20") == PROVIDER | PBX


def test_the_cache_is_bounded(admission: Admission, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "CACHE_LIMIT", 10)
    for last in range(100):
        assert admission.kind(f"203.0.113.{last}") == NOBODY
    assert len(admission._kinds) <= 10


def test_middleware_names_the_peer_and_refuses_new_calls_while_stopping(admission: Admission) -> None:
    seen = []

    async def application(scope: dict, receive: object, send: object) -> None:
        seen.append((scope["sip.peer"], scope["sip.snapshot"]))

    wrapped = PeerMiddleware(application, admission)

    def scope(in_dialog: bool) -> dict:
        context = SimpleNamespace(has_totag=lambda: in_dialog)
        return {"type": "sip", "client": ["192.0.2.20", 5060], "extensions": {"sip.context": context}}

    asyncio.run(wrapped(scope(False), None, None))
    wrapped.draining = True
    asyncio.run(wrapped(scope(True), None, None))
    with pytest.raises(Reject) as refused:
        asyncio.run(wrapped(scope(False), None, None))
    assert refused.value.status == 503
    assert seen == [(PBX, admission.snapshot)] * 2


def test_an_account_is_called_by_its_provider(admission: Admission) -> None:
    plain = admission.snapshot.trunks["a"]
    bound = replace(plain, provider_id=1)
    assert not admission.brings(plain, "198.51.100.7"), "another provider's"
    assert admission.brings(bound, "198.51.100.7") and admission.brings(bound, "2001:db8::5")
    assert not admission.brings(plain, "203.0.113.1")
    admission.resolved("sip.example", "SRV", frozenset({"203.0.113.1"}))
    assert admission.brings(plain, "203.0.113.1"), "the host it registers at"
    admission.registered_at("a", "203.0.113.9")
    assert admission.brings(plain, "203.0.113.9"), "the server that took its REGISTER"
    admission.resolved("sip.example", "SRV", frozenset({"203.0.113.2"}))
    assert not admission.brings(plain, "203.0.113.1"), "the name leads elsewhere by now"


def test_what_an_account_names_is_one_peer_with_its_provider(admission: Admission) -> None:
    trunk = replace(admission.snapshot.trunks["a"], provider_id=1, outbound_proxy="sip:192.0.2.200")
    assert not admission.same_peer("192.0.2.200", "198.51.100.7")
    admission.swap(admission.snapshot.patched({"a": trunk}))
    assert admission.same_peer("192.0.2.200", "198.51.100.7")
    assert not admission.same_peer("192.0.2.200", "192.0.2.20")


def test_a_providers_budget_holds_for_each_of_its_addresses() -> None:
    admission = Admission()
    slow = provider_of(Provider(name="S", domain="sip.slow.example", addresses="192.0.2.10", reg_rate=5))
    usual = provider_of(Provider(name="U", domain="sip.usual.example", addresses="192.0.2.20"))
    admission.swap(Snapshot().patched(providers={1: slow, 2: usual}))
    assert admission.budget("192.0.2.99") == 0
    admission.resolved("sip.slow.example", "sip:sip.slow.example", frozenset({"192.0.2.99"}))
    assert [admission.budget(f"192.0.2.{last}") for last in (10, 99, 20)] == [5, 5, 0]
    admission.swap(admission.snapshot.patched(providers={1: usual}))
    assert admission.budget("192.0.2.10") == 0
