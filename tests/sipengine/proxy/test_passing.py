"""What a proxy only lets through: PRACK, UPDATE, session timers, transfers, identities that change, odd bodies."""

from __future__ import annotations

from typing import Any

import pytest

from sipengine.configuration import Configuration
from sipengine.events import CallEnded
from sipengine.message import parse
from tests.sipengine.net import CALLER, KEYS, Established, Net, reply, starts

CONTACT = b"Contact: <sip:phone@192.0.2.9:5060>"


def early(net: Net, *extra: bytes) -> Established:
    """A call that rings, with what both sides know of its early dialog."""
    net.send(net.provider, net.invite(extra=b"Supported: 100rel, timer\r\nAllow: PRACK, UPDATE\r\n"))
    invite = parse(net.phone.take()[0])
    assert invite.get(b"Supported") == b"100rel, timer" and invite.get(b"Allow") == b"PRACK, UPDATE"
    net.send(net.phone, reply(invite, b"183 Progress", b"pt", CONTACT, *extra))
    return Established(net, invite, parse(net.provider.take()[-1]), b"pt")


def exchange(net: Net, source: Any, target: Any, request: bytes, status: bytes = b"200 OK", *extra: bytes) -> Any:
    """A request within the call and its answer; returns both as the other side got them."""
    net.send(source, request)
    [got] = map(parse, target.take())
    net.send(target, reply(got, status, b"pt", *extra))
    [answer] = map(parse, source.take())
    return got, answer


@pytest.mark.rfc("3262", "3")
@pytest.mark.rfc("3262", "4")
def test_reliable_provisionals_and_prack_pass_unmerged_and_in_order() -> None:
    net = Net()
    net.send(net.provider, net.invite())
    invite = parse(net.phone.take()[0])
    for number in (1, 2, 2, 3):
        net.send(net.phone, reply(invite, b"183 P", b"pt", CONTACT, b"Require: 100rel", b"RSeq: %d" % number))
    heard = [parse(m) for m in net.provider.take()[1:]]
    assert [(m.get(b"RSeq"), m.get(b"Require")) for m in heard] == [(n, b"100rel") for n in (b"1", b"2", b"2", b"3")]
    call = Established(net, invite, heard[-1], b"pt")
    prack, answer = exchange(net, net.provider, net.phone, call.from_caller(b"PRACK", 2, b"RAck: 3 1 INVITE\r\n"))
    assert prack.get(b"RAck") == b"3 1 INVITE" and prack.cseq == (2, b"PRACK") and answer.status == 200
    assert answer.get(b"From") == CALLER + b";tag=ct"


@pytest.mark.rfc("3311", "5")
def test_update_passes_in_early_and_confirmed_dialogs_in_both_directions() -> None:
    net = Net()
    call = early(net)
    down, answer = exchange(net, net.provider, net.phone, call.from_caller(b"UPDATE", 2, body=b"v=0\r\n"))
    assert down.body == b"v=0\r\n" and answer.status == 200
    up, answer = exchange(net, net.phone, net.provider, call.from_callee(b"UPDATE", 7), b"491 Request Pending")
    assert up.ruri == b"sip:alice-gw@192.0.2.1:5060" and answer.status == 491
    net.send(net.phone, reply(call.invite, b"200 OK", b"pt", CONTACT))
    assert starts(net.provider.take()) == [b"SIP/2.0 200"]
    exchange(net, net.phone, net.provider, call.from_callee(b"UPDATE", 8))
    exchange(net, net.provider, net.phone, call.from_caller(b"UPDATE", 3), b"500 Server Error", b"Retry-After: 3")


