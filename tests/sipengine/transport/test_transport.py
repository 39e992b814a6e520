"""Streams, names, flows and addresses."""

from __future__ import annotations

import json
import os
import re
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from sipengine.events import ResolutionWanted, Target
from sipengine.exceptions import LocalProtocolError, ParseError, ResolutionError, TransportError
from sipengine.message import parse
from sipengine.timerqueue import TimerQueue
from sipengine.transport.flow import Flow
from sipengine.transport.layer import TransportLayer, no_local_address
from sipengine.transport.locate import Locator
from sipengine.transport.peers import PeerBook
from sipengine.transport.rests import Rests
from sipengine.transport.stream import PING, StreamFramer
from tests.sipengine.net import PHONE, PHONE2, PROXY, Established, Net, reply, starts

TABLES = (
    Path(os.environ.get("SIP_TESTDATA", Path(__file__).resolve().parents[3].parent / "shared" / "testdata"))
    / "rfc-tables"
)
ONE = b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 3\r\n\r\nabc"
TWO = b"OPTIONS sip:c@d SIP/2.0\r\nl : 0\r\n\r\n"


@pytest.mark.rfc("3261", "18.3")
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_messages_are_found_at_every_byte_boundary(size: int) -> None:
    stream = b"\r\n" + ONE + PING + TWO + b"\r\n" + ONE
    framer = StreamFramer()
    found: list[bytes] = []
    for i in range(0, len(stream), size):
        found += framer.feed(stream[i : i + size])
    assert [m for m in found if m != PING] == [ONE, TWO, ONE] and PING in found


@pytest.mark.rfc("3261", "18.3")
@pytest.mark.parametrize(
    "field",
    [b"", b"Content-Length: x\r\n", b"Content-Length: -1\r\n", b"Content-Length: 1\r\nl: 1\r\n", b"l: 70000\r\n"],
)
def test_lost_framing_ends_the_stream(field: bytes) -> None:
    with pytest.raises(ParseError):
        StreamFramer().feed(b"OPTIONS sip:a@b SIP/2.0\r\n" + field + b"\r\n")
    with pytest.raises(ParseError):
        StreamFramer().feed(b"x" * 40000)


@pytest.mark.rfc("5626", "3.5.1")
def test_a_connection_pings_breaks_and_is_replaced() -> None:
    net = Net(transport="tcp")
    net.send(net.provider, PING)
    assert net.provider.take() == [b"\r\n"]
    net.send(net.provider, b"INVITE x\r\n\r\n")
    listener = net.endpoint.listeners[1]
    assert listener.flows == {}
    assert net.endpoint.counters.bad == 1


@pytest.mark.rfc("3261", "18.2.2")
def test_a_response_finds_a_new_connection_when_its_own_ended() -> None:
    net = Net(transport="tcp")
    net.routing.next_hop = b"sip:192.0.2.9:5060;transport=tcp"
    net.send(net.provider, net.invite())
    invite = parse(net.phone.take()[0])
    net.provider.take()
    flow = net.endpoint.listeners[1].flows["192.0.2.1", 5060]
    net.wire.fail(net.endpoint, flow, TransportError("reset"))
    net.send(net.phone, reply(invite, b"180 Ringing"))
    assert starts(net.provider.take()) == [b"SIP/2.0 180"]


@pytest.mark.rfc("3261", "18.2.1")
@pytest.mark.rfc("3581", "4")
@pytest.mark.skipif(not TABLES.is_dir(), reason="no test data; set SIP_TESTDATA")
def test_response_routing_table() -> None:
    for case in json.loads((TABLES / "via-response-routing.json").read_text())["cases"]:
        layer = TransportLayer(no_local_address)
        listener = layer.add_listener("udp", *PROXY)
        host, _, port = case["src"].partition(":")
        message = parse(b"OPTIONS sip:a@b SIP/2.0\r\nVia: " + case["via"].encode() + b"\r\n\r\n")
        _, back = layer.receive_via(message, 0, layer.flow_for(listener, (host, int(port))))
        for expected in filter(None, case["expect_added"].split(";")):
            assert f";{expected}" in message.lines[0].decode()
        if not case["expect_added"]:
            assert b"received" not in message.lines[0]
        if "respond_to" in case:
            assert back.remote == (case["respond_to"].split(":")[0], int(case["respond_to"].split(":")[1]))


