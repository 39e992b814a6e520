"""A SIP user agent on one UDP socket of the loopback (RFC 3261 §8, §12), as plain as a simulation can be.

Parses and builds with `sipengine.message`. On purpose no transaction layer: nothing is lost on the loopback, and a peer
that repeats nothing shows what the other side repeats. Refuses to send to any address outside 127.0.0.0/8.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable
from ipaddress import ip_address

from sipengine.exceptions import ProtocolError
from sipengine.message import Message, SipUri, parse
from sipengine.message.build import head_of, request, response

Address = tuple[str, int]


class Peer(asyncio.DatagramProtocol):
    """Sends and receives; subclasses say what to answer."""

    def __init__(self, host: str, port: int = 0) -> None:
        self.host, self.port = host, port
        self._transport: asyncio.DatagramTransport | None = None
        self._timers: set[asyncio.TimerHandle] = set()

    async def open(self) -> None:
        """Bind the socket; port 0 takes a free one."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self.host, self.port))
        self.port = self._transport.get_extra_info("sockname")[1]

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    @property
    def uri(self) -> str:
        return f"sip:{self.host}:{self.port}"

    def later(self, seconds: float, run: Callable[..., None], *arguments: object) -> asyncio.TimerHandle:
        """Call `run(*arguments)` in a while, unless the peer is closed by then."""

        def due() -> None:
            self._timers.discard(timer)
            run(*arguments)

        timer = asyncio.get_running_loop().call_later(seconds, due)
        self._timers.add(timer)
        return timer

    # what subclasses fill in
    def on_request(self, message: Message, source: Address) -> None:
        """A request came."""

    def on_response(self, message: Message) -> None:
        """A response came."""

    # out
    def send(self, data: bytes, to: Address) -> None:
        if not ip_address(to[0]).is_loopback:
            raise ValueError(f"{to[0]} is outside 127.0.0.0/8: a simulation sends nothing there")
        if self._transport is not None:
            self._transport.sendto(data, to)

    def send_request(self, message: Message) -> None:
        """Send along the route set: to the first Route, else to the Request-URI (§8.1.2, all routers loose)."""
        routes = message.get_list(b"Route")
        uri = SipUri.parse(routes[0].strip()[1:].partition(b">")[0] if routes else message.ruri)
        self.send(message.serialize(), (uri.host.decode(), uri.port or 5060))

    def request(self, method: bytes, ruri: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes = b"") -> Message:
        """Build a request with a branch of its own."""
        branch = b"z9hG4bK" + secrets.token_hex(8).encode()
        via = b"SIP/2.0/UDP %b:%d;branch=%b;rport" % (self.host.encode(), self.port, branch)
        return request(method, ruri, [(b"Via", via), (b"Max-Forwards", b"70"), *headers], body)

    def answer(
        self,
        message: Message,
        source: Address,
        status: int,
        *,
        tag: bytes = b"",
        extra: Iterable[bytes] = (),
        body: bytes = b"",
    ) -> None:
        """Answer a request to where it came from, Record-Route copied (§12.1.1)."""
        routes = [b"Record-Route: " + value for value in message.get_all(b"Record-Route")] if 100 < status < 300 else []
        self.send(response(head_of(message), status, b"", tag, [*routes, *extra], body), source)

    # in
    def datagram_received(self, data: bytes, addr: Address) -> None:
        try:
            message = parse(data)
            if message.is_response:
                self.on_response(message)
            else:
                self.on_request(message, addr)
        except (ProtocolError, ValueError):
            return  # keep-alives and noise


def new_tag() -> bytes:
    return secrets.token_hex(5).encode()


def sdp(host: str, port: int) -> bytes:
    """An offer or answer with one audio line; no media is ever sent."""
    lines = (
        "v=0", f"o=- 1 1 IN IP4 {host}", "s=-", f"c=IN IP4 {host}", "t=0 0", f"m=audio {port} RTP/AVP 8",
        "a=rtpmap:8 PCMA/8000",
    )
    return "".join(line + "\r\n" for line in lines).encode()
