"""`manage.py uac_req_send`: what it orders, what it shows, and that no password is on any way out."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from tests.trunkmgr.pages import node, trunk
from trunkmgr.models import Credential, Order
from trunkmgr.services import nodes, orders

pytestmark = pytest.mark.django_db(transaction=True)

PASSWORD = "geheim-4711-XYZ"
RESULT = {
    "ok": True, "message": "200 OK from udp:192.0.2.9:5060, after 12 ms", "code": 200, "reason": "OK",
    "target": "udp:192.0.2.9:5060", "round_trip": 0.012, "headers": ["Allow: INVITE\x1b[2J"], "body": "hello\r\nthere",
}
Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command line beside a worker that answers with `result`; all that was written is searched."""

    def run(*words: str, stdin: str = "", fails: bool = False, result: dict[str, Any] | None = RESULT) -> str:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        stop = threading.Event()

        def work() -> None:
            while result is not None and not stop.is_set():
                for order in orders.claim("edge-1"):
                    secrets.append(order.secret.reveal())
                    orders.finish(order.pk, result)
                time.sleep(0.01)
            connection.close()

        thread = threading.Thread(target=work)
        thread.start()
        out, failure = io.StringIO(), ""
        try:
            call_command("uac_req_send", *words, stdout=out, stderr=out)
        except CommandError as error:
            failure = str(error)
        finally:
            stop.set()
            thread.join()
        said = out.getvalue() + failure
        assert PASSWORD not in said
        assert bool(failure) == fails, said
        return said

    secrets: list[str] = []
    run.secrets = secrets  # type: ignore[attr-defined]
    return run


def test_it_orders_and_shows_the_reply(run: Run) -> None:
    node()
    said = run("--ruri", "sip:192.0.2.9")
    assert said.splitlines() == [RESULT["message"], "  Allow: INVITE�[2J", "  hello", "  there"]
    order = Order.objects.get()
    assert order.verb == "uac_req_send" and order.who.endswith(" (command)")
    assert order.payload == {"keys": {"method": "OPTIONS", "ruri": "sip:192.0.2.9"}, "l_uuid": "", "credential": None}


