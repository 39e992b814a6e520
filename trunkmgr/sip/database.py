"""The one thread in which a SIP worker reads and writes its database; the loop only waits for it, or does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.db import close_old_connections, connections

Result = TypeVar("Result")


class DatabaseThread:
    """Runs calls one after the other.  A database that hangs makes them wait, never the SIP sockets."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sip-database")

    async def run(self, call: Callable[..., Result], *args: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._run, call, args)

    @staticmethod
    def _run(call: Callable[..., Result], args: tuple[Any, ...]) -> Result:
        # A connection that failed stays marked; without this it would be used again and fail for ever.
        close_old_connections()
        return call(*args)

    async def close(self) -> None:
        """End the thread after what it is doing, and its connection with it."""
        await asyncio.get_running_loop().run_in_executor(self._executor, connections.close_all)
        self._executor.shutdown(wait=False, cancel_futures=True)
