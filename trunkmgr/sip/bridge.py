"""From engine events to tables and pages: bundled, in another thread, off the way of any message.

The engine's turn only appends.  Twenty times a second events become rows: the last state of each account, history,
calls, and what a call needs after a restart. One write at a time takes them to the services and then tells the pages.
With the database down the last state of each account and call is kept, history and calls wait in a bound, and what
falls out of it is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any

from django.db import InterfaceError, OperationalError

from sipengine.events import (
    BindingChanged,
    CallAnswered,
    CallEnded,
    CallStarted,
    Departed,
    DialogOver,
    DialogShifted,
    Event,
    FurtherChanged,
    QualifyChanged,
    RegistrationChanged,
    RegistrationState,
    Trigger,
)
from trunkmgr.sip.clock import Clock
from trunkmgr.sip.outage import Outage

log = logging.getLogger("trunkmgr.sip")

#: Seconds from an event to its turn: events of one moment share a transaction.
GATHER = 0.05
#: Seconds between two rounds of calls; one that goes on is written in the round after that in which it moved, so that
#: most of what starts and ends within a second, as refused calls do, costs one row written once.  A crash may take the
#: last second with it.
CALLS_EVERY = 0.5
#: Seconds between two rounds of refreshes that find all as it was: a commit costs as much as many of their rows.  A
#: crash may take the last of them with it; the binding is then refreshed earlier than it had to be.
REFRESHES_EVERY = 2.0
#: Rows of one batch.
BATCH = 500
#: What may wait while the database is down.
HISTORY_LIMIT = 50_000
CALLS_LIMIT = 50_000
DIALOGS_LIMIT = 50_000
BINDINGS_LIMIT = 50_000

CALL_EVENTS = (CallStarted, CallAnswered, CallEnded)  # `A | B` in isinstance makes a new type each time

Row = dict[str, Any]

_FIELDS = [field.name for field in fields(RegistrationChanged)]
_values = attrgetter(*_FIELDS)


@dataclass(slots=True)
class Batch:
    """What one write takes to the services."""

    registrations: list[Row] = field(default_factory=list)
    """As `services.registrations.record` wants them, in order."""
    refreshes: list[Row] = field(default_factory=list)
    """As `services.registrations.record_refreshes` wants them."""
    further: list[Row] = field(default_factory=list)
    """As `services.registrations.record_further` wants them."""
    qualified: list[Row] = field(default_factory=list)
    """As `services.registrations.record_qualify` wants them, in order."""
    calls: list[Row] = field(default_factory=list)
    """As `services.calls.record` wants them."""
    dialogs: list[Row] = field(default_factory=list)
    """As `services.dialogs.record` wants them."""
    dialogs_over: list[str] = field(default_factory=list)
    """Keys of calls whose dialogs may go."""
    bindings: list[Row] = field(default_factory=list)
    """As `services.locations.record` wants them."""
    bindings_over: list[str] = field(default_factory=list)
    departed: list[str] = field(default_factory=list)
    """Call-IDs of bindings that were taken back."""
    stale: set[str] = field(default_factory=set)
    """Accounts whose rows were added, edited or removed: pages must hear of them."""
    called: set[str] = field(default_factory=set)
    """Accounts whose calls moved."""

    def __bool__(self) -> bool:
        return bool(
            self.registrations or self.refreshes or self.further or self.qualified or self.calls or self.dialogs
            or self.dialogs_over or self.bindings or self.bindings_over or self.departed or self.stale
        )

    def singly(self) -> Iterable[Batch]:
        """Give each row as a batch of its own."""
        for row in self.registrations:
            yield Batch(registrations=[row])
        for row in self.refreshes:
            yield Batch(refreshes=[row])
        for row in self.further:
            yield Batch(further=[row])
        for row in self.qualified:
            yield Batch(qualified=[row])
        for row in self.calls:
            yield Batch(calls=[row])
        for row in self.dialogs:
            yield Batch(dialogs=[row])
        for key in self.dialogs_over:
            yield Batch(dialogs_over=[key])
        for row in self.bindings:
            yield Batch(bindings=[row])
        for ruid in self.bindings_over:
            yield Batch(bindings_over=[ruid])
        if self.departed:
            yield Batch(departed=self.departed)


class CallRows:
    """What is to be written of calls, by key, in rounds."""

    def __init__(self) -> None:
        self.dropped = 0
        self._fresh: dict[str, Row] = {}
        self._waited: dict[str, Row] = {}
        """Rows of the round before, which go in this one."""

    def __len__(self) -> int:
        return len(self._fresh) + len(self._waited)

    def row(self, key: str) -> Row:
        """The row of a call, to be filled; a new one takes the place of the oldest when there are too many."""
        row = self._waited.get(key) or self._fresh.get(key)
        if row is None:
            if len(self) >= CALLS_LIMIT:
                oldest = self._waited or self._fresh
                del oldest[next(iter(oldest))]
                self.dropped += 1
            row = self._fresh[key] = {"key": key}
        return row

    def turn(self) -> list[Row]:
        """End a round: all that waited, and of this round's what is over; at most BATCH rows, then ask again."""
        taken = [self._waited.pop(key) for key in list(self._waited)[:BATCH]]
        if not self._waited:
            over = [key for key, row in self._fresh.items() if "ended_time" in row][: BATCH - len(taken)]
            taken += [self._fresh.pop(key) for key in over]
            if len(taken) < BATCH:
                self._waited, self._fresh = self._fresh, {}
        return taken


