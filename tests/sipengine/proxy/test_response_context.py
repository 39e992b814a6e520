"""Failures, CANCEL, forks, timers and hooks of a response context."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sipengine.configuration import Configuration
from sipengine.events import CallEnded, Target
from sipengine.exceptions import Reject, TransportError
from sipengine.message import parse
from tests.sipengine.net import (
    ANONYMOUS,
    CALLER,
    KEYS,
    PHONE2,
    PROVIDER,
    PROXY,
    STRANGER,
    Net,
    assert_clean,
    assert_nothing_left,
    reply,
    starts,
)


def cancel_of(invite: bytes) -> bytes:
    return invite.replace(b"INVITE", b"CANCEL")


def ack_of(invite: bytes, tag: bytes = b"pt") -> bytes:
    return invite.replace(b"INVITE", b"ACK").replace(
        b"To: <sip:acc1@192.0.2.5>", b"To: <sip:acc1@192.0.2.5>;tag=" + tag
    )


@pytest.mark.rfc("3261", "17.2.1")
@pytest.mark.rfc("3261", "17.1.1.3")
def test_a_refusal_is_acknowledged_hop_by_hop_and_repeated_until_the_caller_acknowledges() -> None:
    net = Net()
    message = net.invite()
    net.send(net.provider, message)
    invite = parse(net.phone.take()[0])
    net.provider.take()
    net.send(net.phone, reply(invite, b"486 Busy Here"))
    [ack] = map(parse, net.phone.take())
    assert ack.method == b"ACK" and ack.ruri == invite.ruri and ack.line(b"via") == invite.line(b"via")
    assert ack.cseq == (1, b"ACK") and ack.get(b"From") == invite.get(b"From") and ack.to.tag == b"pt"
    [busy] = map(parse, net.provider.take())
    assert busy.status == 486 and busy.get(b"From") == CALLER + b";tag=ct"
    net.send(net.phone, reply(invite, b"486 Busy Here"))
    assert starts(net.phone.take()) == [b"ACK"] and net.provider.take() == []
    net.run(3.0)  # G: 0.5 1.5
    assert starts(net.provider.take()) == [b"SIP/2.0 486"] * 2
    net.send(net.provider, ack_of(message))
    assert net.phone.take() == []
    net.run(40)
    assert net.provider.take() == []
    ended = net.events()[-1]
    assert isinstance(ended, CallEnded) and ended.code == 486
    assert_clean(net)
    assert_nothing_left(net)


@pytest.mark.rfc("3261", "9.1")
@pytest.mark.rfc("3261", "16.10")
def test_cancel_after_a_provisional() -> None:
    net = Net()
    message = net.invite()
    net.send(net.provider, message)
    invite = parse(net.phone.take()[0])
    net.send(net.phone, reply(invite, b"180 Ringing"))
    net.provider.take()
    net.send(net.provider, cancel_of(message))
    assert starts(net.provider.take()) == [b"SIP/2.0 200"]
    [cancel] = map(parse, net.phone.take())
    assert cancel.method == b"CANCEL" and cancel.ruri == invite.ruri and cancel.line(b"via") == invite.line(b"via")
    assert cancel.cseq == (1, b"CANCEL") and cancel.get(b"From") == invite.get(b"From") and not cancel.to.tag
    net.send(net.phone, reply(cancel, b"200 OK"))
    net.send(net.phone, reply(invite, b"487 Request Terminated"))
    assert starts(net.phone.take()) == [b"ACK"]
    assert starts(net.provider.take()) == [b"SIP/2.0 487"]
    net.send(net.provider, ack_of(message))
    ended = net.events()[-1]
    assert isinstance(ended, CallEnded) and ended.code == 487
    assert_clean(net)
    assert_nothing_left(net)


@pytest.mark.rfc("3261", "9.1")
def test_cancel_waits_for_a_provisional() -> None:
    net = Net()
    message = net.invite()
    net.send(net.provider, message)
    invite = parse(net.phone.take()[0])
    net.send(net.provider, cancel_of(message))
    assert net.phone.take() == []
    net.send(net.phone, reply(invite, b"100 Trying"))
    assert starts(net.phone.take()) == [b"CANCEL"]


@pytest.mark.rfc("3261", "9.1")
@pytest.mark.rfc("3261", "16.10")
def test_a_2xx_wins_the_race_against_cancel() -> None:
    net = Net()
    message = net.invite()
    net.send(net.provider, message)
    invite = parse(net.phone.take()[0])
    net.send(net.phone, reply(invite, b"180 Ringing"))
    net.phone.send(reply(invite, b"200 OK"), PROXY)
    net.provider.send(cancel_of(message), PROXY)
    net.run()
    assert sorted(starts(net.provider.take()))[-2:] == [b"SIP/2.0 200", b"SIP/2.0 200"]
    assert net.phone.take() == []
    net.send(net.provider, cancel_of(message).replace(b"branch=", b"branch=z9hG4bKother"))
    assert starts(net.provider.take()) == [b"SIP/2.0 481"]


def test_cancel_while_the_next_hop_is_being_looked_up() -> None:
    net = Net()
    waiting: list[Any] = []
    net.endpoint.proxy.locator.locate = lambda uri, found, now: waiting.append(found)  # type: ignore[method-assign]
    net.routing.next_hop = b"sip:pbx.example"
    message = net.invite()
    net.send(net.provider, message)
    net.provider.take()
    net.send(net.provider, cancel_of(message))
    assert sorted(starts(net.provider.take())) == [b"SIP/2.0 200", b"SIP/2.0 487"]
    waiting[0]([Target("udp", ("192.0.2.9", 5060))], net.wire.now)
    net.run()
    assert net.phone.take() == []


@pytest.mark.rfc("3261", "17.1.1.2")
def test_timer_a_and_b() -> None:
    net = Net(latency=0.0)
    message = net.invite()
    net.provider.send(message, PROXY)
    times = []
    net.phone.on_receive = lambda data, source: times.append(round(net.wire.now, 2))
    net.run(35)
    assert times == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert starts(net.provider.take())[:2] == [b"SIP/2.0 100", b"SIP/2.0 408"]
    net.send(net.provider, ack_of(message))
    assert_nothing_left(net)


@pytest.mark.rfc("4320", "4.1")
@pytest.mark.rfc("4320", "4.2")
def test_no_408_to_a_request_other_than_invite() -> None:
    net = Net(latency=0.0)
    times = []
    net.phone.on_receive = lambda data, source: times.append(round(net.wire.now, 2))
    net.provider.send(net.invite(method=b"MESSAGE"), PROXY)
    net.run(3.4)
    assert net.provider.take() == []
    net.run(70)
    assert times == [0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert starts(net.provider.take()) == [b"SIP/2.0 100"]
    assert_nothing_left(net)


@pytest.mark.rfc("3261", "16.8")
def test_timer_c_cancels_what_rings_for_ever() -> None:
    net = Net()
    net.send(net.provider, net.invite())
    invite = parse(net.phone.take()[0])
    net.send(net.phone, reply(invite, b"180 Ringing"))
    net.run(150)
    net.send(net.phone, reply(invite, b"180 Ringing"))  # starts it again
    net.run(150)
    assert net.phone.take() == []
    net.run(70)
    assert starts(net.phone.take())[0] == b"CANCEL"
    net.run(40)
    assert b"SIP/2.0 408" in starts(net.provider.take())


@pytest.mark.rfc("6026", "7.1")
def test_every_2xx_passes_and_late_ones_do_not() -> None:
    net = Net()
    net.send(net.provider, net.invite())
    invite = parse(net.phone.take()[0])
    for _ in range(3):
        net.send(net.phone, reply(invite, b"200 OK"))
    net.send(net.phone, reply(invite, b"200 OK", b"fork2"))
    assert starts(net.provider.take()) == [b"SIP/2.0 100"] + [b"SIP/2.0 200"] * 4
    net.run(40)
    net.send(net.phone, reply(invite, b"200 OK"))
    assert net.provider.take() == [] and net.endpoint.counters.stray == 1


def test_forked_provisionals_and_an_early_bye_are_all_translated() -> None:
    net = Net()
    net.send(net.provider, net.invite())
    invite = parse(net.phone.take()[0])
    for tag in (b"f1", b"f2", b"f3"):
        net.send(net.phone, reply(invite, b"180 Ringing", tag))
        assert parse(net.provider.take()[-1]).get(b"From") == CALLER + b";tag=ct"
    route = invite.get(b"Record-Route") or b""
    bye = net.request(
        b"BYE",
        b"sip:phone@192.0.2.9:5060",
        CALLER + b";tag=ct",
        b"<sip:acc1@192.0.2.5>;tag=f1",
        b"call1",
        2,
        route=route,
    )
    net.send(net.provider, bye)
    assert parse(net.phone.take()[-1]).get(b"From") == ANONYMOUS + b";tag=ct"
    assert_clean(net)


def hunting(net: Net, *hops: bytes) -> None:
    """Serial forking by failure_route."""
    left = list(hops)

    def failure_route(context: Any) -> None:
        if left and context.status != 603:
            context.du = left.pop(0)
            context.t_relay()

    net.routing.failure_route = failure_route  # type: ignore[attr-defined]


def test_failure_route_adds_a_target_and_the_caller_hears_of_one_failure_only() -> None:
    net = Net()
    second = net.wire.station(*PHONE2)
    hunting(net, b"sip:192.0.2.10:5060")
    net.send(net.provider, net.invite())
    invite = parse(net.phone.take()[0])
    net.provider.take()
    net.send(net.phone, reply(invite, b"486 Busy Here"))
    assert net.provider.take() == []
    [other] = map(parse, second.take())
    assert other.via.branch != invite.via.branch and other.get(b"From") == ANONYMOUS + b";tag=ct"
    assert other.get(b"Record-Route") == invite.get(b"Record-Route")
    net.wire.station(*PHONE2)
    net.wire.send("udp", PHONE2, PROXY, reply(other, b"200 OK", b"p2"))
    net.run()
    assert starts(net.provider.take()) == [b"SIP/2.0 200"]
    assert_clean(net)


def test_the_best_response_of_a_hunt_is_sent() -> None:
    net = Net()
    second = net.wire.station(*PHONE2)
    hunting(net, b"sip:192.0.2.10:5060")
    net.send(net.provider, net.invite())
    net.provider.take()
    net.send(net.phone, reply(parse(net.phone.take()[0]), b"407 Auth"))
    second.send(reply(parse(second.take()[0]), b"486 Busy Here"), PROXY)
    net.run()
    assert starts(net.provider.take()) == [b"SIP/2.0 407"]


@pytest.mark.rfc("3261", "16.7")
def test_parallel_forks_the_first_2xx_cancels_the_others() -> None:
    net = Net()
    second = net.wire.station(*PHONE2)

    def decide(context: Any) -> None:
        net.routing.inbound(context)
        context.append_branch(b"sip:second@pbx.example", b"sip:192.0.2.10:5060")

    net.routing.decide = decide
    net.send(net.provider, net.invite())
    first_invite, second_invite = parse(net.phone.take()[0]), parse(second.take()[0])
    net.send(net.phone, reply(first_invite, b"180 Ringing"))
    net.send(second, reply(second_invite, b"180 Ringing", b"p2"))
    net.send(second, reply(second_invite, b"200 OK", b"p2"))
    assert starts(net.phone.take()) == [b"CANCEL"]
    net.send(net.phone, reply(first_invite, b"487 Request Terminated"))
    assert starts(net.provider.take()) == [b"SIP/2.0 100", b"SIP/2.0 180", b"SIP/2.0 180", b"SIP/2.0 200"]
    assert starts(net.phone.take()) == [b"ACK"]


@pytest.mark.rfc("3261", "16.7")
def test_a_503_alone_goes_upstream_as_500() -> None:
    net = Net()
    net.send(net.provider, net.invite())
    net.send(net.phone, reply(parse(net.phone.take()[0]), b"503 Service Unavailable"))
    assert starts(net.provider.take())[-1] == b"SIP/2.0 500"


@pytest.mark.rfc("3263", "4.3")
def test_the_next_address_is_tried_after_503_and_after_silence() -> None:
    for silent in (False, True):
        net = Net()
        second = net.wire.station(*PHONE2)
        net.wire.hosts["pbx.example"] = [Target("udp", ("192.0.2.9", 5060)), Target("udp", ("192.0.2.10", 5060))]
        net.routing.next_hop = b"sip:pbx.example"
        net.send(net.provider, net.invite())
        invite = parse(net.phone.take()[0])
        if silent:
            net.run(33)
        else:
            net.send(net.phone, reply(invite, b"503 Busy"))
        [again] = map(parse, second.take()[:1])
        assert again.via.branch != invite.via.branch and again.call_id == invite.call_id


def test_a_broken_connection_is_as_503() -> None:
    net = Net()
    net.routing.next_hop = b"sip:192.0.2.77:5060;transport=tcp"
    net.send(net.provider, net.invite())
    assert starts(net.provider.take()) == [b"SIP/2.0 100", b"SIP/2.0 500"]
    net.routing.next_hop = b"sip:192.0.2.9:5060"
    net.send(net.provider, net.invite(b"call2"))
    flow = net.endpoint.flow_for(net.endpoint.listeners[0], ("192.0.2.9", 5060))
    net.wire.fail(net.endpoint, flow, TransportError("unreachable"))
    net.run()
    assert starts(net.provider.take())[-1] == b"SIP/2.0 500"


def test_an_unknown_host_is_answered_500() -> None:
    net = Net()
    net.routing.next_hop = b"sip:nowhere.example"
    net.send(net.provider, net.invite())
    assert starts(net.provider.take()) == [b"SIP/2.0 100", b"SIP/2.0 500"]


def test_a_failing_hook_is_answered_500_logged_with_its_call_id_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    net = Net()
    net.routing.decide = lambda context: 1 / 0
    net.send(net.provider, net.invite(b"call-that-fails"))
    assert starts(net.provider.take()) == [b"SIP/2.0 100", b"SIP/2.0 500"]
    assert net.endpoint.counters.hook_failures == 1 and "call-that-fails" in caplog.text
    net.routing.decide = None
    net.establish(b"call2")


def test_a_hook_that_decides_nothing_is_answered_500() -> None:
    net = Net()
    net.routing.decide = lambda context: None
    net.send(net.provider, net.invite())
    assert starts(net.provider.take())[-1] == b"SIP/2.0 500"


def test_reject_carries_its_headers() -> None:
    net = Net()

    def decide(context: Any) -> None:
        raise Reject(405, "Method Not Allowed", [("Allow", "INVITE")])

    net.routing.decide = decide
    net.send(net.provider, net.invite(method=b"PUBLISH"))
    answer = parse(net.provider.take()[-1])
    assert (answer.status, answer.reason, answer.get(b"Allow")) == (405, b"Method Not Allowed", b"INVITE")
    assert answer.to.tag


def test_drop_says_nothing_not_even_to_repetitions_and_keeps_nothing() -> None:
    for method in (b"INVITE", b"OPTIONS"):
        net = Net()
        net.routing.decide = lambda context: context.drop()
        message = net.invite(method=method)
        net.send(net.provider, message)
        net.provider.take()
        net.send(net.provider, message)
        assert [m for m in starts(net.provider.take()) if m != b"SIP/2.0 100"] == []
        assert len(net.routing.contexts) == 1
        assert_nothing_left(net)


def test_branch_route_and_onreply_route_edit_and_their_failure_stops_nothing() -> None:
    net = Net()
    net.routing.branch_route = lambda context: context.append_hf("X-Branch: 1")  # type: ignore[attr-defined]
    net.routing.onreply_route = lambda context, message: message.append(b"X-Reply: 1")  # type: ignore[attr-defined]
    net.send(net.provider, net.invite())
    invite = parse(net.phone.take()[0])
    assert invite.get(b"X-Branch") == b"1"
    net.send(net.phone, reply(invite, b"180 Ringing"))
    assert parse(net.provider.take()[-1]).get(b"X-Reply") == b"1"
    net.routing.branch_route = lambda context: 1 / 0  # type: ignore[attr-defined]
    net.routing.onreply_route = lambda context, message: 1 / 0  # type: ignore[attr-defined]
    net.establish(b"call2")
    assert net.endpoint.counters.hook_failures == 2


def test_a_hook_may_finish_later() -> None:
    net = Net()
    net.routing.__class__.__call__  # noqa: B018 - the class is called below
    held: list[Any] = []

    def application(context: Any) -> None:
        context.routing = net.routing
        held.append(context)

    net.endpoint.proxy.application = application
    net.send(net.provider, net.invite())
    assert starts(net.provider.take()) == [b"SIP/2.0 100"] and net.phone.take() == []
    net.routing.inbound(held[0])
    held[0].routed()
    net.run()
    assert starts(net.phone.take()) == [b"INVITE"]


# what does not reach the routing
def test_a_stranger_gets_nothing() -> None:
    net = Net()
    stranger = net.wire.station(*STRANGER)
    for message in (
        net.invite(),
        net.invite(method=b"OPTIONS"),
        cancel_of(net.invite()),
        b"x y z\r\n\r\n",
        ack_of(net.invite()),
    ):
        net.send(stranger, message)
    call = net.establish()
    net.send(stranger, call.from_caller(b"BYE", 2))
    assert stranger.take() == [] and net.phone.take() == [] and net.endpoint.counters.denied == 6


@pytest.mark.rfc("3261", "16.4")
def test_a_strangers_route_is_not_followed() -> None:
    net = Net()
    victim = net.wire.station("203.0.113.99", 5060)
    net.send(net.provider, net.invite(extra=b"Route: <sip:203.0.113.99;lr>\r\n"))
    assert victim.take() == [] and parse(net.phone.take()[0]).get(b"Route") is None
    net.send(
        net.provider, net.invite(b"c2", extra=b"Route: <sip:192.0.2.5;lr>,<sip:203.0.113.99;lr>\r\n", user=b"nobody")
    )
    assert victim.take() == [] and starts(net.provider.take())[-1] == b"SIP/2.0 404"


@pytest.mark.rfc("3261", "16.3")
def test_refusals_before_routing() -> None:
    net = Net()
    cases = {
        b"Max-Forwards: 0": (b"Max-Forwards: 70", b"SIP/2.0 483"),
        b"Max-Forwards: 70\r\nProxy-Require: foo, bar": (b"Max-Forwards: 70", b"SIP/2.0 420"),
        b"INVITE nobodyKnows:x SIP/2.0": (b"INVITE sip:acc1@192.0.2.5 SIP/2.0", b"SIP/2.0 416"),
        b"INVITE sip:acc1@192.0.2.5 SIP/7.0": (b"INVITE sip:acc1@192.0.2.5 SIP/2.0", b"SIP/2.0 505"),
        b"CSeq: 1 OPTIONS": (b"CSeq: 1 INVITE", b"SIP/2.0 400"),
        b"CSeq: 9999999999 INVITE": (b"CSeq: 1 INVITE", b"SIP/2.0 400"),
        b"Content-Length: 5": (b"Content-Length: 0", b"SIP/2.0 400"),
        b"Max-Forwards: x": (b"Max-Forwards: 70", b"SIP/2.0 400"),
        b"From: <sip:a@b>;tag=1\r\nFrom: <sip:a@b>;tag=1": (b"From: " + CALLER + b";tag=ct", b"SIP/2.0 400"),
        b'To: "open <sip:x@y>': (b"To: <sip:acc1@192.0.2.5>", b"SIP/2.0 400"),
    }
    for i, (new, (old, expected)) in enumerate(cases.items()):
        message = net.invite(b"case%d" % i)
        assert old in message
        net.send(net.provider, message.replace(old, new))
        answers = [m for m in net.provider.take() if parse(m).call_id == b"case%d" % i]
        assert starts(answers) == [expected], new
    unsupported = [data for *_, data in net.wire.sent if data.startswith(b"SIP/2.0 420")]
    assert parse(unsupported[0]).get(b"Unsupported") == b"foo, bar"
    assert net.phone.take() == [] and net.routing.contexts == []
    assert_nothing_left(net)


@pytest.mark.rfc("5393", "4.2")
def test_a_loop_is_found() -> None:
    net = Net()
    net.routing.next_hop = b"sip:192.0.2.5:5060"
    net.routing.decide = lambda context: (setattr(context, "du", b"sip:192.0.2.5:5060"), context.t_relay())
    net.send(net.provider, net.invite())
    net.run(1)
    assert starts(net.provider.take())[-1] == b"SIP/2.0 482"


def test_options_to_us() -> None:
    net = Net()
    ping = net.request(b"OPTIONS", b"sip:192.0.2.5", CALLER + b";tag=ct", b"<sip:192.0.2.5>", b"ping", 1)
    net.send(net.provider, ping)
    answer = parse(net.provider.take()[0])
    assert answer.status == 200 and b"CANCEL" in (answer.get(b"Allow") or b"")


def test_overload_is_answered_503() -> None:
    net = Net(Configuration(seal_keys=KEYS, max_transactions=1))
    net.send(net.provider, net.invite())
    net.provider.take()
    net.send(net.provider, net.invite(b"call2"))
    answer = parse(net.provider.take()[0])
    assert answer.status == 503 and answer.get(b"Retry-After") and net.endpoint.counters.overload == 1


@pytest.mark.rfc("3261", "18.2.1")
@pytest.mark.rfc("3581", "4")
def test_received_and_rport() -> None:
    net = Net()
    nat = net.wire.station("192.0.2.1", 777)
    net.send(
        nat, net.invite().replace(b";branch", b";rport;branch").replace(b"UDP 192.0.2.1:5060", b"UDP 10.0.0.1:5060")
    )
    via = parse(nat.take()[0]).via
    assert via.received == b"192.0.2.1" and via.rport == 777
    assert parse(net.phone.take()[0]).get_list(b"Via")[1].count(b"received") == 1
    net.send(nat, net.invite(b"c2"))  # no rport: to the port of sent-by
    assert starts(net.provider.take()) == [b"SIP/2.0 100"] and nat.take() == []


@pytest.mark.parametrize("seed", range(6))
def test_calls_on_a_bad_wire_leave_nothing_behind(seed: int) -> None:
    """Both sides repeat as RFC 3261 asks, the wire loses, doubles and reorders: nobody is shown another's identity."""
    chance = random.Random(seed)
    net = Net(latency=0.02, jitter=0.3, loss=0.2, duplicates=0.1, chance=chance.random)
    second = net.wire.station(*PHONE2)
    hunting(net, *[b"sip:192.0.2.10:5060"] * 10)
    answered: set[bytes] = set()

    def uas(station: Any) -> Any:
        def receive(data: bytes, source: Any) -> None:
            if data.startswith((b"SIP/2.0", b"ACK")):
                return
            message = parse(data)
            if message.method == b"INVITE":
                if chance.random() < 0.5:
                    station.send(reply(message, b"180 Ringing"), PROXY)
                final = chance.choice([b"200 OK", b"486 Busy Here", b"", b"603 Decline", b"503 Unavailable"])
                if final:
                    station.send(reply(message, final, b"pt", b"Contact: <sip:phone@192.0.2.9:5060>"), PROXY)
            else:
                station.send(reply(message, b"200 OK"), PROXY)

        return receive

    def caller(data: bytes, source: Any) -> None:
        if not data.startswith(b"SIP/2.0"):
            net.provider.send(reply(parse(data), b"200 OK"), PROXY)
            return
        message = parse(data)
        assert message.get(b"From") == CALLER + b";tag=ct", data
        if message.cseq[1] != b"INVITE" or message.status < 200:
            return
        if message.status >= 300:
            net.provider.send(ack_of(invites[message.call_id], message.to.tag), PROXY)
            return
        route = message.get(b"Record-Route") or b""
        to = message.get(b"To") or b""
        target = b"sip:phone@192.0.2.9:5060"
        net.provider.send(net.request(b"ACK", target, CALLER + b";tag=ct", to, message.call_id, 1, route=route), PROXY)
        if message.call_id not in answered and chance.random() < 0.7:
            answered.add(message.call_id)
            net.provider.send(
                net.request(b"BYE", target, CALLER + b";tag=ct", to, message.call_id, 2, route=route), PROXY
            )

    net.phone.on_receive = uas(net.phone)
    second.on_receive = uas(second)
    net.provider.on_receive = caller
    invites: dict[bytes, bytes] = {}
    for i in range(40):
        call_id = b"call%d" % i
        invites[call_id] = net.invite(call_id)
        for _ in range(3):
            net.provider.send(invites[call_id], PROXY)
            net.run(chance.random() * 0.4)
        if chance.random() < 0.3:
            net.provider.send(cancel_of(invites[call_id]), PROXY)
    net.run(600)
    assert_clean(net)
    assert PROVIDER not in {to for _, source, to, data in net.wire.sent if b"anonymous@" in data and to == PROVIDER}
    live = net.endpoint.live
    assert live["server_transactions"] == live["client_transactions"] == 0
    net.run(50000)
    assert_nothing_left(net)
    assert net.endpoint.proxy.queue.next_at() == float("inf")
