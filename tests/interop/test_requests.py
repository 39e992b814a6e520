"""Requests of operators at real peers: Kamailio that challenges (as kamailio-tests' tuacxx0001), SIPp, curl."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.conftest import Place
from tests.interop.peers import HERE, Capture, Sipp, assert_clean
from tests.interop.product import Cluster, Embedded
from tests.interop.programs import ROOT, Program, eventually, free_port, program
from tests.interop.test_browser import Reader, chromium  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.interop("kamailio", "sipp", "chromium", "postgres", "redis")]

PASSWORD = "secret"
REALM = "far.example"


class Challenger:
    """Kamailio: INFO is challenged by 401, MESSAGE by 407."""

    def __init__(self, folder: Path, host: str, algorithm: str) -> None:
        folder.mkdir(parents=True)
        self.host, self.port = host, free_port(host)
        self._program = Program(
            [
                program("kamailio"), "-DD", "-E", "-f", str(HERE / "conf" / "challenger.cfg"), "-Y", str(folder),
                "-w", str(folder), "-m", "64", "-A", f"LISTEN=udp:{host}:{self.port}", "-A", f'REALM="{REALM}"',
                "-A", f'ALGORITHM="{algorithm}"',
            ],
            log=folder / "kamailio.log",
        )  # fmt: skip
        wanted = f":{self.port:04X} "
        eventually(lambda: wanted in Path("/proc/net/udp").read_text(), 10, "Kamailio listens")

    @property
    def uri(self) -> str:
        return f"sip:{self.host}:{self.port}"

    def seen(self, method: str) -> list[tuple[int, str, str]]:
        """CSeq, user of the credentials and Call-ID of each request."""
        found = re.findall(rf"SEEN {method} cseq=(\d+) auth=(\S*) call=(\S+)", self._program.text)
        return [(int(cseq), user, call_id) for cseq, user, call_id in found]

    @property
    def authenticated(self) -> list[str]:
        return re.findall(r"AUTHENTICATED (.*)", self._program.text)

    def stop(self) -> None:
        self._program.stop(5)


@pytest.fixture(scope="module")
def challenger(folder: Path, place: Place) -> Iterator[Callable[[str], Challenger]]:
    with ExitStack() as stack:
        made: dict[str, Challenger] = {}

        def make(algorithm: str = "MD5") -> Challenger:
            if algorithm not in made:
                made[algorithm] = Challenger(folder / f"challenger-{algorithm}", place.provider, algorithm)
                stack.callback(made[algorithm].stop)
            return made[algorithm]

        yield make


@pytest.fixture(scope="module")
def product(trunkmgr_up: Callable[..., Embedded]) -> Embedded:
    return trunkmgr_up()


def test_info_is_authenticated_by_kamailio(product: Embedded, challenger: Callable[..., Challenger]) -> None:
    kamailio = challenger()
    done = product.manage(
        "uac_req_send", "--method", "INFO", "--ruri", kamailio.uri, "--furi", "sip:desk@pbx.example",
        "--auser", "alice", "--apasswd-stdin", "--callid", "tuac-1", stdin=f"{PASSWORD}\n",
    )  # fmt: skip
    assert re.match(rf"200 Taken from udp:{kamailio.host}:{kamailio.port}, after \d+ ms\n", done.out)
    assert "  Allow: OPTIONS, INFO, MESSAGE\n" in done.out
    assert kamailio.seen("INFO") == [(10, "<null>", "tuac-1"), (11, "alice", "tuac-1")]
    assert kamailio.authenticated[-1].startswith("INFO by alice from sip:desk@pbx.example")
    assert product.query("SELECT COUNT(*) FROM trunkmgr_order WHERE secret <> ''") == [(0,)]


def test_message_of_an_account_is_authenticated_by_its_provider(
    product: Embedded, challenger: Callable[..., Challenger]
) -> None:
    kamailio = challenger()
    product.provision(
        kamailio.uri, domain=REALM, addresses=kamailio.host, next_hop=(kamailio.host, 9),
        accounts=[{"l_uuid": "berlin", "realm": REALM, "expires": "0"}],
    )  # fmt: skip
    eventually(lambda: product.registration("berlin").get("owner_id"), 10, "the worker owns the account")
    done = product.manage(
        "uac_req_send", "--method", "MESSAGE", "--ruri", f"sip:100@{REALM}", "--account", "berlin", "--json",
        "--hdr", "Content-Type: text/plain", "--body-file", "-", stdin="grüße",
    )  # fmt: skip
    told = json.loads(done.out)
    assert (told["ok"], told["code"], told["target"]) == (True, 200, f"udp:{kamailio.host}:{kamailio.port}")
    assert kamailio.authenticated[-1] == f"MESSAGE by berlin from sip:berlin@{REALM}: grüße"


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_an_ha1_is_taken_for_the_password(
    product: Embedded, challenger: Callable[..., Challenger], algorithm: str
) -> None:
    kamailio = challenger(algorithm)
    ha1 = hashlib.new(algorithm.replace("-", ""), f"bob:{REALM}:{PASSWORD}".encode()).hexdigest()
    product.manage(
        "uac_req_send", "--method", "INFO", "--ruri", kamailio.uri, "--auser", "bob", "--apasswd-stdin", "--ha1",
        stdin=ha1,
    )  # fmt: skip
    assert kamailio.authenticated[-1].startswith("INFO by bob")


def test_a_wrong_password_is_asked_for_once(product: Embedded, challenger: Callable[..., Challenger]) -> None:
    kamailio = challenger()
    before = len(kamailio.seen("INFO"))
    done = product.manage(
        "uac_req_send", "--method", "INFO", "--ruri", kamailio.uri, "--auser", "eve", "--apasswd-stdin",
        stdin="wrong-password-1\n", check=False,
    )  # fmt: skip
    assert done.code == 1 and "401 Unauthorized" in done.err and "(Password refused)" in done.err
    assert len(kamailio.seen("INFO")) == before + 2
    assert "wrong-password-1" not in done.out + done.err + product.text


def test_options_is_on_the_wire_at_once(
    product: Embedded, sipp: Callable[..., Sipp], place: Place, loopback_capture: Callable[..., Capture],
    record_property: Callable[[str, Any], None],
) -> None:  # fmt: skip
    pbx = place.pbx_port()
    peer = sipp("answers_options", pbx, count=5)
    capture = loopback_capture(f"udp port {pbx[1]}")
    took = []
    for _ in range(5):
        done = product.manage("uac_req_send", "--ruri", f"sip:{pbx[0]}:{pbx[1]}")
        took.append(done.seconds)
        assert done.out.startswith("200 OK from udp:")
    assert_clean(peer.result(), 5)
    left = sorted(p.time for p in capture.stop() if p.method == "OPTIONS")
    placed = sorted(
        float(row[0]) for row in product.query(
            "SELECT (julianday(created_time) - 2440587.5) * 86400.0 FROM trunkmgr_order ORDER BY id DESC LIMIT 5"
        )
    )  # fmt: skip
    waits = [there - here for here, there in zip(placed, left, strict=True)]
    record_property(
        "figure",
        f"uac_req_send: {min(waits) * 1000:.0f} to {max(waits) * 1000:.0f} ms from its row to the wire, "
        f"{min(took):.2f} to {max(took):.2f} s for the command",
    )
    assert min(waits) < 0.1, waits
    assert max(waits) < 0.5, "the poll alone would take up to a second"


def test_a_call_that_is_answered_is_hung_up(product: Embedded, sipp: Callable[..., Sipp], place: Place) -> None:
    pbx = place.pbx_port()
    peer = sipp("callee_hung_up", pbx, count=1)
    done = product.manage("uac_req_send", "--method", "INVITE", "--ruri", f"sip:100@{pbx[0]}:{pbx[1]}")
    assert done.out.startswith("200 OK from udp:")
    assert_clean(peer.result(), 1)


def test_silence_ends_the_command_in_its_time(product: Embedded, place: Place) -> None:
    done = product.manage("uac_req_send", "--ruri", f"sip:{place.stranger}:9", "--timeout", "1", check=False)
    assert done.code == 1 and "No final answer came in time." in done.err
    assert done.seconds < 5


def test_the_admin_page_sends_one_and_shows_the_reply(
    product: Embedded, challenger: Callable[..., Challenger], chromium: Browser,  # noqa: F811
    tmp_path: Path,
) -> None:  # fmt: skip
    kamailio = challenger()
    product.admin()
    reader = Reader(chromium, SimpleNamespace(url=f"http://{product.http}", product=product))
    page = reader.page
    page.goto(f"http://{product.http}/admin/trunkmgr/siprequest/")
    page.goto(f"http://{product.http}/admin/trunkmgr/siprequest/add/")
    page.fill("[name=method]", "INFO")
    page.fill("[name=ruri]", kamailio.uri)
    page.fill("[name=furi]", "sip:desk@pbx.example")
    page.fill("[name=hdrs]", "X-One: 1\nX-Two: 2")
    page.fill("[name=auser]", "carol")
    page.fill("[name=apasswd]", PASSWORD)
    page.screenshot(path=tmp_path / "form.png", full_page=True)
    page.click("[name=_save]")
    page.wait_for_url("**/siprequest/*/change/")
    assert "200 Taken from udp:" in page.inner_text("body")
    assert "Allow: OPTIONS, INFO, MESSAGE" in page.inner_text("body")
    assert kamailio.authenticated[-1].startswith("INFO by carol from sip:desk@pbx.example")
    page.screenshot(path=tmp_path / "reply.png", full_page=True)
    page.goto(f"http://{product.http}/admin/trunkmgr/siprequest/")
    assert f"INFO {kamailio.uri}" in page.inner_text("body")
    page.screenshot(path=tmp_path / "list.png", full_page=True)
    assert not reader.complaints and reader.requested == {product.http}
    reader.context.close()


def test_the_examples_of_the_api_page_run_as_they_stand(
    product: Embedded, challenger: Callable[..., Challenger], tmp_path: Path
) -> None:
    kamailio = challenger()
    page = (ROOT / "docs" / "api.md").read_text()
    blocks = re.findall(r"^```(bash|json)\n(.*?)^```", page, re.M | re.S)
    script = ["set -e", f"cd {ROOT}"]
    for kind, text in blocks:
        if kind == "bash":
            text = text.replace("http://127.0.0.1:8000", f"http://{product.http}")
            text = text.replace("sip:192.0.2.20", kamailio.uri)
            script += [text.replace("./manage.py", f"{sys.executable} manage.py"), "echo"]
    done = subprocess.run(
        [program("bash"), "-c", "\n".join(script)], env=product.env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line]
    options, message, looked, refused = told
    for answer in (options, message, looked):
        assert (answer["state"], answer["result"]["code"], answer["result"]["reason"]) == ("done", 200, "Taken")
        assert answer["who"] == "token nightly-check" and "secret" not in str(answer)
    assert kamailio.authenticated[-1] == "MESSAGE by alice from sip:desk@pbx.example: hello"
    shown, shown_refusal = [json.loads(text) for kind, text in blocks if kind == "json"]
    assert set(shown) == set(options) and set(shown["result"]) == set(options["result"])
    assert refused == shown_refusal


def test_in_several_processes_the_worker_is_woken_over_redis(
    trunkmgr_cluster: Callable[..., Cluster], challenger: Callable[..., Challenger], tmp_path: Path
) -> None:
    kamailio, cluster = challenger(), trunkmgr_cluster()
    done = cluster.manage(
        "uac_req_send", "--method", "INFO", "--ruri", kamailio.uri, "--auser", "dora", "--apasswd-stdin", "--json",
        stdin=PASSWORD,
    )  # fmt: skip
    assert json.loads(done.out)["code"] == 200 and kamailio.authenticated[-1].startswith("INFO by dora")
    token = cluster.manage("api_token", "add", "check", "--may", "uac_req_send").out.strip()
    body = json.dumps({"ruri": kamailio.uri, "method": "INFO", "auser": "emil", "apasswd": PASSWORD})
    done = subprocess.run(
        [
            program("curl"), "--silent", "-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json",
            "-d", body, f"http://{cluster.http}/api/uac_req_send",
        ],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert json.loads(done.stdout)["result"]["reason"] == "Taken", done.stdout
    rows = cluster.query("SELECT created_time, claimed_time, secret FROM trunkmgr_order ORDER BY id")
    assert [secret for _, _, secret in rows] == ["", ""]
    assert min(claimed - created for created, claimed, _ in rows).total_seconds() < 0.5, "the poll takes up to a second"
    assert PASSWORD not in cluster.text
