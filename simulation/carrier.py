"""A provider on a `Wire`: servers that share one registrar, bad days, and a memory for what it was sent.

Keeps the ledgers of its accounts from its registrar's table, and notes each rule that a REGISTER breaks.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from simulation.coverage import LONGEST_WAIT, TURN, Ledger, Outage
from simulation.registrar import Answer, Registrar
from sipengine.events import Target
from sipengine.message import Message, parse
from sipengine.message.build import head_of, response
from sipengine.testing import Station, Wire
from sipengine.transport.flow import Address

BUDGET = 520
"""REGISTERs that a provider takes in any second: the engine's 500, and the 20 of a full bucket."""
SOONEST = (4.0, 8.0, 16.0, 32.0)
"""Seconds that must pass after so many failures in a row until the same server is asked again."""
ROUNDING = 0.25
TIMER_F = 32.0
UNDER_WAY = 9.0
"""Seconds that a REGISTER costs which was under way when an outage ended: it is repeated each 4 s (T2), may still time
out and be tried again after the first back-off, 5 s, and none may be sent beside it (RFC 3261 §10.2).
"""
CLASSES = {
    200: "granted", 401: "challenged", 403: "banned", 404: "unknown", 423: "too brief", 429: "throttled",
    500: "failing", 503: "overloaded", 400: "malformed",
}  # fmt: skip
REASONS = {429: b"Too Many Requests", 423: b"Interval Too Brief", 401: b"Unauthorized"}


@dataclass(slots=True)
class Mood:
    """How a provider answers every REGISTER; `status` 0: not at all."""

    status: int
    retry_after: int = 0


@dataclass(slots=True)
class Track:
    """What one server saw of one account's failures."""

    failures: int = 0
    failed_at: float = 0.0
    not_before: float = 0.0


