"""Whether a request may be looked at (RFC 3261 §16.3, §8.1.1), and the answer to what is no proper request."""

from __future__ import annotations

import re

from sipengine.exceptions import BadExtension, ParseError, TooManyHops, UnsupportedUriScheme
from sipengine.message.build import COPIED, response
from sipengine.message.fields import CANONICAL, CSEQ, MAX_FORWARDS, ONCE, PROXY_REQUIRE, VIA, is_token
from sipengine.message.message import MAX_LINES, Message, folded, value_of
from sipengine.message.uri import KNOWN_SCHEMES, SipUri, scheme_of
from sipengine.message.values import MAX_CSEQ, QUOTED, params_at, split_list, tag_in

METHODS = frozenset({
    b"INVITE", b"ACK", b"BYE", b"CANCEL", b"OPTIONS", b"REGISTER", b"PRACK", b"UPDATE", b"INFO", b"REFER", b"NOTIFY",
    b"SUBSCRIBE", b"MESSAGE", b"PUBLISH",
})
"""Those that we know by name; any other token is relayed like OPTIONS."""

_USUAL = re.compile(
    rb'(?:From|To|f|t): (?:"[^"\\]*+" ?|[A-Za-z0-9 -]*+)<[A-Za-z]++:[^<>"\x00-\x20\x7f]++>(?:;tag=([\w.-]++))?'
).fullmatch
"""Nearly every From and To; nothing in it can be read in two ways, so it is linear."""
_BARE_DISPLAY = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.!%*_+`'~ \t" + bytes(range(128, 256))
)
"""Tokens and white space; UTF-8 without quotes is met in the field, harms nobody, and stays as it is."""
_NO_URI = re.compile(rb"[\x00-\x20\x7f<>\"]").search

HOPS = {b"Max-Forwards: %d" % n: b"Max-Forwards: %d" % (n - 1) for n in range(1, 256)}


def split_request_line(start: bytes) -> tuple[bytes, bytes]:
    """Method and Request-URI; ParseError with the status to answer."""
    parts = start.split(b" ")
    if len(parts) != 3:
        raise ParseError("the request line has not three parts")
    method, ruri, version = parts
    if method not in METHODS and not is_token(method):
        raise ParseError("the method is no token")
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
    """The CSeq number as bytes; its method must be the request's (§8.1.1.5; RFC 4475 §3.1.2.18 for the 501)."""
    words = line.partition(b":")[2].split()
    if len(words) != 2 or not words[0].isdigit() or len(words[0]) > 16 or int(words[0]) > MAX_CSEQ:
        raise ParseError("CSeq is not a number below 2**31 and a method")
    if words[1] != method:
        raise ParseError("the method of CSeq is not the request's", 400 if method in METHODS else 501)
    return words[0]


def tag_of_proper(line: bytes) -> bytes:
    """Tag of a From or To line, b"" without one; ParseError where the line has not the form of §20.20 and §20.39.

    A proxy must not pass on a display name that lacks its quotes, or spaces in a URI (RFC 4475 §3.1.2.14, §3.1.2.15).
    """
    usual = _USUAL(line)
    if usual is not None:
        return usual[1] or b""
    value = value_of(line)
    end = params_at(value)
    if value[end - 1 : end] == b">":
        angle = value.rfind(b"<", 0, end)
        display, uri = value[:angle].strip(), value[angle + 1 : end - 1]
    else:
        display, uri = b"", value[:end].strip()
        if b"," in uri or b"?" in uri:
            raise ParseError("a URI with ',' or '?' needs <>")
    if display[:1] == b'"':
        if QUOTED.fullmatch(display) is None:
            raise ParseError("a display name goes on behind its quotes")
    elif not _BARE_DISPLAY.issuperset(display):
        raise ParseError("a display name needs quotes")
    if b":" not in uri or _NO_URI(uri):
        raise ParseError("a URI in From or To holds what no URI may hold")
    tag = tag_in(value[end:])
    if b'"' in tag:
        raise ParseError("a tag is a token")
    return tag


def clean_ruri(ruri: bytes) -> bytes:
    """The Request-URI as it may go on: header parts are cut off, they must never become header fields (RFC 4475
    §3.1.1.4).

    Raises ParseError (400) or UnsupportedUriScheme (416).
    """
    if _NO_URI(ruri):
        raise ParseError("the Request-URI holds what no URI may hold")
    scheme = scheme_of(ruri)
    if scheme not in KNOWN_SCHEMES:
        if not scheme or b":" not in ruri:
            raise ParseError("the Request-URI has no scheme")
        raise UnsupportedUriScheme("the scheme of the Request-URI is unknown")
    if scheme not in (b"sip", b"sips"):
        return ruri
    uri = SipUri.parse(ruri)
    if uri.headers:
        ruri = ruri[: len(ruri) - len(uri.headers)]
    if uri.param(b"method") is not None:  # §16.6 step 2: not allowed in a Request-URI (table 1)
        plain = b";".join(p for p in uri.parameters.split(b";") if p.partition(b"=")[0].strip().lower() != b"method")
        ruri = ruri[: len(ruri) - len(uri.parameters)] + plain
    return ruri


def count_hop(message: Message) -> None:
    """Max-Forwards one less, or 70 (§16.3 step 3, §16.6 step 3); TooManyHops at 0."""
    keys = message.keys
    try:
        i = keys.index(MAX_FORWARDS)
    except ValueError:
        message.lines.append(b"Max-Forwards: 70")
        keys.append(MAX_FORWARDS)
        return
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
    """What a 400 copies out of a broken request (§8.2.6.2), as far as it is there.

    None for an ACK, and without Via and CSeq, by which a client knows a response (§17.1.3): nobody would get it.
    """
    head = data.replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    start, *lines = head.split(b"\n", MAX_LINES)[:MAX_LINES]
    if start[:4].upper() in (b"ACK ", b"SIP/"):
        return None
    while lines and lines[0][:1] in (b" ", b"\t"):
        del lines[0]
    message = Message(start, [], [])
    for line in folded(lines):
        try:
            key = CANONICAL[line.partition(b":")[0]]
        except ParseError:
            continue
        if key in COPIED and line.find(b":") >= 0 and (key is VIA or key not in message.keys):
            message.lines.append(line)
            message.keys.append(key)
    if VIA not in message.keys or CSEQ not in message.keys or b"\0" in head or b"\r" in head:
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
