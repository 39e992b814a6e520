"""TCP and TLS connections as flows (RFC 3261 §18.1.1, §18.3; RFC 5923 reuse of connections we opened; RFC 5626 §4.4.1).

One asyncio protocol a connection.  A connection is opened when the first message for its flow is sent.  Framing and the
answer to a CRLF keep-alive are the engine's (`Endpoint.receive_stream`); deadlines, bounds and our own pings are here,
whom a certificate is for is the business of `tls`, and frames are that of `websocket`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import cast

from sipengine.asyncio.tls import LOOK, Tls, failure, judge
from sipengine.exceptions import FlowClosed, TlsError, TransportError
from sipengine.transport.flow import WEBSOCKET, Address, Flow, Listener
from sipengine.transport.peers import TlsPolicy
from sipengine.transport.stream import PING

log = logging.getLogger("sipengine")

KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15), (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)  # fmt: skip
"""A peer that vanished is noticed within two minutes, and not only when a call is lost on it."""

BACKLOG = 100
ACCEPT_PAUSE = 1.0
"""Seconds until connections are accepted again where the process has too many open files."""

Failed = Callable[[Flow, TransportError], None]
Policy = Callable[[tuple[str, ...], str], TlsPolicy]
"""`(names, address) → TlsPolicy` of the peer that a flow leads to."""
Accept = Callable[[Listener, Address], Flow | None]
"""Makes the flow of a connection that a peer opened; None when it is not admitted."""


@dataclass(frozen=True, slots=True)
class TcpLimits:
    """Seconds, bytes and numbers that no connection exceeds."""

    connect: float = 3.5
    """Two repeats of the SYN, and below the time after which a call tries its next target; TLS has to be there by then.
    """
    handshake: float = 5.0
    """From an accepted connection to the end of its TLS handshake, and from there to the end of that of WebSocket."""
    write: int = 1024 * 1024
    """Bytes that may wait for a peer that does not read; then the connection ends."""
    idle: float = 3900.0
    """Above the usual registration time: a connection that carries a binding is not ended between two refreshes."""
    message: float = 30.0
    """From its first byte to its last; also from an accepted connection to its first message."""
    accepted: int = 1000
    per_source: int = 100
    """Accepted connections of one address: a busy peer needs a few, a slow-stream attack needs many."""
    ping: float = 100.0
    """Silence on a connection that we opened, or over WebSocket on any, until we ping (RFC 5626 §4.4.1: 95 to 120 s).
    """
    pong: float = 10.0
    tick: float = 1.0


class TcpFlows:
    """All connections: accepted ones and our own."""

    def __init__(
        self, *, receive: Callable[[bytes, Flow], None], failed: Failed, accept: Accept,
        limits: TcpLimits | None = None, tls: Tls | None = None, policy: Policy | None = None,
    ) -> None:  # fmt: skip
        self.tls = tls
        self._policy = policy
        self._tls_looked_at = 0.0
        self.receive = receive
        self.failed = failed
        self.accept = accept
        self.limits = limits or TcpLimits()
        self.connections: dict[Flow, TcpConnection] = {}
        self.sources: Counter[str] = Counter()
        """Accepted connections that stand, by address."""
        self.waiting: dict[TcpConnection, float] = {}
        """Connections that owe us the end of a message, and since when: oldest first, since all wait equally long."""
        self.ended: Counter[str] = Counter()
        """Connections refused or ended, by why: `crowded` (one too many), `handshake` (of TLS or WebSocket), `origin`,
        `slow` (a deadline, a full queue), `frames`.
        """
        self.refusal_told_at = 0.0
        self._opening: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._sockets: list[socket.socket] = []
        """Those that listen for TLS."""
        self._loop = asyncio.get_running_loop()
        limits = self.limits
        self._tick = min(limits.tick, limits.idle, limits.message)
        self._sweep = self._loop.call_later(self._tick, self._look)

    @property
    def accepted(self) -> int:
        return self.sources.total()

    async def listen(
        self, host: str, port: int, listener_at: Callable[[str], Listener], connection: Kind,
    ) -> int:
        """Accept connections and return the port; OSError when the address is taken or not ours."""
        server = await self._loop.create_server(lambda: connection(self, listener_at=listener_at), host, port)
        self._servers.append(server)
        return cast(int, server.sockets[0].getsockname()[1])

    def send(self, data: bytes, flow: Flow) -> None:
        connection = self.connections.get(flow)
        if connection is None:
            if flow.listener.transport in WEBSOCKET:
                self.failed(flow, FlowClosed(f"{flow!r} is not connected, and by WebSocket only it can do that."))
                return
            if flow.closed or flow.accepted:
                self.failed(flow, FlowClosed(f"The connection {flow!r} has ended."))
                return
            connection = self.connections[flow] = TcpConnection(self, flow=flow)
            self._open(self._connect(connection, flow))
        connection.send(data)

    def _open(self, opening: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(opening)
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self, connection: TcpConnection, flow: Flow) -> None:
        host, port = flow.remote
        context = name = None
        if flow.secure:
            assert self.tls is not None and self._policy is not None
            connection.policy = self._policy(flow.names, host)
            context, name = self.tls.client(connection.policy), connection.policy.names[0]
        try:
            async with asyncio.timeout(self.limits.connect):
                await self._loop.create_connection(
                    lambda: connection, host, port, local_addr=(flow.listener.host, 0), ssl=context,
                    server_hostname=name,
                )
        except (OSError, ValueError, TimeoutError) as error:  # ValueError: a name that cannot stand in SNI
            cause = "no answer" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or str(error)
            plain = FlowClosed(f"No {flow.listener.transport.upper()} connection to {host} port {port}: {cause}.")
            self.lost(flow, failure(error, host, port) or plain)

    def listen_tls(
        self, host: str, port: int, listener_at: Callable[[str], Listener], connection: Kind,
    ) -> int:
        """As `listen`, over TLS: who is not admitted gets no handshake, and those in theirs count."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.create_server((host, port), family=family, backlog=BACKLOG)
        sock.setblocking(False)
        self._sockets.append(sock)
        self._loop.add_reader(sock, self._accept, sock, listener_at, connection)
        return cast(int, sock.getsockname()[1])

    def _accept(
        self, sock: socket.socket, listener_at: Callable[[str], Listener], kind: Kind
    ) -> None:
        for _ in range(BACKLOG):
            try:
                accepted, remote = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors: those that stand have to end first
                log.error("No connection can be accepted: %s.", error.strerror)
                self._loop.remove_reader(sock)
                self._loop.call_later(ACCEPT_PAUSE, self._accept_again, sock, listener_at, kind)
                return
            flow = self.admit(listener_at(accepted.getsockname()[0]), remote[:2])
            if flow is None:
                accepted.close()
                continue
            accepted.setblocking(False)
            connection = self.connections[flow] = kind(self, flow=flow)
            self._open(self._secure(connection, flow, accepted))

    def _accept_again(
        self, sock: socket.socket, listener_at: Callable[[str], Listener], kind: Kind
    ) -> None:
        if sock in self._sockets:
            self._loop.add_reader(sock, self._accept, sock, listener_at, kind)

    async def _secure(self, connection: TcpConnection, flow: Flow, accepted: socket.socket) -> None:
        assert self.tls is not None
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection, accepted, ssl=self.tls.accepting, ssl_handshake_timeout=self.limits.handshake
            )
        except (OSError, ValueError) as error:
            self.ended["handshake"] += 1
            host, port = flow.remote
            plain = FlowClosed(f"The connection with {host} port {port} ended in its TLS handshake.")
            self.lost(flow, failure(error, host, port) or plain)

    def admit(self, listener: Listener, remote: Address) -> Flow | None:
        """The flow of a connection that a peer opened; None when it is one too many or not admitted."""
        limits, host = self.limits, remote[0]
        flow = None
        if self.accepted >= limits.accepted or self.sources[host] >= limits.per_source:
            self.ended["crowded"] += 1
        else:
            flow = self.accept(listener, remote)
        if flow is None:
            if not self.sources[host]:
                del self.sources[host]
            return None
        self.sources[host] += 1
        return flow

    def lost(self, flow: Flow, error: TransportError) -> None:
        flow.closed = True
        connection = self.connections.pop(flow, None)
        if connection is None:
            return
        self.waiting.pop(connection, None)
        if isinstance(error, TlsError) and not flow.accepted:
            log.warning("%s", error)
        if flow.accepted:
            host = flow.remote[0]
            self.sources[host] -= 1
            if not self.sources[host]:
                del self.sources[host]
        self.failed(flow, error)

    def _look(self) -> None:
        """Cut what has been half-sent for too long, end what is idle, ping what is quiet."""
        now, limits = self._loop.time(), self.limits
        if self.tls is not None and now - self._tls_looked_at >= LOOK:
            self._tls_looked_at = now
            self.tls.look()
        while self.waiting:
            connection, since = next(iter(self.waiting.items()))
            if now - since < limits.message:
                break
            connection.cut()
        for connection in list(self.connections.values()):
            connection.look(now)
        self._sweep = self._loop.call_later(self._tick, self._look)

    def stop_accepting(self) -> None:
        for server in self._servers:
            server.close()
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()

    async def close(self) -> None:
        self._sweep.cancel()
        self.stop_accepting()
        for task in self._opening:
            task.cancel()
        for connection in list(self.connections.values()):
            connection.close()
        await asyncio.sleep(0)


