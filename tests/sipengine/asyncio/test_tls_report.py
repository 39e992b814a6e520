"""What a TLS peer shows is told, whether it counts or not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sipengine.asyncio.tls import Tls, TlsFiles
from sipengine.asyncio.tls_report import TlsReport, look
from sipengine.transport.peers import TlsPolicy
from tests.certificates import Authority, Issued

DOMAIN = "sip.provider.example"


@asynccontextmanager
async def server(shown: Issued) -> AsyncIterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.certificate, shown.key)
    listening = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0, ssl=context)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


def report(authority: Authority, shown: Issued, policy: TlsPolicy) -> TlsReport:
    async def main() -> TlsReport:
        async with server(shown) as port:
            return await look(Tls(TlsFiles(ca=authority.path)), policy, "127.0.0.1", port, "127.0.0.1", 3.0)

    return asyncio.run(main())


def test_a_certificate_that_counts(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    good = authority.issue("good", dns=(DOMAIN, "other.example"), uri=("sip:provider.example",), days=(-1, 12))
    told = report(authority, good, TlsPolicy(("provider.example",)))
    assert told.connected and told.error is None and told.version.startswith("TLSv1") and told.cipher
    assert told.chain[0].names == ("sip:provider.example", DOMAIN, "other.example")
    assert told.chain[0].issuer == "CN=Test CA" and told.days_left == 11


@pytest.mark.parametrize(("issued", "cause", "says"), [
    ({"dns": ("elsewhere.example",)}, "tls_name", f"elsewhere.example, not {DOMAIN}"),
    ({"dns": (DOMAIN,), "days": (-9, -2)}, "tls_certificate", "expired"),
    ({"dns": (DOMAIN,), "self_signed": True}, "tls_certificate", "signed certificate"),
])
def test_one_that_does_not_is_shown_all_the_same(
    tmp_path: Path, issued: dict[str, object], cause: str, says: str,
) -> None:
    authority = Authority(tmp_path)
    told = report(authority, authority.issue("bad", **issued), TlsPolicy((DOMAIN,)))  # type: ignore[arg-type]
    assert told.error is not None and told.error.cause == cause and says in told.error.detail
    assert told.chain and told.chain[0].names == issued["dns"]


def test_a_pinned_certificate_is_judged_by_its_fingerprint(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("own", self_signed=True)
    assert report(authority, own, TlsPolicy((DOMAIN,), fingerprint=own.fingerprint)).error is None
    other = report(authority, own, TlsPolicy((DOMAIN,), fingerprint="0" * 64))
    assert other.error is not None and other.error.cause == "tls_fingerprint"


def test_who_is_not_there_and_who_speaks_no_tls(tmp_path: Path) -> None:
    tls, policy = Tls(TlsFiles(ca=Authority(tmp_path).path)), TlsPolicy((DOMAIN,))

    async def main() -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SIP/2.0 400 Bad\r\n\r\n")
            await writer.drain()
            writer.close()

        plain = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        port = plain.sockets[0].getsockname()[1]
        async with plain:
            told = await look(tls, policy, "127.0.0.1", port, "127.0.0.1", 3.0)
            assert told.error is not None and told.error.cause == "tls_handshake" and not told.chain
        told = await look(tls, policy, "127.0.0.1", port, "127.0.0.1", 3.0)
        assert not told.connected and told.error is None and "refused" in told.detail.lower()

    asyncio.run(main())
