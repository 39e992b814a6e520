"""The location service: which contacts an address-of-record has by now, and the way to each (RFC 3261 §10, RFC 3327,
RFC 5626).

Answers from memory.  Each change is an event, so that the host may write it behind and load it back at its start.
Does not ask who may bind what: that is `registrar`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from sipengine.events import BindingChanged, Event, Target
from sipengine.exceptions import ParseError
from sipengine.message.uri import SipUri
from sipengine.message.values import split_list, uri_of
from sipengine.timerqueue import NEVER, TimerQueue
from sipengine.transport.flow import WEBSOCKET, Address, Flow
from sipengine.transport.layer import host_port
from sipengine.transport.locate import Locator

_Place = tuple[bytes | None, bytes, int | None]
"""User, host and port of a Contact."""


@dataclass(slots=True)
class Binding:
    """One contact of an address-of-record."""

    ruid: str
    """Names this binding in events and rows, as Kamailio's does."""
    aor: str
    contact: bytes
    """URI, as it stood."""
    uri: SipUri
    q: int
    """Thousandths."""
    expires_at: float
    call_id: bytes
    cseq: int
    path: tuple[bytes, ...]
    """Values of Path, top first."""
    transport: str
    source: Address
    """Where its REGISTER came from."""
    instance: bytes
    """`+sip.instance`; with `reg_id` it is the device's identity, whatever its Contact."""
    reg_id: int
    """0: none, so the Contact is the identity (RFC 5626 §6)."""
    user_agent: str
    changed_at: float
    flow: Flow | None = None
    """The connection of its REGISTER; None over UDP and after a restart."""
    gone: bool = False

    def is_of(self, uri: SipUri, instance: bytes, reg_id: int) -> bool:
        """Whether a Contact means this binding (§10.3 step 7: by URI; RFC 5626 §6: by instance and reg-id)."""
        if reg_id and self.reg_id:
            return self.instance == instance and self.reg_id == reg_id
        return not reg_id and not self.reg_id and self.uri.equivalent(uri)

    @property
    def target(self) -> bytes:
        """Request-URI of what is sent to it."""
        return bytes(replace(self.uri, headers=b"")) if self.uri.headers else self.contact

    @property
    def hop(self) -> bytes | None:
        """URI of the next hop: the connection while it stands, else the first Path or the Contact if that is where its
        REGISTER came from, else the source itself.  None: it was reached over a connection, which has ended.

        Never a third party: whoever may register could else aim our calls at anybody.
        """
        flow = self.flow
        if flow is not None and not flow.closed:
            return self._source_uri
        if self.transport in WEBSOCKET:
            return None
        named = _first_path(self.path) or self.uri
        if named is not None and named.host.strip(b"[]") == self.source[0].encode():
            return bytes(SipUri(b"sip", None, named.host, named.port, _transport_of(named)))
        return self._source_uri if self.transport == "udp" else None

    @property
    def detour(self) -> Target | None:
        """Where requests within its calls go instead of to its Contact: they name nothing else of it (RFC 5626 §5.3).

        None where the Contact is the way.
        """
        if self.path:
            return None
        there = self.flow is not None and not self.flow.closed
        if there or (self.transport == "udp" and self.uri.host.strip(b"[]") != self.source[0].encode()):
            return Target(self.transport, self.source)
        return None

    @property
    def _source_uri(self) -> bytes:
        more = b"" if self.transport == "udp" else b";transport=" + self.transport.encode()
        return b"sip:%b%b" % (host_port(*self.source), more)


