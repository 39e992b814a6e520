"""Who may begin what: the rules by their names, on the product's own routing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from sipengine.message import parse
from tests.sipengine.net import PHONE, PROXY, STRANGER, Station, starts
from tests.trunkmgr.sip.net import TrunkNet, account, trunk
from trunkmgr.sip.rules import RULES, counted, refusals
from trunkmgr.sip.snapshot import Peers

OTHER = ("192.0.2.50", 5060)


@pytest.fixture(autouse=True)
def fresh_counts() -> None:
    refusals.counts.clear()


def net_of_two_providers(from_any: bool = False) -> tuple[TrunkNet, Station]:
    """Provider 1 has the account acc1; provider 2, at OTHER, has none."""
    net = TrunkNet()
    snapshot = net.admission.snapshot
    net.admission.swap(snapshot.patched(
        {"acc1": replace(trunk(account()), from_any=from_any)}, providers={2: Peers(frozenset({OTHER[0]}))},
    ))
    return net, net.wire.station(*OTHER)


def without_what_differs(message: bytes) -> list[bytes]:
    return [line for line in message.split(b"\r\n") if not line.startswith((b"To:", b"Via:", b"Call-ID:"))]


@pytest.mark.checklist("M2")
def test_an_account_takes_calls_of_its_own_provider_only() -> None:
    net, other = net_of_two_providers()
    net.send(net.provider, net.invite(b"own"))
    assert starts(net.phone.take()) == [b"INVITE"]
    other.send(net.invite(b"foreign"), PROXY)
    other.send(net.invite(b"none", user=b"nobody"), PROXY)
    net.run()
    assert not net.phone.take()
    refused, unknown = [message for message in other.take() if message.startswith(b"SIP/2.0 4")]
    assert without_what_differs(refused) == without_what_differs(unknown), "it does not learn whose accounts are here"
    assert refusals.counts == {"other_provider": 1, "unknown_account": 1}


def test_an_account_may_say_otherwise() -> None:
    net, other = net_of_two_providers(from_any=True)
    other.send(net.invite(), PROXY)
    net.run()
    assert starts(net.phone.take()) == [b"INVITE"] and not refusals.counts


@pytest.mark.parametrize("method", [b"INVITE", b"MESSAGE", b"SUBSCRIBE"])
@pytest.mark.checklist("M2")
def test_another_provider_brings_nothing_of_any_method(method: bytes) -> None:
    net, other = net_of_two_providers()
    other.send(net.invite(method=method), PROXY)
    net.run()
    assert not net.phone.take() and refusals.counts == {"other_provider": 1}


@pytest.mark.parametrize("data", [
    b"OPTIONS sip:192.0.2.5 SIP/2.0\r\n\r\n", b"nonsense", b"INVITE", b"\r\n\r\n", b"\0" * 40,
    b"REGISTER sip:192.0.2.5 SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.66\r\nContent-Length: 99999\r\n\r\n",
])  # fmt: skip
@pytest.mark.checklist("M2")
def test_a_stranger_on_udp_gets_not_one_byte(data: bytes) -> None:
    net = TrunkNet()
    stranger = net.wire.station(*STRANGER)
    for message in (data, net.invite(), net.invite(user=b"100"), net.invite(method=b"OPTIONS"), net.invite(
        method=b"REGISTER"
    ), net.invite().replace(b"INVITE", b"CANCEL"), net.invite().replace(b"To: <sip:acc1@192.0.2.5>", b"To: x;tag=1")):
        stranger.send(message, PROXY)
    net.run(40)
    assert not stranger.log and not net.phone.log and not net.provider.log
    assert counted(net.endpoint.counters, refusals.counts, {})["stranger"] >= 6


def test_every_refusal_has_a_name_with_a_sentence() -> None:
    net, other = net_of_two_providers()
    for message in (net.invite(), net.invite(user=b"x"), net.invite(method=b"REGISTER")):
        other.send(message, PROXY)
    pbx = net.phone
    for message in (net.invite(), net.invite(method=b"PUBLISH")):
        net.send(pbx, message)
    assert set(refusals.counts) == {"other_provider", "unknown_account", "method", "unknown_caller"}
    assert set(refusals.counts) <= set(RULES)
    answers = [parse(message).status for message in net.wire.station(*PHONE).log]
    assert not answers, "a new station at that address starts empty"


def test_connections_that_were_ended_are_counted_with_the_rest() -> None:
    counts = counted(TrunkNet().endpoint.counters, Counter({"rate": 2, "mine": 1}), {"origin": 3, "slow": 0})
    assert counts == {"rate": 2, "origin": 3, "mine": 1}
