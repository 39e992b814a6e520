"""The four machines over both kinds of transport, seen from outside."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sipengine.exceptions import FlowClosed, TransactionTimeout
from sipengine.message import parse
from sipengine.timerqueue import NEVER, TimerQueue
from tests.sipengine.net import PROXY, Net, reply, starts

TABLES = (
    Path(os.environ.get("SIP_TESTDATA", Path(__file__).resolve().parents[3].parent / "shared" / "testdata"))
    / "rfc-tables"
)
HEADERS = [(b"From", b"<sip:a@b>;tag=1"), (b"To", b"<sip:a@b>"), (b"Call-ID", b"own"), (b"CSeq", b"1 %b")]


class Ours:
    """A request of our own to the phone's address."""

    def __init__(self, net: Net, method: bytes, transport: str = "udp") -> None:
        self.heard: list[Any] = []
        endpoint = net.endpoint
        listener = endpoint.listeners[transport == "tcp"]
        headers = [(name, value % method if b"%b" in value else value) for name, value in HEADERS]
        self.client = endpoint.send_request(
            method, b"sip:x@192.0.2.9", headers, flow=endpoint.flow_for(listener, ("192.0.2.9", 5060)),
            now=net.wire.now,
            on_response=lambda status, message, now: self.heard.append(status),
            on_failure=lambda error, now: self.heard.append((type(error), now)),
        )  # fmt: skip


@pytest.mark.rfc("3261", "17.1")
@pytest.mark.skipif(not TABLES.is_dir(), reason="no test data; set SIP_TESTDATA")
@pytest.mark.parametrize(("method", "transport", "row"), [
    (b"INVITE", "udp", "invite_client_udp"), (b"INVITE", "tcp", "invite_client_tcp"),
    (b"REGISTER", "udp", "noninvite_client_udp"),
    (b"REGISTER", "tcp", "noninvite_client_tcp"),
])  # fmt: skip
def test_client_retransmits_and_times_out_by_the_table(method: bytes, transport: str, row: str) -> None:
    table = json.loads((TABLES / "timers.json").read_text())[row]
    net = Net(latency=0.0, transport=transport)
    times: list[float] = []
    net.phone.on_receive = lambda data, source: times.append(round(net.wire.now, 3))
    ours = Ours(net, method, transport)
    net.run(100)
    repeats = table.get("A_retransmit_at", table.get("E_retransmit_at", []))
    assert times == [0.0, *repeats]
    assert ours.heard == [(TransactionTimeout, 32.0)]
    assert net.endpoint.live["client_transactions"] == 0


@pytest.mark.rfc("3261", "17.1.2.2")
def test_a_provisional_slows_a_non_invite_to_t2() -> None:
    net = Net(latency=0.0)
    times: list[float] = []

    def answer(data: bytes, source: Any) -> None:
        times.append(round(net.wire.now, 3))
        net.phone.send(reply(parse(data), b"100 Trying"), PROXY)

    net.phone.on_receive = answer
    ours = Ours(net, b"REGISTER")
    net.run(100)
    assert times == [0.0, 0.5, 4.5, 8.5, 12.5, 16.5, 20.5, 24.5, 28.5]
    assert ours.heard[-1] == (TransactionTimeout, 32.0)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_final_answer_is_heard_once(transport: str) -> None:
    net = Net(transport=transport)
    ours = Ours(net, b"REGISTER", transport)
    net.run()
    request = parse(net.phone.take()[0])
    assert request.get(b"User-Agent") == b"trunkmgr" and request.get(b"Max-Forwards") == b"70" and request.via.branch
    source = next(m[1] for m in net.wire.sent)
    for _ in range(2):
        net.phone.send(reply(request, b"200 OK"), source)
    net.run()
    assert ours.heard == [200]
    net.run(6)  # K
    assert net.endpoint.live["client_transactions"] == 0