class Location:
    """Bindings by address-of-record; `on_address(host)` hears when one begins or ceases to be a source of any."""

    def __init__(self, queue: TimerQueue, events: deque[Event], locator: Locator) -> None:
        self.on_address: Callable[[str], None] = _nobody
        self.due = NEVER
        self._queue = queue
        self._events = events
        self._bindings: dict[str, list[Binding]] = {}
        self._by_ruid: dict[str, Binding] = {}
        self._sources: dict[str, dict[str, int]] = {}
        """How many bindings of each domain came from an address."""
        self._detours: dict[_Place, Binding] = {}
        self._locator = locator
        locator.detour = self.detour
        self._ends: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._by_ruid)

    def of(self, aor: str, now: float) -> list[Binding]:
        """What an address-of-record is bound to, in the order in which it is to be tried: by q, then the youngest."""
        found = [binding for binding in self._bindings.get(aor, ()) if binding.expires_at > now]
        return sorted(found, key=lambda binding: (-binding.q, -binding.changed_at))

    def domains_at(self, host: str) -> Iterable[str]:
        """Domains whose devices are at this address."""
        return self._sources.get(host, ())

    def detour(self, uri: SipUri) -> Target | None:
        """Where a device is reached that shows this URI as its Contact, where that is another place."""
        binding = self._detours.get(_place(uri))
        return binding.detour if binding is not None else None

    def bind(self, binding: Binding, now: float) -> None:
        """Put a binding in, in place of the one with its `ruid`."""
        old = self._by_ruid.get(binding.ruid)
        self._put(binding)
        if old is not None:
            self._take(old)
        self._tell(binding)
        self._arm(binding, now)

    def unbind(self, binding: Binding) -> None:
        if self._by_ruid.get(binding.ruid) is binding:
            del self._by_ruid[binding.ruid]
            self._take(binding)
            binding.gone = True
            self._tell(binding)

    def unbind_ruid(self, ruid: str) -> bool:
        """End a binding that an operator took away; False when there is none."""
        binding = self._by_ruid.get(ruid)
        if binding is not None:
            self.unbind(binding)
        return binding is not None

    def unbind_all(self, aor: str) -> None:
        """End what is bound to an address-of-record that there is no more."""
        for binding in list(self._bindings.get(aor, ())):
            self.unbind(binding)

    def load(self, rows: Iterable[BindingChanged], now: float) -> int:
        """Take up bindings of an earlier process; return how many.  What cannot be read is left out."""
        count = 0
        for row in rows:
            binding = _binding_of(row)
            if binding is not None and row.expires_at > now and row.ruid not in self._by_ruid:
                self._put(binding)
                self._arm(binding, now)
                count += 1
        return count

    def on_timer(self, now: float) -> None:
        """End what has run out."""
        while self._ends and self._ends[0][0] <= now:
            _, ruid = heapq.heappop(self._ends)
            binding = self._by_ruid.get(ruid)
            if binding is not None and binding.expires_at <= now:
                self.unbind(binding)
        if self._ends:
            self._queue.arm_at(self, self._ends[0][0])

    def _put(self, binding: Binding) -> None:
        self._by_ruid[binding.ruid] = binding
        self._bindings.setdefault(binding.aor, []).append(binding)
        place = _place(binding.uri)
        known = self._detours.get(place)
        # Another device's Contact is not taken over, even if it looks the same behind another NAT.
        if binding.detour is not None and (known is None or known.aor == binding.aor):
            self._detours[place] = binding
            if known is None:
                self._locator.forget()
        host, domain = binding.source[0], domain_of(binding.aor)
        domains = self._sources.setdefault(host, {})
        domains[domain] = domains.get(domain, 0) + 1
        if domains[domain] == 1:
            self.on_address(host)

    def _take(self, binding: Binding) -> None:
        bindings = self._bindings[binding.aor]
        bindings[:] = [other for other in bindings if other is not binding]
        if not bindings:
            del self._bindings[binding.aor]
        place = _place(binding.uri)
        if self._detours.get(place) is binding:
            del self._detours[place]
        host, domain = binding.source[0], domain_of(binding.aor)
        domains = self._sources[host]
        domains[domain] -= 1
        if not domains[domain]:
            del domains[domain]
            if not domains:
                del self._sources[host]
            self.on_address(host)

    def _arm(self, binding: Binding, now: float) -> None:
        heapq.heappush(self._ends, (binding.expires_at, binding.ruid))
        if self._ends[0][0] < self.due:
            self._queue.arm_at(self, max(now, self._ends[0][0]))

    def _tell(self, binding: Binding) -> None:
        self._events.append(
            BindingChanged(
                binding.ruid, binding.aor, binding.contact.decode(errors="replace"), binding.q, binding.expires_at,
                binding.call_id.decode(errors="replace"), binding.cseq, b", ".join(binding.path).decode(
                    errors="replace"
                ),
                binding.transport, binding.source, binding.instance.decode(errors="replace"), binding.reg_id,
                binding.user_agent, binding.changed_at, binding.gone,
            )
        )


def _place(uri: SipUri) -> _Place:
    return uri.user, uri.host.lower(), uri.port


def domain_of(aor: str) -> str:
    return aor.rpartition("@")[2]


def _first_path(path: tuple[bytes, ...]) -> SipUri | None:
    return SipUri.parse(uri_of(path[0])) if path else None


def _transport_of(uri: SipUri) -> bytes:
    transport = uri.param(b"transport")
    return b";transport=" + transport if transport else b""


def _binding_of(row: BindingChanged) -> Binding | None:
    contact = row.contact.encode()
    path = tuple(split_list(row.path.encode())) if row.path else ()
    try:
        uri = SipUri.parse(contact)
        _first_path(path)
    except (ParseError, ValueError):
        return None
    return Binding(
        row.ruid, row.aor, contact, uri, row.q, row.expires_at, row.call_id.encode(), row.cseq, path, row.transport,
        row.source, row.instance.encode(), row.reg_id, row.user_agent, row.changed_at,
    )


def _nobody(host: str) -> None:
    pass
