"""OPTIONS to a real registrar: its answer time is shown, and when it falls silent the account moves to the next one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.interop.conftest import Place
from tests.interop.nameserver import Nameserver
from tests.interop.peers import Registrar
from tests.interop.product import Embedded, account_file
from tests.interop.programs import eventually

pytestmark = [pytest.mark.interop("kamailio"), pytest.mark.timeout(150)]

DOMAIN = "sip.rheintel.example"


@pytest.mark.checklist("H20")
@pytest.mark.rfc("3261", "11.1")
def test_a_binding_moves_away_from_a_server_that_falls_silent(
    kamailio_registrar: Callable[..., Registrar], trunkmgr_up: Callable[..., Embedded], place: Place,
) -> None:
    names, first, second = Nameserver(), kamailio_registrar(), kamailio_registrar(place.provider_2)
    names.records |= {
        ("first.rheintel.example", "A"): [first.host], ("second.rheintel.example", "A"): [second.host],
        (f"_sip._udp.{DOMAIN}", "SRV"): [
            f"0 0 {first.port} first.rheintel.example.", f"1 0 {second.port} second.rheintel.example.",
        ],
    }  # fmt: skip
    product = trunkmgr_up({"TRUNKMGR_NAMESERVERS": names.address})

    def live() -> dict[str, Any]:
        told: dict[str, Any] = json.loads(product.manage("uacreg", "show", "berlin", "--json").out)["registration"]
        return told

    try:
        product.manage("provider", "set", "RheinTel", "--domain", DOMAIN, "--address", place.provider)
        product.manage("domain", "set", "pbx.example", "--next-hop", f"sip:{place.pbx}")
        product.manage("uacreg", "import", "-", stdin=account_file(DOMAIN, [{"l_uuid": "berlin"}]))
        eventually(lambda: first.binding("berlin"), 10, "it is registered at the first server")
        product.manage("uacreg", "edit", "berlin", "--qualify", "10")
        eventually(lambda: live()["qualify_state"] == "reachable", 5, "the answer to the first OPTIONS is written")
        assert 0 < live()["qualify_round_trip"] < 1 and len(first.seen("berlin")) == 2, "it registers only once"
        page = product.admin().get("/status/berlin/")
        assert "Reachable, " in page and "OPTIONS " in page
        first.freeze()
        since = time.monotonic()
        # Two OPTIONS in ten seconds, five for an answer each; the REGISTER does not wait for the silent server.
        eventually(lambda: second.binding("berlin"), 35, "it is registered at the second server")
        assert time.monotonic() - since > 10
        eventually(lambda: live()["target"] == f"udp:{second.host}:{second.port}", 3, "and the table says so")
        eventually(lambda: live()["qualify_state"] == "reachable", 5, "the second server is asked at once")
        told = [row["cause"] for row in product.events("berlin") if row["trigger"] == "options"]
        assert told == ["options_silent", "options_answered"]
        assert live()["state"] == "Registered"
    finally:
        first.thaw()
        names.stop()
