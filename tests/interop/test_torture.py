"""RFC 4475, RFC 5118 and PROTOS against the running server: the verdict of each message, and the next one is served.

Messages go out as they are in the files.  After each, a valid OPTIONS from the provider's address must be answered
within a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import Place
from tests.interop.product import Embedded
from tests.interop.programs import eventually

TESTDATA = Path(os.environ.get("SIP_TESTDATA", Path(__file__).resolve().parents[2].parent / "shared" / "testdata"))
PROTOS = TESTDATA / "protos-c07-sip" / "cases.tar.xz"
pytestmark = [
    pytest.mark.interop(),
    pytest.mark.skipif(not PROTOS.is_file(), reason="no test data; set SIP_TESTDATA"),
]

FORWARD, DROP = 0, -1
RUNS = 2
LIFETIME = 33.0
"""Of what a request leaves behind (64*T1), and a second more."""
LARGEST = 65507
"""What a datagram carries; PROTOS has larger ones, which go over TCP."""
OTHER_PORTS = (5050, 6050)
"""Answers go to the port of sent-by (§18.2.2): 5060 in nearly all messages, these in the rest."""
USERS = ("user", "vivekg", "UserB", "kumiko", "sips%3Auser%40example.com", "alice")
"""Those that valid INVITEs and MESSAGEs of the files are for; each is a trunk of ours."""

VERDICT: dict[str, int] = {
    # RFC 4475 §3.1.2: refused by syntax
    "badinv01": 400, "clerr": 400, "quotbal": 400, "lwsruri": 400, "lwsstart": 400, "badaspec": 400, "baddn": 400,
    "mismatch01": 400, "mismatch02": 501, "scalarlg": DROP,
    # its header part in the Request-URI is cut off and never becomes a Route
    "escruri": FORWARD,
    # §3.3: fields missing, twice there, or of an unknown scheme
    "insuf": 400, "multi01": 400, "unkscm": 416,
    # responses to nothing of ours: a 200 to the broadcast address, and one with 13 words of reason
    "bcast": DROP, "unreason": DROP,
    # we are no registrar (§10.2, §8.2.1); the RFC wants that the message is read and not answered 400
    "escnull": 405, "cparam01": 405, "cparam02": 405, "regescrt": 405, "regaut01": 405, "unksm2": 405,
    "regbadct": 405, "ipv6-good": 405, "port-unambiguous": 405,
    # OPTIONS are for us
    "lwsdisp": 200, "transports": 200, "badbranch": 200, "ipv6-correct-abnf-2-colons": 200,
    "via-received-param-no-delim": 200,
    "ipv6-bad": 400,
    # requests within a dialog that is not ours
    "wsinv": 481, "mult-ip-in-header": 481,
    # the RFC's printed body is shorter than its Content-Length; with that put right it is forwarded, see below
    "ipv6-in-sdp": 400,
}  # fmt: skip
"""Status of the answer; what is not named here is forwarded to the PBX."""

STREAM = {
    "clerr": DROP, "ipv6-in-sdp": DROP,  # a stream waits for the bytes that are announced
    "inv2543": 400,  # no Content-Length: where it ends nobody knows
}
MAY_CLOSE = {"inv2543", "clerr", "ipv6-in-sdp"}


class Pbx:
    """Keeps what arrives and declines every call at once; answers anything else 200."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(0.2)
        self.requests: list[bytes] = []
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped:
            try:
                data, source = self.socket.recvfrom(65535)
            except TimeoutError:
                continue
            except OSError:
                return
            self.requests.append(data)
            if data[:4] != b"ACK ":
                self.socket.sendto(answer(data, b"486 Busy Here" if data[:7] == b"INVITE " else b"200 OK"), source)

    def stop(self) -> None:
        self._stopped = True
        self._thread.join(2)
        self.socket.close()


def fields(data: bytes, *names: bytes) -> list[bytes]:
    """Whole header lines of these names, folded ones too."""
    head = data.partition(b"\r\n\r\n")[0]
    found = re.findall(rb"(?:^|\r\n)([^\s:]+)[ \t]*(:[^\r\n]*(?:\r\n[ \t][^\r\n]*)*)(?=\r\n|$)", head)
    return [name + rest for name, rest in found if name.lower() in names]


def answer(request: bytes, status: bytes) -> bytes:
    lines = fields(request, b"via", b"v", b"from", b"f", b"to", b"t", b"call-id", b"i", b"cseq")
    lines = [line + b";tag=pbx" if line[:2].lower() in (b"to", b"t:") else line for line in lines]
    return b"\r\n".join([b"SIP/2.0 " + status, *lines, b"Content-Length: 0", b"", b""])


