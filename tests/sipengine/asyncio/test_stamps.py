"""The kernel says how long a datagram has waited, also where the loop cannot know."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from sipengine.asyncio import udp
from sipengine.overload import Gauge, Overload
from sipengine.transport.flow import Flow, Listener


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_what_waited_in_the_kernel_is_measured(host: str) -> None:
    waits: list[float] = []

    class Seen(Gauge):
        def measured(self, wait: float, now: float) -> None:
            waits.append(wait)

    async def main() -> None:
        received: list[bytes] = []
        sock = udp.bind(host, 0)
        listener = Listener("udp", "127.0.0.1", sock.getsockname()[1], b"127.0.0.1")
        opened = udp.UdpSocket(
            sock, flow_for=Flow, listener_at=lambda local: listener,
            receive=lambda data, flow, now: received.append(data), after=lambda: None, failed=lambda flow, error: None,
            gauge=Seen(Overload()),
        )  # fmt: skip
        opened.start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            for number in range(100):
                peer.sendto(b"%d" % number, ("127.0.0.1", listener.port))
        time.sleep(0.3)  # the loop stands still
        while len(received) < 100:
            await asyncio.sleep(0.001)
        opened.close()
        assert received == [b"%d" % number for number in range(100)], "a sampled datagram keeps its place"

    asyncio.run(asyncio.wait_for(main(), 5))
    assert 2 <= len(waits) <= 100 / udp.SAMPLE + 1
    assert all(0.29 < wait < 3 for wait in waits)