@pytest.mark.checklist("M12")
def test_received_that_a_client_wrote_itself_is_overwritten() -> None:
    layer = TransportLayer(no_local_address)
    flow = layer.flow_for(layer.add_listener("udp", *PROXY), ("192.0.2.1", 5060))
    message = parse(
        b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;received=6.6.6.6;rport=66;branch=z9hG4bKx\r\n\r\n"
    )
    layer.receive_via(message, 0, flow)
    assert b"6.6.6.6" not in message.lines[0] and message.via.rport == 5060 and message.via.branch == b"z9hG4bKx"


def test_a_wildcard_listener_is_called_by_the_address_of_the_route_to_each_peer() -> None:
    asked: list[Any] = []
    layer = TransportLayer(
        lambda transport, remote: asked.append(remote) or ("10.0.0.1" if remote.startswith("10.") else "192.0.2.5")
    )
    listener = layer.add_listener("udp", "0.0.0.0", 5060)
    inside, outside = layer.flow_for(listener, ("10.0.0.7", 5060)), layer.flow_for(listener, ("198.51.100.1", 5060))
    assert inside.sent_by == b"10.0.0.1:5060" and outside.via.startswith(b"Via: SIP/2.0/UDP 192.0.2.5:5060;")
    layer.flow_for(listener, ("10.0.0.7", 9999))
    assert asked == ["10.0.0.7", "198.51.100.1"]
    assert layer.is_own(b"10.0.0.1", None) and layer.is_own(b"192.0.2.5", 5060) and not layer.is_own(b"192.0.2.5", 5070)
    with pytest.raises(LocalProtocolError):
        bare = TransportLayer(no_local_address)
        bare.flow_for(bare.add_listener("udp", "0.0.0.0", 5060), ("10.0.0.7", 5060))


def test_the_listener_follows_transport_family_and_route() -> None:
    layer = TransportLayer(lambda transport, remote: "192.0.2.6")
    one, two = layer.add_listener("udp", *PROXY), layer.add_listener("udp", "192.0.2.6", 5060)
    six = layer.add_listener("udp", "2001:db8::5", 5060)
    assert layer.listener_for("udp", "198.51.100.1") is two and layer.listener_for("udp", "198.51.100.1", one) is one
    assert (
        layer.listener_for("udp", "2001:db8::9", one) is six
        and layer.flow_for(six, ("::1", 1)).sent_by == b"[2001:db8::5]:5060"
    )
    with pytest.raises(TransportError):
        layer.listener_for("tcp", "198.51.100.1")


@pytest.mark.parametrize("host", ["224.0.0.1", "255.255.255.255", "0.0.0.0", "ff02::1", "::"])
@pytest.mark.checklist("M12")
def test_groups_of_hosts_are_no_next_hop(host: str) -> None:
    layer = TransportLayer(no_local_address)
    layer.add_listener("udp", *PROXY), layer.add_listener("udp", "2001:db8::5", 5060)
    for _ in range(2):
        with pytest.raises(TransportError):
            layer.listener_for("udp", host)


def test_we_are_no_peer_of_ours_where_the_port_is_ours_too() -> None:
    layer = TransportLayer(no_local_address)
    udp = layer.add_listener("udp", *PROXY)
    six = layer.add_listener("udp", "2001:db8::5", 5060)
    with pytest.raises(TransportError):
        layer.listener_for("udp", PROXY[0], None, PROXY[1])
    with pytest.raises(TransportError):
        layer.listener_for("udp", "2001:db8::5", None, 5060)
    assert layer.listener_for("udp", PROXY[0], None, 5070) is udp and layer.listener_for("udp", "2001:db8::5") is six
    layer.add_alias("198.51.100.7:5060")
    with pytest.raises(TransportError):
        layer.listener_for("udp", "198.51.100.7", None, 5060)


