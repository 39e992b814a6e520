"""Writes that routing scripts ask for: done in their order by the database thread, while the script goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from django.db import Error as DatabaseError

from trunkmgr.sip.database import DatabaseThread
from trunkmgr.sip.outage import Outage

log = logging.getLogger("trunkmgr.sip")

#: Writes that may wait.
LIMIT = 1000


class WriteBehind:
    """One a worker: `put` from a hook, `run` as a task."""

    def __init__(self, database: DatabaseThread, outage: Outage) -> None:
        self._database = database
        self._outage = outage
        self._queue: asyncio.Queue[tuple[Callable[..., Any], tuple[Any, ...]]] = asyncio.Queue(LIMIT)

    def put(self, service: Callable[..., Any], *args: Any) -> bool:
        """Take a call of a service on; False when too many wait already."""
        try:
            self._queue.put_nowait((service, args))
        except asyncio.QueueFull:
            log.error("Routing asks for more writes than the database takes; %s is left out.", args)
            return False
        return True

    async def run(self) -> None:
        while True:
            service, args = await self._queue.get()
            while not await self._written(service, args):
                await asyncio.sleep(self._outage.pause)

    async def _written(self, service: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        """False when the database does not answer, and the same is to be tried again."""
        try:
            await self._database.run(service, *args)
        except DatabaseError as error:
            self._outage.failed(error)
            return False
        except Exception:
            log.exception("What routing asked for cannot be written: %s.", args)
        else:
            self._outage.worked()
        return True
