"""TCP connections under peers that send slowly, read slowly, open many, or vanish."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from sipengine.asyncio.tcp import TcpFlows, TcpLimits
from sipengine.exceptions import TransportError
from sipengine.transport.flow import Flow
from tests.sipengine.asyncio.test_server import Host, Main, connect, options, run

__all__ = ["run"]


def flows_of(host: Host) -> TcpFlows:
    assert host.server._tcp is not None
    return host.server._tcp


@contextlib.asynccontextmanager
async def silent_peer(receive_buffer: int = 0) -> AsyncIterator[tuple[int, list[socket.socket]]]:
    """A TCP listener whose connections nobody reads unless the test does."""
    loop = asyncio.get_running_loop()
    taken: list[socket.socket] = []
    with socket.socket() as there:
        if receive_buffer:
            there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        there.bind(("127.0.0.1", 0))
        there.listen()
        there.setblocking(False)

        async def accept() -> None:
            while True:
                taken.append((await loop.sock_accept(there))[0])

        task = loop.create_task(accept())
        yield there.getsockname()[1], taken
        task.cancel()
        for sock in taken:
            sock.close()


async def until(condition: Callable[[], object], within: float = 3.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.rfc("3261", "18.3")
@pytest.mark.checklist("M8")
def test_a_half_sent_message_is_cut_and_others_go_on(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        limits = TcpLimits(message=0.4, tick=0.05)
        async with Host("tcp:127.0.0.1:0", tcp_limits=limits) as here:
            slow_reader, slow = await connect(here.port)
            good_reader, good = await connect(here.port)
            whole = options("slow", "TCP")
            slow.write(whole)  # a first message buys no time for the second
            assert (await slow_reader.readuntil(b"\r\n\r\n")).startswith(b"SIP/2.0 200")
            start = asyncio.get_running_loop().time()
            ended = asyncio.ensure_future(slow_reader.read())
            sent = 0
            while not ended.done():  # a byte now and then is no progress
                slow.write(whole[sent % 100 : sent % 100 + 1])
                sent += 1
                with contextlib.suppress(ConnectionError):
                    await slow.drain()
                good.write(options(f"g{sent}", "TCP"))
                assert (await good_reader.readuntil(b"\r\n\r\n")).startswith(b"SIP/2.0 200")
                await asyncio.sleep(0.02)
            took = asyncio.get_running_loop().time() - start
            with contextlib.suppress(ConnectionError):
                assert ended.result() == b""
            assert 0.3 < took < 1.5 and sent > 5 and flows_of(here).ended["slow"] == 1
            slow.close()
            good.close()

    run(main)


def test_an_accepted_connection_owes_a_first_message(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with Host("tcp:127.0.0.1:0", tcp_limits=TcpLimits(message=0.2, tick=0.05)) as here:
            reader, writer = await connect(here.port)
            other_reader, other = await connect(here.port)
            other.write(options("o", "TCP"))
            assert (await other_reader.readuntil(b"\r\n\r\n")).startswith(b"SIP/2.0 200")
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            await asyncio.sleep(0.3)
            other.write(options("p", "TCP"))  # one that has spoken may be silent for as long as it likes
            assert (await other_reader.readuntil(b"\r\n\r\n")).startswith(b"SIP/2.0 200")
            writer.close()
            other.close()

    run(main)


@pytest.mark.rfc("3261", "18.3")
def test_what_stands_before_a_lost_framing_is_answered_and_the_fault_gets_400(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with Host("tcp:127.0.0.1:0") as here:
            reader, writer = await connect(here.port)
            bad = options("bad", "TCP").replace(b"Content-Length: 0", b"Content-Length: -1")
            writer.write(options("good", "TCP") + bad + options("never", "TCP"))
            got = await reader.read()
            assert [part[:11] for part in got.split(b"\r\n\r\n") if part] == [b"SIP/2.0 200", b"SIP/2.0 400"]
            assert b"Call-ID: good" in got and b"Call-ID: bad" in got and b"never" not in got
            writer.close()

    run(main)


@pytest.mark.checklist("M8")
def test_one_source_has_a_share_of_the_connections(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with Host("tcp:127.0.0.1:0", tcp_limits=TcpLimits(per_source=3)) as here:
            held = [await connect(here.port) for _ in range(3)]
            reader, writer = await connect(here.port)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            assert flows_of(here).ended["crowded"] == 1 and flows_of(here).sources["127.0.0.1"] == 3
            writer.close()
            with socket.socket() as elsewhere:  # another address is not punished for it
                elsewhere.setblocking(False)
                elsewhere.bind(("127.0.0.2", 0))
                loop = asyncio.get_running_loop()
                await loop.sock_connect(elsewhere, ("127.0.0.1", here.port))
                await loop.sock_sendall(elsewhere, options("x", "TCP"))
                assert (await loop.sock_recv(elsewhere, 100)).startswith(b"SIP/2.0 200")
            held[0][1].close()
            await until(lambda: flows_of(here).sources["127.0.0.1"] == 2)
            reader, writer = await connect(here.port)
            writer.write(options("y", "TCP"))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"SIP/2.0 200")
            for _, open_writer in held:
                open_writer.close()
            writer.close()
            await until(lambda: not flows_of(here).sources)

    run(main)


@pytest.mark.checklist("B10")
def test_a_stalled_peer_fills_its_own_queue_and_blocks_nobody(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        limits = TcpLimits(write=200_000)
        async with silent_peer(4096) as (port, taken), Host("tcp:127.0.0.1:0", tcp_limits=limits) as here:
            tcp = flows_of(here)
            told: list[Flow] = []
            engine = tcp.failed

            def failed(flow: Flow, error: TransportError) -> None:
                told.append(flow)
                engine(flow, error)

            tcp.failed = failed
            flow = here.endpoint.flow_for(here.endpoint.listeners[0], ("127.0.0.1", port))
            for _ in range(400):
                if flow.closed:
                    break
                here.server.call(here.endpoint.out.append, (b"x" * 20_000, flow))
                reader, writer = await connect(here.port)
                writer.write(options("o", "TCP"))
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"SIP/2.0 200")
                writer.close()
            assert flow.closed and told.count(flow) == 1 and tcp.ended["slow"] == 1
            assert len(taken) == 1

    run(main)


def test_a_connection_that_does_not_open_is_given_up_and_told(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        limits = TcpLimits(connect=0.3, write=1000)
        async with Host("tcp:127.0.0.1:0", tcp_limits=limits) as here:
            with socket.socket() as full:  # a backlog that is full answers no SYN
                full.bind(("127.0.0.1", 0))
                full.listen(0)
                port = full.getsockname()[1]
                fillers = [socket.socket() for _ in range(3)]
                for filler in fillers:
                    filler.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        filler.connect(("127.0.0.1", port))
                await asyncio.sleep(0.05)
                flow = here.endpoint.flow_for(here.endpoint.listeners[0], ("127.0.0.1", port))
                here.server.call(here.endpoint.out.append, (b"x", flow))
                await until(lambda: flow.closed, 2)
                assert not flows_of(here).connections
                # What waits for the connection is bounded as well.
                flow = here.endpoint.flow_for(here.endpoint.listeners[0], ("127.0.0.1", port))
                here.server.call(here.endpoint.out.append, (b"x" * 2000, flow))
                assert flow.closed and flows_of(here).ended["slow"] == 1
                for filler in fillers:
                    filler.close()

    run(main)


@pytest.mark.rfc("5626", "4.4.1")
@pytest.mark.checklist("H18")
def test_a_connection_is_pinged_as_soon_as_its_registrar_wants(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        limits = TcpLimits(ping=100, pong=0.2, tick=0.02)
        async with silent_peer() as (port, taken), Host("tcp:127.0.0.1:0", tcp_limits=limits) as here:
            flow = here.endpoint.flow_for(here.endpoint.listeners[0], ("127.0.0.1", port))
            flow.ping_after = 0.1
            here.server.call(here.endpoint.out.append, (b"hello", flow))
            await until(lambda: taken)
            taken[0].setblocking(False)
            assert await loop.sock_recv(taken[0], 5) == b"hello"
            assert await asyncio.wait_for(loop.sock_recv(taken[0], 100), 2) == b"\r\n\r\n"
            await until(lambda: flow.closed, 1)  # it was to answer, though it never has

    run(main)


@pytest.mark.rfc("5626", "4.4.1")
def test_quiet_connections_that_we_opened_are_pinged_and_dead_ones_end(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        limits = TcpLimits(ping=0.1, pong=0.2, tick=0.02)
        async with silent_peer() as (port, taken), Host("tcp:127.0.0.1:0", tcp_limits=limits) as here:
            flow = here.endpoint.flow_for(here.endpoint.listeners[0], ("127.0.0.1", port))
            here.server.call(here.endpoint.out.append, (b"hello", flow))
            await until(lambda: taken)
            taken[0].setblocking(False)
            assert await loop.sock_recv(taken[0], 5) == b"hello"
            assert await loop.sock_recv(taken[0], 100) == b"\r\n\r\n"
            await asyncio.sleep(0.4)
            assert not flow.closed, "a peer that never answered a ping is not judged by it"
            await loop.sock_sendall(taken[0], b"\r\n")
            assert await loop.sock_recv(taken[0], 100) == b"\r\n\r\n"
            assert not flow.closed
            await until(lambda: flow.closed, 1)  # one that has, is

    run(main)
