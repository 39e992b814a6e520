"""Finds messages in the bytes of a connection (RFC 3261 §7.5, §18.3, RFC 5626 §3.5.1).

Content-Length is required; a stream whose framing is lost is never read on.
"""

from __future__ import annotations

from sipengine.exceptions import ParseError
from sipengine.message.fields import CANONICAL, CONTENT_LENGTH
from sipengine.message.message import MAX_HEAD, MAX_MESSAGE

PING = b"\r\n\r\n"
PONG = b"\r\n"


class StreamFramer:
    __slots__ = ("_buffer", "_searched", "_wanted")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._wanted = 0
        """Size of the message being received, 0 while its header section is incomplete."""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that are complete now; `PING` stands for a keep-alive to be answered.

        Raises ParseError when the framing is lost; what came before it was returned by earlier calls.
        """
        buffer = self._buffer
        buffer += data
        messages: list[bytes] = []
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
        return messages


def _content_length(head: bytes) -> int:
    length: int | None = None
    for line in head.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if not colon or line[:1] in (b" ", b"\t") or CANONICAL[name] is not CONTENT_LENGTH:
            continue
        value = value.strip()
        if length is not None or not value.isdigit() or len(value) > 10:
            raise ParseError("Content-Length is no number or comes twice")
        length = int(value)
    if length is None:
        raise ParseError("Content-Length is missing on a stream")
    return length
