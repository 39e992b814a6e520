"""An endpoint on real loopback sockets, under asyncio and uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sipengine.asyncio.resolver import Resolver
from sipengine.asyncio.server import SipServer, SocketUnavailable, is_local, local_address, parse_listen
from sipengine.asyncio.tasks import HookSteps
from sipengine.asyncio.tcp import TcpLimits
from sipengine.configuration import Configuration
from sipengine.endpoint import Endpoint
from sipengine.events import RegistrationChanged, RegistrationState
from tests.sipengine.uac.registrar import account

Main = Callable[[], Awaitable[None]]
LOOPS: list[Any] = [asyncio.new_event_loop]
with contextlib.suppress(ImportError):
    import uvloop

    LOOPS.append(uvloop.new_event_loop)


@pytest.fixture(params=LOOPS, ids=lambda factory: factory.__module__.partition(".")[0])
def run(request: pytest.FixtureRequest) -> Callable[[Main], None]:
    def run_main(main: Main) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30):
                await main()

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(bounded())

    return run_main


class Host:
    """A server with what it was told."""

    def __init__(
        self, *listen: str, application: Any = None, admits: bool = True, t1: float = 0.5, **kwargs: Any
    ) -> None:
        self.events: list[RegistrationChanged] = []
        self.endpoint = Endpoint(
            Configuration(t1=t1), application=application or answer_200, admission=lambda flow: admits,
            entropy=os.urandom, local_address=local_address,
        )
        self.server = SipServer(self.endpoint, listen, self._take, **kwargs)

    def _take(self) -> None:
        while self.endpoint.events:
            self.events.append(self.endpoint.events.popleft())  # type: ignore[arg-type]

    async def __aenter__(self) -> Host:
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop(0)

    @property
    def port(self) -> int:
        return self.endpoint.listeners[0].port

    def change(self, **changes: object) -> None:
        self.server.call(self.endpoint.registrations.change, account(**changes), self.server.now())  # type: ignore[arg-type]

    async def until(self, state: RegistrationState) -> RegistrationChanged:
        while not self.events or self.events[-1].state is not state:
            await asyncio.sleep(0.005)
        return self.events[-1]


def answer_200(context: Any) -> None:
    context.sl_send_reply(200, "OK")
    context.routed(None)


def options(call_id: str = "1", transport: str = "UDP") -> bytes:
    return (
        f"OPTIONS sip:x@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/{transport} 127.0.0.1:9;branch=z9hG4bK{call_id};rport\r\n"
        f"From: <sip:a@b>;tag=1\r\nTo: <sip:x@127.0.0.1>\r\nCall-ID: {call_id}\r\nCSeq: 1 OPTIONS\r\n"
        "Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    ).encode()


async def ask(family: int, to: tuple[str, int]) -> bytes:
    """Ask over a connected socket: the kernel passes only answers from the very address that was asked."""
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(to)
        sock.send(options(os.urandom(4).hex()))
        async with asyncio.timeout(2):
            return await loop.sock_recv(sock, 65535)


# UDP
@pytest.mark.checklist("B1")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_udp_answers(run: Callable[[Main], None], host: str) -> None:
    async def main() -> None:
        name = f"[{host}]" if ":" in host else host
        async with Host(f"udp:{name}:0") as here:
            reply = await ask(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, here.port))
            assert reply.startswith(b"SIP/2.0 200")

    run(main)


@pytest.mark.checklist("B19")
@pytest.mark.rfc("3581", "4")
def test_wildcard_answers_from_the_address_that_was_asked(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with Host("udp:0.0.0.0:0", "udp:[::]:0") as here:
            for host in ("127.0.0.1", "127.0.0.2", "127.0.0.77", "127.0.0.2"):
                assert (await ask(socket.AF_INET, (host, here.port))).startswith(b"SIP/2.0 200")
            v6 = here.endpoint.listeners[1].port
            assert (await ask(socket.AF_INET6, ("::1", v6))).startswith(b"SIP/2.0 200")
            made = {listener.host for listener in here.endpoint.listeners}
            assert made == {"0.0.0.0", "::", "127.0.0.1", "127.0.0.2", "127.0.0.77", "::1"}

    run(main)


def test_many_local_addresses_do_not_pile_up(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with Host("udp:0.0.0.0:0") as here:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for number in range(1, 200):
                    sock.sendto(options(str(number)), (f"127.0.1.{number}", here.port))
            await asyncio.sleep(0.2)
            assert len(here.endpoint.listeners) <= 65 and here.endpoint.counters.received == 199

    run(main)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_taken_port_names_cause_and_cure(run: Callable[[Main], None], transport: str) -> None:
    async def main() -> None:
        async with Host(f"{transport}:127.0.0.1:0") as here:
            free = Host("udp:127.0.0.1:0", f"{transport}:127.0.0.1:{here.port}")
            with pytest.raises(SocketUnavailable) as caught:
                await free.server.start()
            assert isinstance(caught.value, OSError)
            assert caught.value.strerror == (
                f"{transport}:127.0.0.1:{here.port} is taken by another program. "
                "Stop it, or set TRUNKMGR_SIP_LISTEN to another port."
            )
            again = free.endpoint.listeners[0].port
            async with Host(f"udp:127.0.0.1:{again}"):
                pass  # nothing of the failed start stayed open

    run(main)


def test_a_strange_address_names_cause_and_cure(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        with pytest.raises(SocketUnavailable, match=r"192\.0\.2\.1 is no address of this machine"):
            await Host("udp:192.0.2.1:5060").server.start()

    run(main)


@pytest.mark.parametrize("spec", ["udp:localhost:5060", "udp:127.0.0.1", "ftp:127.0.0.1:61", "udp:127.0.0.1:99999", ""])
def test_bad_listen_values(spec: str) -> None:
    with pytest.raises(ValueError, match="is no socket to listen on"):
        parse_listen(spec)


def test_good_listen_values() -> None:
    assert parse_listen("UDP:127.0.0.1:5060") == ("udp", "127.0.0.1", 5060)
    assert parse_listen(" tcp:[0:0::1]:5061 ") == ("tcp", "::1", 5061)


def test_local_addresses() -> None:
    assert local_address("udp", "127.0.0.9") == "127.0.0.1"
    assert local_address("udp", "::1") == "::1"
    assert is_local("127.3.2.1") and not is_local("192.0.2.1")


# TCP
async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.rfc("3261", "18.3")
def test_tcp_in_any_pieces(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with Host("tcp:127.0.0.1:0") as here:
            reader, writer = await connect(here.port)
            whole = options("a", "TCP") + options("b", "TCP")
            for at in range(0, len(whole), 7):
                writer.write(whole[at : at + 7])
                await writer.drain()
            got = b""
            while got.count(b"SIP/2.0 200") < 2:
                got += await reader.read(4096)
            assert b"Call-ID: a" in got and b"Call-ID: b" in got
            flows = here.server._tcp
            assert flows is not None and flows.accepted == 1
            writer.close()
            while flows.connections:
                await asyncio.sleep(0.01)
            assert flows.accepted == 0

    run(main)


@pytest.mark.rfc("5626", "4.4.1")
def test_crlf_keep_alive_is_answered(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with Host("tcp:127.0.0.1:0") as here:
            reader, writer = await connect(here.port)
            writer.write(b"\r\n\r\n")
            assert await reader.read(10) == b"\r\n"
            writer.close()

    run(main)


def test_lost_framing_ends_the_connection(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with Host("tcp:127.0.0.1:0") as here:
            reader, writer = await connect(here.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await reader.read() == b""
            writer.close()

    run(main)


def test_a_source_that_is_not_admitted_is_cut_off(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with Host("tcp:127.0.0.1:0", admits=False) as here:
            reader, writer = await connect(here.port)
            with contextlib.suppress(ConnectionError):
                writer.write(options("a", "TCP"))
                assert await reader.read() == b""
            assert here.endpoint.counters.denied == 1
            writer.close()

    run(main)


def test_idle_connections_end(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with Host("tcp:127.0.0.1:0", tcp_limits=TcpLimits(idle=0.1)) as here:
            reader, writer = await connect(here.port)
            async with asyncio.timeout(2):
                assert await reader.read() == b""
            writer.close()

    run(main)


# registering
class Registrar(asyncio.DatagramProtocol):
    """Grants everything; may ignore the first requests."""

    def __init__(self, ignore: int = 0) -> None:
        self.got: list[bytes] = []
        self.ignore = ignore

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.got.append(data)
        if len(self.got) > self.ignore:
            self.transport.sendto(granted(data), addr)  # type: ignore[attr-defined]


def granted(request: bytes) -> bytes:
    lines = request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    kept = [x for x in lines if x.startswith((b"Via", b"From", b"To", b"Call-ID", b"CSeq", b"Contact", b"Expires"))]
    return b"\r\n".join([b"SIP/2.0 200 OK", *kept, b"Content-Length: 0", b"", b""])


async def registrar(ignore: int = 0) -> tuple[Registrar, int, asyncio.BaseTransport]:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Registrar(ignore), local_addr=("127.0.0.1", 0)
    )
    return protocol, transport.get_extra_info("sockname")[1], transport


@pytest.mark.rfc("3261", "17.1.2.2")
def test_register_over_udp_with_one_lost(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        there, port, transport = await registrar(ignore=1)
        async with Host("udp:127.0.0.1:0", t1=0.1) as here:
            here.change(auth_proxy=f"sip:127.0.0.1:{port}")
            event = await here.until(RegistrationState.REGISTERED)
            assert len(there.got) == 2 and there.got[0] == there.got[1]
            assert 0.09 < (event.round_trip or 0) < 0.2
            assert f"Contact: <sip:acc000001@127.0.0.1:{here.port}>".encode() in there.got[0]
        transport.close()

    run(main)


def test_a_plan_is_served_in_time(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        there, port, transport = await registrar()
        async with Host("udp:127.0.0.1:0") as here:
            here.change(auth_proxy=f"sip:127.0.0.1:{port}")
            generation = (await here.until(RegistrationState.REGISTERED)).generation
            planned = here.server.now() + 0.1
            here.server.call(
                here.endpoint.registrations.plan, "acc000001", generation, planned, here.server.now()
            )
            while len(there.got) < 2:
                await asyncio.sleep(0.001)
            assert 0 <= here.server.now() - planned < 0.05
        transport.close()

    run(main)


def test_register_by_name_from_a_wildcard_socket(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        there, port, transport = await registrar()
        resolver = Resolver({"sip.provider.example": ["127.0.0.1"], "later.example": []})
        async with Host("udp:0.0.0.0:0", resolver=resolver) as here:
            here.change(auth_proxy=f"sip:sip.provider.example:{port}")
            await here.until(RegistrationState.REGISTERED)
            assert f"Contact: <sip:acc000001@127.0.0.1:{here.port}>".encode() in there.got[0]
            # A row may name one address that the wildcard socket covers, and none that is not ours.
            here.events.clear()
            here.change(auth_proxy=f"sip:127.0.0.1:{port}", socket=f"udp:127.0.0.44:{here.port}")
            await here.until(RegistrationState.REGISTERED)
            assert f"Contact: <sip:acc000001@127.0.0.44:{here.port}>".encode() in there.got[-1]
            here.change(auth_proxy=f"sip:127.0.0.1:{port}", socket=f"udp:192.0.2.4:{here.port}")
            assert (await here.until(RegistrationState.FAILING)).cause == "no_socket"
        transport.close()

    run(main)


@pytest.mark.checklist("B10")
def test_register_over_tcp_keeps_its_connection(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        accepted: list[asyncio.StreamWriter] = []
        got: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.append(writer)
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    got.append(await reader.readuntil(b"\r\n\r\n"))
                    writer.write(granted(got[-1]))

        there = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = there.sockets[0].getsockname()[1]
        async with Host("tcp:127.0.0.1:0") as here:
            here.change(auth_proxy=f"sip:127.0.0.1:{port};transport=tcp")
            await here.until(RegistrationState.REGISTERED)
            here.events.clear()
            here.server.call(here.endpoint.registrations.register, "acc000001", here.server.now())
            await here.until(RegistrationState.REGISTERED)
            assert len(accepted) == 1 and len(got) == 2
            assert f"@127.0.0.1:{here.port};transport=tcp>".encode() in got[0]
            # The peer ends it: the account registers over another, without being asked.
            here.events.clear()
            accepted[0].close()
            while not any(event.final for event in here.events):
                await asyncio.sleep(0.01)
            assert len(accepted) == 2 and here.events[-1].state is RegistrationState.REGISTERED
        there.close()

    run(main)


@pytest.mark.checklist("B12")
def test_a_refused_connection_is_told(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        async with Host("tcp:127.0.0.1:0") as here:
            here.change(auth_proxy=f"sip:127.0.0.1:{port};transport=tcp")
            event = await here.until(RegistrationState.FAILING)
            assert event.cause == "unreachable" and event.next_attempt_at is not None
            assert event.reason.startswith(f"No TCP connection to 127.0.0.1 port {port}: ")

    run(main)


def test_a_thousand_accounts_in_real_time(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        there, port, transport = await registrar()
        async with Host("udp:127.0.0.1:0") as here:
            begin = here.server.now()
            load = here.endpoint.registrations.load
            for number in range(1000):
                here.server.call(load, account(number, auth_proxy=f"sip:127.0.0.1:{port}"), None, here.server.now())
            while sum(event.state is RegistrationState.REGISTERED for event in here.events) < 1000:
                await asyncio.sleep(0.05)
            assert here.server.now() - begin < 5
            assert len(there.got) == 1000  # no retransmission
        transport.close()

    run(main)


# life
def test_stop_lets_what_is_being_answered_end(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        steps = HookSteps()

        def slow(context: Any) -> None:
            async def hook() -> None:
                await asyncio.sleep(0.2)
                context.sl_send_reply(200, "OK")

            context.step = steps.step
            steps.step(hook(), context.routed)

        here = Host("udp:127.0.0.1:0", application=slow)
        await here.server.start()
        asking = asyncio.create_task(ask(socket.AF_INET, ("127.0.0.1", here.port)))
        await asyncio.sleep(0.05)
        begin = here.server.now()
        await here.server.stop(5)
        assert 0.1 < here.server.now() - begin < 1
        assert (await asking).startswith(b"SIP/2.0 200")
        await here.server.stop(5)
        async with Host(f"udp:127.0.0.1:{here.port}"):
            pass

    run(main)


def test_call_returns_what_the_verb_gives(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with Host("udp:127.0.0.1:0") as here:
            assert here.server.call(here.endpoint.registrations.register, "nobody", here.server.now()) is False

    run(main)
