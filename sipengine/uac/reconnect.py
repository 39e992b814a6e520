"""When to register again because a connection has ended that a binding was granted over (RFC 5626 §4.5).

Nobody can be called there any more.  At once, unless the registrar keeps ending connections: then the pauses double.
"""

from __future__ import annotations

from collections.abc import Callable

from sipengine.transport.flow import Flow
from sipengine.uac.binding import Failure, back_off

SPREAD, SPREAD_EACH = 2.0, 0.02
"""Seconds over which accounts register again that shared one connection: at most, and for each of them."""
LASTING = 120.0
"""Seconds after which a connection has proven to last, so that its end is the first one again."""


class Reconnect:
    """Which accounts are bound over which connection."""

    def __init__(self) -> None:
        self._flows: dict[Flow, dict[str, float]] = {}
        """Accounts by connection, and since when."""
        self._of: dict[str, Flow] = {}
        self._losses: dict[str, int] = {}
        """Connections in a row, by account, that did not last."""

    def bound(self, l_uuid: str, flow: Flow | None, now: float) -> None:
        """A binding was granted over this flow; over no other any more."""
        before = self._of.get(l_uuid)
        if before is flow:
            return
        if before is not None:
            del self._of[l_uuid]
            accounts = self._flows[before]
            del accounts[l_uuid]
            if not accounts:
                del self._flows[before]
        if flow is not None and flow.reliable:
            self._of[l_uuid] = flow
            self._flows.setdefault(flow, {})[l_uuid] = now

    def lost(self, flow: Flow, jitter: Callable[[], float], now: float) -> list[tuple[str, float]]:
        """The accounts that were bound over a connection which ended, and when each is to register again."""
        accounts = self._flows.pop(flow, {})
        spread = min(SPREAD, SPREAD_EACH * (len(accounts) - 1))
        again = []
        for l_uuid, since in accounts.items():
            del self._of[l_uuid]
            losses = self._losses[l_uuid] = 0 if now - since >= LASTING else self._losses.get(l_uuid, -1) + 1
            pause = back_off(losses, Failure.TRANSIENT, 0.0) if losses else 0.0
            again.append((l_uuid, now + pause + (SPREAD if losses else spread) * jitter()))
        return again

    def forget(self, l_uuid: str) -> None:
        self.bound(l_uuid, None, 0.0)
        self._losses.pop(l_uuid, None)
