"""A phone that registers: REGISTERs with and without credentials, and a registrar that knows two devices."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from sipengine.counters import Counters
from sipengine.identifiers import Identifiers
from sipengine.message import Message, parse
from sipengine.registrar.location import Location
from sipengine.registrar.registrar import Device, Registrar, Reply
from sipengine.timerqueue import TimerQueue
from sipengine.transport.flow import Flow
from sipengine.transport.layer import TransportLayer, no_local_address
from sipengine.transport.locate import Locator
from sipengine.transport.rests import Rests
from sipengine.uac.digest import Credentials, answer, parse_challenge
from tests.sipengine.net import entropy_from

DOMAIN = "pbx.example"
ALICE = Device("alice@pbx.example", Credentials(b"alice", b"wonder"), 2)
MD5_ONLY = Device("bob@pbx.example", Credentials(b"bob", ha1=b"0" * 32))
HOME = ("203.0.113.7", 5062)


class Office:
    """A registrar and its clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.queue = TimerQueue()
        self.events: deque[Any] = deque()
        self.counters = Counters()
        identifiers = Identifiers(entropy_from(b"registrar"))
        self.transport = TransportLayer(no_local_address)
        self.udp = self.transport.add_listener("udp", "192.0.2.5", 5060)
        self.tcp = self.transport.add_listener("tcp", "192.0.2.5", 5060)
        self.tls = self.transport.add_listener("tls", "192.0.2.5", 5061)
        self.locator = Locator(self.events, Rests(self.queue))
        self.location = Location(self.queue, self.events, self.locator)
        self.registrar = Registrar(self.location, self.transport, identifiers, self.counters, b"k" * 32)
        devices = {device.aor: device for device in (ALICE, MD5_ONLY)}
        self.registrar.device_of = devices.get
        self.registrar.serves = lambda domain: domain == DOMAIN
        self.registrar.protected = lambda host: host == "192.0.2.20"

    def flow(self, remote: tuple[str, int] = HOME, transport: str = "udp") -> Flow:
        return self.transport.flow_for({"udp": self.udp, "tcp": self.tcp, "tls": self.tls}[transport], remote)

    def save(self, message: Message, flow: Flow | None = None) -> Reply:
        return self.registrar.save(message, flow or self.flow(), self.now)

    def run(self, seconds: float) -> None:
        self.now += seconds
        self.queue.expire(self.now)

    def contacts(self, aor: str = ALICE.aor) -> list[bytes]:
        return [binding.contact for binding in self.location.of(aor, self.now)]


class Phone:
    """Registers with one Call-ID and rising CSeq."""

    def __init__(self, office: Office, device: Device = ALICE, call_id: bytes = b"call1") -> None:
        self.office = office
        self.aor = device.aor.encode()
        self.credentials = device.credentials
        self.call_id = call_id
        self.cseq = 0
        self.nc = 0
        self.challenge_line = b""

    def request(
        self, *contacts: bytes, extra: Iterable[bytes] = (), to: bytes = b"", cseq: int = 0, sender: bytes = b""
    ) -> Message:
        self.cseq = cseq or self.cseq + 1
        aor = to or b"<sip:%b>" % self.aor
        lines = [
            b"REGISTER sip:pbx.example SIP/2.0",
            b"Via: SIP/2.0/UDP 203.0.113.7:5062;rport;branch=z9hG4bKr%d" % self.cseq,
            b"From: %b;tag=ft" % (sender or aor),
            b"To: " + aor,
            b"Call-ID: " + self.call_id,
            b"CSeq: %d REGISTER" % self.cseq,
            *[b"Contact: " + contact for contact in contacts],
            *extra,
            b"Content-Length: 0",
        ]
        return parse(b"\r\n".join([*lines, b"", b""]))

    def prove(self, message: Message, nc: int = 0, **wrong: Any) -> Message:
        """Answer the challenge that came last."""
        self.nc = nc or self.nc + 1
        challenge = parse_challenge(self.challenge_line)
        credentials = wrong.get("credentials", self.credentials)
        name, value = answer(challenge, credentials, b"REGISTER", message.ruri, nc=self.nc, cnonce=b"c0ffee")
        message.append(name + b": " + wrong.get("change", lambda text: text)(value))
        return message

    def register(self, *contacts: bytes, flow: Flow | None = None, **more: Any) -> Reply:
        """Register as phones do: unasked, then with the challenge's credentials."""
        if not self.challenge_line:
            reply = self.office.save(self.request(*contacts, **more), flow)
            if reply.status != 401:
                return reply
            self.take(reply)
        return self.office.save(self.prove(self.request(*contacts, **more)), flow)

    def take(self, reply: Reply, which: int = 0) -> None:
        self.challenge_line = reply.lines[which].partition(b": ")[2]
        self.nc = 0
