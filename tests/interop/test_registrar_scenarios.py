"""SIPp scenarios that others wrote in which SIPp is the registrar, unmodified: what our registration client makes of
them.  `LEFT_OUT` names the rest of that category and why.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.conftest import Place
from tests.interop.peers import Sipp, assert_clean
from tests.interop.product import Embedded
from tests.interop.programs import ROOT, eventually, missing

DATA = Path(os.environ.get("SIP_TESTDATA", ROOT.parent / "shared" / "testdata")) / "sipp"
pytestmark = [pytest.mark.interop("sipp"), pytest.mark.timeout(120)]

REGISTERED, REFUSED = ("registered", "short_grant"), "refused"
CASES: dict[str, tuple[str, tuple[str, str]]] = {
    # Where it ends, by account.
    "challenged-60": ("drachtio__drachtio-srf/uas-auth-register/uas-auth-register.xml", REGISTERED),
    "challenged-600": ("jambonz__sbc-sip-sidecar/uas-auth-register/uas-auth-register.xml", REGISTERED),
    "expires-header": ("signalwire__freeswitch/register/uas_register.xml", REGISTERED),
    "no-challenge": ("signalwire__freeswitch/register/uas_register_no_challange.xml", ("registered", "")),
    "forbidden": ("signalwire__freeswitch/register_403/uas_register_403.xml", (REFUSED, "banned_403")),
    "no-contact": ("drachtio__drachtio-server/uas-handle-5-registers/uas-handle-5-registers.xml",
                   ("failing", "no_binding")),
    "two-digests": ("pjsip__pjproject/uas-auth-two-algo/uas-auth-two-algo.xml", ("registered", "")),
    "unregister": ("asterisk__testsuite/registration__outbound__unregister__unauthed/unregister.xml",
                   ("disabled", "disabled")),
}  # fmt: skip
ENDLESS = {"no-contact", "no-challenge"}
"""They repeat their 200 until an ACK comes, which no REGISTER has."""
LEFT_OUT = {
    "registration__outbound__auth_loop": "two challenges with new nonces: ours answers the second too, once",
    "registration__outbound__fatal_retry": "a retry after 16 s is a setting of that client",
    "registration__outbound__line_parameter": "calls a Request-URI in angle brackets",
    "mediasec__invite": "the agreement by 494 of one provider is not built",
    "uas-register-ip-change-port-only": "its challenge has no nonce; tests/sipengine/uac/test_nat.py has the case",
}


def test_registrars_of_others(
    trunkmgr_up: Callable[..., Embedded], sipp: Callable[..., Sipp], place: Place
) -> None:
    if not DATA.exists():
        missing(f"no test data at {DATA}")
    # One of them sees us at 1.1.1.1 and has no answer to a Contact that says so.
    product = trunkmgr_up({"UAC_REG_LEARN_ADDRESS": "0"})
    registrars: dict[str, tuple[Sipp, tuple[str, int]]] = {}
    for name, (scenario, _) in CASES.items():
        local = place.provider_port()
        registrars[name] = sipp(str(DATA / scenario), local, count=1, seconds=25), local
    product.provision(
        f"sip:{place.provider}", domain="sip.example", addresses=place.provider, next_hop=(place.pbx, 5060),
        accounts=[
            {
                "l_uuid": name, "auth_username": "foo", "auth_password": "bar",
                "auth_proxy": f"sip:{local[0]}:{local[1]}",
            }
            for name, (_, local) in registrars.items()
        ],
    )  # fmt: skip
    eventually(lambda: product.registration("unregister").get("state") == "registered", 10, "the last is registered")
    product.manage("uacreg", "disable", "unregister")
    for name, (registrar, _) in registrars.items():
        if name in ENDLESS:
            registrar.stop()
        else:
            assert_clean(registrar.result(), 1)
        row = product.registration(name)
        assert (row["state"], row["cause"]) == CASES[name][1], name
    [[digest]] = product.query("SELECT digest FROM trunkmgr_registration WHERE l_uuid = ?", "two-digests")
    assert digest == "SHA-256"
