"""What stands goes on while too much that is new comes, and one fault takes nothing with it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from sipengine.configuration import Configuration
from sipengine.message import parse
from sipengine.overload import INTERVAL, MOST, STANDING, Gauge, Overload
from tests.sipengine.net import KEYS, Net, assert_nothing_left, reply, starts


def measure(gauge: Gauge, begin: float, seconds: float, waits: list[float]) -> float:
    """Feed a gauge every 10 ms, with the waits in turn."""
    steps = round(seconds / 0.01)
    for step in range(steps):
        gauge.measured(waits[step % len(waits)], begin + step * 0.01)
    return begin + seconds


def test_a_burst_that_passes_is_no_overload() -> None:
    overload = Overload()
    gauge = overload.gauge()
    measure(gauge, 0.0, 5.0, [3.0, 1.0, 0.01])  # long waits, but the queue empties again and again
    assert overload.share == 0 and overload.times == 0


def test_one_pause_of_the_host_is_no_overload() -> None:
    overload = Overload()
    gauge = overload.gauge()
    now = measure(gauge, 0.0, 1.0, [0.0])
    now = measure(gauge, now + 2, INTERVAL / 2, [2.0])
    measure(gauge, now, 2.0, [0.0])
    assert overload.times == 0


def test_a_queue_that_stands_is_overload_and_recovery_is_by_itself() -> None:
    overload = Overload()
    gauge, idle = overload.gauge(), overload.gauge()
    now = measure(gauge, 0.0, 3.0, [3 * STANDING])
    idle.measured(0.0, now)
    assert overload.share == MOST and overload.times == 1, "another place without queue hides nothing"
    assert overload.wait == 3 * STANDING
    measure(gauge, now, 1.6, [0.001])
    assert overload.share == 0, "recovers within two seconds"


def test_longer_queues_refuse_sooner() -> None:
    short, long = Overload(), Overload()
    measure(short.gauge(), 0.0, 1.0, [STANDING])
    measure(long.gauge(), 0.0, 1.0, [3 * STANDING])
    assert 0 < short.share < long.share


def overloaded(net: Net, share: float = 1.0) -> None:
    net.endpoint.overload.share = share
    net.endpoint.overload.judge_at = net.wire.now + 1000


@pytest.mark.rfc("3261", "21.5.4")
@pytest.mark.rfc("3261", "8.2.7")
@pytest.mark.checklist("E11")
def test_new_calls_get_a_stateless_503_the_same_for_each_repetition() -> None:
    net = Net()
    overloaded(net)
    invite = net.invite()
    net.send(net.provider, invite)
    net.send(net.provider, invite)
    first, second = net.provider.take()
    answer = parse(first)
    assert answer.status == 503 and first == second
    assert 5 <= int(answer.get(b"Retry-After") or 0) <= 30
    assert net.endpoint.live["server_transactions"] == 0 and not net.phone.take()
    assert net.endpoint.counters.overload == 2
    ack = invite.replace(b"INVITE sip", b"ACK sip").replace(b"1 INVITE", b"1 ACK")
    net.send(net.provider, ack.replace(b"To: <sip:acc1@192.0.2.5>", b"To: " + (answer.get(b"To") or b"")))
    assert not net.provider.take() and not net.phone.take()


def test_waits_are_spread_over_the_callers() -> None:
    net = Net()
    overloaded(net)
    waits = set()
    for number in range(40):
        net.send(net.provider, net.invite(b"call%d" % number))
        waits.add(int(parse(net.provider.take()[0]).get(b"Retry-After") or 0))
    assert len(waits) > 5 and min(waits) >= 5 and max(waits) <= 30


@pytest.mark.checklist("C13")
def test_calls_that_are_up_go_on_under_overload() -> None:
    net = Net()
    call = net.establish()
    net.send(net.provider, net.invite(b"ringing"))
    ringing = parse(net.phone.take()[0])
    net.send(net.phone, reply(ringing, b"180 Ringing"))
    overloaded(net)
    net.provider.take()
    net.send(net.provider, call.from_caller(b"INVITE", 2))
    net.send(net.phone, reply(parse(net.phone.take()[0]), b"200 OK"))
    net.send(net.provider, call.from_caller(b"ACK", 2))
    assert starts(net.phone.take()) == [b"ACK"]
    net.send(net.provider, call.from_caller(b"BYE", 3))
    assert starts(net.phone.take()) == [b"BYE"]
    sent = next(data for _, _, _, data in net.wire.sent if data.startswith(b"INVITE") and b"Call-ID: ringing" in data)
    net.send(net.provider, sent.replace(b"INVITE sip", b"CANCEL sip").replace(b"1 INVITE", b"1 CANCEL"))
    assert starts(net.phone.take()) == [b"CANCEL"]
    assert net.endpoint.counters.overload == 0


def test_only_new_invites_are_shed() -> None:
    net = Net()
    overloaded(net)
    net.send(net.provider, net.invite().replace(b"INVITE", b"OPTIONS"))
    assert net.endpoint.counters.overload == 0


@pytest.mark.checklist("E13")
def test_emergency_calls_are_not_shed() -> None:
    net = Net()
    overloaded(net)
    net.send(net.provider, net.invite().replace(b"INVITE sip:acc1@192.0.2.5", b"INVITE urn:service:sos.fire"))
    assert net.endpoint.counters.overload == 0
    assert starts(net.provider.take())[0] == b"SIP/2.0 100"


def test_a_share_is_a_share() -> None:
    net = Net()
    overloaded(net, 0.5)
    for number in range(200):
        net.send(net.provider, net.invite(b"call%d" % number))
    assert 60 < net.endpoint.counters.overload < 140


def test_recovers_although_nobody_measures() -> None:
    net = Net()
    net.endpoint.overload.share = 1.0
    net.wire.run(60)
    net.send(net.provider, net.invite())
    assert starts(net.phone.take()) == [b"INVITE"]


@pytest.mark.checklist("C13")
def test_at_the_cap_calls_that_stand_have_room_up_to_a_quarter_more() -> None:
    net = Net(Configuration(seal_keys=KEYS, max_transactions=4))
    call = net.establish()
    for number in range(8):
        net.send(net.provider, net.invite(b"other%d" % number))
    net.phone.take()
    assert net.endpoint.live["server_transactions"] == 4
    net.send(net.provider, call.from_caller(b"INFO", 2))
    assert starts(net.phone.take()) == [b"INFO"]
    net.provider.take()
    net.send(net.provider, call.from_caller(b"INFO", 3))
    assert starts(net.provider.take()) == [b"SIP/2.0 503"], "the cap is hard"
    assert net.endpoint.live["server_transactions"] == 5


def test_calls_are_capped() -> None:
    net = Net(Configuration(seal_keys=KEYS, max_dialogs=1))
    net.establish()
    net.provider.take()
    net.send(net.provider, net.invite(b"second"))
    assert starts(net.provider.take()) == [b"SIP/2.0 503"]


@pytest.mark.parametrize("fault", [RuntimeError("down"), KeyError("row"), RecursionError(), MemoryError()])
def test_a_raising_request_route_costs_its_call_only(fault: Exception, caplog: pytest.LogCaptureFixture) -> None:
    net = Net()

    def decide(context: Any) -> None:
        if context.call_id == "poison":
            raise fault
        net.routing.inbound(context)

    net.routing.decide = decide
    net.send(net.provider, net.invite(b"poison"))
    assert starts(net.provider.take()) == [b"SIP/2.0 100", b"SIP/2.0 500"]
    assert net.endpoint.counters.hook_failures == 1 and "poison" in caplog.text
    net.establish(b"after")


@pytest.mark.parametrize("hook", ["branch_route", "onreply_route", "failure_route"])
def test_a_raising_hook_costs_its_call_only(hook: str) -> None:
    net = Net()

    def fail(*_: Any) -> None:
        raise RuntimeError("down")

    setattr(net.routing, hook, fail)
    net.send(net.provider, net.invite(b"poison"))
    for invite in net.phone.take():
        net.send(net.phone, reply(parse(invite), b"486 Busy Here"))
    assert net.endpoint.counters.hook_failures >= 1
    assert net.provider.take()[-1][:8] == b"SIP/2.0 "
    delattr(net.routing, hook)
    net.establish(b"after")


def test_a_fault_of_ours_in_one_message_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Below every hook: a part of the core that falls over."""
    net = Net()
    whole = net.endpoint.proxy.within
    net.endpoint.proxy.within = None  # type: ignore[assignment]
    call_to = b"<sip:acc1@192.0.2.5>;tag=x"
    route = b"<sip:192.0.2.5;lr>"
    with caplog.at_level(logging.ERROR):
        net.send(net.provider, net.request(
            b"INFO", b"sip:phone@192.0.2.9", b"<sip:a@b>;tag=1", call_to, b"poison", 1, route=route,
        ))  # fmt: skip
    net.endpoint.proxy.within = whole
    assert "could not be served" in caplog.text
    assert starts(net.provider.take()) == [b"SIP/2.0 500"]
    net.establish(b"after")


def test_nothing_is_left_after_faults() -> None:
    net = Net()

    def decide(context: Any) -> None:
        raise RuntimeError("down")

    net.routing.decide = decide
    for number in range(10):
        net.send(net.provider, net.invite(b"call%d" % number))
    assert_nothing_left(net)
