"""Defence against those who try: budgets of new requests and of failures by address and network, and bans.

Nobody is banned for a datagram, whose source anybody can forge: a ban needs a connection.  Providers and PBXs are never
asked about here but for their rate, so none is ever banned.  Everything is bounded; times are seconds that go forward.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

#: Addresses that are remembered; strangers choose theirs, so the tables must be bounded.
LIMIT = 4096
#: A network (/24, IPv6 /64) has the budget of so many of its addresses.
ADDRESSES = 8
#: REGISTERs that an address may send before it is known, at once and a second.
ATTEMPTS, ATTEMPTS_A_SECOND = 20.0, 1.0
#: Failures that an address may make at once, and how many a second it may make for ever.
FAILURES, FORGIVEN = 10.0, 10.0 / 60.0


class Ban(NamedTuple):
    address: str
    rule: str
    """What it was banned for: `stranger` (connections of nobody we know), `authentication`."""
    since: float
    until: float


class Buckets:
    """Token buckets by key: each holds `burst` and gains `rate` a second.  The one unused longest goes first."""

    def __init__(self, rate: float, burst: float, limit: int = LIMIT) -> None:
        self.rate = rate
        self.burst = burst
        self.limit = limit
        self._held: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def give_back(self, key: str) -> None:
        """Fill a bucket up again."""
        self._held.pop(key, None)

    def holds(self, key: str, now: float) -> bool:
        """Whether there is a token to take."""
        tokens, at = self._held.get(key, (self.burst, now))
        return min(self.burst, tokens + (now - at) * self.rate) >= 1.0

    def take(self, key: str, now: float) -> bool:
        """Take one token; False when there is none."""
        tokens, at = self._held.pop(key, (self.burst, now))
        tokens = min(self.burst, tokens + (now - at) * self.rate)
        if len(self._held) >= self.limit:
            del self._held[next(iter(self._held))]
        allowed = tokens >= 1.0
        self._held[key] = (tokens - 1.0 if allowed else tokens, now)
        return allowed


class Defence:
    """What one worker knows of who tried; `rate` 0 limits no requests, `ban_seconds` 0 bans nobody."""

    def __init__(self, rate: float = 0.0, ban_seconds: float = 600.0) -> None:
        self.rate = rate
        self.ban_seconds = ban_seconds
        self.new: list[Ban] = []
        """Bans that are not stored yet; the worker takes them."""
        self._requests = Buckets(rate, 2.0 * rate), Buckets(ADDRESSES * rate, 2.0 * ADDRESSES * rate)
        self._failures = Buckets(FORGIVEN, FAILURES), Buckets(ADDRESSES * FORGIVEN, ADDRESSES * FAILURES)
        self._attempts = (
            Buckets(ATTEMPTS_A_SECOND, ATTEMPTS), Buckets(ADDRESSES * ATTEMPTS_A_SECOND, ADDRESSES * ATTEMPTS),
        )
        self._bans: dict[str, Ban] = {}

    def allows(self, address: str, now: float) -> bool:
        """Whether the address may begin something new: it and its network are within their rate."""
        one, network = self._requests
        return one.take(address, now) and network.take(network_of(address), now)

    def failed(self, address: str, rule: str, now: float, proven: bool) -> bool:
        """Note a failure: an authentication that was wrong, a connection of a stranger.  False: the address, or its
        network, has used its budget up; `proven` (it answered on a connection) it is banned for that.
        """
        one, network = self._failures
        if one.take(address, now) and network.take(network_of(address), now):
            return True
        if proven and self.ban_seconds and not self.banned(address, now):
            self.put([Ban(address, rule, now, now + self.ban_seconds)])
            if len(self.new) < LIMIT:
                self.new.append(self._bans[address])
        return False

    def may_try(self, address: str, now: float) -> bool:
        """Whether an address that is nobody's may try to prove itself: it has failures and attempts left."""
        one, network = self._failures
        if not one.holds(address, now) or not network.holds(network_of(address), now):
            return False
        one, network = self._attempts
        return one.take(address, now) and network.take(network_of(address), now)

    def banned(self, address: str, now: float) -> bool:
        ban = self._bans.get(address)
        if ban is None:
            return False
        if now >= ban.until:
            del self._bans[address]
            return False
        return True

    def put(self, bans: Iterable[Ban]) -> None:
        """Take bans up: of now, or those that still hold when a worker starts."""
        for ban in bans:
            while len(self._bans) >= LIMIT:
                del self._bans[next(iter(self._bans))]
            self._bans[ban.address] = ban

    def lift(self, address: str) -> bool:
        """End a ban, and give the address its budget back; False where there is none."""
        one, network = self._failures
        one.give_back(address)
        network.give_back(network_of(address))
        return self._bans.pop(address, None) is not None

    def standing(self, now: float) -> list[Ban]:
        return [ban for ban in self._bans.values() if now < ban.until]


@lru_cache(maxsize=LIMIT)
def network_of(address: str) -> str:
    """The /24 of an IPv4 address, the /64 of an IPv6 one."""
    if ":" not in address:
        return address.rpartition(".")[0] + ".0/24"
    try:
        return str(ipaddress.ip_network(f"{address.partition('%')[0]}/64", strict=False))
    except ValueError:
        return address
