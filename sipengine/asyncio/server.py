"""Gives an endpoint its sockets, its clock and its resolver, in one event loop (asyncio or uvloop).

What enters the engine goes through here and leaves at once: datagram in, engine, datagrams out, in one call chain.
There is one timer for the engine's one deadline.  Does not read settings; of the events only resolution is its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from ipaddress import ip_address
from math import inf
from typing import ParamSpec, TypeVar

from sipengine.asyncio import tls_report, udp
from sipengine.asyncio.resolver import Resolver
from sipengine.asyncio.tcp import Kind, TcpConnection, TcpFlows, TcpLimits
from sipengine.asyncio.tls import Tls, TlsFiles, TlsUnusable
from sipengine.asyncio.tls_report import TlsReport
from sipengine.asyncio.udp import UdpSocket
from sipengine.asyncio.websocket import WsConnection
from sipengine.endpoint import Endpoint
from sipengine.events import ResolutionWanted, Target
from sipengine.exceptions import ResolutionError, TransportError
from sipengine.transport.flow import SECURE, WEBSOCKET, Flow, Listener

log = logging.getLogger("sipengine")

P = ParamSpec("P")
T = TypeVar("T")

TRANSPORTS = ("udp", "tcp", "tls", "ws", "wss")
SLACK = 0.01
"""The timer is never set closer than this: deadlines that lie together are served together."""
MAX_LOCAL = 64
"""Local addresses of a wildcard socket that get a listener of their own; 127.0.0.0/8 alone has 16 million."""
DRAIN_STEP = 0.05


class SocketUnavailable(OSError):
    """A socket cannot be opened; the text names cause and cure."""


class SipServer:
    """An endpoint on real sockets.

    `on_events` is called after each call into the engine that left events; it takes them out of `endpoint.events`.
    `ws_origins` are those of the web pages that may connect over WebSocket, ``*`` is any.
    """

    def __init__(
        self, endpoint: Endpoint, listen: Sequence[str], on_events: Callable[[], None],
        *, resolver: Resolver | None = None, tcp_limits: TcpLimits | None = None,
        tls: TlsFiles | None = None, ws_origins: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.endpoint = endpoint
        self.listen = [parse_listen(spec) for spec in listen]
        self.resolver = resolver or Resolver()
        self._tcp_limits = tcp_limits
        self._tls_files = tls or TlsFiles()
        self._ws_origins = tuple(ws_origins)
        self._on_events = on_events
        self._udp: list[UdpSocket] = []
        self._udp_of: dict[Listener, UdpSocket] = {}
        self._tcp: TcpFlows | None = None
        self._local: dict[tuple[str, str, int], Listener] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = self._timer_due = inf
        self._lag = endpoint.overload.gauge()
        self._resolving: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._closed = False

    # life
    async def start(self) -> None:
        """Open every socket; SocketUnavailable when one cannot be had, and then none stays open."""
        self._loop = asyncio.get_running_loop()
        try:
            tls = Tls(self._tls_files) if any(transport in SECURE for transport, _, _ in self.listen) else None
        except TlsUnusable as error:
            raise SocketUnavailable(str(error)) from None
        self._tcp = TcpFlows(
            receive=self._receive_stream, failed=self._failed, accept=self.endpoint.accept, limits=self._tcp_limits,
            tls=tls, policy=self.endpoint.transactions.peers.tls,
        )  # fmt: skip
        try:
            for transport, host, port in self.listen:
                try:
                    await self._open(transport, host, port)
                except OSError as error:
                    raise _unavailable(transport, host, port, error) from error
        except SocketUnavailable:
            await self._close()
            raise
        self.endpoint.registrations.requests.open_listener = self._open_listener
        self.endpoint.resume = self._resume
        self.endpoint.defer = self._defer
        self.flush()

    async def _open(self, transport: str, host: str, port: int) -> None:
        assert self._tcp is not None
        if transport == "udp":
            sock = udp.bind(host, port)
            opened = UdpSocket(
                sock, flow_for=self.endpoint.flow_for, listener_at=lambda local: self._listener_at("udp", local, bound),
                receive=self.endpoint.receive, after=self.flush, failed=self._failed,
                gauge=self.endpoint.overload.gauge(),
            )  # fmt: skip
            bound = opened.address[1]
            listener = self.endpoint.add_listener("udp", host, bound)
            self._local["udp", host, bound] = listener
            self._udp.append(opened)
            self._udp_of[listener] = opened
            opened.start()
        else:
            def listener_at(local: str) -> Listener:
                return self._listener_at(transport, local, bound)

            kind: Kind = TcpConnection
            if transport in WEBSOCKET:
                kind = partial(WsConnection, origins=self._ws_origins)
            if transport not in SECURE:
                bound = await self._tcp.listen(host, port, listener_at, kind)
            elif self._tls_files.certificate is not None:
                bound = self._tcp.listen_tls(host, port, listener_at, kind)
            elif transport in WEBSOCKET:  # nobody could connect, and we never do
                raise OSError("it needs TRUNKMGR_TLS_CERTIFICATE")
            else:
                bound = port or 5061  # nothing to show to whoever connects: only we do
                log.info("Nobody can connect to %s:%s:%d: TRUNKMGR_TLS_CERTIFICATE is not set.", transport, host, bound)
            self._local[transport, host, bound] = self.endpoint.add_listener(transport, host, bound)

    async def stop(self, drain: float = 5.0) -> None:
        """Finish running transactions for up to `drain` seconds, then close every socket."""
        if self._stopped:
            return
        self._stopped = True
        if self._tcp is not None:
            self._tcp.stop_accepting()
            until = self.now() + drain
            while self.endpoint.unanswered and self.now() < until:
                await asyncio.sleep(DRAIN_STEP)
        await self._close()

    @property
    def dropped(self) -> int:
        """Datagrams that the kernel did not take."""
        return sum(opened.dropped for opened in self._udp)

    @property
    def ended(self) -> Mapping[str, int]:
        """Connections refused or ended, by why, as `TcpFlows.ended`."""
        return self._tcp.ended if self._tcp is not None else {}

    async def _close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._resolving:
            task.cancel()
        for opened in self._udp:
            opened.close()
        if self._tcp is not None:
            await self._tcp.close()

    async def locate(self, uri: bytes | str, timeout: float) -> list[Target]:
        """Return the targets of a URI in their order; ResolutionError where there are none within `timeout` seconds."""
        located: asyncio.Future[list[Target] | ResolutionError] = self._loop.create_future()

        def on_targets(targets: list[Target] | ResolutionError, now: float) -> None:
            if not located.done():
                located.set_result(targets)

        self.call(self.endpoint.locate, uri, on_targets, self.now())
        await asyncio.wait([located], timeout=timeout)
        targets = located.result() if located.done() else ResolutionError(f"DNS has not answered in {timeout:g} s.")
        if isinstance(targets, ResolutionError):
            raise targets
        return targets

    async def look_at_tls(self, target: Target, local: str, timeout: float) -> TlsReport:
        """Open a connection of its own to a TLS target from the address `local`, and say what came of it."""
        assert self._tcp is not None and self._tcp.tls is not None
        host, port = target.address
        policy = self.endpoint.transactions.peers.tls(target.names, host)
        return await tls_report.look(self._tcp.tls, policy, host, port, local, timeout)

    @property
    def speaks_tls(self) -> bool:
        return self._tcp is not None and self._tcp.tls is not None

    # calls into the engine
    @staticmethod
    def now() -> float:
        """Engine clock: monotonic seconds."""
        return time.monotonic()

    def call(self, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a verb of the engine, then send what it left, tell of its events and set the timer."""
        try:
            return verb(*args, **kwargs)
        finally:
            self.flush()

    def _resume(self, verb: Callable[[float], None]) -> None:
        self.call(verb, time.monotonic())

    def _defer(self, verb: Callable[[float], None]) -> None:
        self._loop.call_soon(self._resume, verb)

    def flush(self) -> None:
        """Send what the engine left, tell of its events, set the timer."""
        endpoint = self.endpoint
        if self._closed:
            endpoint.out.clear()
            return
        if endpoint.out:
            self._send_out()
        if endpoint.events:
            self._take_events()
        at = endpoint.next_at()
        if at < self._timer_at:
            self._set_timer(at)

    def _receive_stream(self, data: bytes, flow: Flow) -> None:
        self.endpoint.receive_stream(data, flow, time.monotonic())
        self.flush()

    def _failed(self, flow: Flow, error: TransportError) -> None:
        self.endpoint.flow_failed(flow, error, time.monotonic())
        # Possibly inside _send_out, which goes on with what this left; whoever is outside flushes in the next turn.
        self._set_timer(0.0)

    def _send_out(self) -> None:
        out, sockets = self.endpoint.out, self._udp_of
        for data, flow in out:  # grows while a failing send makes the engine answer
            opened = sockets.get(flow.listener)
            if opened is not None:
                opened.send(data, flow)
            elif self._tcp is not None:
                self._tcp.send(data, flow)
        out.clear()

    def _take_events(self) -> None:
        events = self.endpoint.events
        wanted = [event for event in events if type(event) is ResolutionWanted]
        if wanted:
            others = [event for event in events if type(event) is not ResolutionWanted]
            events.clear()
            events.extend(others)
            for query in wanted:
                task = self._loop.create_task(self._resolve(query))
                self._resolving.add(task)
                task.add_done_callback(self._resolving.discard)
        if events:
            self._on_events()

    async def _resolve(self, query: ResolutionWanted) -> None:
        try:
            found = await self.resolver.resolve(query)
        except ResolutionError as error:
            self.call(self.endpoint.resolved, query, error, time.monotonic())
        else:
            self.call(self.endpoint.resolved, query, found, time.monotonic())

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        now = time.monotonic()
        delay = max(at - now, SLACK)
        self._timer_due = now + delay
        self._timer = self._loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_at = inf
        now = time.monotonic()
        self._lag.measured(now - self._timer_due, now)
        try:
            self.endpoint.handle_timer(now)
        finally:  # whatever fell over must not stop the clock of all others
            self.flush()

    # local addresses
    def _listener_at(self, transport: str, local: str, port: int) -> Listener:
        """The listener of a local address: the bound one, or one made for this address of a wildcard socket."""
        key = (transport, local, port)
        listener = self._local.get(key)
        if listener is None:
            wildcard = self._local[transport, "::" if ":" in local else "0.0.0.0", port]  # noqa: S104
            if len(self._local) >= MAX_LOCAL:
                return wildcard
            listener = self._local[key] = self.endpoint.add_listener(transport, local, port)
            if transport == "udp":
                self._udp_of[listener] = self._udp_of[wildcard]
        return listener

    def _open_listener(self, transport: str, host: str, port: int) -> Listener | None:
        """The listener for an address that a row names: one that a wildcard socket covers, if the address is ours."""
        any_address = "::" if ":" in host else "0.0.0.0"  # noqa: S104
        if (transport, any_address, port) not in self._local or not is_local(host):
            return None
        return self._listener_at(transport, host, port)


