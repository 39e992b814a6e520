"""The pages in a real browser: Debian's Chromium, driven by Playwright, on a product that registers at a real Kamailio.

With `TRUNKMGR_SCREENSHOTS=1` the last test writes its pictures to `docs/img/`, for the README.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.conftest import Place
from tests.interop.peers import Registrar
from tests.interop.product import Admin, Cluster, Embedded
from tests.interop.programs import ROOT, eventually, missing, program

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.interop("chromium", "kamailio"), pytest.mark.timeout(240)]

PASSWORD = "interop-page-password"
DOMAIN = "pbx.brauer.example"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    executable = program("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is missing: pip install -r requirements-dev.txt")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@dataclass
class Stand:
    registrar: Registrar
    product: Embedded | Cluster
    admin: Admin
    place: Place

    @property
    def url(self) -> str:
        return f"http://{self.product.http}"

    def l_uuid(self, r_username: str) -> str:
        return str(self.product.query("SELECT l_uuid FROM uacreg WHERE r_username = ?", r_username)[0][0])

    def enter(self, l_uuid: str, password: str = "secret", **more: str) -> None:
        provider = self.product.query("SELECT id FROM trunkmgr_provider")[0][0]
        self.admin.add(
            "uacreg",
            **{
                "l_uuid": l_uuid,
                "l_username": l_uuid,
                "l_domain": DOMAIN,
                "r_username": l_uuid,
                "r_domain": self.registrar.realm,
                "auth_username": l_uuid,
                "auth_password": password,
                "auth_proxy": self.registrar.uri,
                "provider": str(provider),
                **more,
            },
        )


@pytest.fixture(scope="module")
def stand(kamailio_registrar: Callable[..., Registrar], trunkmgr_up: Callable[..., Embedded], place: Place) -> Stand:
    registrar = kamailio_registrar()
    product = trunkmgr_up({"TRUNKMGR_NODE": "edge-1"})
    admin = product.admin()
    admin.add("provider", name="Rheintel", domain=registrar.realm, proxy=registrar.uri, addresses=place.provider)
    admin.add("domain", l_domain=DOMAIN, next_hop=f"sip:{place.pbx}:5060")
    return Stand(registrar, product, admin, place)


class Reader:
    """A page that is logged in, and everything it complained about."""

    def __init__(self, browser: Browser, stand: Stand, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        self.stand = stand
        self.complaints: list[str] = []
        self.requested: set[str] = set()
        self.page = self.tab()
        self.page.goto(f"{stand.url}/status/")
        assert "/admin/login/" in self.page.url
        self.page.fill("[name=username]", "interop")
        self.page.fill("[name=password]", PASSWORD)
        self.page.press("[name=password]", "Enter")
        self.page.wait_for_url(f"{stand.url}/status/")

    def tab(self) -> Page:
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: self._hear(message.text))
        page.on("request", lambda request: self.requested.add(request.url.split("/")[2]))
        return page

    def _hear(self, text: str) -> None:
        if "Content Security Policy" in text or "Uncaught" in text:
            self.complaints.append(text)

    def live(self, page: Page | None = None) -> None:
        (page or self.page).wait_for_selector("#live-text:text-is('Live')", timeout=8000)


@pytest.fixture
def reader(chromium: Browser, stand: Stand) -> Iterator[Reader]:
    reader = Reader(chromium, stand)
    yield reader
    reader.context.close()
    assert not reader.complaints
    assert reader.requested == {stand.product.http}, "A page asked somebody else."


def row(local: str) -> str:
    """Selector of the board's row of a local user."""
    return f'#rows tr:has(.a1:text-is("{local}@{DOMAIN}"))'


def test_the_first_account_shows_up_and_turns_green_without_reloading(reader: Reader) -> None:
    board = reader.page
    reader.live()
    assert board.inner_text("h1") == "Welcome"
    assert board.is_visible("text=No trunks yet")
    board.evaluate("window.kept = true")

    form = reader.tab()
    form.goto(f"{reader.stand.url}/status/")
    form.click("text=Add your first trunk")
    form.wait_for_url("**/admin/trunkmgr/uacreg/add/")
    form.select_option("[name=provider]", label="Rheintel")
    form.fill("[name=r_username]", "main")
    form.fill("[name=auth_password]", "secret")
    form.click("[name=_save]")
    form.wait_for_url("**/admin/trunkmgr/uacreg/")

    board.wait_for_selector(f"{row('main')} .badge.b-ok", timeout=4000)
    assert board.inner_text(f"{row('main')} .badge") == "Registered"
    assert reader.stand.registrar.binding("main") is not None
    assert board.evaluate("window.kept") is True
    assert board.inner_text("h1") == "The trunk is fine"
    countdown = board.inner_text(f"{row('main')} .x")
    assert re.fullmatch(r"(1 h 00|59) min( \d\d s)?", countdown), countdown


