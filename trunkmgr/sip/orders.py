"""Orders of operators, run on the engine once each: register, unregister, dump, reload, and what others run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from sipengine.events import RegistrationChanged, RegistrationState, Trigger
from trunkmgr.models import Order
from trunkmgr.sip.bridge import Bridge
from trunkmgr.sip.clock import Clock

Result = dict[str, Any]

_AT_REST = frozenset({RegistrationState.UNREGISTERED, RegistrationState.DISABLED})


class Orders:
    """Runs what was claimed and makes the answers for which people wait."""

    def __init__(
        self, verbs: Any, call: Callable[..., Any], clock: Clock, bridge: Bridge, dump: Callable[[], Result],
        reload: Callable[[], Awaitable[int]], lift: Callable[[str], bool],
        others: Mapping[str, Callable[[Order], Awaitable[Result]]],
    ) -> None:
        self._registrations = verbs
        self._call = call
        """Runs a verb of the engine in its turn: `call(verb, *arguments)` adds the time."""
        self._clock = clock
        self._bridge = bridge
        self._dump = dump
        self._reload = reload
        """Compares all rows with the picture now; returns how many accounts differed."""
        self._lift = lift
        """Ends the ban of an address; False where there is none."""
        self._others = others
        """What runs the verbs that are larger than a line."""
        self._waiting: dict[str, list[asyncio.Future[RegistrationChanged]]] = {}

    def heard(self, event: RegistrationChanged) -> None:
        """Take an event of the engine: the exchange that an operator asked for may have ended."""
        if event.final and event.trigger is Trigger.OPERATOR:
            for waiting in self._waiting.pop(event.l_uuid, ()):
                if not waiting.done():
                    waiting.set_result(event)

    async def run(self, order: Order) -> Result:
        """Run an order to its end, or to its deadline; the result tells what came of it."""
        if order.verb == Order.Verb.DUMP:
            return {"ok": True, "message": "", **self._dump()}
        if (run := self._others.get(order.verb)) is not None:
            return await run(order)
        if order.verb == Order.Verb.RELOAD:
            differed = await self._reload()
            return {"ok": True, "message": f"All accounts are read again, {differed:,} differed."}
        if order.verb == Order.Verb.UNBAN:
            lifted = sum([self._lift(str(address)) for address in order.payload.get("addresses", ())])
            return {"ok": True, "message": f"{lifted:,} bans ended."}
        if order.verb not in (Order.Verb.REGISTER, Order.Verb.UNREGISTER):
            return {"ok": False, "message": f"This SIP worker does not know the order {order.verb}; it may be older."}
        left = self._clock.at(order.deadline) - self._clock.now()
        l_uuids = list(order.payload.get("l_uuids", ()))
        accounts = dict(zip(
            l_uuids, await asyncio.gather(*(self._one(order, l_uuid, left) for l_uuid in l_uuids)), strict=True,
        ))
        return {
            "ok": all(account["ok"] for account in accounts.values()),
            "message": _sentence(accounts.values()),
            "accounts": accounts,
        }

    async def _one(self, order: Order, l_uuid: str, left: float) -> Result:
        registering = order.verb == Order.Verb.REGISTER
        ended: asyncio.Future[RegistrationChanged] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(l_uuid, []).append(ended)
        self._bridge.operators[l_uuid] = order.who
        verb = self._registrations.register if registering else self._registrations.unregister
        if not self._call(verb, l_uuid):
            self._forget(l_uuid, ended)
            where = "is not at this worker, or is switched off" if registering else "is not at this worker"
            return {"ok": False, "message": f"The account {l_uuid} {where}."}
        try:
            async with asyncio.timeout(max(0.0, left)):
                event = await ended
        except TimeoutError:
            self._forget(l_uuid, ended)
            return {"ok": False, "message": f"No answer for {l_uuid} yet; the attempt goes on."}
        wanted = event.state is RegistrationState.REGISTERED if registering else event.state in _AT_REST
        answer = f"{event.code} {event.reason}".strip() if event.code else event.cause or "no answer"
        return {
            "ok": wanted, "message": f"{l_uuid}: {answer}", "state": event.state.value, "cause": event.cause,
            "code": event.code, "reason": event.reason, "granted": event.granted, "round_trip": event.round_trip,
        }

    def _forget(self, l_uuid: str, ended: asyncio.Future[RegistrationChanged]) -> None:
        waiting = self._waiting.get(l_uuid, [])
        if ended in waiting:
            waiting.remove(ended)
        if not waiting:
            self._waiting.pop(l_uuid, None)
            self._bridge.operators.pop(l_uuid, None)


def _sentence(accounts: Iterable[Result]) -> str:
    messages = [account["message"] for account in accounts]
    if len(messages) <= 3:
        return "; ".join(messages)
    return "; ".join(messages[:3]) + f"; and {len(messages) - 3} more"
