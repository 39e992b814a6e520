"""Calls that begin at a real Kamailio with its own `vsf` and `vst` end at ours with the codec `kamailio`, and the other
way round: both listen on the same address, one after the other, while the calls are up.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sipengine.message import Message, parse
from sipengine.message.build import request
from sipengine.transport.stream import StreamFramer
from tests.interop.conftest import Place
from tests.interop.peers import HERE
from tests.interop.product import Embedded
from tests.interop.programs import Program, eventually, program
from tests.sipengine.net import reply

pytestmark = pytest.mark.interop("kamailio")

PASSWORD = "my_secret_passwd"
CALLER = b"<sip:+4915112345678@caller.example;user=phone>"
ANONYMOUS = b"<sip:anonymous@anonymous.invalid>"


class Seed:
    """Kamailio with the module `uac` as the proxy that hides callers."""

    def __init__(self, folder: Path, listen: tuple[str, int], next_hop: str) -> None:
        folder.mkdir()
        argv = [program("kamailio"), "-DD", "-E", "-f", str(HERE / "conf" / "hides_callers.cfg"), "-Y", str(folder)]
        argv += ["-w", str(folder), "-m", "64"]
        for definition in (
            f"ON_UDP=udp:{listen[0]}:{listen[1]}", f"ON_TCP=tcp:{listen[0]}:{listen[1]}", f'NEXT_HOP="{next_hop}"',
            f'PASSWORD="{PASSWORD}"',
        ):
            argv += ["-A", definition]
        self.program = Program(argv, log=folder / "kamailio.log")
        port = f":{listen[1]:04X} "
        eventually(lambda: port in Path("/proc/net/udp").read_text(), 10, "Kamailio binds its socket")

    def within(self) -> list[str]:
        """Methods of the requests within a call that came by."""
        return re.findall(r"WITHIN (\w+)", self.program.text)


class Line:
    """One end of the calls: a socket, and what arrived there."""

    transport = b"UDP"

    def __init__(self, address: tuple[str, int], proxy: tuple[str, int]) -> None:
        self.socket = self.open(address)
        self.socket.settimeout(10)
        self.host = b"%b:%d" % (address[0].encode(), address[1])
        self.uri = b"sip:end@" + self.host
        self.proxy = proxy
        self.branches = 0

    def open(self, address: tuple[str, int]) -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind(address)
        return opened

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendto(data, self.proxy)

    def receive(self) -> bytes:
        return self.socket.recv(65535)

    def request(self, method: bytes, ruri: bytes, *lines: bytes) -> None:
        self.branches += 1
        via = b"Via: SIP/2.0/%b %b;branch=z9hG4bK%d%b" % (self.transport, self.host, self.branches, method)
        contact = b"Contact: <%b>" % self.uri
        self.send(request(method, ruri, [via, b"Max-Forwards: 70", contact, *lines]).serialize())

    def expect(self, start: bytes) -> Message:
        """The next message that begins like this; others are provisional, or repetitions."""
        while True:
            message = parse(self.receive())
            if message.start.startswith(start):
                return message


class TcpLine(Line):
    """The PBX over TCP: one connection, which each proxy opens for itself."""

    transport = b"TCP"

    def __init__(self, address: tuple[str, int], proxy: tuple[str, int]) -> None:
        super().__init__(address, proxy)
        self.uri += b";transport=tcp"
        self.connection: socket.socket | None = None
        self.framer = StreamFramer()
        self.messages: list[bytes] = []

    def open(self, address: tuple[str, int]) -> socket.socket:
        return socket.create_server(address)

    def close(self) -> None:
        super().close()
        self.hang_up()

    def hang_up(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def send(self, data: bytes) -> None:
        if self.connection is None:
            self.connection = socket.create_connection(self.proxy, 10)
            self.framer = StreamFramer()
        self.connection.sendall(data)

    def receive(self) -> bytes:
        while not self.messages:
            if self.connection is None:
                self.connection, _ = self.socket.accept()
                self.connection.settimeout(10)
                self.framer = StreamFramer()
            data = self.connection.recv(65535)
            if not data:
                self.hang_up()
            self.messages += [message for message in self.framer.feed(data) if message.strip()]
        return self.messages.pop(0)


@dataclass
class Call:
    """What both ends know of a call that is up."""

    provider: Line
    pbx: Line
    user: bytes
    invite: Message
    """As the PBX got it."""
    ok: Message
    """As the provider got it."""

    @classmethod
    def begin(cls, provider: Line, pbx: Line, user: bytes, to_shown: bytes) -> Call:
        host = b"%b:%d" % (provider.proxy[0].encode(), provider.proxy[1])
        to = b"<sip:%b@%b>" % (user, host)
        call_id = b"Call-ID: %b-%b" % (user, provider.host)
        provider.request(
            b"INVITE", to[1:-1], b"From: %b;tag=ct" % CALLER, b"To: " + to, call_id, b"CSeq: 1 INVITE"
        )
        invite = pbx.expect(b"INVITE")
        assert invite.get(b"From") == ANONYMOUS + b";tag=ct" and invite.get(b"To") == to_shown.replace(b"%b", to)
        pbx.send(reply(invite, b"200 OK", b"pt", b"Contact: <%b>" % pbx.uri))
        ok = provider.expect(b"SIP/2.0 200")
        assert ok.get(b"From") == CALLER + b";tag=ct" and ok.get(b"To") == to + b";tag=pt"
        call = cls(provider, pbx, user, invite, ok)
        call.from_provider(b"ACK", 1)
        assert pbx.expect(b"ACK").get(b"From") == ANONYMOUS + b";tag=ct"
        return call

    def from_provider(self, method: bytes, cseq: int) -> None:
        route = b", ".join(reversed(self.ok.get_list(b"Record-Route")))
        self.provider.request(
            method, self.ok.contacts[0].uri, b"Route: " + route, self.ok.line(b"from"), self.ok.line(b"to"),
            self.ok.line(b"call-id"), b"CSeq: %d %b" % (cseq, method),
        )

    def from_pbx(self, method: bytes, cseq: int) -> None:
        route = b", ".join(self.invite.get_list(b"Record-Route"))
        self.pbx.request(
            method, self.invite.contacts[0].uri, b"Route: " + route,
            b"From: %b;tag=pt" % (self.invite.get(b"To") or b""), b"To: " + (self.invite.get(b"From") or b""),
            self.invite.line(b"call-id"), b"CSeq: %d %b" % (cseq, method),
        )

    def end_from_provider(self) -> None:
        self.from_provider(b"BYE", 2)
        bye = self.pbx.expect(b"BYE")
        assert bye.get(b"From") == ANONYMOUS + b";tag=ct"
        assert bye.to.uri == self.invite.to.uri and bye.to.tag == b"pt"
        self.pbx.send(reply(bye, b"200 OK"))
        ok = self.provider.expect(b"SIP/2.0 200")
        assert ok.get(b"From") == CALLER + b";tag=ct" and ok.get(b"To") == self.ok.get(b"To")

    def end_from_pbx(self) -> None:
        self.from_pbx(b"BYE", 7)
        bye = self.provider.expect(b"BYE")
        assert bye.get(b"To") == CALLER + b";tag=ct"
        assert bye.from_.uri == self.ok.to.uri and bye.from_.tag == b"pt"
        self.provider.send(reply(bye, b"200 OK"))
        ok = self.pbx.expect(b"SIP/2.0 200")
        assert ok.to.uri == ANONYMOUS[1:-1] and ok.from_.uri == self.invite.to.uri


@pytest.fixture(scope="module")
def ours(trunkmgr_up: Callable[..., Embedded], place: Place) -> Embedded:
    """The product, not started, with the codec of the seed and a routing class of its own."""
    product = trunkmgr_up(
        {
            "UAC_RESTORE_CODEC": "kamailio", "UAC_RESTORE_PASSWD": PASSWORD, "TRUNKMGR_ROUTING": "hides_to.HidesTo",
            "PYTHONPATH": str(HERE),
        },
        start=False,
    )
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--noinput"], env=product.env, capture_output=True, check=True
    )
    product.provision(
        f"sip:{place.provider}:9", domain="rheintel.example", addresses=place.provider, next_hop=place.pbx_port(),
        accounts=[{"l_uuid": "from"}, {"l_uuid": "both"}],
    )
    return product


@pytest.fixture(params=[Line, TcpLine], ids=["udp", "tcp"])
def ends(request: pytest.FixtureRequest, ours: Embedded, place: Place) -> Iterator[tuple[Line, Line]]:
    """The provider's line, and the PBX's: over TCP there is a double Record-Route."""
    provider, pbx = Line(place.provider_port(), ours.sip), request.param(place.pbx_port(), ours.sip)
    ours.manage("domain", "set", "pbx.example", "--next-hop", next_hop(pbx))
    yield provider, pbx
    provider.close()
    pbx.close()


def next_hop(pbx: Line) -> str:
    return pbx.uri.replace(b"end@", b"").decode()


def begin(provider: Line, pbx: Line) -> tuple[Call, Call]:
    return Call.begin(provider, pbx, b"from", b"%b"), Call.begin(provider, pbx, b"both", b"<sip:line@pbx.example>")


def values(call: Call, name: bytes) -> list[bool]:
    """Whether each of the Record-Route values of a call has that parameter."""
    return [b";" + name + b"=" in value for value in call.invite.get_list(b"Record-Route")]


def test_calls_of_kamailio_end_through_ours(ends: tuple[Line, Line], ours: Embedded, tmp_path: Path) -> None:
    provider, pbx = ends
    seed = Seed(tmp_path / "kamailio", ours.sip, next_hop(pbx))
    try:
        from_, both = begin(provider, pbx)
        assert all(values(from_, b"vsf")) and not any(values(from_, b"vsfc")), "Kamailio's own"
        assert all(values(both, b"vst"))
        assert seed.within() == ["ACK", "ACK"]
    finally:
        seed.program.stop(5)
    ours.start()
    from_.end_from_provider()
    both.end_from_pbx()
    ours.stop()


def test_calls_of_ours_end_through_kamailio(ends: tuple[Line, Line], ours: Embedded, tmp_path: Path) -> None:
    provider, pbx = ends
    ours.start()
    from_, both = begin(provider, pbx)
    assert all(values(from_, b"vsf")) and all(values(both, b"vst"))
    ours.stop()
    seed = Seed(tmp_path / "kamailio", ours.sip, next_hop(pbx))
    try:
        both.end_from_provider()
        from_.end_from_pbx()
        assert seed.within() == ["BYE", "BYE"]
    finally:
        seed.program.stop(5)
