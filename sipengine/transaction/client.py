"""Client transactions: one sent request, repeated until answered, and its responses (RFC 3261 §17.1, §9.1, RFC 6026
§7.2).

The machines are tables of data.  Timer C is the proxy's (`proxy.branch`), not the machine's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from sipengine.exceptions import SipError, TransactionTimeout
from sipengine.message.fields import TO
from sipengine.message.message import Message
from sipengine.timerqueue import NEVER
from sipengine.transaction.timers import NONE, RETRANSMIT, D, K, M
from sipengine.transport.flow import Flow

if TYPE_CHECKING:
    from sipengine.transaction.layer import TransactionLayer

CALLING, PROCEEDING, COMPLETED, ACCEPTED, TERMINATED = range(5)
TRYING = CALLING

Step = tuple[int, int] | None
"""Next state and timer to arm; the response goes to the user.  None: it does not."""


class ClientUser(Protocol):
    def on_response(self, client: ClientTransaction, status: int, message: Message, now: float) -> None: ...

    def on_failure(self, client: ClientTransaction, error: SipError, now: float) -> None: ...


class ClientTransaction:
    """Fields of both machines.  `wire` is kept only as long as it may be sent again."""

    __slots__ = ("branch", "due", "flow", "layer", "method", "spent", "state", "user", "wait", "wire")

    TABLE: ClassVar[tuple[tuple[Step, Step, Step], ...]]

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
        raise NotImplementedError

    def _repeat(self, wait: float, now: float) -> bool:
        """Timer A or E: send again and wait `wait`; False when B or F (the sum of all waits) is reached."""
        timeout = self.layer.timers.timeout
        self.spent += self.wait
        if self.spent >= timeout:
            return False
        self.layer.out.append((self.wire, self.flow))
        self.wait = min(wait, timeout - self.spent)
        self.layer.queue.arm(self, self.wait, now)
        return True

    def fail(self, error: SipError, now: float) -> None:
        """End without a final response; the user hears why."""
        user = self.user
        waiting = self.state <= PROCEEDING
        self.terminate()
        if waiting and user is not None:
            user.on_failure(self, error, now)

    def terminate(self) -> None:
        self.state = TERMINATED
        self.due = NEVER
        self.user = None
        self.layer.forget_client(self)


class InviteClient(ClientTransaction):
    """Figure 5 with Accepted of RFC 6026."""

    __slots__ = ("_cancelled", "cseq", "head", "ruri", "to_line")

    TABLE = (
        # 1xx                2xx            3xx-6xx
        ((PROCEEDING, NONE), (ACCEPTED, M), (COMPLETED, D)),  # CALLING
        ((PROCEEDING, NONE), (ACCEPTED, M), (COMPLETED, D)),  # PROCEEDING
        (None, None, None),  # COMPLETED
        (None, (ACCEPTED, NONE), None),  # ACCEPTED
        (None, None, None),  # TERMINATED
    )

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
        self._cancelled = False

    def receive(self, status: int, message: Message, now: float) -> None:
        kind = 0 if status < 200 else 1 if status < 300 else 2
        state = self.state
        step = self.TABLE[state][kind]
        if step is None:
            if state == COMPLETED and kind == 2:
                self.layer.out.append((self.wire, self.flow))  # the ACK again
            return
        self.state, timer = step
        if kind == 0:
            self.wire = b""
            if state == CALLING:
                self.due = NEVER  # a provisional stops A and B
                if self._cancelled:
                    self._send_cancel(now)
        elif kind == 1:
            self.wire = b""
        else:
            self.wire = self._hop_request(b"ACK", message.line(TO))
            self.layer.out.append((self.wire, self.flow))
        user = self.user
        if timer != NONE:
            self._arm(timer, now)
        if user is not None:
            user.on_response(self, status, message, now)

    def cancel(self, now: float) -> None:
        """Send CANCEL, now or when the first provisional allows it (§9.1)."""
        if self._cancelled or self.state > PROCEEDING:
            return
        self._cancelled = True
        if self.state == PROCEEDING:
            self._send_cancel(now)

    def _send_cancel(self, now: float) -> None:
        layer = self.layer
        wire = self._hop_request(b"CANCEL", self.to_line)
        cancel = NonInviteClient(layer, self.branch, b"CANCEL", self.flow, wire, None)
        layer.cancels[self.branch] = cancel
        cancel.start(now)
        layer.queue.arm(self, layer.timers.timeout, now)  # §9.1: no final answer in 64*T1, taken for ended

    def _hop_request(self, method: bytes, to_line: bytes) -> bytes:
        return b"%b %b SIP/2.0\r\n%b\r\n%b\r\nMax-Forwards: 70\r\nCSeq: %b %b\r\nContent-Length: 0\r\n\r\n" % (
            method, self.ruri, b"\r\n".join(self.head), to_line, self.cseq, method
        )

    def on_timer(self, now: float) -> None:
        if self.state == CALLING:
            if not self._repeat(2 * self.wait, now):
                self._time_out(now)
        elif self.state == PROCEEDING:
            self._time_out(now)
        else:
            self.terminate()

    def _time_out(self, now: float) -> None:
        self.layer.counters.timeouts += 1
        self.fail(TransactionTimeout("no final answer to INVITE"), now)


class NonInviteClient(ClientTransaction):
    """Figure 6."""

    __slots__ = ()

    TABLE = (
        # 1xx                2xx             3xx-6xx
        ((PROCEEDING, NONE), (COMPLETED, K), (COMPLETED, K)),  # TRYING
        ((PROCEEDING, NONE), (COMPLETED, K), (COMPLETED, K)),  # PROCEEDING
        (None, None, None),  # COMPLETED
        (None, None, None),  # ACCEPTED, not entered
        (None, None, None),  # TERMINATED
    )

    def receive(self, status: int, message: Message, now: float) -> None:
        step = self.TABLE[self.state][0 if status < 200 else 1 if status < 300 else 2]
        if step is None:
            return
        self.state, timer = step
        user = self.user
        if timer != NONE:
            self.wire = b""
            self._arm(timer, now)
        if user is not None:
            user.on_response(self, status, message, now)

    def on_timer(self, now: float) -> None:
        if self.state <= PROCEEDING:
            timers = self.layer.timers
            wait = timers.t2 if self.state == PROCEEDING else min(2 * self.wait, timers.t2)
            if not self._repeat(wait, now):
                self.layer.counters.timeouts += 1
                self.fail(TransactionTimeout(f"no final answer to {self.method.decode()}"), now)
        else:
            self.terminate()