def test_a_wrong_password_tells_cause_and_cure(reader: Reader) -> None:
    reader.live()
    reader.stand.enter("fax", password="wrong")
    board = reader.page
    board.wait_for_selector(f"{row('fax')} .badge.b-ref", timeout=5000)
    assert board.inner_text("h1") == "1 of 2 trunks needs attention"
    assert board.inner_text("#rows tr:first-child .why") == "Password refused"
    assert board.inner_text("#todo b") == "The provider does not accept the password."
    board.click("#rows tr:first-child .acct")
    board.wait_for_url("**/status/fax/")
    assert board.inner_text("h2.cause") == "The provider does not accept the password."
    assert "It is not the password of the customer portal." in board.inner_text(".fix")
    assert "401 Unauthorized" in board.inner_text(".pair")
    assert "wrong" not in board.inner_text("main")


def test_orders_from_the_trunk_page(reader: Reader) -> None:
    page = reader.page
    reader.live()
    page.click(f"{row('main')} .acct")
    page.wait_for_selector("#head-register")
    reader.live()
    page.click("#head-register")
    page.wait_for_selector("#messages .note.good", timeout=5000)
    assert page.inner_text("#messages") == "Registered, 3600 s granted."
    page.wait_for_selector(".ev >> text=Ordered by an operator · by interop", timeout=3000)

    page.click("#head-disable")
    page.wait_for_selector("dialog[open] >> text=No call is in progress.")
    page.click("dialog >> text=Cancel")
    assert reader.stand.registrar.binding("main")
    page.click("#head-disable")
    page.click("dialog button.danger")
    page.wait_for_selector(".thead .badge.b-off", timeout=5000)
    eventually(lambda: not reader.stand.registrar.binding("main"), 3, "main is un-registered")
    page.click("#head-enable")
    page.wait_for_selector(".thead .badge.b-ok", timeout=5000)
    assert reader.stand.registrar.binding("main")


def test_keys_filters_and_views(reader: Reader) -> None:
    reader.live()
    page = reader.page
    page.keyboard.press("/")
    page.keyboard.type("fax")
    assert page.locator("#rows tr.r").count() == 1
    assert "1 of 2 trunks shown" in page.inner_text("#count")
    page.click("#clear")
    page.click("button.tot[value=ref]")
    assert page.get_attribute("button.tot[value=ref]", "aria-pressed") == "true"
    assert page.locator("#rows tr.r").count() == 1
    page.click("button.tot[value=unk]")
    assert page.is_visible("text=No trunk matches")
    page.click("[data-clear]")
    page.click("[data-order=provider]")
    assert page.locator("#rows .gbtn").count() == 1
    page.click("[data-density=compact]")
    assert page.eval_on_selector("#rows tr.r", "e => e.getBoundingClientRect().height") == 34
    page.click("#theme-switch")
    assert page.get_attribute("html", "data-theme") == "dark"
    page.reload()
    reader.live()
    assert page.get_attribute("html", "data-theme") == "dark"


def test_a_lost_server_shows_and_a_restart_heals(reader: Reader) -> None:
    page = reader.page
    reader.live()
    page.evaluate("window.kept = true")
    reader.stand.product.stop()
    page.wait_for_selector("#lost:not([hidden])", timeout=15000)
    assert page.inner_text("h1").startswith("State unknown since ")
    assert page.inner_text("#live-text") == "Not live"
    assert page.inner_text(f"{row('main')} .x") == "–"
    assert page.evaluate("getComputedStyle(document.querySelector('.badge > span'), '::before').content") == '"was "'
    reader.stand.product.start()
    page.click("#retry")
    page.wait_for_selector("#lost", state="hidden", timeout=40000)
    page.wait_for_selector(f"{row('main')} .badge.b-ok", timeout=5000)
    assert page.evaluate("window.kept") is True
    reader.live()


def test_without_script_the_board_is_there(chromium: Browser, reader: Reader) -> None:
    state = reader.context.storage_state()  # Unfold's login page needs a script, ours do not
    with chromium.new_context(java_script_enabled=False, storage_state=state) as context:
        page = context.new_page()
        page.goto(f"{reader.stand.url}/status/")
        assert page.inner_text("h1") == "1 of 2 trunks needs attention"
        assert page.locator("#rows tr.r").count() == 2
        assert page.is_hidden("#tools")


