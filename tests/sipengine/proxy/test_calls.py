"""A call through the proxy, from either side, before and after a restart."""

from __future__ import annotations

import pytest

from sipengine.configuration import Configuration
from sipengine.events import CallAnswered, CallEnded, CallStarted
from sipengine.message import parse
from tests.sipengine.net import (
    ANONYMOUS,
    CALLER,
    KEYS,
    Net,
    assert_clean,
    assert_nothing_left,
    reply,
    starts,
)

IDENTITIES = (
    b"P-Asserted-Identity: <sip:+4930123456@provider.example>\r\nP-Preferred-Identity: <sip:alice@x>\r\n"
    b"Remote-Party-ID: <sip:+4930123456@x>\r\nDiversion: <sip:+4930123456@x>\r\n"
    b"History-Info: <sip:+4930123456@x>;index=1\r\n"
    b"Reply-To: <sip:alice@provider.example>\r\n"
)


@pytest.mark.checklist("D11")
@pytest.mark.rfc("3261", "16.6")
def test_an_invite_is_relayed_and_its_replies_come_back_in_the_callers_view() -> None:
    net = Net()
    net.send(net.provider, net.invite(extra=IDENTITIES))
    assert starts(net.provider.take()) == [b"SIP/2.0 100"]
    [wire] = net.phone.take()
    invite = parse(wire)
    assert invite.start == b"INVITE sip:phone@pbx.example SIP/2.0"
    assert invite.get(b"From") == ANONYMOUS + b";tag=ct"
    assert invite.get(b"Max-Forwards") == b"69"
    assert len(invite.get_list(b"Via")) == 2
    assert invite.via.param(b"rport") == b""
    for name in (
        b"P-Asserted-Identity",
        b"P-Preferred-Identity",
        b"Remote-Party-ID",
        b"Diversion",
        b"History-Info",
        b"Reply-To",
    ):
        assert invite.get(name) is None
    for status in (b"180 Ringing", b"183 Session Progress", b"200 OK"):
        net.send(net.phone, reply(invite, status))
        answer = parse(net.provider.take()[-1])
        assert answer.reason == status[4:]
        assert answer.get(b"From") == CALLER + b";tag=ct"
        assert answer.get(b"To") == b"<sip:acc1@192.0.2.5>;tag=pt"
        assert len(answer.get_list(b"Via")) == 1
    assert_clean(net)


def test_events_tell_the_life_of_a_call() -> None:
    net = Net()
    call = net.establish()
    net.send(net.provider, call.from_caller(b"BYE", 2))
    started, answered, ended = net.events()
    assert (
        isinstance(started, CallStarted) and started.caller == "sip:+4930123456@provider.example" and started.anonymous
    )
    assert isinstance(answered, CallAnswered) and (answered.key, answered.l_uuid) == (started.key, started.l_uuid)
    assert isinstance(ended, CallEnded) and (ended.key, ended.l_uuid) == (started.key, started.l_uuid)
    assert ended.code == 200


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.rfc("3261", "12.2")
def test_requests_of_both_sides_within_a_call(restart: bool, transport: str) -> None:
    net = Net(transport=transport)
    if transport == "tcp":
        net.routing.next_hop = b"sip:192.0.2.9:5060;transport=tcp"
    call = net.establish(extra=IDENTITIES)
    if restart:
        net.restart()
    for number, method in enumerate((b"INVITE", b"UPDATE", b"INFO", b"PRACK", b"REFER", b"BYE"), 2):
        net.send(net.provider, call.from_caller(method, number, IDENTITIES + b"Contact: <sip:alice-gw2@192.0.2.1>\r\n"))
        got = parse(net.phone.take()[-1])
        assert got.get(b"From") == ANONYMOUS + b";tag=ct"
        assert got.get(b"Route") is None and got.method == method
        assert got.get(b"P-Asserted-Identity") is None
        net.send(net.phone, reply(got, b"200 OK"))
        back = parse(net.provider.take()[-1])
        assert back.get(b"From") == CALLER + b";tag=ct" and back.status == 200
        if method == b"BYE":
            break
        net.send(net.phone, call.from_callee(method, number))
        got = parse(net.provider.take()[-1])
        assert got.get(b"To") == CALLER + b";tag=ct"
        assert got.ruri == b"sip:alice-gw@192.0.2.1:5060" + net.suffix
        net.send(
            net.provider,
            reply(got, b"200 OK", b"x", b"m: <sip:alice-gw@192.0.2.1>", b"P-Asserted-Identity: <sip:alice@x>"),
        )
        back = parse(net.phone.take()[-1])
        assert back.get(b"To") == ANONYMOUS + b";tag=ct"
        assert back.get(b"P-Asserted-Identity") is None and b"hidden-" in (back.get(b"Contact") or b"")
    assert_clean(net)
    assert_nothing_left(net)


