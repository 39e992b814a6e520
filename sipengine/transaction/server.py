"""Server transactions: one received request, and its responses until nobody repeats anything (RFC 3261 §17.2, RFC 6026
§7.1).

The machines are tables of data.  Nothing here knows what a request means; its user decides what to respond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from sipengine.message.build import response
from sipengine.timerqueue import NEVER
from sipengine.transaction.timers import NONE, RETRANSMIT, I, J, L
from sipengine.transport.flow import Flow

if TYPE_CHECKING:
    from sipengine.transaction.layer import TransactionLayer

TRYING, PROCEEDING, COMPLETED, CONFIRMED, ACCEPTED, TERMINATED = range(6)

Step = tuple[int, bool, int] | None
"""Next state, whether a repeated request gets this response again, timer to arm.  None: the response does not leave."""


class ServerUser(Protocol):
    def on_server_terminated(self) -> None: ...


class ServerTransaction:
    """Fields of both machines; `head` holds the lines that every response copies."""

    __slots__ = ("due", "flow", "head", "key", "last", "layer", "spent", "state", "user", "wait")

    TABLE: ClassVar[tuple[tuple[Step, Step, Step], ...]]
    invite: ClassVar[bool]

    def __init__(self, layer: TransactionLayer, key: bytes, flow: Flow, head: list[bytes]) -> None:
        self.layer = layer
        self.key = key
        self.flow = flow
        self.head = head
        self.state = TRYING
        self.last = b""
        self.wait = 0.0
        self.spent = 0.0
        self.due = NEVER
        self.user: ServerUser | None = None

    def respond(self, status: int, wire: bytes, now: float) -> bool:
        """Send a response of the user; False when the state does not allow it (it is then forgotten)."""
        step = self.TABLE[self.state][0 if status < 200 else 1 if status < 300 else 2]
        if step is None:
            return False
        self.state, repeat, timer = step
        self.last = wire if repeat else b""
        if self.flow.closed:
            self._send(wire)
        else:
            self.layer.out.append((wire, self.flow))
        if timer != NONE:
            self._arm(timer, now)
        return True

    def own_response(self, status: int, now: float, reason: bytes = b"", extra: tuple[bytes, ...] = ()) -> bool:
        """Answer by ourselves: header lines of the request, a To tag from 101 on (§8.2.6.2)."""
        tag = self.layer.own_tag(self.key) if status > 100 else b""
        return self.respond(status, response(self.head, status, reason, tag, extra), now)

    def on_retransmission(self) -> None:
        """The request came again: the last response goes out again, nothing else happens (§17.2.1, §17.2.2)."""
        self.layer.counters.retransmissions += 1
        if self.last:
            self._send(self.last)

    def vanish(self, now: float) -> None:
        """Say nothing, and absorb repetitions as long as a client may send them."""
        self.last = b""
        self.layer.queue.arm(self, self.layer.timers.timeout, now)

    def _send(self, wire: bytes) -> None:
        flow = self.flow
        if flow.closed:  # §18.2.2: the connection ended, open another to where the Via says
            flow = self.flow = self.layer.transport.reply_flow_of(self.head[0], flow)
        self.layer.out.append((wire, flow))

    def _arm(self, timer: int, now: float) -> None:
        layer = self.layer
        delay = layer.timers.delays[self.flow.listener.transport != "udp"][timer]
        if delay:
            self.wait = delay
            layer.queue.arm(self, delay, now)
        else:
            self._terminate()

    def on_timer(self, now: float) -> None:
        self._terminate()

    def _terminate(self) -> None:
        self.state = TERMINATED
        self.due = NEVER
        self.layer.servers.pop(self.key, None)
        user = self.user
        if user is not None:
            self.user = None  # break the cycle: reference counting then frees both without the collector
            user.on_server_terminated()


class InviteServer(ServerTransaction):
    """Figure 7 with Accepted of RFC 6026: 2xx are repeated by the far UAS, everything else by us."""

    __slots__ = ()
    invite = True
    TABLE = (
        # 1xx                      2xx                         3xx-6xx
        ((PROCEEDING, True, NONE), (ACCEPTED, False, L), (COMPLETED, True, RETRANSMIT)),  # TRYING
        ((PROCEEDING, True, NONE), (ACCEPTED, False, L), (COMPLETED, True, RETRANSMIT)),  # PROCEEDING
        (None, None, None),  # COMPLETED
        (None, None, None),  # CONFIRMED
        (None, (ACCEPTED, False, NONE), None),  # ACCEPTED
        (None, None, None),  # TERMINATED
    )

    def on_ack(self, now: float) -> None:
        """ACK of a non-2xx (same branch): absorbed (§17.2.1)."""
        if self.state == COMPLETED:
            self.state = CONFIRMED
            self.last = b""
            self._arm(I, now)

    def on_timer(self, now: float) -> None:
        if self.state == COMPLETED:  # G repeats the response, H is the sum of all waits
            timers = self.layer.timers
            self.spent += self.wait
            if self.spent < timers.timeout:
                self._send(self.last)
                self.wait = min(2 * self.wait, timers.t2, timers.timeout - self.spent)
                self.layer.queue.arm(self, self.wait, now)
                return
        self._terminate()


class NonInviteServer(ServerTransaction):
    """Figure 8."""

    __slots__ = ()
    invite = False
    TABLE = (
        ((PROCEEDING, True, NONE), (COMPLETED, True, J), (COMPLETED, True, J)),  # TRYING
        ((PROCEEDING, True, NONE), (COMPLETED, True, J), (COMPLETED, True, J)),  # PROCEEDING
        (None, None, None),  # COMPLETED
        (None, None, None),  # CONFIRMED, not entered
        (None, None, None),  # ACCEPTED, not entered
        (None, None, None),  # TERMINATED
    )

    def abandon(self) -> None:
        """End without a final answer: RFC 4320 §4.2 forbids 408 for non-INVITE, the client times out by itself."""
        self._terminate()
