"""The covered ratio as people read it: seconds bound of the seconds in which a binding could have stood.

The worker counts both with each answer (`sipengine.uac.coverage`); here they are brought up to a moment, and cut to a
window by what the history kept of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from trunkmgr.models import Registration, RegistrationEvent
from trunkmgr.models.registration import State
from trunkmgr.payloads import duration

_BOUND = frozenset({State.REGISTERED, State.REFRESHING})


@dataclass(frozen=True, slots=True)
class Covered:
    """Seconds."""

    covered: float
    coverable: float

    @property
    def lost(self) -> float:
        return max(0.0, self.coverable - self.covered)

    @property
    def ratio(self) -> float | None:
        """Between 0 and 1; None where no binding could have stood."""
        return min(1.0, self.covered / self.coverable) if self.coverable > 0 else None

    def __str__(self) -> str:
        """`99.98 %`, never rounded up to 100: what was lost shall show."""
        if self.ratio is None:
            return ""
        return "100 %" if self.lost < 0.1 else f"{int(self.ratio * 100_000) / 1000:.3f} %"

    def told(self) -> str:
        """`99.98 %, 12 s lost of 3 d 2 h`; empty where nothing was counted."""
        return f"{self}, {duration(self.lost)} lost of {duration(self.coverable)}" if str(self) else ""

    def __sub__(self, other: Covered) -> Covered:
        return Covered(max(0.0, self.covered - other.covered), max(0.0, self.coverable - other.coverable))


def until(registration: Registration, now: datetime) -> Covered:
    """All that was counted since the account is known, and what passed since its last answer."""
    counted, bound = registration.counted_time, registration.bound_until_time
    if counted is None or registration.state not in _BOUND:
        # What passes after a failure counts with the next answer, which says what it was.
        return Covered(registration.covered, registration.coverable)
    stood = (min(now, bound) - counted).total_seconds() if bound else 0.0
    passed = max(0.0, (now - counted).total_seconds())
    return Covered(registration.covered + min(max(0.0, stood), passed), registration.coverable + passed)


def within(registration: Registration, events: Sequence[RegistrationEvent], since: datetime, now: datetime) -> Covered:
    """The same of a window; `events` are those since then, the oldest first, with the last one before where there is.
    """
    whole = until(registration, now)
    told = [event for event in events if event.covered is not None]
    if not told:
        return whole if not events or events[0].time >= since else Covered(0.0, 0.0)
    first = told[0]
    begin = Covered(first.covered or 0.0, first.coverable or 0.0)
    if first.time < since and first.state == State.REGISTERED:
        # Nothing happened until the window began: the binding was renewed all the time, or ran out at some moment.
        ends = [event.lapsed_time for event in told[1:2] if event.lapsed_time] or [since]
        stood = (min(since, ends[0]) - first.time).total_seconds()
        begin = Covered(begin.covered + stood, begin.coverable + (since - first.time).total_seconds())
    return whole - begin