Kind = Callable[..., "TcpConnection"]
"""Makes a connection of `(flows, flow=…, listener_at=…)`: a TcpConnection, or one that adds a protocol of its own."""


class TcpConnection(asyncio.Protocol):
    """One connection; bytes sent before it is open wait."""

    def __init__(
        self, flows: TcpFlows, flow: Flow | None = None, listener_at: Callable[[str], Listener] | None = None
    ) -> None:
        self.flows = flows
        self.flow = flow
        self.policy: TlsPolicy | None = None
        """What the peer of a connection that we open over TLS must prove."""
        self.active_at = self.heard_at = flows._loop.time()
        self._listener_at = listener_at
        self._transport: asyncio.Transport | None = None
        self._ready = False
        self._before: list[bytes] = []
        self._queued = 0
        self._found = 0
        self._pinged_at = 0.0
        self._answers_pings = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made = cast(asyncio.Transport, transport)
        if self.flow is None:
            assert self._listener_at is not None
            listener = self._listener_at(made.get_extra_info("sockname")[0])
            flow = self.flows.admit(listener, made.get_extra_info("peername")[:2])
            if flow is None:
                made.abort()
                return
            self.flow = flow
            self.flows.connections[flow] = self
        elif self.flow.closed:  # given up while it was being opened
            made.abort()
            return
        elif self.policy is not None:
            error = judge(made.get_extra_info("ssl_object"), self.policy, self.flow.remote[0])
            if error is not None:
                made.abort()
                self.flows.lost(self.flow, error)
                return
        self._transport = made
        if self.flow.accepted:
            self.flows.waiting[self] = self.flows._loop.time()
        sock = made.get_extra_info("socket")
        for level, option, value in KEEPALIVE:
            sock.setsockopt(level, option, value)
        self._begin()

    def _begin(self) -> None:
        """Send what waits: from now on messages may go."""
        self._ready = True
        for data in self._before:
            self._write(data)
        self._before.clear()

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def send(self, data: bytes) -> None:
        self.active_at = self.flows._loop.time()
        if self._transport is None or not self._ready:
            self._queued += len(data)
            if self._queued <= self.flows.limits.write:
                self._before.append(data)
            else:
                self.cut()
        elif self._transport.get_write_buffer_size() + len(data) > self.flows.limits.write:
            self.cut()
        else:
            self._write(data)

    def data_received(self, data: bytes) -> None:
        flow, flows = self.flow, self.flows
        if flow is None or flow.closed:
            return
        now = self.heard_at = flows._loop.time()
        if self._pinged_at:
            self._pinged_at, self._answers_pings = 0.0, True
        flows.receive(data, flow)
        framer = flow.framer
        if flow.closed:
            self.close()
        elif framer is not None:
            if framer.found != self._found:
                self._found = framer.found
                self.active_at = now
                flows.waiting.pop(self, None)
            if framer.partial:
                flows.waiting.setdefault(self, now)

    def look(self, now: float) -> None:
        """End the connection when it is idle or dead; ping a quiet one if we do that on its kind.

        Who said that it answers pings, or has answered one, is judged by the next: not every server knows RFC 5626.
        """
        limits = self.flows.limits
        agreed = 0.0 if self.flow is None else self.flow.ping_after
        if self.flow is not None and self.flow.closed:  # its last words have had their time
            self.cut()
        elif now - self.active_at > limits.idle:
            self.close()
        elif not self._ready or not self._pings:
            return
        elif self._pinged_at:
            if (self._answers_pings or agreed) and now - self._pinged_at > limits.pong:
                self.cut()
        elif now - max(self.heard_at, self.active_at) > (agreed or limits.ping):
            self._pinged_at = now
            self._ping()

    @property
    def _pings(self) -> bool:
        return self.flow is not None and not self.flow.accepted

    def _ping(self) -> None:
        self._write(PING)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.flow is not None:
            host, port = self.flow.remote
            cause = "" if exc is None else f": {exc}"
            self.flows.lost(self.flow, FlowClosed(f"The connection with {host} port {port} ended{cause}."))

    def cut(self) -> None:
        """End at once; what waits to be written is lost, and who sent it is told."""
        self.flows.ended["slow"] += 1
        if self._transport is not None:
            self._transport.abort()
        if self.flow is not None:
            host, port = self.flow.remote
            self.flows.lost(self.flow, FlowClosed(f"The connection with {host} port {port} was too slow."))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
