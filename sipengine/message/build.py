"""Requests and responses of our own (RFC 3261 §8.1.1, §8.2.6).  Forwarded messages are edited, never built."""

from __future__ import annotations

from collections.abc import Iterable

from sipengine.exceptions import ParseError
from sipengine.message.fields import CALL_ID, CANONICAL, CSEQ, FROM, TO, VIA
from sipengine.message.message import Message
from sipengine.message.values import tag_of

REASONS = {
    100: b"Trying", 180: b"Ringing", 200: b"OK", 400: b"Bad Request", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 408: b"Request Timeout", 416: b"Unsupported URI Scheme", 420: b"Bad Extension",
    480: b"Temporarily Unavailable", 481: b"Call/Transaction Does Not Exist", 482: b"Loop Detected",
    483: b"Too Many Hops", 486: b"Busy Here", 487: b"Request Terminated", 500: b"Server Internal Error",
    501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Server Time-out",
    505: b"Version Not Supported", 513: b"Message Too Large", 603: b"Decline",
}  # fmt: skip

COPIED = (VIA, FROM, TO, CALL_ID, CSEQ)
"""What a response copies from its request (§8.2.6.2), Via in order."""


def reason_for(status: int) -> bytes:
    return REASONS.get(status, b"")


def request(method: bytes, ruri: bytes, headers: Iterable[tuple[bytes, bytes] | bytes], body: bytes = b"") -> Message:
    """Build a request from `(name, value)` pairs or whole lines; Content-Length is added.

    Raises ParseError when a value would break out of its line (header injection).
    """
    if not method or b" " in method or not ruri or b" " in ruri or b"\r" in ruri or b"\n" in ruri:
        raise ParseError("method or Request-URI does not fit into a request line")
    message = Message(b"%b %b SIP/2.0" % (method, ruri), [], [], body)
    for header in headers:
        message.append(header if isinstance(header, bytes) else b"%b: %b" % header)
    message.append(b"Content-Length: %d" % len(body))
    return message


def head_of(message: Message) -> list[bytes]:
    """Lines of a request that each of its responses copies."""
    return [line for key, line in zip(message.keys, message.lines, strict=True) if key in COPIED]


def response(
    head: list[bytes], status: int, reason: bytes = b"", to_tag: bytes = b"", extra: Iterable[bytes] = (), body: bytes
    = b"" ) -> bytes:
    """Wire form of our own response; `to_tag` is added where the request's To has none (§8.2.6.2)."""
    lines = head
    if to_tag:
        lines = [_tagged(line, to_tag) if CANONICAL[line.partition(b":")[0]] is TO else line for line in head]
    if extra:
        lines = [*lines, *extra]
    return b"SIP/2.0 %d %b\r\n%b\r\nContent-Length: %d\r\n\r\n%b" % (
        status, reason or reason_for(status), b"\r\n".join(lines), len(body), body
    )


def _tagged(line: bytes, tag: bytes) -> bytes:
    try:
        return line if tag_of(line) else line + b";tag=" + tag
    except ParseError:
        return line  # the very line that a 400 complains about
