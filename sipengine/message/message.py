"""SIP messages as bytes: a start line, header lines left as they came, a body (RFC 3261 §7, §18.3, §25).

An edit replaces whole lines; what nobody edits leaves byte-identical.  Values are parsed only when somebody asks for
them. Bodies are never looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from sipengine.exceptions import ParseError
from sipengine.message.fields import (
    CACHE_KEY,
    CACHE_LIMIT,
    CALL_ID,
    CANONICAL,
    CONTACT,
    CONTENT_LENGTH,
    CSEQ,
    FROM,
    LISTS,
    ROUTE,
    TO,
    VIA,
    ContinuationLine,
)
from sipengine.message.values import NameAddr, Via, first_value, parse_cseq, split_list

MAX_MESSAGE = 65536
MAX_HEAD = 32768
MAX_LINE = 8192
MAX_LINES = 256
MAX_VIAS = 70
MAX_ROUTES = 64
_BREAKS = (b"\r", b"\n")
MAX_PARAMETERS = 1000
"""Over all header lines: what is taken apart anywhere stays small."""
_ROOMY = 2 * MAX_PARAMETERS
"""A shorter header section cannot hold more parameters than allowed, so ordinary messages are not counted."""


class Message:
    """A request or a response.  `keys[i]` is the canonical name of `lines[i]`; both lists are edited together."""

    __slots__ = ("body", "keys", "lines", "start")

    def __init__(self, start: bytes, lines: list[bytes], keys: list[bytes], body: bytes = b"") -> None:
        self.start = start
        self.lines = lines
        self.keys = keys
        self.body = body

    def serialize(self) -> bytes:
        return b"\r\n".join([self.start, *self.lines, b"", self.body])

    def copy(self) -> Message:
        return Message(self.start, self.lines[:], self.keys[:], self.body)

    # start line
    @property
    def is_response(self) -> bool:
        return self.start[:8].upper() == b"SIP/2.0 "

    @property
    def method(self) -> bytes:
        return self.start.partition(b" ")[0]

    @property
    def ruri(self) -> bytes:
        return self.start.split(b" ")[1]

    @property
    def status(self) -> int:
        return int(self.start[8:11])

    @property
    def reason(self) -> bytes:
        return self.start[12:]

    # reading
    def line(self, key: bytes) -> bytes:
        """First line of that canonical name; ValueError when there is none."""
        return self.lines[self.keys.index(key)]

    def get(self, name: bytes) -> bytes | None:
        """Value of the first field of that name in any spelling, unfolded; None when there is none."""
        key = CANONICAL[name]
        if key not in self.keys:
            return None
        return value_of(self.line(key))

    def get_all(self, name: bytes) -> list[bytes]:
        """Values of all fields of that name, one for each line; lists are not split."""
        key = CANONICAL[name]
        return [value_of(line) for k, line in zip(self.keys, self.lines, strict=True) if k == key]

    def get_list(self, name: bytes) -> list[bytes]:
        """Values over all lines of that name, split at commas where the field's grammar is a list."""
        values = self.get_all(name)
        if CANONICAL[name] not in LISTS:
            return values
        return [item for value in values for item in split_list(value)]

    @property
    def via(self) -> Via:
        """Topmost Via; ValueError when there is none."""
        return Via.parse(first_value(value_of(self.line(VIA))))

    @property
    def from_(self) -> NameAddr:
        return NameAddr.parse(value_of(self.line(FROM)))

    @property
    def to(self) -> NameAddr:
        return NameAddr.parse(value_of(self.line(TO)))

    @property
    def call_id(self) -> bytes:
        return value_of(self.line(CALL_ID))

    @property
    def cseq(self) -> tuple[int, bytes]:
        return parse_cseq(value_of(self.line(CSEQ)))

    @property
    def contacts(self) -> list[NameAddr]:
        """Contact values; `*` comes as a NameAddr whose uri is `*`."""
        return [NameAddr.parse(value) for value in self.get_list(CONTACT)]

    # editing
    def insert(self, position: int, line: bytes) -> None:
        self.lines.insert(position, line)
        self.keys.insert(position, CANONICAL[line.partition(b":")[0]])

    def append(self, line: bytes) -> None:
        """Add a whole `Name: value` line behind the others; ParseError when it would break out of its line."""
        if b"\r" in line or b"\n" in line or b"\0" in line or b":" not in line:
            raise ParseError("a header line holds CR, LF or NUL, or no colon")
        self.lines.append(line)
        self.keys.append(CANONICAL[line.partition(b":")[0]])

    def remove(self, name: bytes) -> int:
        """Remove every field of that name in any spelling; returns how many lines went."""
        key = CANONICAL[name]
        keys, lines = self.keys, self.lines
        removed = keys.count(key)
        if removed == 1:
            i = keys.index(key)
            del keys[i], lines[i]
        elif removed:
            lines[:] = [line for k, line in zip(keys, lines, strict=True) if k != key]
            keys[:] = [k for k in keys if k != key]
        return removed

    def replace(self, name: bytes, value: bytes) -> None:
        """Put one line of that name where the first stood, or at the end."""
        key = CANONICAL[name]
        line = name + b": " + value
        if key not in self.keys:
            self.append(line)
            return
        i = self.keys.index(key)
        self.remove(name)
        self.insert(i, line)

    def __repr__(self) -> str:
        return f"<Message {self.start.decode(errors='replace')}>"


