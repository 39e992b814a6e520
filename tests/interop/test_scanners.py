"""Scanners and floods against a running server: sipvicious finds no server, no user and no open door; slow and broken
streams of strangers and peers disturb no call.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.conftest import Place
from tests.interop.product import Embedded
from tests.interop.programs import eventually, free_port, missing

pytestmark = pytest.mark.interop("sipvicious")

SCANNER = "127.0.0.1"
"""Where svwar and svcrack send from, whatever they are told: a stranger from whose network devices may register."""
USERS = ("alice", "100", "101", "2000")


@dataclass
class Stand:
    product: Embedded
    place: Place
    folder: Path

    def scan(self, tool: str, *options: str, source: str = SCANNER, seconds: float = 40) -> str:
        """Run one tool of sipvicious to its end; return all that it says."""
        path = Path(sys.executable).with_name(f"sipvicious_{tool}")
        if not path.exists():
            missing("sipvicious is missing: pip install -r requirements-dev.txt")
        port = str(self.product.sip[1])
        done = subprocess.run(
            [path, "-b", source, "-x", source, "-P", str(free_port(source)), "-p", port, *options, "127.0.0.1"],
            env={**os.environ, "HOME": str(self.folder)}, capture_output=True, text=True, timeout=seconds,
        )
        return done.stdout + done.stderr

    def rules(self) -> dict[str, int]:
        (node,) = json.loads(self.product.manage("status", "--json").out)["nodes"]
        return dict(node["load"]["rules"])

    def options_ms(self) -> float:
        """Milliseconds until the provider has its answer: the server lives."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((self.place.provider, 0))
            sock.settimeout(2)
            host, port = sock.getsockname()
            start = time.monotonic()
            sock.sendto(request("OPTIONS", "sip:127.0.0.1", f"{host}:{port}"), self.product.sip)
            assert sock.recv(4096).startswith(b"SIP/2.0 200")
            return (time.monotonic() - start) * 1000


def request(method: str, ruri: str, via: str, *lines: str, transport: str = "UDP") -> bytes:
    tag = os.urandom(6).hex()
    return "\r\n".join([
        f"{method} {ruri} SIP/2.0", f"Via: SIP/2.0/{transport} {via};branch=z9hG4bK{tag};rport", "Max-Forwards: 70",
        f"From: <sip:x@pbx.example>;tag={tag}", f"To: <{ruri}>", f"Call-ID: {tag}", f"CSeq: 1 {method}", *lines,
        "Content-Length: 0", "", "",
    ]).encode()


@pytest.fixture(scope="module")
def stand(trunkmgr_up: Callable[..., Embedded], place: Place, folder: Path) -> Stand:
    """Accounts and devices with names that scanners try; devices may come from the stranger's network, nobody else."""
    product = trunkmgr_up({"TRUNKMGR_DEVICES_FROM": f"{SCANNER}/32,127.0.1.0/24", "TRUNKMGR_BAN_SECONDS": "60"})
    product.provision(
        f"sip:{place.provider}:{free_port(place.provider)}", domain="rheintel.example", addresses=place.provider,
        next_hop=place.pbx_port(), accounts=[{"l_uuid": user, "expires": "0"} for user in USERS],
    )
    product.manage("domain", "set", "phones.example", "--next-hop", "devices")
    product.manage("device", "add", "100@phones.example", "--password-stdin", stdin="a long secret\n")
    ha1 = hashlib.md5(b"2000:phones.example:a long secret").hexdigest()
    product.manage("device", "add", "2000@phones.example", "--password-stdin", "--ha1", stdin=f"{ha1}\n")
    with contextlib.suppress(AssertionError):
        eventually(lambda: Stand(product, place, folder).options_ms(), 3, "the server answers its provider")
    return Stand(product, place, folder)


