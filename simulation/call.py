"""One end of one call: what a dialog must remember to send requests within it (RFC 3261 §12)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from simulation.peer import Address, Peer
from sipengine.message import Message, NameAddr


@dataclass(slots=True)
class Call:
    """`local` and `remote` are From and To as this side writes them, tags included."""

    call_id: bytes
    local: bytes
    remote: bytes
    target: bytes
    """Where requests within the call go: the far side's Contact."""
    routes: Sequence[bytes] = field(default_factory=tuple)
    cseq: int = 1
    invite: Message | None = None
    source: Address = ("127.0.0.1", 0)
    cancelled: bool = False

    def request(self, peer: Peer, method: bytes, cseq: int | None = None) -> Message:
        """Build a request within the call; without `cseq` it takes the next number."""
        if cseq is None:
            self.cseq += 1
            cseq = self.cseq
        routes = [(b"Route", route) for route in self.routes]
        return peer.request(
            method,
            self.target,
            [
                *routes,
                (b"From", self.local),
                (b"To", self.remote),
                (b"Call-ID", self.call_id),
                (b"CSeq", b"%d %b" % (cseq, method)),
            ],
        )


def contact_of(message: Message) -> bytes:
    """URI of the first Contact; ValueError without one."""
    contacts = message.get_list(b"Contact")
    if not contacts:
        raise ValueError("the message has no Contact")
    return NameAddr.parse(contacts[0].strip()).uri


def record_routes(message: Message) -> list[bytes]:
    return [value.strip() for value in message.get_list(b"Record-Route")]
