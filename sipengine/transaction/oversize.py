"""Requests that are too long for a datagram go over TCP, and over UDP when TCP fails (RFC 3261 §18.1.1).

The length counts once all of our own header lines are in.  Responses go back the way their request came, whatever
their length.  Record-Route is left as it is: it says how to reach us, and each later request is judged by its own
length.
"""

from __future__ import annotations

from sipengine.exceptions import TransportError
from sipengine.message.fields import CACHE_LIMIT
from sipengine.transaction.client import ClientTransaction, InviteClient
from sipengine.transaction.tables import CALLING
from sipengine.transport.flow import Address, Flow
from sipengine.transport.layer import TransportLayer
from sipengine.transport.peers import PeerBook

LONGEST_DATAGRAM = 1300
"""§18.1.1: within 200 bytes of the path MTU, or more than this where that is unknown; it is unknown to us."""
NO_TCP = 300.0
"""An address that took no connection is not asked for one again in this time: callers wait for the attempt."""


class Oversize:
    """Part of the transaction layer; touched by long requests only."""

    def __init__(self, transport: TransportLayer, peers: PeerBook) -> None:
        self.peers = peers
        self.second: dict[bytes, tuple[Flow, bytes, bytes]] = {}
        """By branch: UDP flow, Via line over TCP, Via line over UDP of a request that TCP may yet fail."""
        self._transport = transport
        self._no_tcp: dict[Address, float] = {}

    def flow_for(self, flow: Flow, now: float) -> Flow:
        """The flow for a long request that was to go over `flow`: a TCP flow to the same peer where one may be had."""
        remote = flow.remote
        if flow.reliable or now < self._no_tcp.get(remote, 0.0) or self.peers.udp_only(remote[0]):
            return flow
        try:
            listener = self._transport.listener_for("tcp", remote[0], flow.listener)
        except TransportError:
            return flow
        return self._transport.flow_for(listener, remote)

    def fall_back(self, client: ClientTransaction, now: float) -> bool:
        """Send a request again over UDP after its connection failed; False when that is not this case.

        The branch stays: should the peer have read it after all, it sees a repetition.
        """
        found = self.second.pop(client.branch, None)
        if found is None or client.state != CALLING:
            return False
        client.flow, over_tcp, over_udp = found
        client.wire = client.wire.replace(over_tcp, over_udp, 1)
        if isinstance(client, InviteClient):
            client.head[0] = over_udp
        client.spent = 0.0
        client.start(now)
        return True

    def tcp_failed(self, flow: Flow, now: float) -> None:
        """Remember a peer that took no connection, or never said anything on it."""
        if flow.accepted or flow.framer is not None or flow.listener.transport != "tcp":
            return
        if len(self._no_tcp) >= CACHE_LIMIT:
            self._no_tcp.clear()
        self._no_tcp[flow.remote] = now + NO_TCP