@pytest.mark.rfc("4028", "8")
@pytest.mark.rfc("4028", "8.2")
def test_session_timers_pass_and_say_how_long_a_call_without_bye_is_kept() -> None:
    net = Net()
    timers = b"Session-Expires: 1800;refresher=uac\r\nMin-SE: 90\r\nRequire: timer\r\n"
    net.send(net.provider, net.invite(extra=timers))
    invite = parse(net.phone.take()[0])
    assert invite.get(b"Session-Expires") == b"1800;refresher=uac" and invite.get(b"Min-SE") == b"90"
    net.send(net.phone, reply(invite, b"200 OK", b"pt", CONTACT, b"x: 1800;refresher=uac", b"Require: timer"))
    ok = parse(net.provider.take()[-1])
    assert ok.get(b"Session-Expires") == b"1800;refresher=uac" and ok.get(b"Require") == b"timer"
    call = Established(net, invite, ok, b"pt")
    net.send(net.provider, call.from_caller(b"ACK", 1))
    net.run(1800)
    net.phone.take()
    exchange(net, net.provider, net.phone, call.from_caller(b"UPDATE", 2), b"200 OK", b"Session-Expires: 600")
    net.run(700)
    assert net.endpoint.live["dialogs"] == 1
    net.run(200)
    assert net.endpoint.live["dialogs"] == 0
    [ended] = [event for event in net.events() if isinstance(event, CallEnded)]
    assert ended.code == 408
    net = Net(Configuration(seal_keys=KEYS, dialog_lifetime=500))
    call = net.establish()
    net.run(400)
    exchange(net, net.provider, net.phone, call.from_caller(b"INFO", 2))
    net.run(400)
    assert net.endpoint.live["dialogs"] == 1  # without a session timer any request of the call prolongs it


@pytest.mark.rfc("3515", "2.4")
@pytest.mark.rfc("6665", "4")
@pytest.mark.rfc("3891", "3")
def test_a_transfer_passes_untouched_also_a_notify_before_the_202() -> None:
    net = Net()
    call = net.establish()
    refer_to = b"<sip:x@y.example?Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2>"
    net.send(net.provider, call.from_caller(
        b"REFER", 2, b"Refer-To: " + refer_to + b"\r\nReferred-By: <sip:boss@y.example>\r\n"
    ))  # fmt: skip
    refer = parse(net.phone.take()[0])
    assert refer.get(b"Refer-To") == refer_to and refer.get(b"Referred-By") == b"<sip:boss@y.example>"
    notify, _ = exchange(
        net, net.phone, net.provider,
        call.from_callee(b"NOTIFY", 1, b"Event: refer\r\n", body=b"SIP/2.0 100 Trying\r\n"),
    )  # fmt: skip
    assert notify.body == b"SIP/2.0 100 Trying\r\n" and notify.get(b"Event") == b"refer"
    net.send(net.phone, reply(refer, b"202 Accepted"))
    assert starts(net.provider.take()) == [b"SIP/2.0 202"]
    replaces = b"Replaces: call1;to-tag=1;from-tag=2\r\nTarget-Dialog: z;local-tag=1;remote-tag=2\r\n"
    net.send(net.provider, net.invite(b"c2", extra=replaces))
    invite = parse(next(m for m in net.phone.take() if m.startswith(b"INVITE")))
    assert invite.get(b"Replaces") == b"call1;to-tag=1;from-tag=2" and invite.get(b"Target-Dialog")


@pytest.mark.rfc("4916", "3")
@pytest.mark.rfc("3261", "12.2.1.1")
def test_a_call_is_known_by_call_id_and_tags_whatever_from_and_to_say() -> None:
    net = Net()
    call = net.establish()
    changed = call.from_callee(b"UPDATE", 1).replace(b"From: <sip:acc1@", b'From: "Bob" <sip:other@')
    assert b'"Bob"' in changed
    up, _ = exchange(net, net.phone, net.provider, changed)
    assert up.from_.tag == b"pt" and up.to.tag == b"ct" and up.get(b"To") == CALLER + b";tag=ct"
    sloppy = call.from_caller(b"BYE", 2).replace(CALLER, b"<sip:someone.else@provider.example>")
    down, _ = exchange(net, net.provider, net.phone, sloppy)
    assert b"someone.else" not in down.serialize()


@pytest.mark.rfc("5621", "3")
@pytest.mark.rfc("3420", "2")
@pytest.mark.rfc("3261", "20.32")
def test_bodies_and_option_tags_pass_byte_for_byte() -> None:
    net = Net()
    call = net.establish()
    body = b"--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--b\r\n\r\n\x00\xff\r\n--b--"
    fields = b"Content-Type: multipart/mixed;boundary=b\r\nRequire: x-nobody\r\nSupported: a,b\r\nAllow: INFO\r\n"
    down, answer = exchange(net, net.provider, net.phone, call.from_caller(b"INFO", 2, fields, body=body), b"420 Ext")
    assert down.body == body and down.get(b"Require") == b"x-nobody" and down.get(b"Supported") == b"a,b"
    assert answer.status == 420


