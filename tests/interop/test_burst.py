"""A cold start of 1,000 accounts at a registrar that verifies every digest and counts what comes twice."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.conftest import Place
from tests.interop.product import Embedded
from tests.interop.programs import ROOT, Program, eventually, free_port, program

pytestmark = pytest.mark.interop("gcc")

ACCOUNTS = 1000


class CountingRegistrar:
    """`bench/helpers/registrar.c`: fast enough not to be the bottleneck, and exact about repeated requests."""

    def __init__(self, folder: Path, host: str) -> None:
        binary = folder / "registrar"
        subprocess.run([program("gcc"), "-O2", "-o", binary, ROOT / "bench" / "helpers" / "registrar.c"], check=True)
        self.host, self.port, self._control = host, free_port(host), free_port(host)
        self._program = Program(
            [str(binary), "-a", host, "-p", str(self.port), "-c", str(self._control)], log=folder / "registrar.log"
        )
        eventually(lambda: "ready" in self._program.text, 5, "the registrar starts")

    def stats(self) -> dict[str, float]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            control.settimeout(2)
            control.sendto(b"stats", (self.host, self._control))
            return json.loads(control.recv(4096))

    def stop(self) -> None:
        self._program.stop(2)


@pytest.fixture
def registrar(tmp_path: Path, place: Place) -> Iterator[CountingRegistrar]:
    running = CountingRegistrar(tmp_path, place.provider)
    yield running
    running.stop()


def test_a_thousand_accounts_register_within_ten_seconds_without_repeating(
    registrar: CountingRegistrar, trunkmgr_up: Callable[..., Embedded], place: Place
) -> None:
    product = trunkmgr_up(start=False)
    product.manage("migrate", "--noinput")
    product.provision(
        f"sip:{registrar.host}:{registrar.port}",
        domain="bench",
        addresses=place.provider,
        next_hop=(place.pbx, 5060),
        accounts=[{"l_uuid": f"acc{number:06d}"} for number in range(ACCOUNTS)],
    )
    start = time.monotonic()
    product.start()
    eventually(
        lambda: registrar.stats()["aors_ok"] >= ACCOUNTS,
        10 - (time.monotonic() - start),
        "all accounts are registered",
        0.1,
    )
    time.sleep(2)  # what was sent twice would arrive now
    stats = registrar.stats()
    assert stats["t_lastnew"] - start < 10
    assert stats["badauth"] == 0
    assert stats["dup_unauth"] + stats["dup_auth"] == 0, "REGISTERs were retransmitted"
    assert stats["req"] == 2 * ACCOUNTS
    eventually(
        lambda: product.query("SELECT count(*) FROM trunkmgr_registration WHERE state = 'registered'") == [(ACCOUNTS,)],
        10,
        "the table says registered for all",
    )
