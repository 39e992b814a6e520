"""A check as it goes on: its steps, what waits for their end, and what is told of them meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from sipengine.events import Target
from sipengine.uac.request import Exchange, Outcome
from trunkmgr.models import Order
from trunkmgr.services import orders as order_rows

Result = dict[str, Any]

GOOD, REMARK, BAD, SKIPPED, RUNNING = "good", "remark", "bad", "skipped", "running"


@dataclass(slots=True)
class Step:
    """One thing that was looked at; `lines` are the evidence."""

    name: str
    title: str
    state: str = RUNNING
    detail: str = ""
    lines: list[str] = field(default_factory=list)
    seconds: float | None = None
    cause: str = ""
    code: int | None = None
    reason: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def ended(self, state: str, told: str, cause: str = "", /, **facts: str) -> bool:
        """Close the step; True where what follows makes sense.  `facts` go into the words of `cause`."""
        self.state, self.detail, self.cause = state, told, cause
        self.facts.update(facts)
        self.seconds = round(time.monotonic() - self.began, 3)
        return state != BAD

    def shown(self) -> Result:
        told = asdict(self)
        for name in ("facts", "began"):
            del told[name]
        return told


class Checkup:
    """The steps of one order, and the exchanges of the worker's engine that they wait for."""

    def __init__(self, worker: Any, order: Order) -> None:
        self.worker = worker
        self.order = order
        self.steps: list[Step] = []

    def begin(self, name: str, title: str) -> Step:
        """Open a step; those who watch hear of it, and of the end of those before."""
        step = Step(name, title)
        self.steps.append(step)
        self.worker.spawn(self._tell(), "doctor")
        return step

    async def _tell(self) -> None:
        shown = storable([step.shown() for step in self.steps])
        await self.worker.database.run(order_rows.tell, self.order.pk, shown)

    async def exchange(self, make: Callable[[Callable[[Outcome], None]], Exchange], timeout: float) -> Outcome:
        """Start an exchange and wait for its end; one that takes longer (it may wait its turn) is abandoned."""
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome) -> None:
            if not ended.done():
                ended.set_result(outcome)

        exchange = make(done)
        self.worker.call(exchange.start)
        await asyncio.wait([ended], timeout=timeout)
        if not ended.done():
            self.worker.call(exchange.abandon)
        return await ended


def storable(value: Any) -> Any:
    """Return `value` without NUL, which a peer may send and PostgreSQL does not store."""
    if isinstance(value, str):
        return value.replace("\0", "�")
    if isinstance(value, list):
        return [storable(each) for each in value]
    if isinstance(value, dict):
        return {name: storable(each) for name, each in value.items()}
    return value


def facts_of(target: Target) -> dict[str, str]:
    """What the words of causes ask of a server."""
    host, port = target.address
    return {
        "target": f"{host} port {port} ({target.transport.upper()})", "proto": target.transport.upper(),
        "port": str(port),
    }
