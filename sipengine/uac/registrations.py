"""All registrations of an endpoint: who there is, what operators and beat want of them, and what they share.

One account's own course is `registration`'s; how fast requests leave is `pacing`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sipengine.events import Reachability, RegistrationChanged, RegistrationState, Target, Trigger
from sipengine.timerqueue import TimerQueue
from sipengine.transport.flow import Flow
from sipengine.uac.account import UacAccount
from sipengine.uac.binding import BindingRecord
from sipengine.uac.departures import Departures
from sipengine.uac.outbound import KeepAlive
from sipengine.uac.pacing import Pacing, Priority
from sipengine.uac.qualify import Qualify
from sipengine.uac.reconnect import Reconnect
from sipengine.uac.recovery import Recovery
from sipengine.uac.register import Binding
from sipengine.uac.registration import Kind, Registration, RegistrationAgent
from sipengine.uac.request import Exchange, Outcome, Request, Requests

TRY = 6.0
"""Seconds after which a silent server is left for the next one, as calls do: a binding of 20 s must outlive that."""


class Registrations:
    """All registrations of an endpoint."""

    def __init__(self, agent: RegistrationAgent) -> None:
        self.agent = agent
        self.timers = TimerQueue()
        self.pacing = Pacing()
        self.reconnect = Reconnect()
        self.keep_alive = KeepAlive(self.timers, agent.out, self.jitter)
        self.requests = Requests(agent, self.pacing, agent.configuration.default_socket)
        self.departures = Departures(self)
        self.recovery: Recovery[Registration] = Recovery()
        self.qualify = Qualify(self)
        self.active = True
        """False: only operators' orders are sent (the seed's `reg_active`); `switch` changes it."""
        self._all: dict[str, Registration] = {}
        """By `UacAccount.key`."""
        self._further: dict[str, list[UacAccount]] = {}
        """By l_uuid: what is bound of it besides at its first registrar."""
        self._now = 0.0

    def __len__(self) -> int:
        return len(self._all)

    def _of(self, l_uuid: str) -> list[Registration]:
        """The registrations of an account, that at its first registrar first."""
        keys = [l_uuid, *(row.key for row in self._further.get(l_uuid, ()))]
        return [self._all[key] for key in keys if key in self._all]

    def _follow(self, account: UacAccount, now: float) -> None:
        """Register at the account's further registrars, and at no others any more."""
        uris = account.registrars if account.at_once else ()
        rows = [replace(account, auth_proxy=uri, registrars=(), at_once=False, further=True) for uri in uris]
        keys = {row.key for row in rows}
        for registration in self._of(account.l_uuid)[1:]:
            if registration.account.key not in keys:
                self._leave(registration, now)
        for row in rows:
            if (bound := self._all.get(row.key)) is not None:
                bound.change(row, now)
                continue
            registration = self._all[row.key] = Registration(self, row)
            wanted = row.enabled and row.expires > 0
            registration.want(Kind.REGISTER if wanted else Kind.UNREGISTER, Trigger.CHANGE, now)
        if rows:
            self._further[account.l_uuid] = rows
        else:
            self._further.pop(account.l_uuid, None)

    def _leave(self, registration: Registration, now: float) -> None:
        registration.removed = True
        registration.want(Kind.UNREGISTER, Trigger.CHANGE, now)

    def __contains__(self, l_uuid: str) -> bool:
        return l_uuid in self._all

    def load(self, account: UacAccount, record: BindingRecord | None, now: float) -> None:
        """Take up an account at the start: a binding that stands and was well is kept, anything else is asked for."""
        registration = self._all[account.l_uuid] = Registration(self, account)
        if record is not None and record.call_id in self.departures:
            record = None  # what stands is not what the row names now
        if record is not None:
            registration.resume(record, now)
        self.qualify.load(registration, Reachability.UNKNOWN if record is None else record.reachability, now)
        binding = registration.binding
        if not account.enabled or account.expires <= 0:
            registration.want(Kind.UNREGISTER, Trigger.RECOVERY, now)
        elif record is not None and not record.failures and self._still_holds(binding, now):
            registration.state = RegistrationState.REGISTERED
            next_at = record.next_attempt_at
            if next_at is None or next_at <= now:
                registration.schedule_first(now)
            else:
                registration.schedule_refresh(next_at)
            registration.emit(now, final=False)
        else:
            delay = account.reg_delay or self.agent.configuration.reg_random_delay * self.jitter()
            registration.schedule_first(now + max(0, delay))
            if delay > 0:
                registration.emit(now, final=False)
        self._follow(account, now)

    def change(self, account: UacAccount, now: float) -> None:
        """Follow an added or edited row at once."""
        registration = self._all.get(account.l_uuid)
        if registration is None:
            registration = self._all[account.l_uuid] = Registration(self, account)
            if not account.enabled or account.expires <= 0:
                registration.want(Kind.UNREGISTER, Trigger.CHANGE, now)
            elif account.reg_delay > 0:
                registration.schedule_first(now + account.reg_delay, Trigger.CHANGE)
                registration.emit(now, final=False)
            else:
                registration.want(Kind.REGISTER, Trigger.CHANGE, now)
        else:
            registration.change(account, now)
        self.qualify.follow(registration, now)
        self._follow(account, now)

    def remove(self, l_uuid: str, now: float) -> None:
        """Forget a deleted account, and take its binding back."""
        self.qualify.forget(l_uuid)
        for registration in self._of(l_uuid):
            self._leave(registration, now)
        self._further.pop(l_uuid, None)

    def depart(self, account: UacAccount, record: BindingRecord, now: float) -> None:
        """Take back what an earlier process left of `account`, a row that is gone or names another binding by now.

        Told before `load` and `change` of the row that is there instead, which then waits.  `Departed` tells the end.
        """
        registration = self._all.get(account.l_uuid)
        if record.call_id in self.departures or (registration and registration.binding.call_id == record.call_id):
            return
        binding = Binding(account, self.agent.entropy)
        binding.resume(record)
        self.departures.begin(binding, now)

    def plan(self, l_uuid: str, generation: int, at: float, now: float) -> None:
        """Take a planned time from beat; dropped when something was answered since it was planned."""
        registration = self._all.get(l_uuid)
        if registration is not None:
            registration.plan(generation, at, now)

    def register(self, l_uuid: str, now: float) -> bool:
        """Obey an operator: REGISTER now, before all that wait.  False when there is no such account in use."""
        registration = self._all.get(l_uuid)
        if registration is None or not registration.account.enabled or registration.account.expires <= 0:
            return False
        for each in self._of(l_uuid):
            each.want(Kind.REGISTER, Trigger.OPERATOR, now)
        return True

    def unregister(self, l_uuid: str, now: float) -> bool:
        """Obey an operator: un-REGISTER now and stay so until told otherwise.  False when the account is not here."""
        registration = self._all.get(l_uuid)
        if registration is None:
            return False
        for each in self._of(l_uuid):
            each.want(Kind.UNREGISTER, Trigger.OPERATOR, now)
        return True

    def switch(self, active: bool, now: float) -> None:
        """Stop or resume sending what no operator ordered.  Bindings stand until they lapse; nothing is taken back."""
        if active == self.active:
            return
        self.active = active
        for registration in list(self._all.values()):
            if active:
                registration.activate(now)
            else:
                registration.deactivate(now)

    def flow_lost(self, flow: Flow, now: float) -> None:
        """A connection ended: what was bound over it registers again."""
        for key, at in self.reconnect.lost(flow, self.jitter, now):
            registration = self._all.get(key)
            if registration is not None:
                registration.connection_lost(at, now)

    def snapshot(self, l_uuid: str) -> RegistrationChanged | None:
        registration = self._all.get(l_uuid)
        return None if registration is None else registration.snapshot(self._now)

    def service_route(self, l_uuid: str) -> bytes:
        """The Route of a request that this account sends (RFC 3608 §5); empty without one, or without a binding."""
        registration = self._all.get(l_uuid)
        return b"" if registration is None else registration.binding.routes.service_route.encode()

    def target(self, l_uuid: str) -> Target | None:
        """The server that holds the account's binding; None without a binding."""
        registration = self._all.get(l_uuid)
        return None if registration is None else registration.binding.target

    def next_at(self) -> float:
        return min(self.timers.next_at(), self.pacing.next_at())

    def handle_timer(self, now: float) -> None:
        self._now = now
        self.timers.expire(now)
        self.pacing.handle_timer(now)

    # for the registrations
    def jitter(self) -> float:
        return int.from_bytes(self.agent.entropy(4), "big") / 2**32

    def _still_holds(self, binding: Binding, now: float) -> bool:
        """Whether what a restart found can be used on; not where an un-REGISTER is out that may hit its Contact."""
        if not binding.stands(now) or now < self.departures.wait_until(binding.account.l_uuid):
            return False
        return binding.leads_to(self.agent.listeners, self.agent.configuration.reg_contact_addr)

    def served(self, registration: Registration, now: float) -> None:
        """A provider took a binding."""
        self.answered(registration, now)
        if not registration.account.further:
            self.qualify.bound(registration, now)

    def answered(self, registration: Registration, now: float) -> None:
        """A provider is well, whatever it says of this account: who failed with it need not wait any longer."""
        for other in self.recovery.served(registration.binding.home, registration, now):
            other.provider_serves(now)

    def departed(self, l_uuid: str, now: float) -> None:
        registration = self._all.get(l_uuid)
        if registration is not None:
            registration.departed(now)

    def replaces(self, binding: Binding) -> bool:
        """Whether the account's new binding has the Contact of this one: un-REGISTERing would hit the new one."""
        registration = self._all.get(binding.account.key)
        if registration is None:
            return False
        row, old, contact = registration.account, binding.account, registration.binding.contact
        if (row.r_username, row.r_domain) != (old.r_username, old.r_domain):
            return False
        # What waits for its turn to be sent has none yet.
        return contact == binding.contact if contact else registration.exchange is not None

    def forget(self, registration: Registration) -> None:
        self.recovery.forget(registration.binding.home, registration)
        if self._all.get(registration.account.key) is registration:
            del self._all[registration.account.key]
            self.reconnect.forget(registration.account.key)
            self.keep_alive.forget(registration.account.key)

    def exchange(
        self, binding: Binding, expires: int, trigger: Trigger,
        on_sent: Callable[[float], None], on_done: Callable[[Outcome], None],
    ) -> Exchange:
        account = binding.account
        request = Request(
            b"REGISTER", binding.ruri, binding.route,
            lambda flow: binding.headers(expires, flow, self.agent.configuration.reg_contact_addr),
            account.credentials(), account.realm, account.socket,
            Priority.OPERATOR if trigger is Trigger.OPERATOR else Priority.ROUTINE,
            hurry=TRY, standby=binding.standby, kept=binding.target, kept_unlisted=not expires,
        )  # fmt: skip
        return Exchange(self.requests, request, on_sent, on_done)

    def take_back(self, binding: Binding, outcome: Outcome) -> None:
        """Un-REGISTER a binding that was granted after its account had moved on."""
        if outcome.code is not None and outcome.code // 100 == 2:
            binding.until_at = outcome.at + binding.asked
            self.departures.begin(binding, outcome.at)