@pytest.mark.rfc("7044", "5")
@pytest.mark.rfc("5806", "6")
def test_history_and_diversion_pass_where_nobody_hides_them() -> None:
    net = Net()
    net.routing.anonymous = False
    fields = b"History-Info: <sip:a@b>;index=1, <sip:c@d>;index=1.1\r\nDiversion: <sip:a@b>;reason=no-answer\r\n"
    net.send(net.provider, net.invite(extra=fields))
    invite = parse(net.phone.take()[0])
    assert invite.get(b"History-Info") == b"<sip:a@b>;index=1, <sip:c@d>;index=1.1"
    assert invite.get(b"Diversion") == b"<sip:a@b>;reason=no-answer"


@pytest.mark.rfc("3325", "7")
@pytest.mark.rfc("3323", "5")
def test_identity_fields_that_the_routing_removes_stay_away_for_the_whole_call() -> None:
    net = Net()
    call = net.establish(extra=b"P-Asserted-Identity: <sip:+4930123456@provider.example>\r\n")
    down, _ = exchange(net, net.provider, net.phone, call.from_caller(
        b"INFO", 2, b"P-Asserted-Identity: <sip:+4930123456@provider.example>\r\nDiversion: <sip:alice@b>\r\n"
    ))  # fmt: skip
    assert down.get(b"P-Asserted-Identity") is None and down.get(b"Diversion") is None


@pytest.mark.rfc("8224", "4")
def test_a_signed_identity_does_not_survive_another_from() -> None:
    net = Net()
    signed = b"y: eyJhbGciOi.alice.sig;info=<https://a.example/c>\r\nIdentity: second\r\n"
    call = net.establish(extra=signed)
    assert call.invite.get(b"Identity") is None
    down, _ = exchange(net, net.provider, net.phone, call.from_caller(b"UPDATE", 2, signed))
    assert down.get(b"Identity") is None
    net.routing.anonymous = False
    call = net.establish(b"plain", extra=signed)
    assert len(call.invite.get_all(b"Identity")) == 2


@pytest.mark.rfc("5031", "3")
def test_an_emergency_urn_is_routed_like_any_other_request() -> None:
    net = Net()
    seen: list[bytes] = []

    def decide(context: Any) -> None:
        seen.append(context.ruri)
        context.du = b"sip:192.0.2.9:5060"
        context.t_relay()

    net.routing.decide = decide
    net.send(net.provider, net.invite().replace(b"INVITE sip:acc1@192.0.2.5", b"INVITE urn:service:sos"))
    assert seen == [b"urn:service:sos"] and parse(net.phone.take()[0]).ruri == b"urn:service:sos"


@pytest.mark.rfc("3261", "21.5.4")
@pytest.mark.rfc("7339", "5")
def test_overload_is_a_503_with_a_time_and_calls_that_are_up_go_on() -> None:
    net = Net(Configuration(seal_keys=KEYS, max_transactions=4))
    call = net.establish()
    for number in range(4):
        net.send(net.provider, net.invite(b"more%d" % number))
    refused = parse(net.provider.take()[-1])
    assert refused.status == 503 and int((refused.get(b"Retry-After") or b"0").split()[0]) > 0
    net.phone.take()
    net.send(net.provider, call.from_caller(b"BYE", 2))
    assert b"BYE" in starts(net.phone.take())


@pytest.mark.rfc("3261", "16.12")
@pytest.mark.rfc("3261", "12.2.1.1")
def test_requests_within_a_call_pass_after_a_restart_in_both_directions() -> None:
    net = Net()
    call = net.establish()
    net.restart()
    down, answer = exchange(net, net.provider, net.phone, call.from_caller(b"INFO", 2))
    assert b"anonymous" in (down.get(b"From") or b"") and answer.get(b"From") == CALLER + b";tag=ct"
    up, _ = exchange(net, net.phone, net.provider, call.from_callee(b"BYE", 1))
    assert up.get(b"To") == CALLER + b";tag=ct" and up.ruri == b"sip:alice-gw@192.0.2.1:5060"
