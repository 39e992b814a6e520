"""TLS on real loopback sockets: who is let in, who is believed, and what changes while connections stand."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from sipengine.asyncio.resolver import Resolver
from sipengine.asyncio.server import SocketUnavailable
from sipengine.asyncio.tcp import TcpLimits
from sipengine.asyncio.tls import Tls, TlsFiles, TlsUnusable, identities
from sipengine.events import RegistrationState
from sipengine.transport.peers import PeerBook, TlsPolicy
from tests.certificates import Authority, Issued
from tests.sipengine.asyncio.test_server import Host, Main, options, run
from tests.sipengine.asyncio.test_tcp import flows_of, until

__all__ = ["run"]

DOMAIN = "sip.provider.example"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Issued:
    return authority.issue("ours", dns=("pbx.example",))


def trusting(authority: Authority, *, hostname: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.path))
    context.check_hostname = hostname
    return context


async def connect(port: int, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="pbx.example")


class Pinned(PeerBook):
    """Expects one policy of everybody."""

    def __init__(self, policy: TlsPolicy) -> None:
        self.policy = policy

    def tls(self, names: tuple[str, ...], host: str) -> TlsPolicy:
        return self.policy


class Registrar:
    """Answers each request over TLS with 200, and says what it was sent."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.names: list[str | None] = []
        self.shown: list[object] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.shown.append(writer.get_extra_info("peercert"))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.got.append(head)
                lines = head.split(b"\r\n")
                kept = [line for line in lines if line.startswith((b"Via", b"From", b"Call-ID", b"CSeq", b"Contact"))]
                to = next(line for line in lines if line.startswith(b"To:")) + b";tag=r"
                writer.write(b"\r\n".join([b"SIP/2.0 200 OK", *kept, to, b"Content-Length: 0", b"", b""]))

    def named(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        self.names.append(name)


@contextlib.asynccontextmanager
async def registrar(issued: Issued, clients: Authority | None = None) -> AsyncIterator[Registrar]:
    here = Registrar()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    context.sni_callback = here.named  # type: ignore[assignment]
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients.path)
    server = await asyncio.start_server(here.serve, "127.0.0.1", 0, ssl=context)
    here.port = server.sockets[0].getsockname()[1]
    yield here
    server.close()


def host(files: TlsFiles, policy: TlsPolicy | None = None) -> Host:
    found = Host("tls:127.0.0.1:0", tls=files, resolver=Resolver({DOMAIN: ("127.0.0.1",)}))
    if policy is not None:
        found.endpoint.transactions.peers = Pinned(policy)
    return found


# whom a certificate is for
@pytest.mark.checklist("B13")
@pytest.mark.rfc("5922", "7.1")
@pytest.mark.parametrize(
    ("uri", "dns", "name", "meant"),
    [
        (("sip:example.com",), (), None, ["example.com"]),
        (("SIP:Example.COM",), (), None, ["example.com"]),
        (("sip:other.org",), ("example.com",), None, ["other.org"]),
        ((), ("sip.example.com", "EXAMPLE.com"), None, ["sip.example.com", "example.com"]),
        (("im:example.com",), ("example.com",), "other.org", ["example.com"]),
        (("sip:alice@example.com",), (), "example.com", []),
        (("sips:example.com",), (), "example.com", []),
        ((), (), "Example.com", ["example.com"]),
        ((), (), None, []),
    ],
)
def test_names_of_a_certificate(uri: tuple[str, ...], dns: tuple[str, ...], name: str | None, meant: list[str]) -> None:
    certificate: dict[str, object] = {"subject": ((("commonName", name),),) if name else ()}
    if uri or dns:
        certificate["subjectAltName"] = tuple(("URI", x) for x in uri) + tuple(("DNS", x) for x in dns)
    assert identities(certificate) == meant


# connections to us
@pytest.mark.checklist("B1")
def test_requests_over_tls_are_answered_on_their_connection(
    run: Callable[[Main], None], authority: Authority, ours: Issued
) -> None:
    async def main() -> None:
        async with host(TlsFiles(ours.certificate, ours.key)) as here:
            reader, writer = await connect(here.port, trusting(authority, hostname=True))
            writer.write(b"\r\n\r\n" + options("1", "TLS") + options("2", "TLS"))
            assert await reader.readexactly(2) == b"\r\n"
            for _ in range(2):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"SIP/2.0 200")
            writer.close()

    run(main)


