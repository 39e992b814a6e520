"""The address that a registrar sees us as, and whether our Contact shall name it (RFC 3261 §18.2.1, RFC 3581).

Behind NAT a registrar that sends calls to the Contact as it stands cannot reach a private address.  Only final 2xx
answers are believed, UDP only: a connection is called over, whatever the Contact says.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from math import inf

from sipengine.exceptions import ProtocolError
from sipengine.message.message import value_of
from sipengine.message.values import Via, first_value
from sipengine.transport.flow import Flow

FLAPPING = 600.0
"""Seconds for which an address is kept that the registrar did not see again after we had named it."""


@dataclass(slots=True)
class PublicAddress:
    """Texts are ``host:port``, brackets around IPv6; empty where nothing is known."""

    local: str = ""
    """What we call ourselves towards the registrar."""
    seen: str = ""
    """What the last 2xx saw us as."""
    named: str = ""
    """What our Contact says instead of `local`; empty where it says that."""
    kept_until: float = -inf

    def heard(self, via_line: bytes, flow: Flow, now: float) -> bool:
        """Take what a 2xx tells in our own Via; True when the Contact must change, and a REGISTER say so at once."""
        local = flow.sent_by.decode()
        if local != self.local:
            self.local, self.named, self.kept_until = local, "", -inf
        self.seen = _seen(via_line, flow)
        wanted = "" if self.seen == local else self.seen
        if wanted == self.named:
            self.kept_until = -inf
        elif now >= self.kept_until:
            self.named, self.kept_until = wanted, now + FLAPPING
            return True
        return False

    def of(self, flow: Flow) -> str:
        """Our address in a Contact of a REGISTER on this flow."""
        local = flow.sent_by.decode()
        return self.named if self.named and local == self.local else local


def _seen(via_line: bytes, flow: Flow) -> str:
    """The source address of our request as the registrar saw it; our own where it does not say, or cannot be meant."""
    local = flow.sent_by.decode()
    if flow.reliable:
        return local
    try:
        via = Via.parse(first_value(value_of(via_line)))
        if via.rport is None and via.received is None:
            return local
        host = via.host if via.received is None else via.received
        port = via.port or 5060 if via.rport is None else via.rport
        address, remote = ip_address(host.strip(b"[]").decode()), ip_address(flow.remote[0].partition("%")[0])
    except (ValueError, ProtocolError):
        return local
    unusable = address.is_unspecified or address.is_multicast or address.is_link_local
    if unusable or (remote.is_global and not address.is_global) or not 0 < port < 65536:
        return local
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
