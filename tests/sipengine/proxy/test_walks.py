"""Random walks: forks, hunts, cancels and calls on a wire that loses, doubles and reorders; nothing stays behind.

Each walk is one seed, so a failure repeats exactly.  `SIP_WALKS` sets how many there are.
"""

from __future__ import annotations

import gc
import os
import random
from typing import Any

import pytest

from sipengine.message import Message, parse
from sipengine.proxy.branch import Branch
from sipengine.proxy.context import ResponseContext
from sipengine.timerqueue import NEVER
from sipengine.transaction.client import ClientTransaction
from sipengine.transaction.server import ServerTransaction
from tests.sipengine.net import CALLER, PHONE, PHONE2, PROVIDER, PROXY, Net, assert_clean, reply
from tests.sipengine.proxy.test_response_context import ack_of, cancel_of

WALKS = int(os.environ.get("SIP_WALKS", "24"))
PHONES = (b"sip:192.0.2.9:5060", b"sip:192.0.2.10:5060")
FINALS = (b"200 OK", b"200 OK", b"486 Busy", b"404 No", b"407 Auth", b"503 Full", b"603 Decline", b"302 Moved", b"")
WITHIN = (b"INFO", b"UPDATE", b"PRACK", b"INVITE", b"REFER", b"MESSAGE")


class Callee:
    """Answers as it likes, repeats its 2xx until the ACK comes, honours CANCEL, hangs up now and then."""

    def __init__(self, walk: Walk, host: tuple[str, int], tag: bytes) -> None:
        self.walk, self.tag = walk, tag
        self.station = walk.net.wire.station(*host)
        self.station.on_receive = self.receive
        self.finals: dict[bytes, bytes] = {}
        self.unacknowledged: dict[tuple[bytes, int], bytes] = {}
        self.contact = b"Contact: <sip:phone@%b:5060>" % host[0].encode()

    def receive(self, data: bytes, source: Any) -> None:
        if data.startswith(b"SIP/2.0"):
            return
        message, chance = parse(data), self.walk.chance
        branch = message.via.branch
        if message.method == b"ACK":
            self.unacknowledged.pop((message.call_id, message.cseq[0]), None)
        elif message.method == b"CANCEL":
            self.station.send(reply(message, b"200 OK", self.tag), PROXY)
            invite = self.walk.invites_of.get(branch)
            if invite is not None and not self.finals.get(branch):
                self.answer(invite, b"487 Request Terminated")
        elif message.method == b"INVITE":
            self.walk.invites_of[branch] = message
            if branch in self.finals:
                return self.repeat(branch)
            for status in (b"100 Trying", b"183 Progress", b"180 Ringing"):
                if chance.random() < 0.4:
                    self.station.send(reply(message, status, self.tag, self.contact), PROXY)
            final = chance.choice(FINALS)
            if final and chance.random() < 0.8:
                self.answer(message, final)
            else:
                self.finals[branch] = b""
        elif chance.random() < 0.85:
            self.station.send(reply(message, chance.choice((b"200 OK", b"481 Gone", b"408 Late")), self.tag), PROXY)

    def answer(self, invite: Message, final: bytes) -> None:
        data = reply(invite, final, self.tag, self.contact)
        self.finals[invite.via.branch] = data
        if final.startswith(b"200"):
            self.unacknowledged[invite.call_id, invite.cseq[0]] = data
        self.station.send(data, PROXY)

    def repeat(self, branch: bytes) -> None:
        if self.finals[branch]:
            self.station.send(self.finals[branch], PROXY)

    def tick(self) -> None:
        for data in list(self.unacknowledged.values()):
            self.station.send(data, PROXY)


