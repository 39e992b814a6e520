"""Rules of RFC 3261 §16 and §17 and of its updates that a call seldom meets: one test for each."""

from __future__ import annotations

from typing import Any

import pytest

from sipengine.configuration import Configuration
from sipengine.message import Message, parse
from sipengine.timerqueue import TimerQueue
from sipengine.transport.peers import PeerBook
from tests.sipengine.net import CALLER, KEYS, PHONE2, PROXY, Net, assert_nothing_left, reply, starts
from tests.sipengine.proxy.test_response_context import ack_of, cancel_of, hunting

UDP = b"sip:192.0.2.9:5060"


def fork(net: Net, *more: bytes) -> Any:
    """Call the phone and a second one at once; returns the second."""
    second = net.wire.station(*PHONE2)

    def decide(context: Any) -> None:
        net.routing.inbound(context)
        for uri in more or (b"sip:second@192.0.2.10:5060",):
            context.append_branch(uri)

    net.routing.decide = decide
    return second


def ringing(net: Net, message: bytes) -> Message:
    net.send(net.provider, message)
    invite = parse(net.phone.take()[0])
    net.send(net.phone, reply(invite, b"180 Ringing"))
    net.provider.take()
    return invite


def refused(net: Net, *answers: tuple[Any, bytes]) -> list[Message]:
    """Both forks answer; what the caller hears after the 100."""
    second = fork(net)
    net.send(net.provider, net.invite())
    stations = {"first": net.phone, "second": second}
    invites = {name: parse(station.take()[0]) for name, station in stations.items()}
    for name, status in answers:
        extra = (b"Proxy-Authenticate: Digest realm=\"%b\"" % name.encode(),) if status[:3] in (b"401", b"407") else ()
        net.send(stations[name], reply(invites[name], status, name.encode(), *extra))
    return [parse(m) for m in net.provider.take()[1:]]


# choosing the best response
@pytest.mark.rfc("3261", "16.7")
@pytest.mark.parametrize(("one", "other", "best"), [
    (b"486 Busy", b"603 Decline", 603), (b"302 Moved", b"486 Busy", 302), (b"500 Broken", b"486 Busy", 486),
    (b"486 Busy", b"407 Auth", 407), (b"404 No", b"415 Type", 415), (b"480 Away", b"420 Ext", 420),
    (b"486 Busy", b"484 Short", 484), (b"503 Full", b"503 Full", 500), (b"503 Full", b"486 Busy", 486),
    (b"401 Auth", b"404 No", 401),
])  # fmt: skip
def test_the_best_of_two_refusals(one: bytes, other: bytes, best: int) -> None:
    for answers in ((one, other), (other, one)):
        net = Net()
        heard = refused(net, ("first", answers[0]), ("second", answers[1]))
        assert [message.status for message in heard] == [best]


@pytest.mark.rfc("3261", "16.7")
@pytest.mark.rfc("8760", "2.5")
def test_the_challenges_of_all_branches_come_in_one_answer() -> None:
    net = Net()
    [answer] = refused(net, ("first", b"407 Auth"), ("second", b"401 Auth"))
    assert answer.status == 407
    assert answer.get_all(b"Proxy-Authenticate") == [b'Digest realm="first"', b'Digest realm="second"']


@pytest.mark.rfc("3261", "16.7")
@pytest.mark.rfc("3326", "2")
def test_a_6xx_ends_the_other_branches_and_a_2xx_still_wins() -> None:
    net = Net()
    second = fork(net)
    net.send(net.provider, net.invite())
    first_invite, second_invite = parse(net.phone.take()[0]), parse(second.take()[0])
    net.send(second, reply(second_invite, b"180 Ringing", b"p2"))
    net.provider.take()
    net.send(net.phone, reply(first_invite, b"603 Decline"))
    assert net.provider.take() == []
    [cancel] = map(parse, second.take())
    assert cancel.method == b"CANCEL" and cancel.get(b"Reason") == b"SIP;cause=603"
    net.send(second, reply(second_invite, b"200 OK", b"p2"))
    assert starts(net.provider.take()) == [b"SIP/2.0 200"]


