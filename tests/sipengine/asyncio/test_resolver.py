"""The resolver against a DNS server of our own on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
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
    ("_sip._udp.homeless.example.", "SRV"): ["1 1 5060 nowhere.srv.example."],
    ("homeless.example.", "A"): ["192.0.2.97"],
    ("_sip._udp.half.example.", "SRV"): ["1 1 5060 nowhere.srv.example.", "2 1 5062 a.srv.example."],
    ("alias.example.", "CNAME"): ["alias2.example."],
    ("alias2.example.", "CNAME"): ["provider.example."],
    ("circle.example.", "CNAME"): ["circle.example."],
    ("naptr.example.", "NAPTR"): [
        '50 50 "s" "SIPS+D2T" "" _sips._tcp.srv.example.', '90 60 "S" "SIP+D2U" "" _sip._udp.srv.example.',
        '90 50 "s" "sip+d2t" "" _sip._tcp.tcponly.example.', '100 50 "s" "SIP+D2U" "" _sip._udp.weighted.example.',
    ],
    ("alien.example.", "NAPTR"): [
        '1 1 "s" "SIPS+D2T" "" _sips._tcp.srv.example.', '1 2 "u" "E2U+sip" "!^.*$!sip:x@y!" .',
    ],
    ("_sip._udp.alien.example.", "SRV"): ["1 1 5064 a.srv.example."],
    ("_sip._udp.weighted.example.", "SRV"): ["1 90 1 a.srv.example.", "1 10 2 a.srv.example.", "1 0 3 a.srv.example."],
}


class Dns(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self.silent = False
        self.broken = False
        self.ttl = 300
        self.zone = dict(ZONE)
        self.minimum: int | None = None
        """Of the SOA that denials carry."""
        self.delay = 0.0

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
        alias = self.zone.get((key[0], "CNAME"))
        if self.broken:
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif key in self.zone:
            reply.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", key[1], *self.zone[key]))
        elif alias:
            reply.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", "CNAME", *alias))
        else:
            if self.minimum is not None:
                soa = f"ns.example. root.example. 1 3600 3600 3600 {self.minimum}"
                reply.authority.append(dns.rrset.from_text("example.", 3600, "IN", "SOA", soa))
            if not any(name == key[0] for name, _ in self.zone):
                reply.set_rcode(dns.rcode.NXDOMAIN)
        wire = reply.to_wire()
        asyncio.get_running_loop().call_later(self.delay, self.transport.sendto, wire, addr)  # type: ignore[attr-defined]


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
        (ResolutionWanted("half.example", None, None), [("udp", "192.0.2.11", 5062)]),
        (ResolutionWanted("naptr.example", None, None),
         [("tcp", "192.0.2.11", 5090), ("udp", "192.0.2.11", 5070), ("udp", "192.0.2.12", 5080)]),
        (ResolutionWanted("alien.example", None, None), [("udp", "192.0.2.11", 5064)]),
        (ResolutionWanted("alias.example", 5060, None),
         [("udp", "192.0.2.1", 5060), ("udp", "192.0.2.2", 5060), ("udp", "2001:db8::1", 5060)]),
    ],
)
def test_targets(query: ResolutionWanted, expected: list[tuple[str, str, int]]) -> None:
    async def test(resolver: Resolver, server: Dns) -> None:
        targets = found(await resolver.resolve(query))  # type: ignore[arg-type]
        assert sorted(targets) == sorted(expected)
        assert [t[2] for t in targets] == [e[2] for e in expected]

    with_dns(test)


@pytest.mark.checklist("B13")
@pytest.mark.rfc("5922", "7.1")
def test_targets_over_tls_say_who_was_asked_for_and_which_server_was_found() -> None:
    async def test(resolver: Resolver, server: Dns) -> None:
        secure = ResolutionWanted("srv.example", None, None, secure=True)
        assert [t.names for t in await resolver.resolve(secure)] == [("srv.example", "a.srv.example")]
        named = ResolutionWanted("provider.example", 5071, "tls")
        assert {(t.names, t.address[1]) for t in await resolver.resolve(named)} == {(("provider.example",), 5071)}
        assert {t.names for t in await resolver.resolve(ResolutionWanted("srv.example", None, None))} == {()}
        server.zone["_sips._tcp.safe.example.", "SRV"] = ["1 1 5061 a.srv.example."]
        server.zone["safe.example.", "A"] = ["192.0.2.50"]
        assert found(await resolver.resolve(ResolutionWanted("safe.example", None, None))) == [  # type: ignore[arg-type]
            ("udp", "192.0.2.50", 5060)
        ], "without a TLS socket of ours nobody looks for it"
        speaks_tls = Resolver(nameservers=["127.0.0.1"], hosts_file=Path("/nonexistent"), transports=("udp", "tls"))
        speaks_tls._dns = resolver._dns
        safe = await speaks_tls.resolve(ResolutionWanted("safe.example", None, None))
        assert found(safe) == [("tls", "192.0.2.11", 5061)]  # type: ignore[arg-type]
        other = await speaks_tls.resolve(ResolutionWanted("srv.example", None, None))
        assert {t.transport for t in other} == {"udp"}, "where there is another way, TLS is for who asks for it"

    with_dns(test)


@pytest.mark.rfc("2782", "Usage rules")
def test_a_dot_denies_the_service() -> None:
    async def test(resolver: Resolver, server: Dns) -> None:
        for name in ("denied.example", "homeless.example"):
            with pytest.raises(ResolutionError, match=rf"{name} offers no SIP service"):
                await resolver.resolve(ResolutionWanted(name, None, None))
            assert not server.asked[f"{name}.", "A"], "no way out to the name's own address"
            if name == "denied.example":
                assert not [key for key in server.asked if key[1] == "A"], "the dot is no name to look up"

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


@pytest.mark.checklist("F2")
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


@pytest.mark.checklist("F2")
@pytest.mark.rfc("2308", "5")
@pytest.mark.parametrize(("minimum", "seconds"), [(None, 30), (60, 60), (0, 5), (86400, 300)])
def test_denials_are_kept_for_the_time_of_their_soa(minimum: int | None, seconds: float) -> None:
    async def test(resolver: Resolver, server: Dns) -> None:
        server.minimum = minimum
        for name in ("nowhere.example", "v6.example"):
            assert await resolver._lookup(name, "A") == ()
            assert resolver._cache[name, "A"].until - time.monotonic() == pytest.approx(seconds, abs=0.5)

    with_dns(test)


@pytest.mark.checklist("F2")
@pytest.mark.parametrize(
    ("name", "ttl", "seconds"),
    [("provider", 600, 600), ("provider", 0, 5), ("provider", 10**6, 3600), ("alias", 7, 7), ("alias", 0, 5)],
)
def test_answers_are_kept_for_their_time(name: str, ttl: int, seconds: float) -> None:
    async def test(resolver: Resolver, server: Dns) -> None:
        server.ttl = ttl
        await resolver._lookup(f"{name}.example", "A")
        assert resolver._cache[f"{name}.example", "A"].until - time.monotonic() == pytest.approx(seconds, abs=0.5)

    with_dns(test)


@pytest.mark.checklist("M2")
@pytest.mark.parametrize(
    ("host", "minimum", "seconds"),
    [("srv.example", 7, 7), ("srv.example", 3600, 20), ("provider.example", 3600, 20), ("nowhere.example", 9, 9)],
)
def test_an_answer_is_due_again_when_the_first_record_under_it_is_over(
    host: str, minimum: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Denials count too: the SRV that is not there yet, for which the address alone is used."""

    async def test(resolver: Resolver, server: Dns) -> None:
        server.minimum, server.ttl = minimum, 20
        assert resolver.is_due(host), "nothing is known"
        with contextlib.suppress(ResolutionError):
            await resolver.resolve(ResolutionWanted(host, None, None, False))
        now = time.monotonic()
        for passed, due in ((seconds - 1, False), (seconds + 1, True)):
            monkeypatch.setattr(time, "monotonic", lambda at=now + passed: at)
            assert resolver.is_due(host) is due
        monkeypatch.undo()

    with_dns(test)


