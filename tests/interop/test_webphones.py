"""Phones in web pages: Chromium and SIP.js over WSS register, are called through a trunk, call each other through it.

Of the calls between pages everything is real but the microphone: WebRTC's media connects, so both SDPs arrived whole.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.certificates import Authority, Issued
from tests.interop import npm
from tests.interop.conftest import Place
from tests.interop.peers import HERE, Sipp, assert_clean, tls_peer
from tests.interop.product import Embedded
from tests.interop.programs import eventually, free_port, missing, program
from tests.sipengine.asyncio.test_websocket import frame, hello, message

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = [pytest.mark.interop("chromium", "kamailio", "sipp"), pytest.mark.timeout(120)]

DOMAIN = "rheintel.example"
PAGES = "https://phones.example"
PASSWORD = "phones-own-password"
SDP = "v=0\r\no=page 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40010 RTP/AVP 8\r\n"


@dataclass
class Stand:
    product: Embedded
    provider: tuple[str, int]
    """Its UDP socket, for callers."""
    port: int
    """Our WSS port."""
    authority: Authority
    browser: Browser

    def received(self, user: str) -> list[str]:
        rows = self.product.query("SELECT received FROM trunkmgr_location WHERE username = ?", user)
        return [row[0] for row in rows]

    def calls(self, l_uuid: str) -> list[tuple]:
        ended = "SELECT direction, code FROM trunkmgr_call WHERE l_uuid = ? AND ended_time IS NOT NULL"
        return sorted(self.product.query(ended, l_uuid))

    def page(self, library: dict[str, bytes], origin: str = PAGES) -> Page:
        """A page with a phone that has not registered yet."""
        page = self.browser.new_context().new_page()

        def serve(route: Route) -> None:
            path = route.request.url.removeprefix(origin + "/")
            if path == "":
                route.fulfill(body=(HERE / "pages" / "webphone.html").read_bytes(), content_type="text/html")
            else:
                route.fulfill(body=library[path.removeprefix("sip.js/")], content_type="text/javascript")

        page.route(f"{origin}/**", serve)
        page.goto(f"{origin}/")
        page.wait_for_function("window.phone && phone.ready", timeout=10_000)
        return page

    def register(self, page: Page, user: str, description: str = "", password: str = PASSWORD) -> None:
        page.evaluate("about => phone.register(about)", {
            "server": f"wss://127.0.0.1:{self.port}/", "user": user, "domain": "pbx.example",
            "password": password, "description": description,
        })  # fmt: skip

    def phone(self, library: dict[str, bytes], user: str, description: str = "") -> Page:
        page = self.page(library)
        self.register(page, user, description)
        page.wait_for_function("phone.registered", timeout=10_000)
        return page


def _spki(issued: Issued) -> str:
    """What Chromium takes as the name of the one key that it may believe without an authority."""
    key = x509.load_pem_x509_certificate(issued.certificate.read_bytes()).public_key()
    named = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return base64.b64encode(named).decode()


@pytest.fixture(scope="module")
def library() -> dict[str, bytes]:
    try:
        return npm.sip_js()
    except npm.Unavailable as unavailable:
        missing(str(unavailable))
        raise


@pytest.fixture(scope="module")
def stand(trunkmgr_up: Callable[..., Embedded], place: Place, folder: Path) -> Iterator[Stand]:
    from playwright.sync_api import sync_playwright

    authority, secure, web = Authority(folder), free_port(), free_port()
    ours = authority.issue("ours", ip=("127.0.0.1",))
    provider, provider_at = place.provider_port(), free_port(place.provider)
    with ExitStack() as stack:
        theirs = authority.issue("provider", dns=(DOMAIN,))
        stack.callback(tls_peer(folder, "provider", provider, provider_at, theirs).stop, 5)
        product = trunkmgr_up(start=False)
        product.env["TRUNKMGR_SIP_LISTEN"] += f",tls:127.0.0.1:{secure},wss:127.0.0.1:{web}"
        product.env |= {
            "TRUNKMGR_TLS_CERTIFICATE": str(ours.certificate), "TRUNKMGR_TLS_KEY": str(ours.key),
            "TRUNKMGR_TLS_CA": str(authority.path), "TRUNKMGR_HOSTS": f"{DOMAIN}={place.provider}",
            "TRUNKMGR_DEVICES_FROM": "127.0.0.1/32", "TRUNKMGR_WS_ORIGINS": PAGES,
        }  # fmt: skip
        product.start()
        users = "anna", "bert", "carl"
        product.provision(
            f"sip:{DOMAIN}:{provider_at};transport=tls", domain=DOMAIN, addresses=place.provider,
            next_hop=place.pbx_port(), accounts=[{"l_uuid": user} for user in users],
        )  # fmt: skip
        product.manage("domain", "set", "pbx.example", "--next-hop", "devices")
        for user in users:  # this SIP.js knows MD5 only
            product.manage(
                "device", "add", f"{user}@pbx.example", "--digest", "md5", "--password-stdin", stdin=PASSWORD + "\n"
            )
        for user in users:
            eventually(
                lambda name=user: product.registration(name).get("state") == "registered", 20, f"{user} registers"
            )
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=program("chromium"),
            args=[
                "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream", "--allow-loopback-in-peer-connection",
                f"--ignore-certificate-errors-spki-list={_spki(ours)}",
                "--disable-features=LocalNetworkAccessChecks",  # else a user has to agree
            ],
        )  # fmt: skip
        stack.callback(browser.close)
        yield Stand(product, provider, web, authority, browser)


def state(page: Page) -> Any:
    return page.evaluate("phone.states.at(-1)")


@pytest.mark.checklist("B20")
def test_a_page_registers_and_is_called_through_a_trunk(
    stand: Stand, library: dict[str, bytes], sipp: Callable[..., Sipp], place: Place
) -> None:
    page = stand.phone(library, "carl", SDP)
    eventually(lambda: stand.received("carl"), 5, "the binding is in the table")
    [received] = stand.received("carl")
    assert received.startswith("sip:127.0.0.1:") and received.endswith(";transport=wss")
    near = sipp("caller", place.stranger_port(), stand.provider, count=1, users=["carl"], seconds=15)
    assert_clean(near.result(), 1)
    page.wait_for_function("phone.states.at(-1) === 'Terminated'", timeout=5_000)
    told = stand.product.manage("routes", "--source", place.provider, "--ruri", "sip:carl@127.0.0.1").out
    assert "wss:" + received.removeprefix("sip:").removesuffix(";transport=wss") in told
    assert page.evaluate("phone.from") == "sip:anonymous@anonymous.invalid"
    said = page.evaluate("phone.offered")  # untouched, each way
    assert "o=gw 53655765 2353687637 IN IP4 " in said and said.endswith("a=sendrecv\r\n")
    assert SDP in near.messages.replace("\n", "\r\n").replace("\r\r", "\r")
    page.context.close()  # without a word: the binding stays, its connection does not
    near = sipp("caller", place.stranger_port(), stand.provider, count=1, users=["carl"], seconds=8)
    result = near.result()
    assert result.ok == 0 and "480" in result.errors and stand.received("carl") == [received]


@pytest.mark.checklist("M8")
def test_a_hundred_slow_web_sockets_hold_nobody_up(
    stand: Stand, library: dict[str, bytes], sipp: Callable[..., Sipp], place: Place
) -> None:
    """Of one address, which we know: in their handshake, in a message, and in the middle of a frame's head."""
    page = stand.phone(library, "carl", SDP)
    trusting = ssl.create_default_context(cafile=str(stand.authority.path))
    slow: list[ssl.SSLSocket] = []
    whole = frame(message(transport="WSS"))
    begun = hello()[:-2], hello() + whole[:60], hello() + frame(b"O", fin=False), hello() + b"\x81"
    try:
        with pytest.raises(OSError):
            for number in range(110):
                plain = socket.create_connection(("127.0.0.1", stand.port), 5, (place.provider, 0))
                slow.append(trusting.wrap_socket(plain, server_hostname="127.0.0.1"))
                slow[-1].sendall(begun[number % len(begun)])
        assert len(slow) == 100
        near = sipp("caller", place.stranger_port(), stand.provider, count=3, users=["carl"], seconds=15)
        while near.running():
            for each in slow:
                with contextlib.suppress(OSError):
                    each.sendall(b"x")
            time.sleep(0.05)
        assert_clean(near.result(), 3)
    finally:
        for each in slow:
            each.close()
    page.context.close()


