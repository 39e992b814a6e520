"""What one account may cost: numbers, calls that go on, calls a second; no count is ever left behind."""

from __future__ import annotations

from typing import Any

import pytest

from sipengine.message import Message, parse
from tests.sipengine.net import reply, starts
from tests.trunkmgr.sip.net import TrunkNet, account, trunk
from trunkmgr.sip.limits import Limits, Pace, limits_of
from trunkmgr.sip.routing import TrunkRouting
from trunkmgr.sip.rules import refusals

pytestmark = pytest.mark.checklist("M3")


@pytest.mark.parametrize(("numbers", "may", "may_not"), [
    ("", ["+49301", "0190", "112"], []),
    ("+49, 112", ["+49 30 1", "0049-301", "112"], ["+1212", "0301", "11"]),
    ("!+49900 !0900", ["+49301", "+1", "0800"], ["+499001", "0049(900)1", "0900-1"]),
    ("+49 !+4918 +491801", ["+49301", "+4918017"], ["+49181", "+43"]),
    ("!+", ["0301"], ["+49301", "0049301"]),
])  # fmt: skip
def test_the_longest_beginning_decides(numbers: str, may: list[str], may_not: list[str]) -> None:
    limits = limits_of(numbers, 0, 0)
    assert [number for number in may + may_not if limits.reach(number)] == may


def test_a_second_holds_so_many_calls_and_the_next_as_many() -> None:
    pace = Pace()
    assert [pace.allows("a", 2, 10.0) for _ in range(3)] == [True, True, False]
    assert pace.allows("b", 2, 10.0) and pace.allows("a", 2, 10.5)
    assert [pace.allows("a", 2, 20.0) for _ in range(3)] == [True, True, False], "nothing is saved up"
    pace.keep({"b"})
    assert pace.allows("a", 1, 20.0)


class LimitedNet(TrunkNet):
    """An account with limits."""

    def __init__(self, **limits: Any) -> None:
        super().__init__(TrunkRouting, trunk(account(), limits=Limits(**limits)))
        refusals.counts.clear()

    def out(self, number: bytes = b"+49401", call: bytes = b"out", method: bytes = b"INVITE") -> Message | int:
        """What the provider gets of a call by the PBX, or the status that the PBX gets."""
        data = self.request(
            method, b"sip:%b@192.0.2.5" % number, b"<sip:acc1@192.0.2.9>;tag=bt", b"<sip:%b@192.0.2.5>" % number, call,
            1, extra=b"Contact: <sip:bob@192.0.2.9>\r\n", host=b"192.0.2.9:5060",
        )  # fmt: skip
        self.send(self.phone, data)
        got = self.provider.take()
        return parse(got[-1]) if got else parse(self.phone.take()[-1]).status

    @property
    def going_on(self) -> int:
        return self.endpoint.calls_of("acc1")


def test_a_number_that_the_account_may_not_call() -> None:
    net = LimitedNet(numbers=(("+49", True),), closed=True)
    assert net.out(b"+1212") == 403 and refusals.counts == {"number": 1}
    assert net.out(b"+1212", method=b"MESSAGE") == 403, "a message costs too"
    assert isinstance(net.out(b"004930"), Message)


@pytest.mark.rfc("3261", "19.1.4")
@pytest.mark.parametrize("number", [b"%30900123", b"0%3900123", b"%2B49900123", b"%2b4%39900123", b"0%2D900123"])
def test_a_number_is_the_same_with_its_characters_escaped(number: bytes) -> None:
    forbidding = limits_of("!+49900 !0900", 0, 0)
    net = LimitedNet(numbers=forbidding.numbers, closed=forbidding.closed)
    assert net.out(number) == 403 and refusals.counts == {"number": 1}


def test_one_call_more_than_the_account_may() -> None:
    net = LimitedNet(calls=2)
    first, second = net.out(call=b"a"), net.out(call=b"b")
    assert isinstance(first, Message) and isinstance(second, Message) and net.going_on == 2
    assert net.out(call=b"c") == 503
    net.send(net.provider, net.invite())
    assert starts(net.provider.take())[-1] == b"SIP/2.0 486" and refusals.counts == {"calls": 2}
    assert isinstance(net.out(call=b"m", method=b"MESSAGE"), Message)
    net.send(net.provider, reply(second, b"486 Busy Here"))
    assert net.going_on == 1 and isinstance(net.out(call=b"d"), Message)


@pytest.mark.parametrize("end", ["refused", "cancelled", "unanswered", "caller", "callee", "lost"])
def test_no_count_is_left_behind(end: str) -> None:
    net = LimitedNet(calls=1)
    if end in ("caller", "callee", "lost"):
        call = net.establish()
        assert net.going_on == 1
        if end == "caller":
            net.send(net.provider, call.from_caller(b"BYE", 2))
        elif end == "callee":
            net.send(net.phone, call.from_callee(b"BYE", 2))
        else:
            net.run(net.configuration.dialog_lifetime + 60)
    else:
        net.send(net.provider, net.invite())
        (rung,) = (parse(data) for data in net.phone.take())
        assert net.going_on == 1
        if end == "refused":
            net.send(net.phone, reply(rung, b"603 Decline"))
        elif end == "cancelled":
            net.send(net.phone, reply(rung, b"180 Ringing"))
            cancel = net.invite().replace(b"INVITE", b"CANCEL").partition(b"Contact:")[0]
            branch = rung.get_all(b"Via")[1].partition(b"branch=")[2].partition(b";")[0]
            own = net.invite().partition(b"branch=")[2].partition(b"\r\n")[0].partition(b";")[0]
            net.send(net.provider, cancel.replace(own, branch) + b"Content-Length: 0\r\n\r\n")
            net.send(net.phone, reply(rung, b"487 Request Terminated"))
        else:
            net.run(60)
    assert net.going_on == 0 and not net.endpoint.proxy.within.going_on


def test_after_a_restart_a_call_counts_from_its_next_request_and_ends_once() -> None:
    net = LimitedNet(calls=1)
    call = net.establish()
    net.restart()
    assert net.going_on == 0
    net.send(net.provider, call.from_caller(b"INFO", 2))
    net.send(net.phone, reply(parse(net.phone.take()[-1]), b"200 OK"))
    assert net.going_on == 1
    net.send(net.provider, call.from_caller(b"BYE", 3))
    assert net.going_on == 0 and not net.endpoint.proxy.within.going_on


def test_calls_that_begin_too_fast() -> None:
    net = LimitedNet(rate=1)
    assert isinstance(net.out(call=b"a"), Message)
    assert net.out(call=b"b") == 503 and refusals.counts == {"calls_a_second": 1}
    net.run(1.1)
    assert isinstance(net.out(call=b"c"), Message)