@pytest.mark.rfc("3261", "16.7")
@pytest.mark.rfc("3960", "3")
def test_each_fork_rings_with_its_own_tag_and_100_stays_here() -> None:
    net = Net()
    second = fork(net)
    net.send(net.provider, net.invite())
    invites = {b"p1": parse(net.phone.take()[0]), b"p2": parse(second.take()[0])}
    for word in (b"p1 100 T", b"p1 183 P", b"p2 183 P", b"p2 180 R", b"p1 180 R"):
        tag, _, status = word.partition(b" ")
        station = net.phone if tag == b"p1" else second
        net.send(station, reply(invites[tag], status, tag, b"RSeq: 7", body=b"sdp of " + tag))
    heard = [parse(m) for m in net.provider.take()][1:]
    assert [(m.status, m.to.tag, m.body) for m in heard] == [
        (183, b"p1", b"sdp of p1"), (183, b"p2", b"sdp of p2"), (180, b"p2", b"sdp of p2"), (180, b"p1", b"sdp of p1")
    ]  # fmt: skip
    assert {m.get(b"RSeq") for m in heard} == {b"7"}


@pytest.mark.rfc("6026", "7.1")
@pytest.mark.rfc("6026", "7.2")
def test_2xx_of_two_forks_and_repetitions_all_pass_and_the_invite_is_absorbed() -> None:
    net = Net()
    second = fork(net)
    message = net.invite()
    net.send(net.provider, message)
    first_invite, second_invite = parse(net.phone.take()[0]), parse(second.take()[0])
    net.send(net.phone, reply(first_invite, b"200 OK", b"p1"))
    net.send(second, reply(second_invite, b"200 OK", b"p2"))
    net.send(net.phone, reply(first_invite, b"200 OK", b"p1"))
    assert [parse(m).to.tag for m in net.provider.take()[1:]] == [b"p1", b"p2", b"p1"]
    net.send(net.provider, message)
    assert net.provider.take() == [] and net.phone.take() == []
    net.run(33)
    net.send(net.phone, reply(first_invite, b"200 OK", b"p1"))
    assert net.provider.take() == []


@pytest.mark.rfc("6026", "7.3")
@pytest.mark.rfc("4320", "4.2")
def test_responses_that_come_too_late_are_dropped() -> None:
    for method in (b"INVITE", b"MESSAGE"):
        net = Net()
        net.send(net.provider, net.invite(method=method))
        invite = parse(net.phone.take()[0])
        net.run(100)
        stray = net.endpoint.counters.stray
        net.provider.take()
        net.send(net.phone, reply(invite, b"200 OK"))
        assert net.provider.take() == [] and net.endpoint.counters.stray == stray + 1


# requests other than INVITE
@pytest.mark.rfc("4320", "4.1")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_slow_request_gets_100_when_timer_e_reaches_t2_and_no_other_provisional(transport: str) -> None:
    net = Net(latency=0.0, transport=transport)
    net.routing.next_hop += net.suffix
    message = net.invite(method=b"MESSAGE", extra=b"Timestamp: 54\r\n")
    net.provider.send(message, PROXY)
    net.run(3.4)
    request = parse(net.phone.take()[0])
    assert net.provider.take() == []
    net.run(0.2)
    [hundred] = map(parse, net.provider.take())
    assert hundred.status == 100 and hundred.get(b"Timestamp") == b"54"
    source = next(m[1] for m in net.wire.sent if m[3].startswith(b"MESSAGE") and m[2] == net.phone.address)
    net.phone.send(reply(request, b"180 Ringing"), source)
    net.run()
    assert net.provider.take() == []
    net.phone.send(reply(request, b"200 OK"), source)
    net.run()
    assert starts(net.provider.take()) == [b"SIP/2.0 200"]


