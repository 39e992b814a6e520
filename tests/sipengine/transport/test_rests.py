"""The table of targets that rest, by itself."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from sipengine.events import ResolutionWanted, Target
from sipengine.timerqueue import TimerQueue
from sipengine.transport.locate import Locator
from sipengine.transport.rests import CAPACITY, Rests

A, B, C = (Target("udp", (f"192.0.2.{n}", 5060)) for n in (1, 2, 3))


def failed(rests: Rests, target: Target, now: float, asked: float = 0.0) -> None:
    rests.failed(target.transport, target.address, now, asked)


@pytest.mark.checklist("F5")
def test_the_order_is_kept_but_for_those_that_rest() -> None:
    rests = Rests(TimerQueue())
    assert rests.order([C, A, B], 0.0, new=True) == [C, A, B]
    failed(rests, C, 0.0)
    failed(rests, A, 5.0)
    assert rests.order([A, B, C], 6.0, new=True) == [B, C, A], "the one whose rest ends first stands before the other"
    assert rests.order([A, C], 6.0, new=True) == [C, A]


def test_transport_and_port_are_part_of_a_target() -> None:
    rests = Rests(TimerQueue())
    failed(rests, A, 0.0)
    over_tcp, other_port = Target("tcp", A.address), Target("udp", ("192.0.2.1", 5070))
    assert rests.order([A, over_tcp, other_port], 1.0, new=True) == [over_tcp, other_port, A]


def test_many_failures_of_one_outage_are_one() -> None:
    rests = Rests(TimerQueue())
    for _ in range(1000):
        failed(rests, A, 0.0)
    [rest] = rests.resting.values()
    assert (rest.failures, rest.until) == (1, 30.0)


@pytest.mark.rfc("3261", "21.5.4")
def test_silence_is_kept_from_new_requests_only() -> None:
    rests = Rests(TimerQueue())
    failed(rests, A, 0.0, asked=60.0)
    assert rests.order([A], 1.0, new=True) == [] and rests.order([A], 1.0, new=False) == [A]
    assert rests.silent_for([A], 1.0) == 59.0 and rests.silent_for([A, B], 1.0) == 0.0
    assert rests.order([A], 61.0, new=True) == [A]


def test_the_table_is_bounded() -> None:
    queue = TimerQueue()
    rests = Rests(queue)
    for number in range(CAPACITY + 100):
        rests.failed("udp", ("192.0.2.1", number), 0.0)
    assert len(rests.resting) == CAPACITY
    queue.expire(31.0)
    assert not rests.resting


@pytest.mark.rfc("3263", "4")
def test_maddr_is_where_a_request_goes() -> None:
    events: deque[Any] = deque()
    locator = Locator(events, Rests(TimerQueue()))
    found: list[Any] = []
    locator.locate(b"sip:x@pbx.example;maddr=192.0.2.7", lambda targets, now: found.append(targets), 1.0)
    assert found == [[Target("udp", ("192.0.2.7", 5060))]] and not events
    locator.locate(b"sip:x@192.0.2.1:5070;maddr=Edge.example", lambda targets, now: found.append(targets), 1.0)
    assert list(events) == [ResolutionWanted("edge.example", 5070, None)]


@pytest.mark.rfc("3263", "4.2")
@pytest.mark.rfc("3263", "4.1")
def test_ports_and_transports_of_numeric_hosts() -> None:
    locator = Locator(deque(), Rests(TimerQueue()))
    for uri, expected in {
        b"sip:192.0.2.1": Target("udp", ("192.0.2.1", 5060)),
        b"sips:x@192.0.2.1": Target("tls", ("192.0.2.1", 5061)),
        b"sips:192.0.2.1:5063": Target("tls", ("192.0.2.1", 5063)),
        b"sip:[2001:db8::1];transport=TCP": Target("tcp", ("2001:db8::1", 5060)),
        b"sip:192.0.2.1:5070;transport=udp": Target("udp", ("192.0.2.1", 5070)),
    }.items():
        found: list[Any] = []
        locator.locate(uri, lambda targets, now, found=found: found.append(targets), 1.0)  # type: ignore[misc]
        assert found == [[expected]], uri
