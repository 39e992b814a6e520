"""RFC 4475 and RFC 5118: what the proxy does with each message, and that it serves the next one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sipengine.message import parse
from tests.sipengine.net import PROXY, Net, reply

TESTDATA = Path(os.environ.get("SIP_TESTDATA", Path(__file__).resolve().parents[2].parent / "shared" / "testdata"))
pytestmark = pytest.mark.skipif(not TESTDATA.is_dir(), reason="no test data; set SIP_TESTDATA")

FORWARD, DROP = 0, -1
EXPECTED: dict[str, tuple[int, ...]] = {
    "badinv01.dat": (400,), "clerr.dat": (400,), "quotbal.dat": (400,), "lwsruri.dat": (400,), "lwsstart.dat": (400,),
    "escruri.dat": (FORWARD, 400), "regbadct.dat": (FORWARD, 400), "badaspec.dat": (400,),
    "baddn.dat": (400,),
    "mismatch01.dat": (400,), "mismatch02.dat": (501,), "badbranch.dat": (FORWARD, 400), "insuf.dat": (400,),
    "unkscm.dat": (416,), "multi01.dat": (400,), "scalarlg.dat": (DROP,), "bcast.dat": (DROP,),
    "unreason.dat": (DROP,),
    "ipv6-bad.dat": (400,),
    # within a dialog that is not ours
    "mult-ip-in-header.dat": (481,),
    # its body is shorter than its Content-Length
    "ipv6-in-sdp.dat": (400,),
}  # fmt: skip


def cases() -> list[Any]:
    found = []
    for folder in ("torture-rfc4475", "torture-rfc5118"):
        index = TESTDATA / folder / "index.json"
        if index.is_file():
            for entry in json.loads(index.read_text())["messages"]:
                found.append(pytest.param(TESTDATA / folder / entry["file"], id=entry["file"]))
    return found


@pytest.mark.rfc("4475", "3")
@pytest.mark.parametrize("path", cases())
def test_verdict(path: Path) -> None:
    net = Net()
    net.routing.decide = lambda context: (setattr(context, "du", b"sip:192.0.2.9:5060"), context.t_relay())
    data = path.read_bytes()
    if path.name == "wsinv.dat":
        data = data.replace(b" ;   tag    = 1918181833n", b"")  # else it belongs to a dialog that is not ours
    net.provider.send(data, PROXY)
    net.run(0.05)
    answers = [m for _, source, to, m in net.wire.sent if m.startswith(b"SIP/2.0") and source == PROXY]
    statuses = {parse(m).status for m in answers} - {100}
    forwarded = [m for m in net.phone.take() if not m.startswith(b"SIP/2.0")]
    verdict = FORWARD if forwarded else next(iter(statuses), DROP)
    assert verdict in EXPECTED.get(path.name, (FORWARD,)), statuses
    if forwarded:
        came, went = parse(data), parse(forwarded[0])
        assert went.body == came.body
        for key, line in zip(came.keys, came.lines, strict=True):
            if key not in (b"via", b"route", b"max-forwards"):
                assert line in went.lines
        assert b"?" not in went.ruri.partition(b"@")[2]
    net.send(net.provider, net.invite(b"after"))
    assert net.phone.take(), "the next call must be served"


def test_both_sides_of_a_folded_message_stay_byte_identical() -> None:
    data = (TESTDATA / "torture-rfc4475" / "wsinv.dat").read_bytes()
    assert parse(data).serialize() == data


@pytest.mark.rfc("3261", "7.3.1")
def test_every_message_of_the_rfcs_own_flows_comes_back_as_it_was() -> None:
    count = 0
    for path in sorted((TESTDATA / "rfc-flows").rglob("*.json")):
        for message in json.loads(path.read_text())["messages"]:
            data = message["raw"].encode()
            if message["content_length_declared"] is not None and message["content_length_ok"] is not True:
                continue  # the body was left out in print
            if b"Content-Length: 0\r\n " in data:
                continue  # the RFC's prose was taken for a folded line
            assert parse(data).serialize() == data, path
            count += 1
    assert count > 300


def test_the_status_line_of_a_foreign_response_does_no_harm() -> None:
    net = Net()
    net.send(net.phone, reply(parse(net.invite()), b"200 OK"))
    assert net.provider.take() == [] and net.endpoint.counters.bad == 1
