"""Registrations over a wire that loses, delays, reorders and repeats."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest

from sipengine.configuration import Configuration
from sipengine.endpoint import Endpoint
from sipengine.events import RegistrationChanged, RegistrationState, Target
from sipengine.message import parse
from sipengine.testing import Wire
from sipengine.transport.flow import Address
from tests.sipengine.uac.registrar import account, challenging, granting


class Registrar:
    """Keeps bindings as RFC 3261 §10.3 asks: within a Call-ID an older CSeq is refused."""

    def __init__(self, wire: Wire, host: str, transport: str = "udp", grant: int = 60) -> None:
        self.wire = wire
        self.bindings: dict[bytes, float] = {}
        self.last: dict[bytes, int] = {}
        self.lapses: list[bytes] = []
        self.out_of_order = 0
        self._answered: dict[bytes, bytes] = {}
        self._answer = challenging(granting(grant))
        self._branches: dict[bytes, int] = defaultdict(int)
        self.station = wire.station(host, 5060, transport)
        self.station.on_receive = self.receive

    def receive(self, data: bytes, source: Address) -> None:
        message = parse(data)
        branch = message.via.branch
        if branch not in self._answered:
            self._answered[branch] = self._reply(message)
        self.station.send(self._answered[branch], source)

    def _reply(self, message) -> bytes:  # type: ignore[no-untyped-def]
        aor, call_id, number = message.to.uri, message.call_id, message.cseq[0]
        if number <= self.last.get(call_id, 0):
            self.out_of_order += 1
        self.last[call_id] = max(number, self.last.get(call_id, 0))
        code, reason, headers = self._answer(message) or (500, "No answer", [])
        if code == 200:
            if aor in self.bindings and self.bindings[aor] < self.wire.now:
                self.lapses.append(aor)
            self.bindings[aor] = self.wire.now + 60
        kept = [
            line for key, line in zip(message.keys, message.lines, strict=True)
            if key in (b"via", b"from", b"to", b"call-id", b"cseq")
        ]
        lines = [f"SIP/2.0 {code} {reason}".encode(), *kept, *(h.encode() for h in headers), b"Content-Length: 0"]
        return b"\r\n".join([*lines, b"", b""])


def endpoint_on(wire: Wire, *transports: str) -> Endpoint:
    draw = random.Random(7)
    endpoint = Endpoint(
        Configuration(), application=lambda context: None, admission=lambda flow: True, entropy=draw.randbytes
    )
    for transport in transports:
        endpoint.add_listener(transport, "192.0.2.1", 5060)
    return wire.attach(endpoint)


@pytest.mark.rfc("3261", "10.2.7")
@pytest.mark.parametrize("loss", [0.0, 0.05, 0.15])
def test_no_binding_lapses_on_a_bad_wire(loss: float) -> None:
    wire = Wire(latency=0.02, jitter=0.3, loss=loss, duplicates=0.1, chance=random.Random(11).random)
    registrar = Registrar(wire, "192.0.2.9")
    endpoint = endpoint_on(wire, "udp")
    for number in range(30):
        endpoint.registrations.change(account(number, auth_proxy="sip:192.0.2.9"), wire.now)
    wire.run(30)
    wire.run(600)
    assert len(registrar.bindings) == 30 and registrar.lapses == []
    assert min(registrar.bindings.values()) > wire.now
    changes = [event for _, event in wire.events if isinstance(event, RegistrationChanged) and event.final]
    assert all(change.state is RegistrationState.REGISTERED for change in changes)
    # A refresh is never begun while another is under way, so nothing overtakes except what the wire itself reorders.
    assert registrar.out_of_order == 0


def test_a_name_over_tcp_with_a_dead_first_server() -> None:
    wire = Wire(latency=0.01)
    wire.hosts["sip.provider.example"] = [Target("tcp", ("192.0.2.8", 5060)), Target("tcp", ("192.0.2.9", 5060))]
    registrar = Registrar(wire, "192.0.2.9", "tcp")
    endpoint = endpoint_on(wire, "tcp")
    endpoint.registrations.change(account(auth_proxy="sip:sip.provider.example;transport=tcp"), wire.now)
    wire.run(1)
    last = endpoint.registrations.snapshot("acc000001")
    assert last is not None and last.state is RegistrationState.REGISTERED
    assert last.target == "tcp:192.0.2.9:5060" and len(registrar.bindings) == 1
    wire.run(600)
    assert registrar.lapses == []
    # The dead server is asked again only after its quarantine.
    tried = [to for _, _, to, _ in wire.sent if to == ("192.0.2.8", 5060)]
    assert len(tried) <= 1
