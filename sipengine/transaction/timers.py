"""Values of the transaction timers (RFC 3261 Table 4, RFC 6026 §7.1), worked out once from T1, T2 and T4."""

from __future__ import annotations

D, I, J, K, L, M, RETRANSMIT, NONE = range(8)  # noqa: E741 - the RFC's letters
"""What a transition arms.  RETRANSMIT stands for A, E or G with B, F or H as its end."""


class Timers:
    __slots__ = ("delays", "slow", "t1", "t2", "timeout")

    def __init__(self, t1: float, t2: float, t4: float) -> None:
        self.t1 = t1
        self.t2 = t2
        self.timeout = 64 * t1
        """B, F, H, L, M, and D and J over an unreliable transport."""
        self.slow = wait = t1
        while 2 * wait < t2:
            wait *= 2
            self.slow += wait
        """When timer E of a client reaches T2: after that a non-INVITE without an answer gets a 100 (RFC 4320 §4.1)."""
        unreliable = {D: max(32.0, self.timeout), I: t4, J: self.timeout, K: t4, RETRANSMIT: t1}
        reliable = {D: 0.0, I: 0.0, J: 0.0, K: 0.0, RETRANSMIT: self.timeout}
        both = {L: self.timeout, M: self.timeout}
        self.delays = ({**unreliable, **both}, {**reliable, **both})
        """Indexed by `Flow.reliable`, then by letter."""
