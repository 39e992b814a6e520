"""Devices behind WebSocket connections, on the virtual wire: what leads to them, and what does not (RFC 7118)."""

from __future__ import annotations

import pytest

from sipengine.events import Target
from sipengine.exceptions import FlowClosed, ResolutionError
from sipengine.message import Message, parse
from sipengine.proxy.context import ResponseContext
from sipengine.testing import Station
from sipengine.transport.stream import PING
from tests.sipengine.net import CALLER, PROXY, Net, reply, starts
from tests.sipengine.registrar.phone import ALICE, Office, Phone

BROWSER = ("203.0.113.7", 40123)
CONTACT = b"<sip:alice@df7jal23ls0d.invalid;transport=ws;ob>"
WAYS = {"ws": 5080, "wss": 5443}


class Page:
    """A page that has registered, and what reaches it."""

    def __init__(self, transport: str) -> None:
        self.net = net = Net(websockets=list(WAYS.items()))
        self.transport = transport
        self.here = PROXY[0], WAYS[transport]
        net.endpoint.registrar.serves = lambda domain: True
        net.endpoint.registrar.device_of = {ALICE.aor: ALICE}.get
        net.routing.decide = self._decide
        self.phone = Phone(Office())
        self.register(BROWSER)

    def register(self, remote: tuple[str, int]) -> None:
        """Connect from there and register, challenge and all."""
        self.station: Station = self.net.wire.station(*remote, self.transport)
        phone, phone.challenge_line = self.phone, b""
        for _ in range(2):
            request = phone.request(CONTACT + b';reg-id=1;+sip.instance="<urn:uuid:1>"', extra=[b"Supported: outbound"])
            if phone.challenge_line:
                phone.prove(request)
            way = self.transport.upper().encode()
            request.lines[0] = b"Via: SIP/2.0/%b df7jal23ls0d.invalid;branch=z9hG4bKr%d" % (way, phone.cseq)
            answer = parse(self.say(request.serialize().replace(b"Content-Length: 0\r\n", b""))[-1])
            phone.challenge_line = answer.get(b"WWW-Authenticate") or b""
        assert answer.status == 200 and answer.get(b"Require") == b"outbound"

    def _decide(self, context: ResponseContext) -> None:
        endpoint = self.net.endpoint
        if context.method == b"REGISTER":
            answer = endpoint.registrar.save(context.request, context.flow, self.net.wire.now)
            context.sl_send_reply(answer.status, answer.reason, answer.lines)
            return
        if not context.has_totag():
            context.record_route()
            if context.flow.remote[0] != BROWSER[0]:
                [binding] = endpoint.location.of(ALICE.aor, self.net.wire.now)
                if binding.hop is None:
                    context.sl_send_reply(480, "Temporarily Unavailable")
                    return
                context.ruri, context.du = binding.target, binding.hop
        context.t_relay()

    def say(self, data: bytes) -> list[bytes]:
        self.station.send(data, self.here)
        self.net.run()
        return self.station.take()

    def leave(self) -> None:
        [listener] = [each for each in self.net.endpoint.listeners if each.transport == self.transport]
        self.net.wire.fail(self.net.endpoint, listener.flows[BROWSER], FlowClosed("gone"))


@pytest.fixture(params=WAYS)
def page(request: pytest.FixtureRequest) -> Page:
    return Page(request.param)


def called(page: Page) -> Message:
    page.net.send(page.net.provider, page.net.invite())
    page.net.provider.take()
    return parse(page.station.take()[0])


@pytest.mark.checklist("B20")
@pytest.mark.rfc("7118", "5")
@pytest.mark.rfc("5658", "5")
def test_a_page_is_called_over_its_connection_and_both_sides_know_us_by_their_own_way(page: Page) -> None:
    net = page.net
    invite = called(page)
    assert invite.ruri == CONTACT[1:-1] and invite.via.transport == page.transport.upper().encode()
    ours = [value.partition(b";lr")[0] for value in invite.get_list(b"Record-Route")]
    assert ours == [b"<sip:192.0.2.5:%d;transport=ws" % WAYS[page.transport], b"<sip:192.0.2.5:5060"]
    page.say(reply(invite, b"200 OK", b"pt", b"Contact: " + CONTACT))
    ok = parse(net.provider.take()[-1])
    routes = b", ".join(reversed(ok.get_list(b"Record-Route")))
    for method in (b"ACK", b"BYE"):
        to = ok.get(b"To") or b""
        net.send(
            net.provider, net.request(method, CONTACT[1:-1], CALLER + b";tag=ct", to, b"call1", 2, route=routes)
        )
    assert starts(page.station.take()) == [b"ACK", b"BYE"]


