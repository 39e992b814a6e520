"""TCP connections as flows (RFC 3261 §18.1.1, §18.3; RFC 5923 reuse of connections we opened).

One asyncio protocol a connection.  A connection is opened when the first message for its flow is sent.  Framing and the
CRLF keep-alive are the engine's (`Endpoint.receive_stream`).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from sipengine.exceptions import FlowClosed, TransportError
from sipengine.transport.flow import Address, Flow, Listener

CONNECT_TIMEOUT = 5.0
"""Below Timer F, so that the next target still has its chance."""
WRITE_LIMIT = 1024 * 1024
"""Bytes that may wait for a peer that does not read; then the connection ends."""
IDLE_TIMEOUT = 3900.0
"""Above the usual registration time: a connection that carries a binding is not ended between two refreshes."""
SWEEP = 30.0
MAX_ACCEPTED = 1000
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15), (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)  # fmt: skip
"""A peer that vanished is noticed within two minutes, and not only when a call is lost on it."""

Failed = Callable[[Flow, TransportError], None]
Accept = Callable[[Listener, Address], Flow | None]
"""Makes the flow of a connection that a peer opened; None when it is not admitted."""


class TcpFlows:
    """All connections: accepted ones and our own."""

    def __init__(
        self, *, receive: Callable[[bytes, Flow], None], failed: Failed, accept: Accept,
        idle_timeout: float = IDLE_TIMEOUT, connect_timeout: float = CONNECT_TIMEOUT, write_limit: int = WRITE_LIMIT,
    ) -> None:  # fmt: skip
        self.receive = receive
        self.failed = failed
        self.accept = accept
        self.idle_timeout = idle_timeout
        self.connect_timeout = connect_timeout
        self.write_limit = write_limit
        self.connections: dict[Flow, TcpConnection] = {}
        self.accepted = 0
        self.refused = 0
        self._connecting: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.get_running_loop()
        self._sweep = self._loop.call_later(min(SWEEP, idle_timeout), self._close_idle)

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
            async with asyncio.timeout(self.connect_timeout):
                await self._loop.create_connection(
                    lambda: connection, host, port, local_addr=(flow.listener.host, 0)
                )
        except (OSError, TimeoutError) as error:
            cause = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
            self.lost(flow, FlowClosed(f"No TCP connection to {host} port {port}: {cause}."))

    def lost(self, flow: Flow, error: TransportError) -> None:
        flow.closed = True
        if self.connections.pop(flow, None) is not None:
            self.accepted -= flow.accepted
            self.failed(flow, error)

    def _close_idle(self) -> None:
        now = self._loop.time()
        for connection in list(self.connections.values()):
            if now - connection.active_at > self.idle_timeout:
                connection.close()
        self._sweep = self._loop.call_later(min(SWEEP, self.idle_timeout), self._close_idle)

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
        self.active_at = flows._loop.time()
        self._listener_at = listener_at
        self._transport: asyncio.Transport | None = None
        self._before: list[bytes] = []
        self._waiting = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.flow is None:
            assert self._listener_at is not None
            listener = self._listener_at(self._transport.get_extra_info("sockname")[0])
            flow = None
            if self.flows.accepted < MAX_ACCEPTED:
                flow = self.flows.accept(listener, self._transport.get_extra_info("peername")[:2])
            if flow is None:
                self.flows.refused += 1
                self._transport.abort()
                return
            self.flow = flow
            self.flows.accepted += 1
            self.flows.connections[flow] = self
        sock = self._transport.get_extra_info("socket")
        for level, option, value in KEEPALIVE:
            sock.setsockopt(level, option, value)
        for data in self._before:
            self._transport.write(data)
        self._before.clear()

    def send(self, data: bytes) -> None:
        self.active_at = self.flows._loop.time()
        if self._transport is None:
            self._waiting += len(data)
            if self._waiting <= self.flows.write_limit:
                self._before.append(data)
        elif self._transport.get_write_buffer_size() + len(data) > self.flows.write_limit:
            self._transport.abort()
        else:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self.flow is None:
            return
        self.active_at = self.flows._loop.time()
        self.flows.receive(data, self.flow)
        if self.flow.closed:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.flow is not None:
            host, port = self.flow.remote
            cause = "" if exc is None else f": {exc}"
            self.flows.lost(self.flow, FlowClosed(f"The connection with {host} port {port} ended{cause}."))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
