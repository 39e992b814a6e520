"""Rules that mutants showed to be pinned by nobody: each as two peers see it."""

from __future__ import annotations

import pytest

from sipengine.message import parse
from tests.sipengine.net import Net, reply, starts

TRIES = 11
"""At 0, 0.5, 1.5, 3.5 and then every 4 s until 32 s (RFC 3261 §17.1.2.2)."""


def relayed_message(net: Net) -> bytes:
    net.send(net.provider, net.invite(method=b"MESSAGE"))
    (sent,) = net.phone.take()
    return sent


@pytest.mark.checklist("C3")
def test_a_call_may_ring_for_longer_than_timer_b() -> None:
    net = Net()
    net.send(net.provider, net.invite())
    invite = parse(net.phone.take()[0])
    net.send(net.phone, reply(invite, b"180 Ringing"))
    net.run(60)
    assert not net.phone.take(), "nothing is repeated, nothing is cancelled"
    net.send(net.phone, reply(invite, b"200 OK", b"pt", b"Contact: <sip:phone@192.0.2.9:5060>"))
    assert starts(net.provider.take())[-1] == b"SIP/2.0 200"


@pytest.mark.checklist("C4")
def test_waits_of_other_requests_are_bounded_by_t2() -> None:
    net = Net()
    relayed_message(net)
    net.run(40)
    assert len(net.phone.log) == TRIES


@pytest.mark.checklist("C5")
def test_the_ack_of_a_refused_reinvite_has_its_route() -> None:
    net = Net()
    call = net.establish()
    behind = b"<sip:192.0.2.9:5060;lr>"
    net.send(net.provider, net.request(
        b"INVITE", b"sip:phone@192.0.2.99", call.callers_from, call.callers_to, call.call_id, 2,
        route=call.route_of_caller + b", " + behind,
    ))  # fmt: skip
    net.send(net.phone, reply(parse(net.phone.take()[0]), b"486 Busy Here"))
    ack = parse(net.phone.take()[0])
    assert ack.method == b"ACK" and ack.get_list(b"Route") == [behind]


@pytest.mark.checklist("C1")
def test_timer_k_is_t4() -> None:
    net = Net()
    net.send(net.phone, reply(parse(relayed_message(net)), b"200 OK"))
    net.run(4)
    assert net.endpoint.live["client_transactions"] == 1
    net.run(2)
    assert net.endpoint.live["client_transactions"] == 0


@pytest.mark.checklist("C10")
def test_a_repeated_invite_gets_the_last_provisional_again() -> None:
    net = Net()
    invite = net.invite()
    net.send(net.provider, invite)
    net.send(net.phone, reply(parse(net.phone.take()[0]), b"180 Ringing"))
    net.provider.take()
    net.send(net.provider, invite)
    assert starts(net.provider.take()) == [b"SIP/2.0 180"] and not net.phone.take()


@pytest.mark.checklist("C2")
@pytest.mark.parametrize("branch", [b"z9hG4bKsame", b"old", b"z9hG4bK"])
def test_one_branch_of_two_clients_is_two_transactions(branch: bytes) -> None:
    net = Net()
    first = net.invite(b"one", branch=branch)
    second = net.invite(b"two", branch=branch).replace(b"UDP 192.0.2.1:5060", b"UDP 192.0.2.1:5099")
    net.send(net.provider, first)
    net.send(net.provider, second)
    net.send(net.provider, first)
    assert [parse(data).call_id for data in net.phone.take()] == [b"one", b"two"]


@pytest.mark.checklist("C2")
def test_old_branches_do_not_tell_transactions_apart() -> None:
    net = Net()
    net.send(net.provider, net.invite(b"one", branch=b"old"))
    net.send(net.provider, net.invite(b"two", branch=b"old"))
    assert len(net.phone.take()) == 2


@pytest.mark.checklist("C7")
def test_100_is_not_forwarded() -> None:
    net = Net()
    net.send(net.provider, net.invite())
    invite = parse(net.phone.take()[0])
    assert starts(net.provider.take()) == [b"SIP/2.0 100"]
    net.send(net.phone, reply(invite, b"100 Trying"))
    assert not net.provider.take()


@pytest.mark.checklist("C8")
@pytest.mark.parametrize("said", [b"", b"408 Request Timeout"])
def test_nobody_gets_408_for_another_request(said: bytes) -> None:
    net = Net()
    message = parse(relayed_message(net))
    if said:
        net.send(net.phone, reply(message, said))
    net.run(80)
    assert not [data for data in net.provider.take() if not data.startswith(b"SIP/2.0 100")]


@pytest.mark.checklist("C8")
def test_a_hook_cannot_answer_408_to_another_request() -> None:
    net = Net()
    net.routing.decide = lambda context: context.sl_send_reply(408, "Request Timeout")
    net.send(net.provider, net.invite(method=b"OPTIONS"))
    net.run(80)
    assert not net.provider.take()


@pytest.mark.checklist("C9")
def test_a_response_of_another_method_is_dropped() -> None:
    net = Net()
    net.send(net.provider, net.invite())
    invite = parse(net.phone.take()[0])
    net.provider.take()
    net.send(net.phone, reply(invite, b"486 Busy Here").replace(b"1 INVITE", b"1 OPTIONS"))
    assert not net.provider.take() and net.endpoint.counters.stray == 1


@pytest.mark.checklist("D2")
def test_a_strict_router_before_us_is_undone() -> None:
    net = Net()
    call = net.establish()
    target = b"sip:phone@192.0.2.9:5060"
    net.send(net.provider, net.request(
        b"BYE", call.route_of_caller.strip(b"<>"), call.callers_from, call.callers_to, call.call_id, 2,
        route=call.route_of_caller + b", <" + target + b">",
    ))  # fmt: skip
    (bye,) = net.phone.take()
    assert parse(bye).start == b"BYE " + target + b" SIP/2.0" and b"\r\nRoute:" not in bye
