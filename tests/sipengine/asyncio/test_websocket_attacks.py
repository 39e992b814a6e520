"""WebSocket clients that mean no good: slow ones, those that break frames, those that do not read, and many at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import struct
from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import InvalidMessage

from sipengine.asyncio.tcp import TcpLimits
from sipengine.asyncio.websocket import WsConnection
from tests.sipengine.asyncio.test_server import Main, run
from tests.sipengine.asyncio.test_tcp import flows_of, until
from tests.sipengine.asyncio.test_websocket import (
    BINARY,
    CLOSE,
    PING,
    client,
    ended,
    frame,
    hello,
    host,
    message,
    raw,
)

__all__ = ["run"]


class Pipe:
    """Stands for the transport of a connection: keeps what is written."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.out = b""
        self.closing = False

    def get_extra_info(self, name: str) -> Any:
        return {"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", self.number), "socket": self}[name]

    def setsockopt(self, *option: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.out += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close


@pytest.mark.checklist("B20")
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(b"SIP/2.0").replace(b"\x87", b"\x07", 1), 1002),  # not masked
        (frame(b"x", 3), 1002),
        (b"\xc1" + frame(b"x")[1:], 1002),  # a reserved bit: compressed, they would say
        (frame(b"x", 0), 1002),  # goes on where nothing began
        (frame(b"a", fin=False) + frame(b"b"), 1002),
        (frame(b"p", PING, fin=False), 1002),
        (b"\x81\xff" + struct.pack("!Q", 1 << 40) + bytes(4), 1009),
        (b"\x82\xff" + struct.pack("!Q", 65537) + bytes(4), 1009),
        ((frame(b"x" * 40000, fin=False) + frame(b"x" * 40000, 0)), 1009),
        (frame(b"OPTIONS \xff\xfe"), 1007),
    ],
)
def test_broken_frames_end_the_connection_with_a_code(run: Callable[[Main], None], sent: bytes, code: int) -> None:
    async def main() -> None:
        async with host() as here, client(here) as other:
            reader, writer = await raw(here)
            writer.write(sent + frame(message("smuggled")))
            got = await ended(reader)
            assert got[:1] == b"\x88" and struct.unpack("!H", got[2:4]) == (code,) and b"smuggled" not in got
            await until(lambda: flows_of(here).accepted == 1 and flows_of(here).ended == {"frames": 1})
            assert here.endpoint.counters.received == 0
            await other.send(message().decode())
            assert "200 OK" in str(await other.recv())
            writer.close()

    run(main)


@pytest.mark.checklist("B20")
@pytest.mark.parametrize("begun", [b"", hello()[:-2], b"GET / HTTP/1.1\r\nX: "])
def test_who_dallies_with_the_handshake_is_cut(run: Callable[[Main], None], begun: bytes) -> None:
    async def main() -> None:
        async with host(tcp_limits=TcpLimits(handshake=0.3, tick=0.05)) as here, client(here) as other:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(begun)
            closed = asyncio.ensure_future(ended(reader))
            while not closed.done():
                writer.write(b"x" if begun else b"")
                await asyncio.sleep(0.02)
            assert closed.result() == b"" and flows_of(here).ended["slow"] == 1
            await other.send(message().decode())  # that one has had its handshake, and time
            assert "200 OK" in str(await other.recv())
            writer.close()

    run(main)


@pytest.mark.checklist("B20")
@pytest.mark.parametrize("slowly", ["header", "payload", "fragments"])
def test_a_half_sent_message_is_cut_and_others_go_on(run: Callable[[Main], None], slowly: str) -> None:
    async def main() -> None:
        async with host(tcp_limits=TcpLimits(message=0.4, tick=0.05)) as here, client(here) as other:
            reader, writer = await raw(here)
            writer.write(frame(message("first")))  # it buys no time for the second
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            begun = {"header": b"\x81", "payload": b"\x81\xfe\xff\xff", "fragments": frame(b"O", fin=False)}
            writer.write(begun[slowly])
            closed = asyncio.ensure_future(ended(reader))
            number = 0
            while not closed.done():
                number += 1
                if slowly != "header":
                    writer.write(frame(b"x", 0, fin=False) + frame(b"", PING) if slowly == "fragments" else b"x")
                await other.send(message(f"o{number}").decode())
                assert "200 OK" in str(await other.recv())
                await asyncio.sleep(0.02)
            assert flows_of(here).ended["slow"] == 1 and 5 < number < 60
            writer.close()

    run(main)


