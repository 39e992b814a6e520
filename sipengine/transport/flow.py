"""Where a message came from and must go: listeners and flows (RFC 3261 §18, RFC 5626 §2).

Values only.  Sockets belong to `sipengine.asyncio`, which maps a listener to its socket and a stream flow to its
connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipengine.transport.stream import StreamFramer

Address = tuple[str, int]
"""Numeric host (IPv6 without brackets) and port."""

NamedAddress = tuple[str, int, str]
"""Where a connection leads and whom it was opened for: who has proved to be one domain is not taken for another."""


SECURE = frozenset({"tls", "wss"})
"""Transports inside TLS."""
WEBSOCKET = frozenset({"ws", "wss"})
"""Connections that only peers open, most of them browsers, and on which each frame is one message (RFC 7118)."""


class Listener:
    """A local socket: what it is bound to, and the name it puts into Via, Record-Route and Contact."""

    __slots__ = ("flows", "host", "port", "sent_by", "transport", "v6")

    def __init__(self, transport: str, host: str, port: int, sent_by: bytes) -> None:
        self.transport = transport
        """``"udp"``, ``"tcp"``, ``"tls"``, ``"ws"`` or ``"wss"``."""
        self.host = host
        self.v6 = ":" in host
        self.port = port
        self.sent_by = sent_by
        """``host:port`` as peers shall see it, brackets around IPv6; empty on a wildcard address, where it depends on
        the peer.
        """
        self.flows: dict[Address | NamedAddress, Flow] = {}
        """Flows by remote address: UDP flows already made (bounded), live connections; those over TLS also by the name
        that they were opened for.
        """

    def __repr__(self) -> str:
        return f"{self.transport}:{self.host}:{self.port}"


class Flow:
    """A way between one local socket and one remote address.

    UDP flows are made on demand and never end.  A stream flow is one connection: either accepted, or opened by the
    host when the first message for it is sent.
    """

    __slots__ = ("accepted", "closed", "framer", "listener", "names", "ping_after", "remote", "route", "sent_by", "via")

    def __init__(self, listener: Listener, remote: Address, accepted: bool = False) -> None:
        self.listener = listener
        self.remote = remote
        self.accepted = accepted
        """Stream: the peer opened it (its source port cannot be connected to)."""
        self.closed = False
        self.names: tuple[str, ...] = ()
        """Those of the `Target` that it was opened for."""
        self.ping_after = 0.0
        """Seconds of silence until the host pings it, and counts on an answer (RFC 5626 §4.4); 0: as it sees fit."""
        self.framer: StreamFramer | None = None
        self.sent_by = b""
        """Our name towards this remote; the three are filled in by the transport layer."""
        self.via = b""
        """Our Via line up to the branch's magic cookie."""
        self.route = b""
        """Our Route URI up to `;lr`, with its '<'."""

    @property
    def secure(self) -> bool:
        return self.listener.transport in SECURE

    @property
    def reliable(self) -> bool:
        return self.listener.transport != "udp"

    def __repr__(self) -> str:
        return f"{self.listener.transport}:{self.remote[0]}:{self.remote[1]}"
