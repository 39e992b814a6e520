"""Digest from the server's side: the challenges, and whether what answers them proves a password (RFC 7616, RFC 8760).

A nonce is its time and an HMAC, so challenges cost no memory; counts are kept for nonces that were answered rightly,
which no stranger can make many.  Does not say what who proved himself may do.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from sipengine.uac.digest import Challenge, Credentials, parameters_of, quote, response

LIFETIME = 300.0
"""Seconds that a nonce is good for; a phone that refreshes later is told `stale=true` and asks nobody anything."""
WINDOW = 32
"""Counts below the highest one that may still come, each once: UDP does not keep the order (RFC 7616 §3.4)."""
NONCES = 65_536
"""Nonces whose counts are kept; the oldest go, and with them all that are as old are stale."""

SHA256, MD5 = b"SHA-256", b"MD5"

SALT = 5
"""Bytes of chance in a nonce, so that two of one second are two."""

_HEX8 = re.compile(rb"[0-9A-Fa-f]{8}").match
_NONCE = re.compile(rb"[0-9A-Za-z_-]{24}").fullmatch


class Verdict(Enum):
    PROVEN = "proven"
    STALE = "stale"
    """The password is right, the nonce is old or was used with this count."""
    WRONG = "wrong"
    """No answer for this realm, or one that proves nothing."""


@dataclass(slots=True)
class _Counts:
    """Which counts of a nonce were used."""

    highest: int = 0
    seen: int = 0
    """Bit n: `highest - n` was used."""

    def use(self, count: int) -> bool:
        """Use a count; False when it was used, or is too far behind to tell."""
        ahead = count - self.highest
        if ahead > 0:
            self.seen = ((self.seen << ahead) | 1) & ((1 << WINDOW) - 1) if ahead < WINDOW else 1
            self.highest = count
            return True
        bit = 1 << -ahead
        if -ahead >= WINDOW or self.seen & bit:
            return False
        self.seen |= bit
        return True


@dataclass(slots=True)
class Answer:
    """What one Authorization line says, for our realm."""

    username: bytes
    fields: dict[bytes, bytes] = field(repr=False)


class Authenticator:
    """Challenges and checks.  `key` is secret, `salt()` gives bytes of chance in hex, new with each call."""

    def __init__(self, key: bytes, salt: Callable[[], bytes]) -> None:
        self._key = key
        self._salt = salt
        self._decoy = Credentials(b"", password=salt() + salt())
        self._counts: dict[bytes, _Counts] = {}
        self._floor = -1.0
        """Nonces made before have lost their counts."""

    def challenge(
        self, realm: bytes, now: float, *, stale: bool = False, md5_only: bool = False, room: int | None = None
    ) -> tuple[bytes, ...]:
        """Lines of WWW-Authenticate, the one that we like best first (RFC 8760 §2.3).

        `md5_only`: what is stored is an MD5 HA1, which answers nothing else, or the device knows nothing else.
        `room`: bytes that they may have with their line ends.  Where both do not fit it is MD5, which every device
        knows, and at last as short as one can be: no algorithm means MD5 too (RFC 7616 §3.3).
        """
        nonce = self._nonce(now, bytes.fromhex(self._salt().decode()))
        opaque, again = self._opaque(realm), b"stale=true, " if stale else b""
        offers = [
            tuple([
                b'WWW-Authenticate: Digest realm=%b, nonce="%b", opaque="%b", %balgorithm=%b, qop="auth"'
                % (quote(realm), nonce, opaque, again, algorithm)
                for algorithm in algorithms
            ])
            for algorithms in ((SHA256, MD5), (MD5,))
        ]
        offers.append((b'WWW-Authenticate: Digest realm=%b,nonce="%b",%bqop="auth"' % (quote(realm), nonce, again),))
        for lines in offers[md5_only:-1]:
            if room is None or sum([len(line) + 2 for line in lines]) <= room:
                return lines
        return offers[-1]

    def answer_of(self, lines: list[bytes], realm: bytes) -> Answer | None:
        """The first of these values of Authorization that answers a Digest challenge of this realm."""
        for line in lines:
            scheme, _, rest = line.strip().partition(b" ")
            fields = parameters_of(rest) if scheme.lower() == b"digest" else {}
            if fields.get(b"realm") == realm:
                return Answer(fields.get(b"username", b""), fields)
        return None

    def check(
        self, answer: Answer, credentials: Credentials | None, method: bytes, uri: bytes, now: float,
    ) -> Verdict:
        """Say whether an answer proves `credentials`; None, for a user who is none, takes as long and is never proven.

        `uri` is the Request-URI: an answer made for another one is none (RFC 7616 §3.4.6).
        """
        fields = answer.fields
        algorithm = fields.get(b"algorithm", MD5).upper()
        nonce, count = fields.get(b"nonce", b""), fields.get(b"nc", b"")
        known = credentials if credentials is not None else self._decoy
        if (
            algorithm not in (SHA256, MD5) or not known.fits(algorithm) or fields.get(b"uri") != uri
            or fields.get(b"qop", b"").lower() != b"auth" or not _is_count(count) or not fields.get(b"cnonce")
        ):  # fmt: skip
            return Verdict.WRONG
        challenge = Challenge(fields[b"realm"], nonce, None, algorithm, algorithm, False, b"auth", False)
        expected = response(challenge, known, method, uri, nc=count, cnonce=fields[b"cnonce"])
        if not hmac.compare_digest(expected, fields.get(b"response", b"").lower()) or credentials is None:
            return Verdict.WRONG
        return Verdict.PROVEN if self._use(nonce, int(count, 16), now) else Verdict.STALE

    def _use(self, nonce: bytes, count: int, now: float) -> bool:
        """Whether a nonce is ours, young, and not yet used with this count."""
        made = _time_of(nonce)
        if made is None or not hmac.compare_digest(self._nonce(made, _salt_of(nonce)), nonce):
            return False
        if not now - LIFETIME <= made <= now + 1 or made < self._floor:
            return False
        counts = self._counts.get(nonce)
        if counts is None:
            self._make_room(now)
            counts = self._counts[nonce] = _Counts()
        return counts.use(count)

    def _make_room(self, now: float) -> None:
        """Let go of nonces that are too old by now, and of the oldest where they are too many."""
        while self._counts:
            oldest = next(iter(self._counts))
            made = _time_of(oldest) or 0.0
            full = len(self._counts) >= NONCES
            if not full and made >= now - LIFETIME:
                return
            if full:
                self._floor = max(self._floor, made + 1)
            del self._counts[oldest]

    def _nonce(self, at: float, salt: bytes) -> bytes:
        """24 characters: short enough that a challenge over UDP need not be longer than a REGISTER."""
        text = (int(at) & 0xFFFFFFFF).to_bytes(4, "big") + salt[:SALT]
        return urlsafe_b64encode(text + hmac.new(self._key, text, hashlib.sha256).digest()[:9])

    def _opaque(self, realm: bytes) -> bytes:
        return hmac.new(self._key, b"opaque " + realm, hashlib.sha256).hexdigest()[:16].encode()


def _time_of(nonce: bytes) -> float | None:
    if _NONCE(nonce) is None:
        return None
    return float(int.from_bytes(urlsafe_b64decode(nonce)[:4], "big"))


def _salt_of(nonce: bytes) -> bytes:
    return urlsafe_b64decode(nonce)[4 : 4 + SALT]


def _is_count(text: bytes) -> bool:
    return len(text) == 8 and _HEX8(text) is not None and text != b"00000000"
