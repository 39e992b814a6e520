"""How much of what is new is refused so that what stands goes on (RFC 3261 §21.5.4, RFC 5390).

The host measures how long what it reads has waited; the least wait of an interval tells a queue that stands from a
burst that passes (as CoDel does, RFC 8289 §3).  The share to refuse grows while one stands, halves once none does.
"""

from __future__ import annotations

INTERVAL = 0.2
"""Seconds of one judgement."""
STANDING = 0.2
"""A wait of this length counts as a queue: less than half of T1, so that hardly anything is repeated for it."""
GROWTH = 0.1
"""Of the share, for each interval with a queue of that length; for longer queues up to three times as much."""
MOST = 0.95
"""Some calls are always tried: only they can show that it goes again."""
LEAST = 0.05
RETRY_AFTER = (5, 30)
SLOTS = 4096


class Gauge:
    """The waits at one place where things queue."""

    __slots__ = ("_overload", "least")

    def __init__(self, overload: Overload) -> None:
        self._overload = overload
        self.least: float | None = None

    def measured(self, wait: float, now: float) -> None:
        least = self.least
        if least is None or wait < least:
            self.least = wait
        overload = self._overload
        if now >= overload.judge_at:
            overload.judge(now)


class Overload:
    def __init__(self) -> None:
        self.share = 0.0
        """Of new INVITEs, to be refused."""
        self.wait = 0.0
        """Seconds that everything waited at least, in the last interval."""
        self.times = 0
        """How often it began."""
        self.judge_at = 0.0
        self._standing = 0
        self._gauges: list[Gauge] = []

    def gauge(self) -> Gauge:
        gauge = Gauge(self)
        self._gauges.append(gauge)
        return gauge

    def judge(self, now: float) -> None:
        passed = (now - self.judge_at) / INTERVAL
        self.judge_at = now + INTERVAL
        self.wait = max((gauge.least or 0.0 for gauge in self._gauges), default=0.0)
        for gauge in self._gauges:
            gauge.least = None
        if self.wait >= STANDING:
            self._standing += 1
            if self._standing > 1:  # one interval alone may be the host's own pause
                self.times += not self.share
                self.share = min(MOST, self.share + GROWTH * min(3.0, self.wait / STANDING))
            return
        self._standing = 0
        if self.share and self.wait < STANDING / 2:
            self.share = self.share / 2 if passed < 5 else 0.0
            if self.share < LEAST:
                self.share = 0.0

    def refuses(self, key: int, now: float) -> bool:
        """Whether the new request with that hash is one too many: the same for each repetition while it lasts."""
        if now >= self.judge_at + 5 * INTERVAL:  # nobody measured: nothing waits
            self.judge(now)
        return key % SLOTS < self.share * SLOTS


def retry_after(key: int) -> bytes:
    """5 to 30 seconds, spread over the callers, the same for each repetition of a request."""
    low, high = RETRY_AFTER
    return b"Retry-After: %d" % (low + key // SLOTS % (high - low + 1))
