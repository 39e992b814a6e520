"""A pretend provider: a registrar with digest (RFC 3261 §10.3, §22) that has bad days too, and calls its customers."""

from __future__ import annotations

import random
import re
import secrets
import time
from dataclasses import dataclass
from enum import Enum

from simulation.call import Call, contact_of, record_routes
from simulation.peer import Address, Peer, new_tag, sdp
from sipengine.message import Message
from sipengine.uac.digest import Challenge, Credentials, response

#: Ranges that the German regulator keeps for film and fiction, without their last three digits: nobody has them.
FICTION = ("+493023125", "+496990009", "+494066969", "+492214710", "+498999998")


class Mood(Enum):
    """What the registrar does with a REGISTER."""

    HEALTHY = "checks the password and grants"
    OVERLOADED = "503 with Retry-After"
    SILENT = "no answer at all"


@dataclass(frozen=True, slots=True)
class Binding:
    contact: bytes
    until: float


PARAMETER = re.compile(rb'([a-z]+)=(?:"([^"]*)"|([^\s,]+))')


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
        self.domain, self.passwords, self.mood, self.grant = domain, passwords, mood, grant
        self.retry_after = 45
        self.bindings: dict[str, Binding] = {}
        self.calls: dict[bytes, Call] = {}
        self._nonces: dict[bytes, None] = {}
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
        user = (message.to.sip_uri.user or b"").decode()
        if self.mood is Mood.SILENT:
            return
        if self.mood is Mood.OVERLOADED:
            self.answer(message, source, 503, tag=new_tag(), extra=[b"Retry-After: %d" % self.retry_after])
        elif user not in self.passwords:
            self.answer(message, source, 404, tag=new_tag())
        elif not self._authenticated(message, self.passwords[user]):
            self.answer(message, source, 401, tag=new_tag(), extra=[self._challenge()])
        else:
            self._bind(message, source, user)

    def _challenge(self) -> bytes:
        nonce = secrets.token_hex(12).encode()
        self._nonces[nonce] = None
        while len(self._nonces) > 1000:
            del self._nonces[next(iter(self._nonces))]
        return b'WWW-Authenticate: Digest realm="%b", nonce="%b", algorithm=MD5, qop="auth"' % (
            self.domain.encode(),
            nonce,
        )

    def _authenticated(self, message: Message, password: str) -> bool:
        given = {key: quoted or bare for key, quoted, bare in PARAMETER.findall(message.get(b"Authorization") or b"")}
        if given.get(b"nonce") not in self._nonces:
            return False
        challenge = Challenge(
            self.domain.encode(), given[b"nonce"], None, b"MD5", b"MD5", sess=False, qop=b"auth", stale=False
        )
        wanted = response(
            challenge,
            Credentials(given.get(b"username", b""), password.encode()),
            b"REGISTER",
            given.get(b"uri", b""),
            nc=given.get(b"nc", b""),
            cnonce=given.get(b"cnonce", b""),
        )
        return secrets.compare_digest(wanted, given.get(b"response", b""))

    def _bind(self, message: Message, source: Address, user: str) -> None:
        contact = contact_of(message)
        asked = int(message.get(b"Expires") or b"3600")
        if asked == 0:
            self.bindings.pop(user, None)
            self.answer(message, source, 200, tag=new_tag())
            return
        granted = min(asked, self.grant)
        self.bindings[user] = Binding(contact, time.monotonic() + granted)
        self.answer(message, source, 200, tag=new_tag(), extra=[b"Contact: <%b>;expires=%d" % (contact, granted)])

    # calls to customers
    def call_somebody(self) -> None:
        """Call one of the registered customers."""
        now = time.monotonic()
        reachable = [user for user, binding in self.bindings.items() if binding.until > now]
        if reachable:
            self.call(self._random.choice(reachable))

    def call(self, user: str) -> None:
        number = f"{self._random.choice(FICTION)}{self._random.randrange(1000):03d}"
        target = self.bindings[user].contact
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