@pytest.mark.rfc("3261", "18.1.1")
def test_requests_to_a_group_of_hosts_get_500_and_nothing_leaves() -> None:
    net = Net()
    net.routing.next_hop = b"sip:224.0.0.1:5060"
    net.send(net.provider, net.invite())
    assert starts(net.provider.take()) == [b"SIP/2.0 100", b"SIP/2.0 500"]
    assert not [to for _, _, to, _ in net.wire.sent if to[0].startswith("224.")]


def test_a_response_that_would_come_to_ourselves_is_not_sent() -> None:
    net = Net()
    there = net.wire.station(PROXY[0], 7000)  # another program at our own address, which names our port in its Via
    there.send(net.invite().replace(b"192.0.2.1:5060;branch", b"192.0.2.5:5060;branch"), PROXY)
    net.run()
    assert not [to for _, _, to, _ in net.wire.sent if to == PROXY][1:] and not net.phone.take()


@pytest.mark.rfc("3261", "18.1.2")
@pytest.mark.parametrize("related", [False, True])
@pytest.mark.checklist("M1")
def test_a_response_comes_from_where_its_request_went_or_from_an_address_of_the_same_peer(related: bool) -> None:
    class Book(PeerBook):
        def same_peer(self, asked: str, answered: str) -> bool:
            return related and (asked, answered) == (PHONE[0], PHONE2[0])

    net = Net(peers=Book())
    net.send(net.provider, net.invite())
    request = parse(net.phone.take()[0])
    net.provider.take()
    elsewhere = net.wire.station(*PHONE2)
    net.send(elsewhere, reply(request, b"180 Ringing"))
    assert starts(net.provider.take()) == ([b"SIP/2.0 180"] if related else [])
    assert net.endpoint.counters.foreign == (0 if related else 1)
    other_port = net.wire.station(PHONE[0], 40123)  # §18.2.2 says nothing of the port a response leaves from
    net.send(other_port, reply(request, b"183 Session Progress"))
    assert starts(net.provider.take()) == [b"SIP/2.0 183"]


@pytest.mark.rfc("3261", "18.1.2")
def test_a_response_whose_top_via_is_not_ours_is_dropped() -> None:
    net = Net()
    net.send(net.provider, net.invite())
    request = parse(net.phone.take()[0])
    net.provider.take()
    answer = reply(request, b"180 Ringing").replace(b"192.0.2.5:5060;branch", b"192.0.2.66:5060;branch", 1)
    net.send(net.phone, answer)
    assert not net.provider.take() and net.endpoint.counters.bad == 1
    net.send(net.phone, reply(request, b"180 Ringing"))
    assert starts(net.provider.take()) == [b"SIP/2.0 180"]


@pytest.mark.rfc("3261", "18.4")
def test_a_datagram_that_cannot_be_delivered_ends_what_would_be_repeated_only() -> None:
    net = Net()
    net.send(net.provider, net.invite(b"ringing"))
    net.send(net.phone, reply(parse(net.phone.take()[0]), b"180 Ringing"))
    net.send(net.provider, net.invite(b"unanswered"))
    net.provider.take()
    flow = net.endpoint.listeners[0].flows[PHONE]
    net.wire.fail(net.endpoint, flow, TransportError("port unreachable"))
    net.run()
    (answer,) = net.provider.take()
    assert answer.startswith(b"SIP/2.0 500") and b"Call-ID: unanswered" in answer


@pytest.mark.rfc("6026", "7.3")
def test_a_response_to_nothing_that_we_sent_is_dropped() -> None:
    net = Net()
    net.send(net.provider, net.invite())
    request = parse(net.phone.take()[0])
    net.provider.take()
    answer = reply(request, b"180 Ringing")
    branch = request.via.branch
    net.send(net.phone, answer.replace(branch, branch[:-4] + b"0000", 1))
    net.send(net.phone, answer.replace(b" INVITE\r\n", b" BYE\r\n", 1))
    assert not net.provider.take() and net.endpoint.counters.stray == 2