def test_a_version_below_the_minimum_is_refused(
    run: Callable[[Main], None], authority: Authority, ours: Issued
) -> None:
    async def main() -> None:
        async with host(TlsFiles(ours.certificate, ours.key, minimum="1.3")) as here:
            old = trusting(authority)
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await connect(here.port, old)
            _, writer = await connect(here.port, trusting(authority))
            assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
            writer.close()

    run(main)


def test_who_dallies_with_the_handshake_is_cut_and_others_go_on(
    run: Callable[[Main], None], authority: Authority, ours: Issued
) -> None:
    async def main() -> None:
        limits = TcpLimits(handshake=0.4, per_source=3)
        async with Host("tls:127.0.0.1:0", tls=TlsFiles(ours.certificate, ours.key), tcp_limits=limits) as here:
            silent = [await asyncio.open_connection("127.0.0.1", here.port) for _ in range(2)]
            silent[0][1].write(b"\x16\x03\x01")  # the beginning of a Client Hello
            reader, writer = await connect(here.port, trusting(authority))
            writer.write(options("1", "TLS"))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"SIP/2.0 200")
            one_more = await asyncio.open_connection("127.0.0.1", here.port)
            with contextlib.suppress(ConnectionError):
                assert await one_more[0].read() == b""  # those in their handshake count
            assert flows_of(here).ended["crowded"] == 1
            for dull, _ in silent:
                with contextlib.suppress(ConnectionError):
                    await asyncio.wait_for(dull.read(), 2)
            await until(lambda: flows_of(here).accepted == 1)
            assert flows_of(here).ended["handshake"] == 2
            for _, each in (*silent, one_more, (reader, writer)):
                each.close()

    run(main)


def test_bytes_that_are_no_tls_end_the_connection(run: Callable[[Main], None], ours: Issued) -> None:
    async def main() -> None:
        async with host(TlsFiles(ours.certificate, ours.key)) as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(options("1", "TLS"))
            with contextlib.suppress(ConnectionError):
                assert b"SIP/2.0" not in await reader.read()
            await until(lambda: flows_of(here).accepted == 0)
            writer.close()

    run(main)


def test_strangers_get_no_handshake(run: Callable[[Main], None], authority: Authority, ours: Issued) -> None:
    async def main() -> None:
        async with Host("tls:127.0.0.1:0", tls=TlsFiles(ours.certificate, ours.key), admits=False) as here:
            with pytest.raises((OSError, EOFError)):
                await connect(here.port, trusting(authority))
            assert here.endpoint.counters.denied == 1 and flows_of(here).accepted == 0

    run(main)


@pytest.mark.checklist("B14")
def test_certificates_are_renewed_under_standing_connections(
    run: Callable[[Main], None], authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    first = authority.issue("renewed", dns=("one.example",))

    def names(writer: asyncio.StreamWriter) -> list[str]:
        return identities(writer.get_extra_info("ssl_object").getpeercert())

    async def main() -> None:
        async with host(TlsFiles(first.certificate, first.key)) as here:
            tls = flows_of(here).tls
            assert tls is not None
            reader, writer = await connect(here.port, trusting(authority))
            assert names(writer) == ["one.example"]
            authority.issue("renewed", dns=("two.example",))
            tls.look()
            _, second = await connect(here.port, trusting(authority))
            assert names(second) == ["two.example"]
            first.key.write_text("broken")
            tls.look()
            tls.look()
            assert caplog.text.count("cannot be used") == 1 and "stay in use" in caplog.text
            _, third = await connect(here.port, trusting(authority))
            assert names(third) == ["two.example"]
            writer.write(options("1", "TLS"))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"SIP/2.0 200")
            for each in (writer, second, third):
                each.close()

    run(main)


def test_files_that_cannot_be_used_are_named(run: Callable[[Main], None], ours: Issued, tmp_path: Path) -> None:
    for files, name in (
        (TlsFiles(tmp_path / "none.pem"), "none.pem"), (TlsFiles(ours.certificate, ours.certificate), "ours.pem"),
        (TlsFiles(ours.certificate, ours.key, ours.key), "ours.key"),
    ):  # fmt: skip
        with pytest.raises(TlsUnusable, match=name):
            Tls(files)

    async def main() -> None:
        with pytest.raises(SocketUnavailable, match=r"none\.pem cannot be used: No such file"):
            await host(TlsFiles(tmp_path / "none.pem")).server.start()

    run(main)


