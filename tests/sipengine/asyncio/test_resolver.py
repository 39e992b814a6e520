"""The resolver against a DNS server of our own on loopback."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from sipengine.asyncio.resolver import Resolver
from sipengine.events import ResolutionWanted
from sipengine.exceptions import ResolutionError

ZONE = {
    ("provider.example.", "A"): ["192.0.2.1", "192.0.2.2"],
    ("provider.example.", "AAAA"): ["2001:db8::1"],
    ("v6.example.", "AAAA"): ["2001:db8::6"],
    ("_sip._udp.srv.example.", "SRV"): ["20 0 5080 b.srv.example.", "10 0 5070 a.srv.example."],
    ("a.srv.example.", "A"): ["192.0.2.11"],
    ("b.srv.example.", "A"): ["192.0.2.12"],
    ("srv.example.", "A"): ["192.0.2.99"],
    ("_sip._tcp.tcponly.example.", "SRV"): ["1 1 5090 a.srv.example."],
    ("_sip._udp.denied.example.", "SRV"): ["0 0 0 ."],
    ("_sip._tcp.denied.example.", "SRV"): ["0 0 0 ."],
    ("denied.example.", "A"): ["192.0.2.98"],
    ("_sips._tcp.srv.example.", "SRV"): ["1 1 5061 a.srv.example."],
    ("_sip._udp.weighted.example.", "SRV"): ["1 90 1 a.srv.example.", "1 10 2 a.srv.example.", "1 0 3 a.srv.example."],
}


class Dns(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self.silent = False
        self.broken = False
        self.ttl = 300

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        key = (question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype))
        self.asked[key] += 1
        if self.silent:
            return
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        if self.broken:
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif key in ZONE:
            reply.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", key[1], *ZONE[key]))
        elif not any(name == key[0] for name, _ in ZONE):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(reply.to_wire(), addr)  # type: ignore[attr-defined]


def with_dns(test: Callable[[Resolver, Dns], Awaitable[None]], hosts: dict[str, list[str]] | None = None) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport, server = await loop.create_datagram_endpoint(Dns, local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        resolver = Resolver(hosts, nameservers=["127.0.0.1"], port=port, hosts_file=Path("/nonexistent"))
        resolver._dns.lifetime, resolver._dns.timeout = 0.5, 0.2
        try:
            await test(resolver, server)
        finally:
            transport.close()

    asyncio.run(main())


def found(targets: list[object]) -> list[tuple[str, str, int]]:
    return [(t.transport, *t.address) for t in targets]  # type: ignore[attr-defined]


@pytest.mark.rfc("3263", "4")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (ResolutionWanted("provider.example", 5070, None),
         [("udp", "192.0.2.1", 5070), ("udp", "192.0.2.2", 5070), ("udp", "2001:db8::1", 5070)]),
        (ResolutionWanted("v6.example", None, "tcp"), [("tcp", "2001:db8::6", 5060)]),
        (ResolutionWanted("srv.example", None, None), [("udp", "192.0.2.11", 5070), ("udp", "192.0.2.12", 5080)]),
        (ResolutionWanted("srv.example", 5060, None), [("udp", "192.0.2.99", 5060)]),
        (ResolutionWanted("srv.example", None, "tcp"), [("tcp", "192.0.2.99", 5060)]),
        (ResolutionWanted("tcponly.example", None, None), [("tcp", "192.0.2.11", 5090)]),
        (ResolutionWanted("srv.example", None, None, secure=True), [("tls", "192.0.2.11", 5061)]),
    ],
)
def test_targets(query: ResolutionWanted, expected: list[tuple[str, str, int]]) -> None:
    async def test(resolver: Resolver, server: Dns) -> None:
        targets = found(await resolver.resolve(query))  # type: ignore[arg-type]
        assert sorted(targets) == sorted(expected)
        assert [t[2] for t in targets] == [e[2] for e in expected]

    with_dns(test)


@pytest.mark.rfc("2782", "Usage rules")
def test_a_dot_denies_the_service() -> None:
    async def test(resolver: Resolver, server: Dns) -> None:
        with pytest.raises(ResolutionError, match=r"denied\.example offers no SIP service"):
            await resolver.resolve(ResolutionWanted("denied.example", None, None))

    with_dns(test)


@pytest.mark.rfc("2782", "Usage rules")
def test_weights() -> None:
    async def test(resolver: Resolver, server: Dns) -> None:
        first = Counter[int]()
        for _ in range(1000):
            targets = await resolver.resolve(ResolutionWanted("weighted.example", None, "udp"))
            assert sorted(t.address[1] for t in targets) == [1, 2, 3]
            first[targets[0].address[1]] += 1
        assert 820 < first[1] < 970 and 40 < first[2] < 170 and first[3] < 40

    with_dns(test)


def test_errors_are_plain_sentences() -> None:
    async def test(resolver: Resolver, server: Dns) -> None:
        with pytest.raises(ResolutionError, match=r"^DNS has no address for nowhere\.example\.$"):
            await resolver.resolve(ResolutionWanted("nowhere.example", None, None))
        server.silent = True
        with pytest.raises(ResolutionError, match=r"^DNS does not answer for quiet\.example\.$"):
            await resolver.resolve(ResolutionWanted("quiet.example", 5060, None))
        server.silent, server.broken = False, True
        with pytest.raises(ResolutionError, match="does not answer"):
            await resolver.resolve(ResolutionWanted("broken.example", 5060, None))
        with pytest.raises(ResolutionError):
            await resolver.resolve(ResolutionWanted("x" * 300, 5060, None))
        with pytest.raises(ResolutionError):
            await resolver.resolve(ResolutionWanted("a..b", 5060, None))

    with_dns(test)


def test_answers_are_kept_and_asked_once() -> None:
    async def test(resolver: Resolver, server: Dns) -> None:
        query = ResolutionWanted("provider.example", 5060, None)
        await asyncio.gather(*(resolver.resolve(query) for _ in range(50)))
        await resolver.resolve(query)
        assert server.asked[("provider.example.", "A")] == 1
        for _ in range(3):
            with pytest.raises(ResolutionError):
                await resolver.resolve(ResolutionWanted("nowhere.example", 5060, None))
        assert server.asked[("nowhere.example.", "A")] == 1

    with_dns(test)


def test_stale_answers_serve_while_dns_is_silent() -> None:
    async def test(resolver: Resolver, server: Dns) -> None:
        query = ResolutionWanted("provider.example", 5060, None)
        await resolver.resolve(query)
        for entry in resolver._cache.values():
            entry.until -= 4000
        server.silent = True
        assert len(await resolver.resolve(query)) == 3
        for entry in resolver._cache.values():
            entry.until -= 100_000
        with pytest.raises(ResolutionError):
            await resolver.resolve(query)

    with_dns(test)


def test_hosts_come_first(tmp_path: Path) -> None:
    async def test(resolver: Resolver, server: Dns) -> None:
        targets = await resolver.resolve(ResolutionWanted("srv.example", None, None))
        assert found(targets) == [("udp", "127.0.0.9", 5060)]  # type: ignore[arg-type]
        assert not server.asked
        resolver._hosts_file = tmp_path / "hosts"
        resolver._hosts_file.write_text("::1 Box\n127.0.0.8 box other # comment\n")
        targets = await resolver.resolve(ResolutionWanted("BOX.", 5070, "tcp"))
        assert found(targets) == [("tcp", "127.0.0.8", 5070), ("tcp", "::1", 5070)]  # type: ignore[arg-type]

    with_dns(test, {"srv.example": ["127.0.0.9"]})
