"""Admission before routing: who a source address is, and whether this worker takes new requests from it.

An address nobody configured gets nothing, not even an answer (the endpoint counts it); on a connection, which proves
the address, it is banned when it comes again and again.  A peer that sends too much new is answered 503, where
TRUNKMGR_SIP_RATE says how much that is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from itertools import chain
from typing import Any

from sipengine.registrar.location import Location
from sipengine.transport.flow import Flow, Listener
from sipengine.transport.peers import PeerBook, TlsPolicy
from trunkmgr.sip.defence import Defence
from trunkmgr.sip.rules import Refusals, refusals
from trunkmgr.sip.snapshot import Network, Peers, Snapshot, Trunk, numeric

NOBODY = 0
PROVIDER = 1
PBX = 2
#: As TRUNKMGR_SIP_SOURCES writes them.
KINDS = {"provider": PROVIDER, "pbx": PBX}

#: Addresses remembered between two pictures; strangers choose theirs, so the cache must be bounded.
CACHE_LIMIT = 4096


class Admission(PeerBook):
    """Source address → PROVIDER, PBX, both, or NOBODY; and what else the engine asks about addresses."""

    def __init__(
        self, sources: Mapping[str, str] | None = None, defence: Defence | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.defence = defence or Defence()
        self._now = now
        self._sources = {_socket(name): KINDS[kind] for name, kind in (sources or {}).items()}
        """Sockets that are for one kind of peer only."""
        self.snapshot = Snapshot()
        self.devices_from: tuple[Network, ...] = ()
        """From where whoever is neither provider nor PBX may send REGISTER."""
        self.location: Location | None = None
        """While a device is registered its address counts as the PBX of its domain."""
        self._providers = Peers()
        self._pbxs = Peers()
        self._resolved: dict[str, dict[str, frozenset[str]]] = {}
        self._registrars: dict[str, str] = {}
        self._kinds: dict[str, int] = {}
        self._serving: dict[tuple[str, str], bool] = {}
        self._bringing: dict[tuple[tuple[int | None, frozenset[str]], str], bool] = {}
        self._by_address: dict[str, int] | None = None
        self._budgets: dict[str, float] = {}
        self._udp_only: Peers | None = None
        self._tls: dict[tuple[tuple[str, ...], str], TlsPolicy] = {}

    def swap(self, snapshot: Snapshot) -> None:
        """Take the next picture."""
        self.snapshot = snapshot
        self._providers = snapshot.provider_peers()
        self._pbxs = snapshot.pbx_peers()
        names = self.names()
        self._resolved = {host: answers for host, answers in self._resolved.items() if host in names}
        self._registrars = {key: address for key, address in self._registrars.items() if key in snapshot.trunks}
        self._forget()

    def names(self) -> set[str]:
        """Return the host names (not addresses) whose addresses must be known."""
        return {host for host in self._providers.hosts | self._pbxs.hosts if numeric(host) is None}

    def resolved(self, host: str, question: str, addresses: frozenset[str]) -> None:
        """Take what the resolver answers to a question about a host name, in place of its answer before."""
        answers = self._resolved.setdefault(host, {})
        if answers.get(question) != addresses:
            answers[question] = addresses
            self._forget()

    def has_answer(self, host: str) -> bool:
        return host in self._resolved

    def registered_at(self, l_uuid: str, address: str) -> None:
        """Admit the address that this account registers at, whatever the resolver says of the name by now."""
        if self._registrars.get(l_uuid) != address:
            self._registrars[l_uuid] = address
            if not self.kind(address) & PROVIDER:
                self._forget()

    def admits(self, flow: Flow) -> bool:
        """Say whether a request, or a connection, is looked at."""
        if not self._sources:
            return self.kind(flow.remote[0]) != NOBODY
        return not self.refusing(flow)

    def refusing(self, flow: Flow) -> str:
        """Name the rule that keeps a request out before it is looked at, "" when none does."""
        kind = self.kind(flow.remote[0])
        if kind == NOBODY:
            banned = flow.reliable and self.defence.banned(flow.remote[0], self._now())
            return "banned" if banned else "stranger"
        return "" if not self._sources or kind & self._kind_at(flow.listener) else "listener"

    def _kind_at(self, listener: Listener) -> int:
        """Whom a socket is for: by its own address, else by the wildcard that it came of."""
        wildcard = "::" if listener.v6 else "0.0.0.0"  # noqa: S104
        for host in (listener.host, wildcard):
            kind = self._sources.get((listener.transport, host, listener.port))
            if kind is not None:
                return kind
        return PROVIDER | PBX

    def denied(self, flow: Flow) -> None:
        """Note what nobody we know sent on a connection.  A datagram proves no address: nothing is held against it."""
        if flow.reliable:
            self._failed(flow, "stranger")

    def unauthorized(self, flow: Flow) -> None:
        """Note a wrong answer to a challenge."""
        self._failed(flow, "authentication")

    def _failed(self, flow: Flow, rule: str) -> None:
        address, now = flow.remote[0], self._now()
        if self.kind(address) == NOBODY and not self.defence.banned(address, now):
            self.defence.failed(address, rule, now, proven=flow.reliable)

    def may_register(self, flow: Flow) -> bool:
        """Say whether a stranger may try, now, to prove that he is a device: not when banned, not too often, and not
        after too many wrong answers.
        """
        if not self.takes_devices(flow):
            return False
        address, now = flow.remote[0], self._now()
        return not (flow.reliable and self.defence.banned(address, now)) and self.defence.may_try(address, now)

    def takes_devices(self, flow: Flow) -> bool:
        """Say whether there are devices that could come from there."""
        if not self.devices_from or not self.snapshot.devices:
            return False
        ip = numeric(flow.remote[0])
        return ip is not None and any(ip in network for network in self.devices_from)

    def device_moved(self, address: str) -> None:
        """Look again who is at an address: a device registered from there, or none is there any more."""
        self._kinds.pop(address, None)
        self._serving.clear()

    def is_configured(self, host: str) -> bool:
        """Whether a host or address is named as a provider's or PBX's own; networks do not count."""
        if self._by_address is None:
            self._by_address = self._addresses()
        return host in self._by_address or host in self._providers.hosts or host in self._pbxs.hosts

    def kind(self, address: str) -> int:
        """Say who a source address is."""
        kind = self._kinds.get(address)
        if kind is None:
            kind = self._look(address)
            if len(self._kinds) >= CACHE_LIMIT:
                self._kinds.clear()
            self._kinds[address] = kind
        return kind

    def serves(self, l_domain: str, address: str) -> bool:
        """Say whether an address is the PBX of a local domain."""
        key = l_domain, address
        serving = self._serving.get(key)
        if serving is None:
            pbx = self.snapshot.domains.get(l_domain.lower())
            serving = pbx is not None and self._holds(pbx.peers, address)
            serving = serving or (self.location is not None and l_domain.lower() in self.location.domains_at(address))
            if len(self._serving) >= CACHE_LIMIT:
                self._serving.clear()
            self._serving[key] = serving
        return serving

    def brings(self, trunk: Trunk, address: str) -> bool:
        """Say whether an address is of the account's provider: of its row, of a host that the account names, or the
        server that it registers at.
        """
        if self._registrars.get(trunk.account.l_uuid) == address:
            return True
        key = trunk.side, address
        bringing = self._bringing.get(key)
        if bringing is None:
            bringing = any(self._holds(peers, address) for peers in self._of_provider(trunk.side))
            if len(self._bringing) >= CACHE_LIMIT:
                self._bringing.clear()
            self._bringing[key] = bringing
        return bringing

    def _of_provider(self, side: tuple[int | None, frozenset[str]]) -> list[Peers]:
        pk, hosts = side
        row = self.snapshot.providers.get(pk) if pk is not None else None
        return [Peers(hosts), *([row] if row is not None else [])]

    def may_challenge(self, host: str) -> bool:
        return bool(self.kind(host) & PROVIDER)

    def udp_only(self, host: str) -> bool:
        if self._udp_only is None:
            self._udp_only = self.snapshot.udp_only_peers()
        return self._holds(self._udp_only, host)

    def tls(self, names: tuple[str, ...], host: str) -> TlsPolicy:
        """What the provider's rule says; where only an address is known, as from a Contact, one of the configured names
        that lead there is expected.
        """
        policy = self._tls.get((names, host))
        if policy is None:
            asked = set(names[:1]) or self._names_of(host)
            rule, of_provider = self.snapshot.tls_rule(asked, lambda peers: not names and self._holds(peers, host))
            expected = names if rule.server_name else names[:1]
            expected = expected or tuple(sorted(asked | of_provider)) or (host,)
            policy = TlsPolicy(expected, rule.wildcard, rule.fingerprint, rule.client_certificate)
            if len(self._tls) >= CACHE_LIMIT:
                self._tls.clear()
            self._tls[names, host] = policy
        return policy

    def _names_of(self, address: str) -> set[str]:
        return {name for name, answers in self._resolved.items() if any(address in found for found in answers.values())}

    def budget(self, host: str) -> float:
        budget = self._budgets.get(host)
        if budget is None:
            providers = self.snapshot.providers.values()
            rates = [peers.reg_rate for peers in providers if peers.reg_rate and self._holds(peers, host)]
            if len(self._budgets) >= CACHE_LIMIT:
                self._budgets.clear()
            budget = self._budgets[host] = float(min(rates, default=0))
        return budget

    def is_peer(self, host: str) -> bool:
        return self.kind(host) != NOBODY

    def same_peer(self, asked: str, answered: str) -> bool:
        """Whether both belong to one provider or one PBX, by what is configured or by one name that leads to both."""
        if asked == answered:
            return True
        sets = [[peers] for peers in self.snapshot.providers.values()]
        sets += [[pbx.peers] for pbx in self.snapshot.domains.values()]
        sets += [[Peers(frozenset({host}))] for host in self._providers.hosts | self._pbxs.hosts]
        sets += [self._of_provider(side) for side in {trunk.side for trunk in self.snapshot.trunks.values()}]
        return any(all(any(self._holds(peers, each) for peers in one) for each in (asked, answered)) for one in sets)

    def _holds(self, peers: Peers, address: str) -> bool:
        ip = numeric(address)
        if any(ip in network for network in peers.networks if ip is not None):
            return True
        for host in peers.hosts:
            spelled = numeric(host)
            if spelled is not None:
                if spelled == ip:
                    return True
            elif any(address in addresses for addresses in self._resolved.get(host, {}).values()):
                return True
        return False

    def _look(self, address: str) -> int:
        if self._by_address is None:
            self._by_address = self._addresses()
        kind = self._by_address.get(address, NOBODY)
        ip = numeric(address)
        if ip is not None:
            for bit, peers in ((PROVIDER, self._providers), (PBX, self._pbxs)):
                if any(ip in network for network in peers.networks):
                    kind |= bit
        if self.location is not None and self.location.domains_at(address):
            kind |= PBX
        return kind

    def _addresses(self) -> dict[str, int]:
        found = dict.fromkeys(self._registrars.values(), PROVIDER)
        for bit, peers in ((PROVIDER, self._providers), (PBX, self._pbxs)):
            for host in peers.hosts:
                ip = numeric(host)
                known = self._resolved.get(host, {}).values()
                for address in (str(ip),) if ip is not None else chain.from_iterable(known):
                    found[address] = found.get(address, NOBODY) | bit
        return found

    def _forget(self) -> None:
        self._kinds.clear()
        self._serving.clear()
        self._bringing.clear()
        self._by_address = None
        self._budgets.clear()
        self._udp_only = None
        self._tls.clear()


class PeerMiddleware:
    """ASGI middleware of the scope `sip`: adds who is calling and the picture that holds for this request.

    `scope["sip.peer"]` is PROVIDER, PBX or both; `scope["sip.snapshot"]` a `Snapshot`; `scope["sip.worker"]` the worker
    whose engine sends, as in the scope of the channel.
    """

    def __init__(self, application: Any, admission: Admission, worker: Any = None) -> None:
        self.application = application
        self.admission = admission
        self.worker = worker
        self.refusals: Refusals | None = None
        """Where refusals are counted instead of in those of the process: for a question what would happen."""
        self.limited = admission.defence.rate > 0
        self.draining = False
        """The worker is about to stop: calls go on, new ones are asked to come back."""

    def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        admission = self.admission
        scope["sip.snapshot"] = admission.snapshot
        scope["sip.peer"] = admission.kind(scope["client"][0])
        scope["sip.worker"] = self.worker
        if self.refusals is not None:
            scope["sip.refusals"] = self.refusals
        if self.draining and not scope["extensions"]["sip.context"].has_totag():
            return self._refuse("stopping", "Server stops")
        if self.limited and self._too_fast(scope):
            return self._refuse("rate", "Too many new requests")
        # The coroutine itself, not one more around it: this is on the way of every call.
        return self.application(scope, receive, send)

    def _too_fast(self, scope: dict[str, Any]) -> bool:
        """Whether this address begins more than it may; what belongs to a call is never held up, a question neither."""
        if self.refusals is not None or scope["extensions"]["sip.context"].has_totag():
            return False
        return not self.admission.defence.allows(scope["client"][0], time.monotonic())

    async def _refuse(self, rule: str, reason: str) -> None:
        (self.refusals or refusals).refuse(rule, 503, reason, headers=[("Retry-After", "10")])


def _socket(name: str) -> tuple[str, str, int]:
    """``udp:192.0.2.1:5060`` → transport, host, port; `env` has checked it."""
    transport, _, rest = name.partition(":")
    host, _, port = rest.rpartition(":")
    return transport, str(ip_address(host.strip("[]"))), int(port)
