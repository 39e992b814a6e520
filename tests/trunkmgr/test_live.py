"""Telling pages and workers from a thread: into the loop of the one process, or through the shared layer."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time

import pytest
from channels.layers import get_channel_layer

from trunkmgr import live


def test_a_page_hears_whose_picture_is_stale() -> None:
    async def main() -> dict:
        layer = get_channel_layer()
        page = await layer.new_channel()
        await layer.group_add(live.GROUP, page)
        await live.apublish(["a"], ["b"])
        return await layer.receive(page)

    message = asyncio.run(main())
    assert message["type"] == "live.text"
    assert json.loads(message["text"]) == {"items": [{"type": "trunk", "l_uuid": "a"}, {"type": "call", "l_uuid": "b"}]}


def test_a_thread_hands_its_message_to_the_loop_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> float:
        monkeypatch.setattr(live, "LOOP", asyncio.get_running_loop())
        waiting = asyncio.create_task(get_channel_layer().receive("sip.test"))
        await asyncio.sleep(0.01)
        start = time.perf_counter()
        threading.Thread(target=live.send, args=("sip.test", {"type": "node.wake"})).start()
        assert await asyncio.wait_for(waiting, 1) == {"type": "node.wake"}
        return time.perf_counter() - start

    assert asyncio.run(main()) < 0.5


def test_a_dead_layer_is_a_log_line_never_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    class Dead:
        async def send(self, *args: object) -> None:
            raise ConnectionError("Connection refused")

        group_send = send

    monkeypatch.setattr(live, "get_channel_layer", Dead)
    with caplog.at_level(logging.WARNING):
        assert live.send("sip.test", {"type": "node.wake"}) is False
        assert live.publish(["a"]) is False
    assert "Connection refused" in caplog.text
