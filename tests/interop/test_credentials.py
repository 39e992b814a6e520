"""A provider whose calls want another user and password than its accounts, which a row under Credentials gives."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.interop.conftest import Place
from tests.interop.peers import Sipp, assert_clean
from tests.interop.product import Embedded
from tests.interop.programs import eventually

pytestmark = pytest.mark.interop("sipp")

PASSWORD = "second-secret"


def test_a_row_answers_where_the_account_cannot(
    trunkmgr_up: Callable[..., Embedded], sipp: Callable[..., Sipp], place: Place
) -> None:
    product, provider, pbx = trunkmgr_up(), place.provider_port(), place.pbx_port()
    product.provision(
        f"sip:{provider[0]}:{provider[1]}",
        domain="rheintel.example",
        addresses=place.provider,
        next_hop=pbx,
        accounts=[{"l_uuid": "alice", "expires": "0", "realm": "elsewhere.example", "inbound_identity": "keep"}],
    )

    def call(far: str, near: str) -> None:
        provider_side = sipp(far, provider, count=1, seconds=15)
        pbx_side = sipp(near, pbx, product.sip, count=1, seconds=15)
        for side in (pbx_side, provider_side):
            assert_clean(side.result(), 1)

    call("provider_asks_in_vain", "pbx_calls_out_in_vain")
    eventually(lambda: product.query("SELECT code FROM trunkmgr_call") == [(403,)], 3, "the call is on record")
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", product.admin().get("/status/calls/")))
    assert "Out alice@pbx.example → to +493055501234" in page
    assert "The provider refused the password for this call" in page

    row = ("--realm", "rheintel.example", "--provider", "RheinTel", "--password-stdin")
    product.manage("credential", "add", "trunk-4711", *row, stdin=PASSWORD)
    call("provider_takes_one_user", "pbx_calls_out_shortly")
    shown = product.manage("credential", "list").out
    assert "trunk-4711" in shown and PASSWORD not in shown + product.text
