"""Long requests go over TCP, and over UDP where TCP fails or the peer has none (RFC 3261 §18.1.1)."""

from __future__ import annotations

import pytest

from sipengine.exceptions import TransportError
from sipengine.message import parse
from sipengine.testing import Station
from sipengine.transport.peers import PeerBook
from tests.sipengine.net import PHONE, PROVIDER, Net, assert_nothing_left, reply, starts

pytestmark = pytest.mark.rfc("3261", "18.1.1")


class Book(PeerBook):
    def __init__(self, *udp_only: str) -> None:
        self.hosts = udp_only

    def udp_only(self, host: str) -> bool:
        return host in self.hosts


def invite(net: Net, size: int, call_id: bytes = b"call1", method: bytes = b"INVITE") -> bytes:
    """An INVITE of exactly `size` bytes."""
    plain = net.invite(call_id, method=method)
    fill = b"X-Fill: %b\r\n" % (b"x" * (size - len(plain) - 10))
    return plain.replace(b"Content-Length:", fill + b"Content-Length:")


def phone_over_tcp(net: Net) -> Station:
    return net.wire.station(*PHONE, "tcp")


def length_on_the_wire(net: Net, size: int) -> int:
    """Length of what leaves for an INVITE of `size` bytes, which must go over UDP."""
    net.send(net.provider, invite(net, size, b"measure"))
    return len(net.phone.take()[-1])


def test_the_length_counts_after_our_own_lines() -> None:
    added = length_on_the_wire(Net(), 900) - 900
    assert added > 60, "Via and Record-Route with its token"
    for over in (0, 1):
        net = Net()
        phone = phone_over_tcp(net)
        net.send(net.provider, invite(net, 1300 - added + over, b"measure"))
        got = phone.take() if over else net.phone.take()
        assert starts(got) == [b"INVITE"] and len(got[0]) == 1300 + over
        assert not (net.phone.take() if over else phone.take())


def test_a_long_request_says_tcp_in_its_via_and_its_call_ends_over_udp() -> None:
    net = Net()
    phone = phone_over_tcp(net)
    net.send(net.provider, invite(net, 1500))
    request = parse(phone.take()[0])
    vias = request.get_list(b"Via")
    assert vias[0].startswith(b"SIP/2.0/TCP 192.0.2.5:5060;branch=z9hG4bK") and vias[1].startswith(b"SIP/2.0/UDP ")
    assert b"transport=tcp" not in (request.get(b"Record-Route") or b"")
    source = net.wire.sent[-1][1]
    phone.send(reply(request, b"200 OK", b"pt", b"Contact: <sip:phone@192.0.2.9:5060>"), source)
    net.run()
    ok = parse(net.provider.take()[-1])
    assert ok.start.startswith(b"SIP/2.0 200")
    route = b", ".join(reversed(ok.get_list(b"Record-Route")))
    for method in (b"ACK", b"BYE"):
        net.send(net.provider, net.request(
            method, b"sip:phone@192.0.2.9:5060", parse(net.invite()).get(b"From") or b"", ok.get(b"To") or b"",
            b"call1", 2 if method == b"BYE" else 1, route=route,
        ))  # fmt: skip
    assert starts(net.phone.take()) == [b"ACK", b"BYE"]


@pytest.mark.parametrize("method", [b"INVITE", b"MESSAGE"])
def test_a_peer_without_tcp_gets_it_over_udp_and_is_not_asked_again_for_a_while(method: bytes) -> None:
    net = Net()
    net.send(net.provider, invite(net, 1500, b"one", method))  # the wire refuses the connection
    (datagram,) = net.phone.take()
    request = parse(datagram)
    assert request.get_list(b"Via")[0].startswith(b"SIP/2.0/UDP 192.0.2.5:5060;branch=") and len(datagram) > 1300
    net.run(0.6)
    assert net.phone.take() == [datagram], "timers of UDP"
    net.send(net.phone, reply(request, b"486 Busy Here"))
    assert starts(net.provider.take())[-1] == b"SIP/2.0 486"
    if method == b"INVITE":
        ack = parse(net.phone.take()[0])
        assert ack.start.startswith(b"ACK ") and ack.get_list(b"Via") == request.get_list(b"Via")[:1]
    phone = phone_over_tcp(net)
    net.send(net.provider, invite(net, 1500, b"two", method))
    assert starts(net.phone.take()) == [method] and not phone.take()
    net.run(301)
    net.phone.take()
    net.send(net.provider, invite(net, 1500, b"three", method))
    assert starts(phone.take()) == [method] and not net.phone.take()
    assert_nothing_left(net)
    assert not net.endpoint.transactions.oversize.second


