"""Digest credentials for a challenge (RFC 7616, RFC 2617, RFC 2069; several challenges: RFC 8760 §2.4; RFC 3261 §22).

Bytes in, bytes out.  Does not keep nonces between exchanges, does not check credentials, and never answers Basic.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sipengine.exceptions import ChallengeUnsupported

Hash = Callable[[bytes], bytes]


def _hex(name: str) -> Hash:
    def digest(data: bytes) -> bytes:
        return hashlib.new(name, data, usedforsecurity=False).hexdigest().encode()

    return digest


#: Canonical algorithm → hash.  SHA-512/256 comes with OpenSSL and may be missing; then it counts as unsupported.
ALGORITHMS: dict[bytes, Hash] = {
    b"MD5": _hex("md5"),
    b"SHA-256": _hex("sha256"),
    **({b"SHA-512-256": _hex("sha512_256")} if "sha512_256" in hashlib.algorithms_available else {}),
}

# One parameter and the separators before it.  Commas may be missing or doubled (both are met in the field).
# Linear: each alternative begins with a different byte.
_PARAMETER = re.compile(rb'[\s,]*([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,"]*)', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One Digest challenge that we can answer."""

    realm: bytes
    """Unescaped, as it is hashed."""
    nonce: bytes
    opaque: bytes | None
    algorithm: bytes
    """Canonical, without ``-sess``."""
    algorithm_seen: bytes | None
    """As written, because it is echoed; None when absent (then it must not be invented)."""
    sess: bool
    qop: bytes
    """``auth``, ``auth-int`` or empty (RFC 2069)."""
    stale: bool
    userhash: bool = False
    proxy: bool = False
    """From Proxy-Authenticate: answered with Proxy-Authorization."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an account proves itself with; `ha1` is the hash of ``user:realm:password``, and its length says whether it
    serves MD5 challenges (32 hex digits) or those of SHA-256 (64).
    """

    username: bytes
    password: bytes = field(default=b"", repr=False)
    ha1: bytes = field(default=b"", repr=False)
    realm: bytes = b""
    """The only realm they answer; empty: any."""
    weakest: bytes = b""
    """Weakest algorithm that they answer, ``MD5`` or ``SHA-256``; empty: as strong as the realm was before
    (`uac.strength`).
    """
    empty: bool = False
    """An empty password is meant, and not that there is none."""

    def __bool__(self) -> bool:
        return bool(self.password or self.ha1) or self.empty

    def fits(self, algorithm: bytes) -> bool:
        return bool(self.password) or self.empty or self.has_ha1(algorithm)

    def has_ha1(self, algorithm: bytes) -> bool:
        return bool(self.ha1) and algorithm == (b"SHA-256" if len(self.ha1) == 64 else b"MD5")

    def answers(self, challenge: Challenge) -> bool:
        return self.realm in (b"", challenge.realm) and self.fits(challenge.algorithm)


def parse_challenge(value: bytes, *, proxy: bool = False) -> Challenge:
    """Read the value of one WWW-Authenticate or Proxy-Authenticate header.

    Raises ChallengeUnsupported for what we cannot answer.
    """
    scheme, _, rest = value.strip().partition(b" ")
    if scheme.lower() != b"digest":
        raise ChallengeUnsupported(f"The scheme {scheme[:20].decode('latin-1')!r} is not Digest.")
    found = parameters_of(rest)
    if b"realm" not in found or not found.get(b"nonce"):
        raise ChallengeUnsupported("The challenge has no realm or no nonce.")
    seen = found.get(b"algorithm")
    canonical = b"MD5" if seen is None else seen.upper()
    sess = canonical.endswith(b"-SESS")
    canonical = canonical.removesuffix(b"-SESS")
    if canonical not in ALGORITHMS:
        raise ChallengeUnsupported(f"The algorithm {(seen or b'')[:20].decode('latin-1')!r} is not known.")
    offered = found.get(b"qop")
    qop = b""
    if offered is not None and (names := offered.replace(b",", b" ").lower().split()):
        # RFC 7616 §3.4.3: auth-int protects the body too, but every server that offers both takes auth.
        qop = b"auth" if b"auth" in names else b"auth-int" if b"auth-int" in names else b"?"
    if qop == b"?":
        raise ChallengeUnsupported("The challenge offers no known quality of protection.")
    return Challenge(
        realm=found[b"realm"],
        nonce=found[b"nonce"],
        opaque=found.get(b"opaque"),
        algorithm=canonical,
        algorithm_seen=seen,
        sess=sess,
        qop=qop,
        stale=found.get(b"stale", b"").lower() == b"true",
        userhash=found.get(b"userhash", b"").lower() == b"true",
        proxy=proxy,
    )