@pytest.mark.rfc("4320", "4.2")
@pytest.mark.rfc("4321", "1")
def test_not_even_a_408_of_the_far_side_or_of_a_hook_goes_to_a_request_other_than_invite() -> None:
    net = Net()
    message = net.invite(method=b"MESSAGE")
    net.send(net.provider, message)
    net.send(net.phone, reply(parse(net.phone.take()[0]), b"408 Request Timeout"))
    net.send(net.provider, message)
    assert net.provider.take() == [] and len(net.routing.contexts) == 1
    net.routing.decide = lambda context: context.sl_send_reply(408, "Request Timeout")
    net.send(net.provider, net.invite(b"c2", method=b"MESSAGE"))
    assert net.provider.take() == []
    net.send(net.provider, net.invite(b"c3"))
    assert starts(net.provider.take()) == [b"SIP/2.0 100", b"SIP/2.0 408"]


@pytest.mark.rfc("3261", "16.2")
@pytest.mark.rfc("3261", "8.2.1")
@pytest.mark.parametrize("method", [b"INFO", b"PUBLISH", b"NEWMETHOD", b"invite", b"UNLINK.2!"])
def test_any_method_is_relayed_like_options(method: bytes) -> None:
    net = Net()
    net.send(net.provider, net.invite(method=method))
    request = parse(net.phone.take()[0])
    assert request.method == method and net.provider.take() == []
    net.send(net.phone, reply(request, b"501 Not Implemented"))
    assert starts(net.provider.take()) == [b"SIP/2.0 501"]


# CANCEL
@pytest.mark.rfc("3326", "2")
@pytest.mark.rfc("3261", "9.1")
def test_a_cancel_takes_its_reason_along() -> None:
    net = Net()
    message = net.invite()
    ringing(net, message)
    reason = b'Reason: SIP;cause=200;text="Call completed elsewhere"\r\nReason: Q.850;cause=26\r\n'
    net.send(net.provider, cancel_of(message).replace(b"Content-Length", reason + b"Content-Length"))
    [cancel] = map(parse, net.phone.take())
    assert cancel.get_all(b"Reason") == [b'SIP;cause=200;text="Call completed elsewhere"', b"Q.850;cause=26"]
    assert cancel.get_list(b"Via") == [parse(cancel.serialize()).get(b"Via")]


@pytest.mark.rfc("3326", "2")
def test_the_losing_fork_hears_that_the_call_was_answered_elsewhere() -> None:
    net = Net()
    second = fork(net)
    net.send(net.provider, net.invite())
    first_invite, second_invite = parse(net.phone.take()[0]), parse(second.take()[0])
    net.send(net.phone, reply(first_invite, b"180 Ringing"))
    net.send(second, reply(second_invite, b"200 OK", b"p2"))
    [cancel] = map(parse, net.phone.take())
    assert b"cause=200" in (cancel.get(b"Reason") or b"")


@pytest.mark.rfc("3261", "9.2")
def test_a_cancel_of_another_request_or_of_an_answered_one_changes_nothing() -> None:
    net = Net()
    options = net.invite(method=b"MESSAGE")
    net.send(net.provider, options)
    request = parse(net.phone.take()[0])
    net.send(net.provider, options.replace(b"MESSAGE", b"CANCEL"))
    assert starts(net.provider.take()) == [b"SIP/2.0 200"] and net.phone.take() == []
    net.send(net.phone, reply(request, b"200 OK"))
    assert starts(net.provider.take()) == [b"SIP/2.0 200"]
    message = net.invite(b"c2")
    net.send(net.provider, message)
    net.send(net.phone, reply(parse(net.phone.take()[0]), b"486 Busy"))
    net.phone.take(), net.provider.take()
    net.send(net.provider, cancel_of(message))
    assert starts(net.provider.take()) == [b"SIP/2.0 200"] and net.phone.take() == []


@pytest.mark.rfc("3261", "9.1")
def test_a_cancelled_branch_without_final_answer_ends_after_64_t1() -> None:
    net = Net()
    message = net.invite()
    ringing(net, message)
    net.send(net.provider, cancel_of(message))
    net.provider.take()
    net.run(31.5)
    assert net.provider.take() == []
    net.run(1)
    assert starts(net.provider.take())[0] == b"SIP/2.0 487"
    net.send(net.provider, ack_of(message))
    assert_nothing_left(net)


