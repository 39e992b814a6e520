"""A pretend PBX: its phones ring, most are picked up, some are busy, and some callees hang up first."""

from __future__ import annotations

import random

from simulation.call import Call, contact_of, record_routes
from simulation.peer import Address, Peer, new_tag, sdp
from sipengine.message import Message


class Pbx(Peer):
    """Answers every INVITE that it gets."""

    def __init__(self, host: str, port: int = 0) -> None:
        super().__init__(host, port)
        self.calls: dict[bytes, Call] = {}
        self.answered = 0
        self._random = random.Random(host)

    def on_request(self, message: Message, source: Address) -> None:
        call = self.calls.get(message.call_id)
        if message.method == b"INVITE" and call is None:
            self._ring(message, source)
        elif message.method == b"CANCEL":
            self.answer(message, source, 200)
            if call is not None and call.invite is not None:
                del self.calls[message.call_id]
                self._final(call, 487)
        elif message.method == b"BYE":
            self.calls.pop(message.call_id, None)
            self.answer(message, source, 200)
        elif message.method not in (b"ACK", b"INVITE"):
            self.answer(message, source, 501, tag=new_tag())

    def _ring(self, message: Message, source: Address) -> None:
        tag = new_tag()
        local = (message.get(b"To") or b"") + b";tag=" + tag
        call = Call(
            message.call_id,
            local,
            message.get(b"From") or b"",
            contact_of(message),
            record_routes(message),
            0,
            message,
            source,
        )
        self.calls[message.call_id] = call
        self._provisional(call, tag)
        if self._random.random() < 0.12:
            self.later(0.4, self._busy, call)
        else:
            self.later(self._random.uniform(1, 4), self._pick_up, call, tag)

    def _contact(self) -> bytes:
        return f"Contact: <sip:phone@{self.host}:{self.port}>".encode()

    def _provisional(self, call: Call, tag: bytes) -> None:
        assert call.invite is not None
        self.answer(call.invite, call.source, 180, tag=tag, extra=[self._contact()])

    def _final(self, call: Call, status: int) -> None:
        assert call.invite is not None
        self.answer(call.invite, call.source, status, tag=call.local.rpartition(b"=")[2])

    def _busy(self, call: Call) -> None:
        if self.calls.pop(call.call_id, None) is not None:
            self._final(call, 486)

    def _pick_up(self, call: Call, tag: bytes) -> None:
        if call.call_id not in self.calls or call.invite is None:
            return
        self.answered += 1
        extra = [self._contact(), b"Content-Type: application/sdp"]
        self.answer(call.invite, call.source, 200, tag=tag, extra=extra, body=sdp(self.host, 42000))
        call.invite = None  # a CANCEL comes too late from now on
        if self._random.random() < 0.3:
            self.later(self._random.uniform(4, 10), self._hang_up, call)

    def _hang_up(self, call: Call) -> None:
        if self.calls.pop(call.call_id, None) is not None:
            self.send_request(call.request(self, b"BYE"))
