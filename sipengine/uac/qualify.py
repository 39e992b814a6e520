"""OPTIONS between two refreshes: whether the server of an account answers, and how fast (RFC 3261 §11.1).

It goes to the server that holds the binding, over its connection; for an account that never registers to where its
REGISTER would go.  Any final answer but 503 is a sign of life: whether the server likes us is not the question.  One
that answered and falls silent rests (RFC 3263 §4.3), and the registration is refreshed at once, by the next server
where there is one.  Switches nothing off.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from math import inf
from typing import TYPE_CHECKING

from sipengine.events import QualifyChanged, Reachability, Target
from sipengine.timerqueue import NEVER
from sipengine.transport.flow import Flow
from sipengine.uac.account import UacAccount
from sipengine.uac.digest import Credentials
from sipengine.uac.lookup import escape_user
from sipengine.uac.pacing import Priority
from sipengine.uac.registration import Registration, ignore, ignore_time
from sipengine.uac.request import Exchange, Headers, Outcome, Request

if TYPE_CHECKING:
    from sipengine.uac.registrations import Registrations

LOSSES = 2
"""OPTIONS in a row without a usable answer after which a server counts as unreachable."""
TIMEOUT = 5.0
"""Seconds that an answer may take; over UDP the OPTIONS has left four times by then (Timer E)."""
TELL_EVERY = 60.0
"""Seconds between two events that tell a round trip and nothing else."""


class Qualify:
    """The accounts whose servers are asked."""

    def __init__(self, owner: Registrations) -> None:
        self._owner = owner
        self._of: dict[str, Qualification] = {}

    def load(self, registration: Registration, state: Reachability, now: float) -> None:
        """Take up an account at the start, of whose server `state` was known."""
        account = registration.account
        if account.qualify:
            asked = self._of[account.l_uuid] = Qualification(self._owner, registration, state)
            asked.ask_at(now + account.qualify * self._owner.jitter())
        else:
            Qualification(self._owner, registration, state).rest(now)

    def follow(self, registration: Registration, now: float) -> None:
        """Ask as often as the account says by now, for the first time at once."""
        l_uuid, seconds = registration.account.l_uuid, registration.account.qualify
        asked = self._of.get(l_uuid)
        if asked is None and seconds:
            asked = self._of[l_uuid] = Qualification(self._owner, registration)
        if asked is not None and seconds:
            asked.follow(now)
        elif asked is not None:
            asked.drop()
            asked.rest(now)
            del self._of[l_uuid]

    def bound(self, registration: Registration, now: float) -> None:
        """A binding was granted: its server is the one to ask."""
        asked = self._of.get(registration.account.l_uuid)
        if asked is not None:
            asked.bound(now)

    def forget(self, l_uuid: str) -> None:
        asked = self._of.pop(l_uuid, None)
        if asked is not None:
            asked.drop()
            asked.due = NEVER


class Qualification:
    """What OPTIONS tell of the server of one account."""

    __slots__ = (
        "_exchange", "_losses", "_owner", "_registration", "_told_at", "answered_at", "due", "round_trip", "seconds",
        "state", "target",
    )  # fmt: skip

    def __init__(
        self, owner: Registrations, registration: Registration, state: Reachability = Reachability.UNKNOWN
    ) -> None:
        self._owner = owner
        self._registration = registration
        self.seconds = registration.account.qualify
        self.state = state
        self.target: Target | None = None
        """The server that was asked last."""
        self.round_trip: float | None = None
        self.answered_at: float | None = None
        """Of the last answer."""
        self.due = NEVER
        self._losses = 0
        self._exchange: Exchange | None = None
        self._told_at = -inf

    # what others want
    def follow(self, now: float) -> None:
        before, self.seconds = self.seconds, self._registration.account.qualify
        if self._exchange is None and (self.seconds != before or self.due == NEVER):
            self.ask_at(now)

    def bound(self, now: float) -> None:
        holds = self._registration.binding.target
        if self.target is not None and holds is not None and not self.target.is_server_of(holds):
            self.drop()
            self._losses = 0
            self.ask_at(now)
        elif self._exchange is None and self.due == NEVER:
            self.ask_at(now + self.seconds * self._owner.jitter())

    def ask_at(self, at: float) -> None:
        self._owner.timers.arm_at(self, at)

    def drop(self) -> None:
        """Wait for no answer any more."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.on_done = ignore
            exchange.ended = True

    def rest(self, now: float) -> None:
        """Ask nobody: nothing is known any more."""
        self.due, self._losses = NEVER, 0
        self.round_trip = self.answered_at = None
        if self.state is not Reachability.UNKNOWN:
            self.state = Reachability.UNKNOWN
            self._tell(now)

    # one exchange
    def on_timer(self, now: float) -> None:
        if not self._wanted(now):
            self.rest(now)
        elif not self._owner.active:
            self.ask_at(now + self.seconds)
        else:
            self._ask(now)

    def _wanted(self, now: float) -> bool:
        account, binding = self._registration.account, self._registration.binding
        return account.enabled and (account.expires <= 0 or binding.stands(now))

    def _ask(self, now: float) -> None:
        owner, account, binding = self._owner, self._registration.account, self._registration.binding
        target = binding.target
        if target is not None and target.lacks_names:
            target = None  # the route tells them
        request = options(
            account, owner.agent.entropy, account.credentials(), binding.route, TIMEOUT, Priority.PROBE,
            () if target is None else (target,),
        )
        self._exchange = Exchange(owner.requests, request, ignore_time, self._ended)
        self._exchange.start(now)

    def _ended(self, outcome: Outcome) -> None:
        self._exchange = None
        now = outcome.at
        if not self._wanted(now):
            self.rest(now)
            return
        sent_at = now if outcome.sent_at is None else outcome.sent_at
        self.ask_at(max(now, sent_at + self.seconds))
        self.target = outcome.target or self.target
        if outcome.code is not None and outcome.code != 503:
            self._answered(outcome, sent_at)
            return
        self._losses += 1
        if self._losses >= LOSSES and self.state is not Reachability.UNREACHABLE:
            self._unreachable(outcome)

    def _answered(self, outcome: Outcome, sent_at: float) -> None:
        before, self.state = self.state, Reachability.REACHABLE
        self._losses = 0
        self.round_trip, self.answered_at = outcome.at - sent_at, outcome.at
        if before is Reachability.UNREACHABLE:
            self._tell(outcome.at, "options_answered", outcome)
        elif before is Reachability.UNKNOWN or sent_at >= self._told_at + TELL_EVERY:
            self._tell(sent_at)

    def _unreachable(self, outcome: Outcome) -> None:
        before, self.state, self.round_trip = self.state, Reachability.UNREACHABLE, None
        busy = outcome.code == 503 or outcome.cause == "busy_503"
        cause = "options_busy" if busy else "options_silent"
        self._tell(outcome.at, cause, outcome)
        # Whom one never heard says nothing by silence, and who answers 503 wants to be left alone.
        if before is Reachability.REACHABLE and not busy:
            if outcome.target is not None:
                self._owner.requests.failed(outcome.target, outcome.at)
            self._registration.server_silent(cause, outcome.at)

    def _tell(self, now: float, cause: str = "", outcome: Outcome | None = None) -> None:
        self._told_at = now
        self._owner.agent.events.append(QualifyChanged(
            l_uuid=self._registration.account.l_uuid, state=self.state, cause=cause,
            code=outcome.code if outcome else None, reason=outcome.reason if outcome else "",
            target="" if self.target is None else str(self.target), round_trip=self.round_trip,
            answered_at=self.answered_at, at=now,
        ))  # fmt: skip


def options(
    account: UacAccount, entropy: Callable[[int], bytes], credentials: Credentials, route: bytes, timeout: float,
    priority: Priority, targets: tuple[Target, ...] = (),
) -> Request:
    """OPTIONS of an account about its domain, to `targets` or to where `route` leads."""
    aor = b"<sip:%b@%b>" % (escape_user(account.r_username), account.r_domain.encode())
    call_id, tag, numbers = entropy(12).hex().encode(), entropy(6).hex().encode(), count(1)

    def headers(flow: Flow) -> Headers:
        return [
            (b"From", aor + b";tag=" + tag), (b"To", aor), (b"Call-ID", call_id),
            (b"CSeq", b"%d OPTIONS" % next(numbers)), (b"Accept", b"application/sdp"),
        ]  # fmt: skip

    return Request(
        b"OPTIONS", b"sip:" + account.r_domain.encode(), route, headers, credentials, account.realm, account.socket,
        priority, timeout=timeout, targets=targets,
    )
