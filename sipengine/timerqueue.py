"""One deadline out of many: a FIFO lane for each constant delay and a heap for the rest.

Nearly every SIP timer is one of a dozen constants (RFC 3261 §17), so a lane is sorted by construction: arming is an
append. Nothing is ever cancelled: an entry is stale once its owner's `due` moved on, and goes when its time comes.  A
heap that holds 32-second entries costs four times as much; a timer wheel drifts.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Protocol

NEVER = float("inf")


class TimerOwner(Protocol):
    due: float

    def on_timer(self, now: float) -> None: ...


class TimerQueue:
    __slots__ = ("_count", "_soonest", "heap", "lanes")

    def __init__(self) -> None:
        self.lanes: dict[float, tuple[deque[float], deque[TimerOwner]]] = {}
        """By delay: times and their owners, side by side; a tuple for each entry would be one more object that the
        garbage collector walks over for 32 s.
        """
        self.heap: list[tuple[float, int, TimerOwner]] = []
        self._count = 0
        self._soonest = NEVER

    def arm(self, owner: TimerOwner, delay: float, now: float) -> None:
        """Call `owner.on_timer` in `delay` seconds; only for delays out of a small fixed set (each has its lane)."""
        when = owner.due = now + delay
        lane = self.lanes.get(delay)
        if lane is None:
            lane = self.lanes[delay] = (deque(), deque())
        times, owners = lane
        times.append(when)
        owners.append(owner)
        if when < self._soonest:
            self._soonest = when

    def arm_at(self, owner: TimerOwner, when: float) -> None:
        """Call `owner.on_timer` at any time."""
        owner.due = when
        self._count += 1
        heapq.heappush(self.heap, (when, self._count, owner))
        if when < self._soonest:
            self._soonest = when

    def next_at(self) -> float:
        """Earliest entry, stale ones included; inf when there is none."""
        return self._soonest

    def expire(self, now: float) -> None:
        if now < self._soonest:
            return
        heap = self.heap
        try:
            for times, owners in list(self.lanes.values()):
                while times and times[0] <= now:
                    when, owner = times.popleft(), owners.popleft()
                    if owner.due == when:
                        owner.due = NEVER
                        owner.on_timer(now)
            while heap and heap[0][0] <= now:
                when, _, owner = heapq.heappop(heap)
                if owner.due == when:
                    owner.due = NEVER
                    owner.on_timer(now)
        finally:  # an owner that fell over must not silence the others
            at = min([times[0] for times, _ in self.lanes.values() if times], default=NEVER)
            self._soonest = min(at, heap[0][0]) if heap else at
