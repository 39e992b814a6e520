"""Client transactions: one sent request, repeated until answered, and its responses (RFC 3261 §17.1, §9.1, RFC 6026
§7.2).

The machines run on `tables`.  Timer C is the proxy's (`proxy.branch`), not the machine's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from sipengine.exceptions import SipError, TransactionTimeout
from sipengine.message.fields import TO
from sipengine.message.message import Message
from sipengine.timerqueue import NEVER
from sipengine.transaction.tables import (
    ACK,
    AGAIN,
    BROKEN,
    CALLING,
    EXPIRE,
    GIVE_UP,
    INVITE_CLIENT,
    NON_INVITE_CLIENT,
    PASS,
    PROCEEDING,
    REPEAT,
    TELL,
    TERMINATED,
    Table,
)
from sipengine.transaction.timers import NONE, RETRANSMIT
from sipengine.transport.flow import Flow

if TYPE_CHECKING:
    from sipengine.transaction.layer import TransactionLayer


class ClientUser(Protocol):
    def on_response(self, client: ClientTransaction, status: int, message: Message, now: float) -> None: ...

    def on_failure(self, client: ClientTransaction, error: SipError, now: float) -> None: ...


class ClientTransaction:
    """Fields of both machines.  `wire` is kept only as long as it may be sent again."""

    __slots__ = ("branch", "due", "flow", "layer", "method", "spent", "state", "user", "via_line", "wait", "wire")

    TABLE: ClassVar[Table]
    via_line: bytes
    """Our Via as the last response showed it, which is taken off the message; unset before the first."""

    def __init__(
        self, layer: TransactionLayer, branch: bytes, method: bytes, flow: Flow, wire: bytes, user: ClientUser | None
    ) -> None:
        self.layer = layer
        self.branch = branch
        self.method = method
        self.flow = flow
        self.wire = wire
        self.user = user
        self.state = CALLING
        self.wait = 0.0
        self.spent = 0.0
        self.due = NEVER

    def start(self, now: float) -> None:
        layer, flow = self.layer, self.flow
        layer.out.append((self.wire, flow))
        self.wait = layer.timers.delays[flow.listener.transport != "udp"][RETRANSMIT]
        layer.queue.arm(self, self.wait, now)

    def receive(self, status: int, message: Message, now: float) -> None:
        raise NotImplementedError

    def _arm(self, timer: int, now: float) -> None:
        layer = self.layer
        delay = layer.timers.delays[self.flow.listener.transport != "udp"][timer]
        if delay:
            self.wait = delay
            layer.queue.arm(self, delay, now)
        else:
            self.terminate()

    def on_timer(self, now: float) -> None:
        """A or E, B or F (the sum of all waits), or the end of D, K or M."""
        if self.state > PROCEEDING:
            self._happen(EXPIRE, None, now)
            return
        timers = self.layer.timers
        self.spent += self.wait
        if self.spent < timers.timeout:
            self.wait = min(self._next_wait(), timers.timeout - self.spent)
            self._happen(REPEAT, None, now)
        else:
            self.layer.counters.timeouts += 1
            error = TransactionTimeout(f"no final answer to {self.method.decode('ascii', 'replace')}")
            self._happen(GIVE_UP, error, now)

    def _next_wait(self) -> float:
        raise NotImplementedError

    def fail(self, error: SipError, now: float) -> None:
        """The flow broke: end without a final response; the user hears why (§17.1.4)."""
        self._happen(BROKEN, error, now)

    def _happen(self, event: int, error: SipError | None, now: float) -> None:
        """What is no response: a timer or a broken flow."""
        step = self.TABLE[self.state][event]
        if step is None:
            return
        state, timer, action = step
        if action & AGAIN:
            self.layer.out.append((self.wire, self.flow))
        if timer == RETRANSMIT:
            self.layer.queue.arm(self, self.wait, now)
        if state == TERMINATED:
            user = self.user
            self.terminate()
            if action & TELL and error is not None and user is not None:
                user.on_failure(self, error, now)

    def terminate(self) -> None:
        self.state = TERMINATED
        self.due = NEVER
        self.user = None
        self.layer.forget_client(self)


class InviteClient(ClientTransaction):
    """Figure 5 with Accepted of RFC 6026."""

    __slots__ = ("_cancel", "cseq", "head", "ruri", "to_line")

    TABLE = INVITE_CLIENT

    def __init__(
        self, layer: TransactionLayer, branch: bytes, flow: Flow, wire: bytes, user: ClientUser | None,
        ruri: bytes, head: list[bytes], to_line: bytes, cseq: bytes,
    ) -> None:
        self.layer = layer  # not through super(): once for each call, and it shows
        self.branch = branch
        self.method = b"INVITE"
        self.flow = flow
        self.wire = wire
        self.user = user
        self.state = CALLING
        self.wait = 0.0
        self.spent = 0.0
        self.due = NEVER
        self.ruri = ruri
        self.head = head
        """Via, From, Call-ID and Route lines as sent: what ACK and CANCEL repeat (§17.1.1.3, §9.1)."""
        self.to_line = to_line
        self.cseq = cseq
        self._cancel: bytes | None = None
        """Header lines that the CANCEL takes along, each with its CRLF; None: nobody wants one."""

    def receive(self, status: int, message: Message, now: float) -> None:
        kind = 0 if status < 200 else 1 if status < 300 else 2
        state = self.state
        step = self.TABLE[state][kind]
        if step is None:
            return
        self.state, timer, action = step
        if kind == 0:
            self.wire = b""
            if state == CALLING:
                self.due = NEVER  # a provisional stops A and B
                if self._cancel is not None:
                    self._send_cancel(now)
        elif kind == 1:
            self.wire = b""
        else:
            if action & ACK:
                self.wire = self._hop_request(b"ACK", message.line(TO))
            self.layer.out.append((self.wire, self.flow))
            if not action & PASS:
                return
        user = self.user
        if timer != NONE:
            self._arm(timer, now)
        if action & PASS and user is not None:
            user.on_response(self, status, message, now)

    def cancel(self, now: float, lines: bytes = b"") -> None:
        """Send CANCEL, now or when the first provisional allows it (§9.1); `lines` go along (RFC 3326: Reason)."""
        if self._cancel is not None or self.state > PROCEEDING:
            return
        self._cancel = lines
        if self.state == PROCEEDING:
            self._send_cancel(now)

    def _send_cancel(self, now: float) -> None:
        layer = self.layer
        wire = self._hop_request(b"CANCEL", self.to_line, self._cancel or b"")
        cancel = NonInviteClient(layer, self.branch, b"CANCEL", self.flow, wire, None)
        layer.cancels[self.branch] = cancel
        cancel.start(now)
        self.wait = layer.timers.timeout  # §9.1: no final answer in 64*T1, taken for ended
        layer.queue.arm(self, self.wait, now)

    def _hop_request(self, method: bytes, to_line: bytes, lines: bytes = b"") -> bytes:
        return b"%b %b SIP/2.0\r\n%b\r\n%b\r\nMax-Forwards: 70\r\nCSeq: %b %b\r\n%bContent-Length: 0\r\n\r\n" % (
            method, self.ruri, b"\r\n".join(self.head), to_line, self.cseq, method, lines
        )

    def _next_wait(self) -> float:
        return 2 * self.wait


class NonInviteClient(ClientTransaction):
    """Figure 6."""

    __slots__ = ()

    TABLE = NON_INVITE_CLIENT

    def receive(self, status: int, message: Message, now: float) -> None:
        step = self.TABLE[self.state][0 if status < 200 else 1 if status < 300 else 2]
        if step is None:
            return
        self.state, timer, action = step
        user = self.user
        if timer != NONE:
            self.wire = b""
            self._arm(timer, now)
        if action & PASS and user is not None:
            user.on_response(self, status, message, now)

    def _next_wait(self) -> float:
        t2 = self.layer.timers.t2
        return t2 if self.state == PROCEEDING else min(2 * self.wait, t2)