@pytest.mark.rfc("3581", "3")
def test_our_requests_ask_for_rport_and_leave_from_the_port_that_they_name() -> None:
    net = Net()
    net.send(net.provider, net.invite())
    (invite,) = net.phone.take()
    assert re.search(rb"Via: SIP/2.0/UDP 192.0.2.5:5060;branch=z9hG4bK[0-9a-f]{16,};rport\r\n", invite)
    assert [source for _, source, to, _ in net.wire.sent if to == PHONE] == [PROXY]
    net.endpoint.send_request(
        b"OPTIONS", b"sip:192.0.2.9",
        [(b"From", b"<sip:a@b>;tag=1"), (b"To", b"<sip:c@d>"), (b"Call-ID", b"own"), (b"CSeq", b"1 OPTIONS")],
        flow=net.endpoint.flow_for(net.endpoint.listeners[0], PHONE), now=net.wire.now,
        on_response=lambda code, message, now: None, on_failure=lambda error, now: None,
    )
    net.run()
    (own,) = net.phone.take()
    assert re.search(rb"Via: SIP/2.0/UDP 192.0.2.5:5060;branch=z9hG4bK[0-9a-f]{16,};rport\r\n", own)
    assert net.wire.sent[-1][1] == PROXY


@pytest.mark.rfc("5923", "5")
def test_nobody_is_called_back_on_the_port_that_he_opened_a_connection_from() -> None:
    net = Net(transport="tcp")
    net.routing.next_hop = b"sip:192.0.2.9:5060;transport=tcp"
    ephemeral = net.wire.station("192.0.2.1", 40001, "tcp")
    net.send(ephemeral, net.invite())
    request = parse(net.phone.take()[0])
    ok = reply(request, b"200 OK", b"pt", b"Contact: <sip:phone@192.0.2.9:5060;transport=tcp>")
    net.phone.send(ok, net.wire.sent[-1][1])
    net.run()
    assert starts(ephemeral.take()) == [b"SIP/2.0 100", b"SIP/2.0 200"], "responses use the connection"
    call = Established(net, request, parse(ok), b"pt")
    net.send(net.phone, call.from_callee(b"BYE", 1))
    assert starts(net.provider.take()) == [b"BYE"] and not ephemeral.take(), "requests go to the Contact"


@pytest.mark.rfc("3261", "17.1.4")
@pytest.mark.rfc("3261", "16.9")
@pytest.mark.rfc("3261", "8.1.3.1")
def test_a_refused_connection_is_a_503_and_the_next_target_is_asked() -> None:
    net = Net()
    net.routing.next_hop = b"sip:pbx.example;transport=tcp"
    net.wire.hosts["pbx.example"] = [Target("tcp", ("192.0.2.66", 5060)), Target("udp", PHONE)]
    net.send(net.provider, net.invite(b"one"))
    assert starts(net.phone.take()) == [b"INVITE"] and starts(net.provider.take()) == [b"SIP/2.0 100"]
    net = Net()
    net.routing.next_hop = b"sip:192.0.2.66;transport=tcp"
    net.send(net.provider, net.invite(b"two"))
    assert starts(net.provider.take()) == [b"SIP/2.0 100", b"SIP/2.0 500"], "503 is not passed on"
    assert net.endpoint.counters.transport_errors == 1


@pytest.mark.rfc("7984", "4")
def test_targets_of_both_families_are_tried() -> None:
    net = Net()
    net.routing.next_hop = b"sip:pbx.example"
    six = net.wire.station("2001:db8::9", 5060)
    net.wire.hosts["pbx.example"] = [Target("udp", ("2001:db8::9", 5060)), Target("udp", PHONE)]
    net.send(net.provider, net.invite(b"one"))
    assert starts(net.phone.take()) == [b"INVITE"] and not six.take(), "we have no IPv6 here"
    net.endpoint.add_listener("udp", "2001:db8::5", 5060)
    net.send(net.provider, net.invite(b"two"))
    (invite,) = six.take()
    assert b"\r\nRecord-Route: <sip:[2001:db8::5]:5060;lr;r2=on" in invite
    assert b"Via: SIP/2.0/UDP [2001:db8::5]:5060;branch=" in invite
    assert b"Record-Route: <sip:192.0.2.5:5060;lr;r2=on>\r\n" in invite


