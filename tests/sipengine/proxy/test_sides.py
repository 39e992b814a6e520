"""Who may speak within a call and who may give one up: its two sides, and nobody else (sip-requirements M4, M13)."""

from __future__ import annotations

import pytest

from sipengine.events import Target
from sipengine.message import parse
from sipengine.transport.peers import PeerBook
from tests.sipengine.net import PHONE, PROXY, Net, reply, starts

#: Admitted as any other provider or PBX, but no side of the call.
THIRD = ("192.0.2.77", 5060)
SIBLING = ("192.0.2.2", 5060)


class Siblings(PeerBook):
    """The provider has a second address."""

    def same_peer(self, asked: str, answered: str) -> bool:
        return {asked, answered} == {"192.0.2.1", SIBLING[0]}


@pytest.mark.checklist("K6")
@pytest.mark.parametrize("method", [b"BYE", b"INVITE", b"UPDATE", b"REFER"])
@pytest.mark.checklist("M4")
def test_a_third_address_says_nothing_within_a_call(method: bytes) -> None:
    net = Net(peers=Siblings())
    call = net.establish()
    third = net.wire.station(*THIRD)
    for message in (call.from_caller(method, 2), call.from_callee(method, 2)):
        third.send(message, PROXY)
        net.run()
        assert starts(third.take()) == [b"SIP/2.0 481"]
    assert not net.phone.take() and not net.provider.take()
    assert net.endpoint.counters.not_a_side == 2
    net.send(net.provider, call.from_caller(b"BYE", 3))
    assert starts(net.phone.take()) == [b"BYE"], "the call itself is untouched"


def test_an_ack_of_a_third_address_goes_nowhere() -> None:
    net = Net(peers=Siblings())
    call = net.establish()
    net.wire.station(*THIRD).send(call.from_caller(b"ACK", 1), PROXY)
    net.run()
    assert not net.phone.take() and net.endpoint.counters.not_a_side == 1


def test_another_address_of_the_same_peer_is_a_side() -> None:
    net = Net(peers=Siblings())
    call = net.establish()
    sibling = net.wire.station(*SIBLING)
    sibling.send(call.from_caller(b"BYE", 2, host=b"192.0.2.2:5060"), PROXY)
    net.run()
    (bye,) = net.phone.take()
    net.send(net.phone, reply(parse(bye), b"200 OK"))
    assert starts(sibling.take()) == [b"SIP/2.0 200"] and not net.endpoint.counters.not_a_side


@pytest.mark.checklist("K6")
def test_after_a_restart_the_token_speaks_for_the_first_two_addresses_only() -> None:
    net = Net(peers=Siblings())
    call = net.establish()
    net.restart()
    for station, message in ((net.provider, call.from_caller(b"INFO", 2)), (net.phone, call.from_callee(b"INFO", 2))):
        net.send(station, message)
    assert starts(net.phone.take()) == [b"INFO"] and starts(net.provider.take()) == [b"INFO"]
    third = net.wire.station(*THIRD)
    third.send(call.from_caller(b"BYE", 3), PROXY)
    net.run()
    assert starts(third.take()) == [b"SIP/2.0 481"] and not net.phone.take()


@pytest.mark.checklist("M13")
def test_a_cancel_counts_only_from_where_the_invite_came() -> None:
    net = Net(peers=Siblings())
    invite = net.invite(branch=b"z9hG4bKone")
    net.send(net.provider, invite)
    (rung,) = net.phone.take()
    net.send(net.phone, reply(parse(rung), b"180 Ringing"))
    net.provider.take()
    cancel = invite.replace(b"INVITE", b"CANCEL").partition(b"Contact:")[0] + b"Content-Length: 0\r\n\r\n"
    third = net.wire.station(*THIRD)
    third.send(cancel, PROXY)
    net.run()
    assert starts(third.take()) == [b"SIP/2.0 481"] and not net.phone.take()
    assert net.endpoint.counters.cancel_elsewhere == 1
    net.send(net.provider, cancel)
    net.run(1)
    assert b"CANCEL" in starts(net.phone.take()), "the caller's own is believed, whatever was tried before"


