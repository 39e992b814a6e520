"""What the 2xx of a REGISTER names: Service-Route (RFC 3608), Path (RFC 3327), P-Associated-URI (RFC 7315 §4.1).

Reads and bounds them; whoever sends a request of the account's puts Service-Route into its Route.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sipengine.exceptions import ProtocolError
from sipengine.message import Message, NameAddr

MAX_ROUTE = 1024
"""Bytes of a route set: it stands in every request of the account's, next to all else that a datagram must hold."""
MAX_HOPS = 10
MAX_ASSOCIATED = 4096
"""Bytes of all associated URIs; those behind it are left out, the first is the default identity."""

_NAMES = frozenset({b"service-route", b"path", b"p-associated-uri"})

#: Printable and unable to end an angle bracket or a line; nor may a URI in a Route hold headers (RFC 3261 §19.1.1).
_URI = re.compile(rb"[^\x00-\x20<>\"\x7f-\xff]+")
_PARAMS = re.compile(rb"(?:;[^\x00-\x20<>\",\x7f-\xff]+)*")


@dataclass(frozen=True, slots=True)
class Routes:
    """Values as they may stand in a header line, joined by commas; empty where the registrar named none."""

    service_route: str = ""
    path: str = ""
    """What the registrar keeps of the way to us; to look at, nothing is done with it."""
    associated_uris: str = ""

    @classmethod
    def of(cls, message: Message) -> Routes:
        """Read a 2xx.  RFC 3608 §5: what it does not name is forgotten."""
        if not _NAMES & set(message.keys):
            return NO_ROUTES
        return cls(_route(message, b"Service-Route"), _route(message, b"Path"), _associated(message))


NO_ROUTES = Routes()


def _route(message: Message, name: bytes) -> str:
    """The whole route set or nothing: half a route leads elsewhere."""
    hops: list[bytes] = []
    for value in message.get_list(name):
        try:
            hop = NameAddr.parse(value)
            loose = hop.sip_uri.param(b"lr") is not None
        except ProtocolError:
            return ""
        # RFC 3608 §5, RFC 3327 §4: `lr` must be there; a strict router would get another Request-URI than was asked.
        params = hop.params.replace(b" ", b"").replace(b"\t", b"")
        if not loose or b"?" in hop.uri or not _URI.fullmatch(hop.uri) or not _PARAMS.fullmatch(params):
            return ""
        hops.append(b"<%b>%b" % (hop.uri, params))
    route = b", ".join(hops)
    return "" if len(hops) > MAX_HOPS or len(route) > MAX_ROUTE else route.decode()


def _associated(message: Message) -> str:
    uris: list[str] = []
    left = MAX_ASSOCIATED
    for value in message.get_list(b"P-Associated-URI"):
        try:
            uri = NameAddr.parse(value).uri
        except ProtocolError:
            continue
        left -= len(uri) + 4
        if left < 0:
            break
        if b":" in uri and _URI.fullmatch(uri):
            uris.append(f"<{uri.decode()}>")
    return ", ".join(uris)