@pytest.mark.checklist("B20")
@pytest.mark.parametrize("ends", ["anna", "bert"])
def test_two_pages_talk_through_a_trunk(stand: Stand, library: dict[str, bytes], ends: str) -> None:
    anna, bert = stand.phone(library, "anna"), stand.phone(library, "bert")
    before = len(stand.calls("anna"))
    anna.evaluate("phone.call('bert')")
    for page in (anna, bert):
        page.wait_for_function("phone.states.at(-1) === 'Established' && phone.media() === 'connected'", timeout=15_000)
    assert anna.evaluate("phone.said") == bert.evaluate("phone.offered")
    assert anna.evaluate("phone.offered") == bert.evaluate("phone.said")
    assert bert.evaluate("phone.from") == "sip:anonymous@anonymous.invalid"
    {"anna": anna, "bert": bert}[ends].evaluate("phone.hangUp()")
    for page in (anna, bert):
        page.wait_for_function("phone.states.at(-1) === 'Terminated'", timeout=5_000)
        page.context.close()
    eventually(lambda: stand.calls("anna")[before:] == [("out", 200)], 5, "the call out is on record")
    eventually(lambda: ("in", 200) in stand.calls("bert"), 5, "and the call in")


def test_a_wrong_password_registers_nothing(stand: Stand, library: dict[str, bytes]) -> None:
    page = stand.page(library)
    stand.register(page, "bert", SDP, password="wrong")
    page.wait_for_timeout(1000)
    assert page.evaluate("phone.registered") is False
    page.context.close()


@pytest.mark.checklist("B20")
def test_a_page_of_another_origin_gets_no_connection(stand: Stand, library: dict[str, bytes]) -> None:
    page = stand.page(library, "https://evil.example")
    with pytest.raises(Exception, match="WebSocket closed"):
        stand.register(page, "anna", SDP)
    eventually(lambda: "Origin header: https://evil.example" in stand.product.text, 5, "the log says why")
    admin = stand.product.admin()
    eventually(lambda: "TRUNKMGR_WS_ORIGINS wanted" in admin.get("/status/security/"), 5, "the page says so", 0.3)
    page.context.close()
