"""Which address a call goes to next, which rest meanwhile, and what becomes of late answers: on a virtual wire."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from sipengine.events import Target
from sipengine.message import Message, parse
from sipengine.testing import Station
from tests.sipengine.net import PHONE, PHONE2, PROXY, Established, Net, assert_nothing_left, reply, starts

A, B = Target("udp", PHONE), Target("udp", PHONE2)
RINGING, OK, BUSY = b"180 Ringing", b"200 OK", b"503 Service Unavailable"


class Pair(Net):
    """A next hop with two addresses: `phone` first, `second` behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.second = self.wire.station(*PHONE2)
        self.wire.hosts["pbx.example"] = [A, B]
        self.routing.next_hop = b"sip:pbx.example"

    def call(self, number: int) -> None:
        self.send(self.provider, self.invite(b"call%d" % number))

    def take(self, station: Station, method: bytes) -> list[Message]:
        """What arrived, repetitions left out."""
        return [parse(data) for data in dict.fromkeys(station.take()) if data.startswith(method)]

    def contact(self, station: Station) -> bytes:
        return b"Contact: <sip:phone@%b:5060>" % station.address[0].encode()

    def serve(self) -> list[bytes]:
        """Let the second address answer every call; returns the Call-IDs that it got."""
        served: list[bytes] = []

        def on_receive(data: bytes, source: object) -> None:
            if data.startswith(b"INVITE"):
                invite = parse(data)
                served.append(invite.call_id)
                self.second.send(reply(invite, b"486 Busy Here"), PROXY)

        self.second.on_receive = on_receive
        return served

    def resting(self) -> set[str]:
        return {address[0] for _, address in self.endpoint.rests.resting}


@pytest.mark.rfc("3263", "4.3")
def test_the_next_address_gets_the_same_request_with_a_new_branch() -> None:
    net = Pair()
    net.call(1)
    [first] = net.take(net.phone, b"INVITE")
    net.send(net.phone, reply(first, BUSY))
    assert [m.method for m in map(parse, net.phone.take())] == [b"ACK"]
    [second] = net.take(net.second, b"INVITE")
    assert second.via.branch != first.via.branch
    for name in (b"Call-ID", b"CSeq", b"From", b"To", b"Contact", b"Record-Route", b"Max-Forwards"):
        assert second.get(name) == first.get(name)
    net.send(net.second, reply(second, OK, b"p2", net.contact(net.second)))
    assert starts(net.provider.take()) == [b"SIP/2.0 100", b"SIP/2.0 200"]


@pytest.mark.checklist("F4")
@pytest.mark.rfc("3263", "4.3")
def test_an_address_without_any_answer_is_left_after_the_try_timer() -> None:
    net = Pair()
    net.call(1)
    net.run(4.0)
    assert not net.second.take()
    net.run(1.5)
    assert len(net.take(net.second, b"INVITE")) == 1
    repeated = len(net.phone.take())
    net.run(5.0)
    assert 3 <= repeated <= 5 and not net.phone.take(), "an abandoned INVITE is not sent again"


@pytest.mark.checklist("F4")
@pytest.mark.rfc("3263", "4.3")
def test_a_provisional_answer_stops_the_try_timer() -> None:
    for status in (b"100 Trying", RINGING):
        net = Pair()
        net.call(1)
        [invite] = net.take(net.phone, b"INVITE")
        net.send(net.phone, reply(invite, status))
        net.run(60)
        assert not net.second.take() and not net.resting()


@pytest.mark.rfc("3261", "17.1.1.2")
def test_the_only_address_has_the_whole_of_timer_b() -> None:
    net = Pair()
    net.wire.hosts["pbx.example"] = [A]
    net.call(1)
    net.run(31)
    assert starts(net.provider.take()) == [b"SIP/2.0 100"]
    net.run(2)
    assert starts(net.provider.take())[0] == b"SIP/2.0 408"