@pytest.mark.rfc("3261", "16.5")
@pytest.mark.rfc("3261", "16.10")
def test_a_cancel_between_two_tries_of_a_hunt_ends_it() -> None:
    net = Net()
    second = net.wire.station(*PHONE2)
    held: list[Any] = []
    net.routing.failure_route = lambda context: held.append(context) or waiting()  # type: ignore[attr-defined]

    async def waiting() -> None: ...

    steps: list[Any] = []
    message = net.invite()
    net.send(net.provider, message)
    net.routing.contexts[0].step = lambda coroutine, done: steps.append((coroutine, done))
    net.provider.take()
    net.send(net.phone, reply(parse(net.phone.take()[0]), b"486 Busy"))
    net.send(net.provider, cancel_of(message))
    assert sorted(starts(net.provider.take())) == [b"SIP/2.0 200", b"SIP/2.0 487"]
    coroutine, done = steps[0]
    coroutine.close()
    held[0].du = b"sip:192.0.2.10:5060"
    held[0].t_relay()
    done(None)
    net.run()
    assert second.take() == [] and net.provider.take() == []


# timer C
@pytest.mark.rfc("3261", "16.8")
def test_timer_c_is_set_again_by_each_101_to_199_and_may_be_longer_for_one_call() -> None:
    for own in (0.0, 400.0):
        net = Net()
        if own:
            net.routing.decide = lambda context: (context.t_set_fr(400.0), net.routing.inbound(context))  # noqa: B023
        invite = ringing(net, net.invite())
        net.run(150)
        net.send(net.phone, reply(invite, b"100 Trying"))
        net.send(net.phone, reply(invite, b"183 Progress"))
        net.run((own or 181) - 5)
        assert b"CANCEL" not in starts(net.phone.take())
        net.run(45)
        assert b"CANCEL" in starts(net.phone.take())
    with pytest.raises(ValueError, match="three minutes"):
        net.routing.contexts[0].t_set_fr(60)


# where a request may go
@pytest.mark.rfc("3261", "16.4")
def test_our_own_maddr_is_taken_off_and_a_foreign_one_stays() -> None:
    for ruri, wanted in (
        (b"sip:acc1@elsewhere.example;maddr=192.0.2.5;transport=udp", b"sip:acc1@elsewhere.example"),
        (b"sip:acc1@elsewhere.example;maddr=192.0.2.77", b"sip:acc1@elsewhere.example;maddr=192.0.2.77"),
        (b"sip:acc1@elsewhere.example;maddr=192.0.2.5;transport=tcp", None),
    ):
        net = Net()
        seen: list[bytes] = []
        net.routing.decide = lambda context: (seen.append(context.ruri), context.sl_send_reply(404))  # noqa: B023
        net.send(net.provider, net.invite().replace(b"INVITE sip:acc1@192.0.2.5 ", b"INVITE " + ruri + b" "))
        assert seen == [wanted or ruri]


@pytest.mark.rfc("3261", "16.6")
def test_method_and_headers_leave_a_request_uri() -> None:
    net = Net()
    net.routing.decide = lambda context: (setattr(context, "du", UDP), context.t_relay())
    odd = b"sip:acc1@pbx.example;x=1;method=REFER?Replaces=a"
    net.send(net.provider, net.invite().replace(b"INVITE sip:acc1@192.0.2.5 ", b"INVITE " + odd + b" "))
    assert parse(net.phone.take()[0]).ruri == b"sip:acc1@pbx.example;x=1"


class OnePeer(PeerBook):
    """All addresses are one peer's."""

    def same_peer(self, asked: str, answered: str) -> bool:
        return True


@pytest.mark.rfc("3261", "16.6")
def test_a_strict_router_ahead_gets_the_request_uri_and_the_rest_behind() -> None:
    net = Net(peers=OnePeer())
    call = net.establish()
    route = call.route_of_caller + b", <sip:192.0.2.10:5060>, <sip:third.example;lr>"
    strict = net.wire.station(*PHONE2)
    bye = call.from_caller(b"BYE", 2).replace(b"Route: " + call.route_of_caller, b"Route: " + route)
    net.send(net.provider, bye)
    [sent] = map(parse, strict.take())
    assert sent.ruri == b"sip:192.0.2.10:5060"
    assert sent.get_list(b"Route") == [b"<sip:third.example;lr>", b"<sip:phone@192.0.2.9:5060>"]