def test_an_accepted_connection_owes_a_first_message(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with host(tcp_limits=TcpLimits(message=0.2, tick=0.05)) as here:
            reader, writer = await raw(here)
            assert await ended(reader) == b"" and flows_of(here).ended["slow"] == 1
            writer.close()

    run(main)


def test_who_does_not_read_is_cut(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with host(tcp_limits=TcpLimits(write=20000)) as here:
            _, writer = await raw(here)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            with contextlib.suppress(ConnectionError):
                for number in range(200_000):
                    if flows_of(here).ended["slow"]:
                        break
                    writer.write(frame(message(str(number))))
                    await writer.drain()
            await until(lambda: flows_of(here).ended["slow"] == 1 and flows_of(here).accepted == 0)
            writer.close()

    run(main)


def test_one_source_has_a_share_of_the_connections(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with host(tcp_limits=TcpLimits(per_source=2)) as here, client(here), client(here):
            with pytest.raises((OSError, InvalidMessage)):
                async with client(here):
                    pass
            assert flows_of(here).ended["crowded"] == 1

    run(main)


def _session(chance: random.Random) -> bytes:
    """A handshake and some frames, good and bad; every second time some bytes of it are others."""
    whole = message(str(chance.random()))
    kinds = (
        frame(whole), frame(whole, BINARY), frame(whole[:50], fin=False) + frame(whole[50:], 0), frame(b"hi", PING),
        frame(b"\x03\xe8", CLOSE), chance.randbytes(20), frame(b"x" * 90, chance.randrange(16), chance.random() < 0.5),
    )
    sent = bytearray(hello() + b"".join(chance.choices(kinds, k=chance.randrange(1, 6))))
    if chance.random() < 0.5:
        for _ in range(3):
            sent[chance.randrange(len(sent))] = chance.randrange(256)
    return bytes(sent)


def test_whatever_comes_in_whatever_pieces_nothing_is_raised_and_nothing_left(run: Callable[[Main], None]) -> None:
    chance = random.Random(7118)

    async def main() -> None:
        async with host() as here:
            flows, answered = flows_of(here), 0
            for number in range(1500):
                connection = WsConnection(flows, listener_at=lambda local: here.endpoint.listeners[0])
                pipe = Pipe(number)
                connection.connection_made(pipe)  # type: ignore[arg-type]
                sent = _session(chance)
                while sent and not pipe.closing:
                    size = chance.choice((1, 2, 7, 60, 1000))
                    connection.data_received(sent[:size])
                    sent = sent[size:]
                answered += b"SIP/2.0 200" in pipe.out
                connection.look(asyncio.get_running_loop().time() + chance.choice((0.0, 50.0, 200.0)))
                connection.close()
                connection.connection_lost(None)
            assert not flows.connections and not flows.waiting and not flows.accepted
            assert answered > 150 and flows.ended["frames"] > 100 and flows.ended["handshake"] > 100

    run(main)


@pytest.mark.parametrize("last", [
    hello() + frame(b"x", 3), hello() + frame(b"\x03\xe8", CLOSE), hello(without="Sec-WebSocket-Protocol"),
])
def test_who_does_not_read_our_goodbye_is_cut(run: Callable[[Main], None], last: bytes) -> None:
    async def main() -> None:
        async with host() as here:
            flows = flows_of(here)
            connection = WsConnection(flows, listener_at=lambda local: here.endpoint.listeners[0])
            pipe = Pipe(1)  # it closes, and never says that it has closed
            connection.connection_made(pipe)  # type: ignore[arg-type]
            connection.data_received(last)
            now = asyncio.get_running_loop().time()
            connection.look(now + 1)
            assert pipe.closing and flows.accepted == 1
            connection.look(now + flows.limits.handshake + 1)
            assert flows.accepted == 0 and flows.ended["slow"] == 1

    run(main)


def test_refused_handshakes_do_not_fill_the_log(run: Callable[[Main], None], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sipengine")

    async def main() -> None:
        async with host() as here:
            for _ in range(20):
                reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
                writer.write(hello().replace(b"Upgrade: websocket", b"Upgrade: \x9b2Jsocket"))
                assert (await ended(reader)).startswith(b"HTTP/1.1 400")
                writer.close()
            assert flows_of(here).ended == {"handshake": 20}

    run(main)
    assert 1 <= caplog.text.count("No WebSocket") < 5 and "\x9b" not in caplog.text
