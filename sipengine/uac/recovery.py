"""What one account's success tells the others of its provider: that an outage is over (RFC 3261 §21.5.4).

An account that backs off learns of it by its own next attempt only, up to 15 min later.  Sends nothing: it names who
need not wait any longer.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Generic, TypeVar

Account = TypeVar("Account", bound=Hashable)


class Recovery(Generic[Account]):
    def __init__(self) -> None:
        self._failing: dict[bytes, dict[Account, float]] = {}
        """By provider: since when each account fails."""
        self._served_at: dict[bytes, float] = {}

    def failed(self, provider: bytes, account: Account, now: float) -> None:
        self._failing.setdefault(provider, {}).setdefault(account, now)

    def forget(self, provider: bytes, account: Account) -> None:
        self._failing.get(provider, {}).pop(account, None)

    def served(self, provider: bytes, account: Account, now: float) -> list[Account]:
        """Who began to fail after the provider last served anybody: it was the provider, and it is well again.

        Each is named once for its failures in a row: an account that fails while others are served fails by itself.
        """
        before = self._served_at.get(provider, -inf)
        self._served_at[provider] = now
        failing = self._failing.get(provider)
        if not failing:
            return []
        failing.pop(account, None)
        return [other for other, since in failing.items() if since > before]
