"""The one thread in which a SIP worker reads and writes its database; the loop only waits for it, or does not."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from django.db import close_old_connections, connections

Result = TypeVar("Result")

_Work = tuple[Callable[..., Any], tuple[Any, ...], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class DatabaseThread:
    """Runs calls one after the other.  A database that hangs makes them wait, never the SIP sockets.

    Not an executor of the standard library: Python waits for their threads when it ends, and a database that hangs
    would keep a stopped worker from ending.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, call: Callable[..., Result], *args: Any) -> Result:
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name="sip-database", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._work.put((call, args, loop, future))
        return await future

    async def close(self) -> None:
        """End the thread after what it is doing, and its connection with it."""
        await self.run(connections.close_all)
        self._work.put(None)

    def _main(self) -> None:
        while (work := self._work.get()) is not None:
            call, args, loop, future = work
            if future.cancelled():
                continue
            try:
                # A connection that failed stays marked; without this it would be used again and fail for ever.
                close_old_connections()
                result, error = call(*args), None
            except Exception as fault:
                result, error = None, fault
            with contextlib.suppress(RuntimeError):  # the loop has ended, so nobody waits
                loop.call_soon_threadsafe(_answer, future, result, error)


def _answer(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
