"""What `$uac_req(key)` reads and writes: a request from script as a value of its own (kamailio-uac c.1).

Checks what is written and makes an exchange's request of it.  Sends nothing: `send` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar

from sipengine.exceptions import ProtocolError
from sipengine.message import NameAddr, SipUri
from sipengine.message.fields import CALL_ID, CANONICAL, CONTACT, CONTENT_LENGTH, CSEQ, FROM, TO, VIA, is_token
from sipengine.message.values import MAX_CSEQ
from sipengine.transport.flow import Flow
from sipengine.uac.digest import Credentials
from sipengine.uac.pacing import Priority
from sipengine.uac.request import Headers, Outcome, Request

CSEQ_USUAL = 10
FR_INV_TIMEOUT = 120.0
"""Seconds from the first provisional answer to an INVITE to its end; tm's default."""
CONTENT_TYPE = b"content-type"
OURS = frozenset({
    VIA, FROM, TO, CALL_ID, CSEQ, CONTENT_LENGTH, b"authorization", b"proxy-authorization",
})  # fmt: skip
"""What `hdrs` may not hold, because the keys say it."""
OPENS_DIALOG = frozenset({b"INVITE", b"SUBSCRIBE", b"REFER"})
"""RFC 3261 §8.1.1.8, RFC 6665 §4.1.2.1, RFC 3515 §2.2: a Contact must be in them."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:[!#-;=?-~]+")
_DISPLAY = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[A-Za-z0-9\-.!%*_+`\'~ ]*')
_SOCKET = re.compile(r"(udp|tcp|tls|ws|wss|sctp):([^\s:\[\]]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}", re.I)
_HA1 = re.compile(r"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{64}")


def _line(text: str) -> str:
    return "holds a line break or another control character" if _CONTROL.search(text) else ""


def _word(text: str) -> str:
    return "" if text.isascii() and not re.search(r"[\x00-\x20\x7f<>\";,]", text) else "is no single word"


def _token(text: str) -> str:
    return "" if is_token(_bytes(text)) else "is no token (letters, digits and -.!%*_+`'~)"


def _method(text: str) -> str:
    if text in ("ACK", "CANCEL"):
        return f"cannot be {text}, which belongs to a transaction and is sent by it"
    return _token(text)


def _uri(text: str) -> str:
    return "" if _URI.fullmatch(text) else "is no URI, such as sip:user@example.net"


def _identity(text: str) -> str:
    """A URI, or a name-addr as From and To have it."""
    if "<" not in text:
        return _uri(text)
    if problem := _line(text):
        return problem
    try:
        value = NameAddr.parse(_bytes(text))
        uri = _text(value.uri)
    except ProtocolError:
        uri, value = "", None
    if value is None or value.params or not _DISPLAY.fullmatch(_text(value.display)):
        return 'is neither a URI nor "Name" <URI> (a tag goes into ftag or ttag)'
    return _uri(uri)


def _socket(text: str) -> str:
    return "" if _SOCKET.fullmatch(text) else "is not proto:ip:port, such as udp:192.0.2.1:5060"


def _headers(text: str) -> str:
    for number, line in enumerate(text.removesuffix("\r\n").split("\r\n"), 1):
        name, colon, value = line.partition(":")
        if _line(value.replace("\t", " ")):
            return f"has a control character in line {number}; lines end with CRLF, and a value stays on its line"
        try:
            key = CANONICAL[_bytes(name)]
        except ProtocolError:
            key = b""
        if not colon or not key:
            return f"has no `Name: value` in line {number}"
        if key in OURS:
            return f"may not hold {name.strip()}, which is made of the other keys"
    return ""


def _bytes(text: str) -> bytes:
    # Bytes that are no UTF-8 come and go as they are (PEP 383).
    return text.encode("utf-8", "surrogateescape")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


class _Text:
    """A key that holds text: checked when it is written, "" while it is not set."""

    def __init__(self, most: int, problem: Callable[[str], str] | None = None) -> None:
        self.most = most
        """In bytes; the seed's limits, but for `apasswd`, where a SHA-256 HA1 did not fit."""
        self.problem = problem
        self.name = ""

    def __set_name__(self, owner: type[UacRequest], name: str) -> None:
        self.name = name
        owner.KEYS.append(name)

    def __get__(self, request: UacRequest, owner: type[UacRequest]) -> str:
        return request._texts.get(self.name, "")

    def __set__(self, request: UacRequest, value: str | bytes | None) -> None:
        if isinstance(value, bytes):
            value = _text(value)
        if value is not None and not isinstance(value, str):
            raise TypeError(f"$uac_req({self.name}) takes text, not {type(value).__name__}")
        if not value:
            request._texts.pop(self.name, None)
            return
        # The value itself is not told: it may be a password.
        if (length := len(_bytes(value))) > self.most:
            raise ValueError(f"$uac_req({self.name}) takes {self.most} bytes, not {length}")
        if self.problem is not None and (problem := self.problem(value)):
            raise ValueError(f"$uac_req({self.name}) {problem}")
        request._texts[self.name] = value