@pytest.mark.rfc("3261", "16.6")
def test_a_copy_has_one_hop_less_a_branch_of_its_own_and_a_record_route() -> None:
    opening = (b"INVITE", b"SUBSCRIBE", b"REFER", b"NOTIFY")
    for method in (*opening, b"MESSAGE", b"INFO"):
        opens = int(method in opening)
        net = Net()
        second = fork(net)
        body = net.invite(method=method, extra=b"Content-Type: x/y\r\n").replace(
            b"Content-Length: 0\r\n\r\n", b"Content-Length: 4\r\n\r\n\x00\xff\r\n"
        )
        net.send(net.provider, body)
        one, two = parse(net.phone.take()[0]), parse(second.take()[0])
        assert one.via.branch != two.via.branch and one.get(b"Max-Forwards") == b"69"
        assert len(one.get_list(b"Record-Route")) == opens
        assert all(b";lr" in value for value in one.get_list(b"Record-Route"))
        assert one.body == two.body == b"\x00\xff\r\n"


@pytest.mark.rfc("3261", "16.6")
@pytest.mark.rfc("3261", "12.2")
def test_a_request_within_a_call_gets_no_second_record_route() -> None:
    net = Net()
    call = net.establish()
    net.send(net.provider, call.from_caller(b"INVITE", 2, b"Contact: <sip:alice-gw@192.0.2.1:5060>\r\n"))
    assert parse(net.phone.take()[0]).get_list(b"Record-Route") == []


@pytest.mark.rfc("3261", "12.2.2")
def test_a_request_without_our_route_needs_both_tags_of_a_call_we_know() -> None:
    net = Net()
    call = net.establish()
    plain = call.from_caller(b"INFO", 2).replace(b"Route: " + call.route_of_caller + b"\r\n", b"")
    net.send(net.provider, plain)
    [info] = map(parse, net.phone.take())
    net.send(net.phone, reply(info, b"200 OK"))
    net.provider.take()
    for number, (old, new) in enumerate((
        (b";tag=pt", b";tag=other"), (b";tag=ct", b";tag=other"), (b"Call-ID: call1", b"Call-ID: call9"),
        (b"INFO sip:phone@192.0.2.9:5060", b"INFO sip:phone@192.0.2.5:5060"),
    )):  # fmt: skip
        foreign = plain.replace(old, new).replace(b"branch=z9hG4bK", b"branch=z9hG4bK%d" % number)
        assert foreign.count(new)
        net.send(net.provider, foreign)
        assert starts(net.provider.take()) == [b"SIP/2.0 481"] and net.phone.take() == []
        net.send(net.provider, foreign.replace(b"INFO", b"ACK"))
        assert net.provider.take() == [] and net.phone.take() == []


@pytest.mark.rfc("3261", "16.3")
def test_the_checks_come_in_their_order() -> None:
    """Each message breaks one rule more than the next, and is refused for the first."""
    net = Net()
    broken = [
        (b"INVITE sip:acc1", b"INVITE nobody:acc1", b"416"), (b"Max-Forwards: 70", b"Max-Forwards: 0", b"483"),
        (b"Max-Forwards", b"Proxy-Require: x\r\nMax-Forwards", b"420"),
    ]  # fmt: skip
    for first in range(3):
        message = net.invite(b"c%d" % first)
        for old, new, _ in broken[first:]:
            message = message.replace(old, new)
        net.send(net.provider, message)
        assert starts(net.provider.take()) == [b"SIP/2.0 " + broken[first][2]]
    cancel = cancel_of(net.invite(b"c9")).replace(b"Max-Forwards", b"Proxy-Require: x\r\nMax-Forwards")
    net.send(net.provider, cancel)
    assert starts(net.provider.take()) == [b"SIP/2.0 481"]