def dictionary(stand: Stand) -> str:
    path = stand.folder / "users.txt"
    path.write_text("\n".join([*USERS, "nobody", "admin", "1000", "99999"]) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("method", ["OPTIONS", "INVITE", "REGISTER"])
def test_svmap_finds_no_server(stand: Stand, method: str) -> None:
    found = stand.scan("svmap", "-m", method, source=stand.place.stranger)
    assert "found nothing" in found and "127.0.0.1" not in found, found


def test_the_scanner_finds_what_is_shown_to_it(stand: Stand) -> None:
    """From the provider's address it sees a server: the silence above is ours, not the scanner's."""
    found = stand.scan("svmap", source=stand.place.provider)
    assert f"127.0.0.1:{stand.product.sip[1]}" in found, found


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS"])
def test_svwar_finds_no_user_from_a_strangers_address(stand: Stand, method: str) -> None:
    before = stand.rules().get("stranger", 0)
    found = stand.scan("svwar", "-m", method, "-d", dictionary(stand), "--force", "--maximumtime=5")
    assert "found nothing" in found and not any(f"| {user}" in found for user in USERS), found
    assert stand.rules()["stranger"] > before, "it did ask"


def test_a_user_that_there_is_and_one_that_there_is_not_get_the_same_challenge(stand: Stand) -> None:
    answers = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.1.7", 0))
        sock.settimeout(2)
        via = "{}:{}".format(*sock.getsockname())
        for user in ("100", "888"):
            register = request("REGISTER", "sip:phones.example", via)
            register = register.replace(b"Max-Forwards", b"User-Agent: " + b"x" * 200 + b"\r\nMax-Forwards", 1)
            sock.sendto(register.replace(b"To: <sip:", b"To: <sip:" + user.encode() + b"@"), stand.product.sip)
            answer = re.sub(rb'(tag|branch|nonce|opaque)=[^;,\r]+|Call-ID: \w+', b"", sock.recv(4096))
            answers.append(answer.replace(user.encode(), b"user"))
    assert answers[0] == answers[1] and answers[0].startswith(b"SIP/2.0 401")


def test_svwar_finds_no_device_where_devices_may_register(stand: Stand) -> None:
    """Whoever is asked for gets the same challenge: those that there are, and those that there are not."""
    found = stand.scan(
        "svwar", "-m", "REGISTER", "-d", dictionary(stand), "--force",
        "--maximumtime=5", "--domain=phones.example",
    )
    assert "found nothing" in found and not any(f"| {user} " in found for user in ("100", "2000")), found


def test_svcrack_gets_no_challenge_that_it_could_answer(stand: Stand) -> None:
    """Its REGISTERs are shorter than any challenge, and its address is not proven."""
    words = stand.folder / "passwords.txt"
    words.write_text("\n".join([*(f"guess{number}" for number in range(60)), "a long secret"]) + "\n", encoding="utf-8")
    before = stand.rules().get("too_small", 0)
    found = stand.scan(
        "svcrack", "-u", "2000", "-d", str(words), "--domain=phones.example", "--maximumtime=5",
    )
    assert "a long secret" not in found and stand.rules()["too_small"] > before
    assert not stand.product.query("SELECT 1 FROM trunkmgr_location")


def test_a_stranger_on_tcp_is_banned_and_that_can_be_lifted(stand: Stand) -> None:
    product, address = stand.product, stand.place.stranger

    def connect() -> bool:
        """Whether anything came back before the connection ended."""
        with contextlib.suppress(OSError), socket.create_connection(product.sip, 5, (address, 0)) as sock:
            sock.sendall(request("OPTIONS", "sip:127.0.0.1", f"{address}:5060", transport="TCP"))
            return bool(sock.recv(100))
        return False

    assert not any(connect() for _ in range(15))
    eventually(lambda: address in product.manage("bans", "list").out, 10, "the ban is stored and listed")
    assert stand.options_ms() < 1000
    assert "1 ban ended." in product.manage("bans", "remove", address).out
    assert "No address is banned." in product.manage("bans", "list").out
    assert product.manage("bans", "remove", address, check=False).code != 0


def test_routes_tells_what_the_scanner_met(stand: Stand) -> None:
    told = stand.product.manage("routes", "--source", stand.place.stranger, "--ruri", "sip:100@127.0.0.1").out
    assert "stranger" in told and "none" in told
    told = stand.product.manage("routes", "--source", stand.place.provider, "--ruri", "sip:alice@127.0.0.1").out
    assert "inbound" in told and "alice" in told


FRAMING = {
    "two lengths that differ": (b"Content-Length: 0\r\nContent-Length: 5\r\n", b"SMUGG"),
    "a negative length": (b"Content-Length: -1\r\n", b""),
    "a length beyond all bounds": (b"Content-Length: 99999999999\r\n", b"x"),
    "a header without end": (b"X: " + b"x" * 200_000, b""),
}


@pytest.mark.parametrize("name", FRAMING)
@pytest.mark.checklist("M8")
def test_a_stream_that_lies_about_its_framing_ends(stand: Stand, name: str) -> None:
    """Also that of a configured peer: what follows is nobody's request."""
    lines, rest = FRAMING[name]
    smuggled = request("OPTIONS", "sip:smuggled@127.0.0.1", f"{stand.place.provider}:5060", transport="TCP")
    first = b"OPTIONS sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bK1\r\n"
    with socket.create_connection(stand.product.sip, 5, (stand.place.provider, 0)) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(first + lines + b"\r\n" + rest + smuggled)
        sock.settimeout(5)
        got = b""
        with contextlib.suppress(ConnectionError):
            while piece := sock.recv(65536):
                got += piece
    assert b"SIP/2.0 200" not in got, got
    assert stand.options_ms() < 1000 and "Traceback" not in stand.product.text


@pytest.mark.checklist("M8")
def test_a_hundred_slow_streams_of_a_peer_hold_nobody_up(stand: Stand) -> None:
    """Bytes that trickle in take none of the time of others, and a hundred connections of an address are the most."""
    slow = []
    for _ in range(110):
        sock = socket.create_connection(stand.product.sip, 5, (stand.place.pbx, 0))
        sock.setblocking(False)
        slow.append(sock)
    try:
        worst = 0.0
        for _ in range(8):
            for sock in slow:
                with contextlib.suppress(OSError):
                    sock.send(b"O")
            worst = max(worst, stand.options_ms())
        time.sleep(0.2)
        ended = len(select.select(slow, [], [], 0)[0])
        assert ended >= 10, "those above the hundredth are refused at once"
        assert worst < 500, worst
    finally:
        for sock in slow:
            sock.close()
