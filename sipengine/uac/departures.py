"""Bindings that no account names any more: un-REGISTERed until an answer comes or they lapse (RFC 3261 §10.2.2).

An account that was deleted, or names another binding by now, leaves one behind.  Knows the old row and its credentials;
the account's new binding is `registration`'s.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from sipengine.events import Departed, Trigger
from sipengine.timerqueue import NEVER
from sipengine.uac.binding import Failure, back_off, judge
from sipengine.uac.register import Binding, problem_of
from sipengine.uac.registration import LOST, ignore_time
from sipengine.uac.request import Exchange, Outcome

if TYPE_CHECKING:
    from sipengine.uac.registrations import Registrations

HEAD_START = 4.0
"""Seconds that the account's new binding waits for the old one's un-REGISTER to be answered: both may share a Contact.
No longer, because the usual reason for the change is that the old registrar does not answer."""


class Departure:
    """One binding on its way out."""

    __slots__ = ("binding", "call_id", "due", "exchange", "failures", "owner", "until")

    def __init__(self, owner: Departures, binding: Binding, now: float) -> None:
        self.owner = owner
        self.binding = binding
        self.call_id = binding.call_id
        self.until = now + HEAD_START
        self.failures = 0
        self.exchange: Exchange | None = None
        self.due = NEVER

    def send(self, now: float) -> None:
        registrations, binding = self.owner.registrations, self.binding
        if not binding.stands(now) or registrations.replaces(binding):
            self.owner.over(self, now)
        elif problem_of(binding.account):
            # Nothing can be sent for this row; the binding ends by itself.
            assert binding.until_at is not None
            registrations.timers.arm_at(self, binding.until_at)
        else:
            self.exchange = registrations.exchange(binding, 0, Trigger.CHANGE, ignore_time, self._ended)
            registrations.timers.arm(self, LOST, now)
            self.exchange.start(now)

    def on_timer(self, now: float) -> None:
        if self.exchange is not None:
            self.exchange.ended = True
            self._ended(Outcome(now, "timeout"))
        else:
            self.send(now)

    def _ended(self, outcome: Outcome) -> None:
        self.exchange, self.due, now = None, NEVER, outcome.at
        if outcome.code is None:
            kind = Failure.TRANSIENT
        elif outcome.cause or outcome.code // 100 == 2:
            self.owner.over(self, now)
            return
        else:
            kind = judge(outcome.code, outcome.retry_after > 0, True)[0]
        if kind is Failure.REFUSED:
            self.owner.over(self, now)
            return
        self.failures += 1
        registrations, until = self.owner.registrations, self.binding.until_at
        longest = registrations.agent.configuration.reg_retry_interval
        wait = max(back_off(self.failures, kind, registrations.jitter(), longest), outcome.retry_after)
        registrations.timers.arm_at(self, min(now + wait, inf if until is None else until))


class Departures:
    """All of an endpoint."""

    def __init__(self, registrations: Registrations) -> None:
        self.registrations = registrations
        self._all: dict[str, Departure] = {}
        """By Call-ID, which no two bindings share."""
        self._of_account: dict[str, list[Departure]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, call_id: str) -> bool:
        return call_id in self._all

    def begin(self, binding: Binding, now: float) -> None:
        departure = self._all[binding.call_id] = Departure(self, binding, now)
        self._of_account.setdefault(binding.account.l_uuid, []).append(departure)
        departure.send(now)

    def wait_until(self, l_uuid: str) -> float:
        """When the account's new binding need not wait any longer for those that it had before."""
        return max((each.until for each in self._of_account.get(l_uuid, ())), default=-inf)

    def over(self, departure: Departure, now: float) -> None:
        l_uuid = departure.binding.account.l_uuid
        del self._all[departure.call_id]
        self._of_account[l_uuid].remove(departure)
        if not self._of_account[l_uuid]:
            del self._of_account[l_uuid]
        self.registrations.agent.events.append(Departed(l_uuid, departure.call_id, now))
        self.registrations.departed(l_uuid, now)
