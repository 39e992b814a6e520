"""The transport layer without its sockets: our names, flows, Via on receipt, where responses go (RFC 3261 §18, RFC
3581).

`maddr` in Via is deliberately not followed: it would let anybody aim our responses.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from sipengine.exceptions import LocalProtocolError, ParseError, TransportError
from sipengine.message.fields import CACHE_KEY, CACHE_LIMIT
from sipengine.message.message import Message, value_of
from sipengine.message.uri import split_host_port
from sipengine.message.values import Via, first_value, split_list, split_params
from sipengine.transport.flow import WEBSOCKET, Address, Flow, Listener

LocalAddress = Callable[[str, str], str]
"""`(transport, remote host) → local host` that the route to it uses; the host asks the kernel."""

MAX_FLOWS = 16384
WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, never bound here


def no_local_address(transport: str, remote_host: str) -> str:
    raise LocalProtocolError("a listener on a wildcard address needs local_address")


def host_port(host: str, port: int) -> bytes:
    return b"[%b]:%d" % (host.encode(), port) if ":" in host else b"%b:%d" % (host.encode(), port)


class TransportLayer:
    def __init__(self, local_address: LocalAddress) -> None:
        self.listeners: list[Listener] = []
        self.own: set[tuple[bytes, int]] = set()
        """Names by which a URI or a sent-by is ours: host in lower case and port."""
        self._local_address = local_address
        self._local: dict[tuple[str, str], str] = {}
        self._names: dict[tuple[str, bytes], tuple[bytes, bytes]] = {}
        self._peers: dict[bytes, tuple[bytes, str, int]] = {}
        self._no_peer: dict[Address, bool] = {}

    # listeners and flows
    def add_listener(self, transport: str, host: str, port: int, sent_by: bytes | None = None) -> Listener:
        if sent_by is None:
            sent_by = b"" if host in WILDCARDS else host_port(host, port)
        listener = Listener(transport, host, port, sent_by)
        self.listeners.append(listener)
        if host not in WILDCARDS:
            self._own(host_port(host, port))
        if sent_by:
            self._own(sent_by)
        return listener

    def _own(self, sent_by: bytes) -> None:
        host, port = split_host_port(sent_by)
        self.own.update((host.lower(), each) for each in ((port,) if port else (5060, 5061)))
        self._no_peer.clear()

    def add_alias(self, name: str) -> None:
        self._own(name.encode())

    def is_own(self, host: bytes, port: int | None) -> bool:
        return (host.lower(), port or 5060) in self.own

    def flow_for(self, listener: Listener, remote: Address, names: tuple[str, ...] = ()) -> Flow:
        """UDP: the flow to that address.  Stream: the live connection to it, or a new flow that the host opens when it
        sends; with `names` only one that is for the first of them.  WebSocket: what no peer has opened is closed.
        """
        key = (*remote, names[0]) if names else remote
        flow = listener.flows.get(key)
        if flow is not None and not flow.closed:
            return flow
        if listener.transport != "udp" and not names:
            for other in self.listeners:  # nobody listens at the port of a connection that the peer opened
                flow = other.flows.get(remote) if other.transport == listener.transport else None
                if flow is not None and flow.accepted and not flow.closed:
                    return flow
        flow = Flow(listener, remote)
        self.name(flow)
        if listener.transport in WEBSOCKET:
            flow.closed = True  # the peer is not connected, and nobody listens there
            return flow
        if names:
            flow.names = names
            listener.flows[key] = flow
            # Whoever has only the address, as from a Contact, is content with any peer that proved its name.
            listener.flows.setdefault(remote, flow)
            return flow
        if listener.transport == "udp" and len(listener.flows) >= MAX_FLOWS:
            listener.flows.clear()
        listener.flows[remote] = flow
        return flow

    def name(self, flow: Flow) -> None:
        """Fill in what we are called towards the flow's remote."""
        listener = flow.listener
        sent_by = listener.sent_by
        if not sent_by:
            sent_by = host_port(self._local_host(listener.transport, flow.remote[0]), listener.port)
            self._own(sent_by)
        key = (listener.transport, sent_by)
        names = self._names.get(key)
        if names is None:
            # RFC 7118 §5.2: Via tells WS from WSS, a URI knows only ws.
            by = b"ws" if listener.transport in WEBSOCKET else listener.transport.encode()
            by = b"" if by == b"udp" else b";transport=" + by
            via = b"Via: SIP/2.0/%b %b;branch=z9hG4bK" % (listener.transport.upper().encode(), sent_by)
            names = self._names[key] = (via, b"<sip:%b%b;lr" % (sent_by, by))
        flow.sent_by = sent_by
        flow.via, flow.route = names

    def _local_host(self, transport: str, remote_host: str) -> str:
        key = (transport, remote_host)
        host = self._local.get(key)
        if host is None:
            host = self._local_address(transport, remote_host)
            if len(self._local) >= CACHE_LIMIT:
                self._local.clear()
            self._local[key] = host
        return host

    def listener_for(
        self, transport: str, remote_host: str, preferred: Listener | None = None, port: int = 0
    ) -> Listener:
        """Choose the listener from which `remote_host` is reached: `preferred`, one of its address, else by the route.

        TransportError when none has that transport and family, or when nothing may be sent there: no host, a group of
        hosts, or (with `port`) ourselves; without it a request of the proxy comes round once and is answered 482.
        """
        no_peer = self._no_peer.get((remote_host, port))
        if no_peer is None:
            no_peer = self._judge(remote_host, port)
        if no_peer:
            raise TransportError(f"{remote_host} is no peer: a group of hosts, no host, or ourselves")
        v6 = ":" in remote_host
        if preferred is not None and preferred.transport == transport and preferred.v6 == v6:
            return preferred
        candidates = [x for x in self.listeners if x.transport == transport and x.v6 == v6]
        if not candidates:
            raise TransportError(f"no listener for {transport} to {remote_host}; add one to TRUNKMGR_SIP_LISTEN")
        if len(candidates) > 1 and preferred is not None:
            for listener in candidates:
                if listener.host == preferred.host:
                    return listener
        if len(candidates) > 1 and self._local_address is not no_local_address:
            local = self._local_host(transport, remote_host)
            for listener in candidates:
                if listener.host == local:
                    return listener
        return candidates[0]

    def _judge(self, host: str, port: int) -> bool:
        """Whether an address is none of a single peer: what a stranger names must not make us an amplifier or a loop.
        """
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        no_peer = address.is_multicast or address.is_unspecified or host == "255.255.255.255"
        no_peer = no_peer or (port > 0 and self._is_here(host, port))
        if len(self._no_peer) >= CACHE_LIMIT:
            self._no_peer.clear()
        self._no_peer[host, port] = no_peer
        return no_peer

    def _is_here(self, host: str, port: int) -> bool:
        return (b"[%b]" % host.encode() if ":" in host else host.encode(), port) in self.own

    def close(self, flow: Flow) -> None:
        flow.closed = True
        flows = flow.listener.flows
        if flows.get(flow.remote) is flow:
            del flows[flow.remote]
        if flow.names and flows.get((*flow.remote, flow.names[0])) is flow:
            del flows[(*flow.remote, flow.names[0])]

    # requests received
    def receive_via(self, message: Message, position: int, flow: Flow) -> tuple[bytes, Flow]:
        """Note where a request came from in its top Via (§18.2.1, RFC 3581 §4).

        Returns the sent-by in lower case and the flow on which responses go (§18.2.2).
        """
        line = message.lines[position]
        first, comma, more = line.partition(b",")
        quoted = first.find(b'"') >= 0
        if quoted:
            first = first_value(line)
            comma, more = line[len(first) : len(first) + 1], line[len(first) + 1 :]
        sent, _, rest = first.partition(b";")
        peer = self._peers.get(sent)
        if peer is None:
            peer = self._learn_peer(sent)
        sent_by, host, port = peer
        remote = flow.remote
        if rest.find(b"rport") >= 0 or rest.find(b"received") >= 0:
            k = first.find(b";rport;")
            if k >= 0 and not quoted and rest.find(b"received") < 0:
                address = remote[0].encode()
                line = b"%b;received=%b;rport=%d%b" % (first[:k], address, remote[1], first[k + 6 :])
            else:
                line, answer_to_source = _fill_via(sent, rest, remote)
                if not answer_to_source:
                    message.lines[position] = line + comma + more
                    return sent_by, self._reply_flow(flow, remote, port)
            message.lines[position] = line + comma + more
            return sent_by, flow
        if host != remote[0]:
            message.lines[position] = first + b";received=" + remote[0].encode() + comma + more
            return sent_by, self._reply_flow(flow, remote, port)
        return sent_by, flow if port == remote[1] else self._reply_flow(flow, remote, port)

    def _reply_flow(self, flow: Flow, remote: Address, port: int) -> Flow:
        if flow.reliable:
            return flow
        if self._is_here(remote[0], port):
            raise ParseError("its response would come to ourselves")
        return self.flow_for(flow.listener, (remote[0], port))

    def _learn_peer(self, sent: bytes) -> tuple[bytes, str, int]:
        via = Via.parse(value_of(sent))
        port = via.port or (5061 if via.transport == b"TLS" else 5060)
        host = via.host.strip(b"[]").decode("ascii", "replace")
        peer = (b"%b:%d" % (via.host.lower(), port), host, port)
        if len(self._peers) < CACHE_LIMIT and len(sent) <= CACHE_KEY:
            self._peers[sent] = peer
        return peer

    def reply_flow_of(self, via_line: bytes, closed: Flow) -> Flow:
        """A new connection for a response whose own connection ended: source address and sent-by port (§18.2.2)."""
        via = Via.parse(split_list(value_of(via_line))[0])
        return self.flow_for(closed.listener, (closed.remote[0], via.port or (5061 if closed.secure else 5060)))

    # responses received
    def own_branch(self, via_line: bytes, flow: Flow) -> bytes:
        """Branch behind the magic cookie when the top Via value is ours, else ParseError (§18.1.2)."""
        prefix = flow.via
        if via_line.startswith(prefix):
            branch = via_line[len(prefix) :].partition(b";")[0]
            return branch if branch.isalnum() else branch.partition(b",")[0].strip()
        via = Via.parse(split_list(value_of(via_line))[0])
        if not self.is_own(via.host, via.port or (5061 if flow.secure else 5060)):
            raise ParseError("the top Via of a response is not ours")
        return via.branch[7:]


def _fill_via(sent: bytes, rest: bytes, remote: Address) -> tuple[bytes, bool]:
    """The general case: `received` and `rport` that a client filled itself are overwritten."""
    parts = [sent]
    rport = False
    for name, value in split_params(rest):
        if name == b"received":
            continue
        if name == b"rport":
            rport = True
            continue
        parts.append(name if value is None else name + b"=" + value)
    parts.append(b"received=" + remote[0].encode())
    if rport:
        parts.append(b"rport=%d" % remote[1])
    return b";".join(parts), rport
