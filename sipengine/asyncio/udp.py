"""UDP sockets (RFC 3261 §18, RFC 3581 §4): raw and non-blocking, asyncio's own protocol costs five times as much.

A socket bound to one address uses `recvfrom`; one bound to all addresses learns from IP_PKTINFO which of them a
datagram came for and answers from there.  Does not parse and does not retransmit.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from ipaddress import ip_address

from sipengine.exceptions import TransportError
from sipengine.overload import Gauge
from sipengine.transport.flow import Address, Flow, Listener

DRAIN = 64
"""Datagrams read in one turn of the loop; then timers and everything else have theirs."""
BUFFER = 4 * 1024 * 1024
"""Asked of the kernel for both directions; without CAP_NET_ADMIN net.core.rmem_max and wmem_max cap it."""
BUSY, PAUSE = 2000, 0.004
"""Above so many datagrams a second the socket is read once in `PAUSE` seconds: waking up for each of them costs more
than serving it, as with the interrupts of a network card.  What comes waits four or five milliseconds at most, and
what it makes us send leaves at the end of the turn: the peer wakes up once for all of it.
"""
QUEUE = 2000
"""Datagrams kept while the kernel takes no more; beyond it they are dropped as the network would."""

_NO_WAY = frozenset({
    errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EPERM, errno.EINVAL, errno.EADDRNOTAVAIL,
    errno.EAFNOSUPPORT,
})  # fmt: skip
"""Errors that hold for every datagram to that address; others are the loss of one."""

_PKTINFO4 = struct.Struct("@i4s4s")
_PKTINFO6 = struct.Struct("@16si")
# Linux numbers; the socket module of Python 3.11 does not name them.
_IP_PKTINFO = 8
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@qq")
SAMPLE = 16
"""Of so many datagrams one is asked when it came: reading the kernel's stamp costs as much as reading the datagram."""

Receive = Callable[[bytes, Flow, float], None]
"""`(datagram, flow, now)`; what is read in one turn is served as of its beginning."""