@pytest.mark.checklist("F4")
@pytest.mark.rfc("3261", "9.1")
def test_a_late_ringing_of_an_abandoned_address_is_cancelled() -> None:
    net = Pair()
    net.call(1)
    [first] = net.take(net.phone, b"INVITE")
    net.run(6)
    [second] = net.take(net.second, b"INVITE")
    net.send(net.second, reply(second, RINGING, b"p2"))
    net.phone.take()
    net.send(net.phone, reply(first, RINGING, b"late"))
    [cancel] = map(parse, net.phone.take())
    assert cancel.method == b"CANCEL" and cancel.via.branch == first.via.branch
    net.send(net.phone, reply(cancel, OK))
    net.send(net.phone, reply(first, b"487 Request Terminated", b"late"))
    assert starts(net.phone.take()) == [b"ACK"]
    net.send(net.second, reply(second, OK, b"p2", net.contact(net.second)))
    answers = net.provider.take()
    assert starts(answers) == [b"SIP/2.0 100", b"SIP/2.0 180", b"SIP/2.0 200"]
    assert b"tag=late" not in b"".join(answers)


@pytest.mark.checklist("F4")
@pytest.mark.rfc("3261", "13.2.2.4")
@pytest.mark.parametrize("answered", [False, True])
def test_a_late_2xx_of_an_abandoned_address_is_acknowledged_and_hung_up(answered: bool) -> None:
    net = Pair()
    net.call(1)
    [first] = net.take(net.phone, b"INVITE")
    net.run(6)
    [second] = net.take(net.second, b"INVITE")
    ok = reply(second, OK, b"p2", net.contact(net.second))
    if answered:
        net.send(net.second, ok)
    net.phone.take()
    edge = b"Record-Route: <sip:192.0.2.9:5060;lr;edge>"
    late = reply(first, OK, b"late", net.contact(net.phone)).replace(b"Record-Route", edge + b"\r\nRecord-Route", 1)
    net.send(net.phone, late)
    ack, bye = map(parse, net.phone.take())
    assert (ack.method, bye.method) == (b"ACK", b"BYE")
    for message in (ack, bye):
        assert b"tag=late" in message.line(b"to") and message.line(b"from") == first.line(b"from")
        assert message.call_id == first.call_id
        assert message.start.split(b" ")[1] == b"sip:phone@192.0.2.9:5060"
        assert message.get_all(b"Route") == [b"<sip:192.0.2.9:5060;lr;edge>"], "only what is behind us"
    assert ack.cseq[0] == first.cseq[0] and bye.cseq[0] == first.cseq[0] + 1
    net.send(net.phone, late)
    assert starts(net.phone.take()) == [b"ACK"], "a repeated 2xx is acknowledged again, and hung up once"
    net.send(net.phone, reply(bye, OK, b"late"))
    if not answered:
        net.send(net.second, ok)
    answers = net.provider.take()
    assert starts(answers) == [b"SIP/2.0 100", b"SIP/2.0 200"]
    assert b"tag=p2" in answers[1]


def test_nothing_is_left_of_abandoned_calls() -> None:
    net = Pair()
    net.call(1)
    [first] = net.take(net.phone, b"INVITE")
    net.run(6)
    [second] = net.take(net.second, b"INVITE")
    net.send(net.second, reply(second, b"486 Busy Here", b"p2"))
    assert starts(net.provider.take())[-1] == b"SIP/2.0 486"
    net.send(net.phone, reply(first, OK, b"late", net.contact(net.phone)))
    assert starts(net.phone.take())[-2:] == [b"ACK", b"BYE"]
    assert_nothing_left(net)


@pytest.mark.rfc("3261", "16.10")
def test_a_cancel_reaches_the_address_that_rings_and_no_other_is_tried() -> None:
    net = Pair()
    invite = net.invite(b"call1")
    net.send(net.provider, invite)
    net.run(6)
    [second] = net.take(net.second, b"INVITE")
    net.send(net.second, reply(second, RINGING, b"p2"))
    head = parse(invite)
    cancel = invite.replace(b"INVITE", b"CANCEL").partition(b"Contact:")[0] + b"Content-Length: 0\r\n\r\n"
    assert parse(cancel).via.branch == head.via.branch
    net.send(net.provider, cancel)
    assert starts(net.second.take()) == [b"CANCEL"]
    net.send(net.second, reply(second, b"487 Request Terminated", b"p2"))
    assert starts(net.provider.take())[-1] == b"SIP/2.0 487"


