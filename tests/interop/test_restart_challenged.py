"""The service dies without warning within calls whose provider asks for the password again and again.

What CSeq the provider saw before the crash is in no Record-Route, so it was stored. The PBX's SIPp counts on as if
nobody had asked, and each SIPp looks for the identities of its own side in all that it gets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.interop.conftest import Place
from tests.interop.peers import Sipp, assert_clean
from tests.interop.product import Embedded
from tests.interop.programs import eventually

pytestmark = pytest.mark.interop("sipp")


@dataclass
class Stand:
    product: Embedded
    provider: tuple[str, int]
    pbx: tuple[str, int]


@pytest.fixture(scope="module")
def stand(trunkmgr_up: Callable[..., Embedded], place: Place) -> Stand:
    product, provider, pbx = trunkmgr_up(), place.provider_port(), place.pbx_port()
    product.provision(
        f"sip:{provider[0]}:{provider[1]}",
        domain="rheintel.example",
        addresses=place.provider,
        next_hop=pbx,
        accounts=[{"l_uuid": "alice", "expires": "0"}],  # registers nowhere
    )
    return Stand(product, provider, pbx)


@pytest.mark.parametrize(
    ("pbx", "provider", "direction"),
    [
        ("pbx_calls_out", "provider_asks_within", "out"),
        ("pbx_calls_out_and_hears_bye", "provider_asks_within_and_hangs_up", "out"),
        ("pbx_informs_and_hangs_up", "provider_calls_and_asks_within", "in"),
    ],
    ids=["out, PBX ends", "out, provider ends", "in, PBX ends"],
)
def test_a_challenged_call_survives_a_crash(
    stand: Stand, sipp: Callable[..., Sipp], pbx: str, provider: str, direction: str
) -> None:
    def side(scenario: str, local: tuple[str, int], calls_out: bool) -> Sipp:
        return sipp(scenario, local, stand.product.sip if calls_out else None, count=3, talk=10.0, seconds=40)

    sides = [(pbx, stand.pbx, direction == "out"), (provider, stand.provider, direction == "in")]
    running = [side(*each) for each in sorted(sides, key=lambda each: each[2])]
    going_on = "SELECT count(*) FROM trunkmgr_call JOIN trunkmgr_dialog USING (key) WHERE ended_time IS NULL"
    eventually(lambda: stand.product.query(going_on) == [(3,)], 5, "the calls are up, and what they need is stored")
    stand.product.kill()
    stand.product.start()
    assert stand.product.query(going_on) == [(3,)], "the restart ended no call"
    results = [each.result() for each in running]
    for result in results:
        assert_clean(result, 3)
    eventually(
        lambda: stand.product.query("SELECT count(*) FROM trunkmgr_dialog") == [(0,)], 5, "what they needed is gone"
    )
    last = "SELECT direction, code, ended_time IS NOT NULL FROM trunkmgr_call ORDER BY id DESC LIMIT 3"
    eventually(lambda: stand.product.query(last) == [(direction, 200, 1)] * 3, 3, "they are on record as ended")
