"""Whether a request may be looked at (RFC 3261 §16.3, §8.1.1), and the answer to what is no proper request."""

from __future__ import annotations

from sipengine.exceptions import BadExtension, ParseError, TooManyHops, UnsupportedUriScheme
from sipengine.message.build import COPIED, response
from sipengine.message.fields import CANONICAL, CSEQ, MAX_FORWARDS, ONCE, PROXY_REQUIRE, VIA
from sipengine.message.message import Message, value_of
from sipengine.message.uri import KNOWN_SCHEMES, SipUri, scheme_of
from sipengine.message.values import MAX_CSEQ, split_list

HOPS = {b"Max-Forwards: %d" % n: b"Max-Forwards: %d" % (n - 1) for n in range(1, 256)}


def split_request_line(start: bytes) -> tuple[bytes, bytes]:
    """Method and Request-URI; ParseError with the status to answer."""
    parts = start.split(b" ")
    if len(parts) != 3:
        raise ParseError("the request line has not three parts")
    method, ruri, version = parts
    if version != b"SIP/2.0" and version.upper() != b"SIP/2.0":
        if version[:4].upper() == b"SIP/":
            raise ParseError("the version is not SIP/2.0", 505)
        raise ParseError("the request line does not end in a SIP version")
    return method, ruri


def check_once(keys: list[bytes]) -> None:
    """From, To, Call-ID, CSeq, Max-Forwards and Content-Length come once (RFC 4475 §3.3.8)."""
    for key in ONCE:
        if keys.count(key) > 1:
            raise ParseError(f"{key.decode()} comes more than once")


def check_cseq(line: bytes, method: bytes) -> bytes:
    """The CSeq number as bytes; its method must be the request's (§8.1.1.5)."""
    words = line.partition(b":")[2].split()
    if len(words) != 2 or not words[0].isdigit() or len(words[0]) > 16 or int(words[0]) > MAX_CSEQ:
        raise ParseError("CSeq is not a number below 2**31 and a method")
    if words[1] != method:
        raise ParseError("the method of CSeq is not the request's")
    return words[0]


def clean_ruri(ruri: bytes) -> bytes:
    """The Request-URI as it may go on: header parts are cut off, they must never become header fields (RFC 4475
    §3.1.1.4).

    Raises ParseError (400) or UnsupportedUriScheme (416).
    """
    if ruri[:1] == b"<":
        raise ParseError("the Request-URI stands in <>")
    scheme = scheme_of(ruri)
    if scheme not in KNOWN_SCHEMES:
        if not scheme or b":" not in ruri:
            raise ParseError("the Request-URI has no scheme")
        raise UnsupportedUriScheme("the scheme of the Request-URI is unknown")
    if scheme not in (b"sip", b"sips"):
        return ruri
    uri = SipUri.parse(ruri)
    if uri.headers:
        return ruri[: len(ruri) - len(uri.headers)]
    return ruri


def count_hop(message: Message) -> None:
    """Max-Forwards one less, or 70 (§16.3 step 3, §16.6 step 3); TooManyHops at 0."""
    keys = message.keys
    if MAX_FORWARDS not in keys:
        message.lines.append(b"Max-Forwards: 70")
        keys.append(MAX_FORWARDS)
        return
    i = keys.index(MAX_FORWARDS)
    line = HOPS.get(message.lines[i])
    if line is None:
        value = value_of(message.lines[i])
        if not value.isdigit() or len(value) > 6:
            raise ParseError("Max-Forwards is no number")
        left = int(value)
        if left > 255:
            raise ParseError("Max-Forwards is above 255")
        if left == 0:
            raise TooManyHops("Max-Forwards is 0")
        line = b"Max-Forwards: %d" % (left - 1)
    message.lines[i] = line


def check_proxy_require(message: Message) -> None:
    """We support no option tag (§16.3 step 5); BadExtension names them."""
    tags = b", ".join(message.get_list(PROXY_REQUIRE))
    if tags:
        raise BadExtension(tags.decode(errors="replace"))


def salvage(data: bytes) -> Message | None:
    """What a 400 must copy out of a broken request (§8.2.6.2); None when it cannot be answered, or is an ACK."""
    head = data.replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    lines = head.split(b"\n")
    start = lines.pop(0)
    if start[:4].upper() in (b"ACK ", b"SIP/"):
        return None
    message = Message(start, [], [])
    keep = False
    for line in lines[:256]:
        if line[:1] in (b" ", b"\t"):
            if keep:
                message.lines[-1] += b"\r\n" + line
            continue
        try:
            key = CANONICAL[line.partition(b":")[0]]
        except ParseError:
            keep = False
            continue
        keep = key in COPIED and (key is VIA or key not in message.keys)
        if keep:
            message.lines.append(line)
            message.keys.append(key)
    if any(key not in message.keys for key in COPIED) or b"\0" in head:
        return None
    if value_of(message.line(CSEQ)).upper().endswith(b"ACK") or not split_list(value_of(message.line(VIA)))[0]:
        return None
    return message


def refusal(message: Message, error: ParseError, tag: bytes) -> bytes:
    """Stateless answer to a broken request."""
    reason = b"Bad Request" if error.status == 400 else b""
    if reason and not reason.endswith(b")"):
        reason += b" (" + str(error).encode("ascii", "replace") + b")"
    head = [line for key, line in zip(message.keys, message.lines, strict=True) if key in COPIED]
    return response(head, error.status, reason, tag)
