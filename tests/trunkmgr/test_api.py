"""The HTTP API: who may, what it orders, what it answers, and that no secret comes back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client

from tests.trunkmgr.pages import node, trunk
from trunkmgr.api import access
from trunkmgr.models import ApiToken, Credential, Order
from trunkmgr.services import api_tokens, orders

pytestmark = pytest.mark.django_db(transaction=True)

PASSWORD = "pw-that-must-not-show"
SEND = "/api/uac_req_send"
RESULT = {"ok": True, "message": "200 OK from udp:192.0.2.9:5060, after 12 ms", "code": 200, "headers": ["Allow: X"]}


@pytest.fixture(autouse=True)
def full_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "rate", access.Rate())


@pytest.fixture
def worker() -> Iterator[None]:
    """Answers every order."""
    node()
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            for order in orders.claim("edge-1"):
                orders.finish(order.pk, RESULT)
            time.sleep(0.01)
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


class Api:
    """A program with a token."""

    def __init__(self, *permissions: str, name: str = "check") -> None:
        self.client = Client(enforce_csrf_checks=True)
        _, self.token = api_tokens.add(name, permissions or ("uac_req_send",), "anna")
        self.headers = {"Authorization": f"Bearer {self.token}"}

    def send(self, raw: Any = None, **given: Any) -> tuple[int, dict[str, Any]]:
        data = raw if isinstance(raw, str | bytes) else json.dumps({"ruri": "sip:192.0.2.9", **given})
        return told(self.client.post(SEND, data, content_type="application/json", headers=self.headers))

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        return told(self.client.get(path, headers=self.headers))


def told(response: Any) -> tuple[int, dict[str, Any]]:
    text = response.content.decode()
    assert PASSWORD not in text and "enc1:" not in text
    assert response["Content-Type"] == "application/json" and "no-store" in response.get("Cache-Control", "no-store")
    return response.status_code, json.loads(text)


def test_a_request_is_sent_and_its_result_told(worker: None) -> None:
    api = Api()
    status, answer = api.send(
        method="INFO", furi="sip:desk@pbx.example", hdrs=["X-One: 1", "X-Two: 2"], auser="alice", apasswd=PASSWORD,
        cseqno=5, timeout=5,
    )  # fmt: skip
    assert status == 200
    order = Order.objects.get()
    keys = {
        "method": "INFO", "ruri": "sip:192.0.2.9", "furi": "sip:desk@pbx.example", "hdrs": "X-One: 1\r\nX-Two: 2\r\n",
        "auser": "alice", "cseqno": 5,
    }
    assert (answer["id"], answer["state"], answer["who"], answer["request"]) == (order.pk, "done", "token check", keys)
    assert answer["result"] == RESULT
    assert order.payload["keys"] == keys and not order.secret
    assert api.get(answer["url"]) == (200, answer)


def test_without_wait_it_answers_at_once() -> None:
    node()
    api = Api()
    status, answer = api.send(wait=False, timeout=1, auser="alice", apasswd=PASSWORD)
    assert (status, answer["state"], answer["result"]) == (202, "waiting", None)
    assert Order.objects.get().secret.reveal() == PASSWORD
    time.sleep(1.05)
    assert api.get(answer["url"])[1]["state"] == "expired"


def test_account_and_credential_by_id(worker: None) -> None:
    trunk("berlin", Order.node.field.related_model.objects.get())
    credential = Credential.objects.create(username="u", password=PASSWORD, realm="r")
    api = Api()
    assert api.send(account="berlin")[1]["account"] == "berlin"
    assert api.send(credential=credential.pk)[1]["credential"] == credential.pk


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"ruri": "192.0.2.9"}, "ruri: Is no URI, such as sip:user@example.net."),
        ({"ruri": 5}, "ruri: Takes text, not int."),
        ({"method": "INVITE\r\nX: y"}, "method: Is no token (letters, digits and -.!%*_+`'~)."),
        ({"cseqno": "5"}, "cseqno: Takes a number, not str."),
        ({"hdrs": ["From: <sip:x>"]}, "hdrs: May not hold From, which is made of the other keys."),
        ({"hdrs": ["X: 1\r\nY: 2\r\n\r\n"]}, "hdrs: Has no `Name: value` in line 3."),
        ({"hdrs": [1]}, "hdrs: Takes text, not list."),
        ({"onreply": "x"}, "onreply: There is no such key"),
        ({"evcode": 200}, "evcode: There is no such key"),
        ({"body": "a\0b"}, "body: It holds a NUL, which only a routing script sends."),
        ({"body": "hi"}, "Body needs a Content-Type line in hdrs."),
        ({"account": "nobody"}, "account: No account has the l_uuid 'nobody'."),
        ({"account": "no\0body"}, "account: No account has the l_uuid 'no\\x00body'."),
        ({"account": 5}, "account: Write text."),
        ({"credential": 99}, "credential: No credential has the id 99."),
        ({"credential": 10**30}, f"credential: No credential has the id {10**30}."),
        ({"credential": True}, "credential: Write a number."),
        ({"timeout": 1e9}, "timeout: Enter seconds from 1 to 120."),
        ({"timeout": float("nan")}, "timeout: Enter seconds from 1 to 120."),
        ({"wait": "yes"}, "wait: Write true or false."),
        ({"apasswd": PASSWORD}, "Apasswd is set and auser is not."),
        ({"apasswd": PASSWORD + "\n", "auser": "a"}, "apasswd: Holds a line break or another control character."),
        ({"apasswd": PASSWORD * 10, "auser": "a"}, "apasswd: Takes 127 bytes, not 210."),
        ({"flags": 1, "auser": "a", "apasswd": PASSWORD}, "Apasswd is no HA1: 32 hex digits for MD5, 64 for SHA-256."),
    ],
)
def test_what_cannot_be_sent_is_400_with_its_reason(given: dict[str, Any], error: str) -> None:
    node()
    status, answer = Api().send(**given)
    assert status == 400 and answer["error"].startswith(error)
    if error[0].islower():
        assert list(answer["errors"]) == [error.partition(":")[0]]
    assert not Order.objects.exists()


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ("{", 400, "This is no JSON."), ("[" * 100_000, 400, "This is no JSON."),
        ('{"ruri": "sip:\\ud800"}', 400, "This is no JSON."), (b"\xff\xfe", 400, "This is no JSON."),
        ("[]", 400, "Send a JSON object"), (" " * 300_000, 413, "A request has at most"),
        (" " * 3_000_000, 413, "A request has at most"),
    ],
)  # fmt: skip
def test_bodies_that_are_none(body: Any, status: int, error: str) -> None:
    answered, answer = Api().send(body)
    assert answered == status and answer["error"].startswith(error)


def test_other_types_methods_and_addresses() -> None:
    api = Api()
    response = api.client.post(SEND, {"ruri": "sip:a"}, headers=api.headers)
    assert told(response) == (415, {"error": "Send JSON: Content-Type: application/json."})
    response = api.client.get(SEND, headers=api.headers)
    assert told(response) == (405, {"error": "Use POST."}) and response["Allow"] == "POST"
    assert told(api.client.post("/api/nowhere")) == (404, {"error": "There is nothing at /api/nowhere."})
    assert api.get("/api/orders/77") == (404, {"error": "There is no order 77 for you."})
    assert api.get(f"/api/orders/{10**30}")[0] == 404


def test_without_a_worker_it_is_503() -> None:
    status, answer = Api().send()
    assert status == 503 and answer["error"].startswith("No SIP worker runs.")


def test_a_token_does_what_it_may_and_until_it_is_taken_back() -> None:
    node()
    reader, sender = Api("view_orders", name="reader"), Api(name="sender")
    assert reader.send() == (403, {"error": "token reader may not send requests."})
    url = sender.send(wait=False)[1]["url"]
    assert reader.get(url)[0] == 200
    other = Api(name="other")
    assert other.get(url)[0] == 404, "orders of others are not told without the permission"
    assert api_tokens.remove("sender") and not api_tokens.remove("sender")
    status, answer = sender.send()
    assert (status, answer["error"]) == (401, "This is no token of ours, or it was taken back.")
    assert Order.objects.count() == 1


def test_other_orders_are_not_told() -> None:
    order = Order.objects.create(node=node(), verb="dump", who="token reader", deadline="2020-01-01T00:00:00Z")
    assert Api("view_orders", name="reader").get(f"/api/orders/{order.pk}")[0] == 404


def test_nobody_and_nonsense_are_401(client: Client) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic YTpi"}, {"Authorization": "é"}):
        response = client.post(SEND, "{}", content_type="application/json", headers=headers)
        assert response.status_code == 401 and response["WWW-Authenticate"] == "Bearer"
        told(response)


def test_only_a_hash_is_stored_and_the_use_is_noted() -> None:
    api = Api()
    row = ApiToken.objects.get()
    assert api.token.startswith("trunkmgr_") and len(api.token) > 50
    assert api.token not in str(ApiToken.objects.values().get()) and row.used_time is None
    api.get("/api/orders/1")
    assert ApiToken.objects.get().used_time is not None


class TestSession:
    def page(self, *permissions: str, is_staff: bool = True) -> Client:
        user = User.objects.create_user("anna", is_staff=is_staff)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client = Client(enforce_csrf_checks=True)
        client.force_login(user)
        return client

    def post(self, client: Client, csrf: bool = True) -> tuple[int, dict[str, Any]]:
        headers = {}
        if csrf:
            client.get("/admin/login/")  # sets the cookie
            client.get("/admin/")
            headers = {"X-CSRFToken": client.cookies["csrftoken"].value}
        body = json.dumps({"ruri": "sip:192.0.2.9", "wait": False})
        return told(client.post(SEND, body, content_type="application/json", headers=headers))

    def test_a_page_needs_its_csrf_token(self) -> None:
        node()
        client = self.page("add_siprequest")
        status, answer = self.post(client, csrf=False)
        assert status == 403 and answer["error"].startswith("The CSRF token of the page is missing or wrong")
        assert not Order.objects.exists()
        status, answer = self.post(client)
        assert (status, answer["who"]) == (202, "anna")
        assert told(client.get(answer["url"]))[0] == 200

    def test_a_user_does_what_he_may(self) -> None:
        node()
        assert self.post(self.page("view_siprequest"))[0] == 403
        assert not Order.objects.exists()

    def test_only_staff(self) -> None:
        node()
        client = self.page("add_siprequest", is_staff=False)
        client.get("/admin/login/")
        status, answer = self.post(client)
        assert (status, answer["error"]) == (403, "Only staff may use the API.")


def test_the_rate_is_bounded_for_each_caller(settings: Any) -> None:
    now = 100.0
    rate = access.Rate(lambda: now)
    assert [rate.wait("a", 3) for _ in range(3)] == [0, 0, 0]
    assert rate.wait("a", 3) == 20.0 and rate.wait("b", 3) == 0
    now += 21
    assert rate.wait("a", 3) == 0 and rate.wait("a", 3) > 0


def test_too_many_are_429(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api()
    for _ in range(60):
        assert api.get("/api/orders/1")[0] == 404
    response = api.client.get("/api/orders/1", headers=api.headers)
    assert told(response) == (429, {"error": "At most 60 requests a minute."})
    assert response["Retry-After"] == "1"
    assert Api(name="other").get("/api/orders/1")[0] == 404


def test_callers_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "CALLERS", 3)
    rate = access.Rate(lambda: 0.0)
    for caller in "abcde":
        rate.wait(caller, 5)
    assert list(rate._left) == ["c", "d", "e"]
