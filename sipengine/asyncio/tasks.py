"""Steps a hook's coroutine by hand: one that finishes at once costs no task, one that suspends goes on inside a task.

Python 3.11 has no eager tasks, and a coroutine that was stepped cannot be handed to a task as it is; `_rest` yields
its first future there and goes on.  Until its first suspension a hook runs outside a task: `asyncio.current_task()`
is None there, so `asyncio.timeout()` belongs behind the first await.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Generator
from types import coroutine as types_coroutine
from typing import Any

from sipengine.exceptions import Reject
from sipengine.overload import RETRY_AFTER

OnDone = Callable[[BaseException | None], None]


class HookSteps:
    """Runs hooks and bounds how many may be suspended at once.  `retry_after` None: drawn anew for each caller."""

    def __init__(self, limit: int = 1000, retry_after: int | None = 5) -> None:
        self.limit = limit
        self.retry_after = retry_after
        self.refused = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def pending(self) -> int:
        return len(self._tasks)

    def step(self, hook: Coroutine[Any, Any, Any], on_done: OnDone) -> None:
        """Run `hook` until it ends or suspends.

        `on_done` is called with None or the exception: before this returns when the hook did not suspend, else from
        its task.  Beyond the bound the hook is closed and `on_done` gets a Reject(503) with Retry-After.
        """
        try:
            waiting_for = hook.send(None)
        except StopIteration:
            on_done(None)
            return
        except Exception as error:
            on_done(error)
            return
        if len(self._tasks) >= self.limit:
            self.refused += 1
            hook.close()
            wait = self.retry_after or random.randint(*RETRY_AFTER)  # noqa: S311 - spreads the callers, no secret
            on_done(Reject(503, "Too many calls being decided", [("Retry-After", str(wait))]))
            return
        task = asyncio.get_running_loop().create_task(_finish(hook, waiting_for, on_done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, timeout: float) -> None:
        """Wait for the suspended hooks, cancel what is left after `timeout` seconds."""
        if not self._tasks:
            return
        _, left = await asyncio.wait(list(self._tasks), timeout=timeout)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)


async def _finish(hook: Coroutine[Any, Any, Any], waiting_for: object, on_done: OnDone) -> None:
    try:
        await _rest(hook, waiting_for)
    except asyncio.CancelledError:
        on_done(Reject(503, "Server stops"))
        raise
    except Exception as error:
        on_done(error)
    else:
        on_done(None)


@types_coroutine
def _rest(hook: Coroutine[Any, Any, Any], waiting_for: Any) -> Generator[Any, Any, Any]:
    # A plain `await hook` would raise "coroutine is being awaited already": it is suspended in an await of its own.
    while True:
        try:
            value = yield waiting_for
        except GeneratorExit:
            hook.close()
            raise
        except BaseException as error:
            try:
                waiting_for = hook.throw(error)
            except StopIteration as stop:
                return stop.value
        else:
            try:
                waiting_for = hook.send(value)
            except StopIteration as stop:
                return stop.value
