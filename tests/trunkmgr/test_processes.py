"""What the commands share: parts that end by themselves are started again, and errors become one line."""

from __future__ import annotations

import asyncio
import logging

import pytest
from django.core.management import CommandError

from trunkmgr import processes
from trunkmgr.exceptions import NodeTaken


class Part:
    name = "celery beat"

    def __init__(self) -> None:
        self.alive = True
        self.starts = 0

    def start(self) -> None:
        self.starts += 1
        self.alive = True

    def stop(self) -> None:
        self.alive = False


def test_a_thread_that_ends_by_itself_is_started_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    part = Part()
    monkeypatch.setattr(processes, "PARTS", [part])
    monkeypatch.setattr(processes, "WATCH", 0.01)

    async def main() -> None:
        watching = asyncio.create_task(processes.watch())
        await asyncio.sleep(0.05)
        assert part.starts == 0
        part.alive = False
        async with asyncio.timeout(2):
            while not part.alive:
                await asyncio.sleep(0.01)
        watching.cancel()

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert part.starts == 1
    assert "The thread celery beat ended by itself" in caplog.text


@pytest.mark.parametrize("error", [NodeTaken("The name is taken.\nStop it."), OSError("The name is taken. Stop it.")])
def test_what_keeps_it_from_starting_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.signal, "signal", lambda *args: None)

    async def main(stop: asyncio.Event) -> None:
        raise error

    with pytest.raises(CommandError, match=r"^The name is taken\. Stop it$"):
        processes.run(main)
