"""From a host name to addresses to try (RFC 3263 §4 without NAPTR, RFC 2782): hosts file, SRV, A and AAAA.

Asks DNS without blocking the loop, keeps answers for their time to live, and serves what it knew when DNS is silent.
NAPTR is left out: it chooses among transports, and where a URI names none, SRV of UDP before SRV of TCP does that.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver

from sipengine.events import ResolutionWanted, Target
from sipengine.exceptions import ResolutionError

log = logging.getLogger("sipengine")

MIN_TTL, MAX_TTL = 5.0, 3600.0
NEGATIVE_TTL = 30.0
STALE = 86400.0
"""Seconds that an answer outlives its TTL while DNS is silent: an old address is better than none."""
LIFETIME = 6.0
CACHE = 4096
HOSTS = Path("/etc/hosts")

Records = tuple[Any, ...]


class DnsSilent(Exception):
    """No server answered, or none could (SERVFAIL); nothing is known about the name."""


@dataclass(slots=True)
class _Entry:
    records: Records
    until: float


class Resolver:
    """Answers `ResolutionWanted`."""

    def __init__(
        self, hosts: Mapping[str, Sequence[str]] | None = None, nameservers: Sequence[str] = (), port: int = 53,
        hosts_file: Path = HOSTS,
    ) -> None:  # fmt: skip
        self.hosts = dict(hosts or {})
        self._hosts_file = hosts_file
        self._hosts_read_at = 0.0
        self._hosts_seen: dict[str, list[str]] = {}
        self._cache: dict[tuple[str, str], _Entry] = {}
        self._asking: dict[tuple[str, str], asyncio.Task[Records]] = {}
        self._order = random.SystemRandom()
        try:
            self._dns = dns.asyncresolver.Resolver(configure=not nameservers)
        except dns.exception.DNSException:  # no resolv.conf: names come from the hosts file alone
            self._dns = dns.asyncresolver.Resolver(configure=False)
        if nameservers:
            self._dns.nameservers = list(nameservers)
            self._dns.port = port
        self._dns.cache = None
        self._dns.timeout = LIFETIME / 3
        self._dns.lifetime = LIFETIME

    async def resolve(self, wanted: ResolutionWanted) -> list[Target]:
        """Return the addresses in the order they are to be tried; raise ResolutionError."""
        host = wanted.host.rstrip(".").lower()
        scheme_port = 5061 if wanted.secure else 5060
        transport = wanted.transport or ("tls" if wanted.secure else None)
        try:
            if wanted.port is None and not self._from_hosts(host):
                found = await self._by_service(host, transport, wanted.secure)
                if found is not None:
                    if not found:
                        raise ResolutionError(f"DNS says that {host} offers no SIP service.")
                    return found
            addresses = await self._addresses(host)
        except DnsSilent:
            raise ResolutionError(f"DNS does not answer for {host}.") from None
        if not addresses:
            raise ResolutionError(f"DNS has no address for {host}.")
        return [Target(transport or "udp", (address, wanted.port or scheme_port)) for address in addresses]

    async def _by_service(self, host: str, transport: str | None, secure: bool) -> list[Target] | None:
        """SRV targets in order; empty when the service is denied, None when there is no SRV."""
        scheme = "_sips" if secure else "_sip"
        denied = False
        for name in (transport,) if transport else ("udp", "tcp"):
            service = f"{'_sips' if name == 'tls' else scheme}._{'tcp' if name == 'tls' else name}.{host}"
            try:
                records = await self._lookup(service, "SRV")
            except DnsSilent:
                continue  # the address may still be known, from the hosts file or a stale answer
            if len(records) == 1 and records[0].target == dns.name.root:
                denied = True  # RFC 2782: "." means that the service is decidedly not here
                continue
            targets: list[Target] = []
            for record in self._in_order(records):
                for address in await self._addresses(record.target.to_text(omit_final_dot=True).lower()):
                    targets.append(Target(name, (address, record.port)))
            if targets:
                return targets
        return [] if denied else None

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
        entry = self._cache.get(key)
        if entry is not None and entry.until > time.monotonic():
            return entry.records
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.get_running_loop().create_task(self._ask(name, kind))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        try:
            return await asyncio.shield(task)
        except DnsSilent:
            if entry is not None and entry.records and entry.until + STALE > time.monotonic():
                log.warning("DNS is silent about %s %s; the last answer is used", name, kind)
                return entry.records
            raise

    async def _ask(self, name: str, kind: str) -> Records:
        try:
            answer = await self._dns.resolve(name, kind, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            self._keep((name, kind), (), NEGATIVE_TTL)
            return ()
        except (dns.exception.DNSException, OSError, UnicodeError) as error:
            raise DnsSilent from error
        records = tuple(answer)
        assert answer.rrset is not None
        self._keep((name, kind), records, min(max(float(answer.rrset.ttl), MIN_TTL), MAX_TTL))
        return records

    def _keep(self, key: tuple[str, str], records: Records, ttl: float) -> None:
        if len(self._cache) >= CACHE:
            now = time.monotonic()
            self._cache = {k: entry for k, entry in self._cache.items() if entry.until > now}
            if len(self._cache) >= CACHE:
                self._cache.clear()
        self._cache[key] = _Entry(records, time.monotonic() + ttl)


def _read_hosts(path: Path) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for line in path.read_text(errors="replace").splitlines():
        address, *aliases = line.partition("#")[0].split() or [""]
        for alias in aliases:
            names.setdefault(alias.lower(), []).append(address)
    for addresses in names.values():
        addresses.sort(key=lambda address: ":" in address)  # IPv4 first, as from DNS
    return names
