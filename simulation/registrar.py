"""A registrar without a socket: binding table, digest, and the habits of real ones (RFC 3261 §10.3, §22.4; RFC 7616).

Told the time; says what to answer and sends nothing.  Its table is what a simulation believes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from sipengine.exceptions import ProtocolError
from sipengine.message import Message, NameAddr
from sipengine.uac.digest import Challenge, Credentials, response

Lines = list[bytes]
Answer = tuple[int, Lines]
"""Status and further header lines."""

PARAMETER = re.compile(rb'([a-z]+)=(?:"([^"]*)"|([^\s,]+))')
MOST_NONCES = 50_000
MAX_EXPIRES = 2**32 - 1


@dataclass(slots=True)
class Bound:
    """One binding of an address of record."""

    call_id: bytes
    cseq: int
    until: float


class Listing(Enum):
    """How the 200 names the bindings."""

    PLAIN = "each with its expires parameter"
    AMONG_OTHERS = "behind another device's Contact, which lives longer"
    REWRITTEN = "the only one, with the address that it came from in place of ours"
    BY_HEADER = "without a parameter; the Expires header says how long"
    DRESSED = "with a display name, parameters in another order, and in the short form"


class Registrar:
    """`passwords` by user; grants `shortest` to `longest` seconds; a nonce lives `nonce_seconds` and `nonce_uses`."""

    def __init__(
        self, realm: bytes, passwords: dict[bytes, bytes], *, longest: int = 3600, shortest: int = 1,
        default: int = 3600, nonce_seconds: float = 1e9, nonce_uses: int = 2**31, listing: Listing = Listing.PLAIN,
        says_stale: bool = True,
    ) -> None:
        self.realm, self.passwords = realm, passwords
        self.longest, self.shortest, self.default = longest, shortest, default
        self.nonce_seconds, self.nonce_uses, self.says_stale = nonce_seconds, nonce_uses, says_stale
        self.listing = listing
        self.tables: dict[bytes, dict[bytes, Bound]] = {user: {} for user in passwords}
        self._nonces: dict[bytes, tuple[float, int]] = {}
        """When each was given, and the highest count that was used."""
        self._given = 0

    def bound_until(self, user: bytes) -> float:
        """When the last binding of `user` ends; 0 without one."""
        return max([bound.until for bound in self.tables[user].values()], default=0.0)

    def forget(self) -> None:
        """Restart with empty memory."""
        for table in self.tables.values():
            table.clear()
        self._nonces.clear()

    def forget_nonces(self) -> None:
        self._nonces.clear()

    def answer(self, message: Message, source: bytes, now: float) -> Answer:
        """Serve one REGISTER that came from `source` (``host:port``); a repeated request is its server transaction's.
        """
        user = message.to.sip_uri.user or b""
        if user not in self.passwords:
            return 404, []
        stale = self._proof_missing(message, self.passwords[user], now)
        if stale is not None:
            return 401, [self._challenge(now, stale)]
        return self._bind(message, user, source, now)

    # §22.4
    def _challenge(self, now: float, stale: bool) -> bytes:
        self._given += 1
        nonce = b"%x.%x" % (self._given, int(now * 1000))
        if len(self._nonces) >= MOST_NONCES:
            del self._nonces[next(iter(self._nonces))]
        self._nonces[nonce] = now, 0
        flag = b", stale=true" if stale and self.says_stale else b""
        return b'WWW-Authenticate: Digest realm="%b", nonce="%b", algorithm=MD5, qop="auth"%b' % (
            self.realm, nonce, flag
        )  # fmt: skip

    def _proof_missing(self, message: Message, password: bytes, now: float) -> bool | None:
        """None when the digest is right; else whether only its nonce is too old.

        Reads the first Authorization only, as simple registrars do.
        """
        given = {key: quoted or bare for key, quoted, bare in PARAMETER.findall(message.get(b"Authorization") or b"")}
        if not given or given.get(b"realm") != self.realm:
            return False
        nonce = given.get(b"nonce", b"")
        challenge = Challenge(self.realm, nonce, None, b"MD5", b"MD5", sess=False, qop=b"auth", stale=False)
        credentials = Credentials(given.get(b"username", b""), password)
        wanted = response(
            challenge, credentials, b"REGISTER", given.get(b"uri", b""), nc=given.get(b"nc", b""),
            cnonce=given.get(b"cnonce", b""),
        )
        if wanted != given.get(b"response"):
            return False
        given_at, used = self._nonces.get(nonce, (-1e9, 0))
        count = int(given.get(b"nc", b"0"), 16)
        if now - given_at > self.nonce_seconds or not used < count <= self.nonce_uses:
            return True
        self._nonces[nonce] = given_at, count
        return None

    # §10.3 steps 6 to 8
    def _bind(self, message: Message, user: bytes, source: bytes, now: float) -> Answer:
        table = self.tables[user]
        for uri in [uri for uri, bound in table.items() if bound.until <= now]:
            del table[uri]
        contacts = message.get_list(b"Contact")
        general = _seconds(message.get(b"Expires"))
        call_id, cseq = message.call_id, message.cseq[0]
        if b"*" in [contact.strip() for contact in contacts]:
            if len(contacts) > 1 or general != 0:
                return 400, []
            changes = dict.fromkeys(table, 0)
        else:
            changes = {}
            for contact in contacts:
                try:
                    parsed = NameAddr.parse(contact)
                except ProtocolError:
                    return 400, []
                own = _seconds(parsed.param(b"expires"))
                wanted = own if own is not None else self.default if general is None else general
                if 0 < wanted < min(self.shortest, 3600):
                    return 423, [b"Min-Expires: %d" % self.shortest]
                changes[parsed.uri] = min(wanted, self.longest)
        # All or nothing: one binding that a later request has touched fails them all.
        for uri in changes:
            old = table.get(uri)
            if old is not None and old.call_id == call_id and cseq <= old.cseq:
                return 500, []
        for uri, seconds in changes.items():
            if seconds:
                table[uri] = Bound(call_id, cseq, now + seconds)
            else:
                table.pop(uri, None)
        return 200, self._list(table, source, now)

    def _list(self, table: dict[bytes, Bound], source: bytes, now: float) -> Lines:
        left = [(uri, int(bound.until - now)) for uri, bound in table.items()]
        listing = self.listing
        if listing is Listing.PLAIN or not left:
            return [b"Contact: <%b>;expires=%d" % pair for pair in left]
        if listing is Listing.AMONG_OTHERS:
            others = b"Contact: <sip:desk@192.0.2.250:5062>;expires=7200"
            return [others, *[b"Contact: <%b>;expires=%d" % pair for pair in left]]
        if listing is Listing.BY_HEADER:
            return [b"Expires: %d" % left[-1][1], *[b"Contact: <%b>" % uri for uri, _ in left]]
        if listing is Listing.REWRITTEN:
            return [b"Contact: <sip:gw-1@%b>;expires=%d" % (source, left[-1][1])]
        return [b'm: "Trunk, the" <%b>;q=0.7;EXPIRES=%d;received="sip:%b"' % (uri, n, source) for uri, n in left]


def _seconds(value: bytes | None) -> int | None:
    """A lifetime; what is no number counts as not given (§10.2.1.1: malformed is 3600, which is `default`)."""
    return min(int(value), MAX_EXPIRES) if value is not None and value.isdigit() else None