@pytest.mark.checklist("M4")
def test_no_request_leads_to_a_third_party_by_its_route_or_its_to_tag() -> None:
    net = Net()
    victim = net.wire.station("203.0.113.9", 5060)
    net.send(net.provider, net.request(
        b"INVITE", b"sip:acc1@192.0.2.5", b"<sip:x@y.example>;tag=a", b"<sip:acc1@192.0.2.5>", b"route", 1,
        route=b"<sip:203.0.113.9;lr>",
    ))
    assert starts(net.phone.take()) == [b"INVITE"] and not victim.take()
    for number, route in enumerate((b"", b"<sip:192.0.2.5;lr>, <sip:203.0.113.9;lr>", b"<sip:203.0.113.9;lr>")):
        net.send(net.provider, net.request(
            b"INVITE", b"sip:acc1@203.0.113.9", b"<sip:x@y.example>;tag=a", b"<sip:acc1@192.0.2.5>;tag=b",
            b"totag%d" % number, 1, route=route,
        ))
    assert not victim.take() and b"SIP/2.0 481" in starts(net.provider.take())


@pytest.mark.checklist("M4")
@pytest.mark.parametrize("method", [b"BYE", b"INVITE", b"ACK", b"INFO"])
def test_within_a_call_no_side_sends_us_to_a_third_party(method: bytes) -> None:
    net = Net(peers=Siblings())
    call = net.establish()
    victim = net.wire.station("203.0.113.9", 5060)
    by_contact = call.from_caller(method, 1).replace(b"sip:phone@192.0.2.9:5060", b"sip:phone@203.0.113.9:5060")
    by_route = call.from_caller(method, 1).replace(
        b"Route: " + call.route_of_caller, b"Route: " + call.route_of_caller + b", <sip:203.0.113.9;lr>"
    )
    for message in (by_contact, by_route):
        net.send(net.provider, message)
        assert starts(net.provider.take()) == ([] if method == b"ACK" else [b"SIP/2.0 403"])
    assert not victim.log and not net.phone.take() and net.endpoint.counters.third_party == 2
    net.send(net.provider, call.from_caller(b"BYE", 3))
    assert starts(net.phone.take()) == [b"BYE"], "the call itself is untouched"


def test_within_a_call_another_address_of_a_side_is_reached() -> None:
    net = Net(peers=Siblings())
    call = net.establish()
    sibling = net.wire.station(*SIBLING)
    net.send(net.phone, call.from_callee(b"INFO", 2).replace(call.callees_target, b"sip:x@192.0.2.2:5060"))
    assert starts(sibling.take()) == [b"INFO"]


@pytest.mark.checklist("M4")
@pytest.mark.parametrize("method", [b"INFO", b"ACK"])
def test_of_several_addresses_of_a_name_the_side_is_taken(method: bytes) -> None:
    net = Net(peers=Siblings())
    call = net.establish()
    victim = net.wire.station("203.0.113.9", 5060)
    net.wire.hosts["gw.example"] = [Target("udp", ("203.0.113.9", 5060)), Target("udp", PHONE)]
    by_name = call.from_caller(method, 1).replace(b"sip:phone@192.0.2.9:5060", b"sip:phone@gw.example")
    net.send(net.provider, by_name)
    assert starts(net.phone.take()) == [method] and not victim.log and not net.endpoint.counters.third_party


class Admitted(Siblings):
    """Knows who is a peer at all."""

    def is_peer(self, host: str) -> bool:
        return host in ("192.0.2.1", PHONE[0])


@pytest.mark.checklist("M4")
def test_after_a_restart_a_side_that_has_not_spoken_is_reached_and_a_stranger_is_not() -> None:
    net = Net(peers=Admitted())
    call = net.establish()
    net.restart()
    victim = net.wire.station("203.0.113.9", 5060)
    net.send(net.provider, call.from_caller(b"INFO", 2).replace(b"sip:phone@192.0.2.9", b"sip:phone@203.0.113.9"))
    assert starts(net.provider.take()) == [b"SIP/2.0 403"] and not victim.log
    net.send(net.provider, call.from_caller(b"INFO", 3))
    assert starts(net.phone.take()) == [b"INFO"]


@pytest.mark.checklist("M3")
def test_a_redirection_is_handed_on_and_not_followed() -> None:
    net = Net()
    victim = net.wire.station("203.0.113.9", 5060)
    net.send(net.provider, net.invite())
    (invite,) = net.phone.take()
    net.send(net.phone, reply(parse(invite), b"302 Moved Temporarily", b"pt", b"Contact: <sip:x@203.0.113.9>"))
    assert b"SIP/2.0 302" in starts(net.provider.take()) and not victim.take() and PHONE[0] != "203.0.113.9"
