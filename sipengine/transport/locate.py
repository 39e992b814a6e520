"""Where a URI leads: numeric hosts at once, names by asking the host (RFC 3263 §4 is the host's resolver)."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable

from sipengine.events import Event, ResolutionWanted, Target
from sipengine.exceptions import ParseError, ResolutionError
from sipengine.message.fields import CACHE_LIMIT
from sipengine.message.uri import SipUri
from sipengine.transport.flow import WEBSOCKET
from sipengine.transport.rests import Rests

OnTargets = Callable[["list[Target] | ResolutionError", float], None]
_SECURE = {"tcp": "tls", "tls": "tls", "ws": "wss", "wss": "wss"}
"""What a transport parameter means in a sips: URI (RFC 3261 §26.2.2)."""
_Key = tuple[str, "int | None", "str | None", bool]


class Locator:
    """Targets of URIs; which of them rest is `rests`."""

    def __init__(self, events: deque[Event], rests: Rests) -> None:
        self._events = events
        self.rests = rests
        self._numeric: dict[bytes, list[Target]] = {}
        self.detour: Callable[[SipUri], Target | None] = _straight
        """Where a URI leads that is not reached by itself, None for others: a device behind NAT, or on a connection."""
        self._waiting: dict[_Key, list[OnTargets]] = {}

    def known(self, uri: bytes) -> list[Target] | None:
        """Targets of a URI that needs no resolver and was asked for before."""
        return self._numeric.get(uri)

    def locate(self, uri: bytes | str, on_targets: OnTargets, now: float) -> None:
        """Call `on_targets` at once, or when the host answered the event."""
        if isinstance(uri, str):
            uri = uri.encode()
        targets = self._numeric.get(uri)
        if targets is not None:
            on_targets(targets, now)
            return
        try:
            parsed = SipUri.parse(uri)
        except ParseError as error:
            on_targets(ResolutionError(f"{uri.decode(errors='replace')}: {error}"), now)
            return
        except Exception as error:
            on_targets(ResolutionError(str(error)), now)
            return
        detour = self.detour(parsed)
        if detour is not None:
            on_targets([detour], now)
            return
        # RFC 3263 §4: maddr is where a request goes, the host only what it is for.
        host = (parsed.param(b"maddr") or parsed.host).strip(b"[]").decode("ascii", "replace").lower()
        secure = parsed.scheme == b"sips"
        wanted = parsed.param(b"transport")
        transport = wanted.decode("ascii", "replace").lower() if wanted else None
        if secure and transport is not None:
            transport = _SECURE.get(transport)
            if transport is None:
                on_targets(ResolutionError(f"{uri.decode(errors='replace')}: sips: goes over TLS only"), now)
                return
        if is_numeric(host):
            port = parsed.port or parsed.default_port
            targets = [Target(transport or ("tls" if secure else "udp"), (host, port))]
            if len(self._numeric) < CACHE_LIMIT:
                self._numeric[uri] = targets
            on_targets(targets, now)
            return
        if transport in WEBSOCKET or host.endswith(".invalid"):
            # RFC 7118 §5: such a name is no address; a device that is connected has a detour.
            on_targets(ResolutionError(f"{uri.decode(errors='replace')}: no such device is connected"), now)
            return
        key = (host, parsed.port, transport, secure)
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(on_targets)
            return
        self._waiting[key] = [on_targets]
        self._events.append(ResolutionWanted(host, parsed.port, transport, secure))

    def forget(self) -> None:
        """Look at each URI again: a detour began."""
        self._numeric.clear()

    def resolved(self, query: ResolutionWanted, targets: list[Target] | ResolutionError, now: float) -> None:
        key = (query.host, query.port, query.transport, query.secure)
        if not isinstance(targets, ResolutionError) and not targets:
            targets = ResolutionError(f"{query.host} has no address")
        for on_targets in self._waiting.pop(key, ()):
            on_targets(targets, now)


def _straight(uri: SipUri) -> Target | None:
    return None


def is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
