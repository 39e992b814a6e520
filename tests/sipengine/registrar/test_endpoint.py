"""A registrar within its endpoint: who may send REGISTER, over the wire."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sipengine.message import parse
from sipengine.proxy.context import ResponseContext
from tests.sipengine.net import PROXY, STRANGER, Net
from tests.sipengine.registrar.phone import ALICE, Office, Phone


@pytest.fixture
def net() -> Iterator[Net]:
    net = Net()

    def register(context: ResponseContext) -> None:
        reply = net.endpoint.registrar.save(context.request, context.flow, net.wire.now)
        context.sl_send_reply(reply.status, reply.reason, reply.lines)

    net.routing.decide = register
    net.endpoint.registrar.serves = lambda domain: True
    net.endpoint.registrar.device_of = {ALICE.aor: ALICE}.get
    yield net


def _said(net: Net, transport: str, data: bytes) -> list[bytes]:
    host, port = STRANGER
    station = net.wire.station(host, port, transport)
    station.send(data, PROXY)
    net.run(1)
    return station.take()


@pytest.mark.checklist("M5")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_stranger_may_register_only_and_only_where_that_is_allowed(net: Net, transport: str) -> None:
    phone = Phone(Office())
    request = phone.request(b"<sip:alice@203.0.113.66:5060>").serialize()
    assert not _said(net, transport, request) and net.endpoint.counters.denied
    net.endpoint.may_register = lambda flow: flow.remote[0] == STRANGER[0]
    [answer] = _said(net, transport, request)
    phone.challenge_line = parse(answer).get(b"WWW-Authenticate") or b""
    answers = _said(net, transport, phone.prove(phone.request(b"<sip:alice@203.0.113.66:5060>")).serialize())
    assert parse(answers[-1]).status == 200 and net.endpoint.live["bindings"] == 1
    for method in (b"OPTIONS", b"INVITE", b"ACK", b"CANCEL", b"BYE"):
        other = phone.request().serialize().replace(b"REGISTER", method)
        assert not _said(net, transport, other)
    assert not _said(net, transport, b"garbage\r\n\r\n")
