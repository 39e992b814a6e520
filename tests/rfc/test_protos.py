"""The PROTOS suite (Oulu, c07-sip): hostile INVITEs change nothing for the next call and leave nothing behind."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.sipengine.net import PROVIDER, Net

TESTDATA = Path(os.environ.get("SIP_TESTDATA", Path(__file__).resolve().parents[2].parent / "shared" / "testdata"))
CASES = TESTDATA / "protos-c07-sip" / "cases.tar.xz"


def cases() -> Any:
    """Each case is `LENGTH SP datagram LENGTH SP teardown` with placeholders."""
    with tarfile.open(CASES) as archive:
        for number, member in enumerate(archive):
            file = archive.extractfile(member) if member.isfile() else None
            size, _, rest = file.read().partition(b" ") if file is not None else (b"", b"", b"")
            if not size.isdigit():
                continue
            data = rest[: int(size)]
            for name, value in {
                b"To": b"sip:acc1@192.0.2.5", b"From": b"sip:a@192.0.2.1", b"From-Address": b"192.0.2.1", b"CSeq": b"1",
                b"From-IP": b"192.0.2.1", b"Local-Port": b"5060", b"Branch-ID": b"z9hG4bK%d" % number,
                b"Call-ID": b"protos%d" % number,
            }.items():  # fmt: skip
                data = data.replace(b"<" + name + b">", value)
            body = data.partition(b"\r\n\r\n")[2]
            yield data.replace(b"<Content-Length>", b"%d" % len(body))


@pytest.mark.skipif(not CASES.is_file(), reason="no test data; set SIP_TESTDATA")
def test_hostile_invites(caplog: pytest.LogCaptureFixture) -> None:
    net = Net()
    flow = net.endpoint.flow_for(net.endpoint.listeners[0], PROVIDER)
    net.routing.decide = lambda context: (setattr(context, "ruri", b"sip:acc1@x"), net.routing.inbound(context))
    count = 0
    for data in cases():
        net.endpoint.receive(data, flow, count / 100)
        net.endpoint.out.clear()
        net.endpoint.events.clear()
        count += 1
    assert count > 3000 and net.endpoint.counters.calls > 1000
    assert "could not be served" not in caplog.text and net.endpoint.counters.hook_failures == 0
    net.wire.now = 60.0
    net.establish(b"after")
    net.run(50000)
    assert set(net.endpoint.live.values()) == {0}