def test_without_a_time_to_live_an_answer_is_due_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(resolver: Resolver, server: Dns) -> None:
        resolver.hosts["listed.example"] = ("192.0.2.7",)
        await resolver.resolve(ResolutionWanted("listed.example", None, None, False))
        assert not resolver.is_due("listed.example")
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 61)
        assert resolver.is_due("LISTED.example.")
        monkeypatch.undo()

    with_dns(test)


def test_aliases_in_a_circle_end() -> None:
    async def test(resolver: Resolver, server: Dns) -> None:
        with pytest.raises(ResolutionError):
            await resolver.resolve(ResolutionWanted("circle.example", 5060, None))

    with_dns(test)


@pytest.mark.checklist("F2")
@pytest.mark.rfc("8767", "5")
def test_an_old_answer_serves_while_dns_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sipengine.asyncio.resolver.PATIENCE", 0.1)

    async def test(resolver: Resolver, server: Dns) -> None:
        query = ResolutionWanted("provider.example", 5060, None)
        await resolver.resolve(query)
        for entry in resolver._cache.values():
            entry.until = time.monotonic() - 1
        server.zone["provider.example.", "A"] = ["192.0.2.3"]
        server.delay = 0.15
        start = time.monotonic()
        assert {"192.0.2.1", "192.0.2.2"} < {t.address[0] for t in await resolver.resolve(query)}
        assert time.monotonic() - start < 0.15
        start = time.monotonic()
        await resolver.resolve(query)
        assert time.monotonic() - start < 0.05, "the next one does not wait at all"
        await asyncio.sleep(0.2)
        assert (await resolver.resolve(query))[0].address[0] == "192.0.2.3", "the answer came all the same"

    with_dns(test)