@pytest.mark.checklist("F5")
@pytest.mark.rfc("3263", "4.3")
def test_a_failed_address_rests_while_another_serves() -> None:
    net = Pair()
    served = net.serve()
    net.call(1)
    net.run(6)
    assert net.resting() == {PHONE[0]} and served == [b"call1"]
    net.phone.take()
    net.call(2)
    net.run(20)
    net.call(3)
    assert not net.phone.take() and served == [b"call1", b"call2", b"call3"]


@pytest.mark.checklist("F5")
@pytest.mark.rfc("3261", "21.5.4")
def test_a_rested_address_is_probed_and_back_after_any_answer() -> None:
    net = Pair()
    net.serve()
    net.call(1)
    net.run(6)
    net.call(2)
    net.phone.take()
    net.run(30)
    [options] = net.take(net.phone, b"OPTIONS")
    net.call(3)
    assert not net.take(net.phone, b"INVITE"), "it rests until the probe is answered"
    net.send(net.phone, reply(options, b"405 Method Not Allowed"))
    assert not net.resting()
    net.call(4)
    assert len(net.take(net.phone, b"INVITE")) == 1


@pytest.mark.checklist("F5")
def test_rests_double_up_to_two_minutes_while_probes_fail() -> None:
    net = Pair()
    probes: list[float] = []
    net.serve()
    net.phone.on_receive = lambda data, source: probes.append(net.wire.now) if data[:1] == b"O" else None
    for number in range(1, 130):
        net.call(number)
        net.run(5)
    first = [at for i, at in enumerate(probes) if not i or at - probes[i - 1] > 25]
    gaps = [round(later - earlier) for earlier, later in pairwise(first)]
    # A probe takes its 32 s to fail, then the rest of 60 s and 120 s runs.
    assert gaps[:3] == [92, 152, 152]


@pytest.mark.checklist("F5")
def test_a_probe_is_sent_only_where_calls_were_kept_away() -> None:
    net = Pair()
    net.serve()
    net.call(1)
    net.run(6)
    net.phone.take()
    net.run(60)
    assert not net.phone.take() and not net.resting()
    net.call(2)
    assert len(net.take(net.phone, b"INVITE")) == 1, "the next request is the probe"


@pytest.mark.checklist("F5")
def test_the_only_address_is_never_left_out() -> None:
    net = Pair()
    net.wire.hosts["pbx.example"] = [A]
    net.call(1)
    net.send(net.phone, reply(net.take(net.phone, b"INVITE")[0], BUSY))
    assert net.resting() == {PHONE[0]} and starts(net.provider.take())[-1] == b"SIP/2.0 500"
    net.call(2)
    [invite] = net.take(net.phone, b"INVITE")
    net.send(net.phone, reply(invite, OK, b"pt", net.contact(net.phone)))
    assert not net.resting(), "success re-enables"


@pytest.mark.rfc("3261", "21.5.4")
@pytest.mark.rfc("3261", "20.33")
def test_retry_after_keeps_new_calls_away_for_its_time() -> None:
    net = Pair()
    net.wire.hosts["pbx.example"] = [A]
    net.call(1)
    retry = b"Retry-After: 100 (back at ten);duration=60"
    net.send(net.phone, reply(net.take(net.phone, b"INVITE")[0], BUSY, b"pt", retry))
    net.phone.take(), net.provider.take()
    net.call(2)
    assert not net.phone.take() and starts(net.provider.take()) == [b"SIP/2.0 100", b"SIP/2.0 500"]
    net.run(101)
    net.call(3)
    assert len(net.take(net.phone, b"INVITE")) == 1


