"""Phones that register here: baresip proves itself, is called through a trunk by SIPp, and calls out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.baresip import Phone
from tests.interop.conftest import Place
from tests.interop.peers import Capture, Sipp, assert_clean
from tests.interop.product import Embedded
from tests.interop.programs import eventually, free_port

pytestmark = pytest.mark.interop("baresip", "sipp")

PASSWORD = "phones-own-password"
TCP_FROM = "127.0.0.1"
"""baresip's connections leave from there whatever its Contact says: to us it is a phone behind NAT."""


@dataclass
class Stand:
    product: Embedded
    place: Place
    phone: Callable[..., Phone]

    @property
    def registrar(self) -> str:
        return f"sip:{self.product.sip[0]}:{self.product.sip[1]}"

    def bindings(self) -> list[tuple]:
        return self.product.query("SELECT username, contact, received FROM trunkmgr_location ORDER BY username")

    def call(self, sipp: Callable[..., Sipp], user: str, scenario: str = "caller") -> None:
        near = sipp(
            scenario, self.place.provider_port(), self.product.sip, count=1, users=[user], seconds=15, talk=0.5
        )
        assert_clean(near.result(), 1)


@pytest.fixture(scope="module")
def stand(
    trunkmgr_up: Callable[..., Embedded], place: Place, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stand]:
    product = trunkmgr_up({"TRUNKMGR_DEVICES_FROM": f"{place.stranger}/32,{TCP_FROM}/32"})
    product.provision(
        f"sip:{place.provider}:{free_port(place.provider)}", domain="rheintel.example", addresses=place.provider,
        next_hop=place.pbx_port(), accounts=[{"l_uuid": name, "expires": "0"} for name in ("udp", "tcp", "none")],
    )
    product.manage("domain", "set", "pbx.example", "--next-hop", "devices")
    for name in ("udp", "tcp", "none"):  # this baresip gives up when SHA-256 is offered
        product.manage(
            "device", "add", f"{name}@pbx.example", "--digest", "md5", "--password-stdin", stdin=PASSWORD + "\n"
        )
    time.sleep(1.5)  # the worker takes changes up within a second
    with ExitStack() as stack:

        def phone(user: str, transport: str = "udp", password: str = PASSWORD) -> Phone:
            folder: Path = tmp_path_factory.mktemp("phone") / user
            running = Phone(
                folder, f"sip:{user}@pbx.example", place.stranger_port(), registrar=stand.registrar,
                password=password, transport=transport,
            )
            stack.callback(running.stop)
            return running

        stand = Stand(product, place, phone)
        yield stand


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_phone_registers_and_is_called_through_a_trunk(
    stand: Stand, sipp: Callable[..., Sipp], transport: str
) -> None:
    phone = stand.phone(transport, transport)
    eventually(lambda: transport in [row[0] for row in stand.bindings()], 5, "the binding is in the table")
    [received] = [row[2] for row in stand.bindings() if row[0] == transport]
    came_from = TCP_FROM if transport == "tcp" else stand.place.stranger
    assert received.startswith(f"sip:{came_from}:") and received.endswith(f"transport={transport}")
    stand.call(sipp, transport)
    assert "200 OK" in phone.text
    ended = "SELECT code FROM trunkmgr_call WHERE l_uuid = ? AND ended_time IS NOT NULL"
    eventually(lambda: stand.product.query(ended, transport) == [(200,)], 5, "the call is on record")
    assert f"{transport}@pbx.example" in stand.product.manage("device", "bindings").out
    assert PASSWORD not in stand.product.text


def test_a_wrong_password_registers_nothing(stand: Stand, loopback_capture: Callable[..., Capture]) -> None:
    capture = loopback_capture(f"udp and host {stand.place.stranger} and port {stand.product.sip[1]}")
    phone = stand.phone("none", password="wrong")
    time.sleep(1.5)
    answers = [packet.status for packet in capture.stop() if packet.destination[0] == stand.place.stranger]
    phone.stop()
    assert answers and set(answers) == {401}
    assert "none" not in [row[0] for row in stand.bindings()]


def test_a_stranger_hears_nothing(stand: Stand, sipp: Callable[..., Sipp]) -> None:
    near = sipp("caller_unknown", stand.place.stranger_port(), stand.product.sip, count=1, users=["udp"], seconds=3)
    assert near.result().ok == 0


def test_a_restart_keeps_the_binding(stand: Stand, sipp: Callable[..., Sipp]) -> None:
    assert "udp" in [row[0] for row in stand.bindings()]
    stand.product.stop()
    stand.product.start()
    stand.call(sipp, "udp")


def test_a_removed_binding_is_not_called(stand: Stand, sipp: Callable[..., Sipp]) -> None:
    stand.product.manage("device", "bindings", "udp@pbx.example", "--remove")
    time.sleep(1.5)
    near = sipp("caller", stand.place.provider_port(), stand.product.sip, count=1, users=["udp"], seconds=5)
    result = near.result()
    assert result.ok == 0 and "480" in result.errors