def parse_listen(spec: str) -> tuple[str, str, int]:
    """``udp:127.0.0.1:5060`` or ``tls:[::1]:5061`` → transport, host, port; ValueError names cause and cure."""
    transport, _, rest = spec.strip().partition(":")
    host, _, port = rest.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    transport = transport.lower()
    try:
        host = str(ip_address(host))
        number = int(port)
    except ValueError:
        number = -1
    if transport not in TRANSPORTS or not 0 <= number < 65536:
        raise ValueError(f"{spec!r} is no socket to listen on. Write udp:, tcp:, tls:, ws: or wss:ADDRESS:PORT.")
    return transport, host, number


def _unavailable(transport: str, host: str, port: int, error: OSError) -> SocketUnavailable:
    name = f"{transport}:[{host}]:{port}" if ":" in host else f"{transport}:{host}:{port}"
    causes = {
        errno.EADDRINUSE: f"{name} is taken by another program. Stop it, or set TRUNKMGR_SIP_LISTEN to another port.",
        errno.EADDRNOTAVAIL: f"{host} is no address of this machine. Set TRUNKMGR_SIP_LISTEN to one that is.",
        errno.EACCES: f"{name} needs a right that this user has not. Set TRUNKMGR_SIP_LISTEN to a port above 1023.",
    }
    code = error.errno or 0
    text = causes.get(code, f"{name} cannot be opened: {error.strerror or error}. Check TRUNKMGR_SIP_LISTEN.")
    return SocketUnavailable(code, text)


def is_local(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def local_address(transport: str, remote_host: str) -> str:
    """Local host of the kernel's route to `remote_host`; sends nothing.  For `Endpoint(local_address=…)`."""
    family = socket.AF_INET6 if ":" in remote_host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect((remote_host, 9))
        return str(probe.getsockname()[0])
    return "::1" if family == socket.AF_INET6 else "127.0.0.1"