def value_of(line: bytes) -> bytes:
    """Value of a header line: behind the colon, stripped, unfolded."""
    value = line.partition(b":")[2].strip()
    return value if value.find(b"\n") < 0 else unfold(value)


def unfold(value: bytes) -> bytes:
    """Each line break and the white space around it become one space (RFC 3261 §7.3.1)."""
    return b" ".join([part.strip() for part in value.split(b"\n")])


def parse(data: bytes, stream: bool = False) -> Message:
    """Parse one datagram, or one framed message of a stream.

    Raises ParseError.  Bytes behind Content-Length are dropped (§18.3); LF-only line ends become CRLF.
    """
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        head, body = _tolerate(data)
    lines = head.splitlines()
    count = len(lines)
    if head.count(b"\r\n") != count - 1 or head.endswith(_BREAKS):  # somewhere a CR or LF stands alone
        lines = head.replace(b"\r\n", b"\n").split(b"\n")
        count = len(lines)
        if head.count(b"\r") != head.count(b"\r\n"):
            raise ParseError("a header line holds a lone CR")
    roomy = count > MAX_ROUTES or len(head) > _ROOMY
    if roomy:
        _check_limits(head, count)
    start = lines.pop(0)
    if not start:
        raise ParseError("the start line is empty")
    names = CANONICAL
    try:
        keys = [names[line.partition(b":")[0]] for line in lines]
    except ContinuationLine:
        lines = folded(lines)
        keys = [names[line.partition(b":")[0]] for line in lines]
    if roomy:
        _check_counts(keys, lines)
    if keys and keys[-1] is CONTENT_LENGTH:  # where it mostly stands: no search then
        line = lines[-1]
    else:
        line = lines[keys.index(CONTENT_LENGTH)] if CONTENT_LENGTH in keys else b""
    if line:
        length = _known_length(line) if len(line) <= CACHE_KEY else _content_length(line)
        if length != len(body):
            if length > len(body):
                raise ParseError("the body is shorter than Content-Length")
            body = body[:length]
    elif stream:
        raise ParseError("Content-Length is missing on a stream")
    elif body and not body.strip(b"\0\r\n"):
        body = b""  # padding behind a message without a body
    return Message(start, lines, keys, body)


def _content_length(line: bytes) -> int:
    value = line.partition(b":")[2].strip()
    if not value.isdigit() or len(value) > 10:
        raise ParseError("Content-Length is no number")
    return int(value)


_known_length = lru_cache(CACHE_LIMIT)(_content_length)


def _tolerate(data: bytes) -> tuple[bytes, bytes]:
    """What has no CRLF CRLF: LF-only line ends, or a message without body that lacks its last line end."""
    head, end, body = data.partition(b"\n\n")
    if end:
        return head, body
    if data[-1:] != b"\n":
        raise ParseError("the header section has no end")
    return data.rstrip(b"\r\n"), b""


def _check_limits(head: bytes, count: int) -> None:
    if len(head) > MAX_HEAD:
        raise ParseError("the header section is too large")
    if count > MAX_LINES:
        raise ParseError("too many header lines")
    if head.count(b";") > MAX_PARAMETERS:
        raise ParseError("too many parameters")


def _check_counts(keys: list[bytes], lines: list[bytes]) -> None:
    """Via and Route are limited by values, which may share a line; a folded line counts as long as it is."""
    if max(map(len, lines), default=0) > MAX_LINE:
        raise ParseError("a header line is too long")
    for name, most in ((VIA, MAX_VIAS), (ROUTE, MAX_ROUTES)):
        if sum(1 + line.count(b",") for key, line in zip(keys, lines, strict=True) if key is name) > most:
            raise ParseError("too many Via or Route values")


def folded(lines: Iterable[bytes]) -> list[bytes]:
    """Join continuation lines to their first line and keep every byte."""
    parts: list[list[bytes]] = []
    for line in lines:
        if line[:1] in (b" ", b"\t"):
            if not parts:
                raise ParseError("the first header line is a continuation")
            parts[-1].append(line)
        else:
            parts.append([line])
    return [b"\r\n".join(part) for part in parts]
