"""Calls from the provider through trunkmgr to the PBX: SIPp at both ends judges every message that it gets."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.interop.conftest import Place
from tests.interop.peers import Capture, Sipp, assert_clean
from tests.interop.product import Embedded
from tests.interop.programs import eventually, free_port

pytestmark = pytest.mark.interop("sipp")

ACCOUNTS = [f"acc{number}" for number in range(10)]


@dataclass
class Stand:
    product: Embedded
    pbx: tuple[str, int]
    place: Place


@pytest.fixture(scope="module")
def stand(trunkmgr_up: Callable[..., Embedded], place: Place) -> Stand:
    """Accounts that hide the caller, and one that shows it. No registrar answers: calls do not need one."""
    product, pbx = trunkmgr_up(), place.pbx_port()
    product.provision(
        f"sip:{place.provider}:{free_port(place.provider)}",
        domain="rheintel.example",
        addresses=place.provider,
        next_hop=pbx,
        accounts=[*({"l_uuid": name} for name in ACCOUNTS), {"l_uuid": "shown", "inbound_identity": "keep"}],
    )
    return Stand(product, pbx, place)


def place_calls(
    sipp: Callable[..., Sipp],
    stand: Stand,
    caller: str,
    callee: str,
    count: int,
    rate: float,
    users: list[str] | None = None,
) -> None:
    """Run both ends and fail with SIPp's own words when a call of either did not go as its scenario says."""
    far = sipp(callee, stand.pbx, count=count, seconds=count / rate + 20)
    near = sipp(
        caller,
        stand.place.provider_port(),
        stand.product.sip,
        count=count,
        rate=rate,
        users=users or ACCOUNTS,
        seconds=count / rate + 20,
    )
    result = near.result()
    far_result = far.result()
    assert_clean(far_result, count)
    assert_clean(result, count)


def test_fifty_calls_a_second_for_twenty_seconds(sipp: Callable[..., Sipp], stand: Stand) -> None:
    place_calls(sipp, stand, "caller", "callee", count=1000, rate=50)
    eventually(
        lambda: (
            stand.product.query("SELECT count(*) FROM trunkmgr_call WHERE ended_time IS NOT NULL AND code = 200")[0][0]
            >= 1000
        ),
        5,
        "every call is in the call table, ended",
    )


def test_the_callee_hangs_up(sipp: Callable[..., Sipp], stand: Stand) -> None:
    place_calls(sipp, stand, "caller_hears_bye", "callee_hangs_up", count=50, rate=25)


def test_the_caller_cancels(sipp: Callable[..., Sipp], stand: Stand) -> None:
    place_calls(sipp, stand, "caller_cancels", "callee_cancelled", count=50, rate=25)


def test_an_account_that_keeps_the_identity_shows_the_caller(sipp: Callable[..., Sipp], stand: Stand) -> None:
    place_calls(sipp, stand, "caller", "callee_sees_caller", count=5, rate=10, users=["shown"])


def test_an_unknown_user_gets_404(sipp: Callable[..., Sipp], stand: Stand) -> None:
    near = sipp("caller_unknown", stand.place.provider_port(), stand.product.sip, count=5, rate=10, users=["nobody"])
    assert_clean(near.result(), 5)


def test_body_via_and_call_id_pass_unchanged(
    sipp: Callable[..., Sipp], stand: Stand, loopback_capture: Callable[..., Capture]
) -> None:
    capture = loopback_capture(f"udp and (port {stand.product.sip[1]} or port {stand.pbx[1]})")
    place_calls(sipp, stand, "caller", "callee", count=1, rate=1)
    packets = capture.stop()
    (came,) = [p for p in packets if p.method == "INVITE" and p.destination == stand.product.sip]
    (left,) = [p for p in packets if p.method == "INVITE" and p.destination == stand.pbx]
    assert left.source == stand.product.sip
    assert left.text.split("\r\n\r\n", 1)[1] == came.text.split("\r\n\r\n", 1)[1]
    assert left.header("Call-ID") == came.header("Call-ID")
    assert left.header("Max-Forwards") == ["69"]
    assert len(left.header("Via")) == 2
    assert left.header("Via")[1].startswith(came.header("Via")[0])
    assert "4915112345678" not in "".join(p.text for p in packets if p.destination == stand.pbx)


def test_a_stranger_gets_nothing_and_places_no_call(
    stand: Stand, sipp: Callable[..., Sipp], loopback_capture: Callable[..., Capture]
) -> None:
    capture = loopback_capture(f"udp and (host {stand.place.stranger} or port {stand.pbx[1]})")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(stand.place.stranger_port())
        stranger.settimeout(1.0)
        host, port = stranger.getsockname()
        for method in ("INVITE", "OPTIONS", "REGISTER", "BYE"):
            stranger.sendto(
                (
                    f"{method} sip:{ACCOUNTS[0]}@127.0.0.1:{stand.product.sip[1]} SIP/2.0\r\n"
                    f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK-{method}\r\nMax-Forwards: 70\r\n"
                    f"From: <sip:mallory@{host}>;tag=m\r\nTo: <sip:{ACCOUNTS[0]}@127.0.0.1>\r\n"
                    f"Call-ID: {method}@{host}\r\nCSeq: 1 {method}\r\n"
                    f"Contact: <sip:mallory@{host}:{port}>\r\nContent-Length: 0\r\n\r\n"
                ).encode(),
                stand.product.sip,
            )
        with contextlib.suppress(TimeoutError):
            pytest.fail(f"The stranger got an answer: {stranger.recv(4096)!r}")
    packets = capture.stop()
    assert len([p for p in packets if p.destination == stand.product.sip]) == 4, "the capture saw the stranger"
    assert [p.start_line for p in packets if p.destination != stand.product.sip] == []
    time.sleep(0.2)
    assert stand.product.query("SELECT count(*) FROM trunkmgr_call WHERE caller LIKE '%mallory%'") == [(0,)]