def test_signed_out_pages_offer_to_sign_in(reader: Reader) -> None:
    reader.live()
    reader.context.clear_cookies()
    reader.page.evaluate("document.getElementById('retry').click()")
    reader.page.wait_for_selector("#lost >> text=You are signed out.", timeout=8000)


CALLS = """
from django.utils import timezone
from trunkmgr.models import Call
now, party = timezone.now(), "sip:somebody.with.a.long.name@a-host.with-a-long-name.example"
for key, ended, code, reason in (("wide-1", None, None, ""), ("wide-2", now, 407, "Proxy Authentication Required")):
    Call.objects.get_or_create(key=key, defaults=dict(
        call_id=key, l_uuid="{main}", direction="out", caller=party, callee=party, anonymous=True, started_time=now,
        ended_time=ended, code=code, reason=reason,
    ))
"""


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_scrolls_sideways(chromium: Browser, stand: Stand, width: int) -> None:
    stand.product.manage("shell", "-c", CALLS.replace("{main}", stand.l_uuid("main")))
    reader = Reader(chromium, stand, viewport={"width": width, "height": 844})
    for path in ("/status/", f"/status/{stand.l_uuid('main')}/", "/status/fax/", "/status/calls/"):
        reader.page.goto(stand.url + path)
        reader.live()
        assert reader.page.evaluate("document.documentElement.scrollWidth") == width, path
    reader.context.close()
    stand.product.manage(
        "shell", "-c", "from trunkmgr.models import Call; Call.objects.filter(key__startswith='wide').delete()"
    )


def test_thousands_of_trunks_are_a_few_rows(reader: Reader) -> None:
    number = 2000
    columns = "l_uuid,l_username,l_domain,r_username,r_domain,auth_username,auth_password,flags"
    lines = [f"z{i:04},z{i:04},{DOMAIN},z{i:04},voip.nordfon.example,z{i:04},secret,1" for i in range(number)]
    reader.stand.product.manage("uacreg", "import", "-", stdin="\n".join([columns, *lines]) + "\n")
    page = reader.page
    page.wait_for_selector(f"#count:text-is('{number + 2:,} trunks')", timeout=30000)
    page.reload()
    reader.live()
    page.click("[data-order=flat]")
    assert page.evaluate("document.querySelectorAll('*').length") < 2500
    assert page.get_attribute("#table", "aria-rowcount") == str(number + 3)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_selector(row(f"z{number - 1:04}"), timeout=3000)
    assert page.locator("#rows tr.r").count() < 60
    reader.stand.product.manage("shell", "-c", (
        "from trunkmgr.services import accounts\nfrom trunkmgr.models import UacReg\n"
        "for u in UacReg.objects.filter(l_uuid__startswith='z').values_list('l_uuid', flat=True): accounts.remove(u)"
    ))
    page.wait_for_selector("#count:text-is('2 trunks')", timeout=30000)


def test_a_silent_worker_makes_its_trunks_unknown(
    chromium: Browser, kamailio_registrar: Callable[..., Registrar], trunkmgr_cluster: Callable[..., Cluster],
    place: Place,
) -> None:
    """On PostgreSQL and Redis, where the pages outlive the SIP worker."""
    registrar = kamailio_registrar(place.provider_2)
    product = trunkmgr_cluster({"TRUNKMGR_NODE": "edge-2"})
    admin = product.admin()
    admin.add("provider", name="Rheintel", domain=registrar.realm, proxy=registrar.uri, addresses=place.provider_2)
    admin.add("domain", l_domain=DOMAIN, next_hop=f"sip:{place.pbx}:5060")
    stand = Stand(registrar, product, admin, place)
    reader = Reader(chromium, stand)
    reader.live()
    stand.enter("main")
    page = reader.page
    page.wait_for_selector(f"{row('main')} .badge.b-ok", timeout=5000)
    trunk = reader.tab()
    trunk.goto(f"{stand.url}/status/main/")
    trunk.wait_for_selector(".thead .badge.b-ok")
    product.programs["runsip"].kill()
    page.wait_for_selector(f"{row('main')} .badge.b-unk", timeout=20000)
    trunk.wait_for_selector(".thead .badge.b-unk", timeout=10000)
    assert "edge-2 has sent no beat for" in trunk.inner_text("h2.cause")
    assert page.inner_text(f"{row('main')} .why") == "Worker silent"
    assert page.inner_text(f"{row('main')} .x") == "–"
    assert page.inner_text("h1") == "1 of 1 trunk needs attention"
    assert page.inner_text("#todo b").startswith("edge-2 has sent no beat for 1")
    product.start_one("runsip")
    page.wait_for_selector(f"{row('main')} .badge.b-ok", timeout=40000)
    assert not reader.complaints
    reader.context.close()


