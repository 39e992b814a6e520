"""Route sets: what is ours is taken off, strict routers get their form (RFC 3261 §16.4, §16.6, §16.12, RFC 5658)."""

from __future__ import annotations

from sipengine.exceptions import ParseError, UnsupportedUriScheme
from sipengine.message.fields import ROUTE
from sipengine.message.message import Message, value_of
from sipengine.message.uri import SipUri
from sipengine.message.values import split_list, uri_of
from sipengine.transport.flow import Flow
from sipengine.transport.layer import TransportLayer

PAIR = b";r2=on"
"""Marks the two values of a double Record-Route (Kamailio's name): both are taken off at once."""


def own_uri_params(transport: TransportLayer, uri: bytes) -> bytes | None:
    """Parameters of a URI that names us, None for any other."""
    try:
        parsed = SipUri.parse(uri)
    except (ParseError, UnsupportedUriScheme):
        return None
    return parsed.parameters if transport.is_own(parsed.host, parsed.port or parsed.default_port) else None


def take_own_routes(message: Message, flow: Flow, transport: TransportLayer) -> bytes | None:
    """Take our value off the top of the route set, both of a pair; returns their parameters, None for a foreign top."""
    params = _take_top(message, flow, transport)
    if params is not None and params.find(PAIR) >= 0 and ROUTE in message.keys:
        second = _take_top(message, flow, transport)
        if second is not None:
            params += second
    return params


def _take_top(message: Message, flow: Flow, transport: TransportLayer) -> bytes | None:
    i = message.keys.index(ROUTE)
    line = message.lines[i]
    value = line[7:] if line[:7] == b"Route: " else value_of(line)
    values: list[bytes] = []
    top = value
    if value.find(b",") >= 0:
        values = split_list(value)
        top = values.pop(0)
    if top.startswith(flow.route):
        params = top[len(flow.route) : top.find(b">")]
    else:
        found = own_uri_params(transport, uri_of(top))
        if found is None:
            return None
        params = found
    if values:
        message.lines[i] = b"Route: " + b", ".join(values)
    else:
        del message.lines[i], message.keys[i]
    return params


def undo_strict_router(message: Message, ruri: bytes, transport: TransportLayer) -> bytes:
    """A strict router before us put our Record-Route value into the Request-URI: the last Route is the real one."""
    if ROUTE not in message.keys or own_uri_params(transport, ruri) is None:
        return ruri
    routes = message.get_list(ROUTE)
    ruri_of_last = uri_of(routes.pop())
    _put(message, [b"<" + ruri + b">", *routes])
    return ruri_of_last


def strip_own_maddr(ruri: bytes, flow: Flow, transport: TransportLayer) -> bytes:
    """`maddr` that names us has done its work, with the port and transport that led here (§16.4)."""
    uri = SipUri.parse(ruri)
    if uri.scheme not in (b"sip", b"sips"):
        return ruri
    maddr = uri.param(b"maddr")
    if not maddr or not transport.is_own(maddr, flow.listener.port):
        return ruri
    if (uri.param(b"transport") or b"udp").lower().decode("ascii", "replace") != flow.listener.transport:
        return ruri
    if (uri.port or uri.default_port) != flow.listener.port:
        return ruri
    parts = uri.parameters.split(b";")[1:]
    gone = (b"maddr", b"transport")
    parameters = b"".join([b";" + part for part in parts if part.partition(b"=")[0].lower() not in gone])
    return bytes(SipUri(uri.scheme, uri.user, uri.host, None, parameters, uri.headers))


def next_hop(message: Message, ruri: bytes) -> tuple[bytes, bytes]:
    """Request-URI to send and URI that decides where it goes (§16.6 step 6); rewrites Route before a strict router."""
    if ROUTE not in message.keys:
        return ruri, ruri
    routes = message.get_list(ROUTE)
    top = uri_of(routes[0])
    if b";lr" in top.lower():
        return ruri, top
    _put(message, [*routes[1:], b"<" + ruri + b">"])
    return top, top


def _put(message: Message, routes: list[bytes]) -> None:
    i = message.keys.index(ROUTE)
    message.remove(ROUTE)
    message.insert(i, b"Route: " + b", ".join(routes))