class UdpSocket:
    """One bound socket.  `receive` is called for each datagram, `after` once for each turn that had some."""

    def __init__(
        self, sock: socket.socket, *,
        flow_for: Callable[[Listener, Address], Flow], listener_at: Callable[[str], Listener], receive: Receive,
        after: Callable[[], None], failed: Callable[[Flow, TransportError], None], gauge: Gauge | None = None,
    ) -> None:  # fmt: skip
        self.sock = sock
        self.address: Address = sock.getsockname()[:2]
        self.wildcard = ip_address(self.address[0]).is_unspecified
        self.dropped = 0
        self._flow_for = flow_for
        self._listener_at = listener_at
        self._receive = receive
        self._after = after
        self._failed = failed
        self._gauge = gauge
        self._unsampled = SAMPLE
        self._counted = 0
        self._counted_at = 0.0
        self._read: Callable[[], int] = self._read_any if self.wildcard else self._read_one
        self._loop = asyncio.get_running_loop()
        self._budget = DRAIN
        self._queue: deque[tuple[bytes, Flow]] = deque()
        self._listener: Listener | None = None
        self.send: Callable[[bytes, Flow], None] = self._send_from if self.wildcard else self._send

    def start(self) -> None:
        """Begin to read; the listener must be known by now."""
        if not self.wildcard:
            self._listener = self._listener_at(self.address[0])
        self._loop.add_reader(self.sock.fileno(), self._readable)

    # receiving
    def _readable(self) -> None:
        """There is something to read: once, or, from a busy socket, again and again until a look finds nothing."""
        self._counted += self._read()
        if self._counted >= SAMPLE:
            now = time.monotonic()
            busy = self._counted > BUSY * (now - self._counted_at)
            self._counted, self._counted_at = 0, now
            if busy:
                self._loop.remove_reader(self.sock.fileno())
                self._loop.call_later(PAUSE, self._look)

    def _look(self) -> None:
        if self.sock.fileno() < 0:
            return
        read = 0
        self._budget = DRAIN
        try:
            read = self._read()
        finally:  # whatever fell over must not leave us deaf
            if read:
                self._loop.call_later(PAUSE if read < DRAIN else 0, self._look)
            else:
                self._loop.add_reader(self.sock.fileno(), self._readable)

    def _read_one(self) -> int:
        recvfrom, receive, flow_for = self.sock.recvfrom, self._receive, self._flow_for
        now = time.monotonic()
        listener = self._listener
        assert listener is not None
        flows = listener.flows
        read = 0
        budget = self._budget
        try:
            if self._unsampled >= SAMPLE and self._gauge is not None:
                self._unsampled = 0
                try:
                    data, ancillary, _, source = self.sock.recvmsg(65535, 64)
                except OSError:
                    budget = 1  # nothing there, or the ICMP of an earlier datagram
                else:
                    read = 1
                    self._gauge.measured(_waited(ancillary), now)
                    remote = source[:2]
                    receive(data, flows.get(remote) or flow_for(listener, remote), now)
            while read < budget:
                try:
                    data, source = recvfrom(65535)
                except BlockingIOError:
                    break
                except OSError:
                    read += 1  # ICMP for an earlier datagram; the transaction's own timers judge that
                    continue
                read += 1
                remote = source if len(source) == 2 else source[:2]
                receive(data, flows.get(remote) or flow_for(listener, remote), now)
        finally:  # what was received before a fault has its answers
            if read:
                self._after()
        # Asking until the kernel says no costs an exception a turn: a calm socket is read once, a busy one more often.
        self._budget = min(DRAIN, 2 * budget) if read >= budget else max(1, read)
        self._unsampled += read
        return read

    def _read_any(self) -> int:
        recvmsg, receive = self.sock.recvmsg, self._receive
        now = time.monotonic()
        read = 0
        try:
            while read < DRAIN:
                try:
                    data, ancillary, _, source = recvmsg(65535, 128)
                except BlockingIOError:
                    break
                except OSError:
                    read += 1
                    continue
                read += 1
                if read == 1 and self._gauge is not None:
                    self._gauge.measured(_waited(ancillary), now)
                listener = self._listener_at(_destination(ancillary) or self.address[0])
                receive(data, self._flow_for(listener, source[:2]), now)
        finally:
            if read:
                self._after()
        return read

    # sending
    def _send(self, data: bytes, flow: Flow) -> None:
        if self._queue:
            self._enqueue(data, flow)
            return
        try:
            self.sock.sendto(data, flow.remote)
        except BlockingIOError:
            self._enqueue(data, flow)
        except OSError as error:
            self._give_up(flow, error)

    def _send_from(self, data: bytes, flow: Flow) -> None:
        if self._queue:
            self._enqueue(data, flow)
            return
        host = flow.listener.host
        try:
            if host == self.address[0]:  # no address chosen: the kernel takes the one of the route
                self.sock.sendto(data, flow.remote)
            else:
                self.sock.sendmsg([data], [_source(host)], 0, flow.remote)
        except BlockingIOError:
            self._enqueue(data, flow)
        except OSError as error:
            self._give_up(flow, error)

    def _give_up(self, flow: Flow, error: OSError) -> None:
        if error.errno not in _NO_WAY:
            self.dropped += 1  # ECONNREFUSED of an earlier datagram, a full device queue: the network may lose as well
            return
        host, port = flow.remote
        self._failed(flow, TransportError(f"{flow.listener!r} cannot send to {host} port {port}: {error.strerror}."))

    def _enqueue(self, data: bytes, flow: Flow) -> None:
        if len(self._queue) >= QUEUE:
            self.dropped += 1
            return
        if not self._queue:
            self._loop.add_writer(self.sock.fileno(), self._writable)
        self._queue.append((data, flow))

    def _writable(self) -> None:
        waiting, self._queue = self._queue, deque()
        self._loop.remove_writer(self.sock.fileno())
        while waiting and not self._queue:
            self.send(*waiting.popleft())
        self._queue.extend(waiting)

    def close(self) -> None:
        self._loop.remove_reader(self.sock.fileno())  # also where there is none at the moment
        self._loop.remove_writer(self.sock.fileno())
        self.sock.close()


def bind(host: str, port: int) -> socket.socket:
    """Bind a non-blocking socket; OSError when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        for asked, forced in ((socket.SO_RCVBUF, _SO_RCVBUFFORCE), (socket.SO_SNDBUF, _SO_SNDBUFFORCE)):
            try:
                sock.setsockopt(socket.SOL_SOCKET, forced, BUFFER)
            except PermissionError:
                sock.setsockopt(socket.SOL_SOCKET, asked, BUFFER)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if ip_address(host).is_unspecified:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def _destination(ancillary: list[tuple[int, int, bytes]]) -> str | None:
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            return socket.inet_ntop(socket.AF_INET, _PKTINFO4.unpack_from(data)[1])
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return socket.inet_ntop(socket.AF_INET6, _PKTINFO6.unpack_from(data)[0])
    return None


def _waited(ancillary: list[tuple[int, int, bytes]]) -> float:
    """Seconds since the kernel took the datagram; never negative, although its clock may be set."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            wait: float = time.time() - seconds - nanoseconds / 1e9
            return max(0.0, wait)
    return 0.0


def _source(host: str) -> tuple[int, int, bytes]:
    """Ancillary data that makes a datagram leave from `host`."""
    if ":" in host:
        packed = _PKTINFO6.pack(socket.inet_pton(socket.AF_INET6, host), 0)
        return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, packed
    return socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO4.pack(0, socket.inet_pton(socket.AF_INET, host), b"\0\0\0\0")
