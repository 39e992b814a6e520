"""UDP and TCP on IPv4 and IPv6 through a running `manage.py up`: SIPp at both ends, and peers that misuse them."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.interop.conftest import Place
from tests.interop.peers import Sipp, assert_clean
from tests.interop.product import Embedded
from tests.interop.programs import eventually, free_port

pytestmark = pytest.mark.interop("sipp")

V6 = "::1"
CUT = 30.0
"""Seconds that the product gives a message from its first byte to its last."""


def _has_v6() -> bool:
    try:
        free_port(V6)
    except OSError:
        return False
    return True


HAS_V6 = _has_v6()


def shown(address: tuple[str, int]) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


@dataclass
class Stand:
    product: Embedded
    place: Place
    pbxs: dict[str, tuple[str, int]]
    """By account: where its calls arrive."""

    def sip(self, host: str) -> tuple[str, int]:
        """Our socket of the same family as `host`."""
        return (V6 if ":" in host else "127.0.0.1", self.product.sip[1])


@pytest.fixture(scope="module")
def stand(trunkmgr_up: Callable[..., Embedded], place: Place) -> Stand:
    """Sockets of every kind, and one account and one PBX for each."""
    product = trunkmgr_up(start=False)
    if HAS_V6:
        port = product.sip[1]
        product.env["TRUNKMGR_SIP_LISTEN"] += f",udp:[::1]:{port},tcp:[::1]:{port}"
    product.start()
    pbxs = {"udp": place.pbx_port(), "tcp": place.pbx_port(), "raw": place.pbx_port()}
    if HAS_V6:
        pbxs |= {"udpsix": (V6, free_port(V6)), "tcpsix": (V6, free_port(V6))}
    product.provision(
        f"sip:{place.provider}:{free_port(place.provider)}",
        domain="rheintel.example",
        addresses=place.provider,
        next_hop=place.pbx_port(),
        accounts=[{"l_uuid": name, "l_domain": f"{name}.example"} for name in pbxs],
    )
    if HAS_V6:
        product.manage("provider", "set", "RheinTel", "--address", place.provider, "--address", V6)
    for name, address in pbxs.items():
        over = ";transport=tcp" if name.startswith("tcp") else ""
        product.manage("domain", "set", f"{name}.example", "--next-hop", f"sip:{shown(address)}{over}")
    time.sleep(1.5)  # the worker is woken by each; its poll is the latest
    return Stand(product, place, pbxs)


CALLS = [
    ("t1", "v4", "udp"), ("tn", "v4", "tcp"), ("u1", "v4", "tcp"), ("u1", "v6", "udpsix"), ("t1", "v6", "tcpsix"),
    ("tn", "v6", "tcpsix"), ("u1", "v4", "tcpsix"), ("t1", "v6", "udp"),
]  # fmt: skip


@pytest.mark.checklist("B1")
@pytest.mark.rfc("5658", "5")
@pytest.mark.parametrize(("near", "family", "far"), CALLS)
def test_calls_between_all_transports(
    sipp: Callable[..., Sipp], stand: Stand, near: str, family: str, far: str
) -> None:
    if (family == "v6" or far.endswith("six")) and not HAS_V6:
        pytest.skip("This machine has no ::1.")
    count, rate = 40, 20
    host = V6 if family == "v6" else stand.place.provider
    callee = sipp(
        "callee_transport", stand.pbxs[far], count=count, transport="t1" if far.startswith("tcp") else "u1",
        seconds=count / rate + 15,
    )  # fmt: skip
    caller = sipp(
        "caller_transport", (host, free_port(host)), stand.sip(host), count=count, rate=rate, transport=near,
        users=[far], seconds=count / rate + 15,
    )  # fmt: skip
    result = caller.result()
    assert_clean(callee.result(), count)
    assert_clean(result, count)
    got = callee.messages
    # The INVITE's Via names us over the callee's transport, and both values of a pair of Record-Routes are reachable.
    over = "TCP" if far.startswith("tcp") else "UDP"
    own_far = shown(stand.sip(stand.pbxs[far][0]))
    assert f"Via: SIP/2.0/{over} {own_far};branch=z9hG4bK" in got
    routes = re.findall(r"^Record-Route: <sip:(\S+?);", got, re.M)
    pair = {own_far, shown(stand.sip(host))}
    assert set(routes) == pair
    if near[0] != ("t" if over == "TCP" else "u") or len(pair) == 2:
        assert ";r2=on" in got


@dataclass
class Got:
    """A message that a peer received, and how to answer it."""

    text: str
    over: str
    answer: Callable[[bytes], None]

    @property
    def start(self) -> str:
        return self.text.partition("\r\n")[0]

    def header(self, name: str) -> list[str]:
        return re.findall(rf"^{name}: *(.*?)\r$", self.text.partition("\r\n\r\n")[0] + "\r", re.M)


class Peer:
    """Both sockets of a peer at one port; nothing is answered by itself."""

    def __init__(self, address: tuple[str, int], tcp: bool = True) -> None:
        self.address = address
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(address)
        self.tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.tcp.bind(address)
        self.listening = [self.tcp] if tcp else []
        if tcp:
            self.tcp.listen()
        self.streams: dict[socket.socket, bytes] = {}
        self.queue: list[Got] = []

    def close(self) -> None:
        self.drop()
        self.udp.close()
        self.tcp.close()

    def drop(self) -> None:
        """Break every connection."""
        for stream in self.streams:
            stream.close()
        self.streams.clear()

    def take(self, start: str, within: float = 5.0) -> Got:
        """Return the next message that starts so; repeats and what comes before it are passed over."""
        until = time.monotonic() + within
        while True:
            while self.queue:
                got = self.queue.pop(0)
                if got.text.startswith(start):
                    return got
            left = until - time.monotonic()
            assert left > 0, f"{shown(self.address)} got no {start!r} within {within:g} s."
            self._read(left)

    def _read(self, seconds: float) -> None:
        for sock in select.select([self.udp, *self.listening, *self.streams], [], [], seconds)[0]:
            if sock is self.udp:
                data, source = self.udp.recvfrom(65535)
                self._got(data, "UDP", lambda wire, source=source: self.udp.sendto(wire, source))
            elif sock is self.tcp:
                self.streams[self.tcp.accept()[0]] = b""
            else:
                data = sock.recv(65535)
                if not data:
                    sock.close()
                    del self.streams[sock]
                    continue
                self.streams[sock] += data
                self._frame(sock)

    def _frame(self, sock: socket.socket) -> None:
        while (end := self.streams[sock].find(b"\r\n\r\n")) >= 0:
            found = re.search(rb"Content-Length: *(\d+)", self.streams[sock][:end])
            size = end + 4 + int(found[1] if found else 0)
            if len(self.streams[sock]) < size:
                return
            data, self.streams[sock] = self.streams[sock][:size], self.streams[sock][size:]
            self._got(data, "TCP", sock.sendall)

    def _got(self, data: bytes, over: str, answer: Callable[[bytes], object]) -> None:
        if data.strip():
            self.queue.append(Got(data.decode(), over, answer))  # type: ignore[arg-type]

    def connect(self, to: tuple[str, int]) -> socket.socket:
        stream = socket.create_connection(to, 5, (self.address[0], 0))
        self.streams[stream] = b""
        return stream


@dataclass
class Call:
    """What the raw provider and PBX know of a call that stands."""

    invite: Got
    ok: Got
    to_pbx: Got


class Raw:
    """A provider and a PBX that are sockets of this test."""

    def __init__(self, stand: Stand, provider: Peer, pbx: Peer) -> None:
        self.stand, self.provider, self.pbx = stand, provider, pbx
        self.number = time.monotonic_ns()

    def request(self, method: str, ruri: str, peer: Peer, over: str, lines: list[str], body: str = "") -> bytes:
        self.number += 1
        contact = f"Contact: <sip:x@{shown(peer.address)}>"
        head = [
            f"{method} {ruri} SIP/2.0",
            f"Via: SIP/2.0/{over} {shown(peer.address)};branch=z9hG4bK{self.number};rport",
            "Max-Forwards: 70", *lines, contact, f"Content-Length: {len(body)}",
        ]  # fmt: skip
        return "\r\n".join([*head, "", body]).encode()

    def reply(self, got: Got, status: str, peer: Peer, body: str = "") -> None:
        to = got.header("To")[0]
        lines = [f"SIP/2.0 {status}", *(f"Via: {via}" for via in got.header("Via"))]
        lines += [f"Record-Route: {route}" for route in got.header("Record-Route")]
        lines += [f"From: {got.header('From')[0]}", f"To: {to}" + ("" if ";tag=" in to else ";tag=pbx")]
        lines += [f"{name}: {got.header(name)[0]}" for name in ("Call-ID", "CSeq")]
        lines += [f"Contact: <sip:x@{shown(peer.address)}>", f"Content-Length: {len(body)}", "", body]
        got.answer("\r\n".join(lines).encode())

    def establish(self, sdp: str = "") -> Call:
        """The provider calls over UDP, the PBX answers, the ACK arrives."""
        us = self.stand.sip(self.provider.address[0])
        ruri = f"sip:raw@{shown(us)}"
        self.call_id = f"call{self.number}"
        lines = ["From: <sip:4711@caller.example>;tag=c", f"To: <{ruri}>", f"Call-ID: {self.call_id}", "CSeq: 1 INVITE"]
        self.provider.udp.sendto(self.request("INVITE", ruri, self.provider, "UDP", lines, sdp), us)
        invite = self.pbx.take("INVITE")
        self.reply(invite, "200 OK", self.pbx)
        ok = self.provider.take("SIP/2.0 200")
        self.ok = ok
        self.send_as_caller("ACK", 1)
        ack = self.pbx.take("ACK")
        return Call(invite, ok, ack)

    def send_as_caller(self, method: str, cseq: int) -> None:
        ok = self.ok
        lines = [f"Route: {route}" for route in reversed(ok.header("Record-Route"))]
        lines += [f"{name}: {ok.header(name)[0]}" for name in ("From", "To", "Call-ID")] + [f"CSeq: {cseq} {method}"]
        ruri = ok.header("Contact")[0].strip("<>")
        us = self.stand.sip(self.provider.address[0])
        self.provider.udp.sendto(self.request(method, ruri, self.provider, "UDP", lines), us)

    def as_callee(self, call: Call, method: str, cseq: int, over: str, body: str = "") -> bytes:
        invite = call.invite
        lines = [f"Route: {route}" for route in invite.header("Record-Route")]
        lines += [
            f"From: {invite.header('To')[0]};tag=pbx", f"To: {invite.header('From')[0]}",
            f"Call-ID: {self.call_id}", f"CSeq: {cseq} {method}",
        ]  # fmt: skip
        return self.request(method, invite.header("Contact")[0].strip("<>"), self.pbx, over, lines, body)


@pytest.fixture
def raw(stand: Stand) -> Iterator[Callable[..., Raw]]:
    with contextlib.ExitStack() as stack:

        def make(pbx_tcp: bool = True) -> Raw:
            provider = Peer(stand.place.provider_port())
            pbx = Peer(stand.pbxs["raw"], pbx_tcp)
            stack.callback(provider.close)
            stack.callback(pbx.close)
            return Raw(stand, provider, pbx)

        yield make


SDP = "v=0\r\n" + "".join(f"a=candidate:{number} 1 UDP 2130706431 192.0.2.9 40000 typ host\r\n" for number in range(40))
"""2.3 kB, as browsers and phones with ICE send."""


@pytest.mark.rfc("3261", "18.1.1")
@pytest.mark.parametrize(("rule", "over"), [("rfc", "TCP"), ("udp-only", "UDP")])
def test_long_requests_follow_the_size_rule_of_the_peer(
    stand: Stand, raw: Callable[..., Raw], rule: str, over: str
) -> None:
    stand.product.manage("provider", "set", "RheinTel", "--size-rule", rule)
    time.sleep(1.5)
    there = raw()
    call = there.establish(SDP)
    assert call.invite.over == "TCP" and call.invite.header("Via")[0].startswith("SIP/2.0/TCP ")
    assert call.invite.text.partition("\r\n\r\n")[2] == SDP, "the body is the caller's"
    assert call.to_pbx.over == "UDP", "a short ACK"
    # The PBX's re-INVITE goes to the provider by the provider's rule.
    us = stand.sip(there.pbx.address[0])
    there.pbx.udp.sendto(there.as_callee(call, "INVITE", 7, "UDP", SDP), us)
    again = there.provider.take("INVITE")
    assert again.over == over and again.header("Via")[0].startswith(f"SIP/2.0/{over} ")
    there.reply(again, "200 OK", there.provider)
    assert "CSeq: 7 INVITE" in there.pbx.take("SIP/2.0 200").text
    there.pbx.udp.sendto(there.as_callee(call, "BYE", 8, "UDP"), us)
    bye = there.provider.take("BYE")
    assert bye.over == "UDP"
    there.reply(bye, "200 OK", there.provider)
    assert "CSeq: 8 BYE" in there.pbx.take("SIP/2.0 200").text


@pytest.mark.rfc("3261", "18.1.1")
def test_a_long_invite_falls_back_to_udp_where_tcp_is_refused(raw: Callable[..., Raw]) -> None:
    there = raw(pbx_tcp=False)
    start = time.monotonic()
    call = there.establish(SDP)
    assert call.invite.over == "UDP" and call.invite.header("Via")[0].startswith("SIP/2.0/UDP ")
    assert time.monotonic() - start < 2
    there.send_as_caller("BYE", 2)
    there.reply(there.pbx.take("BYE"), "200 OK", there.pbx)
    assert "CSeq: 2 BYE" in there.provider.take("SIP/2.0 200").text


def test_a_call_survives_its_connections(stand: Stand, raw: Callable[..., Raw]) -> None:
    """A BYE of either side gets through after every connection of the call broke."""
    hop = f"sip:{shown(stand.pbxs['raw'])}"
    stand.product.manage("domain", "set", "raw.example", "--next-hop", f"{hop};transport=tcp")
    time.sleep(1.5)
    try:
        there = raw()
        for caller_ends in (True, False):
            call = there.establish()
            assert call.invite.over == "TCP"
            there.pbx.drop()
            time.sleep(0.2)
            if caller_ends:
                there.send_as_caller("BYE", 2)
                bye = there.pbx.take("BYE")
                there.reply(bye, "200 OK", there.pbx)
                assert "CSeq: 2 BYE" in there.provider.take("SIP/2.0 200").text
            else:
                stream = there.pbx.connect(stand.sip(there.pbx.address[0]))
                stream.sendall(there.as_callee(call, "BYE", 9, "TCP"))
                bye = there.provider.take("BYE")
                there.reply(bye, "200 OK", there.provider)
                assert "CSeq: 9 BYE" in there.pbx.take("SIP/2.0 200").text
    finally:
        stand.product.manage("domain", "set", "raw.example", "--next-hop", hop)


@pytest.mark.rfc("3261", "18.3")
def test_slow_streams_are_cut_while_calls_go_on(sipp: Callable[..., Sipp], stand: Stand) -> None:
    rate = 10
    count = int((CUT + 4) * rate)
    callee = sipp("callee_transport", stand.pbxs["tcp"], count=count, transport="t1", seconds=CUT + 30)
    caller = sipp(
        "caller_transport", stand.place.provider_port(), stand.sip("127.0.0.1"), count=count, rate=rate,
        transport="t1", users=["tcp"], seconds=CUT + 30,
    )  # fmt: skip
    start = time.monotonic()
    head = b"INVITE sip:tcp@127.0.0.1 SIP/2.0\r\nX-Slow: "
    slow = [socket.create_connection(stand.sip("127.0.0.1"), 5, (stand.place.provider, 0)) for _ in range(40)]
    silent = slow[:5]
    ended: dict[socket.socket, float] = {}
    sent = 0
    while len(ended) < len(slow) and time.monotonic() - start < CUT + 6:
        for sock in slow:
            if sock in ended:
                continue
            sock.setblocking(False)
            try:
                if sock not in silent:
                    sock.send(head[sent : sent + 1] or b"x")
                if not sock.recv(100):
                    ended[sock] = time.monotonic() - start
            except BlockingIOError:
                continue
            except OSError:
                ended[sock] = time.monotonic() - start
        sent += 1
        time.sleep(0.5)
    for sock in slow:
        sock.close()
    assert len(ended) == len(slow) and min(ended.values()) > CUT - 2, sorted(ended.values())
    result = caller.result()
    assert_clean(callee.result(), count)
    assert_clean(result, count)


def test_the_worker_is_calm_afterwards(stand: Stand) -> None:
    """Nothing of all this made it log a fault."""
    eventually(lambda: stand.product.pids, 1, "the product runs")
    assert "Traceback" not in stand.product.text
