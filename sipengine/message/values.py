"""Values inside header lines: name-addr, Via, CSeq, parameters, lists (RFC 3261 §20, §25.1).

Fast functions work on a whole line and return bytes; the classes are for those who want everything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sipengine.exceptions import ParseError
from sipengine.message.fields import is_token
from sipengine.message.uri import SipUri, split_host_port

MAX_CSEQ = 2**31 - 1
# No possessive groups: Python 3.11 before 3.11.5, Debian's among them, matches too much with them. Nothing here can be
# read in two ways, so no text makes it try twice.
_QUOTED = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
QUOTED = re.compile(_QUOTED, re.DOTALL)
"""A quoted string."""
_FIRST = re.compile(rb'(?:[^",]+|%b)*' % _QUOTED, re.DOTALL)


def split_list(value: bytes) -> list[bytes]:
    """Split at top-level commas; quotes, escapes and <> are respected."""
    if value.find(b",") < 0:
        return [value]
    if b'"' not in value and b"<" not in value:
        return [part.strip() for part in value.split(b",")]
    parts: list[bytes] = []
    begin = i = 0
    quoted = angle = False
    while i < len(value):
        c = value[i]
        if quoted:
            if c == 92:
                i += 1
            elif c == 34:
                quoted = False
        elif c == 34:
            quoted = True
        elif c == 60:
            angle = True
        elif c == 62:
            angle = False
        elif c == 44 and not angle:
            parts.append(value[begin:i].strip())
            begin = i + 1
        i += 1
    parts.append(value[begin:].strip())
    return parts


def first_value(line: bytes) -> bytes:
    """What stands before the first comma that is not quoted; ParseError where a quote is not closed."""
    match = _FIRST.match(line)
    first = match[0] if match is not None else b""
    if line[len(first) : len(first) + 1] == b'"':
        raise ParseError("a quoted string has no end")
    return first


def split_params(text: bytes) -> list[tuple[bytes, bytes | None]]:
    """`;a;b=c;d="x;y"` → names in lower case with their values as they stand (None without '=')."""
    params: list[tuple[bytes, bytes | None]] = []
    for part in _split_semicolons(text):
        name, equals, value = part.partition(b"=")
        name = name.strip().lower()
        if name:
            params.append((name, value.strip() if equals else None))
    return params


def _split_semicolons(text: bytes) -> list[bytes]:
    if b'"' not in text:
        return text.split(b";")
    parts: list[bytes] = []
    begin = i = 0
    quoted = False
    while i < len(text):
        c = text[i]
        if quoted:
            if c == 92:
                i += 1
            elif c == 34:
                quoted = False
        elif c == 34:
            quoted = True
        elif c == 59:
            parts.append(text[begin:i])
            begin = i + 1
        i += 1
    parts.append(text[begin:])
    return parts


def param(text: bytes, name: bytes) -> bytes | None:
    """Value of the first parameter of that name (b"" for a flag), None when absent."""
    for key, value in split_params(text):
        if key == name:
            return value or b""
    return None


def params_at(line: bytes) -> int:
    """Where the header parameters of a From, To or Contact line begin (behind '>' or at ';'; the line's end without
    any).

    Works on a whole line or on a value.  Quotes are closed first, so a tag in a display name or in a URI is never
    taken.
    """
    quote = line.find(b'"')
    angle = line.find(b"<")
    if quote >= 0 and (quote < angle or (angle < 0 and b";" not in line[:quote])):
        quoted = QUOTED.match(line, quote)
        if quoted is None:
            raise ParseError("a quoted string has no end")
        angle = line.find(b"<", quoted.end())
        if angle < 0:
            raise ParseError("a display name has no URI behind it")
    if angle < 0:
        end = line.find(b";")
        return len(line) if end < 0 else end
    end = line.find(b">", angle)
    if end < 0:
        raise ParseError("a '<' has no '>'")
    return end + 1


def tag_of(line: bytes) -> bytes:
    """Tag of a From or To line, b"" without one."""
    tag = line[line.rfind(b";tag=") + 5 :]
    if tag.isalnum() and len(tag) < len(line) - 4:
        return tag  # nothing behind it can close a quoted string or a '<', so it stands among the header parameters
    if line.find(b'"') < 0 and line.lower().find(b"tag") < 0:
        return b""
    return tag_in(line[params_at(line) :])


def tag_in(params: bytes) -> bytes:
    """Tag among header parameters."""
    if params[:5] == b";tag=":
        end = params.find(b";", 5)
        return (params[5:] if end < 0 else params[5:end]).strip()
    return param(params, b"tag") or b"" if params else b""


def name_addr_of(line: bytes, end: int | None = None) -> bytes:
    """name-addr (or addr-spec) of a From, To or Contact line: behind the colon, without header parameters, stripped.

    `end` is what `params_at` said of this line, where somebody asked it before.
    """
    i = line.find(b":") + 1
    return line[i : params_at(line) if end is None else end].strip()


def uri_of(line: bytes, end: int | None = None) -> bytes:
    """URI of a name-addr, of a whole line or of its value; `end` as for `name_addr_of`."""
    if end is None:
        end = params_at(line)
    if line[end - 1 : end] == b">":
        return line[line.rfind(b"<", 0, end) + 1 : end - 1].strip()
    if line.find(b"<") >= 0:
        raise ParseError("a '<' has no '>'")
    text = line[:end].strip()
    name, colon, rest = text.partition(b":")
    if colon and b":" in rest and name.strip().lower() not in (b"sip", b"sips", b"tel"):
        return rest.strip()
    return text


def parse_cseq(value: bytes) -> tuple[int, bytes]:
    parts = value.split()
    if len(parts) != 2 or not parts[0].isdigit() or len(parts[0]) > 16:
        raise ParseError("CSeq is not a number and a method")
    number = int(parts[0])
    if number > MAX_CSEQ:
        raise ParseError("CSeq is 2**31 or more")
    return number, parts[1]


@dataclass(frozen=True, slots=True)
class NameAddr:
    """A From, To, Contact, Route … value."""

    display: bytes
    """As it stands, quotes included; b"" without one."""
    uri: bytes
    params: bytes
    """Header parameters with their leading ';'."""

    @classmethod
    def parse(cls, value: bytes) -> NameAddr:
        end = params_at(value)
        params = value[end:].strip()
        if value[end - 1 : end] == b">":
            angle = value.rfind(b"<", 0, end)
            return cls(value[:angle].strip(), value[angle + 1 : end - 1].strip(), params)
        if b"<" in value:
            raise ParseError("a '<' has no '>'")
        return cls(b"", value[:end].strip(), params)

    @property
    def tag(self) -> bytes:
        return self.param(b"tag") or b""

    @property
    def sip_uri(self) -> SipUri:
        return SipUri.parse(self.uri)

    def param(self, name: bytes) -> bytes | None:
        return param(self.params, name)


@dataclass(frozen=True, slots=True)
class Via:
    """One Via value."""

    transport: bytes
    """Upper case."""
    host: bytes
    port: int | None
    params: tuple[tuple[bytes, bytes | None], ...]

    @classmethod
    def parse(cls, value: bytes) -> Via:
        sent, semicolon, rest = value.partition(b";")
        protocol, _, sent_by = sent.strip().rpartition(b" ")
        parts = [part.strip().upper() for part in protocol.split(b"/")]
        if len(parts) != 3 or parts[0] != b"SIP" or parts[1] != b"2.0":
            # RFC 3261 §25.1: white space around the slashes and the colon of sent-by is legal
            words = sent.replace(b" ", b"").replace(b"\t", b"")
            slash = words.split(b"/", 2)
            if len(slash) != 3 or slash[0].upper() != b"SIP" or slash[1] != b"2.0":
                raise ParseError("Via is not SIP/2.0")
            tail = sent.partition(b"/")[2].partition(b"/")[2].strip()
            transport, _, sent_by = tail.partition(b" ")
            parts = [b"SIP", b"2.0", transport.strip().upper()]
        if not is_token(parts[2]):
            raise ParseError("the transport of Via is no token")
        host, port = split_host_port(sent_by.replace(b" ", b"").replace(b"\t", b""))
        if not host:
            raise ParseError("Via has no sent-by")
        return cls(parts[2], host, port, tuple(split_params(rest)) if semicolon else ())

    def param(self, name: bytes) -> bytes | None:
        for key, value in self.params:
            if key == name:
                return value or b""
        return None

    @property
    def branch(self) -> bytes:
        return self.param(b"branch") or b""

    @property
    def received(self) -> bytes | None:
        return self.param(b"received")

    @property
    def rport(self) -> int | None:
        """Number in a filled rport, else None."""
        value = self.param(b"rport")
        return int(value) if value and value.isdigit() else None
