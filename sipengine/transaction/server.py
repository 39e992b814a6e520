"""Server transactions: one received request, and its responses until nobody repeats anything (RFC 3261 §17.2, RFC 6026
§7.1).

The machines run on `tables`.  Nothing here knows what a request means; its user decides what to respond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from sipengine.message.build import response
from sipengine.timerqueue import NEVER
from sipengine.transaction.tables import (
    ACKED,
    AGAIN,
    EXPIRE,
    HUNDRED,
    INVITE_SERVER,
    KEEP,
    NON_INVITE_SERVER,
    REQUEST,
    SILENT,
    SLOW,
    Table,
)
from sipengine.transaction.tables import S_ACCEPTED as ACCEPTED
from sipengine.transaction.tables import S_COMPLETED as COMPLETED
from sipengine.transaction.tables import S_CONFIRMED as CONFIRMED
from sipengine.transaction.tables import S_PROCEEDING as PROCEEDING
from sipengine.transaction.tables import S_TERMINATED as TERMINATED
from sipengine.transaction.tables import S_TRYING as TRYING
from sipengine.transaction.timers import NONE, RETRANSMIT
from sipengine.transport.flow import Flow

if TYPE_CHECKING:
    from sipengine.transaction.layer import TransactionLayer

__all__ = [
    "ACCEPTED", "COMPLETED", "CONFIRMED", "PROCEEDING", "TERMINATED", "TRYING", "InviteServer", "NonInviteServer",
    "ServerTransaction", "ServerUser",
]  # fmt: skip


class ServerUser(Protocol):
    def on_server_terminated(self) -> None: ...


class ServerTransaction:
    """Fields of both machines; `head` holds the lines that every response copies."""

    __slots__ = ("due", "flow", "head", "key", "last", "layer", "spent", "state", "user", "wait")

    TABLE: ClassVar[Table]
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
        self.state, timer, action = step
        self.last = wire if action & KEEP else b""
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

    def on_retransmission(self, now: float) -> None:
        """The request came again: the last response goes out again, nothing else happens (§17.2.1, §17.2.2)."""
        self.layer.counters.retransmissions += 1
        self._happen(REQUEST, now)

    def vanish(self, now: float) -> None:
        """Say nothing, and absorb repetitions as long as a client may send them (RFC 4320 §4.2: no 408)."""
        self._happen(SILENT, now)

    def _happen(self, event: int, now: float) -> None:
        """What is no response of the user."""
        step = self.TABLE[self.state][event]
        if step is None:
            return
        state, timer, action = step
        if action & AGAIN:
            self._send(self.last)
        elif action & HUNDRED:
            self.own_response(100, now)
            return
        elif state != self.state:
            self.last = b""
        self.state = state
        if timer == RETRANSMIT:
            self.layer.queue.arm(self, self.wait, now)
        elif timer != NONE:
            self._arm(timer, now)
        elif state == TERMINATED:
            self._terminate()

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
        self._happen(EXPIRE, now)

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
    TABLE = INVITE_SERVER

    def on_ack(self, now: float) -> None:
        """ACK of a non-2xx (same branch): absorbed (§17.2.1)."""
        self._happen(ACKED, now)

    def on_timer(self, now: float) -> None:
        if self.state == COMPLETED:  # G repeats the response, H is the sum of all waits
            timers = self.layer.timers
            self.spent += self.wait
            if self.spent < timers.timeout:
                self.wait = min(2 * self.wait, timers.t2, timers.timeout - self.spent)
                self._happen(SLOW, now)
                return
        self._happen(EXPIRE, now)


class NonInviteServer(ServerTransaction):
    """Figure 8, and RFC 4320: no answer for long is told by a 100, no answer at all by silence."""

    __slots__ = ()
    invite = False
    TABLE = NON_INVITE_SERVER

    def expect_answer(self, now: float) -> None:
        """From now on the user has the time in which a client's timer E reaches T2 (RFC 4320 §4.1)."""
        timers = self.layer.timers
        self.layer.queue.arm(self, timers.slow, now)

    def on_timer(self, now: float) -> None:
        self._happen(SLOW if self.state == TRYING else EXPIRE, now)
