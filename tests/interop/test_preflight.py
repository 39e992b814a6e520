"""Pre-flight against Debian's Kamailio: a good account, and each way in which one goes wrong; the button in Chromium.

With `TRUNKMGR_SCREENSHOTS=1` the picture of the page goes to `docs/img/`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.interop.conftest import Place
from tests.interop.peers import Registrar, tls_peer
from tests.interop.product import Embedded
from tests.interop.programs import ROOT, eventually, free_port, missing, program

pytestmark = pytest.mark.interop("kamailio", "chromium")

DOMAIN, OTHER = "sip.rheintel.example", "sip.other.example"
SECRET = "preflight-secret-4711"


@dataclass
class Stand:
    product: Embedded
    registrar: Registrar

    def check(self, l_uuid: str, *options: str) -> tuple[int, dict[str, Any]]:
        done = self.product.manage("doctor", l_uuid, "--json", *options, check=False)
        assert SECRET not in done.out + done.err
        return done.code, json.loads(done.out)


@pytest.fixture(scope="module")
def stand(
    trunkmgr_up: Callable[..., Embedded], kamailio_registrar: Callable[..., Registrar], place: Place, folder: Path,
) -> Iterator[Stand]:
    registrar = kamailio_registrar(password=SECRET, max_expires=600)
    authority = Authority(folder)
    own, theirs = authority.issue("own", dns=("trunks.example",)), authority.issue("provider", dns=(DOMAIN,))
    secure, closed = free_port(place.provider), free_port(place.provider)
    with ExitStack() as stack:
        stack.callback(tls_peer(folder, "provider", place.provider_port(), secure, theirs).stop, 5)
        product = trunkmgr_up(start=False)
        product.env["TRUNKMGR_SIP_LISTEN"] += f",tls:127.0.0.1:{free_port()}"
        product.env |= {
            "TRUNKMGR_TLS_CERTIFICATE": str(own.certificate), "TRUNKMGR_TLS_KEY": str(own.key),
            "TRUNKMGR_TLS_CA": str(authority.path),
            "TRUNKMGR_HOSTS": f"{DOMAIN}={place.provider},{OTHER}={place.provider}",
        }  # fmt: skip
        product.start()
        product.provision(
            registrar.uri, domain=registrar.realm, addresses=place.provider, next_hop=place.pbx_port(),
            accounts=[
                {"l_uuid": "berlin", "auth_password": SECRET},
                {"l_uuid": "wrong", "auth_password": "not-it"},
                {"l_uuid": "noname", "auth_proxy": "sip:nothing.invalid"},
                {"l_uuid": "closed", "auth_proxy": f"sip:{place.provider}:{closed};transport=tcp"},
                {"l_uuid": "othername", "auth_proxy": f"sip:{OTHER}:{secure};transport=tls"},
            ],
        )  # fmt: skip
        yield Stand(product, registrar)


def test_a_good_account_is_tried_and_its_binding_stays(stand: Stand) -> None:
    eventually(lambda: stand.registrar.binding("berlin"), 5, "berlin is registered")
    eventually(lambda: stand.product.registration("berlin").get("state") == "registered", 5, "the table says so")
    before, row = stand.registrar.binding("berlin"), stand.product.registration("berlin")
    code, result = stand.check("berlin")
    assert code == 0 and result["ok"], result
    assert {step["name"]: step["state"] for step in result["steps"]} == dict.fromkeys(
        ("account", "dns", "options", "query", "trial", "removal"), "good"
    )
    after = stand.registrar.binding("berlin")
    assert before and after, "Kamailio holds the account's binding alone, as it was"
    assert (after.contact, after.call_id, after.cseq) == (before.contact, before.call_id, before.cseq)
    assert stand.product.registration("berlin") == row


@pytest.mark.parametrize(("l_uuid", "cause", "step"), [
    ("wrong", "wrong_password", "query"), ("noname", "dns_empty", "dns"), ("closed", "unreachable", "connection"),
    ("othername", "tls_name", "tls"),
])
def test_what_is_wrong_is_said_with_its_cure(stand: Stand, l_uuid: str, cause: str, step: str) -> None:
    code, result = stand.check(l_uuid)
    assert (code, result["ok"], result["cause"]) == (1, False, cause), result
    assert result["verdict"] and result["fix"] and result["steps"][-1]["name"] == step
    if l_uuid == "othername":
        assert f"The certificate is for {DOMAIN}, not {OTHER}" in result["verdict"]
        assert any(DOMAIN in line and "Test CA" in line for line in result["steps"][-1]["lines"])


def test_the_preview_is_what_kamailio_gets(stand: Stand) -> None:
    shown = stand.product.manage("uacreg", "preview", "berlin").out
    assert f"REGISTER sip:{stand.registrar.realm} SIP/2.0" in shown and "INVITE sip:+4930" in shown
    assert 'response="********"' in shown and SECRET not in shown


def test_the_button_tells_each_step(stand: Stand) -> None:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is missing: pip install -r requirements-dev.txt")
    stand.product.env["DJANGO_SUPERUSER_PASSWORD"] = SECRET
    stand.product.manage("createsuperuser", "--noinput", "--username", "eve", "--email", "")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program("chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        page = browser.new_page(viewport={"width": 1200, "height": 820})
        page.goto(f"http://{stand.product.http}/status/othername/")
        page.fill("#id_username", "eve")
        page.fill("#id_password", SECRET)
        page.keyboard.press("Enter")
        page.click("#head-check")
        page.wait_for_selector("h1:has-text('The certificate is for')", timeout=15_000)
        assert "Use the name on the certificate as proxy" in page.inner_text("#fix")
        if os.environ.get("TRUNKMGR_SCREENSHOTS"):
            page.screenshot(path=str(ROOT / "docs" / "img" / "check.png"))
        page.goto(f"http://{stand.product.http}/status/berlin/doctor/")
        page.click("#check-only")
        page.wait_for_selector("h1:has-text('All is well')", timeout=15_000)
        assert page.locator(".look").count() >= 4 and SECRET not in page.content()
        browser.close()
