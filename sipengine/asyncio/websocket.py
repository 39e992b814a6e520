"""WebSocket connections as flows: over TCP or TLS a handshake for the subprotocol ``sip``, then one message in each
frame (RFC 7118, RFC 6455).

Handshake and frames are those of the library `websockets`, without its sockets; deadlines and bounds are `tcp`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus

from websockets.exceptions import InvalidHandshake, InvalidOrigin
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Origin, Subprotocol

from sipengine.asyncio.tcp import TcpConnection, TcpFlows
from sipengine.message.message import MAX_MESSAGE
from sipengine.transport.flow import Flow, Listener

log = logging.getLogger("sipengine")

# At DEBUG the library would write every frame down, credentials and all.  Not one of `getLogger`: a configuration of
# logging, as Django's, would set its level anew.
_quiet = logging.Logger("sipengine.websocket", logging.WARNING)
_quiet.parent = log

SUBPROTOCOL = Subprotocol("sip")
MAX_HEAD = 16384
"""Bytes of a handshake; browsers send less than one thousand, and cookies."""
REFUSALS_TOLD = 1.0
"""Seconds between two refused handshakes in the log; all are counted."""
ANY = "*"
"""Stands for every origin."""


class WsConnection(TcpConnection):
    """One accepted connection.  Web pages whose origin is not in `origins` get 403."""

    def __init__(
        self, flows: TcpFlows, flow: Flow | None = None, listener_at: Callable[[str], Listener] | None = None, *,
        origins: Sequence[str] = (),
    ) -> None:
        super().__init__(flows, flow, listener_at)
        # No extensions: what deflate makes small is large here.
        self._protocol = ServerProtocol(
            origins=_origins_of(origins), subprotocols=[SUBPROTOCOL], max_size=MAX_MESSAGE, logger=_quiet
        )
        self._answers_pings = True  # RFC 6455 §5.5.2: whoever speaks WebSocket does
        self._owes_since = 0.0
        """Since when the peer owes us its handshake, or the end of the connection; 0 while it owes neither."""
        self._head = bytearray()
        self._message = bytearray()
        self._text = False

    # the handshake
    def _begin(self) -> None:
        self._owes_since = self.flows._loop.time()

    def _shake_hands(self, data: bytes) -> bytes | None:
        """Take bytes of the handshake; return those behind it, None while it goes on or when it has failed."""
        protocol, head = self._protocol, self._head
        searched = max(0, len(head) - 3)
        head += data
        end = head.find(b"\r\n\r\n", searched) + 4
        if end < 4 and len(head) <= MAX_HEAD:
            return None
        # Only now, and no more than this: frames that come before the answer are no frames.
        whole, rest = (bytes(head[:end]), bytes(head[end:])) if 4 <= end <= MAX_HEAD else (b"", b"")
        head.clear()
        protocol.receive_data(whole)
        asked = protocol.events_received()
        if asked and isinstance(asked[0], Request):
            protocol.send_response(protocol.accept(asked[0]))
        if protocol.state is State.OPEN:
            self._owes_since = 0.0
            self._flush()
            super()._begin()
            return rest
        self._refuse()
        return None

    def _refuse(self) -> None:
        protocol, flows = self._protocol, self.flows
        assert self.flow is not None and self._transport is not None
        why = protocol.handshake_exc
        reason = ascii(str(why))[1:-1] if isinstance(why, InvalidHandshake) else "no WebSocket handshake"
        if self.heard_at - flows.refusal_told_at >= REFUSALS_TOLD:
            flows.refusal_told_at = self.heard_at
            log.info("No WebSocket for %s: %s.", self.flow.remote[0], reason)
        flows.ended["origin" if isinstance(why, InvalidOrigin) else "handshake"] += 1
        answer = b"".join(protocol.data_to_send())
        if not answer:
            text = f"This port speaks SIP over WebSocket (RFC 7118); {reason}.\n"
            answer = protocol.reject(HTTPStatus.BAD_REQUEST, text).serialize()
        self._transport.write(answer)
        self._end()

    # frames
    def data_received(self, data: bytes) -> None:
        flow, flows, protocol = self.flow, self.flows, self._protocol
        if flow is None or flow.closed or self._transport is None or self._transport.is_closing():
            return
        now = self.heard_at = flows._loop.time()
        self._pinged_at = 0.0
        if not self._ready:
            rest = self._shake_hands(data)
            if not rest:
                return
            data = rest
        protocol.receive_data(data)
        whole = False
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            if self._take(frame, flow):
                whole = True
            if flow.closed or self._transport.is_closing():  # nothing counts behind a fault
                return
        self._flush()
        if whole:
            self.active_at = now
            flows.waiting.pop(self, None)
        if protocol.reader.buffer or protocol.current_size is not None:
            flows.waiting.setdefault(self, now)

    def _take(self, frame: Frame, flow: Flow) -> bool:
        """Hand a whole message on; whether something ended with this frame: a message, or a ping between two."""
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return frame.opcode is Opcode.PING and not self._message
        if frame.opcode is not Opcode.CONT:
            self._text = frame.opcode is Opcode.TEXT
        self._message += frame.data
        if not frame.fin:
            return False
        message = bytes(self._message)
        self._message.clear()
        if self._text and not _is_text(message):
            self._protocol.fail(CloseCode.INVALID_DATA, "text is UTF-8")  # RFC 6455 §8.1
            self._flush()
            return False
        self.flows.receive(message, flow)
        return True

    def _flush(self) -> None:
        """Write what the library has made, and end the connection where it says so."""
        assert self._transport is not None
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:
                if self._protocol.close_rcvd is None:  # it was not the peer that said goodbye
                    self.flows.ended["frames"] += 1
                self._end()

    def _end(self) -> None:
        """Close once the peer has read what was written; `look` waits no longer than for a handshake."""
        assert self._transport is not None
        self._owes_since = self.flows._loop.time()
        self._transport.close()

    # out
    def _write(self, data: bytes) -> None:
        protocol = self._protocol
        if protocol.state is not State.OPEN:  # the peer has said goodbye
            return
        # RFC 7118 §4.2: what is no UTF-8 cannot be text.
        (protocol.send_text if _is_text(data) else protocol.send_binary)(data)
        self._flush()

    @property
    def _pings(self) -> bool:
        return True

    def _ping(self) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_ping(b"")
            self._flush()

    def look(self, now: float) -> None:
        if self._owes_since and now - self._owes_since > self.flows.limits.handshake:
            self.cut()
        else:
            super().look(now)

    def close(self) -> None:
        if self._ready and self._protocol.state is State.OPEN:
            self._protocol.send_close(CloseCode.GOING_AWAY)
            self._flush()
        super().close()


def _origins_of(allowed: Sequence[str]) -> list[Origin | None] | None:
    """As `ServerProtocol` takes them: who sends none is no browser, so no page makes it connect."""
    return None if ANY in allowed else [None, *map(Origin, allowed)]


def _is_text(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
