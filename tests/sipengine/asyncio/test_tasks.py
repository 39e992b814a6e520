"""Hooks stepped by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from sipengine.asyncio.tasks import HookSteps
from sipengine.exceptions import Reject


def test_a_hook_that_does_not_wait_needs_no_task_and_no_loop() -> None:
    steps = HookSteps()
    seen: list[BaseException | None] = []

    async def hook() -> None:
        await nothing()

    async def nothing() -> None:
        return

    steps.step(hook(), seen.append)
    assert seen == [None] and steps.pending == 0


def test_an_error_is_handed_over() -> None:
    seen: list[BaseException | None] = []

    async def hook() -> None:
        raise Reject(404)

    HookSteps().step(hook(), seen.append)
    assert isinstance(seen[0], Reject)


def test_a_hook_that_waits_goes_on_in_a_task() -> None:
    order: list[Any] = []

    async def hook() -> None:
        order.append("begin")
        await asyncio.sleep(0.01)
        order.append(asyncio.current_task() is not None)
        await asyncio.sleep(0)
        async with asyncio.timeout(1):
            await asyncio.to_thread(order.append, "thread")
        try:
            await asyncio.wait_for(asyncio.get_running_loop().create_future(), 0.01)
        except TimeoutError:
            order.append("timeout")

    async def main() -> None:
        steps = HookSteps()
        done: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        steps.step(hook(), done.set_result)
        assert steps.pending == 1 and order == ["begin"]
        assert await done is None
        await asyncio.sleep(0)
        assert steps.pending == 0

    asyncio.run(main())
    assert order == ["begin", True, "thread", "timeout"]


def test_an_error_after_waiting_and_one_that_is_caught() -> None:
    async def failing() -> None:
        await asyncio.sleep(0)
        raise ValueError("after")

    async def catching(future: Awaitable[None]) -> None:
        try:
            await future
        except KeyError:
            await asyncio.sleep(0)

    async def main() -> None:
        steps = HookSteps()
        loop = asyncio.get_running_loop()
        first: asyncio.Future[BaseException | None] = loop.create_future()
        second: asyncio.Future[BaseException | None] = loop.create_future()
        broken: asyncio.Future[None] = loop.create_future()
        steps.step(failing(), first.set_result)
        steps.step(catching(broken), second.set_result)
        broken.set_exception(KeyError("x"))
        assert isinstance(await first, ValueError)
        assert await second is None

    asyncio.run(main())


def test_beyond_the_bound_a_hook_is_refused_and_closed() -> None:
    closed: list[bool] = []

    async def hook() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            closed.append(True)

    async def main() -> None:
        steps = HookSteps(limit=2)
        seen: list[BaseException | None] = []
        for _ in range(3):
            steps.step(hook(), seen.append)
        assert steps.pending == 2 and steps.refused == 1 and closed == [True]
        [reject] = seen
        assert isinstance(reject, Reject) and reject.status == 503 and reject.headers == (("Retry-After", "5"),)
        await steps.drain(0.01)
        assert steps.pending == 0 and len(closed) == 3
        assert [getattr(error, "status", None) for error in seen] == [503, 503, 503]

    asyncio.run(main())


def test_uvloop_too() -> None:
    uvloop = pytest.importorskip("uvloop")
    done: list[BaseException | None] = []

    async def hook() -> None:
        await asyncio.sleep(0.001)

    async def main() -> None:
        steps = HookSteps()
        steps.step(hook(), done.append)
        await steps.drain(1)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert done == [None]
