"""Targets that failed rest: they stand behind the others, and are probed before calls depend on them again.

RFC 3263 §4.3, RFC 3261 §21.5.4.  One table for calls and registrations.  A target is a transport and an address, so
that two ports of a host fail apart.  Does not decide what counts as a failure, and sends nothing: `probe` does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from sipengine.events import Target
from sipengine.message.message import Message
from sipengine.timerqueue import NEVER, TimerQueue
from sipengine.transport.flow import Address

log = logging.getLogger("sipengine")

SHORTEST, LONGEST = 30.0, 120.0
"""Seconds of a first rest and of one after failures in a row (doubled each time)."""
MAX_RETRY_AFTER = 1800.0
"""A Retry-After above this is taken for a fault of the far side."""
MAX_SILENCE = 120.0
"""Seconds that a target which asked for rest gets no new request at all, even when there is no other: an only target
must not be lost over one header.
"""
CAPACITY = 4096

Probe = Callable[[Target, float], None]


class Rest:
    """The rest of one target."""

    __slots__ = ("due", "failures", "missed", "rests", "silent_until", "target", "until")

    def __init__(self, rests: Rests, target: Target) -> None:
        self.rests = rests
        self.target = target
        self.failures = 0
        self.until = 0.0
        """NEVER while it is being probed."""
        self.silent_until = 0.0
        """Until then the target asked to be left alone."""
        self.missed = False
        """Whether a request went elsewhere because of this rest."""
        self.due = NEVER

    def on_timer(self, now: float) -> None:
        self.rests.over(self, now)


class Rests:
    """All targets that rest; `resting` is empty as long as all is well, and that is all a request looks at then."""

    def __init__(self, queue: TimerQueue) -> None:
        self.resting: dict[tuple[str, Address], Rest] = {}
        self.probe: Probe | None = None
        """Sends a request that tells whether a target is back, and reports by `failed` or `answered`."""
        self._queue = queue

    def order(self, targets: Sequence[Target], now: float, *, new: bool) -> list[Target]:
        """Put targets that rest behind the others, the one whose rest ends first at their head.

        A `new` request does not go to a target that asked for silence, so nothing may be left; what belongs to a call
        or an operator's order goes on.
        """
        if not self.resting:
            return list(targets)
        free: list[Target] = []
        late: list[tuple[float, int, Target]] = []
        resting: list[Rest] = []
        for number, target in enumerate(targets):
            rest = self.resting.get((target.transport, target.address))
            if rest is None:
                free.append(target)
                continue
            resting.append(rest)
            if not new or rest.silent_until <= now:
                late.append((rest.until, number, target))
        if free:
            for rest in resting:
                rest.missed = True
        return free + [target for _, _, target in sorted(late, key=lambda entry: entry[:2])]

    def holds(self, target: Target) -> bool:
        return (target.transport, target.address) in self.resting

    def miss(self, target: Target) -> None:
        """A request went elsewhere because this one rests: it is probed before requests come back."""
        rest = self.resting.get((target.transport, target.address))
        if rest is not None:
            rest.missed = True

    def silent_for(self, targets: Sequence[Target], now: float) -> float:
        """Seconds until the first of `targets` takes new requests again; 0 when one does now."""
        waits = []
        for target in targets:
            rest = self.resting.get((target.transport, target.address))
            waits.append(0.0 if rest is None else max(0.0, rest.silent_until - now))
        return min(waits, default=0.0)

    def failed(self, transport: str, address: Address, now: float, asked: float = 0.0) -> None:
        """Let a target rest that gave no answer, could not be reached, or answered 503 (`asked`: its Retry-After)."""
        key = transport, address
        rest = self.resting.get(key)
        if rest is None:
            if len(self.resting) >= CAPACITY:
                return
            rest = self.resting[key] = Rest(self, Target(transport, address))
        elif rest.until != NEVER and not asked:
            return  # one outage ends many requests: they are one failure
        if rest.until == NEVER or not rest.failures:
            rest.failures += 1
        asked = min(asked, MAX_RETRY_AFTER)
        seconds = asked or min(SHORTEST * 2.0 ** (rest.failures - 1), LONGEST)
        rest.until = now + seconds
        rest.silent_until = now + min(asked, MAX_SILENCE)
        self._queue.arm_at(rest, rest.until)
        log.warning("%s:%s:%d rests for %.0f s: it %s.", transport, *address, seconds, "asked for it" if asked else
                    "gave no usable answer")  # fmt: skip

    def answered(self, transport: str, address: Address) -> None:
        """A target works: use it as before."""
        rest = self.resting.pop((transport, address), None)
        if rest is not None:
            rest.due = NEVER
            log.info("%s:%s:%d answers again.", transport, *address)

    def over(self, rest: Rest, now: float) -> None:
        """A rest ended: probe the target if requests would come back to it, else the next request is the probe."""
        if rest.missed and self.probe is not None:
            rest.missed = False
            rest.until = NEVER
            self.probe(rest.target, now)
        else:
            self.resting.pop((rest.target.transport, rest.target.address), None)


def asked_rest(message: Message) -> float:
    """Seconds of Retry-After, 0 without a usable one: ``120 (comment);duration=60`` says 120 (RFC 3261 §20.33)."""
    value = message.get(b"Retry-After")
    if not value:
        return 0.0
    digits = value[: len(value) - len(value.lstrip(b"0123456789"))]
    return float(digits[:9] or b"0")
