"""What one account may cost: which numbers it calls, how many calls go on, how many begin a second.

Asked for each new call, from memory.  Calls going on are the engine's to count; those from before a restart count again
from their next request on.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass

_SEPARATORS = re.compile(r"[-.() ]")


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one account; what is empty or 0 limits nothing."""

    numbers: tuple[tuple[str, bool], ...] = ()
    """Beginnings of numbers, the longest first, and whether what begins so may be called."""
    closed: bool = False
    """Whether a number that begins like none of them may not be called."""
    calls: int = 0
    """At the same time, in both directions."""
    rate: int = 0
    """Calls out that begin in a second."""

    def reach(self, dialled: str) -> bool:
        """Say whether a number may be called: its longest listed beginning decides."""
        number = normal(dialled)
        for prefix, allowed in self.numbers:
            if number.startswith(prefix):
                return allowed
        return not self.closed


NO_LIMITS = Limits()


def limits_of(numbers: str, calls: int, rate: int) -> Limits:
    """Read the columns of a row: beginnings with commas or spaces between, ``!`` before those that are forbidden."""
    words = numbers.replace(",", "\n").split()
    listed = {normal(word.removeprefix("!")): not word.startswith("!") for word in words}
    order = sorted(listed.items(), key=lambda entry: -len(entry[0]))
    return Limits(tuple(order), any(listed.values()), calls, rate)


def normal(number: str) -> str:
    """A number as it is compared: without separators, and 00 as the + that it stands for."""
    number = _SEPARATORS.sub("", number)
    return "+" + number[2:] if number.startswith("00") else number


class Pace:
    """Calls that began, by account: a token bucket each, which holds as many as may begin in a second."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[float, float]] = {}

    def allows(self, l_uuid: str, rate: int, now: float) -> bool:
        """Take one; False when there is none."""
        tokens, at = self._held.get(l_uuid, (float(rate), now))
        tokens = min(float(rate), tokens + (now - at) * rate)
        self._held[l_uuid] = (tokens - 1.0 if tokens >= 1.0 else tokens, now)
        return tokens >= 1.0

    def keep(self, l_uuids: Container[str]) -> None:
        """Forget all other accounts."""
        self._held = {l_uuid: held for l_uuid, held in self._held.items() if l_uuid in l_uuids}