@pytest.mark.rfc("3261", "20.33")
@pytest.mark.parametrize(
    ("value", "rests", "silent"),
    [
        (b"10", 10, 10), (b"1000000", 1800, 120), (b"600;duration=3", 600, 120), (b"5(five)", 5, 5),
        (b"0", 30, 0), (b"soon", 30, 0), (b"-5", 30, 0), (b"99999999999999999999", 1800, 120),
    ],
)  # fmt: skip
def test_what_a_retry_after_asks_for(value: bytes, rests: float, silent: float) -> None:
    net = Pair()
    net.wire.hosts["pbx.example"] = [A]
    net.call(1)
    at = net.wire.now
    net.send(net.phone, reply(net.take(net.phone, b"INVITE")[0], BUSY, b"pt", b"Retry-After: " + value))
    [rest] = net.endpoint.rests.resting.values()
    assert rest.until - at == pytest.approx(rests, abs=0.1)
    assert max(0, rest.silent_until - at) == pytest.approx(silent, abs=0.1)


def test_requests_of_a_call_that_stands_are_not_kept_away() -> None:
    net = Net()
    call = net.establish()
    net.send(net.provider, net.invite(b"call2"))
    second = parse(net.phone.take()[0])
    net.send(net.phone, reply(second, BUSY, b"pt", b"Retry-After: 60"))
    net.phone.take()
    net.send(net.provider, call.from_caller(b"BYE", 2))
    assert starts(net.phone.take()) == [b"BYE"]


@pytest.mark.rfc("3261", "16.7")
def test_all_addresses_fail() -> None:
    for statuses, expected in (
        ((BUSY, BUSY), b"SIP/2.0 500"),
        ((None, None), b"SIP/2.0 408"),
        ((BUSY, None), b"SIP/2.0 500"),
        ((BUSY, b"486 Busy Here"), b"SIP/2.0 486"),
    ):
        net = Pair()
        net.call(1)
        for station, status in zip((net.phone, net.second), statuses, strict=True):
            net.run(0.1)
            [invite] = net.take(station, b"INVITE")
            if status is not None:
                net.send(station, reply(invite, status))
            else:
                net.run(6)
        net.run(40)
        assert starts(net.provider.take())[-1] == expected, statuses


@pytest.mark.rfc("3263", "4.3")
def test_what_is_no_failure_of_the_server_tries_no_other() -> None:
    for status in (b"500 Oops", b"404 Not Found", b"408 Request Timeout", b"486 Busy Here", b"603 Decline"):
        net = Pair()
        net.call(1)
        [invite] = net.take(net.phone, b"INVITE")
        net.send(net.phone, reply(invite, status))
        net.run(6)
        assert not net.second.take() and not net.resting()


@pytest.mark.rfc("3263", "4.3")
def test_a_request_that_is_no_call_goes_on_after_timer_f() -> None:
    net = Pair()
    net.send(net.provider, net.invite(b"m1", method=b"MESSAGE"))
    net.run(31)
    assert not net.second.take()
    net.run(2)
    [message] = net.take(net.second, b"MESSAGE")
    assert message.cseq == (1, b"MESSAGE") and net.resting() == {PHONE[0]}


@pytest.mark.rfc("3263", "4.3")
def test_a_request_that_was_taken_up_is_not_sent_to_another() -> None:
    net = Pair()
    net.send(net.provider, net.invite(b"m1", method=b"MESSAGE"))
    [message] = net.take(net.phone, b"MESSAGE")
    net.send(net.phone, reply(message, b"100 Trying"))
    net.run(40)
    assert not net.second.take() and not net.resting()


@pytest.mark.rfc("3263", "4.3")
def test_a_refused_connection_tries_the_next_address_at_once() -> None:
    net = Pair()
    net.wire.hosts["pbx.example"] = [Target("tcp", ("192.0.2.77", 5060)), B]
    net.call(1)
    assert len(net.take(net.second, b"INVITE")) == 1
    assert ("tcp", ("192.0.2.77", 5060)) in net.endpoint.rests.resting


@pytest.mark.checklist("F5")
def test_calls_and_registrations_share_what_rests() -> None:
    net = Pair()
    net.call(1)
    net.run(6)
    rests = net.endpoint.registrations.requests.agent.rests
    assert rests is net.endpoint.rests
    assert rests.order([A, B], net.wire.now, new=True) == [B, A]


