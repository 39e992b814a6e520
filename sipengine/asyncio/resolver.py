"""From a host name to addresses to try (RFC 3263 §4, RFC 2782): hosts, NAPTR, SRV, A and AAAA.

Asks DNS without blocking the loop, keeps answers for their time to live (RFC 2308 for those that deny), and serves what
it knew while DNS is silent (RFC 8767). Which targets work is not its business: `transport.rests` knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

from sipengine.events import ResolutionWanted, Target
from sipengine.exceptions import ResolutionError
from sipengine.transport.flow import SECURE

log = logging.getLogger("sipengine")

MIN_TTL, MAX_TTL = 5.0, 3600.0
NEGATIVE_TTL, MAX_NEGATIVE_TTL = 30.0, 300.0
"""Seconds that a denial counts: where it names no time, and at most."""
STALE = 86400.0
"""Seconds that an answer outlives its TTL while DNS is silent: an old address is better than none."""
PATIENCE = 1.0
"""Seconds after which an old answer serves while DNS is still asked: a call cannot wait for a dead server (RFC 8767 §5
allows 1.8 s).
"""
RECHECK = 10.0
"""Seconds after a failed question in which it is not asked again: old answers serve at once (RFC 8767 §5)."""
LIFETIME = 6.0
CHAIN = 8
"""CNAMEs followed, as resolvers do."""
SERVERS = 32
"""Targets of one SRV answer that are looked up."""
CACHE = 4096
KEPT = 60.0
"""Seconds that whoever keeps an answer may keep it at most: the hosts file has no time to live."""
HOSTS = Path("/etc/hosts")

SERVICES = {"SIP+D2U": "udp", "SIP+D2T": "tcp", "SIPS+D2T": "tls"}
"""NAPTR services and the transports that they mean (RFC 3263 §4.1)."""

Records = tuple[Any, ...]

_soonest: ContextVar[list[float]] = ContextVar("soonest")
"""Of the resolution that goes on: when the first of the records that it rests on is over."""


class DnsSilent(Exception):
    """No server answered, or none could (SERVFAIL); nothing is known about the name."""


@dataclass(slots=True)
class _Entry:
    records: Records | None
    """None: never answered."""
    until: float
    recheck_at: float = 0.0


class Resolver:
    """Answers `ResolutionWanted`.

    `hosts` are addresses by name; they and the hosts file go before DNS, SRV included. `nameservers` are `IP` or
    `IP:PORT`; without any, those of the system are asked.  NAPTR and SRV choose among `transports`.
    """

    def __init__(
        self, hosts: Mapping[str, Sequence[str]] | None = None, nameservers: Sequence[str] = (), port: int = 53,
        hosts_file: Path = HOSTS, transports: Sequence[str] = ("udp", "tcp"),
    ) -> None:  # fmt: skip
        self.hosts = {name.rstrip(".").lower(): tuple(addresses) for name, addresses in (hosts or {}).items()}
        self._transports = tuple(transports)
        self._services = {service: name for service, name in SERVICES.items() if name in transports}
        self._hosts_file = hosts_file
        self._hosts_read_at = 0.0
        self._hosts_seen: dict[str, list[str]] = {}
        self._cache: dict[tuple[str, str], _Entry] = {}
        self._asking: dict[tuple[str, str], asyncio.Task[Records]] = {}
        self._due: dict[str, float] = {}
        self._order = random.SystemRandom()
        try:
            self._dns = dns.asyncresolver.Resolver(configure=not nameservers)
        except dns.exception.DNSException:  # no resolv.conf: names come from the hosts file alone
            self._dns = dns.asyncresolver.Resolver(configure=False)
        if nameservers:
            self._dns.nameservers = [dns.nameserver.Do53Nameserver(*_server(text, port)) for text in nameservers]
        self._dns.cache = None
        self._dns.timeout = LIFETIME / 3
        self._dns.lifetime = LIFETIME

    async def resolve(self, wanted: ResolutionWanted) -> list[Target]:
        """Return the addresses in the order they are to be tried; raise ResolutionError."""
        host = wanted.host.rstrip(".").lower()
        soonest = [inf]
        _soonest.set(soonest)
        try:
            return await self._resolve(wanted, host)
        finally:
            self._note_due(host, soonest[0])

    def is_due(self, host: str) -> bool:
        """Whether something that the last answers about `host` rest on has lived its time, or they are a minute old:
        whoever keeps such answers asks again.
        """
        return self._due.get(host.rstrip(".").lower(), 0.0) <= time.monotonic()

    def _note_due(self, host: str, until: float) -> None:
        now = time.monotonic()
        until = min(max(until, now + MIN_TTL), now + KEPT)
        before = self._due.get(host, 0.0)
        if len(self._due) >= CACHE:
            self._due.clear()
        self._due[host] = min(until, before) if before > now else until

    async def _resolve(self, wanted: ResolutionWanted, host: str) -> list[Target]:
        transport = wanted.transport or ("tls" if wanted.secure else None)
        try:
            if wanted.port is None and not self._from_hosts(host):
                found: list[Target] | None = None
                if wanted.transport is None:
                    if not wanted.secure:  # all at once: one after the other, a dead DNS would cost a timeout each
                        questions = (host, "NAPTR"), (f"_sip._udp.{host}", "SRV"), (f"_sip._tcp.{host}", "SRV")
                        await asyncio.gather(*(self._lookup(*each) for each in questions), return_exceptions=True)
                    found = await self._by_naptr(host, wanted.secure)
                if not found:
                    found = await self._by_service(host, transport, wanted.secure)
                if found is not None:
                    return found
            addresses = await self._addresses(host)
        except DnsSilent:
            raise ResolutionError(f"DNS does not answer for {host}.") from None
        if not addresses:
            raise ResolutionError(f"DNS has no address for {host}.")
        transport = transport or "udp"
        port = wanted.port or (5061 if transport in SECURE else 5060)
        return [Target(transport, (address, port), _names(transport, host)) for address in addresses]

    async def records(self, name: str, kind: str) -> tuple[list[str], float]:
        """Return what DNS says of a name, a text for each record, and the seconds that it still counts.

        `kind` is ``NAPTR``, ``SRV``, ``A`` or ``AAAA``.  Raises ResolutionError when DNS is silent.
        """
        try:
            found = await self._lookup(name, kind)
        except DnsSilent:
            raise ResolutionError(f"DNS does not answer for {name} {kind}.") from None
        entry = self._cache.get((name, kind))
        return [record.to_text() for record in found], max(0.0, entry.until - time.monotonic()) if entry else 0.0

    def known(self, host: str) -> list[str]:
        """Addresses of a name that goes before DNS: those of `hosts` and of the hosts file."""
        return self._from_hosts(host.rstrip(".").lower())

    async def _by_naptr(self, host: str, secure: bool) -> list[Target]:
        """Targets of the services that we speak, of the lowest order among them (RFC 3263 §4.1); empty when NAPTR
        chooses nothing.
        """
        try:
            records = await self._lookup(host, "NAPTR")
        except DnsSilent:
            return []  # SRV may be known from before
        targets: list[Target] = []
        order = 0
        for record in sorted(records, key=lambda record: (record.order, record.preference)):
            name = self._services.get(record.service.decode("ascii", "replace").upper())
            if name is None or record.flags.upper() != b"S" or (secure and name != "tls"):
                continue
            if targets and record.order != order:
                break  # RFC 2915 §2: a higher order is for those whom the lower one does not serve
            order = record.order
            with contextlib.suppress(DnsSilent):
                service = record.replacement.to_text(omit_final_dot=True).lower()
                targets += await self._servers(service, name, host) or ()
        return targets

    async def _by_service(self, host: str, transport: str | None, secure: bool) -> list[Target] | None:
        """SRV targets in order, those over UDP first where the transport is open and those over TLS where there are no
        others; None when there is no SRV.

        ResolutionError when there is and it leads nowhere.
        """
        scheme = "_sips" if secure else "_sip"
        denied = False
        targets: list[Target] = []
        for name in (transport,) if transport else self._transports:
            if name == "tls" and targets:
                break
            service = f"{'_sips' if name == 'tls' else scheme}._{'tcp' if name == 'tls' else name}.{host}"
            try:
                found = await self._servers(service, name, host)
            except DnsSilent:
                continue  # the address may still be known, from the hosts file or a stale answer
            targets += found or ()
            denied = denied or found is not None
        if denied and not targets:  # RFC 3263 §4.2: no way out to the name's own address
            raise ResolutionError(f"DNS says that {host} offers no SIP service that has an address.")
        return targets or None

    async def _servers(self, service: str, transport: str, host: str) -> list[Target] | None:
        """Targets of one SRV name of `host` in order; empty when it denies the service or no server has an address."""
        records = await self._lookup(service, "SRV")
        if not records:
            return None
        # RFC 2782: "." means that the service is decidedly not here
        ordered = [record for record in self._in_order(records) if record.target != dns.name.root][:SERVERS]
        names = [record.target.to_text(omit_final_dot=True).lower() for record in ordered]
        answers = await asyncio.gather(*map(self._addresses, names), return_exceptions=True)
        targets: list[Target] = []
        silent = False
        for record, name, addresses in zip(ordered, names, answers, strict=True):
            if isinstance(addresses, DnsSilent):
                silent = True
            elif isinstance(addresses, BaseException):
                raise addresses
            else:
                proofs = _names(transport, host, name)
                targets += [Target(transport, (address, record.port), proofs) for address in addresses]
        if silent and not targets:
            raise DnsSilent
        return targets

    def _in_order(self, records: Records) -> list[Any]:
        """RFC 2782: by priority; within one, drawn by weight, those of weight 0 seldom first."""
        ordered: list[Any] = []
        for priority in sorted({record.priority for record in records}):
            left = sorted((r for r in records if r.priority == priority), key=lambda record: bool(record.weight))
            while left:
                mark = self._order.randint(0, sum(record.weight for record in left))
                for record in left:
                    mark -= record.weight
                    if mark <= 0:
                        break
                left.remove(record)
                ordered.append(record)
        return ordered

    async def _addresses(self, host: str) -> list[str]:
        known = self._from_hosts(host)
        if known:
            return known
        v4, v6 = await asyncio.gather(self._lookup(host, "A"), self._lookup(host, "AAAA"), return_exceptions=True)
        found = [record.address for records in (v4, v6) if not isinstance(records, BaseException) for record in records]
        for records in (v4, v6):
            if isinstance(records, BaseException) and not found:
                raise records
        return found

    def _from_hosts(self, host: str) -> list[str]:
        if host in self.hosts:
            return list(self.hosts[host])
        try:
            changed = self._hosts_file.stat().st_mtime
        except OSError:
            return []
        if changed != self._hosts_read_at:
            self._hosts_read_at = changed
            self._hosts_seen = _read_hosts(self._hosts_file)
        return self._hosts_seen.get(host, [])

    async def _lookup(self, name: str, kind: str) -> Records:
        """Ask the cache, then DNS; one question for all who ask at the same time."""
        key = (name, kind)
        try:
            return await self._answer(key)
        finally:
            entry, soonest = self._cache.get(key), _soonest.get([inf])
            soonest[0] = min(soonest[0], 0.0 if entry is None else max(entry.until, entry.recheck_at))

    async def _answer(self, key: tuple[str, str]) -> Records:
        entry = self._cache.get(key)
        now = time.monotonic()
        if entry is not None and entry.records is not None and entry.until > now:
            return entry.records
        old = entry.records if entry is not None and entry.until + STALE > now else None
        if entry is not None and entry.recheck_at > now:
            if old is None:
                raise DnsSilent
            return old
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.get_running_loop().create_task(self._ask(*key))
            task.add_done_callback(lambda ended: self._asked(key, ended))
        if old is None:
            return await asyncio.shield(task)
        try:
            return await asyncio.wait_for(asyncio.shield(task), PATIENCE)
        except TimeoutError:
            if entry is not None:
                entry.recheck_at = time.monotonic() + RECHECK  # the next ones do not wait; the question goes on
        except DnsSilent:
            pass
        return old

    def _asked(self, key: tuple[str, str], task: asyncio.Task[Records]) -> None:
        """A question ended, answered or not; nobody may wait for it any more."""
        self._asking.pop(key, None)
        if task.cancelled() or not isinstance(task.exception(), DnsSilent):
            return
        recheck_at = time.monotonic() + RECHECK
        entry = self._cache.get(key)
        if entry is None:
            self._keep(key, _Entry(None, -STALE, recheck_at))
        else:
            entry.recheck_at = recheck_at
            log.warning("DNS is silent about %s %s; the last answer is used", *key)

    async def _ask(self, name: str, kind: str) -> Records:
        asked = name
        ttl = MAX_TTL
        for _ in range(CHAIN):
            try:
                answer = await self._dns.resolve(asked, kind, search=False)
            except dns.resolver.NXDOMAIN as denial:
                return self._deny((name, kind), next(iter(denial.kwargs["responses"].values())), ttl)
            except dns.resolver.NoAnswer as denial:
                # A server that does not follow aliases leaves that to us.
                response = denial.kwargs["response"]
                chain = response.resolve_chaining()
                following = chain.canonical_name.to_text(omit_final_dot=True)
                if following.lower() == asked.lower():
                    return self._deny((name, kind), response, ttl)
                asked, ttl = following, min(ttl, float(chain.minimum_ttl))
                continue
            except (dns.exception.DNSException, OSError, UnicodeError) as error:
                raise DnsSilent from error
            records = tuple(answer)
            ttl = max(min(ttl, float(answer.chaining_result.minimum_ttl)), MIN_TTL)
            self._keep((name, kind), _Entry(records, time.monotonic() + ttl))
            return records
        raise DnsSilent

    def _deny(self, key: tuple[str, str], response: dns.message.Message, ttl: float) -> Records:
        """Keep for the time of its SOA that there is no such record (RFC 2308 §5)."""
        seconds = NEGATIVE_TTL
        for rrset in response.authority:
            if rrset.rdtype == dns.rdatatype.SOA:
                seconds = float(min(rrset.ttl, rrset[0].minimum))
        seconds = max(min(seconds, MAX_NEGATIVE_TTL, ttl), MIN_TTL)
        self._keep(key, _Entry((), time.monotonic() + seconds))
        return ()

    def _keep(self, key: tuple[str, str], entry: _Entry) -> None:
        if len(self._cache) >= CACHE:
            now = time.monotonic()
            self._cache = {k: kept for k, kept in self._cache.items() if kept.until > now}
            if len(self._cache) >= CACHE:
                self._cache.clear()
        self._cache[key] = entry


def _names(transport: str, *names: str) -> tuple[str, ...]:
    return names if transport in SECURE else ()


def _server(text: str, port: int) -> tuple[str, int]:
    """``192.0.2.53``, ``192.0.2.53:5353`` or ``[2001:db8::53]:5353`` → address and port."""
    host, colon, number = text.rpartition(":")
    if colon and (host.endswith("]") or ":" not in host):
        return host.strip("[]"), int(number)
    return text.strip("[]"), port


def _read_hosts(path: Path) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for line in path.read_text(errors="replace").splitlines():
        address, *aliases = line.partition("#")[0].split() or [""]
        for alias in aliases:
            names.setdefault(alias.lower(), []).append(address)
    for addresses in names.values():
        addresses.sort(key=lambda address: ":" in address)  # IPv4 first, as from DNS
    return names