@pytest.mark.rfc("3261", "8.2.2.2")
def test_a_request_that_came_on_two_ways_is_answered_once_where_we_are_its_uas() -> None:
    net = Net()
    us = b"sip:192.0.2.5"
    ping = [net.request(b"OPTIONS", us, CALLER + b";tag=x", b"<" + us + b">", b"p", 1) for _ in range(2)]
    for message in (*ping, ping[0]):
        net.send(net.provider, message)
    assert starts(net.provider.take()) == [b"SIP/2.0 200", b"SIP/2.0 482", b"SIP/2.0 200"]
    for number in range(200):
        net.send(net.provider, ping[0].replace(b"Call-ID: p", b"Call-ID: %d" % number).replace(b"K", b"K%d" % number))
    net.run(40)
    net.send(net.provider, ping[1].replace(b"branch=", b"branch=z9hG4bKlater"))
    assert starts(net.provider.take())[-1] == b"SIP/2.0 200"
    assert_nothing_left(net)


@pytest.mark.rfc("5393", "4.2")
def test_a_spiral_is_no_loop_and_a_loop_over_another_listener_is_one() -> None:
    net = Net()
    net.endpoint.add_listener("udp", "192.0.2.55", 5060)
    net.wire.attach(net.endpoint)

    def spiral(context: Any) -> None:
        left = int(context.rU[1:])
        context.rU = f"n{left - 1}"
        context.du = UDP if left == 1 else b"sip:192.0.2.5:5060"
        context.t_relay()

    net.routing.decide = spiral
    net.send(net.provider, net.invite(user=b"n5"))
    assert parse(net.phone.take()[0]).ruri.startswith(b"sip:n0@")
    net.routing.decide = lambda context: (setattr(context, "du", b"sip:192.0.2.55:5060"), context.t_relay())
    net.send(net.provider, net.invite(b"c2"))
    assert starts(net.provider.take())[-1] == b"SIP/2.0 482" and len(net.routing.contexts) < 9


@pytest.mark.rfc("5393", "5.3")
def test_max_breadth_is_divided_and_too_little_of_it_is_440() -> None:
    for given, shares in ((b"", [b"20"] * 3), (b"Max-Breadth: 9\r\n", [b"3"] * 3), (b"Max-Breadth: 2\r\n", None)):
        net = Net()
        second = fork(net, b"sip:a@192.0.2.10:5060", b"sip:b@192.0.2.10:5060")
        net.send(net.provider, net.invite(extra=given))
        sent = [parse(m) for m in [*net.phone.take(), *second.take()]]
        assert [m.get(b"Max-Breadth") for m in sent] == (shares or [])
        assert starts(net.provider.take())[1:] == ([] if shares else [b"SIP/2.0 440"])
    net = Net()
    net.send(net.provider, net.invite(extra=b"Max-Breadth: 0\r\n"))
    assert starts(net.provider.take())[-1] == b"SIP/2.0 440"
    net.send(net.provider, net.invite(b"c2"))
    assert parse(net.phone.take()[0]).get(b"Max-Breadth") is None


@pytest.mark.rfc("3261", "16.5")
@pytest.mark.rfc("3261", "21.3")
def test_a_3xx_goes_back_and_is_not_followed() -> None:
    net = Net()
    elsewhere = net.wire.station("203.0.113.99", 5060)
    net.send(net.provider, net.invite())
    moved = reply(parse(net.phone.take()[0]), b"302 Moved", b"pt", b"Contact: <sip:x@203.0.113.99>")
    net.send(net.phone, moved)
    answer = parse(net.provider.take()[-1])
    assert answer.status == 302 and answer.get(b"Contact") == b"<sip:x@203.0.113.99>" and elsewhere.take() == []


# matching
@pytest.mark.rfc("3261", "17.2.3")
def test_a_repetition_from_another_port_is_still_one() -> None:
    net = Net()
    moved = net.wire.station("192.0.2.1", 4444)
    message = net.invite()
    net.send(net.provider, message)
    net.send(moved, message)
    assert len(net.routing.contexts) == 1 and net.endpoint.counters.retransmissions == 1


