"""Engine clock ↔ wall time; the only place where one becomes the other.

The engine counts seconds that never jump.  What must survive a restart is wall time, so both are compared now and then:
a step of the wall clock moves our idea of the offset, never a deadline of the engine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

log = logging.getLogger("trunkmgr.sip")

#: Seconds by which the wall clock may run away between two looks before it is told.
STEP = 5.0


class Clock:
    """`now` gives engine seconds, `wall` seconds since 1970."""

    def __init__(self, now: Callable[[], float], wall: Callable[[], float] = time.time) -> None:
        self.now = now
        self._wall = wall
        self._offset = wall() - now()

    def time(self, at: float) -> datetime:
        """Engine clock to aware datetime."""
        return datetime.fromtimestamp(at + self._offset, UTC)

    def optional_time(self, at: float | None) -> datetime | None:
        return None if at is None else self.time(at)

    def at(self, moment: datetime) -> float:
        """Aware datetime to engine clock."""
        return moment.timestamp() - self._offset

    def compare(self) -> float:
        """Look at both clocks again; return the seconds by which wall time stepped, and log a step over 5 s."""
        offset = self._wall() - self.now()
        step, self._offset = offset - self._offset, offset
        if abs(step) > STEP:
            log.warning(
                "The clock of this machine stepped by %+.1f s. Registrations keep their pace; check what sets it.",
                step,
            )
        return step