@pytest.mark.rfc("7118", "5")
def test_a_page_calls_out_and_is_answered_and_hung_up_over_its_connection(page: Page) -> None:
    net, way = page.net, page.transport.upper().encode()
    invite = net.request(
        b"INVITE", b"sip:+4930@192.0.2.1:5060", b"<sip:alice@pbx.example>;tag=at", b"<sip:+4930@192.0.2.1>", b"out", 1,
        extra=b"Contact: " + CONTACT + b"\r\n", host=b"df7jal23ls0d.invalid",
    ).replace(b"SIP/2.0/UDP", b"SIP/2.0/" + way)
    page.say(invite)
    there = parse(net.provider.take()[-1])
    [answer] = [each for each in _answers(page, there) if each.status == 200]
    assert answer.via.host == b"df7jal23ls0d.invalid" and b"received=203.0.113.7" in answer.line(b"via")
    routes = b", ".join(there.get_list(b"Record-Route"))
    ends = b"<sip:x@y>;tag=pt", b"<sip:alice@pbx.example>;tag=at"
    net.send(net.provider, net.request(b"BYE", CONTACT[1:-1], *ends, b"out", 1, route=routes))
    assert starts(page.station.take()) == [b"BYE"]


def _answers(page: Page, request: Message) -> list[Message]:
    page.net.send(page.net.provider, reply(request, b"200 OK", b"pt", b"Contact: <sip:192.0.2.1:5060>"))
    return [parse(data) for data in page.station.take()]


@pytest.mark.checklist("B20")
def test_a_page_that_has_left_is_not_offered_and_nobody_looks_for_it(page: Page) -> None:
    net = page.net
    invite = called(page)
    page.leave()
    net.run()
    assert starts(net.provider.take()) == [b"SIP/2.0 500"]  # the call that was ringing there (§16.7 step 6)
    net.send(net.provider, net.invite(b"call2"))
    assert starts(net.provider.take())[-1] == b"SIP/2.0 480"
    found: list[object] = []
    net.endpoint.locate(CONTACT[1:-1], lambda targets, now: found.append(targets), net.wire.now)
    assert isinstance(found[0], ResolutionError) and not net.endpoint.events  # no question to DNS
    assert invite.method == b"INVITE"


@pytest.mark.checklist("B20")
@pytest.mark.rfc("5626", "6")
def test_a_page_that_comes_back_is_called_over_its_new_connection_also_within_a_call(page: Page) -> None:
    net = page.net
    invite = called(page)
    page.say(reply(invite, b"200 OK", b"pt", b"Contact: " + CONTACT))
    ok = parse(net.provider.take()[-1])
    page.leave()
    page.register((BROWSER[0], 40999))
    assert net.endpoint.live["bindings"] == 1
    routes, to = b", ".join(reversed(ok.get_list(b"Record-Route"))), ok.get(b"To") or b""
    net.send(net.provider, net.request(b"BYE", CONTACT[1:-1], CALLER + b";tag=ct", to, b"call1", 2, route=routes))
    net.send(net.provider, net.invite(b"call2"))
    assert starts(page.station.take()) == [b"BYE", b"INVITE"]


@pytest.mark.checklist("B20")
def test_an_address_as_contact_is_not_called_back_either(page: Page) -> None:
    [binding] = page.net.endpoint.location.of(ALICE.aor, page.net.wire.now)
    binding.uri = type(binding.uri).parse(b"sip:alice@203.0.113.7:5080;transport=ws")
    assert binding.hop is not None
    page.leave()
    assert binding.hop is None and binding.detour is None


def test_a_connection_that_nobody_opened_fails_at_once(page: Page) -> None:
    net = page.net
    net.routing.decide = None
    net.routing.next_hop = b"sip:198.51.100.9:5080;transport=" + page.transport.encode()
    net.send(net.provider, net.invite())
    assert starts(net.provider.take())[-1] == b"SIP/2.0 500"
    assert not [to for _, _, to, _ in net.wire.sent if to[0] == "198.51.100.9"]


@pytest.mark.rfc("7118", "6")
@pytest.mark.rfc("5626", "3.5.1")
def test_double_crlf_is_answered_and_a_long_message_needs_no_other_way(page: Page) -> None:
    assert page.say(PING) == [b"\r\n"] and page.say(b"\r\n") == []
    net = page.net
    net.send(net.provider, net.invite(extra=b"X-Long: " + b"x" * 3000 + b"\r\n"))
    [invite] = page.station.take()
    assert len(invite) > 3000 and not [each for each in net.wire.sent if each[0] == "tcp"]


def test_sips_over_websocket_is_wss() -> None:
    net = Net()
    found: list[object] = []
    net.endpoint.locate(b"sips:203.0.113.7:40123;transport=ws", lambda targets, now: found.append(targets), 0.0)
    assert found == [[Target("wss", BROWSER)]]