@pytest.mark.parametrize("restart", [False, True])
def test_bye_from_the_callee(restart: bool) -> None:
    net = Net()
    call = net.establish()
    if restart:
        net.restart()
    net.send(net.phone, call.from_callee(b"BYE", 1))
    bye = parse(net.provider.take()[-1])
    assert bye.get(b"To") == CALLER + b";tag=ct" and bye.ruri == b"sip:alice-gw@192.0.2.1:5060"
    net.send(net.provider, reply(bye, b"200 OK"))
    assert parse(net.phone.take()[-1]).get(b"To") == ANONYMOUS + b";tag=ct"
    ended = net.events()[-1]
    first = net.events()[0]
    assert isinstance(first, CallStarted) and isinstance(ended, CallEnded)
    assert (ended.key, ended.l_uuid) == (first.key, first.l_uuid), "also from its token"
    assert_clean(net)
    assert_nothing_left(net)


@pytest.mark.rfc("3261", "16.11")
def test_a_repeated_ack_gets_the_same_branch() -> None:
    net = Net()
    call = net.establish()
    ack = call.from_caller(b"ACK", 1, branch=b"z9hG4bKack")
    net.send(net.provider, ack)
    net.send(net.provider, ack)
    first, second = net.phone.take()
    assert first == second and parse(first).get(b"From") == ANONYMOUS + b";tag=ct"


def test_a_forged_token_is_refused() -> None:
    net = Net()
    call = net.establish()
    net.restart()
    genuine = call.route_of_caller
    call.route_of_caller = genuine.replace(b"vsf=", b"vsf=AAAA")
    net.send(net.provider, call.from_caller(b"BYE", 2))
    assert starts(net.provider.take()) == [b"SIP/2.0 403"] and net.phone.take() == []
    call.route_of_caller = genuine
    call.call_id = b"other"  # a token of one call in another
    net.send(net.provider, call.from_caller(b"INVITE", 3))
    assert starts(net.provider.take()) == [b"SIP/2.0 403"]
    net.send(net.provider, call.from_caller(b"ACK", 3))
    assert net.phone.take() == [] and net.endpoint.counters.forged == 3


def test_keys_rotate() -> None:
    net = Net(Configuration(seal_keys=(b"a" * 32,)))
    call = net.establish()
    net.configuration = Configuration(seal_keys=(b"b" * 32, b"a" * 32))
    net.restart()
    net.send(net.provider, call.from_caller(b"BYE", 2))
    assert starts(net.phone.take()) == [b"BYE"]
    net.configuration = Configuration(seal_keys=(b"c" * 32,))
    net.restart()
    net.send(net.provider, call.from_caller(b"BYE", 3))
    assert net.phone.take() == []


@pytest.mark.rfc("3261", "12.2.2")
def test_a_request_of_no_call_is_answered_481_and_its_ack_dropped() -> None:
    net = Net()
    for ruri in (b"sip:victim@203.0.113.1", b"sip:acc1@192.0.2.5"):
        message = net.request(b"BYE", ruri, CALLER + b";tag=a", b"<sip:b@x>;tag=b", b"none", 1)
        net.send(net.provider, message)
        assert starts(net.provider.take()) == [b"SIP/2.0 481"]
        net.send(net.provider, net.request(b"ACK", ruri, CALLER + b";tag=a", b"<sip:b@x>;tag=b", b"none", 1))
    assert net.provider.take() == [] and net.phone.take() == []