@pytest.mark.rfc("3261", "17.2.1")
def test_a_repeated_invite_gets_the_last_provisional_again() -> None:
    net = Net()
    message = net.invite()
    ringing(net, message)
    net.send(net.provider, message)
    assert starts(net.provider.take()) == [b"SIP/2.0 180"] and net.phone.take() == []


@pytest.mark.rfc("3261", "8.2.6.1")
@pytest.mark.rfc("3261", "17.2.1")
def test_100_comes_at_once_and_gives_the_timestamp_back() -> None:
    net = Net(latency=0.0)
    net.provider.send(net.invite(extra=b"Timestamp: 54.1\r\n"), PROXY)
    net.run(0.0)
    assert parse(net.provider.take()[0]).get(b"Timestamp") == b"54.1"


@pytest.mark.checklist("C11")
def test_the_timers_of_ten_thousand_transactions_fire_when_they_are_due() -> None:
    queue, late = TimerQueue(), []

    class Owner:
        due = 0.0

        def on_timer(self, now: float) -> None:
            late.append(now - self.at)

        def __init__(self, at: float) -> None:
            self.at = at + 32.0
            queue.arm(self, 32.0, at)

    for number in range(10_000):
        Owner(number / 1000)
    now = 0.0
    while (at := queue.next_at()) < float("inf"):
        now = max(now + 0.005, at)  # a host that wakes up every 5 ms at most
        queue.expire(now)
    assert len(late) == 10_000 and max(late) < 0.05


@pytest.mark.rfc("3261", "8.2.7")
@pytest.mark.rfc("3261", "16.11")
def test_under_overload_each_repetition_gets_the_same_answer_and_nothing_is_kept() -> None:
    net = Net(Configuration(seal_keys=KEYS, max_transactions=1))
    net.send(net.provider, net.invite())
    net.provider.take()
    message = net.invite(b"c2")
    for _ in range(3):
        net.send(net.provider, message)
    answers = net.provider.take()
    assert starts(answers) == [b"SIP/2.0 503"] * 3 and len({parse(m).to.tag for m in answers}) == 1
    assert net.endpoint.live["server_transactions"] == 1


@pytest.mark.rfc("3261", "16.7")
def test_a_hunt_is_answered_once_by_the_best() -> None:
    net = Net()
    second = net.wire.station(*PHONE2)
    hunting(net, b"sip:192.0.2.10:5060")
    net.send(net.provider, net.invite())
    net.provider.take()
    net.send(net.phone, reply(parse(net.phone.take()[0]), b"484 Incomplete", b"p1"))
    net.wire.send("udp", PHONE2, PROXY, reply(parse(second.take()[0]), b"180 Ringing", b"p2"))
    net.wire.send("udp", PHONE2, PROXY, reply(parse(second.log[-1]), b"500 Broken", b"p2"))
    net.run()
    assert starts(net.provider.take()) == [b"SIP/2.0 180", b"SIP/2.0 484"]


@pytest.mark.rfc("3261", "8.2.6.2")
def test_a_uas_that_copies_our_via_alone_is_understood() -> None:
    net = Net()
    message = net.invite()
    net.send(net.provider, message)
    invite = parse(net.phone.take()[0])
    lonely = reply(invite, b"200 OK").replace(b"Via: " + invite.get_list(b"Via")[1] + b"\r\n", b"")
    assert lonely.count(b"Via") == 1
    net.send(net.phone, lonely)
    assert parse(net.provider.take()[-1]).get_list(b"Via") == parse(message).get_list(b"Via")


@pytest.mark.rfc("3261", "16.11")
@pytest.mark.rfc("3261", "16.3")
def test_an_ack_without_hops_left_is_dropped_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    net = Net()
    call = net.establish()
    net.send(net.provider, call.from_caller(b"ACK", 1).replace(b"Max-Forwards: 70", b"Max-Forwards: 0"))
    net.send(net.provider, call.from_caller(b"BYE", 2).replace(b"Max-Forwards: 70", b"Max-Forwards: 0"))
    assert starts(net.provider.take()) == [b"SIP/2.0 483"] and net.phone.take() == [] and caplog.text == ""
