"""Which seconds of an account a registrar's table covered, and whose fault the others were.

A second counts against us when a client that obeys Retry-After and the budget could have held a binding with what had
been on the wire.  It does not count: while the provider serves nobody; after that until any of its accounts was served
again and the others had the time that the budget needs; until a Retry-After is over; and, where a registrar forgot and
said nothing, until the next refresh that the grant calls for (that is reported apart).
"""

from __future__ import annotations

from dataclasses import dataclass, field

LONGEST_WAIT = 945.0
"""Seconds after an outage that nobody has signalled: back-off goes to 15 min, and a request may time out before."""
TURN = 1.0
"""Seconds for the round trips of one account, its losses apart."""

Span = tuple[float, float]


@dataclass(slots=True)
class Outage:
    """A time in which a provider served nobody, or not these accounts."""

    begin: float
    end: float
    signalled_at: float | None = None
    """When it first served one of its accounts again."""

    def excuse(self, drain: float) -> Span:
        """The seconds in which nothing can be asked of us; `drain`: what its budget needs for all its accounts."""
        latest = self.end + LONGEST_WAIT
        return self.begin, latest if self.signalled_at is None else min(latest, self.signalled_at + drain)


def latest_refresh(granted: float) -> float:
    """Seconds after which even the latest refresh of a grant has left."""
    return granted * 2 / 3 + 2 if granted <= 64 else min(granted - 32, 0.9 * granted) + 2


@dataclass(slots=True)
class Ledger:
    """The seconds of one account, told by its provider's table alone."""

    counted_to: float
    drain: float
    """Seconds that the budget needs for all accounts of the provider; also the time that a start may take."""
    until: float = 0.0
    """The table has a binding until then."""
    granted_at: float = 0.0
    granted: float = 0.0
    forgotten: bool = False
    """The binding went by no doing of ours, and nobody said so."""
    asked_at: float | None = None
    """When we first asked after it was forgotten."""
    wait_until: float = 0.0
    """Nothing may be asked before: a Retry-After ends then, or a request that nothing repeats times out."""
    covered: float = 0.0
    lost: float = 0.0
    """Seconds that count against us."""
    unsignalled: float = 0.0
    gaps: list[tuple[float, float]] = field(default_factory=list)
    """When, and how many seconds of it count against us."""
    start: Span = (0.0, 0.0)

    def __post_init__(self) -> None:
        self.start = self.counted_to, self.counted_to + self.drain

    @property
    def ratio(self) -> float:
        """Share of the coverable seconds that was covered; 1 where none was coverable."""
        coverable = self.covered + self.lost
        return self.covered / coverable if coverable else 1.0

    def asked(self, now: float) -> None:
        """A REGISTER of ours arrived."""
        if self.forgotten and self.asked_at is None:
            self.asked_at = now

    def must_wait(self, until: float) -> None:
        self.wait_until = max(self.wait_until, until)

    def bound(self, now: float, granted: float, outages: list[Outage]) -> None:
        """The table took a binding of ours."""
        self.count_to(now, outages)
        self.granted_at, self.granted, self.until = now, granted, now + granted
        self.forgotten, self.asked_at = False, None

    def dropped(self, now: float, outages: list[Outage], *, signalled: bool) -> None:
        """The table lost our binding before its time."""
        self.count_to(now, outages)
        if self.until > now:
            self.forgotten = not signalled
            self.until = now

    def count_to(self, now: float, outages: list[Outage]) -> None:
        """Account for all seconds since the last reckoning."""
        begin, self.counted_to = self.counted_to, now
        covered_to = min(max(self.until, begin), now)
        self.covered += covered_to - begin
        if now > covered_to:
            self._gap(covered_to, now, outages)

    def _gap(self, begin: float, end: float, outages: list[Outage]) -> None:
        excuses = [self.start, (begin, self.wait_until)]
        excuses += [outage.excuse(self.drain) for outage in outages if outage.begin < end]
        if self.forgotten:
            due = self.granted_at + latest_refresh(self.granted)
            asked_at = due if self.asked_at is None else min(due, self.asked_at)
            unknown = begin, asked_at + TURN
            self.unsignalled += (end - begin) - _within(excuses, begin, end)
            self.unsignalled -= (end - begin) - _within([*excuses, unknown], begin, end)
            excuses.append(unknown)
        lost = (end - begin) - _within(excuses, begin, end)
        if lost > 1e-6:
            self.lost += lost
            self.gaps.append((begin, lost))


def _within(spans: list[Span], begin: float, end: float) -> float:
    """Seconds of [begin, end) that the spans cover together."""
    total, at = 0.0, begin
    for first, last in sorted(spans):
        first, last = max(first, at), min(last, end)
        if last > first:
            total += last - first
            at = last
    return total