def test_a_connection_that_breaks_before_any_answer_falls_back() -> None:
    net = Net()
    phone = phone_over_tcp(net)
    net.send(net.provider, invite(net, 1500))
    assert starts(phone.take()) == [b"INVITE"] and not net.phone.take()
    (client,) = net.endpoint.transactions.clients.values()
    net.wire.fail(net.endpoint, client.flow, TransportError("reset"))
    net.run()
    assert starts(net.phone.take()) == [b"INVITE"]
    assert starts(net.provider.take()) == [b"SIP/2.0 100"], "the caller hears nothing of it"


def test_a_long_ack_takes_the_same_way() -> None:
    net = Net()
    call = net.establish()
    phone = phone_over_tcp(net)
    ack = call.from_caller(b"ACK", 1, b"X-Fill: " + b"x" * 1300 + b"\r\n")
    net.send(net.provider, ack)
    got = parse(phone.take()[0])
    assert got.start.startswith(b"ACK ") and got.get_list(b"Via")[0].startswith(b"SIP/2.0/TCP ")
    assert not net.phone.take()


@pytest.mark.parametrize("book", [Book(PHONE[0]), Book("192.0.2.77")])
def test_a_udp_only_peer_gets_everything_over_udp(book: Book) -> None:
    net = Net(peers=book)
    phone = phone_over_tcp(net)
    net.send(net.provider, invite(net, 4000))
    by_udp = PHONE[0] in book.hosts
    assert starts(net.phone.take()) == ([b"INVITE"] if by_udp else [])
    assert starts(phone.take()) == ([] if by_udp else [b"INVITE"])


def test_responses_stay_on_udp_whatever_their_length() -> None:
    net = Net()
    provider = net.wire.station(*PROVIDER, "tcp")
    net.send(net.provider, net.invite())
    request = parse(net.phone.take()[0])
    net.send(net.phone, reply(request, b"183 Session Progress", b"pt", b"X-Fill: " + b"x" * 3000))
    assert starts(net.provider.take()) == [b"SIP/2.0 100", b"SIP/2.0 183"] and not provider.take()


def test_requests_of_our_own_follow_the_same_rule() -> None:
    net = Net()
    got: list[int] = []
    phone = phone_over_tcp(net)

    def send(fill: int) -> None:
        flow = net.endpoint.flow_for(net.endpoint.listeners[0], PHONE)
        headers = [
            (b"From", b"<sip:a@b>;tag=1"), (b"To", b"<sip:c@d>"), (b"Call-ID", b"own%d" % fill),
            (b"CSeq", b"1 OPTIONS"), (b"X-Fill", b"x" * fill),
        ]
        net.endpoint.send_request(
            b"OPTIONS", b"sip:192.0.2.9", headers, flow=flow, now=net.wire.now,
            on_response=lambda code, message, now: got.append(code), on_failure=lambda error, now: got.append(0),
        )
        net.run()

    send(10)
    assert starts(net.phone.take()) == [b"OPTIONS"] and not phone.take()
    send(1300)
    (long,) = phone.take()
    assert not net.phone.take()
    phone.send(reply(parse(long), b"200 OK"), net.wire.sent[-1][1])
    net.run()
    assert got == [200]


def test_without_a_tcp_socket_of_ours_it_goes_over_udp() -> None:
    net = Net()
    net.endpoint.transport.listeners[:] = [x for x in net.endpoint.listeners if x.transport == "udp"]
    net.send(net.provider, invite(net, 2000))
    assert starts(net.phone.take()) == [b"INVITE"]