class Bridge:
    """One a worker.  `take` is called by the engine's host after a turn, everything else by the loop."""

    def __init__(
        self,
        clock: Clock,
        store: Callable[[Batch], Awaitable[None]],
        publish: Callable[[Iterable[str], Iterable[str]], Awaitable[None]],
        on_registration: Callable[[RegistrationChanged], None],
    ) -> None:
        self._clock = clock
        self._store = store
        self._publish = publish
        """Tells pages whose registration and whose calls moved."""
        self._on_registration = on_registration
        self.fences: dict[str, int] = {}
        """Fencing number of each account that this worker owns."""
        self.operators: dict[str, str] = {}
        """Who ordered what comes next with trigger `operator`."""
        self._dropped = 0
        self._queue: deque[Event] = deque()
        self._states: dict[str, RegistrationChanged] = {}
        self._refreshes: dict[str, RegistrationChanged] = {}
        """The last of each account that is only refreshed; never of one that waits in `_states`."""
        self._history: deque[RegistrationChanged | QualifyChanged] = deque()
        self._further: dict[tuple[str, str], FurtherChanged] = {}
        self._qualified: dict[str, QualifyChanged] = {}
        """The last round trip of each, which is no history."""
        self._calls = CallRows()
        self._dialogs: dict[str, DialogShifted | DialogOver] = {}
        """The last that was told of each."""
        self._bindings: dict[str, BindingChanged] = {}
        self._departed: list[str] = []
        self._moved: set[str] = set()
        self._stale: set[str] = set()
        self._batch = Batch()
        self._calls_at = self._refreshes_at = 0.0
        self._gathering: asyncio.TimerHandle | None = None
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.database = Outage(log, "The database", "Calls and registrations go on; pages and history wait.")
        self._pages = Outage(log, "The channel layer of the pages", "Calls and registrations go on; pages are stale.")

    @property
    def dropped(self) -> int:
        """History rows and calls lost since the start."""
        return self._dropped + self._calls.dropped

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="bridge")

    def take(self, events: deque[Event]) -> None:
        """Take the events of one turn."""
        self._queue.extend(events)
        events.clear()
        if self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(GATHER, self._gather)

    def accounts_changed(self, l_uuids: Iterable[str]) -> None:
        """Have the pages told of rows that were added, edited or removed."""
        self._stale.update(l_uuids)
        self._wanted.set()

    async def close(self, timeout: float) -> None:
        """Write what is left, in at most `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                self._gather()
                self._states.update(self._refreshes)
                self._refreshes.clear()
                self._refreshes_at = 0.0
                while self._waiting() and not self.database.failures:
                    self._calls_at = 0.0
                    self._wanted.set()
                    await asyncio.sleep(0.01)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _gather(self) -> None:
        """Turn queued events into what is to be written."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        while self._queue:
            event = self._queue.popleft()
            if isinstance(event, CALL_EVENTS):
                self._call(event)
            elif isinstance(event, RegistrationChanged):
                self._registered(event)
                self._on_registration(event)
            elif isinstance(event, QualifyChanged):
                if event.cause:
                    self._qualified.pop(event.l_uuid, None)
                    self._remember(event)
                else:
                    self._qualified[event.l_uuid] = event
            elif isinstance(event, FurtherChanged):
                self._further[event.l_uuid, event.registrar] = event
            elif isinstance(event, BindingChanged):
                self._binding(event)
            elif isinstance(event, DialogShifted | DialogOver):
                self._dialog(event)
            elif isinstance(event, Departed):
                self._departed.append(event.call_id)
        self._wanted.set()

    def _registered(self, event: RegistrationChanged) -> None:
        if is_routine(event) and event.l_uuid not in self._states:
            self._refreshes[event.l_uuid] = event
            return
        self._refreshes.pop(event.l_uuid, None)
        self._states[event.l_uuid] = event
        if is_news(event):
            self._remember(event)

    def _remember(self, event: RegistrationChanged | QualifyChanged) -> None:
        """Keep what goes into the history."""
        if len(self._history) >= HISTORY_LIMIT:
            self._history.popleft()
            self._dropped += 1
        self._history.append(event)

    def _call(self, event: CallStarted | CallAnswered | CallEnded) -> None:
        row = self._calls.row(event.key)
        moment = self._clock.time(event.at)
        if isinstance(event, CallStarted):
            row.update(
                call_id=event.call_id, l_uuid=event.l_uuid, direction=event.direction, caller=event.caller,
                callee=event.callee, anonymous=event.anonymous, started_time=moment,
            )
        elif isinstance(event, CallAnswered):
            row["answered_time"] = moment
        else:
            row.update(ended_time=moment, code=event.code, reason=event.reason)
        if event.l_uuid:
            self._moved.add(event.l_uuid)

    def _dialog(self, event: DialogShifted | DialogOver) -> None:
        if event.key not in self._dialogs and len(self._dialogs) >= DIALOGS_LIMIT:
            del self._dialogs[next(iter(self._dialogs))]
            self._dropped += 1
        self._dialogs[event.key] = event

    def _binding(self, event: BindingChanged) -> None:
        if event.ruid not in self._bindings and len(self._bindings) >= BINDINGS_LIMIT:
            del self._bindings[next(iter(self._bindings))]
            self._dropped += 1
        self._bindings[event.ruid] = event

    def _waiting(self) -> bool:
        return bool(
            self._batch or self._states or self._refreshes or self._history or self._qualified or self._calls
            or self._dialogs or self._bindings or self._departed or self._further
        )

    async def _run(self) -> None:
        while True:
            # News of registrations and dialogs are written as soon as they are there; calls and refreshes wait for
            # their rounds.
            soon = bool(
                self._states or self._history or self._qualified or self._dialogs or self._bindings or self._departed
            )
            rounds = [self._calls_at + CALLS_EVERY] if self._calls else []
            rounds += [self._refreshes_at + REFRESHES_EVERY] if self._refreshes or self._further else []
            later = min(rounds) - self._clock.now() if rounds else None
            # Not wait_for: on Python 3.11 it forgets a cancellation that comes together with what is waited for.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0 if soon else later if later is None else max(0.0, later)):
                    await self._wanted.wait()
            self._wanted.clear()
            # What could not be written is tried again as it was, so that order and content stay.
            self._batch = self._batch or self._next()
            if self._batch and not await self._write():
                await asyncio.sleep(self.database.pause)
                self._wanted.set()

    async def _write(self) -> bool:
        """Store the batch and tell the pages; False when the database does not answer."""
        batch = self._batch
        try:
            await self._store(batch)
        except (OperationalError, InterfaceError) as error:
            self.database.failed(error)
            return False
        except Exception:
            log.exception("A batch of the engine's news cannot be stored as it is; its rows are tried one by one.")
            await self._store_singly(batch)
        self.database.worked()
        self._batch = Batch()
        try:
            moved = batch.registrations + batch.refreshes + batch.further
            moved += [row for row in batch.qualified if row["cause"]]
            await self._publish({row["l_uuid"] for row in moved} | batch.stale, batch.called)
        except Exception as error:
            self._pages.failed(error)
        else:
            self._pages.worked()
        return True

    async def _store_singly(self, batch: Batch) -> None:
        for single in batch.singly():
            try:
                await self._store(single)
            except Exception as error:
                self._dropped += 1
                log.error("A row of the engine's news is dropped: %s.", str(error) or type(error).__name__)

    def _next(self) -> Batch:
        """Take the next batch out of what waits."""
        batch = Batch()
        for _ in range(min(BATCH, len(self._history))):
            event = self._history.popleft()
            if isinstance(event, QualifyChanged):
                batch.qualified.append(self._qualify(event))
                continue
            if self._states.get(event.l_uuid) is event:
                del self._states[event.l_uuid]
            batch.registrations.append(self._registration(event))
        if not self._history:
            for l_uuid in list(self._states)[:BATCH]:
                batch.registrations.append(self._registration(self._states.pop(l_uuid)))
            for l_uuid in list(self._qualified)[:BATCH]:
                batch.qualified.append(self._qualify(self._qualified.pop(l_uuid)))
        for key in list(self._dialogs)[:BATCH]:
            dialog = self._dialogs.pop(key)
            if isinstance(dialog, DialogOver):
                batch.dialogs_over.append(key)
            else:
                batch.dialogs.append({
                    "key": key, "call_id": dialog.call_id, "l_uuid": dialog.l_uuid, "state": dialog.state,
                    "expires_time": self._clock.time(dialog.expires_at), "changed_time": self._clock.time(dialog.at),
                })
        for ruid in list(self._bindings)[:BATCH]:
            binding = self._bindings.pop(ruid)
            if binding.gone:
                batch.bindings_over.append(ruid)
            else:
                batch.bindings.append(self._location(binding))
        batch.departed, self._departed = self._departed[:BATCH], self._departed[BATCH:]
        now = self._clock.now()
        if now >= self._calls_at + CALLS_EVERY:
            batch.calls = self._calls.turn()
            self._calls_at = now if len(batch.calls) < BATCH else 0.0
            if batch.calls:
                batch.called, self._moved = self._moved, set()
        if now >= self._refreshes_at + REFRESHES_EVERY:
            self._refresh_round(batch, now)
        batch.stale, self._stale = self._stale, set()
        return batch

    def _refresh_round(self, batch: Batch, now: float) -> None:
        """Take the refreshes that are over, and those that wait for their answer since the round before; and what
        became of bindings at further registrars.
        """
        for place in list(self._further)[:BATCH]:
            batch.further.append(self._further_row(self._further.pop(place)))
        taken = [
            l_uuid for l_uuid, event in self._refreshes.items() if event.final or event.at <= now - REFRESHES_EVERY
        ][:BATCH]
        for l_uuid in taken:
            event = self._refreshes.pop(l_uuid)
            if event.final:
                batch.refreshes.append(self._refresh(event))
            else:
                batch.registrations.append(self._registration(event))
        self._refreshes_at = now if len(taken) < BATCH and not self._further else 0.0

    def _refresh(self, event: RegistrationChanged) -> Row:
        clock = self._clock
        return {
            "l_uuid": event.l_uuid, "fence": self.fences.get(event.l_uuid, 0), "time": clock.time(event.at),
            "bound_until_time": clock.optional_time(event.bound_until_at),
            "next_attempt_time": clock.optional_time(event.next_attempt_at),
            "counted_time": clock.optional_time(event.counted_to),
            "trigger": event.trigger.value, "reason": event.reason, "granted": event.granted,
            "generation": event.generation, "call_id": event.call_id, "cseq": event.cseq,
            "round_trip": event.round_trip, "covered": event.covered, "coverable": event.coverable,
            "local_address": event.local_address, "seen_address": event.seen_address,
        }

    def _further_row(self, event: FurtherChanged) -> Row:
        return {
            "l_uuid": event.l_uuid, "registrar": event.registrar, "gone": event.gone, "state": event.state.value,
            "cause": event.cause, "code": event.code, "reason": event.reason, "granted": event.granted,
            "bound_until_time": self._clock.optional_time(event.bound_until_at),
            "next_attempt_time": self._clock.optional_time(event.next_attempt_at),
        }

    def _location(self, event: BindingChanged) -> Row:
        username, _, domain = event.aor.rpartition("@")
        return {
            "ruid": event.ruid, "username": username, "domain": domain, "contact": event.contact,
            "received": received_uri(event.transport, event.source), "path": event.path,
            "expires": self._clock.time(event.expires_at), "q": event.q / 1000, "callid": event.call_id,
            "cseq": event.cseq, "last_modified": self._clock.time(event.changed_at), "user_agent": event.user_agent,
            "instance": event.instance, "reg_id": event.reg_id,
        }

    def _registration(self, event: RegistrationChanged) -> Row:
        row = dict(zip(_FIELDS, _values(event), strict=True))
        clock = self._clock
        row.update(
            state=event.state.value, trigger=event.trigger.value, time=clock.time(row.pop("at")),
            bound_until_time=clock.optional_time(row.pop("bound_until_at")),
            next_attempt_time=clock.optional_time(row.pop("next_attempt_at")),
            counted_time=clock.optional_time(row.pop("counted_to")),
            lapsed_time=clock.optional_time(row.pop("lapsed_at")),
            fence=self.fences.get(event.l_uuid, 0), news=is_news(event),
        )
        if event.final and event.trigger is Trigger.OPERATOR:
            row["who"] = self.operators.pop(event.l_uuid, "")
        return row

    def _qualify(self, event: QualifyChanged) -> Row:
        return {
            "l_uuid": event.l_uuid, "fence": self.fences.get(event.l_uuid, 0), "time": self._clock.time(event.at),
            "qualify_state": event.state.value, "qualify_round_trip": event.round_trip,
            "qualify_time": self._clock.optional_time(event.answered_at),
            "cause": event.cause, "code": event.code, "reason": event.reason, "target": event.target,
            "round_trip": event.round_trip,
        }


def is_routine(event: RegistrationChanged) -> bool:
    """Whether it is part of a refresh that has found nothing else than before, so far."""
    return event.unchanged or (
        event.state is RegistrationState.REFRESHING and event.trigger in (Trigger.BEAT, Trigger.GUARD)
    )


def is_news(event: RegistrationChanged) -> bool:
    """Whether it goes into the history: an exchange ended, and not as the one before."""
    return event.final and not event.unchanged


def received_uri(transport: str, source: tuple[str, int]) -> str:
    """Where a REGISTER came from, as Kamailio writes it."""
    host = f"[{source[0]}]" if ":" in source[0] else source[0]
    return f"sip:{host}:{source[1]};transport={transport}"
