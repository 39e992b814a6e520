"""SIPp scenarios that others wrote in which SIPp is the registrar, unmodified: what our registration client makes of
them, and of the DNS that one set has with them.  `LEFT_OUT` names the rest and why.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.conftest import Place
from tests.interop.nameserver import Nameserver
from tests.interop.peers import Sipp, assert_clean
from tests.interop.product import Embedded
from tests.interop.programs import ROOT, eventually, missing

TESTDATA = Path(os.environ.get("SIP_TESTDATA", ROOT.parent / "shared" / "testdata"))
DATA = TESTDATA / "sipp"
FAILOVER = TESTDATA / "dns" / "asterisk-testsuite" / "registration__outbound__failover"
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
    # It asks for `Supported: path`.
    "path": ("asterisk__testsuite/registration__inbound__nominal__path/registrar.xml", ("registered", "")),
}  # fmt: skip
ENDLESS = {"no-contact", "no-challenge", "path"}
"""They repeat their first 200 until an ACK comes, which no REGISTER has, and take nothing else meanwhile."""
LEFT_OUT = {
    "asterisk__testsuite/registration__outbound__auth_loop/uas-reg-401.xml":
        "a second challenge with a new nonce: ours answers it too, once, and this one then stays silent",
    "asterisk__testsuite/registration__outbound__fatal_retry/register-no-retry.xml":
        "its digest is of a Request-URI with a user, which a REGISTER must not have (RFC 3261 §10.2)",
    "asterisk__testsuite/registration__outbound__fatal_retry/register-retry.xml":
        "its digest is of a Request-URI with a user, which a REGISTER must not have (RFC 3261 §10.2)",
    "asterisk__testsuite/registration__outbound__line_parameter/register.xml": "calls a Request-URI in angle brackets",
    "asterisk__testsuite/mediasec__invite/uas-reg.xml": "asks for the security agreement of one provider: not built",
    "pjsip__pjproject/uas-register-ip-change-port-only/uas-register-ip-change-port-only.xml":
        "its challenge has no nonce; tests/sipengine/uac/test_registrar_scripts.py plays the rest of it",
    "SIPp__sipp/branch/branchs.xml": "goes on as the callee of the registered user's own call",
}  # fmt: skip


@pytest.fixture(scope="module")
def names() -> Iterator[Nameserver]:
    running = Nameserver()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def product(trunkmgr_up: Callable[..., Embedded], names: Nameserver) -> Embedded:
    if not DATA.exists():
        missing(f"no test data at {DATA}")
    # One of them sees us at 1.1.1.1 and has no answer to a Contact that says so.
    return trunkmgr_up({"UAC_REG_LEARN_ADDRESS": "0", "TRUNKMGR_NAMESERVERS": names.address})


def test_every_registrar_is_played_or_left_out() -> None:
    index = DATA / "index.json"
    if not index.is_file():
        missing(f"no test data at {DATA}")
    registrars = {
        f"{case['dir'].removeprefix('sipp/')}/{file['file']}"
        for case in json.loads(index.read_text())["cases"] for file in case["files"]
        if file.get("role") == "uas" and "REGISTER" in file["expects_requests"]
    }  # fmt: skip
    played = [scenario for scenario, _ in CASES.values()]
    assert registrars == {*played, *LEFT_OUT} and len(registrars) == len(played) + len(LEFT_OUT)


def test_registrars_of_others(product: Embedded, sipp: Callable[..., Sipp], place: Place) -> None:
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
            assert "Failed regexp match" not in registrar.stop().errors, name
        else:
            assert_clean(registrar.result(), 1)
        row = product.registration(name)
        assert (row["state"], row["cause"]) == CASES[name][1], name
    [[digest]] = product.query("SELECT digest FROM trunkmgr_registration WHERE l_uuid = ?", "two-digests")
    assert digest == "SHA-256"


@pytest.mark.rfc("3263", "4.3")
def test_failover_of_others(product: Embedded, sipp: Callable[..., Sipp], place: Place, names: Nameserver) -> None:
    """Its zone, at an address of ours: the first server answers 503, and only what is asked of the second too passes.
    """
    if not FAILOVER.exists():
        missing(f"no test data at {FAILOVER}")
    [case] = [
        each for each in json.loads((TESTDATA / "dns" / "cases.json").read_text())["cases"]
        if each["case"] == "registration/outbound/failover"
    ]  # fmt: skip
    for record in case["records"]:
        srv = record["type"] == "SRV"
        text = "{priority} {weight} {port} {target}.".format(**record) if srv else place.provider
        names.records[record["name"], record["type"]] = [*names.records.get((record["name"], record["type"]), []), text]
    first = sipp(str(FAILOVER / "uas-503.xml"), (place.provider, 5061), count=1, seconds=15)
    second = sipp(str(FAILOVER / "uas-ignore.xml"), (place.provider, 5062), count=1, seconds=15)
    product.provision(
        f"sip:{place.provider}", domain="example.com", addresses=place.provider, next_hop=(place.pbx, 5060),
        accounts=[{"l_uuid": "failover", "auth_proxy": "sip:example.com;transport=udp"}],
    )  # fmt: skip
    assert_clean(second.result(), 1)
    first.stop()
    busy, served = (re.findall(r"(?m)^Call-ID: *(\S+)", each.messages) for each in (first, second))
    assert busy and set(busy) == set(served), "both were asked for one binding"
    eventually(lambda: product.registration("failover")["state"] == "registered", 3, "the second server counts")