@pytest.mark.checklist("F2")
def test_a_silent_dns_is_not_asked_for_each_call() -> None:
    async def test(resolver: Resolver, server: Dns) -> None:
        server.silent = True
        query = ResolutionWanted("quiet.example", 5060, None)
        with pytest.raises(ResolutionError):
            await resolver.resolve(query)
        asked = sum(server.asked.values())
        start = time.monotonic()
        for _ in range(20):
            with pytest.raises(ResolutionError, match="does not answer"):
                await resolver.resolve(query)
        assert time.monotonic() - start < 0.2 and sum(server.asked.values()) == asked
        server.silent = False
        for entry in resolver._cache.values():
            entry.recheck_at = 0.0
        with pytest.raises(ResolutionError, match="has no address"):
            await resolver.resolve(query)

    with_dns(test)


def test_nameservers_have_ports_of_their_own() -> None:
    resolver = Resolver(nameservers=["192.0.2.53", "127.0.0.1:5353", "[2001:db8::53]:5354", "2001:db8::54", "[::1]"])
    assert [(each.address, each.port) for each in resolver._dns.nameservers] == [  # type: ignore[union-attr]
        ("192.0.2.53", 53), ("127.0.0.1", 5353), ("2001:db8::53", 5354), ("2001:db8::54", 53), ("::1", 53),
    ]  # fmt: skip