class _Number:
    """A key that holds a number, 0 while it is not set."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.name = ""

    def __set_name__(self, owner: type[UacRequest], name: str) -> None:
        self.name = name
        owner.KEYS.append(name)

    def __get__(self, request: UacRequest, owner: type[UacRequest]) -> int:
        return request._numbers.get(self.name, 0)

    def __set__(self, request: UacRequest, value: int | None) -> None:
        if value is None:
            value = 0
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"$uac_req({self.name}) takes a number, not {type(value).__name__}")
        if not self.most:
            raise ValueError(f"$uac_req({self.name}) is a result; event_route[uac:reply] reads it")
        if not 0 <= value <= self.most:
            raise ValueError(f"$uac_req({self.name}) takes a number from 0 to {self.most}, not {value}")
        request._numbers[self.name] = value


class UacRequest:
    """What `$uac_req(key)` reads and writes.

    As attributes (`uac_req.method = "OPTIONS"`), where an unset text is "", or by name as in a script
    (`uac_req["method"]`), where it is None.  Writing None unsets a key, and `all` every key.  Writing raises TypeError
    for the wrong type and ValueError for what must not stand in a message; neither tells the value.
    """

    KEYS: ClassVar[list[str]] = ["all"]

    method = _Text(31, _method)
    ruri = _Text(1023, _uri)
    furi = _Text(1023, _identity)
    turi = _Text(1023, _identity)
    ftag = _Text(127, _token)
    ttag = _Text(127, _token)
    ouri = _Text(1023, _uri)
    hdrs = _Text(2047, _headers)
    body = _Text(32767)
    callid = _Text(127, _word)
    cseqno = _Number(MAX_CSEQ - 1000)
    """0: 10, the seed's.  Each repeat raises it, so it begins below its limit."""
    sock = _Text(1023, _socket)
    auser = _Text(127, _line)
    apasswd = _Text(127, _line)
    flags = _Number(1)
    """Bit 0: `apasswd` is an HA1."""
    evroute = _Number(2)
    """Whether the event route hears of the end: 0 never, 1 always, 2 when it is no success."""
    evparam = _Text(127, _line)
    evcode = _Number(0)
    evtype = _Number(0)
    """1: `evcode` is the far side's answer; 2: there was none, and it is 408 or 503 of our own."""
    fr_timeout = _Number(600_000)
    """Milliseconds that each target has for its final answer (an INVITE: for any answer); 0: timers B and F."""
    fr_inv_timeout = _Number(3_600_000)
    """Milliseconds from the first provisional answer to an INVITE; 0: 120 s.  Further ones do not prolong it."""

    __slots__ = ("_numbers", "_texts")

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._numbers: dict[str, int] = {}

    def get(self, key: str) -> str | int | None:
        """`apasswd` shows only whether it is set: this is what a script writes into a log."""
        self._check(key)
        if key == "all":
            return self.flags  # the seed's answer
        if key == "apasswd":
            return "***" if self.apasswd else None
        value: str | int = getattr(self, key)
        return None if value == "" else value

    def set(self, key: str, value: str | bytes | int | None) -> None:
        self._check(key)
        if key != "all":
            setattr(self, key, value)
        elif value is None:
            self._texts.clear()
            self._numbers.clear()
        else:
            raise TypeError("$uac_req(all) takes None only, which unsets every key")

    __getitem__ = get
    __setitem__ = set

    def _check(self, key: str) -> None:
        if key not in self.KEYS:
            raise KeyError(f"$uac_req has no key {key!r}; it has {', '.join(self.KEYS)}")

    def copy(self) -> UacRequest:
        copied = UacRequest()
        copied._texts.update(self._texts)
        copied._numbers.update(self._numbers)
        return copied

    def ended(self, outcome: Outcome) -> None:
        """Note how the request ended: `evcode` and `evtype`."""
        code = outcome.code or (408 if outcome.cause == "timeout" else 503)  # RFC 3261 §8.1.3.1
        self._numbers |= {"evcode": code, "evtype": 1 if outcome.code else 2}

    def __repr__(self) -> str:
        return f"<UacRequest {self.method} {self.ruri}>"

    # what is sent
    def check(self) -> None:
        """Raise ValueError where the keys together make no request."""
        if not self.method or not self.ruri:
            raise ValueError("$uac_req(method) and $uac_req(ruri) must be set before uac_req_send()")
        try:
            SipUri.parse(self.ouri or self.ruri)
        except ProtocolError:
            where = "ouri" if self.ouri else "ruri"
            raise ValueError(
                f"$uac_req({where}) is no sip: URI that says where to send; $uac_req(ouri) may name the next hop"
            ) from None
        if self.body and CONTENT_TYPE not in self._header_names():
            raise ValueError("$uac_req(body) needs a Content-Type line in $uac_req(hdrs)")
        if self.apasswd and not self.auser:
            raise ValueError("$uac_req(apasswd) is set and $uac_req(auser) is not")
        if self.flags & 1 and not _HA1.fullmatch(self.apasswd):
            raise ValueError("$uac_req(apasswd) is no HA1: 32 hex digits for MD5, 64 for SHA-256")

    def _header_lines(self) -> list[tuple[bytes, bytes]]:
        lines = self.hdrs.removesuffix("\r\n").split("\r\n") if self.hdrs else []
        pairs = [_bytes(line).partition(b":") for line in lines]
        return [(name.strip(), value.strip()) for name, _, value in pairs]

    def _header_names(self) -> frozenset[bytes]:
        return frozenset(CANONICAL[name] for name, _ in self._header_lines())

    def request(self, entropy: Callable[[int], bytes]) -> Request:
        """What an exchange sends: the same Call-ID and From tag in each repeat, CSeq one higher."""
        method, ruri = _bytes(self.method), _bytes(self.ruri)
        from_ = _name_addr(self.furi or self.ruri) + b";tag=" + (_bytes(self.ftag) or entropy(8).hex().encode())
        to = _name_addr(self.turi or self.ruri) + (b";tag=" + _bytes(self.ttag) if self.ttag else b"")
        call_id = _bytes(self.callid) or entropy(16).hex().encode()
        number = (self.cseqno or CSEQ_USUAL) - 1
        lines = self._header_lines()
        with_contact = method in OPENS_DIALOG and CONTACT not in self._header_names()

        def headers(flow: Flow) -> Headers:
            nonlocal number
            number += 1
            made = [(b"From", from_), (b"To", to), (b"Call-ID", call_id), (b"CSeq", b"%d %b" % (number, method))]
            if with_contact:
                by = b"" if flow.listener.transport == "udp" else b";transport=" + flow.listener.transport.encode()
                made.append((b"Contact", b"<sip:%b%b>" % (flow.sent_by, by)))
            return made + lines

        secret, is_ha1 = _bytes(self.apasswd), bool(self.flags & 1)
        return Request(
            method, ruri, self._route(), headers,
            Credentials(_bytes(self.auser), b"" if is_ha1 else secret, secret if is_ha1 else b""),
            socket=self.sock, priority=Priority.OPERATOR, body=_bytes(self.body),
            timeout=self.fr_timeout / 1000, invite_timeout=self.fr_inv_timeout / 1000 or FR_INV_TIMEOUT,
        )  # fmt: skip

    def _route(self) -> bytes:
        """Where it goes; a socket of another transport than UDP says so for a URI that does not."""
        uri, transport = _bytes(self.ouri or self.ruri), self.sock.partition(":")[0].lower()
        parsed = SipUri.parse(uri)
        if not self.sock or transport == "udp" or parsed.scheme != b"sip" or parsed.param(b"transport"):
            return uri
        before, question, headers = uri.partition(b"?")
        return before + b";transport=" + transport.encode() + question + headers


def _name_addr(text: str) -> bytes:
    return _bytes(text) if "<" in text else b"<%b>" % _bytes(text)