@pytest.mark.checklist("D5")
def test_our_name_in_a_route_makes_nobody_a_party_of_a_call() -> None:
    net = Net()
    victim = net.wire.station("203.0.113.99", 5060)
    for method in (b"INVITE", b"REFER", b"ACK"):
        message = net.request(
            method,
            b"sip:x@203.0.113.99",
            CALLER + b";tag=a",
            b"<sip:b@x>;tag=b",
            b"none",
            1,
            route=b"<sip:192.0.2.5:5060;lr>",
        )
        net.send(net.provider, message)
    assert victim.take() == [] and starts(net.provider.take())[:2] == [b"SIP/2.0 481"] * 2


@pytest.mark.parametrize("restart", [False, True])
def test_a_call_that_hides_nothing_goes_on(restart: bool) -> None:
    net = Net()
    net.routing.anonymous = False
    net.routing.decide = lambda context: (
        setattr(context, "du", b"sip:192.0.2.9:5060"),
        context.record_route(),
        context.t_relay(),
    )
    call = net.establish()
    if restart:
        net.restart()
    net.send(net.provider, call.from_caller(b"BYE", 2))
    assert parse(net.phone.take()[-1]).get(b"From") == CALLER + b";tag=ct"


@pytest.mark.checklist("I25")
def test_two_legs_of_one_call_keep_their_own_views() -> None:
    """The callee's side sends the call back through us: same Call-ID and tag, another leg."""
    net = Net()
    call = net.establish()
    net.routing.anonymous = False
    net.routing.decide = lambda context: (
        setattr(context, "du", b"sip:192.0.2.9:5060"), context.uac_replace_from(b"", b"sip:second@leg.example"),
        context.record_route(), context.t_relay(),
    )  # fmt: skip
    net.send(
        net.phone,
        net.request(
            b"INVITE",
            b"sip:x@192.0.2.5",
            ANONYMOUS + b";tag=ct",
            b"<sip:x@192.0.2.5>",
            b"call1",
            1,
            host=b"192.0.2.9:5060",
        ),
    )
    second = parse(net.phone.take()[-1])
    assert second.get(b"From") == b"<sip:second@leg.example>;tag=ct"
    net.send(net.phone, reply(second, b"200 OK", b"leg2"))
    route = second.get(b"Record-Route") or b""
    net.phone.take()
    net.send(
        net.phone,
        net.request(
            b"BYE",
            b"sip:phone@192.0.2.9",
            ANONYMOUS + b";tag=ct",
            b"<sip:x@192.0.2.5>;tag=leg2",
            b"call1",
            2,
            route=route,
            host=b"192.0.2.9:5060",
        ),
    )
    assert parse(net.phone.take()[-1]).get(b"From") == b"<sip:second@leg.example>;tag=ct"
    net.send(net.provider, call.from_caller(b"INFO", 2))
    assert parse(net.phone.take()[-1]).get(b"From") == ANONYMOUS + b";tag=ct"


def test_to_is_replaced_and_restored() -> None:
    net = Net()

    def decide(context: object) -> None:
        net.routing.inbound(context)  # type: ignore[arg-type]
        context.uac_replace_to(b"sip:line@pbx.example")  # type: ignore[attr-defined]

    net.routing.decide = decide
    for restart in (False, True):
        call = net.establish(b"call%d" % restart)
        assert call.invite.get(b"To") == b"<sip:line@pbx.example>"
        assert call.ok.get(b"To") == b"<sip:acc1@192.0.2.5>;tag=pt"
        if restart:
            net.restart()
        net.send(net.provider, call.from_caller(b"INFO", 2))
        got = parse(net.phone.take()[-1])
        assert got.get(b"To") == b"<sip:line@pbx.example>;tag=pt"
        net.send(net.phone, call.from_callee(b"BYE", 7))
        got = parse(net.provider.take()[-1])
        assert got.get(b"From") == b"<sip:acc1@192.0.2.5>;tag=pt" and got.get(b"To") == CALLER + b";tag=ct"


@pytest.mark.parametrize("codec", ["sealed", "kamailio"])
def test_store_params_have_the_configured_names(codec: str) -> None:
    net = Net(Configuration(seal_keys=KEYS, restore_codec=codec, rr_from_store_param="abc", rr_to_store_param="xyz"))
    call = net.establish()
    assert b";abc=" in call.route_of_caller and b"vsf" not in call.route_of_caller
    if codec == "kamailio":
        net.restart()
    net.send(net.phone, call.from_callee(b"BYE", 7))
    to = parse(net.provider.take()[-1]).to
    assert to.uri == b"sip:+4930123456@provider.example" and to.tag == b"ct"


