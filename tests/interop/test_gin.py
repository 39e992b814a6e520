"""A PBX with many numbers and one registration (RFC 6140): SIPp is the provider that demands it, and the PBX."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.interop.conftest import Place
from tests.interop.peers import Sipp, assert_clean
from tests.interop.product import Embedded
from tests.interop.programs import eventually

pytestmark = pytest.mark.interop("sipp")

CALLS = "SELECT l_uuid, direction, callee, code FROM trunkmgr_call WHERE ended_time IS NOT NULL"


@pytest.mark.checklist("H19")
@pytest.mark.rfc("6140", "5.1")
def test_one_registration_brings_calls_to_a_number(
    sipp: Callable[..., Sipp], trunkmgr_up: Callable[..., Embedded], place: Place
) -> None:
    product, provider, pbx = trunkmgr_up(), place.provider_port(), place.pbx_port()
    far = sipp("provider_takes_gin", provider, count=1)
    near = sipp("callee_of_number", pbx, count=1)
    product.provision(
        f"sip:{provider[0]}:{provider[1]}", domain="rheintel.example", addresses=place.provider, next_hop=pbx,
        accounts=[{"l_uuid": "bulk", "r_username": "pbx", "gin": "yes"}],
    )  # fmt: skip
    assert_clean(near.result(), 1)
    assert_clean(far.result(), 1)
    assert product.registration("bulk")["state"] == "registered"
    eventually(lambda: product.query(CALLS), 5, "the call is in the call table")
    assert product.query(CALLS) == [("bulk", "in", "+498912345@pbx.example", 200)]
