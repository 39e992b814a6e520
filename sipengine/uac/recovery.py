"""What the accounts of a provider tell each other: that it serves nobody, and that it is back (RFC 3261 §21.5.4).

An account that backs off learns of it by its own next attempt only, up to 15 min later.  While the provider serves
nobody one account asks for all, and the others stay away.  Sends nothing: it names who need not wait any longer.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Generic, TypeVar

Account = TypeVar("Account", bound=Hashable)

BROKEN = 3
"""Accounts that failed since the provider served anybody, from which on it is the provider and not they."""
PROBE = 60.0
"""Seconds that the account which asks for all waits at most."""


class Recovery(Generic[Account]):
    def __init__(self) -> None:
        self._failing: dict[bytes, dict[Account, float]] = {}
        """By provider: since when each account fails."""
        self._served_at: dict[bytes, float] = {}
        self._since_served: dict[bytes, dict[Account, None]] = {}
        """By provider: who found it down since it last served anybody, the first of them first."""

    def failed(self, provider: bytes, account: Account, now: float, *, down: bool) -> None:
        """`down`: it gave no usable answer; False: it wants to be asked less."""
        self._failing.setdefault(provider, {}).setdefault(account, now)
        if down:
            self._since_served.setdefault(provider, {})[account] = None
        else:
            self._since_served.get(provider, {}).pop(account, None)

    def forget(self, provider: bytes, account: Account) -> None:
        self._failing.get(provider, {}).pop(account, None)
        self._since_served.get(provider, {}).pop(account, None)

    def pause(self, provider: bytes, account: Account, own: float, longest: float) -> float:
        """Seconds until an account that found it down asks again; its own pause were `own`, and the longest `longest`.
        """
        failed = self._since_served.get(provider, {})
        if len(failed) < BROKEN:
            return own
        return min(own, PROBE) if next(iter(failed)) == account else longest

    def served(self, provider: bytes, account: Account, now: float) -> list[Account]:
        """Who began to fail after the provider last served anybody: it was the provider, and it is well again.

        Each is named once for its failures in a row: an account that fails while others are served fails by itself.
        """
        before = self._served_at.get(provider, -inf)
        self._served_at[provider] = now
        self._since_served.pop(provider, None)
        failing = self._failing.get(provider)
        if not failing:
            return []
        failing.pop(account, None)
        return [other for other, since in failing.items() if since > before]
