"""Calls that begin at a real Kamailio with its own `vsf` and `vst` end at ours with the codec `kamailio`, and the other
way round: both listen on the same address, one after the other, while the calls are up.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from sipengine.message import Message, parse
from sipengine.message.build import request
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

    def __init__(self, folder: Path, listen: tuple[str, int], next_hop: tuple[str, int]) -> None:
        folder.mkdir()
        argv = [program("kamailio"), "-DD", "-E", "-f", str(HERE / "conf" / "hides_callers.cfg"), "-Y", str(folder)]
        argv += ["-w", str(folder), "-m", "64"]
        for definition in (
            f"LISTEN=udp:{listen[0]}:{listen[1]}", f'NEXT_HOP="sip:{next_hop[0]}:{next_hop[1]}"',
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

    def __init__(self, address: tuple[str, int], proxy: tuple[str, int]) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(10)
        self.host = b"%b:%d" % (address[0].encode(), address[1])
        self.proxy = proxy
        self.branches = 0

    def send(self, data: bytes) -> None:
        self.socket.sendto(data, self.proxy)

    def request(self, method: bytes, ruri: bytes, *lines: bytes) -> None:
        self.branches += 1
        via = b"Via: SIP/2.0/UDP %b;branch=z9hG4bK%d%b" % (self.host, self.branches, method)
        contact = b"Contact: <sip:end@%b>" % self.host
        self.send(request(method, ruri, [via, b"Max-Forwards: 70", contact, *lines]).serialize())

    def expect(self, start: bytes) -> Message:
        """The next message that begins like this; others are provisional, or repetitions."""
        while True:
            message = parse(self.socket.recv(65535))
            if message.start.startswith(start):
                return message


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
        pbx.send(reply(invite, b"200 OK", b"pt", b"Contact: <sip:end@%b>" % pbx.host))
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
def lines(trunkmgr_up: Callable[..., Embedded], place: Place) -> Iterator[tuple[Embedded, Line, Line]]:
    """The product, not started, with the codec of the seed; the provider's line and the PBX's."""
    routing = Path(__file__).parent
    product = trunkmgr_up(
        {
            "UAC_RESTORE_CODEC": "kamailio", "UAC_RESTORE_PASSWD": PASSWORD, "TRUNKMGR_ROUTING": "hides_to.HidesTo",
            "PYTHONPATH": str(routing),
        },
        start=False,
    )
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--noinput"], env=product.env, capture_output=True, check=True
    )
    pbx = place.pbx_port()
    product.provision(
        f"sip:{place.provider}:9", domain="rheintel.example", addresses=place.provider, next_hop=pbx,
        accounts=[{"l_uuid": "from"}, {"l_uuid": "both"}],
    )
    with ExitStack() as stack:
        ends = [Line(address, product.sip) for address in (place.provider_port(), pbx)]
        for end in ends:
            stack.callback(end.socket.close)
        yield product, ends[0], ends[1]


def test_calls_of_kamailio_end_through_ours(lines: tuple[Embedded, Line, Line], tmp_path: Path) -> None:
    ours, provider, pbx = lines
    seed = Seed(tmp_path / "kamailio", ours.sip, pbx.socket.getsockname())
    try:
        calls = [
            Call.begin(provider, pbx, b"from", b"%b"), Call.begin(provider, pbx, b"both", b"<sip:line@pbx.example>")
        ]
        routes = [call.invite.line(b"record-route") for call in calls]
        assert b";vsf=" in routes[0] and b"vsfc" not in routes[0] and b";vst=" in routes[1], "Kamailio's own"
        assert seed.within() == ["ACK", "ACK"]
    finally:
        seed.program.stop(5)
    ours.start()
    calls[0].end_from_provider()
    calls[1].end_from_pbx()
    ours.stop()


def test_calls_of_ours_end_through_kamailio(lines: tuple[Embedded, Line, Line], tmp_path: Path) -> None:
    ours, provider, pbx = lines
    ours.start()
    calls = [Call.begin(provider, pbx, b"from", b"%b"), Call.begin(provider, pbx, b"both", b"<sip:line@pbx.example>")]
    assert b";vsf=" in calls[0].invite.line(b"record-route") and b";vst=" in calls[1].invite.line(b"record-route")
    ours.stop()
    seed = Seed(tmp_path / "kamailio", ours.sip, pbx.socket.getsockname())
    try:
        calls[1].end_from_provider()
        calls[0].end_from_pbx()
        assert seed.within() == ["BYE", "BYE"]
    finally:
        seed.program.stop(5)
