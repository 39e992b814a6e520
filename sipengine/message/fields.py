"""Canonical names of header fields: lower case, compact forms spelled out (RFC 3261 §7.3.3, §20).

A name that we know is one shared object, so that `list.index` over a message's names compares pointers.
"""

from __future__ import annotations

from sipengine.exceptions import ParseError

VIA = b"via"
FROM = b"from"
TO = b"to"
CALL_ID = b"call-id"
CSEQ = b"cseq"
ROUTE = b"route"
RECORD_ROUTE = b"record-route"
MAX_FORWARDS = b"max-forwards"
CONTENT_LENGTH = b"content-length"
CONTACT = b"contact"
PROXY_REQUIRE = b"proxy-require"
AUTHORIZATION = b"authorization"
PROXY_AUTHORIZATION = b"proxy-authorization"

COMPACT = {
    b"a": b"accept-contact",
    b"b": b"referred-by",
    b"c": b"content-type",
    b"d": b"request-disposition",
    b"e": b"content-encoding",
    b"f": FROM,
    b"i": CALL_ID,
    b"j": b"reject-contact",
    b"k": b"supported",
    b"l": CONTENT_LENGTH,
    b"m": CONTACT,
    b"n": b"identity-info",
    b"o": b"event",
    b"r": b"refer-to",
    b"s": b"subject",
    b"t": TO,
    b"u": b"allow-events",
    b"v": VIA,
    b"x": b"session-expires",
    b"y": b"identity",
}

SHARED = {
    name: name
    for name in (
        VIA, FROM, TO, CALL_ID, CSEQ, ROUTE, RECORD_ROUTE, MAX_FORWARDS, CONTENT_LENGTH, CONTACT, PROXY_REQUIRE,
        AUTHORIZATION, PROXY_AUTHORIZATION, *COMPACT.values(),
    )
}  # fmt: skip

LISTS = frozenset({
    VIA, ROUTE, RECORD_ROUTE, CONTACT, PROXY_REQUIRE, b"path", b"service-route", b"supported", b"require",
    b"unsupported", b"allow", b"accept", b"accept-encoding", b"accept-language", b"content-encoding",
    b"content-language", b"in-reply-to", b"warning", b"allow-events", b"p-asserted-identity", b"p-preferred-identity",
    b"p-associated-uri", b"diversion", b"history-info", b"error-info", b"alert-info", b"call-info", b"remote-party-id",
})  # fmt: skip
"""Fields whose grammar is a comma-separated list; no other field is ever split (RFC 3261 §7.3.1)."""

ONCE = (FROM, TO, CALL_ID, CSEQ, MAX_FORWARDS, CONTENT_LENGTH)
"""Fields that a message carries at most once (RFC 4475 §3.3.8)."""

CACHE_LIMIT = 4096
"""Every cache that a peer can fill is bounded: hostile spellings must not grow it."""
CACHE_KEY = 256
"""Bytes of a key: longer ones are worked out each time, else 4,096 of them would hold 32 MB."""

_TOKEN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-.!%*_+`'~")


def is_token(text: bytes) -> bool:
    """Whether `text` is a token (RFC 3261 §25.1)."""
    return bool(text) and _TOKEN.issuperset(text.lower())


class ContinuationLine(ParseError):
    """A folded line where a name was expected; met as an exception because it is rare."""


class _CanonicalNames(dict[bytes, bytes]):
    """Spelling on the wire → canonical name; a miss is worked out once."""

    def __missing__(self, raw: bytes) -> bytes:
        if raw[:1] in (b" ", b"\t"):
            raise ContinuationLine("continuation line")
        name = raw.strip().lower()
        if not is_token(name):
            raise ParseError("a header field name is no token")
        name = COMPACT.get(name, name)
        name = SHARED.get(name, name)
        if len(self) < CACHE_LIMIT and len(raw) <= CACHE_KEY:
            self[raw] = name
        return name


CANONICAL = _CanonicalNames()