# connections of ours
ACCOUNT = {"r_domain": DOMAIN, "expires": 600}


@pytest.mark.checklist("B13")
@pytest.mark.rfc("3261", "26.3.2.1")
def test_we_register_over_tls_at_who_proves_the_domain(
    run: Callable[[Main], None], authority: Authority, ours: Issued
) -> None:
    async def main() -> None:
        there = authority.issue("domain", uri=(f"sip:{DOMAIN}",))
        async with registrar(there) as peer, host(TlsFiles(ca=authority.path)) as here:
            here.change(**ACCOUNT, auth_proxy=f"sip:{DOMAIN}:{peer.port};transport=tls")
            await here.until(RegistrationState.REGISTERED)
            assert peer.names == [DOMAIN] and peer.shown == [None]
            head = peer.got[0]
            assert b"Via: SIP/2.0/TLS 127.0.0.1:5061;" in head and b";transport=tls" in head.partition(b"Contact:")[2]

    run(main)


CASES = {
    "another name": ({"dns": ("sip.other.example",)}, None, "tls_name", f"sip.other.example, not {DOMAIN}"),
    "no name": ({}, None, "tls_name", f"nobody, not {DOMAIN}"),
    "expired": ({"dns": (DOMAIN,), "days": (-9, -1)}, None, "tls_certificate", "certificate has expired"),
    "self-signed": ({"dns": (DOMAIN,), "self_signed": True}, None, "tls_certificate", "self-signed certificate"),
    "wildcard": ({"dns": ("*.provider.example",)}, None, "tls_name", f"*.provider.example, not {DOMAIN}"),
    "wildcard allowed": ({"dns": ("*.provider.example",)}, TlsPolicy((DOMAIN,), wildcard=True), "", ""),
    "wildcard too wide": (
        {"dns": ("*.example",)}, TlsPolicy((DOMAIN,), wildcard=True), "tls_name", f"*.example, not {DOMAIN}",
    ),
    "another pinned": ({"dns": (DOMAIN,)}, TlsPolicy((DOMAIN,), fingerprint="00" * 32), "tls_fingerprint", ""),
    "name of its server": ({"dns": ("s1.example",)}, TlsPolicy((DOMAIN, "s1.example")), "", ""),
}  # fmt: skip


@pytest.mark.checklist("B13")
@pytest.mark.rfc("5922", "7.2")
@pytest.mark.parametrize("case", CASES)
def test_a_peer_that_is_not_who_was_meant_gets_nothing(
    run: Callable[[Main], None], authority: Authority, case: str
) -> None:
    given, policy, cause, detail = CASES[case]

    async def main() -> None:
        there = authority.issue("case", **given)  # type: ignore[arg-type]
        async with registrar(there) as peer, host(TlsFiles(ca=authority.path), policy) as here:
            here.change(**ACCOUNT, auth_proxy=f"sips:{DOMAIN}:{peer.port}")
            if not cause:
                await here.until(RegistrationState.REGISTERED)
                return
            event = await here.until(RegistrationState.FAILING)
            assert (event.cause, event.code) == (cause, None) and peer.got == []
            assert event.reason == detail if detail else there.fingerprint in event.reason

    run(main)


def test_a_pinned_certificate_counts_whoever_signed_it(run: Callable[[Main], None], authority: Authority) -> None:
    async def main() -> None:
        there = authority.issue("pinned", dns=("elsewhere.example",), self_signed=True)
        policy = TlsPolicy((DOMAIN,), fingerprint=there.fingerprint)
        async with registrar(there) as peer, host(TlsFiles(), policy) as here:
            here.change(**ACCOUNT, auth_proxy=f"sips:{DOMAIN}:{peer.port}")
            await here.until(RegistrationState.REGISTERED)

    run(main)


