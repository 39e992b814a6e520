"""TCP connections as flows (RFC 3261 §18.1.1, §18.3; RFC 5923 reuse of connections we opened; RFC 5626 §4.4.1).

One asyncio protocol a connection.  A connection is opened when the first message for its flow is sent.  Framing and the
answer to a CRLF keep-alive are the engine's (`Endpoint.receive_stream`); deadlines, bounds and our own pings are here.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from sipengine.exceptions import FlowClosed, TransportError
from sipengine.transport.flow import Address, Flow, Listener
from sipengine.transport.stream import PING

KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15), (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)  # fmt: skip
"""A peer that vanished is noticed within two minutes, and not only when a call is lost on it."""

Failed = Callable[[Flow, TransportError], None]
Accept = Callable[[Listener, Address], Flow | None]
"""Makes the flow of a connection that a peer opened; None when it is not admitted."""


@dataclass(frozen=True, slots=True)
class TcpLimits:
    """Seconds, bytes and numbers that no connection exceeds."""

    connect: float = 3.5
    """Two repeats of the SYN, and below the time after which a call tries its next target."""
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
    """Silence on a connection that we opened until we ping (RFC 5626 §4.4.1: 95 to 120 s)."""
    pong: float = 10.0
    tick: float = 1.0


class TcpFlows:
    """All connections: accepted ones and our own."""

    def __init__(
        self, *, receive: Callable[[bytes, Flow], None], failed: Failed, accept: Accept,
        limits: TcpLimits | None = None,
    ) -> None:  # fmt: skip
        self.receive = receive
        self.failed = failed
        self.accept = accept
        self.limits = limits or TcpLimits()
        self.connections: dict[Flow, TcpConnection] = {}
        self.sources: Counter[str] = Counter()
        """Accepted connections that stand, by address."""
        self.waiting: dict[TcpConnection, float] = {}
        """Connections that owe us the end of a message, and since when: oldest first, since all wait equally long."""
        self.refused = 0
        self.cut = 0
        """Connections ended by a deadline or a full queue."""
        self._connecting: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.get_running_loop()
        limits = self.limits
        self._tick = min(limits.tick, limits.idle, limits.message)
        self._sweep = self._loop.call_later(self._tick, self._look)

    @property
    def accepted(self) -> int:
        return self.sources.total()

    async def listen(self, host: str, port: int, listener_at: Callable[[str], Listener]) -> int:
        """Accept connections and return the port; OSError when the address is taken or not ours."""
        server = await self._loop.create_server(lambda: TcpConnection(self, listener_at=listener_at), host, port)
        self._servers.append(server)
        return cast(int, server.sockets[0].getsockname()[1])

    def send(self, data: bytes, flow: Flow) -> None:
        connection = self.connections.get(flow)
        if connection is None:
            if flow.closed or flow.accepted:
                self.failed(flow, FlowClosed(f"The connection {flow!r} has ended."))
                return
            connection = self.connections[flow] = TcpConnection(self, flow=flow)
            task = self._loop.create_task(self._connect(connection, flow))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        connection.send(data)

    async def _connect(self, connection: TcpConnection, flow: Flow) -> None:
        host, port = flow.remote
        try:
            async with asyncio.timeout(self.limits.connect):
                await self._loop.create_connection(
                    lambda: connection, host, port, local_addr=(flow.listener.host, 0)
                )
        except (OSError, TimeoutError) as error:
            cause = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
            self.lost(flow, FlowClosed(f"No TCP connection to {host} port {port}: {cause}."))

    def admit(self, listener: Listener, remote: Address) -> Flow | None:
        """The flow of a connection that a peer opened; None when it is one too many or not admitted."""
        limits, host = self.limits, remote[0]
        flow = None
        if self.accepted < limits.accepted and self.sources[host] < limits.per_source:
            flow = self.accept(listener, remote)
        if flow is None:
            self.refused += 1
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
        if flow.accepted:
            host = flow.remote[0]
            self.sources[host] -= 1
            if not self.sources[host]:
                del self.sources[host]
        self.failed(flow, error)

    def _look(self) -> None:
        """Cut what has been half-sent for too long, end what is idle, ping what is quiet."""
        now, limits = self._loop.time(), self.limits
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

    async def close(self) -> None:
        self._sweep.cancel()
        self.stop_accepting()
        for task in self._connecting:
            task.cancel()
        for connection in list(self.connections.values()):
            connection.close()
        await asyncio.sleep(0)


class TcpConnection(asyncio.Protocol):
    """One connection; bytes sent before it is open wait."""

    def __init__(
        self, flows: TcpFlows, flow: Flow | None = None, listener_at: Callable[[str], Listener] | None = None
    ) -> None:
        self.flows = flows
        self.flow = flow
        self.active_at = self.heard_at = flows._loop.time()
        self._listener_at = listener_at
        self._transport: asyncio.Transport | None = None
        self._before: list[bytes] = []
        self._queued = 0
        self._found = 0
        self._pinged_at = 0.0
        self._answers_pings = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.flow is None:
            assert self._listener_at is not None
            listener = self._listener_at(self._transport.get_extra_info("sockname")[0])
            flow = self.flows.admit(listener, self._transport.get_extra_info("peername")[:2])
            if flow is None:
                self._transport.abort()
                return
            self.flow = flow
            self.flows.connections[flow] = self
            self.flows.waiting[self] = self.flows._loop.time()
        elif self.flow.closed:  # given up while it was being opened
            self._transport.abort()
            return
        sock = self._transport.get_extra_info("socket")
        for level, option, value in KEEPALIVE:
            sock.setsockopt(level, option, value)
        for data in self._before:
            self._transport.write(data)
        self._before.clear()

    def send(self, data: bytes) -> None:
        self.active_at = self.flows._loop.time()
        if self._transport is None:
            self._queued += len(data)
            if self._queued <= self.flows.limits.write:
                self._before.append(data)
            else:
                self.cut()
        elif self._transport.get_write_buffer_size() + len(data) > self.flows.limits.write:
            self.cut()
        else:
            self._transport.write(data)

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
        """End the connection when it is idle or dead; ping a quiet one that we opened.

        Only who has answered a ping once is judged by the next: not every server knows RFC 5626.
        """
        limits = self.flows.limits
        if self.flow is not None and self.flow.closed:  # its last words have had their time
            self.cut()
        elif now - self.active_at > limits.idle:
            self.close()
        elif self._transport is None or self.flow is None or self.flow.accepted:
            return
        elif self._pinged_at:
            if self._answers_pings and now - self._pinged_at > limits.pong:
                self.cut()
        elif now - max(self.heard_at, self.active_at) > limits.ping:
            self._pinged_at = now
            self._transport.write(PING)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.flow is not None:
            host, port = self.flow.remote
            cause = "" if exc is None else f": {exc}"
            self.flows.lost(self.flow, FlowClosed(f"The connection with {host} port {port} ended{cause}."))

    def cut(self) -> None:
        """End at once; what waits to be written is lost, and who sent it is told."""
        self.flows.cut += 1
        if self._transport is not None:
            self._transport.abort()
        if self.flow is not None:
            host, port = self.flow.remote
            self.flows.lost(self.flow, FlowClosed(f"The connection with {host} port {port} was too slow."))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
