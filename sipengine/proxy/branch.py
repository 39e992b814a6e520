"""A branch: one target of a response context, its addresses in turn, timer C (RFC 3261 §16.6, §16.8, §16.9).

The next address gets the same request in a transaction of its own when one cannot be reached, stays silent or answers
503 (RFC 3263 §4.3); each such failure lets that address rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipengine.events import Target
from sipengine.exceptions import ResolutionError, SipError, TransactionTimeout, TransportError
from sipengine.message.message import Message
from sipengine.proxy import response
from sipengine.proxy.abandoned import Abandoned
from sipengine.proxy.forward import forward
from sipengine.timerqueue import NEVER
from sipengine.transaction.client import ClientTransaction, InviteClient
from sipengine.transaction.tables import CALLING
from sipengine.transport.flow import SECURE
from sipengine.transport.rests import asked_rest

if TYPE_CHECKING:
    from sipengine.proxy.context import ResponseContext

LOOK = 32.0
"""Timer C is looked at every 32 s: a timer entry never pins a branch for longer."""


class Branch:
    __slots__ = ("c_at", "client", "context", "due", "next_hop", "reply", "ruri", "status", "targets")

    def __init__(self, context: ResponseContext, ruri: bytes, next_hop: bytes) -> None:
        self.context: ResponseContext | None = context
        self.ruri = ruri
        self.next_hop = next_hop
        self.targets: tuple[Target, ...] = ()
        self.client: ClientTransaction | None = None
        self.status = 0
        """Final status, 0 while none is known."""
        self.reply: Message | None = None
        """Final response, or the last 503 of an address while others are tried; None when the status is ours."""
        self.c_at = 0.0
        self.due = NEVER

    def located(self, targets: list[Target] | ResolutionError, now: float) -> None:
        context = self.context
        if context is None or self.status:
            return
        if isinstance(targets, ResolutionError):
            self._finish(503, None, now)
            return
        record = context.record
        if context.direction and record is not None:
            targets = context.core.within.reachable(record, targets)
            if not targets:
                self._finish(403, None, now)
                return
        if self.ruri[:5].lower() == b"sips:":
            # RFC 3261 §26.2.2, RFC 5630 §3: over TLS on every hop, or not at all.
            targets = [target for target in targets if target.transport in SECURE]
            if not targets:
                context.core.counters.insecure += 1
                self._finish(480, None, now)
                return
        rests = context.core.locator.rests
        if rests.resting:
            # Within a call the far side is one certain server: it is asked, whatever it wants of new requests.
            targets = rests.order(targets, now, new=not context.direction)
            if not targets:
                self._finish(503, None, now)
                return
        if len(targets) > 1:
            self.targets = tuple(targets[: context.core.configuration.max_targets])
            self.try_next(now)
            return
        self.send_to(targets[0], now)

    def send_to(self, target: Target, now: float) -> None:
        """Send the request to this address."""
        context = self.context
        assert context is not None
        transport = context.core.transport
        try:
            listener = transport.listener_for(target.transport, target.address[0], context.flow.listener)
        except TransportError:
            self.try_next(now)
            return
        flow = listener.flows.get(target.address)
        if target.names:
            flow = transport.flow_for(listener, target.address, target.names)
        elif flow is None or flow.closed:
            flow = transport.flow_for(listener, target.address)
        forward(context.core, context, self, flow, now)
        if self.targets and context.method == b"INVITE":
            context.core.queue.arm(self, context.core.configuration.try_timer, now)

    def try_next(self, now: float) -> None:
        """Send to the next address, each in its own transaction with its own branch (RFC 3263 §4.3)."""
        if not self.targets:
            self._finish(503, None, now)
            return
        target, self.targets = self.targets[0], self.targets[1:]
        self.send_to(target, now)

    def cancel(self, now: float, reason: bytes = b"") -> None:
        client = self.client
        if isinstance(client, InviteClient):
            self.targets = ()
            client.cancel(now, reason)
        elif client is None and not self.status:
            self.status = 487

    def on_response(self, client: ClientTransaction, status: int, message: Message, now: float) -> None:
        context = self.context
        if context is None or client is not self.client:
            return
        rests = context.core.locator.rests
        if rests.resting and status > 100 and status != 503:
            rests.answered(client.flow.listener.transport, client.flow.remote)
        if status < 200:
            if context.method == b"INVITE":
                if not self.c_at:
                    context.core.queue.arm(self, LOOK, now)
                if status > 100 or not self.c_at:
                    self.c_at = now + context.timer_c
            else:
                self.c_at = now
            if status > 100:
                response.forward(context, status, message, now)
        elif status < 300:
            self.status = status
            response.on_success(context, self, status, message, now)
        else:
            if status == 503:
                self._rest(client, now, asked_rest(message))
                if self.targets and not context.cancelled:
                    self.reply = message
                    self._reset()
                    self.try_next(now)
                    return
            self._finish(status, message, now)

    def on_failure(self, client: ClientTransaction, error: SipError, now: float) -> None:
        context = self.context
        if context is None or client is not self.client:
            return
        timeout = isinstance(error, TransactionTimeout)
        if not timeout:
            context.core.counters.transport_errors += 1
        silent = not timeout or not self.c_at  # whoever said anything at all is no dead server
        if silent:
            self._rest(client, now)
        if silent and self.targets and not context.cancelled:
            self._reset()
            self.try_next(now)
        else:
            self._finish(408 if timeout else 503, None, now)

    def on_timer(self, now: float) -> None:
        """The try timer: not a word from this address; or timer C: it rang for too long without one (§16.8)."""
        context, client = self.context, self.client
        if context is None or self.status or not isinstance(client, InviteClient):
            return
        if client.state == CALLING:
            if self.targets:
                self._rest(client, now)
                Abandoned(context.core, client, now)
                self._reset()
                self.try_next(now)
        elif now < self.c_at:
            context.core.queue.arm(self, LOOK, now)
        else:
            context.core.counters.timeouts += 1
            self.cancel(now)

    def _rest(self, client: ClientTransaction, now: float, asked: float = 0.0) -> None:
        assert self.context is not None
        flow = client.flow
        self.context.core.locator.rests.failed(flow.listener.transport, flow.remote, now, asked)

    def _reset(self) -> None:
        self.client = None
        self.c_at = 0.0
        self.due = NEVER

    def _finish(self, status: int, message: Message | None, now: float) -> None:
        if message is None and self.reply is not None:
            status = 503  # an answer of one address says more than the silence of the last
        else:
            self.reply = message
        self.status = status
        assert self.context is not None
        response.on_failed(self.context, self, now)

    def release(self) -> None:
        """The context is over: a late response finds nobody."""
        self.context = None
        self.client = None
        self.due = NEVER
