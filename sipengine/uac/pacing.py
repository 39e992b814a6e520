"""How fast our own requests may leave for one target address: a token bucket each (RFC 3261 §21.5.4 for the 503).

Told the time and performs no I/O.  Does not retry and does not know what it sends: an entry is called once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from math import inf
from typing import Any

Send = Callable[[float], None]


class Priority(IntEnum):
    """Which queue of a target a request waits in; a lower one is empty before a higher one is served."""

    OPERATOR = 0
    ANSWER = 1
    """Repeats with credentials: finishing what was begun keeps nonces fresh and frees it before more is begun."""
    ROUTINE = 2
    PROBE = 3
    """What may wait as long as there is anything else."""


class _Bucket:
    __slots__ = ("most", "queues", "rate", "slowed_at", "tokens", "updated_at")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.most = self.rate = rate
        self.tokens = burst
        self.updated_at = now
        self.slowed_at = -inf
        self.queues: tuple[deque[Send], ...] = tuple(deque() for _ in Priority)

    def waiting(self) -> bool:
        return any(self.queues)


class Pacing:
    """Token buckets by target address."""

    def __init__(self, rate: float = 500.0, *, floor: float = 10.0, recovery: float = 60.0) -> None:
        """`rate` and `floor` in requests a second; `recovery`: seconds from standstill back to the full rate."""
        self.rate = rate
        self.budget: Callable[[Any], float] = _unknown
        """Requests a second that a target may get at most, 0 where nothing is known; the host sets it."""
        self.floor = floor
        self.recovery = recovery
        self._buckets: dict[object, _Bucket] = {}
        self._busy: dict[object, _Bucket] = {}

    def submit(self, target: object, send: Send, now: float, priority: Priority = Priority.ROUTINE) -> None:
        """Queue `send` for `target`; it is called before this returns where the rate allows."""
        bucket = self._buckets.get(target)
        most = self.budget(target) or self.rate
        if bucket is None:
            if len(self._buckets) >= 4096:
                self._prune(now)
            bucket = self._buckets[target] = _Bucket(most, self._burst(most), now)
        elif bucket.most != most:
            self._refill(bucket, now)
            bucket.most, bucket.rate = most, min(bucket.rate, most)
            bucket.tokens = min(bucket.tokens, self._burst(bucket.rate))
        bucket.queues[priority].append(send)
        if target not in self._busy:
            self._busy[target] = bucket
            self._serve(target, bucket, now)

    def slow_down(self, target: object, now: float) -> None:
        """Halve the rate after a timeout or a 503, at most once a second: one outage ends many requests at once."""
        bucket = self._buckets.get(target)
        if bucket is None or now - bucket.slowed_at < 1.0:
            return
        self._refill(bucket, now)
        bucket.slowed_at = now
        bucket.rate = min(bucket.most, max(self.floor, bucket.rate / 2))
        bucket.tokens = min(bucket.tokens, self._burst(bucket.rate))

    def rate_of(self, target: object, now: float) -> float:
        bucket = self._buckets.get(target)
        if bucket is None:
            return self.rate
        self._refill(bucket, now)
        return bucket.rate

    def next_at(self) -> float:
        """Say when the next queued request may leave; inf when none waits."""
        if not self._busy:
            return inf
        return min([b.updated_at + max(0.0, 1.0 - b.tokens) / b.rate for b in self._busy.values()])

    def handle_timer(self, now: float) -> None:
        for target, bucket in list(self._busy.items()):
            self._serve(target, bucket, now)

    @property
    def waiting(self) -> int:
        return sum(len(q) for b in self._busy.values() for q in b.queues)

    @staticmethod
    def _burst(rate: float) -> float:
        # 40 ms worth: enough to hide the host's timer slack, too little to overrun a default socket buffer.
        return max(1.0, rate * 0.04)

    def _refill(self, bucket: _Bucket, now: float) -> None:
        passed = now - bucket.updated_at
        if passed <= 0:
            return
        bucket.updated_at = now
        bucket.rate = min(bucket.most, bucket.rate + bucket.most * passed / self.recovery)
        bucket.tokens = min(self._burst(bucket.rate), bucket.tokens + passed * bucket.rate)

    def _serve(self, target: object, bucket: _Bucket, now: float) -> None:
        self._refill(bucket, now)
        # The small excess forgives float rounding: a timer set for exactly one token must find it.
        while bucket.tokens > 1.0 - 1e-6:
            queue = next((q for q in bucket.queues if q), None)
            if queue is None:
                break
            bucket.tokens -= 1.0
            queue.popleft()(now)
        if not bucket.waiting():
            self._busy.pop(target, None)

    def _prune(self, now: float) -> None:
        for target, bucket in list(self._buckets.items()):
            self._refill(bucket, now)
            if bucket.rate == bucket.most and target not in self._busy:
                del self._buckets[target]


def _unknown(target: object) -> float:
    return 0.0
