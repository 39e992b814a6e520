"""SIP over WebSocket on real loopback sockets: the handshake, frames, and connections that stand (RFC 7118)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sipengine.asyncio.server import SocketUnavailable
from sipengine.asyncio.tcp import TcpLimits
from sipengine.asyncio.tls import TlsFiles
from tests.certificates import Authority
from tests.sipengine.asyncio.test_server import Host, Main, options, run
from tests.sipengine.asyncio.test_tcp import flows_of, until
from tests.sipengine.asyncio.test_tls import trusting

__all__ = ["run"]

TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9


def host(**more: Any) -> Host:
    return Host("ws:127.0.0.1:0", **more)


def client(here: Host, **more: Any) -> connect:
    """A client of RFC 7118; a test leaves out or adds what it is about."""
    return connect(
        f"ws://127.0.0.1:{here.port}/", **{"subprotocols": ["sip"], "compression": None, "proxy": None, **more}
    )


def message(call_id: str = "1", transport: str = "WS", body: bytes = b"", length: bool = True) -> bytes:
    made = options(call_id, transport).replace(b"127.0.0.1:9", b"df7jal23ls0d.invalid")
    said = b"Content-Length: %d\r\n" % len(body) if length else b""
    return made.replace(b"Content-Length: 0\r\n", said) + body


def frame(data: bytes, opcode: int = TEXT, fin: bool = True) -> bytes:
    """A frame as clients send it, masked by zeros."""
    size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack("!H", len(data))
    return bytes([(0x80 if fin else 0) | opcode]) + size + bytes(4) + data


def hello(*lines: str, without: str = "") -> bytes:
    key = base64.b64encode(bytes(16)).decode()
    head = [
        "GET / HTTP/1.1", "Host: pbx.example", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: sip", *lines,
    ]
    return "\r\n".join([*(line for line in head if not without or not line.startswith(without)), "", ""]).encode()


async def raw(here: Host) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection after its handshake, for frames that no library would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    writer.write(hello())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    return reader, writer


async def ended(reader: asyncio.StreamReader, within: float = 3.0) -> bytes:
    """What still comes until the connection ends."""
    async with asyncio.timeout(within):
        got = b""
        with contextlib.suppress(ConnectionError):
            while more := await reader.read(65536):
                got += more
        return got


# one message a frame
@pytest.mark.checklist("B20")
@pytest.mark.rfc("7118", "5")
@pytest.mark.parametrize("kind", [str, bytes])
def test_each_frame_is_one_message_and_content_length_may_be_left_out(
    run: Callable[[Main], None], kind: type
) -> None:
    async def main() -> None:
        async with host() as here, client(here) as ws:
            assert ws.subprotocol == "sip"
            sent = {"1": message("1"), "2": message("2", length=False), "3": message("3", body=b"x")}
            for call_id, made in sent.items():
                await ws.send(made.decode() if kind is str else made)
                answer = await ws.recv()
                assert isinstance(answer, str) and answer.startswith("SIP/2.0 200")
                assert f"Call-ID: {call_id}\r" in answer
                assert "SIP/2.0/WS df7jal23ls0d.invalid;" in answer and "received=127.0.0.1" in answer

    run(main)


@pytest.mark.rfc("7118", "4.2")
def test_what_is_no_utf8_goes_out_as_binary(run: Callable[[Main], None]) -> None:
    def echo(context: Any) -> None:
        context.sl_send_reply(200, "OK", [b"X-Said: " + context.request.get(b"X-Said")])
        context.routed(None)

    async def main() -> None:
        async with host(application=echo) as here, client(here) as ws:
            for said, answer_is in ((b"plain", str), ("grüß".encode(), str), (b"\xff\xfe", bytes)):
                await ws.send(message(said.hex()).replace(b"Max-", b"X-Said: " + said + b"\r\nMax-"))
                assert isinstance(await ws.recv(), answer_is)

    run(main)


@pytest.mark.rfc("7118", "6")
@pytest.mark.rfc("5626", "3.5.1")
def test_keep_alives_of_both_kinds(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with host() as here, client(here) as ws:
            await ws.send("\r\n\r\n")
            assert await ws.recv() == "\r\n"
            await ws.send("\r\n")  # a pong, or nothing
            await ws.send("")
            async with asyncio.timeout(2):
                await (await ws.ping(b"there?"))
            await ws.send(message().decode())
            assert "200 OK" in str(await ws.recv())

    run(main)


def test_a_message_in_fragments_with_a_ping_between_them(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with host() as here:
            reader, writer = await raw(here)
            whole = message()
            writer.write(frame(whole[:40], fin=False) + frame(b"now", PING) + frame(whole[40:90], 0, fin=False))
            assert await reader.readexactly(5) == b"\x8a\x03now"
            for byte in frame(whole[90:], 0):
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            assert b"SIP/2.0 200" in await reader.readuntil(b"\r\n\r\n")
            writer.close()

    run(main)


def test_a_broken_message_gets_400_and_the_connection_goes_on(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with host() as here, client(here) as ws:
            await ws.send(message("bad").replace(b"CSeq: 1 OPTIONS", b"CSeq: x OPTIONS").decode())
            assert str(await ws.recv()).startswith("SIP/2.0 400")
            await ws.send(message("short").replace(b"Content-Length: 0", b"Content-Length: 9").decode())
            assert str(await ws.recv()).startswith("SIP/2.0 400")
            await ws.send("no SIP at all\r\n\r\n")
            await ws.send(message("good").decode())
            assert str(await ws.recv()).startswith("SIP/2.0 200")

    run(main)


# the handshake
@pytest.mark.checklist("B20")
@pytest.mark.rfc("7118", "4.1")
@pytest.mark.parametrize(
    ("asked", "status", "reason"),
    [
        (hello(without="Sec-WebSocket-Protocol"), 400, b"missing subprotocol"),
        (hello("Sec-WebSocket-Protocol: xmpp", without="Sec-WebSocket-Protocol: sip"), 400, b"sip"),
        (b"GET / HTTP/1.1\r\nHost: pbx.example\r\n\r\n", 426, b"WebSocket"),
        (hello().replace(b"GET", b"PUT"), 405, b"PUT"),
        (hello(without="Sec-WebSocket-Key"), 400, b"Sec-WebSocket-Key"),
        (hello("Content-Length: 5"), 400, b"WebSocket"),
        (options("1", "WS"), 400, b"RFC 7118"),
        (hello("Cookie: " + "c" * 17000), 0, b""),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400, b"RFC 7118"),
    ],
)
def test_a_handshake_that_will_not_do_is_told_why(
    run: Callable[[Main], None], asked: bytes, status: int, reason: bytes
) -> None:
    async def main() -> None:
        async with host() as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(asked)
            got = await ended(reader)
            assert got.startswith(b"HTTP/1.1 4" if not status else b"HTTP/1.1 %d " % status) and reason in got
            assert flows_of(here).ended["handshake"] == 1
            await until(lambda: flows_of(here).accepted == 0)
            writer.close()

    run(main)


@pytest.mark.checklist("B20")
def test_pages_connect_only_from_origins_that_are_allowed(run: Callable[[Main], None]) -> None:
    async def status(here: Host, origin: str | None) -> int:
        try:
            async with client(here, origin=origin):
                return 101
        except InvalidStatus as refused:
            return refused.response.status_code

    async def main() -> None:
        async with host(ws_origins=["https://phone.example"]) as here:
            assert await status(here, "https://phone.example") == 101
            assert await status(here, "https://evil.example") == await status(here, "null") == 403
            assert await status(here, None) == 101  # no browser: no page can have made it connect
            assert flows_of(here).ended == {"origin": 2}
        async with host() as here:
            assert (await status(here, "https://phone.example"), await status(here, None)) == (403, 101)
        async with host(ws_origins=["*"]) as here:
            assert await status(here, "https://evil.example") == 101

    run(main)


def test_no_frame_is_ever_in_the_log(run: Callable[[Main], None], caplog: pytest.LogCaptureFixture) -> None:
    for name in ("", "sipengine", "sipengine.websocket", "websockets.server"):
        caplog.set_level(logging.DEBUG, name or None)

    async def main() -> None:
        async with host() as here, client(here, logger=logging.Logger("client")) as ws:
            await ws.send(message("secret-call").decode())
            assert "200 OK" in str(await ws.recv())

    run(main)
    assert "secret-call" not in caplog.text and "connection" not in caplog.text


def test_nothing_is_compressed(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with host() as here, client(here, compression="deflate") as ws:
            assert "Sec-WebSocket-Extensions" not in ws.response.headers

    run(main)


def test_frames_before_the_answer_to_the_handshake_are_taken_after_it(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with host() as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(hello() + frame(b"x", PING) + frame(message()) + frame(b"\x03\xe8", CLOSE))
            got = await ended(reader)
            assert got.startswith(b"HTTP/1.1 101") and b"\x8a\x01x" in got and got.endswith(b"\x88\x02\x03\xe8")
            assert here.endpoint.counters.received == 1  # a page that is left says goodbye and closes in one breath
            writer.close()

    run(main)


def test_strangers_get_no_handshake(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with host(admits=False) as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(hello())
            assert await ended(reader) == b"" and here.endpoint.counters.denied == 1
            writer.close()

    run(main)


# connections that stand
@pytest.mark.rfc("7118", "6")
def test_a_quiet_peer_is_pinged_and_one_that_does_not_answer_is_cut(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        limits = TcpLimits(ping=0.2, pong=0.3, tick=0.05)
        async with host(tcp_limits=limits) as here, client(here) as lively:
            await lively.send(message().decode())
            await lively.recv()
            reader, writer = await raw(here)
            writer.write(frame(message()))
            got = await ended(reader)
            assert got.endswith(b"\x89\x00") and flows_of(here).ended["slow"] == 1
            await lively.send(message("2").decode())  # the library answered
            assert "200 OK" in str(await lively.recv())
            writer.close()

    run(main)


def test_our_stop_says_goodbye(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with host() as here:
            ws = await client(here)
            await ws.send(message().decode())
            await ws.recv()
        with pytest.raises(ConnectionClosed) as closed:
            await ws.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001

    run(main)


@pytest.mark.checklist("B20")
def test_over_tls(run: Callable[[Main], None], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours = authority.issue("ours", dns=("pbx.example",))

    async def main() -> None:
        async with Host("wss:127.0.0.1:0", tls=TlsFiles(ours.certificate, ours.key)) as here:
            ws: ClientConnection
            async with connect(
                f"wss://pbx.example:{here.port}/", host="127.0.0.1", ssl=trusting(authority, hostname=True),
                subprotocols=["sip"], proxy=None,  # type: ignore[list-item]
            ) as ws:
                await ws.send(message(transport="WSS").decode())
                assert "SIP/2.0/WSS df7jal23ls0d.invalid;" in str(await ws.recv())

    run(main)


@pytest.mark.checklist("B1")
def test_over_ipv6(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with Host("ws:[::1]:0") as here, connect(
            f"ws://[::1]:{here.port}/", subprotocols=["sip"], proxy=None,  # type: ignore[list-item]
        ) as ws:
            await ws.send(message().decode())
            assert "received=::1" in str(await ws.recv())

    run(main)


def test_without_a_certificate_there_is_no_wss(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        with pytest.raises(SocketUnavailable, match=r"wss:127.0.0.1:0 .* TRUNKMGR_TLS_CERTIFICATE"):
            async with Host("wss:127.0.0.1:0"):
                pass

    run(main)


def test_we_connect_to_nobody(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with host() as here:
            told: list[str] = []
            flow = here.endpoint.flow_for(here.endpoint.listeners[0], ("127.0.0.1", 9))
            here.endpoint.flow_failed = lambda flow, error, now: told.append(str(error))  # type: ignore[method-assign]
            here.endpoint.out.append((options("1", "WS"), flow))
            here.server.flush()
            assert told == ["ws:127.0.0.1:9 is not connected, and by WebSocket only it can do that."]

    run(main)
