"""Calls of the PBX through trunkmgr to a provider that asks who calls: SIPp at both ends, Kamailio as the provider.

What went over the wire is judged too: each side sees its own identities and its own CSeq numbers in every message.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.baresip import Phone
from tests.interop.conftest import Place
from tests.interop.peers import Capture, Packet, Sipp, assert_clean
from tests.interop.product import Embedded
from tests.interop.programs import Program, eventually, free_port, program

pytestmark = pytest.mark.interop("kamailio", "sipp")

USERS = ["once", "twice", "within"]
"""Accounts that the provider asks once (407), for two realms (407, 401), and within their calls too."""


@dataclass
class Stand:
    product: Embedded
    edge: tuple[str, int]
    behind: tuple[str, int]
    pbx: tuple[str, int]


@pytest.fixture(scope="module")
def stand(trunkmgr_up: Callable[..., Embedded], folder: Path, place: Place) -> Iterator[Stand]:
    edge = place.provider_port()
    behind = place.provider_2, free_port(place.provider_2)
    control = f"unix:{folder / 'provider_ctl'}"
    provider = Program(
        [
            program("kamailio"), "-DD", "-E", "-f", str(Path(__file__).parent / "conf" / "provider.cfg"),
            "-Y", str(folder), "-w", str(folder), "-m", "64", "-A", f"LISTEN=udp:{edge[0]}:{edge[1]}",
            "-A", f'CONTROL="{control}"', "-A", f'PEER="sip:{behind[0]}:{behind[1]}"',
        ],
        log=folder / "provider.log",
    )
    try:
        product, pbx = trunkmgr_up(), place.pbx_port()
        product.provision(
            f"sip:{edge[0]}:{edge[1]}", domain="rheintel.example", addresses=place.provider, next_hop=pbx,
            accounts=[{"l_uuid": name, "expires": "0"} for name in USERS],
        )
        time.sleep(1.5)  # the worker takes changes up within a second
        yield Stand(product, edge, behind, pbx)
    finally:
        provider.stop(5)


def call(
    stand: Stand, sipp: Callable[..., Sipp], pbx: str, behind: str, *, count: int = 6, talk: float = 0.3,
    during: Callable[[Sipp], None] | None = None,
) -> None:
    far = sipp(behind, stand.behind, count=count, talk=talk, seconds=40)
    near = sipp(pbx, stand.pbx, stand.product.sip, count=count, rate=10, users=USERS, talk=talk, seconds=40)
    if during is not None:
        during(far)
    result, far_result = near.result(), far.result()
    assert_clean(far_result, count)
    assert_clean(result, count)


def apart(stand: Stand, packets: list[Packet], count: int) -> None:
    """Every message of each side is its own, by identity and by number."""
    placed = [packet for packet in packets if packet.method == "INVITE" and packet.source == stand.pbx]
    calls = {packet.header("Call-ID")[0] for packet in placed}
    assert len(calls) == count
    for call_id in calls:
        of_call = [packet for packet in packets if packet.header("Call-ID")[0] == call_id]
        _identities(stand, of_call)
        _numbers([p for p in of_call if p.source == stand.product.sip and p.destination == stand.edge])
        asked = {_cseq(p) for p in of_call if p.source == stand.pbx and p.method}
        for packet in of_call:
            if packet.destination == stand.pbx and packet.status:
                assert _cseq(packet) in asked, f"the PBX never sent what this answers:\n{packet.text}"


def _cseq(packet: Packet) -> tuple[int, str]:
    number, method = packet.header("CSeq")[0].split()
    return int(number), method


def _identities(stand: Stand, packets: list[Packet]) -> None:
    for packet in packets:
        if packet.destination == stand.edge and packet.source == stand.product.sip:
            for secret in ("@pbx.example", "robert@"):
                assert secret not in packet.text, packet.text
        elif packet.destination == stand.pbx:
            for secret in ("@rheintel.example", "uthenticate:", "uthorization:"):
                assert secret not in packet.text, packet.text


def _numbers(packets: list[Packet]) -> None:
    """What the provider gets rises with each new request; ACK, CANCEL and RAck name an INVITE that it got."""
    highest, seen, invites = 0, set(), set()
    for packet in packets:
        if not packet.method:
            continue
        number, method = _cseq(packet)
        branch = packet.header("Via")[0]
        if method in ("ACK", "CANCEL"):
            assert number in invites, packet.text
            continue
        if branch in seen:
            continue
        seen.add(branch)
        assert number > highest, packet.text
        highest = number
        if method == "INVITE":
            invites.add(number)
        for rack in packet.header("RAck"):
            assert int(rack.split()[1]) in invites, packet.text


@pytest.mark.checklist("G5")
@pytest.mark.checklist("I1")
@pytest.mark.parametrize(
    ("pbx", "behind"),
    [
        ("pbx_calls", "provider_takes"), ("pbx_hears_bye", "provider_hangs_up"), ("pbx_cancels", "provider_rings"),
        ("pbx_is_refused", "provider_is_busy"), ("pbx_talks", "provider_talks"),
    ],
)  # fmt: skip
def test_each_side_sees_its_own(
    stand: Stand, sipp: Callable[..., Sipp], loopback_capture: Callable[..., Capture], pbx: str, behind: str
) -> None:
    capture = loopback_capture(f"udp and port {stand.product.sip[1]}")
    call(stand, sipp, pbx, behind)
    packets = capture.stop()
    apart(stand, packets, 6)
    assert {packet.status for packet in packets if packet.source == stand.edge} >= {401, 407}


def test_a_call_that_was_up_survives_a_crash(
    stand: Stand, sipp: Callable[..., Sipp], loopback_capture: Callable[..., Capture]
) -> None:
    capture = loopback_capture(f"udp and port {stand.product.sip[1]}")

    def crash(far: Sipp) -> None:
        eventually(lambda: far.messages.count("ACK sip:") >= 3, 8, "the calls are up")
        time.sleep(0.5)
        stand.product.kill()
        stand.product.start()

    call(stand, sipp, "pbx_calls", "provider_takes", count=3, talk=8, during=crash)
    apart(stand, capture.stop(), 3)


def test_outbound_calls_are_recorded(stand: Stand, sipp: Callable[..., Sipp]) -> None:
    call(stand, sipp, "pbx_calls", "provider_takes", count=3)
    expected = {(name, f"sip:{name}@pbx.example", "+49401") for name in USERS}
    eventually(
        lambda: expected
        <= set(
            stand.product.query(
                "SELECT l_uuid, caller, callee FROM trunkmgr_call "
                "WHERE direction = 'out' AND code = 200 AND ended_time IS NOT NULL"
            )
        ),
        5,
        "the calls are in the table",
    )


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[Callable[[str, tuple[str, int]], Phone]]:
    """A starter of phones: `phone("sip:twice@pbx.example", local)`; all are ended with the test."""
    with ExitStack() as stack:

        def start(aor: str, local: tuple[str, int]) -> Phone:
            running = Phone(tmp_path / f"{local[0]}-{local[1]}", aor, local)
            stack.callback(running.stop)
            return running

        yield start


@pytest.mark.interop("baresip")
@pytest.mark.parametrize("ends", ["caller", "callee"])
def test_phones_talk_in_both_directions(
    stand: Stand, place: Place, phone: Callable[[str, tuple[str, int]], Phone], ends: str
) -> None:
    ours = phone("sip:twice@pbx.example", stand.pbx)
    far = phone("sip:+49401234@behind.example", stand.behind)
    calling_in = phone("sip:+4930555@rheintel.example", place.provider_port())
    sut = f"{stand.product.sip[0]}:{stand.product.sip[1]}"

    def talk(caller: Phone, callee: Phone, number: str) -> None:
        caller.dial(f"sip:{number}@{sut}")
        eventually(lambda: caller.talks_to() and callee.talks_to(), 10, "both phones are in the call")
        (caller if ends == "caller" else callee).hang_up()
        eventually(lambda: not caller.talks_to() and not callee.talks_to(), 5, "both phones are out of the call")

    talk(ours, far, "+49401234")
    talk(calling_in, ours, "twice")
    ended = "SELECT direction, code FROM trunkmgr_call WHERE ended_time IS NOT NULL ORDER BY id DESC LIMIT 2"
    eventually(
        lambda: sorted(stand.product.query(ended)) == [("in", 200), ("out", 200)], 5, "both calls are on record"
    )


def test_a_wrong_password_is_a_403_and_two_invites(
    stand: Stand, sipp: Callable[..., Sipp], loopback_capture: Callable[..., Capture]
) -> None:
    stand.product.manage("uacreg", "edit", "once", "--password-stdin", stdin="wrong\n")
    time.sleep(1.5)
    capture = loopback_capture(f"udp and port {stand.product.sip[1]}")
    near = sipp("pbx_is_refused", stand.pbx, stand.product.sip, count=1, users=["once"], seconds=10)
    near.result()
    packets = capture.stop()
    sent = {p.header("Via")[0] for p in packets if p.method == "INVITE" and p.destination == stand.edge}
    assert len(sent) <= 3
    answers = [p for p in packets if p.destination == stand.pbx and p.status >= 300]
    assert answers[0].status == 403 and "refused the credentials" in answers[0].start_line
    assert not [p for p in answers if p.status in (401, 407)]
