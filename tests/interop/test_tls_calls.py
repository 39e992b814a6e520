"""Calls that are TLS from end to end: baresip as a device and Kamailio as a PBX on our side, Kamailio as the provider.

The PBX checks our certificate by the file of an authority, and we those of PBX and provider; Debian's baresip (1.0)
takes any.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.interop.baresip import Phone
from tests.interop.conftest import Place
from tests.interop.peers import Sipp, assert_clean, tls_peer
from tests.interop.product import Embedded
from tests.interop.programs import eventually, free_port

pytestmark = pytest.mark.interop("baresip", "kamailio", "sipp")

DOMAIN = "rheintel.example"
PASSWORD = "phones-own-password"


@dataclass
class Stand:
    product: Embedded
    provider: tuple[str, int]
    """Its UDP socket, for callers."""
    behind: tuple[str, int]
    """Whom it calls: the callee of calls out."""
    pbx: tuple[str, int]
    """UDP socket of the PBX, for its phones."""
    phone_of_pbx: tuple[str, int]
    registrar: str

    def bindings(self) -> list[tuple]:
        return self.product.query("SELECT username, received FROM trunkmgr_location")

    def calls(self, l_uuid: str) -> list[tuple]:
        ended = "SELECT direction, code FROM trunkmgr_call WHERE l_uuid = ? AND ended_time IS NOT NULL"
        return sorted(self.product.query(ended, l_uuid))


@pytest.fixture(scope="module")
def stand(trunkmgr_up: Callable[..., Embedded], place: Place, folder: Path) -> Iterator[Stand]:
    authority, secure = Authority(folder), free_port()
    ours = authority.issue("ours", ip=("127.0.0.1",))
    provider, behind = place.provider_port(), (place.provider_2, free_port(place.provider_2))
    pbx, phone_of_pbx = place.pbx_port(), place.pbx_port()
    provider_at, pbx_at = free_port(place.provider), free_port(place.pbx)
    with ExitStack() as stack:
        stack.callback(tls_peer(
            folder, "provider", provider, provider_at, authority.issue("provider", dns=(DOMAIN,)),
            PEER=f"sip:{behind[0]}:{behind[1]}",
        ).stop, 5)  # fmt: skip
        stack.callback(tls_peer(
            folder, "pbx", pbx, pbx_at, authority.issue("pbx", ip=(place.pbx,)), CA=str(authority.path),
            TRUNKS=f"sip:127.0.0.1:{secure};transport=tls", PEER=f"sip:{phone_of_pbx[0]}:{phone_of_pbx[1]}",
        ).stop, 5)  # fmt: skip
        product = trunkmgr_up(start=False)
        product.env["TRUNKMGR_SIP_LISTEN"] += f",tls:127.0.0.1:{secure}"
        product.env |= {
            "TRUNKMGR_TLS_CERTIFICATE": str(ours.certificate), "TRUNKMGR_TLS_KEY": str(ours.key),
            "TRUNKMGR_TLS_CA": str(authority.path), "TRUNKMGR_HOSTS": f"{DOMAIN}={place.provider}",
            "TRUNKMGR_DEVICES_FROM": "127.0.0.1/32",
        }  # fmt: skip
        product.start()
        product.provision(
            f"sip:{DOMAIN}:{provider_at};transport=tls", domain=DOMAIN, addresses=place.provider, next_hop=pbx,
            accounts=[{"l_uuid": "alice"}, {"l_uuid": "phone", "l_domain": "phones.example"}],
        )  # fmt: skip
        product.manage("domain", "set", "pbx.example", "--next-hop", f"sip:{place.pbx}:{pbx_at};transport=tls")
        product.manage("domain", "set", "phones.example", "--next-hop", "devices")
        product.manage(
            "device", "add", "phone@phones.example", "--digest", "md5", "--password-stdin", stdin=PASSWORD + "\n"
        )
        time.sleep(1.5)  # the worker takes changes up within a second

        for account in ("alice", "phone"):
            eventually(
                lambda name=account: product.registration(name).get("state") == "registered", 20, f"{account} registers"
            )
        yield Stand(product, provider, behind, pbx, phone_of_pbx, f"sip:127.0.0.1:{secure}")


def test_a_phone_over_tls_is_called_through_a_trunk_and_calls_out(
    stand: Stand, sipp: Callable[..., Sipp], place: Place, folder: Path, request: pytest.FixtureRequest
) -> None:
    phone = Phone(
        folder / "phone", "sip:phone@phones.example", place.stranger_port(), password=PASSWORD, transport="tls",
        registrar=stand.registrar,
    )  # fmt: skip
    request.addfinalizer(phone.stop)
    eventually(lambda: stand.bindings(), 10, "the binding is in the table")
    [(user, received)] = stand.bindings()
    assert user == "phone" and received.startswith("sip:127.0.0.1:") and received.endswith(";transport=tls")
    near = sipp("caller", place.stranger_port(), stand.provider, count=1, users=["phone"], seconds=15)
    assert_clean(near.result(), 1)
    far = sipp("provider_takes", stand.behind, count=1, seconds=15)
    phone.dial("sip:+493055501234@phones.example")
    eventually(phone.talks_to, 10, "the phone is in the call")
    phone.hang_up()
    assert_clean(far.result(), 1)
    eventually(lambda: stand.calls("phone") == [("in", 200), ("out", 200)], 5, "both calls are on record")


def test_a_pbx_over_tls_calls_out_over_tls_and_is_called(
    stand: Stand, sipp: Callable[..., Sipp], place: Place
) -> None:
    far = sipp("provider_takes", stand.behind, count=3, seconds=20)
    near = sipp("pbx_calls", stand.phone_of_pbx, stand.pbx, count=3, rate=5, users=["alice"], seconds=20)
    assert_clean(near.result(), 3)
    assert_clean(far.result(), 3)
    callee = sipp("callee_transport", stand.phone_of_pbx, count=3, seconds=20)
    caller = sipp("caller", place.stranger_port(), stand.provider, count=3, rate=5, users=["alice"], seconds=20)
    assert_clean(caller.result(), 3)
    assert_clean(callee.result(), 3)
    eventually(lambda: stand.calls("alice") == [("in", 200)] * 3 + [("out", 200)] * 3, 5, "all calls are on record")
