"""No message costs more than in proportion to its size, whatever it is made of.

Work is counted in bytecodes of our own code, not in seconds, so the figure is the same on every machine and run.
Single scans inside one built-in call (find, split, a possessive pattern) are linear by themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest

from sipengine.exceptions import SipError
from sipengine.message import NameAddr, SipUri, Via, parse
from sipengine.message.values import split_list
from sipengine.proxy.validation import salvage, tag_of_proper
from sipengine.transport.stream import StreamFramer
from sipengine.uac.digest import parse_challenge
from tests.sipengine.net import PROVIDER, Net

SIZES = (1000, 2000, 4000, 8000, 16000, 32000)
SLACK = 2.3
"""Twice the input may cost twice the work and a little more; anything quadratic costs four times."""
FIXED = 3000
"""Bytecodes that any message costs: below this, ratios say nothing."""


def work(act: Callable[[], object]) -> int:
    """Bytecodes that `act` runs in sipengine."""
    count = 0

    def tracer(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        if "sipengine" not in frame.f_code.co_filename:
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        act()
    except (SipError, ValueError):
        pass
    finally:
        sys.settrace(before)
    return count


def assert_linear(act: Callable[[bytes], object], make: Callable[[int], bytes], sizes: tuple[int, ...] = SIZES) -> None:
    counts = [work(partial(act, make(size))) for size in sizes]
    for small, large in pairwise(counts):
        assert large <= FIXED + SLACK * small, f"work grows as {counts} for sizes {sizes}"


def head(extra: bytes, body: bytes = b"") -> bytes:
    return (
        b"OPTIONS sip:192.0.2.5 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKw%d\r\nMax-Forwards: 70\r\n"
        b"From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: w\r\nCSeq: 1 OPTIONS\r\n%bContent-Length: %d\r\n\r\n%b"
        % (len(extra) + len(body), extra, len(body), body)
    )


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "many fields": lambda n: head(b"X: y\r\n" * (n // 6)),
    "many names": lambda n: head(b"".join(b"X%d: y\r\n" % i for i in range(n // 8))),
    "many Vias": lambda n: head(b"Via: SIP/2.0/TCP h;branch=z9hG4bKq\r\n" * (n // 36)),
    "Vias in one line": lambda n: head(b"Via: " + b"SIP/2.0/TCP h, " * (n // 15) + b"SIP/2.0/TCP h\r\n"),
    "many Routes": lambda n: head(b"Route: <sip:h;lr>\r\n" * (n // 19)),
    "Routes in one line": lambda n: head(b"Route: " + b"<sip:h;lr>," * (n // 11) + b"<sip:h>\r\n"),
    "folds": lambda n: head(b"Subject: a\r\n" + b" b\r\n" * (n // 4)),
    "folded Via": lambda n: head(b"Via: SIP/2.0/UDP h\r\n" + b" ;a=b\r\n" * (n // 7)),
    "parameters": lambda n: head(b"Contact: <sip:a@b>" + b";p=q" * (n // 4) + b"\r\n"),
    "commas in Contact": lambda n: head(b"Contact: " + b"<sip:a@b>," * (n // 10) + b"<sip:a@b>\r\n"),
    "escaped quotes": lambda n: head(b'Contact: "' + b'\\"' * (n // 2) + b'" <sip:a@b>\r\n'),
    "backslashes": lambda n: head(b'Contact: "' + b"\\\\" * (n // 2) + b'\\" <sip:a@b>\r\n'),
    "open quotes": lambda n: head(b"Contact: " + b'" ' * (n // 2) + b"<sip:a@b>\r\n"),
    "angles": lambda n: head(b"Contact: " + b"<" * n + b"\r\n"),
    "option tags": lambda n: head(b"Proxy-Require: " + b"a," * (n // 2) + b"a\r\n"),
    "one long line": lambda n: head(b"X: " + b"y" * n + b"\r\n"),
    "body": lambda n: head(b"", b"\r\n\r\n" * (n // 4)),
    "no end": lambda n: head(b"")[:-2] + b"a" * n,
    "line ends": lambda n: b"\r\n" * (n // 2),
    "zeros": lambda n: b"\0" * n,
    "spaces": lambda n: b"OPTIONS" + b" " * n + b"sip:a SIP/2.0\r\n\r\n",
    "colons": lambda n: b"OPTIONS sip:a SIP/2.0\r\n" + b":" * n + b"\r\n\r\n",
    "escapes in the Request-URI": lambda n: head(b"").replace(b"sip:192.0.2.5", b"sip:" + b"%61" * (n // 3) + b"@h", 1),
    "parameters of the Request-URI": lambda n: head(b"").replace(b" SIP/2.0\r", b";a=b" * (n // 4) + b" SIP/2.0\r", 1),
    "headers of the Request-URI": lambda n: head(b"").replace(
        b" SIP/2.0\r", b"?" + b"a=b&" * (n // 4) + b" SIP/2.0\r", 1
    ),
    "parameters of From": lambda n: head(b"").replace(b";tag=1", b";a=b" * (n // 4) + b";tag=1", 1),
    "display name": lambda n: head(b"").replace(b"From: ", b'From: "' + b'\\" ' * (n // 3) + b'" ', 1),
    "parameters of Via": lambda n: head(b"").replace(b";branch", b";a=b" * (n // 4) + b";rport;branch", 1),
    "quoted commas in Via": lambda n: head(b"").replace(b";branch", b';a="' + b"," * n + b'";rport;branch', 1),
    "fields twice": lambda n: head(b"Call-ID: z\r\n" * (n // 12)),
    "broken, many fields": lambda n: head(b"\0: y\r\n" + b"f: y\r\n" * (n // 6)),
}


@pytest.mark.checklist("A15")
@pytest.mark.rfc("3261", "16.3")
@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_datagram_costs_in_proportion_to_its_size(make: Callable[[int], bytes]) -> None:
    def receive(data: bytes) -> None:
        net = nets.pop()
        net.endpoint.receive(data, net.endpoint.flow_for(net.endpoint.listeners[0], PROVIDER), 0.0)

    nets = [Net() for _ in SIZES]
    assert_linear(receive, make)
    assert_linear(salvage, make)


READERS: dict[str, tuple[Callable[[bytes], object], Callable[[int], bytes]]] = {
    "parse": (parse, HOSTILE["folds"]),
    "list": (split_list, lambda n: b'"\\,",<,>,' * (n // 9)),
    "name-addr": (NameAddr.parse, lambda n: b'"' + b'\\"' * (n // 2) + b'"<sip:a@b>' + b";a=b" * (n // 4)),
    "name-addr, open": (NameAddr.parse, lambda n: b'"' + b"\\" * n),
    "From": (tag_of_proper, lambda n: b"From: " + b"a " * (n // 2) + b"<sip:a@b>;x" + b";" * n),
    "URI": (SipUri.parse, lambda n: b"sip:" + b"a;" * (n // 2) + b"@h" + b";p" * n + b"?" + b"&" * n),
    "URI compared": (
        lambda data: SipUri.parse(data).equivalent(SipUri.parse(data)),
        lambda n: b"sip:%61@h" + b"".join(b";p%d=%%41" % i for i in range(n // 8)) + b"?" + b"a=%41&" * (n // 6),
    ),
    "Via": (Via.parse, lambda n: b"SIP/2.0/UDP" + b" " * n + b"h" + b';a="\\""' * (n // 7)),
    "challenge": (parse_challenge, lambda n: b'Digest realm="r",nonce="n"' + b',a="\\""' * (n // 7)),
    "challenge, separators": (parse_challenge, lambda n: b"Digest " + b" ," * (n // 2) + b"a" * n),
    "challenge, open": (parse_challenge, lambda n: b'Digest realm="' + b"\\" * n),
}


@pytest.mark.parametrize("name", READERS)
def test_a_value_costs_in_proportion_to_its_size(name: str) -> None:
    read, make = READERS[name]
    assert_linear(read, make)


@pytest.mark.rfc("3261", "18.3")
@pytest.mark.parametrize("step", [1, 7, 1460])
@pytest.mark.parametrize(
    "make",
    [
        HOSTILE["many fields"], HOSTILE["body"], lambda n: b"\r\n" * (n // 2), lambda n: b"\n" * n, lambda n: b"x" * n,
        lambda n: head(b"") * (n // 200), lambda n: head(b"l: 1\r\n", b"x" * n),
    ],
    ids=["fields", "body", "pings", "line ends", "no end", "messages", "two lengths"],
)  # fmt: skip
def test_a_stream_costs_in_proportion_however_it_is_cut(make: Callable[[int], bytes], step: int) -> None:
    def feed(data: bytes) -> None:
        framer = StreamFramer()
        for i in range(0, len(data), step):
            framer.feed(data[i : i + step])

    assert_linear(feed, make)