def test_every_option_is_a_key(run: Run, tmp_path: Path) -> None:
    node()
    body = tmp_path / "body.txt"
    body.write_text("grüße")
    keys = {
        "method": "MESSAGE", "ruri": "sip:a.example", "furi": "sip:b.example", "turi": "sip:c.example",
        "ouri": "sip:192.0.2.9", "ftag": "f", "ttag": "t", "callid": "c@d", "sock": "udp:192.0.2.1:5060",
        "auser": "alice", "cseqno": 5, "fr_timeout": 500, "fr_inv_timeout": 600,
    }  # fmt: skip
    words = [word for key, value in keys.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    run(
        *words, "--hdr", "Content-Type: text/plain", "--hdr", "X-One: 1", "--body-file", str(body), "--apasswd-stdin",
        stdin=PASSWORD + "\n",
    )  # fmt: skip
    order = Order.objects.get()
    assert order.payload["keys"] == {**keys, "hdrs": "Content-Type: text/plain\r\nX-One: 1\r\n", "body": "grüße"}
    assert run.secrets == [PASSWORD] and not order.secret  # type: ignore[attr-defined]


def test_the_body_comes_from_stdin(run: Run) -> None:
    node()
    run("--method", "MESSAGE", "--ruri", "sip:a", "--hdr", "Content-Type: text/plain", "--body-file", "-", stdin="hi")
    assert Order.objects.get().payload["keys"]["body"] == "hi"


def test_json_and_the_exit_code(run: Run) -> None:
    node()
    told = json.loads(run("--ruri", "sip:a", "--json"))
    assert told == {"order": Order.objects.get().pk, **RESULT}
    said = run("--ruri", "sip:a", fails=True, result={**RESULT, "ok": False, "message": "404 Not Found"})
    assert said.splitlines()[0] == "  Allow: INVITE�[2J" and said.endswith("404 Not Found")


def test_an_account_and_a_credential_go_by_their_ids(run: Run) -> None:
    trunk("berlin", node())
    credential = Credential.objects.create(username="u", password=PASSWORD, realm="r")
    run("--ruri", "tel:+4930", "--account", "berlin")
    run("--ruri", "sip:a", "--credential", str(credential.pk))
    payloads = list(Order.objects.order_by("pk").values_list("payload", flat=True))
    assert (payloads[0]["l_uuid"], payloads[1]["credential"]) == ("berlin", credential.pk)
    assert PASSWORD not in str(payloads)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--ruri", "192.0.2.9"], "--ruri: Is no URI"),
        (["--ruri", "tel:+4930"], "Ruri is no sip: URI that says where to send; ouri may name the next hop."),
        (["--ruri", "sip:a", "--hdr", "From: <sip:x>"], "--hdr: May not hold From"),
        (["--ruri", "sip:a", "--hdr", "X: 1\r\n\r\nINVITE"], "--hdr: Has no `Name: value` in line 2"),
        (["--ruri", "sip:a", "--account", "nobody"], "--account: No account has the l_uuid 'nobody'."),
        (["--ruri", "sip:a", "--account", "berlin", "--ouri", "sip:b"], "--ouri: The account says where it goes"),
        (["--ruri", "sip:a", "--account", "berlin", "--auser", "x"], "--auser: The account or credential already says"),
        (["--ruri", "sip:a", "--credential", "77"], "--credential: No credential has the id 77."),
        (["--ruri", "sip:a", "--credential", "1"], "--credential: The credential 1 names no realm"),
        (["--ruri", "sip:a", "--account", "berlin", "--credential", "1"], "not both"),
        (["--ruri", "sip:a", "--timeout", "0"], "--timeout: Enter seconds from 1 to 120."),
        (["--ruri", "sip:a", "--apasswd-stdin"], "Apasswd is set and auser is not."),
        (["--ruri", "sip:a", "--auser", "x", "--apasswd-stdin", "--ha1"], "Apasswd is no HA1"),
        (["--ruri", "sip:a", "--apasswd-stdin", "--body-file", "-"], "cannot both come from stdin"),
        (["--ruri", "sip:a", "--body-file", "/nowhere"], "/nowhere cannot be read"),
        (["--ruri", "sip:a", "--body-file", "pyproject.toml"], "Body needs a Content-Type line in hdrs."),
    ],
)
def test_what_cannot_be_sent_is_refused_before_it_is_ordered(run: Run, words: list[str], problem: str) -> None:
    registration = trunk("berlin", node())
    Credential.objects.create(pk=1, username="u", password=PASSWORD, account=registration.account)
    assert problem in run(*words, stdin=PASSWORD + "\n", fails=True)
    assert not Order.objects.exists()


def test_without_a_worker_it_says_so(run: Run) -> None:
    assert "No SIP worker runs" in run("--ruri", "sip:a", fails=True)
    node(silent=60)
    assert "No SIP worker runs" in run("--ruri", "sip:a", fails=True)


def test_a_secret_that_nobody_claimed_goes_with_the_waiting(run: Run) -> None:
    node()
    said = run(
        "--ruri", "sip:a", "--auser", "u", "--apasswd-stdin", "--timeout", "1", stdin=PASSWORD, fails=True, result=None,
    )
    assert "The SIP worker edge-1 has not answered in 2 s." in said
    assert not Order.objects.get().secret


def test_a_secret_that_nobody_claimed_goes_with_the_next_order(run: Run) -> None:
    edge = node()
    orders.place_one("uac_req_send", {}, timeout=-1, secret=Credential(password=PASSWORD).password)
    assert Order.objects.get().secret
    run("--ruri", "sip:a")
    assert not Order.objects.exclude(secret="").exists()
    assert edge.orders.count() == 2


def test_requests_are_kept_for_ninety_days_and_other_orders_for_one() -> None:
    edge, now = node(stopped_time=timezone.now()), timezone.now()
    for verb, days in (("dump", 2), ("uac_req_send", 89), ("uac_req_send", 91)):
        Order.objects.create(node=edge, verb=verb, deadline=now - timedelta(days=days))
    nodes.start("edge-1")
    assert [(order.verb, (now - order.deadline).days) for order in Order.objects.all()] == [("uac_req_send", 89)]
