"""A pretend provider on the loopback: a registrar that has bad days too, and calls its customers."""

from __future__ import annotations

import random
import secrets
import time
from enum import Enum

from simulation.call import Call, contact_of, record_routes
from simulation.peer import Address, Peer, new_tag, sdp
from simulation.registrar import Registrar
from sipengine.message import Message

#: Ranges that the German regulator keeps for film and fiction, without their last three digits: nobody has them.
FICTION = ("+493023125", "+496990009", "+494066969", "+492214710", "+498999998")


class Mood(Enum):
    """What the registrar does with a REGISTER."""

    HEALTHY = "checks the password and grants"
    OVERLOADED = "503 with Retry-After"
    SILENT = "no answer at all"


class Provider(Peer):
    """`passwords` are its customers; `grant` seconds is the longest registration it gives."""

    def __init__(
        self,
        host: str,
        domain: str,
        passwords: dict[str, str],
        *,
        mood: Mood = Mood.HEALTHY,
        grant: int = 60,
        port: int = 0,
    ) -> None:
        super().__init__(host, port)
        self.domain, self.mood = domain, mood
        secrets_of = {user.encode(): password.encode() for user, password in passwords.items()}
        self.registrar = Registrar(domain.encode(), secrets_of, longest=grant)
        self.retry_after = 45
        self.calls: dict[bytes, Call] = {}
        self._random = random.Random(domain)

    # registrar
    def on_request(self, message: Message, source: Address) -> None:
        if message.method == b"REGISTER":
            self._register(message, source)
        elif message.method == b"BYE":
            self.calls.pop(message.call_id, None)
            self.answer(message, source, 200)
        elif message.method != b"ACK":
            self.answer(message, source, 501, tag=new_tag())

    def _register(self, message: Message, source: Address) -> None:
        if self.mood is Mood.SILENT:
            return
        if self.mood is Mood.OVERLOADED:
            self.answer(message, source, 503, tag=new_tag(), extra=[b"Retry-After: %d" % self.retry_after])
            return
        status, lines = self.registrar.answer(message, b"%b:%d" % (source[0].encode(), source[1]), time.monotonic())
        self.answer(message, source, status, tag=new_tag(), extra=lines)

    # calls to customers
    def call_somebody(self) -> None:
        """Call one of the registered customers."""
        now = time.monotonic()
        reachable = [user.decode() for user in self.registrar.tables if self.registrar.bound_until(user) > now]
        if reachable:
            self.call(self._random.choice(reachable))

    def call(self, user: str) -> None:
        number = f"{self._random.choice(FICTION)}{self._random.randrange(1000):03d}"
        target = next(reversed(self.registrar.tables[user.encode()]))
        local = f'"Caller {number[-3:]}" <sip:{number}@{self.domain};user=phone>;tag='.encode() + new_tag()
        call = Call(secrets.token_hex(10).encode(), local, b"<%b>" % target, target)
        call.invite = self.request(
            b"INVITE",
            target,
            [
                (b"From", call.local),
                (b"To", call.remote),
                (b"Call-ID", call.call_id),
                (b"CSeq", b"1 INVITE"),
                (b"Contact", f"<sip:{number}@{self.host}:{self.port}>".encode()),
                (b"P-Asserted-Identity", f"<sip:{number}@{self.domain}>".encode()),
                (b"Content-Type", b"application/sdp"),
            ],
            sdp(self.host, 40000),
        )
        self.calls[call.call_id] = call
        self.send_request(call.invite)
        if self._random.random() < 0.15:
            self.later(self._random.uniform(1.5, 2.5), self._cancel, call)

    def _cancel(self, call: Call) -> None:
        if call.call_id in self.calls and b";tag=" not in call.remote:
            call.cancelled = True
            self.send_request(self._copy(call, b"CANCEL", call.remote))

    def _copy(self, call: Call, method: bytes, to: bytes) -> Message:
        """CANCEL or the ACK of a failure: the INVITE's Via, numbers and target (§9.1, §17.1.1.3)."""
        assert call.invite is not None
        made = self.request(
            method,
            call.target,
            [(b"From", call.local), (b"To", to), (b"Call-ID", call.call_id), (b"CSeq", b"1 " + method)],
        )
        made.replace(b"Via", call.invite.get_all(b"Via")[0])
        return made

    def on_response(self, message: Message) -> None:
        call = self.calls.get(message.call_id)
        if call is None or message.cseq[1] != b"INVITE" or message.status < 200:
            return
        if message.status >= 300:
            del self.calls[call.call_id]
            self.send_request(self._copy(call, b"ACK", message.get(b"To") or call.remote))
            return
        first = b";tag=" not in call.remote
        call.remote = message.get(b"To") or call.remote
        call.target, call.routes = contact_of(message), record_routes(message)[::-1]
        self.send_request(call.request(self, b"ACK", 1))
        if first:
            self.later(0.1 if call.cancelled else self._random.uniform(5, 18), self._hang_up, call)

    def _hang_up(self, call: Call) -> None:
        if self.calls.pop(call.call_id, None) is not None:
            self.send_request(call.request(self, b"BYE"))