@dataclass
class Carrier:
    wire: Wire
    name: str
    registrar: Registrar
    hosts: list[str]
    """Address of each server; names resolve to them in this order."""
    transport: str = "udp"
    budget: int = BUDGET
    mood: Mood | None = None
    silent: set[str] = field(default_factory=set)
    outages: list[Outage] = field(default_factory=list)
    ledgers: dict[bytes, Ledger] = field(default_factory=dict)
    by_class: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    """How often each rule was broken."""
    first_broken: dict[str, str] = field(default_factory=dict)
    busiest: int = 0
    """Most REGISTERs in one second."""

    def __post_init__(self) -> None:
        self.stations = [self._open(host) for host in self.hosts]
        self._tracks: dict[tuple[bytes, str], Track] = {}
        self._answers: tuple[dict[bytes, bytes], dict[bytes, bytes]] = {}, {}
        self._answers_since = 0.0
        self._second, self._in_second = -1, 0
        # Challenge and answer, and the same again for a rate that has to rise first.
        drain = UNDER_WAY + TURN + 4 * len(self.registrar.passwords) / self.budget
        self.ledgers = {user: Ledger(self.wire.now, drain) for user in self.registrar.passwords}
        self.resolve()

    @property
    def domain(self) -> str:
        return f"{self.name}.example"

    def resolve(self) -> None:
        """Let the name lead to the servers in their present order."""
        self.wire.hosts[self.domain] = [Target(self.transport, (host, 5060)) for host in self.hosts]

    def _open(self, host: str) -> Station:
        station = self.wire.station(host, 5060, self.transport)
        station.on_receive = lambda data, source: self._receive(station, data, source)
        return station

    # weather
    def begin(self, mood: Mood) -> None:
        """Serve nobody from now on."""
        if self.mood is None:
            self.outages.append(Outage(self.wire.now, float("inf")))
        self.mood = mood

    def end(self) -> None:
        if self.mood is not None:
            self.mood = None
            self.outages[-1].end = self.wire.now

    def restart(self) -> None:
        """Forget all bindings and nonces: without a word over UDP; connections end with it."""
        for ledger in self.ledgers.values():
            ledger.dropped(self.wire.now, self.outages, signalled=self.transport == "tcp")
        self.registrar.forget()
        for station in self.stations:
            self.wire.hang_up(station.address)

    def close_books(self) -> None:
        """Count to the end; an account that is not bound long after its provider serves again is stuck."""
        now = self.wire.now
        served_since = max([outage.end for outage in self.outages], default=0.0)
        for user, ledger in self.ledgers.items():
            ledger.count_to(now, self.outages)
            if now > max(ledger.until, served_since, ledger.wait_until) + LONGEST_WAIT:
                self._broke("stuck", f"{user.decode()} is not bound since {ledger.until:.0f} s")

    # the wire
    def _receive(self, station: Station, data: bytes, source: Address) -> None:
        now, host = self.wire.now, station.address[0]
        if data[:1] < b"!":
            return  # a keep-alive
        message = parse(data)
        branch = message.via.branch
        if now - self._answers_since > 64:
            self._answers, self._answers_since = ({}, self._answers[0]), now
        known = self._answers[0].get(branch)
        if known is None:
            known = self._answers[1].get(branch)
        register = message.method == b"REGISTER"
        if known is None and register:
            self._note(message, host, now)
            self._answers[0][branch] = b""
        if host in self.silent or (self.mood is not None and not self.mood.status):
            if known is None and register:
                self.by_class["unanswered"] += 1
                self._failed(message, host, now, 0)
                if self.transport == "tcp":
                    # RFC 3261 §10.2: no other REGISTER before this one has timed out, and TCP repeats nothing.
                    self.ledgers[message.to.sip_uri.user or b""].must_wait(now + TIMER_F)
            return
        if not known:
            status, lines = self._serve(message, host, source, now) if register else (200, [])
            known = self._answers[0][branch] = response(head_of(message), status, REASONS.get(status, b""), b"s", lines)
        station.send(known, source)

    def _note(self, message: Message, host: str, now: float) -> None:
        """Hold a new REGISTER against the rules."""
        user = message.to.sip_uri.user or b""
        if user in self.ledgers:
            self.ledgers[user].asked(now)
        if int(now) != self._second:
            self._second, self._in_second = int(now), 0
        self._in_second += 1
        self.busiest = max(self.busiest, self._in_second)
        if self._in_second > self.budget:
            self._broke("budget", f"{self._in_second} REGISTERs in one second")
        track = self._tracks.get((user, host))
        if track is None:
            return
        if now < track.not_before - ROUNDING:
            self._broke("retry_after", f"{user.decode()} came {track.not_before - now:.1f} s too early")
        if track.failures:
            wait = SOONEST[min(track.failures, len(SOONEST)) - 1]
            if now - track.failed_at < wait - ROUNDING:
                passed = f"{now - track.failed_at:.1f} s after failure {track.failures}, not {wait:.0f} s"
                self._broke("back_off", f"{user.decode()} came {passed}")

    def _serve(self, message: Message, host: str, source: Address, now: float) -> Answer:
        user = message.to.sip_uri.user or b""
        mood = self.mood
        if mood is not None:
            self.by_class[CLASSES[mood.status]] += 1
            unbelieved = mood.status == 403 and b"authorization" in message.keys
            if not unbelieved:  # such a one may be followed by one without credentials (a nonce that was forgotten)
                self._failed(message, host, now, mood.retry_after)
            return mood.status, [b"Retry-After: %d" % mood.retry_after] if mood.retry_after else []
        status, lines = self.registrar.answer(message, b"%b:%d" % (source[0].encode(), source[1]), now)
        self.by_class[CLASSES[status]] += 1
        track = self._tracks.get((user, host))
        if track is not None:
            track.failures = 0  # a challenge is to be answered at once
        if status == 200:
            until = self.registrar.bound_until(user)
            if until > now:
                self._signalled(now)
                self.ledgers[user].bound(now, until - now, self.outages)
            else:
                self.ledgers[user].dropped(now, self.outages, signalled=True)
        return status, lines

    def _failed(self, message: Message, host: str, now: float, retry_after: int) -> None:
        user = message.to.sip_uri.user or b""
        track = self._tracks.get((user, host))
        if track is None:
            track = self._tracks[user, host] = Track()
        track.failures += 1
        track.failed_at = now
        if retry_after:
            track.not_before = now + retry_after
            self.ledgers[user].must_wait(now + retry_after)

    def _signalled(self, now: float) -> None:
        """An account was served: who waits for the end of an outage may know it."""
        if self._tracks:
            self._tracks = {key: track for key, track in self._tracks.items() if track.not_before > now}
            for track in self._tracks.values():
                track.failures = 0
        for outage in reversed(self.outages):
            if outage.signalled_at is not None:
                break
            if outage.end <= now:
                outage.signalled_at = now

    def _broke(self, rule: str, how: str) -> None:
        self.broken[rule] += 1
        self.first_broken.setdefault(rule, f"{how} (at {self.wire.now:.0f} s, {self.name})")