CASES = Path(os.environ.get("SIP_TESTDATA", Path(__file__).resolve().parents[3].parent / "shared" / "testdata")) / "dns"
HERE, V6 = "127.0.0.1", "::1"
PAIR = [("udp", HERE, 5061), ("udp", HERE, 5062), ("tcp", HERE, 5061), ("tcp", HERE, 5062)]
#: Case → what is asked and where it leads, from the text of the case.
EXPECTED: dict[str, list[tuple[ResolutionWanted, list[tuple[str, str, int]]]]] = {
    "registration/outbound/failover": [(ResolutionWanted("example.com", None, "udp"), PAIR[:2])],
    "resolver/a": [(ResolutionWanted("pbx.example.com", 5061, None), [("udp", HERE, 5061)])],
    "resolver/aaaa": [(ResolutionWanted("pbx.example.com", 5061, None), [("udp", V6, 5061)])],
    "resolver/naptr/explicit_transport_configured": [
        (ResolutionWanted("naptr.example.com", None, None), [("udp", HERE, 5061), ("udp", V6, 5061)])
    ],
    "resolver/naptr/order": [(ResolutionWanted("example.com", None, None), [("tcp", HERE, 5061)])],
    "resolver/naptr/transport_unspecified": [
        (ResolutionWanted("naptr.example.com", None, None), [("tcp", HERE, 5061), ("udp", HERE, 5061)])
    ],
    "resolver/srv/explicit_transport_configured": [
        (ResolutionWanted("example.com", None, "udp"), [("udp", HERE, 5061), ("udp", V6, 5061)])
    ],
    "resolver/srv/failover/in_dialog/timeout": [
        (ResolutionWanted("example.com", None, "udp"), [("udp", HERE, 5062), ("udp", HERE, 5063)]),
        (ResolutionWanted("example.com", None, "tcp"), [("tcp", HERE, 5064), ("tcp", HERE, 5065)]),
    ],
    "resolver/srv/failover/in_dialog/transport_udp": [(ResolutionWanted("example.com", None, "udp"), PAIR[:2])],
    "resolver/srv/failover/in_dialog/transport_unspecified": [
        (ResolutionWanted("example.com", None, None), [("udp", HERE, 5063), ("tcp", HERE, 5062)])
    ],
    "resolver/srv/failover/out_of_dialog/transport_tcp": [(ResolutionWanted("example.com", None, "tcp"), PAIR[2:])],
    "resolver/srv/failover/out_of_dialog/transport_udp": [(ResolutionWanted("example.com", None, "udp"), PAIR[:2])],
    "resolver/srv/transport_tcp": [(ResolutionWanted("example.com", None, "tcp"), [("tcp", HERE, 5061)])],
    "resolver/srv/transport_udp": [(ResolutionWanted("example.com", None, "udp"), [("udp", HERE, 5061)])],
    "resolver/srv/transport_unspecified": [
        (ResolutionWanted("example.com", None, None), [("udp", HERE, 5061), ("tcp", HERE, 5061)])
    ],
}
LEFT_OUT = {
    "resolver/naptr/transport_tcp": "only NAPTR leads to its SRV records, and a transport in the URI skips that",
    "rfc3263-4.1-naptr": "no address in it; `ZONE` has these records with one",
    "rfc3263-4.2-srv": "no address in it; weights by chance are tested with the records of `ZONE`",
}


@pytest.mark.skipif(not CASES.is_dir(), reason="no test data; set SIP_TESTDATA")
def test_every_case_of_others_is_asked_or_left_out() -> None:
    assert {case["case"] for case in json.loads((CASES / "cases.json").read_text())["cases"]} == {*EXPECTED, *LEFT_OUT}


@pytest.mark.rfc("3263", "4.1")
@pytest.mark.rfc("3263", "4.2")
@pytest.mark.parametrize("name", sorted(EXPECTED))
@pytest.mark.skipif(not CASES.is_dir(), reason="no test data; set SIP_TESTDATA")
def test_cases_of_others(name: str) -> None:
    [case] = [case for case in json.loads((CASES / "cases.json").read_text())["cases"] if case["case"] == name]

    async def test(resolver: Resolver, server: Dns) -> None:
        server.zone = {}
        for record in case["records"]:
            match record["type"]:
                case "SRV":
                    text = "{priority} {weight} {port} {target}.".format(**record)
                case "NAPTR":
                    text = '{order} {preference} "{flags}" "{service}" "{regexp}" {replacement}.'.format(**record)
                case _:
                    text = record["address"]
            server.zone.setdefault((record["name"] + ".", record["type"]), []).append(text)
        for query, expected in EXPECTED[name]:
            assert found(await resolver.resolve(query)) == expected  # type: ignore[arg-type]

    with_dns(test)


@pytest.mark.checklist("F2")
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


def test_records_are_told_with_the_time_that_they_still_count() -> None:
    async def test(resolver: Resolver, zone: Dns) -> None:
        records, seconds = await resolver.records("_sip._udp.srv.example", "SRV")
        assert sorted(records) == ["10 0 5070 a.srv.example.", "20 0 5080 b.srv.example."]
        assert 290 < seconds <= 300
        assert (await resolver.records("nothing.example", "A"))[0] == []
        zone.silent = True
        assert (await resolver.records("_sip._udp.srv.example", "SRV"))[0], "what is kept is not asked for again"

    with_dns(test)
