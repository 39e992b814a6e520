"""Wire: endpoints and scripted stations joined by a virtual network and clock, for tests of the core.

It can lose, delay (and so reorder) and duplicate datagrams; streams are reliable and in order.  Chance comes from the
caller, so a run repeats exactly.  It makes no SIP: stations are handed bytes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from sipengine.endpoint import Endpoint
from sipengine.events import Event, ResolutionWanted, Target
from sipengine.exceptions import FlowClosed, ResolutionError, TransportError
from sipengine.timerqueue import NEVER
from sipengine.transport.flow import Address, Flow, Listener


class Station:
    """A scripted peer at one address: keeps what arrives, or gives it to `on_receive(data, source)`."""

    def __init__(self, wire: Wire, transport: str, address: Address) -> None:
        self.wire = wire
        self.transport = transport
        self.address = address
        self.inbox: list[bytes] = []
        self.log: list[bytes] = []
        """Everything that ever arrived."""
        self.on_receive: Callable[[bytes, Address], None] | None = None

    def send(self, data: bytes, to: Address) -> None:
        self.wire.send(self.transport, self.address, to, data)

    def take(self) -> list[bytes]:
        """What arrived since the last call."""
        got, self.inbox = self.inbox, []
        return got


class Wire:
    def __init__(
        self, *, latency: float = 0.001, jitter: float = 0.0, loss: float = 0.0, duplicates: float = 0.0,
        chance: Callable[[], float] | None = None,
    ) -> None:
        self.now = 0.0
        self.latency = latency
        self.jitter = jitter
        self.loss = loss
        self.duplicates = duplicates
        self.chance = chance
        self.hosts: dict[str, list[Target]] = {}
        """What names resolve to; others do not."""
        self.events: list[tuple[Endpoint, Event]] = []
        self.sent: list[tuple[str, Address, Address, bytes]] = []
        """Everything that was put on the wire: transport, from, to, bytes."""
        self._endpoints: list[Endpoint] = []
        self._listeners: dict[tuple[str, Address], tuple[Endpoint, Listener]] = {}
        self._stations: dict[tuple[str, Address], Station] = {}
        self._connections: dict[Flow, Address] = {}
        self._streams: dict[tuple[Address, Address], tuple[Endpoint, Flow]] = {}
        self._deferred: list[Callable[[float], None]] = []
        self._queue: list[tuple[float, int, str, Address, Address, bytes]] = []
        self._count = 0
        self._port = 40000

    def attach(self, endpoint: Endpoint) -> Endpoint:
        """Join an endpoint with all listeners it has."""
        self._endpoints.append(endpoint)
        for listener in endpoint.listeners:
            self._listeners[listener.transport, (listener.host, listener.port)] = endpoint, listener
        endpoint.resume = self._resume
        endpoint.defer = self._deferred.append
        return endpoint

    def _resume(self, verb: Callable[[float], None]) -> None:
        verb(self.now)
        self.flush()

    def detach(self, endpoint: Endpoint) -> None:
        """The endpoint's process dies: nothing reaches it any more, its connections break."""
        self._endpoints.remove(endpoint)
        self._listeners = {key: value for key, value in self._listeners.items() if value[0] is not endpoint}
        self._streams = {key: value for key, value in self._streams.items() if value[0] is not endpoint}

    def station(self, host: str, port: int, transport: str = "udp") -> Station:
        station = self._stations[transport, (host, port)] = Station(self, transport, (host, port))
        return station

    # sending
    def send(self, transport: str, source: Address, to: Address, data: bytes) -> None:
        self.sent.append((transport, source, to, data))
        copies = 1
        if transport == "udp" and self.chance is not None:
            if self.chance() < self.loss:
                return
            if self.chance() < self.duplicates:
                copies = 2
        for _ in range(copies):
            delay = self.latency
            if transport == "udp" and self.jitter and self.chance is not None:
                delay += self.jitter * self.chance()
            self._count += 1
            heapq.heappush(self._queue, (self.now + delay, self._count, transport, source, to, data))

    def flush(self) -> None:
        """Take what the endpoints want sent and told."""
        while self._deferred or any(endpoint.out or endpoint.events for endpoint in self._endpoints):
            while self._deferred:
                self._deferred.pop(0)(self.now)
            for endpoint in self._endpoints:
                self._drain(endpoint)

    def _drain(self, endpoint: Endpoint) -> None:
        while endpoint.out or endpoint.events:
            out = list(endpoint.out)
            endpoint.out.clear()
            for data, flow in out:
                self._send(endpoint, data, flow)
            while endpoint.events:
                event = endpoint.events.popleft()
                if isinstance(event, ResolutionWanted):
                    found = self.hosts.get(event.host)
                    endpoint.resolved(event, found or ResolutionError(f"{event.host} has no address"), self.now)
                else:
                    self.events.append((endpoint, event))

    def _send(self, endpoint: Endpoint, data: bytes, flow: Flow) -> None:
        listener = flow.listener
        if listener.transport == "udp":
            self.send("udp", (listener.host, listener.port), flow.remote, data)
            return
        if flow.closed:
            endpoint.flow_failed(flow, FlowClosed("the connection has ended"), self.now)
            return
        local = self._connections.get(flow)
        if local is None:
            there = listener.transport, flow.remote
            if there not in self._listeners and there not in self._stations:
                endpoint.flow_failed(flow, FlowClosed("connection refused"), self.now)
                return
            self._port += 1
            local = self._connections[flow] = (listener.host, self._port)
            self._streams[flow.remote, local] = endpoint, flow
        self.send(listener.transport, local, flow.remote, data)

    def fail(self, endpoint: Endpoint, flow: Flow, error: TransportError) -> None:
        """The host reports a broken flow."""
        endpoint.flow_failed(flow, error, self.now)
        self.flush()

    def hang_up(self, address: Address) -> None:
        """The station at `address` closes all its connections; the endpoints' hosts report them broken."""
        for key, (endpoint, flow) in list(self._streams.items()):
            if key[0] == address:
                del self._streams[key]
                self._connections.pop(flow, None)
                endpoint.flow_failed(flow, FlowClosed("the far side closed the connection"), self.now)
        self.flush()

    # time
    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        self.flush()
        while True:
            timer_at = min([endpoint.next_at() for endpoint in self._endpoints], default=NEVER)
            arrives_at = self._queue[0][0] if self._queue else NEVER
            at = min(timer_at, arrives_at)
            if at > until:
                break
            self.now = max(self.now, at)
            if arrives_at <= timer_at:
                _, _, transport, source, to, data = heapq.heappop(self._queue)
                self._deliver(transport, source, to, data)
            else:
                for endpoint in self._endpoints:
                    endpoint.handle_timer(self.now)
            self.flush()
        self.now = until

    def _deliver(self, transport: str, source: Address, to: Address, data: bytes) -> None:
        station = self._stations.get((transport, to))
        if station is not None:
            station.log.append(data)
            if station.on_receive is not None:
                station.on_receive(data, source)
            else:
                station.inbox.append(data)
            return
        if transport == "udp":
            found = self._listeners.get(("udp", to))
            if found is not None:
                endpoint, listener = found
                endpoint.receive(data, endpoint.flow_for(listener, source), self.now)
            return
        stream = self._streams.get((source, to))
        if stream is None:
            found = self._listeners.get((transport, to))
            if found is None:
                return
            accepted = found[0].accept(found[1], source)
            if accepted is None:
                return
            stream = self._streams[source, to] = found[0], accepted
            self._connections[accepted] = to
        stream[0].receive_stream(data, stream[1], self.now)
