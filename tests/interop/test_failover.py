"""Names with several servers, from a real DNS server on loopback: the first is dead, refuses, or answers 503.

SIPp calls from the provider's address, SIPp answers behind a next hop that is a name; Kamailio registers behind a
provider that is a name.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.interop.conftest import Place
from tests.interop.nameserver import Nameserver
from tests.interop.peers import Registrar, Sipp, assert_clean
from tests.interop.product import Embedded, account_file
from tests.interop.programs import eventually, free_port

pytestmark = [pytest.mark.interop("sipp"), pytest.mark.timeout(200)]

KINDS = ("dead", "refuses", "busy")


class Server:
    """The first target: a UDP socket that keeps what it gets and answers 503, or nothing."""

    def __init__(self, host: str, answer: bool) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, free_port(host)))
        self._answer = answer
        self.heard: list[tuple[float, str]] = []
        self._thread = threading.Thread(target=self._serve, name="server", daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._socket.getsockname()
        return host, port

    def of(self, method: str) -> list[str]:
        return [text for _, text in list(self.heard) if text.startswith(method)]

    def _serve(self) -> None:
        while True:
            try:
                data, source = self._socket.recvfrom(65535)
            except OSError:
                return
            if not data:
                return
            text = data.decode()
            self.heard.append((time.monotonic(), text))
            if self._answer and not text.startswith(("ACK", "SIP/2.0")):
                self._socket.sendto(response(text, "503 Service Unavailable"), source)

    def send(self, data: bytes, to: tuple[str, int]) -> None:
        self._socket.sendto(data, to)

    def stop(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self.address)
        self._thread.join(5)
        self._socket.close()


def response(request: str, status: str, *extra: str) -> bytes:
    """A response as a UAS writes it."""
    lines = [f"SIP/2.0 {status}"]
    for line in request.split("\r\n\r\n")[0].split("\r\n")[1:]:
        name = line.partition(":")[0].lower()
        if name in ("via", "from", "call-id", "cseq", "record-route"):
            lines.append(line)
        elif name == "to":
            lines.append(line if ";tag=" in line else line + ";tag=first")
    return "\r\n".join([*lines, *extra, "Content-Length: 0", "", ""]).encode()


@dataclass
class Stand:
    product: Embedded
    names: Nameserver
    place: Place
    pbx: tuple[str, int]
    registrar: Registrar
    first: dict[str, Server]
    """By kind, towards the PBX and, with `-reg`, towards the provider."""


@pytest.fixture(scope="module")
def stand(
    trunkmgr_up: Callable[..., Embedded], kamailio_registrar: Callable[..., Registrar], place: Place
) -> Iterator[Stand]:
    names, registrar, pbx = Nameserver(), kamailio_registrar(), place.pbx_port()
    first = {
        "dead": Server(place.pbx, answer=False), "busy": Server(place.pbx, answer=True),
        "dead-reg": Server(place.provider_2, answer=False), "busy-reg": Server(place.provider_2, answer=True),
    }  # fmt: skip
    names.records |= {
        ("first.pbx.example", "A"): [place.pbx], ("second.pbx.example", "A"): [pbx[0]],
        ("first.rheintel.example", "A"): [place.provider_2], ("second.rheintel.example", "A"): [registrar.host],
    }  # fmt: skip
    for zone, second, suffix in (("pbx", pbx[1], ""), ("rheintel", registrar.port, "-reg")):
        host = place.pbx if zone == "pbx" else place.provider_2
        for kind in KINDS:
            name = f"{kind}.{zone}.example"
            one = f"0 10 {first[kind + suffix].address[1]} first.{zone}.example." if kind != "refuses" else ""
            two = f"1 0 {second} second.{zone}.example."
            names.records[f"_sip._udp.{name}", "SRV"] = [one, two] if one else [two]
            if kind == "refuses":  # a TCP connection that nobody accepts, then UDP
                names.records[f"_sip._tcp.{name}", "SRV"] = [f"0 0 {free_port(host)} first.{zone}.example."]
                names.records[name, "NAPTR"] = [
                    f'10 10 "s" "SIP+D2T" "" _sip._tcp.{name}.', f'10 20 "s" "SIP+D2U" "" _sip._udp.{name}.'
                ]  # fmt: skip
    product = trunkmgr_up({"TRUNKMGR_NAMESERVERS": names.address, "TRUNKMGR_HOSTS": f"mapped.pbx.example={pbx[0]}"})
    for kind in KINDS:
        domain = f"{kind}.rheintel.example"
        options = ("--domain", domain, "--proxy", f"sip:{domain}", "--address", place.provider)
        product.manage("provider", "set", kind, *options)
    product.manage("domain", "set", "pbx.example", "--next-hop", "sip:dead.pbx.example")
    accounts = [{"l_uuid": kind, "r_domain": f"{kind}.rheintel.example", "provider": kind} for kind in KINDS]
    product.manage("uacreg", "import", "-", stdin=account_file("rheintel.example", accounts))
    try:
        yield Stand(product, names, place, pbx, registrar, first)
    finally:
        names.stop()
        for server in first.values():
            server.stop()


def lead_to(stand: Stand, next_hop: str) -> None:
    stand.product.manage("domain", "set", "pbx.example", "--next-hop", next_hop)
    time.sleep(1.2)  # it is woken; its look once a second is the net below


@contextlib.contextmanager
def callee(sipp: Callable[..., Sipp], stand: Stand, count: int) -> Iterator[None]:
    """The second server answers `count` calls in all, each as its scenario says."""
    far = sipp("callee", stand.pbx, count=count, seconds=60)
    yield
    assert_clean(far.result(), count)


def place_calls(sipp: Callable[..., Sipp], stand: Stand, count: int, rate: float) -> None:
    """Every call is answered."""
    near = sipp(
        "caller", stand.place.provider_port(), stand.product.sip, count=count, rate=rate, users=["dead"],
        seconds=count / rate + 30,
    )  # fmt: skip
    assert_clean(near.result(), count)


@pytest.mark.rfc("3263", "4.3")
@pytest.mark.rfc("2782", "Usage rules")
@pytest.mark.parametrize("kind", KINDS)
def test_calls_go_to_the_second_server(sipp: Callable[..., Sipp], stand: Stand, kind: str) -> None:
    lead_to(stand, f"sip:{kind}.pbx.example")
    with callee(sipp, stand, 25):
        place_calls(sipp, stand, count=20, rate=4)
        asked = stand.first[kind].of("INVITE") if kind in stand.first else []
        place_calls(sipp, stand, count=5, rate=10)
    if kind == "refuses":
        return
    assert len(stand.first[kind].of("INVITE")) == len(asked), "it still rests"
    calls = {re.search(r"(?mi)^Call-ID: *(.*)$", text)[1] for text in asked}  # type: ignore[index]
    # Dead: what came within the try timer. Busy: the first, and what came before its answer.
    assert 1 <= len(calls) <= (5.5 * 4 if kind == "dead" else 2), "asked first; while it rests, no call waits for it"


@pytest.mark.rfc("3263", "4.3")
@pytest.mark.parametrize("kind", KINDS)
def test_registrations_go_to_the_second_server(stand: Stand, kind: str) -> None:
    # A silent server costs REGISTER its Timer F of 32 s.
    eventually(lambda: stand.registrar.binding(kind), 45, f"{kind} is registered at the second server")
    eventually(lambda: stand.product.registration(kind)["state"] == "registered", 3, "the table says registered")
    if kind == "refuses":
        return
    bound, asked_first = stand.registrar.binding(kind), stand.first[f"{kind}-reg"].of("REGISTER")
    assert bound is not None and asked_first
    assert all(bound.call_id in text for text in asked_first), "one binding, one Call-ID"


@pytest.mark.rfc("3263", "4.3")
@pytest.mark.rfc("3261", "13.2.2.4")
def test_a_late_answer_of_the_first_server_is_hung_up(sipp: Callable[..., Sipp], stand: Stand) -> None:
    first = Server(stand.place.pbx, answer=False)
    try:
        stand.names.records["_sip._udp.late.pbx.example", "SRV"] = [
            f"0 0 {first.address[1]} first.pbx.example.", f"1 0 {stand.pbx[1]} second.pbx.example."
        ]  # fmt: skip
        lead_to(stand, "sip:late.pbx.example")
        with callee(sipp, stand, 1):
            place_calls(sipp, stand, count=1, rate=1)
        [invite] = set(first.of("INVITE"))
        host, port = first.address
        first.send(response(invite, "200 OK", f"Contact: <sip:late@{host}:{port}>"), stand.product.sip)
        eventually(lambda: first.of("BYE"), 3, "the late answer is hung up")
        [ack], bye = first.of("ACK"), first.of("BYE")[0]
        assert "tag=first" in ack and "tag=first" in bye
    finally:
        first.stop()


def test_calls_go_on_while_dns_is_silent(sipp: Callable[..., Sipp], stand: Stand) -> None:
    stand.names.ttl = 1
    stand.names.records["_sip._udp.short.pbx.example", "SRV"] = [f"0 0 {stand.pbx[1]} second.pbx.example."]
    lead_to(stand, "sip:short.pbx.example")
    try:
        with callee(sipp, stand, 11):
            place_calls(sipp, stand, count=1, rate=1)
            stand.names.silent = True
            time.sleep(6)  # the shortest that an answer is kept is 5 s
            start = time.monotonic()
            place_calls(sipp, stand, count=10, rate=10)
        assert time.monotonic() - start < 10, "old answers serve after a second at most"
    finally:
        stand.names.silent, stand.names.ttl = False, 300


def test_the_hosts_map_goes_before_dns(sipp: Callable[..., Sipp], stand: Stand) -> None:
    lead_to(stand, f"sip:mapped.pbx.example:{stand.pbx[1]}")
    with callee(sipp, stand, 2):
        place_calls(sipp, stand, count=2, rate=2)
    assert not [name for name, _ in stand.names.asked if "mapped" in name]
