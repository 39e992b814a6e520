"""The pages behind the nginx of deploy/: signing in over https, the live page's websocket, and nobody else's word."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.certificates import Authority
from tests.deployment import DEPLOY
from tests.interop.product import Embedded
from tests.interop.programs import Program, eventually, free_port, program

pytestmark = pytest.mark.interop("nginx")

HOST = "trunks.example"
NAME, PASSWORD = "interop", "interop-page-password"


@dataclass
class Stand:
    product: Embedded
    tls: ssl.SSLContext
    https: int
    http: int

    def ask(
        self, method: str, path: str, fields: dict[str, str] | None = None, **headers: str
    ) -> http.client.HTTPResponse:
        connection = http.client.HTTPSConnection("127.0.0.1", self.https, context=self.tls, timeout=10)
        body = None if fields is None else urllib.parse.urlencode(fields)
        typed = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        connection.request(method, path, body, {"Host": f"{HOST}:{self.https}", **typed, **headers})
        return connection.getresponse()

    @property
    def origin(self) -> str:
        return f"https://{HOST}:{self.https}"


class _Context(ssl.SSLContext):
    """Asks for the name of the certificate whatever address is connected to."""

    def wrap_socket(self, sock: object, **options: object) -> ssl.SSLSocket:
        return super().wrap_socket(sock, **{**options, "server_hostname": HOST})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def stand(folder: Path, trunkmgr_up: Callable[..., Embedded]) -> Iterator[Stand]:
    nginx = program("nginx")
    product = trunkmgr_up({"TRUNKMGR_ALLOWED_HOSTS": f"{HOST},127.0.0.1", "TRUNKMGR_HTTPS": "1"})
    made = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD, "DJANGO_SUPERUSER_USERNAME": NAME, "DJANGO_SUPERUSER_EMAIL": ""}
    product.env.update(made)
    product.manage("createsuperuser", "--noinput")
    authority = Authority(folder)
    issued = authority.issue("proxy", dns=(HOST,))
    https, plain = free_port(), free_port()
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^.*listen \[::\].*\n", "", text)
    for old, new in (
        ("listen 443 ", f"listen 127.0.0.1:{https} "), ("listen 80;", f"listen 127.0.0.1:{plain};"),
        ("127.0.0.1:8000", product.http), (f"/etc/letsencrypt/live/{HOST}/fullchain.pem", str(issued.certificate)),
        (f"/etc/letsencrypt/live/{HOST}/privkey.pem", str(issued.key)),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\npid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{text}\n}}\n"
    )
    running = Program([nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")], log=folder / "nginx.log")
    tls = _Context(ssl.PROTOCOL_TLS_CLIENT)
    tls.load_verify_locations(authority.path)
    stand = Stand(product, tls, https, plain)
    try:
        eventually(lambda: running.code is not None or answers(stand), 10, "nginx answers")
        assert running.code is None, running.text
        yield stand
    finally:
        running.kill()


def answers(stand: Stand) -> bool:
    try:
        return stand.ask("GET", "/healthz").status == 200
    except OSError:
        return False


def cookies_of(response: http.client.HTTPResponse) -> dict[str, str]:
    lines = response.headers.get_all("Set-Cookie") or []
    assert all("; Secure" in line for line in lines), lines
    return dict(line.partition(";")[0].split("=", 1) for line in lines)


def form(stand: Stand) -> tuple[dict[str, str], dict[str, str]]:
    """Fields of the page on which one signs in, and its cookies."""
    page = stand.ask("GET", "/admin/login/")
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.read().decode())
    assert token
    return {"csrfmiddlewaretoken": token[1], "username": NAME, "password": PASSWORD}, cookies_of(page)


def header(cookies: dict[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


def test_one_signs_in_over_https_and_the_live_page_is_live(stand: Stand) -> None:
    fields, cookies = form(stand)
    page = f"{stand.origin}/admin/login/"
    answer = stand.ask("POST", "/admin/login/", fields, Cookie=header(cookies), Origin=stand.origin, Referer=page)
    assert answer.status == 302
    cookies |= cookies_of(answer)
    assert stand.ask("GET", "/status/", Cookie=header(cookies)).status == 200
    with connect(
        f"wss://{HOST}:{stand.https}/ws/status/", sock=socket.create_connection(("127.0.0.1", stand.https)),
        ssl=stand.tls, origin=stand.origin, additional_headers={"Cookie": header(cookies)}, open_timeout=10,
    ) as live:  # fmt: skip
        assert json.loads(live.recv(timeout=10))["kind"]


def test_a_form_of_another_page_is_refused(stand: Stand) -> None:
    fields, cookies = form(stand)
    for origin in ("https://evil.example", f"http://{HOST}:{stand.https}"):
        answer = stand.ask("POST", "/admin/login/", fields, Cookie=header(cookies), Origin=origin)
        assert answer.status == 403


def test_http_leads_to_https(stand: Stand) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", stand.http, timeout=10)
    connection.request("GET", "/status/?a=1", headers={"Host": HOST})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Location"]) == (301, f"https://{HOST}/status/?a=1")


def test_only_the_proxy_says_that_a_request_came_over_https(stand: Stand, trunkmgr_up: Callable[..., Embedded]) -> None:
    fields, cookies = form(stand)
    told = {"Cookie": header(cookies), "Origin": f"https://{HOST}", "Referer": f"https://{HOST}/", "Host": HOST}
    told |= {"X-Forwarded-Proto": "https", "Content-Type": "application/x-www-form-urlencoded"}

    def status(product: Embedded) -> int:
        connection = http.client.HTTPConnection(product.http, timeout=10)
        connection.request("POST", "/admin/login/", urllib.parse.urlencode({**fields, "password": "wrong"}), told)
        return connection.getresponse().status

    assert status(stand.product) == 200, "the form with its error, from an address of TRUNKMGR_PROXIES"
    other = trunkmgr_up({"TRUNKMGR_ALLOWED_HOSTS": HOST, "TRUNKMGR_PROXIES": "192.0.2.0/24"})
    assert status(other) == 403
