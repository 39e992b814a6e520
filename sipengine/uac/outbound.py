"""Client-initiated flows: a binding that names this instance, and datagrams that keep its way open (RFC 5626 §4).

Connections are pinged by the host (`Flow.ping_after`), and their end is `reconnect`'s.  One flow an account: `reg-id`
is always 1.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from sipengine.message import Message
from sipengine.timerqueue import NEVER, TimerQueue
from sipengine.transport.flow import Flow
from sipengine.transport.stream import PING
from sipengine.uac.binding import number_of

OPTION = b"outbound"
USUAL = 120.0
"""Seconds that a Flow-Timer counts as where there is none (§4.4.1)."""
SOONEST, SPREAD = 24.0, 5.0
"""Seconds between two datagrams: 24 to 29 (§4.4.2), fewer where the registrar wants it."""


def contact_parameters(instance: str) -> str:
    return f';+sip.instance="<{instance}>";reg-id=1'


def is_in_force(message: Message) -> bool:
    """Whether a 2xx says that the registrar keeps the flow (§4.2.1, §6)."""
    return any(OPTION in value.lower().replace(b",", b" ").split() for value in message.get_all(b"Require"))


def ping_after(message: Message) -> float:
    """Seconds of silence after which a flow needs a sign of life, with a fifth to spare."""
    return 0.8 * (number_of(message, b"Flow-Timer") or USUAL)


class Open:
    """One UDP flow, and the accounts that are bound over it."""

    __slots__ = ("accounts", "due", "flow", "owner", "seconds")

    def __init__(self, owner: KeepAlive, flow: Flow) -> None:
        self.owner = owner
        self.flow = flow
        self.seconds = inf
        """The shortest time that one of its registrars wants."""
        self.accounts: set[str] = set()
        self.due = NEVER

    def on_timer(self, now: float) -> None:
        if self.accounts:
            self.owner.send(self.flow)
            self.owner.arm(self, now)


class KeepAlive:
    """UDP flows that are kept open."""

    def __init__(self, timers: TimerQueue, out: list[tuple[bytes, Flow]], jitter: Callable[[], float]) -> None:
        self._timers, self._out, self._jitter = timers, out, jitter
        self._open: dict[Flow, Open] = {}
        self._of: dict[str, Open] = {}

    def bound(self, key: str, flow: Flow, seconds: float, now: float) -> None:
        """This account's binding leads over `flow`, which needs a sign of life after `seconds` (`ping_after`)."""
        before = self._of.get(key)
        if before is None or before.flow is not flow:
            self.forget(key)
        kept = self._open.setdefault(flow, Open(self, flow))
        kept.accounts.add(key)
        self._of[key] = kept
        if seconds < kept.seconds:
            kept.seconds = seconds
            self.arm(kept, now)

    def forget(self, key: str) -> None:
        before = self._of.pop(key, None)
        if before is not None:
            before.accounts.discard(key)
            if not before.accounts:
                del self._open[before.flow]

    def arm(self, flow: Open, now: float) -> None:
        self._timers.arm_at(flow, now + min(SOONEST + SPREAD * self._jitter(), flow.seconds))

    def send(self, flow: Flow) -> None:
        self._out.append((PING, flow))