def parameters_of(text: bytes) -> dict[bytes, bytes]:
    """Read what stands behind the scheme: names in lower case, values unescaped; of equal names the first holds."""
    found: dict[bytes, bytes] = {}
    at = 0
    while (match := _PARAMETER.match(text, at)) is not None:
        at = match.end()
        value = match[2]
        if value[:1] == b'"':
            value = value[1:-1]
            if value.find(b"\\") >= 0:
                value = _ESCAPED.sub(rb"\1", value)
        found.setdefault(match[1].lower(), value)
    return found


def realm_of(line: bytes) -> bytes:
    """Realm in a line of Authorization or Proxy-Authorization, b"" without one."""
    value = line.partition(b":")[2].strip().partition(b" ")[2]
    at = 0
    while (match := _PARAMETER.match(value, at)) is not None:
        at = match.end()
        if match[1].lower() == b"realm":
            return _ESCAPED.sub(rb"\1", match[2][1:-1]) if match[2][:1] == b'"' else match[2]
    return b""


def choose(www: Iterable[bytes], proxy: Iterable[bytes], credentials: Credentials) -> list[Challenge]:
    """Pick the challenges to answer: per realm the topmost that we support and have the means for (RFC 8760 §2.4)."""
    return [
        challenge
        for challenge, _ in pair(www, proxy, lambda found: credentials if credentials.fits(found.algorithm) else None)
    ]


FindCredentials = Callable[[Challenge], "Credentials | None"]


def pair(
    www: Iterable[bytes], proxy: Iterable[bytes], find: FindCredentials
) -> list[tuple[Challenge, Credentials]]:
    """As `choose`, with the credentials that `find` has for each challenge."""
    chosen: dict[tuple[bool, bytes], tuple[Challenge, Credentials]] = {}
    for values, is_proxy in ((www, False), (proxy, True)):
        for value in values:
            try:
                challenge = parse_challenge(value, proxy=is_proxy)
            except ChallengeUnsupported:
                continue
            if (is_proxy, challenge.realm) not in chosen and (credentials := find(challenge)) is not None:
                chosen[is_proxy, challenge.realm] = challenge, credentials
    return list(chosen.values())


def response(
    challenge: Challenge, credentials: Credentials, method: bytes, uri: bytes,
    *, nc: bytes = b"", cnonce: bytes = b"", body: bytes = b"",
) -> bytes:
    """Compute request-digest (RFC 7616 §3.4.1; without qop RFC 2069)."""
    h = ALGORITHMS[challenge.algorithm]
    if credentials.has_ha1(challenge.algorithm):
        ha1 = credentials.ha1.lower()
    else:
        ha1 = h(credentials.username + b":" + challenge.realm + b":" + credentials.password)
    if challenge.sess:
        # RFC 7616 §3.4.2: the inner digest enters as its hex text.
        ha1 = h(ha1 + b":" + challenge.nonce + b":" + cnonce)
    a2 = method + b":" + uri
    if challenge.qop == b"auth-int":
        a2 += b":" + h(body)
    if challenge.qop:
        return h(b":".join((ha1, challenge.nonce, nc, cnonce, challenge.qop, h(a2))))
    return h(ha1 + b":" + challenge.nonce + b":" + h(a2))


def answer(
    challenge: Challenge, credentials: Credentials, method: bytes, uri: bytes,
    *, nc: int = 1, cnonce: bytes, body: bytes = b"",
) -> tuple[bytes, bytes]:
    """Make the header (name, value) that answers `challenge`; `uri` is the Request-URI exactly as it leaves."""
    count = b"%08x" % nc
    username = credentials.username
    if challenge.userhash:
        username = ALGORITHMS[challenge.algorithm](username + b":" + challenge.realm)
    parts = [
        b"username=" + quote(username),
        b"realm=" + quote(challenge.realm),
        b"nonce=" + quote(challenge.nonce),
        b"uri=" + quote(uri),
        b'response="' + response(challenge, credentials, method, uri, nc=count, cnonce=cnonce, body=body) + b'"',
    ]
    if challenge.algorithm_seen is not None:
        parts.append(b"algorithm=" + challenge.algorithm_seen)
    if challenge.opaque is not None:
        parts.append(b"opaque=" + quote(challenge.opaque))
    if challenge.qop:
        parts += [b"qop=" + challenge.qop, b"nc=" + count]
    if challenge.qop or challenge.sess:
        parts.append(b'cnonce="' + cnonce + b'"')
    if challenge.userhash:
        parts.append(b"userhash=true")
    return (b"Proxy-Authorization" if challenge.proxy else b"Authorization"), b"Digest " + b", ".join(parts)


def quote(text: bytes) -> bytes:
    """A quoted-string (RFC 3261 §25.1)."""
    # Line breaks cannot come from a parsed header, but a row could hold them: they must not end our header line.
    text = text.replace(b"\r", b"").replace(b"\n", b"")
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
