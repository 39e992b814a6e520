"""Finds messages in the bytes of a connection (RFC 3261 §7.5, §18.3, RFC 5626 §3.5.1).

Content-Length is required; a stream whose framing is lost is never read on.
"""

from __future__ import annotations

from sipengine.exceptions import ParseError
from sipengine.message.fields import CONTENT_LENGTH
from sipengine.message.message import MAX_HEAD, MAX_LINES, MAX_MESSAGE, folded

PING = b"\r\n\r\n"
PONG = b"\r\n"
_NAMES = (CONTENT_LENGTH, b"l")


class StreamFramer:
    __slots__ = ("_buffer", "_searched", "_wanted", "error", "found")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.found = 0
        """Messages and pings so far: who waits for a deadline sees progress by it."""
        self.error: ParseError | None = None
        """Why the framing is lost; whole messages before that point were returned."""
        self._searched = 0
        self._wanted = 0
        """Size of the message being received, 0 while its header section is incomplete."""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that are complete now; `PING` stands for a keep-alive to be answered.

        Raises ParseError when the framing is lost.  Messages that stand before the fault are returned all the same,
        however TCP cut the bytes; `error` is set then, and the next call raises.
        """
        if self.error is not None:
            raise self.error
        self._buffer += data
        messages: list[bytes] = []
        try:
            self._cut(messages)
        except ParseError as error:
            self.error = error
            if not messages:
                raise
        self.found += len(messages)
        return messages

    @property
    def partial(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._buffer) and self._buffer[0] not in b"\r\n"

    def rest(self) -> bytes:
        """The bytes from the message on that could not be framed."""
        return bytes(self._buffer)

    def _cut(self, messages: list[bytes]) -> None:
        buffer = self._buffer
        while buffer:
            if not self._wanted:
                if buffer[0] in b"\r\n":
                    if buffer.startswith(PING):
                        del buffer[:4]
                        messages.append(PING)
                    elif PING.startswith(buffer):
                        break  # a ping may still arrive, or the pong it is
                    else:
                        del buffer[:1]
                    continue
                end = buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
                if end < 0:
                    if len(buffer) > MAX_HEAD:
                        raise ParseError("the header section is too large")
                    self._searched = len(buffer)
                    break
                self._searched = 0
                self._wanted = end + 4 + _content_length(bytes(buffer[:end]))
                if self._wanted > MAX_MESSAGE:
                    raise ParseError("the message is too large")
            if len(buffer) < self._wanted:
                break
            messages.append(bytes(buffer[: self._wanted]))
            del buffer[: self._wanted]
            self._wanted = 0


def _content_length(head: bytes) -> int:
    """ParseError where it is absent, twice there, or no number; the message itself is judged by `parse`."""
    length: int | None = None
    _, *lines = head.replace(b"\r\n", b"\n").split(b"\n", MAX_LINES)
    if len(lines) >= MAX_LINES:
        raise ParseError("too many header lines")
    for line in folded(lines):
        name, colon, value = line.partition(b":")
        if not colon or name.strip().lower() not in _NAMES:
            continue
        value = value.strip()
        if length is not None or not value.isdigit() or len(value) > 10:
            raise ParseError("Content-Length is no number or comes twice")
        length = int(value)
    if length is None:
        raise ParseError("Content-Length is missing on a stream")
    return length