@pytest.mark.rfc("5118", "4.5")
def test_ipv6_has_brackets_in_via_and_record_route_and_none_in_received() -> None:
    layer = TransportLayer(no_local_address)
    flow = layer.flow_for(layer.add_listener("tcp", "2001:db8::5", 5060), ("2001:db8::9", 5062))
    assert flow.via == b"Via: SIP/2.0/TCP [2001:db8::5]:5060;branch=z9hG4bK"
    assert flow.route == b"<sip:[2001:db8::5]:5060;transport=tcp;lr"
    message = parse(b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP [2001:db8::77];rport;branch=z9hG4bKx\r\n\r\n")
    layer.receive_via(message, 0, flow)
    assert b";received=2001:db8::9;rport=5062" in message.lines[0]
    message = parse(b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP [2001:db8::9]:5062;branch=z9hG4bKx\r\n\r\n")
    layer.receive_via(message, 0, flow)
    assert b"received" not in message.lines[0]


def test_flows_are_bounded() -> None:
    layer = TransportLayer(no_local_address)
    listener = layer.add_listener("udp", *PROXY)
    for port in range(1, 40000):
        layer.flow_for(listener, ("192.0.2.1", port))
    assert len(listener.flows) <= 16384


def test_numeric_hosts_are_located_at_once_and_names_by_the_host() -> None:
    events: deque[Any] = deque()
    locator = Locator(events, Rests(TimerQueue()))
    found: list[Any] = []
    locator.locate("sip:x@[::1]:5070;transport=TCP", lambda targets, now: found.append(targets), 1.0)
    assert found == [[Target("tcp", ("::1", 5070))]] and not events
    for _ in range(2):
        locator.locate(b"sip:PBX.example", lambda targets, now: found.append((targets, now)), 1.0)
    assert list(events) == [ResolutionWanted("pbx.example", None, None)]
    locator.resolved(events[0], [Target("udp", ("192.0.2.1", 5060))], 2.0)
    assert found[1:] == [([Target("udp", ("192.0.2.1", 5060))], 2.0)] * 2
    events.clear()
    for uri, target in (
        (b"sips:x@192.0.2.1", ("tls", 5061)), (b"sips:x@192.0.2.1:5071;transport=tcp", ("tls", 5071)),
        (b"sip:x@192.0.2.1;transport=tls", ("tls", 5061)), (b"sip:x@192.0.2.1;transport=tcp", ("tcp", 5060)),
    ):  # fmt: skip
        locator.locate(uri, lambda targets, now: found.append(targets), 1.0)
        assert found[-1] == [Target(target[0], ("192.0.2.1", target[1]))]
    locator.locate(b"sips:x@pbx.example;transport=udp", lambda targets, now: found.append(targets), 1.0)
    assert isinstance(found[-1], ResolutionError) and "TLS only" in str(found[-1]) and not events
    locator.locate(b"sips:x@pbx.example;transport=tcp", lambda targets, now: None, 1.0)
    assert events.pop() == ResolutionWanted("pbx.example", None, "tls", secure=True)
    locator.locate(b"tel:+49", lambda targets, now: found.append(targets), 1.0)
    assert isinstance(found[-1], ResolutionError)


def test_a_flow_says_whether_it_is_reliable() -> None:
    layer = TransportLayer(no_local_address)
    assert (
        not Flow(layer.add_listener("udp", *PROXY), PROXY).reliable
        and Flow(layer.add_listener("tcp", *PROXY), PROXY).reliable
    )