class Walk:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.net = Net(
            latency=0.02, jitter=0.4, loss=0.15, duplicates=0.15, chance=random.Random(seed + 1).random
        )
        self.net.routing.decide = self.decide
        self.net.routing.failure_route = self.hunt  # type: ignore[attr-defined]
        self.invites_of: dict[bytes, Message] = {}
        self.callees = [Callee(self, PHONE, b"p1"), Callee(self, PHONE2, b"p2")]
        self.net.provider.on_receive = self.hear
        self.sent: dict[bytes, bytes] = {}
        self.finals: dict[bytes, set[bytes]] = {}
        self.provisional_after_final: list[bytes] = []

    def decide(self, context: Any) -> None:
        self.net.routing.inbound(context)
        if context.rU and self.chance.random() < 0.5:
            for _ in range(self.chance.randrange(1, 4)):
                context.append_branch(b"sip:fork@192.0.2.9", self.chance.choice(PHONES))

    def hunt(self, context: Any) -> None:
        if self.chance.random() < 0.6 and len(context.branches) < 6:
            context.du = self.chance.choice(PHONES)
            context.t_relay()

    def hear(self, data: bytes, source: Any) -> None:
        """The caller: ACKs each final, goes on within the call, hangs up."""
        if not data.startswith(b"SIP/2.0"):
            request = parse(data)
            assert request.get(b"To") == CALLER + b";tag=ct", data
            if request.method != b"ACK":
                self.net.provider.send(reply(request, b"200 OK"), PROXY)
            return
        answer = parse(data)
        assert answer.get(b"From") == CALLER + b";tag=ct", data
        number, method = answer.cseq
        assert method == b"INVITE" or answer.status != 408, data
        if method != b"INVITE" or answer.status < 200 or number > 1:
            return
        self.finals.setdefault(answer.call_id, set()).add(b"%d" % answer.status)
        if answer.status >= 300:
            self.net.provider.send(ack_of(self.sent[answer.call_id], answer.to.tag), PROXY)
            return
        self.within(answer, b"ACK", 1)
        if self.chance.random() < 0.5:
            self.within(answer, self.chance.choice(WITHIN), self.chance.randrange(2, 5))
        if self.chance.random() < 0.6:
            self.within(answer, b"BYE", 9)

    def within(self, ok: Message, method: bytes, number: int) -> None:
        routes = b", ".join(reversed(ok.get_list(b"Record-Route")))
        target = ok.contacts[0].uri if ok.contacts else PHONES[0]
        request = self.net.request(
            method, target, CALLER + b";tag=ct", ok.get(b"To") or b"", ok.call_id, number, route=routes
        )
        for _ in range(1 if method == b"ACK" else 2):
            self.net.provider.send(request, PROXY)

    def go(self) -> None:
        net, chance = self.net, self.chance
        for number in range(30):
            call_id = b"call%d" % number
            method = b"INVITE" if chance.random() < 0.8 else chance.choice((b"MESSAGE", b"SUBSCRIBE"))
            self.sent[call_id] = message = net.invite(call_id, method=method)
            for _ in range(chance.randrange(1, 4)):
                net.provider.send(message, PROXY)
                net.run(chance.random() * 0.4)
            if method == b"INVITE" and chance.random() < 0.35:
                for _ in range(2):
                    net.provider.send(cancel_of(message), PROXY)
                    net.run(chance.random() * 0.3)
            if chance.random() < 0.3:
                net.run(chance.choice((0.6, 4.0, 40.0)))
            for callee in self.callees:
                callee.tick()
        net.run(700)


def alive() -> int:
    gc.collect()
    kinds = (Branch, ResponseContext, ClientTransaction, ServerTransaction)
    return sum(isinstance(thing, kinds) for thing in gc.get_objects())


@pytest.mark.rfc("3261", "17.1.1.2")
@pytest.mark.rfc("3261", "17.1.2.2")
@pytest.mark.rfc("3261", "17.2.1")
@pytest.mark.rfc("3261", "17.2.2")
@pytest.mark.rfc("3261", "16.8")
@pytest.mark.parametrize("seed", range(WALKS))
def test_a_walk_leaves_no_transaction_dialog_branch_or_timer_behind(seed: int) -> None:
    before = alive()
    walk = Walk(1000 * seed)
    walk.go()
    net = walk.net
    assert net.endpoint.counters.hook_failures == 0
    assert net.endpoint.live["server_transactions"] == net.endpoint.live["client_transactions"] == 0
    for statuses in walk.finals.values():
        assert statuses == {b"200"} or len(statuses) == 1, "one call, one kind of final answer"
    assert_clean(net)
    net.run(50_000)
    endpoint = net.endpoint
    assert set(endpoint.live.values()) == {0}
    queue = endpoint.proxy.queue
    assert queue.next_at() == NEVER and not queue.heap
    assert not any(times or owners for times, owners in queue.lanes.values())
    net.routing.contexts.clear()
    walk.invites_of.clear()
    assert alive() == before
    assert endpoint.counters.timeouts and endpoint.counters.retransmissions, "the wire was bad indeed"
    assert {source for _, source, to, _ in net.wire.sent if to == PROVIDER} == {PROXY}