class Provider:
    """The provider's socket: sends anything, and asks whether the server still answers."""

    def __init__(self, address: tuple[str, int], server: tuple[str, int]) -> None:
        self.address, self.server = address, server
        self.sockets = []
        for port in (address[1], *OTHER_PORTS):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
            sock.bind((address[0], port))
            self.sockets.append(sock)
        self.socket = self.sockets[0]
        self.asked = 0
        self.slowest = 0.0

    def options(self, transport: str = "UDP") -> tuple[bytes, bytes]:
        self.asked += 1
        call_id = b"alive-%d-%d" % (self.asked, self.address[1])
        host = b"%b:%d" % (self.address[0].encode(), self.address[1])
        return call_id, (
            b"OPTIONS sip:%b:%d SIP/2.0\r\nVia: SIP/2.0/%b %b;branch=z9hG4bK%b\r\nMax-Forwards: 70\r\n"
            b"From: <sip:probe@%b>;tag=1\r\nTo: <sip:%b:%d>\r\nCall-ID: %b\r\nCSeq: 1 OPTIONS\r\n"
            b"Content-Length: 0\r\n\r\n"
            % (self.server[0].encode(), self.server[1], transport.encode(), host, call_id, host,
               self.server[0].encode(), self.server[1], call_id)
        )  # fmt: skip

    def stop(self) -> None:
        for sock in self.sockets:
            sock.close()

    def rest(self, seconds: float) -> None:
        """Let time pass and read what comes: what is unread of repeated answers leaves no room for the next one."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            with contextlib.suppress(TimeoutError):
                self.socket.recv(65535)

    def alive(self, after: str) -> list[bytes]:
        """Ask, and return what came before the answer; fails when none comes within a second."""
        call_id, data = self.options()
        start = time.monotonic()
        self.socket.sendto(data, self.server)
        came: list[bytes] = []
        while True:
            self.socket.settimeout(max(0.001, start + 1 - time.monotonic()))
            try:
                message = self.socket.recv(65535)
            except TimeoutError:
                pytest.fail(f"After {after} a valid OPTIONS was not answered within 1 s.", pytrace=False)
            if call_id in message:
                assert message.startswith(b"SIP/2.0 200 "), message
                self.slowest = max(self.slowest, time.monotonic() - start)
                for other in self.sockets[1:]:
                    other.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        came.append(other.recv(65535))
                return came
            came.append(message)


class Stand:
    def __init__(self, product: Embedded, provider: Provider, pbx: Pbx) -> None:
        self.product, self.provider, self.pbx = product, provider, pbx
        self.seen: set[bytes] = set()

    def memory(self) -> float:
        """Resident MB of the server."""
        status = Path(f"/proc/{self.product.programs['up'].pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024

    def counters(self) -> dict[str, int]:
        nodes = json.loads(self.product.manage("status", "--json").out)["nodes"]
        counters: dict[str, int] = nodes[0]["counters"]
        return counters


@pytest.fixture(scope="module")
def stand(trunkmgr_up: Callable[..., Embedded], place: Place) -> Iterator[Stand]:
    product = trunkmgr_up()
    address = place.pbx_port()
    pbx = Pbx(address)
    provider = Provider((place.provider, 5060), product.sip)
    product.provision(
        f"sip:{provider.address[0]}:9",
        domain="rheintel.example",
        addresses=provider.address[0],
        next_hop=address,
        accounts=[
            {"l_uuid": user, "l_username": f"pbx{i}", "inbound_identity": "keep"} for i, user in enumerate(USERS)
        ],
    )
    yield Stand(product, provider, pbx)
    pbx.stop()
    provider.stop()


def torture() -> list[Any]:
    found = []
    for folder in ("torture-rfc4475", "torture-rfc5118"):
        index = TESTDATA / folder / "index.json"
        if index.is_file():
            for entry in json.loads(index.read_text())["messages"]:
                found.append(pytest.param(TESTDATA / folder / entry["file"], id=Path(entry["file"]).stem))
    return found


def identity(data: bytes) -> bytes:
    """What tells the answers to a message from others: its Call-ID, else its branch."""
    calls = fields(data, b"call-id", b"i")
    return calls[0].partition(b":")[2].strip() if calls else branch_of(data)


def branch_of(data: bytes) -> bytes:
    found = re.search(rb"branch=[^\s;,]+", data)
    return found[0] if found else data[:40]


def verdict(stand: Stand, data: bytes, answers: list[bytes], before: int, expected: int) -> int:
    finals = {int(m[8:11]) for m in answers if m.startswith(b"SIP/2.0 ") and identity(data) in m} - {100}

    def forwarded() -> bool:
        # The ACK of an earlier one may come in between.
        return any(d[:4] != b"ACK " and identity(data) in d for d in stand.pbx.requests[before:])

    if expected == FORWARD:
        eventually(forwarded, 1, "the PBX gets the request")
    return FORWARD if forwarded() else next(iter(finals), DROP)


@pytest.mark.rfc("4475", "3")
@pytest.mark.rfc("5118", "4")
@pytest.mark.parametrize("path", torture())
def test_torture_over_udp(stand: Stand, path: Path) -> None:
    expected = VERDICT.get(path.stem, FORWARD)
    before = len(stand.pbx.requests)
    data = path.read_bytes()
    if identity(data) in stand.seen or branch_of(data) in stand.seen:
        # some files share a branch, and the second would be a retransmission of the first
        data = again(path, b"Y%d" % len(stand.seen))
    stand.seen |= {identity(data), branch_of(data)}
    stand.provider.socket.sendto(data, stand.product.sip)
    answers = stand.provider.alive(path.stem)
    assert verdict(stand, data, answers, before, expected) == expected, answers
    if expected == FORWARD:
        went = next(d for d in stand.pbx.requests[before:] if d[:4] != b"ACK " and identity(data) in d)
        assert went.partition(b"\r\n\r\n")[2] == body_of(data), "the body is the sender's business"
        untouched = (b"from", b"f", b"to", b"t", b"call-id", b"i", b"cseq", b"subject", b"s", b"content-type", b"c")
        for line in fields(data, *untouched):
            assert line in went, "what nobody edits leaves as it came"
        assert b"?" not in went.split(b" ", 2)[1]
        assert b"\r\nRoute:" not in went


def again(path: Path, mark: bytes) -> bytes:
    """The message as another request: its Call-ID and branch are new."""
    data = path.read_bytes()
    if fields(data, b"call-id", b"i"):
        data = data.replace(identity(data), mark + identity(data)[1:])
    return data.replace(b"branch=z9hG4bK", b"branch=z9hG4bK" + mark, 1)


def body_of(data: bytes) -> bytes:
    body = data.partition(b"\r\n\r\n")[2]
    length = fields(data, b"content-length", b"l")
    return body[: int(length[0].partition(b":")[2])] if length else body


@pytest.mark.rfc("4475", "3.1.1.1")
@pytest.mark.rfc("5118", "4.6")
@pytest.mark.parametrize(("name", "old", "new"), [
    ("torture-rfc4475/wsinv", b" ;   tag    = 1918181833n", b""),
    ("torture-rfc5118/ipv6-in-sdp", b"268", b"251"),
])  # fmt: skip
def test_valid_messages_of_a_dialog_or_length_that_is_not_ours(
    stand: Stand, name: str, old: bytes, new: bytes
) -> None:
    """wsinv without its To tag opens a dialog; ipv6-in-sdp has the body that its Content-Length says."""
    data = again(TESTDATA / f"{name}.dat", b"X").replace(old, new, 1)
    before = len(stand.pbx.requests)
    stand.provider.socket.sendto(data, stand.product.sip)
    stand.provider.alive(name)
    assert verdict(stand, data, [], before, FORWARD) == FORWARD
    went = next(d for d in stand.pbx.requests[before:] if d[:4] != b"ACK " and identity(data) in d)
    for line in fields(data, b"newfangledheader", b"unknownheaderwithunusualvalue", b"s", b"contact", b"m", b"v"):
        assert line in went


@pytest.mark.rfc("3261", "18.3")
@pytest.mark.parametrize("path", torture())
def test_torture_over_tcp(stand: Stand, path: Path) -> None:
    """Framed by Content-Length; where that fails the connection ends, else it serves the next request."""
    expected = STREAM.get(path.stem, VERDICT.get(path.stem, FORWARD))
    data = again(path, b"Z")
    if path.stem == "baddn":
        data += b"\r\n"  # its last line end is missing, which only a datagram forgives
    if path.stem == "mult-ip-in-sdp":
        data = data[: data.index(b"\r\n\r\n") + 4 + 181]  # on a stream its printed rest would be the next message
    before = len(stand.pbx.requests)
    call_id, options = stand.provider.options("TCP")
    with socket.create_connection(
        stand.product.sip, timeout=2, source_address=(stand.provider.address[0], 0)
    ) as stream:
        stream.sendall(data + (b"" if path.stem in MAY_CLOSE else options))
        if path.stem in STREAM and expected == DROP:
            stream.settimeout(0.3)
        came = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while call_id not in came and (part := stream.recv(65535)):
                came += part
    answers = [b"SIP/2.0 " + part for part in came.split(b"SIP/2.0 ")[1:] if call_id not in part]
    answers = [m for m in answers if not m.startswith((b"SIP/2.0 UDP", b"SIP/2.0/"))]
    assert (call_id in came) == (path.stem not in MAY_CLOSE), came
    assert verdict(stand, data, answers, before, expected) == expected, came
    stand.provider.alive(path.stem)


def protos(provider: tuple[str, int], server: tuple[str, int], run: int) -> Iterator[tuple[str, bytes, bytes]]:
    """Name, INVITE and ACK of each case; placeholders hold our addresses."""
    host, port = provider[0].encode(), b"%d" % provider[1]
    with tarfile.open(PROTOS) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            text = file.read() if file is not None else b""
            size, _, rest = text.partition(b" ")
            if not size.isdigit():
                continue
            teardown = rest[int(size) :].partition(b" ")[2]
            number = member.name.rsplit("/", 1)[-1].encode()
            values = {
                b"To": b"alice@%b:%d" % (server[0].encode(), server[1]), b"From": b"probe@" + host, b"CSeq": b"1",
                b"From-Address": host, b"From-IP": host, b"Local-Port": port, b"Branch-ID": b"x%d" % run,
                b"Call-ID": b"protos%d-%b" % (run, number), b"Teardown-Method": b"ACK",
            }  # fmt: skip
            data = rest[: int(size)]
            for name, value in values.items():
                data = data.replace(b"<" + name + b">", value)
                teardown = teardown.replace(b"<" + name + b">", value)
            body = data.partition(b"\r\n\r\n")[2]
            yield member.name, data.replace(b"<Content-Length>", b"%d" % len(body)), teardown


@pytest.mark.rfc("4475", "3")
@pytest.mark.timeout(400)
@pytest.mark.checklist("M15")
def test_protos(stand: Stand, record_property: Callable[[str, object], None]) -> None:
    """3,085 malformed INVITEs; after each a valid OPTIONS is answered within 1 s.

    What they leave behind lives 32 s; then the same again must fit into the memory that the first run took.
    """
    tried = 0
    statuses: dict[str, int] = {}
    before = len(stand.pbx.requests)
    memory: list[float] = []
    for run in range(RUNS):
        if run:
            stand.provider.rest(LIFETIME)
        for name, invite, ack in protos(stand.provider.address, stand.product.sip, run):
            if len(invite) > LARGEST:
                with (
                    contextlib.suppress(ConnectionError),  # it may be refused before all of it was sent
                    socket.create_connection(
                        stand.product.sip, timeout=2, source_address=(stand.provider.address[0], 0)
                    ) as stream,
                ):
                    stream.sendall(invite)
            else:
                stand.provider.socket.sendto(invite, stand.product.sip)
            answers = stand.provider.alive(name)
            if len(ack) <= LARGEST and any(m.startswith(b"SIP/2.0 ") and m[8:9] > b"1" for m in answers):
                stand.provider.socket.sendto(ack, stand.product.sip)
            for message in answers:
                status = message[8:11].decode()
                statuses[status] = statuses.get(status, 0) + 1
            tried += 1
        memory.append(stand.memory())
    assert tried == 3085 * RUNS
    assert "Traceback" not in stand.product.text
    assert "could not be served" not in stand.product.text
    assert memory[-1] - memory[-2] < 12, f"{memory} MB after each run of 3,085"
    forwarded = len([d for d in stand.pbx.requests[before:] if d[:4] != b"ACK "])
    record_property(
        "figure",
        f"PROTOS: {tried:,} malformed INVITEs tried, {forwarded:,} requests forwarded, answers {statuses}; "
        f"slowest OPTIONS after one {stand.provider.slowest * 1000:.0f} ms; "
        f"MB after each 3,085: {', '.join(f'{mb:.0f}' for mb in memory)}.",
    )
    counters = stand.counters()
    assert counters["bad"] > 100, "what is no message is counted"
    assert counters["hook_failures"] == 0
