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
        reply = net.endpoint.registrar.save(context.request, context.flow, net.wire.now, net.endpoint.room)
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
    request = phone.request(b"<sip:alice@203.0.113.66:5060>", extra=[b"User-Agent: " + b"x" * 200]).serialize()
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


@pytest.mark.checklist("M7")
def test_no_answer_to_an_unproven_datagram_is_longer_than_it(net: Net) -> None:
    net.endpoint.may_register = lambda flow: True
    contact = b"<sip:alice@203.0.113.66:5060>"
    seen: list[tuple[bytes, ...]] = []
    for pad in range(600):
        phone = Phone(Office(), call_id=b"c%d" % pad)
        request = phone.request(contact, extra=[b"User-Agent: " + b"x" * pad]).serialize()
        answers = _said(net, "udp", request)
        assert all(len(answer) <= len(request) for answer in answers)
        offered = tuple(line.partition(b"algorithm=")[2][:7] for answer in answers
                        for line in parse(answer).get_all(b"WWW-Authenticate"))  # fmt: skip
        if not seen or seen[-1] != offered:
            seen.append(offered)
    assert seen == [(), (b"",), (b"MD5, qo",), (b"SHA-256", b"MD5, qo")], "the longer the request, the more is offered"
    assert net.endpoint.counters.too_small > 1
    [answer] = _said(net, "tcp", phone.request(contact).serialize())
    assert len(parse(answer).get_all(b"WWW-Authenticate")) == 2, "a connection proves its address"


@pytest.mark.checklist("M7")
@pytest.mark.parametrize(
    "broken", [b"REGISTER sip:a SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n\r\n", b"REGISTER x"]
)
def test_a_broken_datagram_gets_no_longer_answer_either(net: Net, broken: bytes) -> None:
    net.endpoint.may_register = lambda flow: True
    assert all(len(answer) <= len(broken) for answer in _said(net, "udp", broken))


def test_the_shortest_challenge_can_be_answered(net: Net) -> None:
    net.endpoint.may_register = lambda flow: True
    contact, phone = b"<sip:alice@203.0.113.66:5060>", Phone(Office())
    for pad in range(40, 200, 5):
        answers = _said(net, "udp", phone.request(contact, extra=[b"User-Agent: " + b"x" * pad]).serialize())
        if answers:
            break
    phone.challenge_line = parse(answers[0]).get(b"WWW-Authenticate") or b""
    assert b"opaque" not in phone.challenge_line and b"algorithm" not in phone.challenge_line
    [granted] = _said(net, "udp", phone.prove(phone.request(contact)).serialize())
    assert parse(granted).status == 200


def test_who_has_read_our_nonce_gets_all_of_the_answer(net: Net) -> None:
    net.endpoint.may_register = lambda flow: True
    phone = Phone(Office())
    [answer] = _said(net, "udp", phone.request(extra=[b"User-Agent: " + b"x" * 200]).serialize())
    phone.challenge_line = parse(answer).get(b"WWW-Authenticate") or b""
    request = phone.prove(phone.request(b"<sip:alice@203.0.113.66:5060;x=" + b"y" * 150 + b">"))
    [granted] = _said(net, "udp", request.serialize())
    assert parse(granted).status == 200
