"""Bindings at remote registrars: one state machine an account (RFC 3261 §10.2; kamailio-uac f).

Planned from outside (`plan`, Celery beat) and guarded from inside: what is due and was not planned is sent by the guard
2 s later.  Never gives an account up.  Told the time; opens no socket and stores nothing: every move is a
`RegistrationChanged` in `Endpoint.events`.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Protocol

from sipengine.configuration import Configuration
from sipengine.events import Event, FurtherChanged, RegistrationChanged, RegistrationState, Target, Trigger
from sipengine.exceptions import ProtocolError
from sipengine.message import Message, NameAddr
from sipengine.timerqueue import NEVER
from sipengine.transport.flow import Flow
from sipengine.uac.account import UacAccount
from sipengine.uac.binding import (
    MAX_MIN_EXPIRES,
    BindingRecord,
    Failure,
    back_off,
    granted_seconds,
    guard_delay,
    judge,
    number_of,
    refresh_at,
)
from sipengine.uac.coverage import Coverage
from sipengine.uac.nat import PublicAddress
from sipengine.uac.outbound import is_in_force, ping_after
from sipengine.uac.register import Binding, address_of, problem_of
from sipengine.uac.request import Agent, Exchange, Outcome
from sipengine.uac.routes import Routes

if TYPE_CHECKING:
    from sipengine.uac.registrations import Registrations

LOST = 900.0
"""Seconds after which an exchange that never ended counts as lost."""
MANY = 30
"""Failures in a row after which no pause grows any more."""
MAX_423 = 3
MAX_REDIRECTS = 5

_REFUSED_CAUSES = frozenset({
    "wrong_password", "realm_mismatch", "no_password", "auth_unsupported", "weaker_digest", "bad_row", "no_gin",
})
_KINDS = {"no_binding": Failure.NO_BINDING}


class RegistrationAgent(Agent, Protocol):
    """What registrations need of the endpoint."""

    configuration: Configuration
    events: deque[Event]
    out: list[tuple[bytes, Flow]]


class Kind(Enum):
    REGISTER = "register"
    UNREGISTER = "unregister"


class Registration:
    """The registration of one account."""

    __slots__ = (
        "account", "binding", "cause", "code", "coverage", "digest", "due", "due_trigger", "exchange", "failures",
        "generation", "granted", "held", "kind", "next_attempt_at", "not_before", "owner", "proven", "queued",
        "realm_seen", "reason", "redirects", "removed", "round_trip", "rounds_423", "state", "target", "told",
        "trigger", "waits",
    )  # fmt: skip

    def __init__(self, owner: Registrations, account: UacAccount) -> None:
        self.owner = owner
        self.account = account
        self.binding = Binding(account, owner.agent.entropy)
        self.state = RegistrationState.UNREGISTERED
        self.trigger = Trigger.RECOVERY
        self.cause = ""
        self.code: int | None = None
        self.reason = ""
        self.granted: int | None = None
        self.round_trip: float | None = None
        self.target = ""
        self.realm_seen = ""
        self.digest = ""
        self.generation = 0
        self.failures = 0
        self.next_attempt_at: float | None = None
        self.not_before = 0.0
        """A Retry-After ends then."""
        self.exchange: Exchange | None = None
        self.kind = Kind.REGISTER
        self.queued: tuple[Kind, Trigger] | None = None
        self.rounds_423 = self.redirects = 0
        self.proven = False
        """This data was granted a binding."""
        self.removed = False
        self.held = False
        """Its time came while nothing may be sent."""
        self.waits = False
        """Its time came while a binding that the account had before is taken back."""
        self.due = NEVER
        self.due_trigger = Trigger.GUARD
        self.coverage = Coverage()
        self.told: tuple[object, ...] = ()
        """What the last success told; empty after anything else."""

    # what others want
    def resume(self, record: BindingRecord, now: float) -> None:
        """Take over what stood before a restart."""
        binding = self.binding
        binding.resume(record)
        self.generation, self.failures = record.generation, record.failures
        self.granted, self.target, self.realm_seen = record.granted, record.target, record.realm_seen
        self.proven = record.granted is not None
        self.code, self.reason, self.round_trip = record.code, record.reason, record.round_trip
        binding.routes = record.routes
        named = record.seen_address if record.seen_address in address_of(record.contact).split(";") else ""
        binding.address = PublicAddress(record.local_address, record.seen_address, named)
        self.digest = record.digest
        if record.digest and record.digest != "MD5":
            self.owner.agent.strength.learn(self.account.auth_user.encode(), record.realm_seen.encode())
        if not record.failures:
            # After a failure it is the target that failed.
            binding.target = _target(record.target)
        until = -inf if binding.until_at is None else binding.until_at
        self.coverage = Coverage(record.covered, record.coverable, record.counted_to, until, bool(record.failures))
        if not binding.stands(now):
            binding.lapse()

    def want(self, kind: Kind, trigger: Trigger, now: float) -> None:
        """Send as soon as nothing is outstanding (RFC 3261 §10.2); the newest wish wins."""
        if self.exchange is not None and not self.exchange.cancel():
            self.queued = (kind, trigger)
            return
        self.exchange = None
        self.queued = None
        self._begin(kind, trigger, now)

    def change(self, account: UacAccount, now: float) -> None:
        old, self.account = self.account, account
        returned, self.removed = self.removed, False
        if not old.same_binding(account):
            self._depart(account, now)
            return
        self.binding.account = account
        if old.registers_as == account.registers_as and not returned:
            return
        self.binding.asked = account.expires
        self.failures = 0
        self.proven = False
        self.want(Kind.REGISTER if self._wanted() else Kind.UNREGISTER, Trigger.CHANGE, now)

    def plan(self, generation: int, at: float, now: float) -> None:
        if generation != self.generation or self.exchange is not None or self.next_attempt_at is None:
            return
        if at < self.due:
            self._arm(max(at, now), Trigger.BEAT)

    def on_timer(self, now: float) -> None:
        if self.exchange is None:
            self._begin(Kind.REGISTER, self.due_trigger, now)
        else:
            self.exchange.ended = True
            self._ended(Outcome(now, "timeout"))

    # one exchange
    def _wanted(self) -> bool:
        return self.account.enabled and self.account.expires > 0

    def _begin(self, kind: Kind, trigger: Trigger, now: float) -> None:
        self.trigger = trigger
        self.due = NEVER
        self.next_attempt_at = None
        self.held = self.waits = False
        binding = self.binding
        if self.removed:
            self.queued = None
            if self.account.further:
                self.owner.agent.events.append(self.further(now, gone=True))
            self.owner.forget(self)
            self.owner.departures.begin(binding, now)
            return
        # An operator who un-REGISTERs means it, also where we know of no binding.
        needless = not binding.stands(now) and trigger is not Trigger.OPERATOR
        if needless if kind is Kind.UNREGISTER else not self._wanted():
            self._rest(now, final=False)
            return
        if not self.owner.active and kind is Kind.REGISTER and trigger is not Trigger.OPERATOR:
            self._hold(now)
            return
        if kind is Kind.REGISTER and now < (until := self.owner.departures.wait_until(self.account.l_uuid)):
            self._wait(until, trigger, now)
            return
        problem = problem_of(self.account)
        if problem:
            self._failed(Outcome(now, problem))
            return
        self.kind = kind
        if kind is Kind.REGISTER:
            self.coverage.begin(now)
            binding.takes_back = binding.stale if trigger is Trigger.OPERATOR else ()
        self.exchange = self.owner.exchange(
            binding, 0 if kind is Kind.UNREGISTER else binding.asked, trigger, self._sent, self._ended
        )
        self.owner.timers.arm(self, LOST, now)
        self.exchange.start(now)

    def _sent(self, now: float) -> None:
        if self.kind is Kind.REGISTER:
            self.coverage.sent(now)
            self.state = (
                RegistrationState.REFRESHING if self.binding.stands(now) else RegistrationState.REGISTERING
            )
        else:
            self.state = RegistrationState.UNREGISTERING
        self.emit(now, final=False)

    def _ended(self, outcome: Outcome) -> None:
        exchange, self.exchange = self.exchange, None
        now = outcome.at
        self.due = NEVER
        self.code, self.reason = outcome.code, outcome.reason
        self.round_trip = None
        if outcome.message is not None and outcome.sent_at is not None:
            self.round_trip = now - outcome.sent_at
        if outcome.target is not None:
            self.target = str(outcome.target)
        self.realm_seen = outcome.realm_seen or self.realm_seen
        self.digest = outcome.digest or self.digest
        if exchange is not None and exchange.sent_at is not None:
            self.generation += 1
        if self.kind is Kind.REGISTER:
            self._register_ended(outcome)
        else:
            if outcome.code is not None and outcome.code // 100 == 2:
                self.binding.lapse()
            self._rest(now)
        if self.exchange is None and self.queued is not None:
            (kind, trigger), self.queued = self.queued, None
            self._begin(kind, trigger, now)

    def _register_ended(self, outcome: Outcome) -> None:
        now, message, code = outcome.at, outcome.message, outcome.code
        if message is None or code is None or outcome.cause:
            self._failed(outcome)
        elif code // 100 == 2:
            granted = granted_seconds(message, self.binding.listed(message), self.binding.asked)
            if granted is None or outcome.sent_at is None:
                self._failed(outcome, "no_binding")
            else:
                self.binding.routes, self.binding.target = Routes.of(message), outcome.target
                self.owner.reconnect.bound(self.account.key, outcome.flow, now)
                self._keep_alive(message, outcome.flow, now)
                self._succeeded(granted, outcome.sent_at, now)
                if self._seen_elsewhere(outcome):
                    self._begin(Kind.REGISTER, Trigger.RECOVERY, now)
        elif code == 423 and self.rounds_423 < MAX_423 and self._ask_longer(number_of(message, b"Min-Expires")):
            self.rounds_423 += 1
            self.cause = "interval_423"
            self._begin(Kind.REGISTER, self.trigger, now)
        elif code in (301, 302) and self.redirects < MAX_REDIRECTS and self._sent_elsewhere(message):
            self.redirects += 1
            self._begin(Kind.REGISTER, self.trigger, now)
        elif code == 439 and self.binding.instance:
            # RFC 5626 §11.6: the first proxy cannot keep a flow; without it the binding is as good as any.
            self.binding.plain = True
            self._begin(Kind.REGISTER, self.trigger, now)
        elif code == 420 and self.account.gin:
            self._failed(outcome, "no_gin")
        else:
            self._failed(outcome)

    def _keep_alive(self, message: Message, flow: Flow | None, now: float) -> None:
        """Keep the flow open where the registrar counts on it (RFC 5626 §4.4)."""
        if flow is None or not self.binding.instance or not is_in_force(message):
            self.owner.keep_alive.forget(self.account.key)
        elif flow.reliable:
            # Of several registrations over one connection the one that wants it soonest decides.
            flow.ping_after = min(flow.ping_after or inf, ping_after(message))
        else:
            self.owner.keep_alive.bound(self.account.key, flow, ping_after(message), now)

    def _seen_elsewhere(self, outcome: Outcome) -> bool:
        """Whether the Contact has to name another address than it does."""
        configuration = self.owner.agent.configuration
        fixed = self.account.contact_addr or configuration.reg_contact_addr or not configuration.reg_learn_address
        if fixed or outcome.flow is None:
            return False
        return self.binding.address.heard(outcome.via_line, outcome.flow, outcome.at)

    def _sent_elsewhere(self, message: Message) -> bool:
        """Take the first Contact that is the provider's, as the server to ask (RFC 3261 §8.1.3.4)."""
        for value in message.get_list(b"Contact"):
            try:
                uri = NameAddr.parse(value).sip_uri
            except ProtocolError:
                continue
            if self.binding.may_follow(uri):
                self.binding.redirect = uri
                return True
        return False

    def _ask_longer(self, minimum: int | None) -> bool:
        asked = self.binding.asked
        wanted = 2 * asked if minimum is None else minimum
        if not asked < wanted <= MAX_MIN_EXPIRES:
            return False
        self.binding.asked = wanted
        return True

    def _succeeded(self, granted: int, sent_at: float, now: float) -> None:
        self.coverage.bound(sent_at + granted, now)
        steady = (
            self.state is RegistrationState.REFRESHING and self.coverage.lapsed_at is None and not self.failures
            and abs(granted - (self.granted or 0)) * 4 <= granted
        )  # fmt: skip
        self.state = RegistrationState.REGISTERED
        self.failures = self.rounds_423 = self.redirects = 0
        self.granted, self.proven = granted, True
        # A binding counts from when we asked: the registrar cannot have begun later than it answered.
        self.binding.until_at = sent_at + granted
        self.cause = "short_grant" if granted < self.binding.asked else ""
        self.owner.served(self, now)
        self._schedule(refresh_at(granted, sent_at, self.owner.jitter()), guard_delay(granted))
        binding, before = self.binding, self.told
        told = (
            self.cause, self.code, self.target, self.realm_seen, self.digest, binding.contact, binding.routes,
            binding.stale,
        )  # fmt: skip
        routine = self.trigger in (Trigger.BEAT, Trigger.GUARD)
        self.emit(now, unchanged=routine and steady and told == before)
        self.told = told

    def _failed(self, outcome: Outcome, cause: str = "") -> None:
        now = outcome.at
        self.cause = cause or outcome.cause
        if self.cause:
            refused = self.cause in _REFUSED_CAUSES or self.cause == self.account.problem
            kind = Failure.REFUSED if refused else _KINDS.get(self.cause, Failure.TRANSIENT)
        else:
            assert outcome.code is not None
            kind, self.cause = judge(outcome.code, outcome.retry_after > 0, self.proven)
        self.state = RegistrationState.REFUSED if kind is Failure.REFUSED else RegistrationState.FAILING
        self.failures += 1
        self.rounds_423 = self.redirects = 0
        self.binding.redirect = None
        if not self.binding.stands(now):
            self.binding.lapse()
        longest, jitter = self.owner.agent.configuration.reg_retry_interval, self.owner.jitter()
        wait = back_off(self.failures, kind, jitter, longest)
        recovery, home = self.owner.recovery, self.binding.home
        if kind in (Failure.TRANSIENT, Failure.THROTTLED):
            recovery.failed(home, self, now, down=kind is Failure.TRANSIENT)
        elif outcome.code is not None:
            self.owner.answered(self, now)
        if kind is Failure.TRANSIENT:
            wait = recovery.pause(home, self, wait, back_off(MANY, kind, jitter, longest))
        self.not_before = now + outcome.retry_after
        self.coverage.failed(self.not_before, now)
        self._schedule(max(now + wait, self.not_before), guard_delay(None))
        self.emit(now)

    def provider_serves(self, now: float) -> None:
        """Another account was served again: ask as soon as the provider allows, and wait briefly if that fails."""
        if not self.failures:
            return
        if self.exchange is not None:
            self.failures = 0  # what was sent during the outage may still fail
        elif self.next_attempt_at is not None:
            self.failures = 1
            self._schedule(max(now, self.not_before), 0.0)

    def _rest(self, now: float, final: bool = True) -> None:
        """Stay without a binding."""
        self.state = RegistrationState.UNREGISTERED if self.account.enabled else RegistrationState.DISABLED
        self.cause = "unregistered" if self.account.enabled else "disabled"
        self.next_attempt_at = None
        self.due = NEVER
        self.coverage.rest(now)
        self.owner.keep_alive.forget(self.account.key)
        self.owner.recovery.forget(self.binding.home, self)
        if not self.binding.stands(now):
            self.binding.lapse()
            self.granted = None
        self.emit(now, final)

    def _hold(self, now: float) -> None:
        """Let the binding lapse: sending is switched off, and only an operator's order goes out."""
        self.held = True
        self.cause = "inactive"
        self.coverage.rest(now)
        if self.binding.stands(now):
            assert self.binding.until_at is not None
            self.state = RegistrationState.REGISTERED
            self._arm(self.binding.until_at, Trigger.GUARD)
        else:
            self.state = RegistrationState.UNREGISTERED
            self.binding.lapse()
            self.granted = None
        self.emit(now, final=False)

    def _wait(self, until: float, trigger: Trigger, now: float) -> None:
        """Let what the account had before be taken back first."""
        self.waits = True
        self.state = RegistrationState.UNREGISTERING
        self.next_attempt_at = until
        self._arm(until, trigger)
        self.emit(now, final=False)

    def departed(self, now: float) -> None:
        """What the account had before is gone."""
        if self.waits:
            self._begin(Kind.REGISTER, self.due_trigger, now)

    def activate(self, now: float) -> None:
        """Sending is switched on again: serve what was held back."""
        if self.held:
            self._begin(Kind.REGISTER, Trigger.GUARD, now)

    def deactivate(self, now: float) -> None:
        """Sending is switched off: take back what waits for its turn; what is under way ends."""
        waits = self.exchange is not None and self.kind is Kind.REGISTER and self.trigger is not Trigger.OPERATOR
        if waits and self.exchange is not None and self.exchange.cancel():
            self.exchange = None
            self.due = NEVER
            self._hold(now)

    def _depart(self, account: UacAccount, now: float) -> None:
        """The row names another binding: take the old one back with the old credentials, then ask for the new."""
        old = self.binding
        self.coverage.lost(now)
        self.owner.recovery.forget(old.home, self)
        self.binding = Binding(account, self.owner.agent.entropy)
        self.failures = self.rounds_423 = self.redirects = 0
        self.queued = None
        self.granted, self.proven = None, False
        pending, self.exchange = self.exchange, None
        if pending is not None:
            # Not waited for: the usual reason for the change is that the old registrar does not answer.
            if self.kind is Kind.REGISTER:
                pending.cancel()
            pending.on_sent = ignore_time
            pending.on_done = partial(self.owner.take_back, old) if self.kind is Kind.REGISTER else ignore
        if old.stands(now):
            self.owner.departures.begin(old, now)
        self._begin(Kind.REGISTER, Trigger.CHANGE, now)

    def connection_lost(self, at: float, now: float) -> None:
        """Nobody can be called over the binding any more: ask for it again instead of the refresh that was planned."""
        if self._holds(now):
            self.coverage.lost(now)
            self._ask_again("connection_lost", at, now)

    def server_silent(self, cause: str, now: float) -> None:
        """The server ceased to answer OPTIONS: ask for the binding now, of the next server where there is one."""
        if self._holds(now) and not self.failures:
            self._ask_again(cause, now, now)

    def _holds(self, now: float) -> bool:
        return self.exchange is None and self.binding.stands(now) and self._wanted()

    def _ask_again(self, cause: str, at: float, now: float) -> None:
        self.cause = cause
        self.schedule_first(min(at, self.due))
        self.emit(now, final=False)

    # time
    def schedule_first(self, at: float, trigger: Trigger = Trigger.RECOVERY) -> None:
        """Plan the first REGISTER, after a start or of a new account."""
        self.next_attempt_at = at
        self._arm(at, trigger)

    def schedule_refresh(self, at: float) -> None:
        self._schedule(at, guard_delay(self.granted))

    def _schedule(self, at: float, guard: float) -> None:
        self.next_attempt_at = at
        self._arm(at + guard, Trigger.GUARD)

    def _arm(self, at: float, trigger: Trigger) -> None:
        self.due_trigger = trigger
        self.owner.timers.arm_at(self, at)

    # telling
    def snapshot(self, now: float, final: bool = True, unchanged: bool = False) -> RegistrationChanged:
        binding, coverage = self.binding, self.coverage
        return RegistrationChanged(
            l_uuid=self.account.l_uuid, state=self.state, trigger=self.trigger, cause=self.cause, code=self.code,
            reason=self.reason, granted=self.granted, bound_until_at=binding.until_at,
            next_attempt_at=self.next_attempt_at, generation=self.generation, failures=self.failures,
            call_id=binding.call_id, cseq=binding.cseq, from_tag=binding.from_tag, contact=binding.contact,
            target=self.target, round_trip=self.round_trip, realm_seen=self.realm_seen, final=final, at=now,
            service_route=binding.routes.service_route, path=binding.routes.path,
            associated_uris=binding.routes.associated_uris, digest=self.digest, unchanged=unchanged,
            covered=coverage.covered, coverable=coverage.coverable, counted_to=coverage.counted_to,
            lapsed_at=coverage.lapsed_at, stale="\n".join(binding.stale),
            local_address=binding.address.local, seen_address=binding.address.seen,
        )  # fmt: skip

    def further(self, now: float, gone: bool = False) -> FurtherChanged:
        return FurtherChanged(
            self.account.l_uuid, self.account.auth_proxy, self.state, self.cause, self.code, self.reason, self.granted,
            self.binding.until_at, self.next_attempt_at, now, gone,
        )  # fmt: skip

    def emit(self, now: float, final: bool = True, unchanged: bool = False) -> None:
        if final:
            self.told = ()
        told = self.further(now) if self.account.further else self.snapshot(now, final, unchanged)
        self.owner.agent.events.append(told)
        self.coverage.lapsed_at = None


def _target(text: str) -> Target | None:
    """Read what `str` makes of one."""
    transport, _, rest = text.partition(":")
    host, _, port = rest.rpartition(":")
    return Target(transport, (host.strip("[]"), int(port))) if host and port.isdigit() else None


def ignore(outcome: Outcome) -> None:
    """Nobody waits for this answer any more."""


def ignore_time(now: float) -> None:
    """Nobody waits for this to leave."""