def test_our_certificate_is_shown_to_who_may_have_it(
    run: Callable[[Main], None], authority: Authority, ours: Issued
) -> None:
    async def main() -> None:
        there = authority.issue("asks", dns=(DOMAIN,))
        files = TlsFiles(ours.certificate, ours.key, authority.path)
        for shows in (True, False):
            policy = TlsPolicy((DOMAIN,), client_certificate=shows)
            async with registrar(there, clients=authority) as peer, host(files, policy) as here:
                here.change(**ACCOUNT, auth_proxy=f"sips:{DOMAIN}:{peer.port}")
                await here.until(RegistrationState.REGISTERED if shows else RegistrationState.FAILING)
                assert bool(peer.shown) == shows

    run(main)


def test_a_peer_without_tls_is_told_apart(run: Callable[[Main], None], authority: Authority) -> None:
    async def main() -> None:
        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        server = await asyncio.start_server(plain, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with host(TlsFiles(ca=authority.path)) as here:
            here.change(**ACCOUNT, auth_proxy=f"sips:{DOMAIN}:{port}")
            event = await here.until(RegistrationState.FAILING)
            assert event.cause == "tls_handshake" and event.reason
        server.close()

    run(main)


@pytest.mark.rfc("5922", "7.5")
def test_who_proved_one_domain_is_not_taken_for_another(run: Callable[[Main], None], authority: Authority) -> None:
    async def main() -> None:
        there = authority.issue("one", dns=(DOMAIN,))
        async with registrar(there) as peer, host(TlsFiles(ca=authority.path)) as here:
            here.server.resolver.hosts["evil.example"] = ("127.0.0.1",)
            here.change(**ACCOUNT, auth_proxy=f"sips:{DOMAIN}:{peer.port}")
            await here.until(RegistrationState.REGISTERED)
            (flow,) = set(here.endpoint.listeners[0].flows.values())
            here.change(l_uuid="other", r_domain="evil.example", auth_proxy=f"sips:evil.example:{peer.port}")
            event = await here.until(RegistrationState.FAILING)
            assert event.l_uuid == "other" and event.cause == "tls_name" and len(peer.got) == 1
            listener = here.endpoint.listeners[0]
            address = ("127.0.0.1", peer.port)
            # Who knows the address alone takes the connection that stands; each name has its own.
            assert here.endpoint.flow_for(listener, address) is flow
            assert here.endpoint.flow_for(listener, address, (DOMAIN, "s1")) is flow
            assert here.endpoint.flow_for(listener, address, ("evil.example",)) is not flow

    run(main)


def test_without_a_certificate_we_only_connect(run: Callable[[Main], None], authority: Authority) -> None:
    async def main() -> None:
        async with host(TlsFiles(ca=authority.path)) as here:
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", here.port)) != 0

    run(main)


@pytest.mark.checklist("B15")
@pytest.mark.rfc("3261", "16.6")
@pytest.mark.parametrize("scheme", ["sips", "sip"])
def test_record_route_of_a_sips_call(run: Callable[[Main], None], authority: Authority, scheme: str) -> None:
    async def main() -> None:
        def relay(context: Any) -> None:
            context.ruri = f"{scheme}:x@{DOMAIN}:{peer.port};transport=tls".encode()
            context.record_route()
            context.t_relay()
            context.routed(None)

        there = authority.issue("sips", dns=(DOMAIN,))
        files = TlsFiles(ca=authority.path)
        sockets = "tls:127.0.0.1:0", "udp:127.0.0.1:0"
        resolver = Resolver({DOMAIN: ("127.0.0.1",)})
        async with (
            registrar(there) as peer,
            Host(*sockets, application=relay, tls=files, resolver=resolver) as here,
        ):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
                udp = here.endpoint.listeners[1].port
                invite = options("1").replace(b"OPTIONS", b"INVITE")
                invite = invite.replace(b"Max-", b"Contact: <sip:a@127.0.0.1>\r\nMax-")
                caller.sendto(invite, ("127.0.0.1", udp))
                await until(lambda: peer.got)
            lines = [line for line in peer.got[0].split(b"\r\n") if line.startswith(b"Record-Route")]
            # The side with TLS is told sips: for a sips: URI; the caller, who came without TLS, is not.
            assert lines[0].startswith(b"Record-Route: <%b:127.0.0.1:5061;transport=tls;lr" % scheme.encode())
            assert lines[1].startswith(b"Record-Route: <sip:127.0.0.1:%d;lr" % udp)

    run(main)
