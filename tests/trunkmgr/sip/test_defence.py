"""Budgets by address and network, and bans: of connections only, never of peers, always bounded."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network

import pytest

from sipengine.registrar.registrar import Device
from sipengine.transport.flow import Flow, Listener
from sipengine.uac.digest import Credentials
from tests.sipengine.net import PHONE, PROVIDER, PROXY, STRANGER, starts
from tests.trunkmgr.sip.net import TrunkNet
from trunkmgr.sip.defence import ADDRESSES, ATTEMPTS, FAILURES, Buckets, Defence, network_of
from trunkmgr.sip.middleware import PBX, Admission
from trunkmgr.sip.middleware import PROVIDER as IS_PROVIDER
from trunkmgr.sip.rules import refusals
from trunkmgr.sip.snapshot import Pbx, Peers, Snapshot

UDP, TCP = Listener("udp", *PROXY, b""), Listener("tcp", *PROXY, b"")


class TestBuckets:
    def test_a_burst_then_the_rate(self) -> None:
        buckets = Buckets(rate=2.0, burst=4.0)
        assert [buckets.take("a", 0.0) for _ in range(5)] == [True] * 4 + [False]
        assert [buckets.take("a", 1.0) for _ in range(3)] == [True, True, False]
        assert buckets.take("b", 1.0), "each has its own"
        assert [buckets.take("a", 1000.0) for _ in range(5)] == [True] * 4 + [False], "it never holds more than a burst"

    def test_the_one_unused_longest_makes_room(self) -> None:
        buckets = Buckets(rate=0.0, burst=1.0, limit=2)
        for key in ("a", "b", "a", "c"):
            buckets.take(key, 0.0)
        assert len(buckets) == 2 and not buckets.take("a", 0.0), "a was used after b, so b went"


@pytest.mark.parametrize(("address", "network"), [
    ("192.0.2.77", "192.0.2.0/24"), ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"), ("fe80::1%eth0", "fe80::/64"),
])
def test_the_network_of_an_address(address: str, network: str) -> None:
    assert network_of(address) == network


class TestDefence:
    def test_a_network_shares_a_budget(self) -> None:
        defence = Defence(rate=1.0)
        allowed = sum(defence.allows(f"192.0.2.{last}", 0.0) for last in range(100) for _ in range(2))
        assert allowed == 2 * ADDRESSES, "a hundred addresses get no more than their network"
        assert defence.allows("198.51.100.1", 0.0)

    @pytest.mark.checklist("M14")
    def test_failures_end_in_a_ban_only_where_the_address_is_proven(self) -> None:
        defence = Defence(ban_seconds=60.0)
        for address, proven in (("203.0.113.1", False), ("198.51.100.2", True)):
            outcomes = [defence.failed(address, "authentication", 0.0, proven) for _ in range(int(FAILURES) + 1)]
            assert outcomes == [True] * int(FAILURES) + [False]
            assert defence.banned(address, 59.0) is proven
        (ban,) = defence.new
        assert ban == ("198.51.100.2", "authentication", 0.0, 60.0)
        assert not defence.banned("198.51.100.2", 60.0) and not defence.standing(60.0)

    def test_a_ban_is_lifted_with_the_budget(self) -> None:
        defence = Defence()
        while defence.failed("203.0.113.1", "stranger", 0.0, True):
            pass
        assert defence.lift("203.0.113.1") and not defence.banned("203.0.113.1", 0.0)
        assert defence.failed("203.0.113.1", "stranger", 0.0, True) and not defence.lift("203.0.113.1")

    def test_no_ban_where_none_is_wanted(self) -> None:
        defence = Defence(ban_seconds=0)
        assert not all(defence.failed("203.0.113.1", "stranger", 0.0, True) for _ in range(50)) and not defence.new

    @pytest.mark.checklist("M9")
    def test_tables_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("trunkmgr.sip.defence.LIMIT", 50)
        defence = Defence()
        for first in range(40):
            for last in range(10):
                while defence.failed(f"203.0.{first}.{last}", "stranger", 0.0, True):
                    pass
        assert len(defence.standing(0.0)) <= 50 and len(defence.new) <= 50
        buckets = Buckets(1.0, 1.0, limit=50)
        for number in range(100):
            buckets.take(str(number), 0.0)
        assert len(buckets) == 50 and not buckets.holds("99", 0.0), "the one unused longest has gone"


class TestAdmission:
    def connect(self, admission: Admission, address: str, times: int, listener: Listener = TCP) -> list[bool]:
        outcomes = []
        for number in range(times):
            flow = Flow(listener, (address, 40000 + number), True)
            outcomes.append(admission.admits(flow))
            if not outcomes[-1]:
                admission.denied(flow)  # as the endpoint does
        return outcomes

    def admission(self) -> Admission:
        now = 0.0
        admission = Admission(now=lambda: now)
        admission.swap(admission.snapshot.patched(
            {}, {"pbx.example": Pbx(b"sip:192.0.2.9", Peers(frozenset({PHONE[0]})))},
            {1: Peers(frozenset({PROVIDER[0]}))},
        ))
        return admission

    @pytest.mark.checklist("M14")
    @pytest.mark.parametrize("transport", ["tcp", "tls", "ws", "wss"])
    def test_a_stranger_that_connects_again_and_again_is_banned(self, transport: str) -> None:
        admission, listener = self.admission(), Listener(transport, *PROXY, b"")
        assert not any(self.connect(admission, STRANGER[0], int(FAILURES), listener))
        flow = Flow(listener, STRANGER, True)
        assert admission.refusing(flow) == "stranger"
        self.connect(admission, STRANGER[0], 1, listener)
        assert admission.refusing(flow) == "banned" and [ban.rule for ban in admission.defence.new] == ["stranger"]

    @pytest.mark.checklist("M14")
    def test_nobody_is_banned_for_datagrams(self) -> None:
        admission = self.admission()
        assert not any(self.connect(admission, STRANGER[0], 500, UDP)) and not admission.defence.new
        assert admission.defence.may_try(STRANGER[0], 0.0), "forged ones keep no device from registering either"

    def test_a_configured_peer_is_never_banned(self) -> None:
        admission = self.admission()
        for address in (PROVIDER[0], PHONE[0]):
            assert all(self.connect(admission, address, 500))
        while admission.defence.failed(PROVIDER[0], "authentication", 0.0, True):
            pass
        assert admission.defence.banned(PROVIDER[0], 0.0) and all(self.connect(admission, PROVIDER[0], 5)), (
            "one that becomes a peer is let in although it was banned before"
        )

    @pytest.mark.parametrize("host", [PROXY[0], "0.0.0.0"])
    def test_a_socket_may_be_for_one_kind_of_peer(self, host: str) -> None:
        admission = Admission({f"udp:{host}:5060": "pbx"})
        admission.swap(self.admission().snapshot)
        assert admission.admits(Flow(UDP, PHONE)) and not admission.admits(Flow(UDP, PROVIDER))
        assert admission.refusing(Flow(UDP, PROVIDER)) == "listener"
        assert admission.admits(Flow(TCP, PROVIDER)), "the other socket takes both"
        assert admission.kind(PHONE[0]) == PBX and admission.kind(PROVIDER[0]) == IS_PROVIDER


@pytest.mark.checklist("M9")
def test_a_peer_that_sends_too_much_new_gets_503_and_its_calls_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals.counts.clear()
    now = 100.0
    clock: Callable[[], float] = lambda: now  # noqa: E731
    monkeypatch.setattr("trunkmgr.sip.middleware.time.monotonic", clock)
    net = TrunkNet()
    net.admission.defence = Defence(rate=2.0)
    net.middleware.limited = True
    call = net.establish()
    for number in range(5):
        net.send(net.provider, net.invite(b"more%d" % number))
    answers = starts(net.provider.take())
    assert answers.count(b"SIP/2.0 503") == 2 and starts(net.phone.take()).count(b"INVITE") == 3
    assert refusals.counts == {"rate": 2}
    net.send(net.provider, call.from_caller(b"BYE", 2))
    assert b"BYE" in starts(net.phone.take())


@pytest.mark.checklist("M7")
def test_no_answer_to_an_unproven_address_is_larger_than_what_it_sent() -> None:
    net = TrunkNet()
    stranger = net.wire.station(*STRANGER)
    small = b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.66;branch=z9hG4bK1\r\n\r\n"
    for data in (small, net.invite(), net.invite(method=b"REGISTER"), small.replace(b"OPTIONS", b"CANCEL"), b"x"):
        stranger.send(data, PROXY)
        net.run(40)
        assert sum(map(len, stranger.log)) <= 0, "nothing at all"


class TestDevices:
    """Whoever is neither provider nor PBX may try to prove that he is a device, within bounds."""

    def admission(self) -> Admission:
        admission = Admission(now=lambda: 0.0)
        admission.devices_from = (ip_network("203.0.113.0/24"),)
        admission.swap(Snapshot().patched(devices={
            "phone@pbx.example": Device("phone@pbx.example", Credentials(b"phone", b"secret"))
        }))
        return admission

    @pytest.mark.checklist("M7")
    def test_from_where_devices_may_come_and_how_often(self) -> None:
        admission = self.admission()
        flow = Flow(UDP, STRANGER)
        assert not admission.may_register(Flow(UDP, ("198.51.100.1", 5060)))
        assert [admission.may_register(flow) for _ in range(int(ATTEMPTS) + 1)] == [True] * int(ATTEMPTS) + [False]

    def test_guessing_ends_and_over_a_connection_in_a_ban(self) -> None:
        admission = self.admission()
        datagrams, stream = Flow(UDP, ("203.0.113.7", 5060)), Flow(TCP, STRANGER, True)
        for flow in (datagrams, stream):
            for _ in range(int(FAILURES) + 1):
                assert admission.takes_devices(flow)
                admission.unauthorized(flow)
            assert not admission.may_register(flow)
        assert [(ban.address, ban.rule) for ban in admission.defence.new] == [(STRANGER[0], "authentication")]