@pytest.mark.checklist("F5")
def test_an_ack_goes_past_a_server_that_rests() -> None:
    net = Pair()
    net.wire.hosts["pbx.example"] = [B]
    net.call(1)
    [invite] = net.take(net.second, b"INVITE")
    net.send(net.second, reply(invite, OK, b"p2", b"Contact: <sip:phone@pbx.example>"))
    answer = parse(net.provider.take()[-1])
    net.wire.hosts["pbx.example"] = [A, B]
    net.endpoint.rests.failed("udp", PHONE, net.wire.now)
    call = Established(net, invite, answer, b"p2")
    net.send(net.provider, call.from_caller(b"ACK", 1).replace(b"sip:phone@192.0.2.9:5060", b"sip:phone@pbx.example"))
    assert starts(net.second.take()) == [b"ACK"] and not net.phone.take()


@pytest.mark.rfc("3261", "13.2.2.4")
@pytest.mark.checklist("F4")
@pytest.mark.parametrize("seed", range(8))
def test_whatever_servers_do_a_caller_hears_one_answer_and_nothing_is_left(seed: int) -> None:
    chance = random.Random(seed)
    net = Pair()
    heard: dict[bytes, set[bytes]] = {}
    accepted: set[bytes] = set()
    hung_up: set[bytes] = set()
    seen: set[bytes] = set()
    later: list[tuple[float, Station, bytes]] = []

    def answer(station: Station, message: Message, status: bytes, tag: bytes, wait: float) -> None:
        later.append((net.wire.now + wait, station, reply(message, status, tag, net.contact(station))))

    def serve(station: Station, data: bytes) -> None:
        message = parse(data)
        if message.method == b"BYE":
            hung_up.add(message.to.tag)
        if message.method in (b"BYE", b"CANCEL", b"OPTIONS"):
            answer(station, message, OK, b"x", 0)
        if message.method != b"INVITE" or message.via.branch in seen:
            return
        seen.add(message.via.branch)
        tag = b"t%d" % len(seen)
        match chance.choice(["silent", "late", "late ringing", "busy", "quick", "quick"]):
            case "late":
                answer(station, message, OK, tag, chance.uniform(5.1, 20))
            case "late ringing":
                wait = chance.uniform(5.1, 20)
                answer(station, message, RINGING, tag, wait)
                answer(station, message, OK, tag, wait + 0.5)
            case "busy":
                answer(station, message, BUSY, tag, chance.uniform(0, 4))
            case "quick":
                answer(station, message, OK, tag, chance.uniform(0, 4))

    def hear(data: bytes, source: object) -> None:
        message = parse(data)
        if message.status >= 200:
            heard.setdefault(message.call_id, set()).add(message.to.tag)

    def let_pass(seconds: float) -> None:
        net.run(seconds)
        for entry in [entry for entry in later if entry[0] <= net.wire.now]:
            later.remove(entry)
            _, station, data = entry
            if data.startswith(b"SIP/2.0 200") and b"INVITE" in data:
                accepted.add(parse(data).to.tag)
            station.send(data, PROXY)

    net.phone.on_receive = lambda data, source: serve(net.phone, data)
    net.second.on_receive = lambda data, source: serve(net.second, data)
    net.provider.on_receive = hear
    for number in range(60):
        net.call(number)
        for _ in range(10):
            let_pass(chance.uniform(0, 0.4))
    for _ in range(120):
        let_pass(0.5)
    assert len(heard) == 60, "every caller got an answer"
    assert all(len(tags) == 1 for tags in heard.values()), "and one only"
    given = {tag for tags in heard.values() for tag in tags}
    assert hung_up and not hung_up & given, "what was hung up is nothing that a caller heard of"
    assert accepted <= given | hung_up, "no call stays up that nobody knows of"
    net.run(300)
    live = net.endpoint.live
    assert (live["server_transactions"], live["client_transactions"]) == (0, 0)
