"""A provider over TLS: Kamailio registers us and calls over that connection; openssl looks at our own socket."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.interop.conftest import Place
from tests.interop.peers import Sipp, assert_clean, tls_peer
from tests.interop.product import Embedded
from tests.interop.programs import eventually, free_port, program

pytestmark = pytest.mark.interop("kamailio", "sipp", "openssl")

DOMAIN = "sip.rheintel.example"


@dataclass
class Stand:
    product: Embedded
    authority: Authority
    provider: tuple[str, int]
    """Its UDP socket, for callers."""
    secure: int
    """Our TLS port."""
    pbx: tuple[str, int]


@pytest.fixture(scope="module")
def stand(trunkmgr_up: Callable[..., Embedded], place: Place, folder: Path) -> Iterator[Stand]:
    authority = Authority(folder)
    own, theirs = authority.issue("own", dns=("trunks.example",)), authority.issue("provider", dns=(DOMAIN,))
    provider, secure, theirs_at = place.provider_port(), free_port(), free_port(place.provider)
    with ExitStack() as stack:
        stack.callback(tls_peer(folder, "provider", provider, theirs_at, theirs).stop, 5)
        product = trunkmgr_up(start=False)
        product.env["TRUNKMGR_SIP_LISTEN"] += f",tls:127.0.0.1:{secure}"
        product.env |= {
            "TRUNKMGR_TLS_CERTIFICATE": str(own.certificate), "TRUNKMGR_TLS_KEY": str(own.key),
            "TRUNKMGR_TLS_CA": str(authority.path),
            "TRUNKMGR_HOSTS": f"{DOMAIN}={place.provider},sip.other.example={place.provider}",
        }  # fmt: skip
        product.start()
        pbx = place.pbx_port()
        product.provision(
            f"sip:{DOMAIN}:{theirs_at};transport=tls", domain=DOMAIN, addresses=place.provider, next_hop=pbx,
            accounts=[
                {"l_uuid": "berlin"},
                {"l_uuid": "other", "auth_proxy": f"sips:sip.other.example:{theirs_at}"},
            ],
        )  # fmt: skip
        yield Stand(product, authority, provider, secure, pbx)


@pytest.mark.checklist("B1")
def test_we_register_and_are_called_over_the_same_connection(
    sipp: Callable[..., Sipp], stand: Stand, place: Place
) -> None:
    eventually(lambda: stand.product.registration("berlin").get("state") == "registered", 20, "berlin registers")
    callee = sipp("callee_transport", stand.pbx, count=5, seconds=20)
    caller = sipp(
        "caller_transport", place.stranger_port(), stand.provider, count=5, rate=5, users=["berlin"], seconds=20,
    )
    result = caller.result()
    assert_clean(callee.result(), 5)
    assert_clean(result, 5)
    assert f"Record-Route: <sip:127.0.0.1:{stand.secure};transport=tls;lr" in callee.messages


@pytest.mark.checklist("B13")
def test_a_certificate_for_another_name_is_told_in_words(stand: Stand) -> None:
    eventually(lambda: stand.product.registration("other").get("cause") == "tls_name", 20, "the name is refused")
    shown = stand.product.manage("status", check=False).out + stand.product.admin().get("/status/other/")
    assert f"The certificate is for {DOMAIN}, not sip.other.example" in shown


@pytest.mark.checklist("B14")
def test_openssl_sees_our_certificate_and_the_next_one(stand: Stand, place: Place) -> None:
    def seen(name: str, *options: str) -> str:
        done = subprocess.run(
            [
                program("openssl"), "s_client", "-connect", f"127.0.0.1:{stand.secure}", "-bind", f"{place.provider}:0",
                "-CAfile", str(stand.authority.path), "-verify_hostname", name, *options,
            ],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        return done.stdout + done.stderr

    assert "Verify return code: 0 (ok)" in seen("trunks.example")
    assert "hostname mismatch" in seen("elsewhere.example").lower()
    assert "Cipher is (NONE)" in seen("trunks.example", "-tls1_1")
    stand.authority.issue("own", dns=("next.example",))
    eventually(lambda: "Verify return code: 0 (ok)" in seen("next.example"), 10, "the new one is shown", 0.5)