def test_manual_mode_asks_the_routing_within_a_call() -> None:
    net = Net(Configuration(seal_keys=KEYS, restore_mode="manual"))
    call = net.establish()

    def decide(context: object) -> None:
        assert context.is_in_dialog()  # type: ignore[attr-defined]
        assert context.uac_restore_from()  # type: ignore[attr-defined]
        context.t_relay()  # type: ignore[attr-defined]

    net.routing.decide = decide
    net.send(net.provider, call.from_caller(b"INFO", 2))
    assert parse(net.phone.take()[-1]).get(b"From") == ANONYMOUS + b";tag=ct"


def test_mode_none_stores_nothing() -> None:
    net = Net(Configuration(seal_keys=KEYS, restore_mode="none"))
    call = net.establish()
    assert b"vsf" not in call.route_of_caller
    assert call.ok.get(b"From") == ANONYMOUS + b";tag=ct"


def test_a_call_without_bye_ends_after_its_lifetime() -> None:
    net = Net(Configuration(seal_keys=KEYS, dialog_lifetime=600))
    net.establish()
    net.run(500)
    assert net.endpoint.live["dialogs"] == 1
    net.run(200)
    assert net.endpoint.live["dialogs"] == 0
    ended = net.events()[-1]
    assert isinstance(ended, CallEnded) and ended.code == 408


def test_what_is_kept_of_an_ended_call_goes_after_64_t1() -> None:
    net = Net()
    call = net.establish()
    net.run(20)  # so that its end falls between two looks at it
    net.send(net.provider, call.from_caller(b"BYE", 2))
    net.run(31)
    assert net.endpoint.live["dialogs"] == 1
    net.run(2)
    assert net.endpoint.live["dialogs"] == 0


@pytest.mark.rfc("3261", "16.6")
def test_record_route_goes_before_those_that_stand_wherever_they_do() -> None:
    net = Net()
    theirs = b"Record-Route: <sip:198.51.100.1;lr>\r\n"
    first, rest = net.invite().split(b"\r\n", 1)
    net.send(net.provider, first + b"\r\n" + theirs + theirs + rest)
    routes = parse(net.phone.take()[-1]).get_list(b"Record-Route")
    assert routes[0].startswith(b"<sip:192.0.2.5:5060;lr") and routes[1:] == [b"<sip:198.51.100.1;lr>"] * 2


@pytest.mark.rfc("5658", "5")
def test_double_record_route_between_transports() -> None:
    net = Net()
    phone = net.wire.station("192.0.2.9", 5060, "tcp")
    net.routing.next_hop = b"sip:192.0.2.9:5060;transport=tcp"
    net.send(net.provider, net.invite())
    invite = parse(phone.take()[-1])
    routes = invite.get_list(b"Record-Route")
    assert len(routes) == 2 and b"transport=tcp" in routes[0] and b"transport" not in routes[1]
    phone.send(reply(invite, b"200 OK"), ("192.0.2.5", 5060))
    net.run()
    route = b", ".join(reversed(routes))
    bye = net.request(
        b"BYE", b"sip:phone@192.0.2.9:5060;transport=tcp", CALLER + b";tag=ct", b"<sip:acc1@192.0.2.5>;tag=pt",
        b"call1", 2,
        route=route,
    )  # fmt: skip
    net.send(net.provider, bye)
    got = parse(phone.take()[-1])
    assert got.method == b"BYE" and got.get(b"Route") is None and got.via.transport == b"TCP"
    back = net.request(
        b"BYE", invite.contacts[0].uri, b"<sip:acc1@192.0.2.5>;tag=pt", ANONYMOUS + b";tag=ct", b"call1", 5,
        route=b", ".join(routes),
        host=b"192.0.2.9:5060",
    ).replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP")  # fmt: skip
    phone.send(back, ("192.0.2.5", 5060))
    net.run()
    assert parse(net.provider.take()[-1]).get(b"To") == CALLER + b";tag=ct"