@pytest.mark.rfc("3261", "8.1.3.3")
def test_a_response_with_two_vias_and_one_of_a_foreign_sent_by_are_dropped() -> None:
    net = Net()
    ours = Ours(net, b"REGISTER")
    net.run()
    request = parse(net.phone.take()[0])
    net.send(net.phone, reply(request, b"200 OK").replace(b"CSeq", b"Via: SIP/2.0/UDP x;branch=z9hG4bKq\r\nCSeq"))
    net.send(net.phone, reply(request, b"200 OK").replace(b"UDP 192.0.2.5:5060", b"UDP 192.0.2.6:5060"))
    net.send(net.phone, reply(request, b"200 OK").replace(b"1 REGISTER", b"1 INVITE"))
    assert ours.heard == []


def test_our_invite_is_acknowledged_when_refused() -> None:
    net = Net()
    ours = Ours(net, b"INVITE")
    net.run()
    invite = parse(net.phone.take()[0])
    net.send(net.phone, reply(invite, b"486 Busy"))
    assert starts(net.phone.take()) == [b"ACK"] and ours.heard == [486]


def test_a_refused_connection_is_heard() -> None:
    net = Net()
    endpoint = net.endpoint
    heard: list[Any] = []
    endpoint.send_request(
        b"OPTIONS", b"sip:x", [(n, v % b"OPTIONS" if b"%b" in v else v) for n, v in HEADERS],
        flow=endpoint.flow_for(endpoint.listeners[1], ("192.0.2.88", 5060)), now=0.0,
        on_response=lambda *a: heard.append(a),
        on_failure=lambda error, now: heard.append(type(error)),
    )  # fmt: skip
    net.run()
    assert heard == [FlowClosed]


def test_local_route_edits_our_own_requests() -> None:
    net = Net()
    net.endpoint.local_route = lambda message, flow: message.append(b"X-Local: 1")
    Ours(net, b"REGISTER")
    net.run()
    assert parse(net.phone.take()[0]).get(b"X-Local") == b"1"


@pytest.mark.rfc("3261", "17.2.2")
def test_a_repeated_request_gets_the_last_response_again_and_is_not_routed_again() -> None:
    net = Net()
    message = net.invite(user=b"nobody", method=b"MESSAGE")
    for _ in range(3):
        net.send(net.provider, message)
    answers = net.provider.take()
    assert starts(answers) == [b"SIP/2.0 404"] * 3 and len(set(answers)) == 1
    assert len(net.routing.contexts) == 1 and net.endpoint.counters.retransmissions == 2


@pytest.mark.rfc("3261", "17.2.3")
def test_a_client_of_rfc_2543_is_matched_by_its_fields() -> None:
    net = Net()
    message = net.invite().replace(b";branch=z9hG4bKtest1", b"")
    other = message.replace(b"CSeq: 1", b"CSeq: 2")
    net.send(net.provider, message)
    net.send(net.provider, message)
    net.send(net.provider, other)
    assert len(net.routing.contexts) == 2 and len(net.phone.take()) == 2


@pytest.mark.rfc("3261", "17.2.1")
@pytest.mark.skipif(not TABLES.is_dir(), reason="no test data; set SIP_TESTDATA")
def test_timer_g_and_h() -> None:
    table = json.loads((TABLES / "timers.json").read_text())["invite_server_udp"]
    net = Net(latency=0.0)
    times: list[float] = []
    net.provider.on_receive = lambda data, source: (
        data.startswith(b"SIP/2.0 404") and times.append(round(net.wire.now, 3))
    )  # type: ignore[func-returns-value]
    net.provider.send(net.invite(user=b"nobody"), PROXY)
    net.run(100)
    assert times == [0.0, *table["G_retransmit_at"]]
    assert net.endpoint.live["server_transactions"] == 0


def test_the_timer_queue_fires_in_time_and_forgets_what_moved_on() -> None:
    class Owner:
        def __init__(self) -> None:
            self.due = NEVER
            self.fired: list[float] = []

        def on_timer(self, now: float) -> None:
            self.fired.append(now)

    queue = TimerQueue()
    one, two = Owner(), Owner()
    assert queue.next_at() == NEVER
    queue.arm(one, 5.0, 0.0)
    queue.arm(one, 1.0, 0.0)
    queue.arm_at(two, 3.0)
    queue.arm_at(two, 2.0)
    assert queue.next_at() == 1.0
    for now in (0.5, 1.0, 2.0, 3.0, 5.0):
        queue.expire(now)
    assert one.fired == [1.0] and two.fired == [2.0] and queue.next_at() == NEVER
