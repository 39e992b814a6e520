"""A UDP socket that has much to read, that meets a fault, or that the kernel takes nothing from."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from sipengine.asyncio.udp import QUEUE, UdpSocket
from sipengine.events import RegistrationState
from sipengine.transport.flow import Flow, Listener
from tests.sipengine.asyncio.test_server import Host, Main, ask, options, run

__all__ = ["run"]


def test_a_burst_is_read_whole(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with Host("udp:127.0.0.1:0") as here:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for number in range(500):
                    sock.sendto(options(str(number)), ("127.0.0.1", here.port))
                while here.endpoint.counters.received < 500:
                    await asyncio.sleep(0.01)

    run(main)


@pytest.mark.parametrize("listen", ["udp:127.0.0.1:0", "udp:0.0.0.0:0"])
def test_a_busy_socket_is_looked_at_now_and_then_and_a_calm_one_at_once(
    run: Callable[[Main], None], monkeypatch: pytest.MonkeyPatch, listen: str
) -> None:
    looks: list[int] = []
    look = UdpSocket._look

    def counted(self: UdpSocket) -> None:
        looks.append(1)
        look(self)

    monkeypatch.setattr(UdpSocket, "_look", counted)

    async def main() -> None:
        async with Host(listen) as here:
            received = here.endpoint.counters
            for _ in range(5):  # one after the other, far below what is busy
                await ask(socket.AF_INET, ("127.0.0.1", here.port))
                await asyncio.sleep(0.01)
            assert not looks
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for number in range(1000):
                    sock.sendto(options(str(number)), ("127.0.0.1", here.port))
            while received.received < 1005:
                await asyncio.sleep(0.001)
            assert looks, "the loop was not asked for each datagram"
            await asyncio.sleep(0.02)
            done = len(looks)
            for _ in range(5):
                assert await ask(socket.AF_INET, ("127.0.0.1", here.port))
                await asyncio.sleep(0.01)
            assert len(looks) == done, "a calm socket belongs to the loop again"

    run(main)


def test_what_came_before_a_fault_is_answered(run: Callable[[Main], None], monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Host("udp:127.0.0.1:0") as here:
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
            receive = here.endpoint.receive

            def faulty(data: bytes, flow: Flow, now: float) -> None:
                if b"fault" in data:
                    raise ArithmeticError("somebody's fault")
                receive(data, flow, now)

            monkeypatch.setattr(here.endpoint, "receive", faulty)
            monkeypatch.setattr(here.server._udp[0], "_budget", 64)  # all of it in one turn
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(0)
                for name in ("first", "second", "fault"):
                    sock.sendto(options(name), ("127.0.0.1", here.port))
                await asyncio.sleep(0.02)
                assert sock.recv(65535).startswith(b"SIP/2.0 ")
                assert sock.recv(65535).startswith(b"SIP/2.0 ")

    run(main)


def test_a_fault_while_a_socket_is_busy_does_not_make_it_deaf(
    run: Callable[[Main], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with Host("udp:127.0.0.1:0") as here:
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
            faults = iter(range(3))
            flush = here.server.flush

            def fault() -> None:
                flush()
                if here.endpoint.counters.received > 200 and next(faults, None) is not None:
                    raise ArithmeticError("somebody's fault")

            for opened in here.server._udp:
                monkeypatch.setattr(opened, "_after", fault)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for number in range(500):
                    sock.sendto(options(str(number)), ("127.0.0.1", here.port))
                while here.endpoint.counters.received < 500:
                    await asyncio.sleep(0.001)
            assert next(faults, None) is None
            assert await ask(socket.AF_INET, ("127.0.0.1", here.port))

    run(main)


def test_a_full_kernel_queues_then_drops() -> None:
    class Full:
        """A socket whose kernel takes nothing, then everything."""

        def __init__(self) -> None:
            self.full = True
            self.sent: list[bytes] = []
            self.pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

        def fileno(self) -> int:
            return self.pair[0].fileno()

        def getsockname(self) -> tuple[str, int]:
            return "127.0.0.1", 5060

        def sendto(self, data: bytes, remote: tuple[str, int]) -> None:
            if self.full:
                raise BlockingIOError
            self.sent.append(data)

        def close(self) -> None:
            self.pair[0].close()
            self.pair[1].close()

    async def main() -> None:
        sock = Full()
        listener = Listener("udp", "127.0.0.1", 5060, b"127.0.0.1:5060")
        opened = UdpSocket(
            sock, flow_for=lambda x, r: Flow(x, r), listener_at=lambda host: listener, receive=lambda d, f, n: None,  # type: ignore[arg-type]
            after=lambda: None, failed=lambda f, e: None,
        )  # fmt: skip
        flow = Flow(listener, ("127.0.0.1", 9))
        for number in range(QUEUE + 5):
            opened.send(b"%d" % number, flow)
        assert opened.dropped == 5 and not sock.sent
        sock.full = False
        while len(sock.sent) < QUEUE:
            await asyncio.sleep(0.001)
        opened.send(b"last", flow)
        assert sock.sent == [*(b"%d" % n for n in range(QUEUE)), b"last"]
        opened.close()

    asyncio.run(main())


# sockets that cannot be had


def test_a_datagram_that_cannot_leave_is_told(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with Host("udp:0.0.0.0:0") as here:
            here.change(auth_proxy="sip:255.255.255.255")  # no broadcast right: EACCES
            assert (await here.until(RegistrationState.FAILING)).cause == "unreachable"
        async with Host("udp:127.0.0.1:0") as here:
            here.change(auth_proxy="sip:192.0.2.9")
            assert (await here.until(RegistrationState.FAILING)).cause == "no_socket"

    run(main)