HISTORY = """
from datetime import timedelta
from django.utils import timezone
from trunkmgr.models import Call, RegistrationEvent
now, events = timezone.now(), []
for l_uuid, hours in (("{main}", 26), ("fax", 26)):
    for minutes in range(hours * 60, 0 if l_uuid == "{main}" else 82, -50):
        if l_uuid == "fax" and 600 < minutes < 660:
            events.append(RegistrationEvent(l_uuid=l_uuid, time=now - timedelta(minutes=minutes), state="failing",
                                            cause="timeout", trigger="beat", target="{target}"))
            minutes -= 4
        events.append(RegistrationEvent(l_uuid=l_uuid, time=now - timedelta(minutes=minutes), state="registered",
            code=200, reason="OK", granted=3600, trigger="beat", round_trip=0.0431, target="{target}"))
for minutes in range(81, 1, -15):
    events.append(RegistrationEvent(l_uuid="fax", time=now - timedelta(minutes=minutes), state="refused",
        cause="wrong_password", code=401, reason="Unauthorized", trigger="beat", round_trip=0.051, target="{target}"))
RegistrationEvent.objects.bulk_create(events)
number, local = "+494066969040%d", "sip:main@pbx.brauer.example"
for key, direction, seconds, answered, ended, code, reason in (
    (1, "in", 34, 30, None, None, ""), (2, "out", 190, 184, None, None, ""),
    (3, "out", 260, None, 259, 403, "Provider refused the credentials"), (4, "in", 700, 690, 420, 200, "OK"),
    (5, "in", 900, None, 870, 486, "Busy Here"),
):
    caller, callee = (number % key, local) if direction == "in" else (local, number % key)
    times = [at if at is None else now - timedelta(seconds=at) for at in (seconds, answered, ended)]
    Call.objects.create(key="shot%d" % key, call_id="shot%d" % key, l_uuid="{main}", direction=direction, node="edge-1",
        caller=caller, callee=callee, started_time=times[0], answered_time=times[1], ended_time=times[2], code=code,
        reason=reason, anonymous=key == 1)
"""


def test_screenshots(chromium: Browser, stand: Stand, tmp_path: Path) -> None:
    """Trunks in mixed states, live at Kamailio; a day of history and two calls are put in for the picture."""
    images = ROOT / "docs" / "img" if os.environ.get("TRUNKMGR_SCREENSHOTS") == "1" else tmp_path
    there = {name for (name,) in stand.product.query("SELECT r_username FROM uacreg")}
    for l_uuid, password in {"main": "secret", "fax": "wrong", "sales": "secret", "reception": "secret"}.items():
        if l_uuid not in there:
            stand.enter(l_uuid, password)
    stand.enter("warehouse", r_domain="voip.nordfon.example", auth_proxy="", provider="")
    stand.enter("old-line")
    stand.product.manage("uacreg", "disable", "old-line")
    target = f"udp:{stand.registrar.host}:{stand.registrar.port}"
    stand.product.manage("shell", "-c", HISTORY.replace("{target}", target).replace("{main}", stand.l_uuid("main")))
    shots: list[tuple[str, str, dict[str, Any]]] = [
        ("board", "/status/", {}),
        ("board-dark", "/status/", {"color_scheme": "dark"}),
        ("trunk", "/status/fax/", {"viewport": {"width": 1440, "height": 1000}}),
        ("calls", "/status/calls/", {"viewport": {"width": 1440, "height": 560}}),
        ("phone", "/status/", {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}),
    ]
    for name, path, options in shots:
        reader = Reader(chromium, stand, **options)
        reader.page.goto(stand.url + path)
        reader.live()
        if name.startswith("board"):
            reader.page.wait_for_selector(f"{row('warehouse')} .badge.b-fail", timeout=30000)
        reader.page.mouse.move(0, 0)
        reader.page.wait_for_timeout(1500)
        reader.page.screenshot(path=str(images / f"{name}.png"))
        reader.context.close()
    smallest = min((images / f"{name}.png").stat().st_size for name, _, _ in shots)
    assert smallest > 20_000, "a picture shows next to nothing"
