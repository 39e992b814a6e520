"""The admin's page that sends a request: who may, what it orders, what it shows, and where the password is not."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.urls import reverse

from tests.trunkmgr.pages import node, trunk
from trunkmgr.models import Credential, Order
from trunkmgr.services import orders

pytestmark = pytest.mark.django_db(transaction=True)

PASSWORD = "pw-that-must-not-show"
ADD = "/admin/trunkmgr/siprequest/add/"
LIST = "/admin/trunkmgr/siprequest/"
RESULT = {
    "ok": False, "message": "404 Not Found from udp:192.0.2.9:5060, after 12 ms", "code": 404, "reason": "Not Found",
    "target": "udp:192.0.2.9:5060", "round_trip": 0.012, "headers": ["Warning: <b>bold</b>"], "body": "<i>body</i>",
}


@pytest.fixture
def web(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("anna", password="x"))
    return client


def fields(**values: Any) -> dict[str, Any]:
    return {"method": "OPTIONS", "ruri": "sip:192.0.2.9", "timeout": "10", **values}


def answered(web: Client, path: str, result: dict[str, Any] = RESULT) -> str:
    """Get a page while a worker answers what is open."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            for order in orders.claim("edge-1"):
                orders.finish(order.pk, result)
            time.sleep(0.01)
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        return web.get(path).content.decode()
    finally:
        stop.set()
        thread.join()


def test_a_request_is_ordered_and_its_reply_shown(web: Client) -> None:
    node()
    page = web.get(ADD).content.decode()
    assert "Send a request" in page and 'name="ruri"' in page
    sent = web.post(ADD, fields(
        method="INFO", furi='"Desk" <sip:desk@pbx.example>', hdrs="X-One: 1\r\nX-Two: 2\r\n\r\n", auser="alice",
        apasswd=PASSWORD, cseqno="5",
    ))
    order = Order.objects.get()
    assert sent.status_code == 302 and sent["Location"] == f"/admin/trunkmgr/siprequest/{order.pk}/change/"
    assert order.payload["keys"] == {
        "method": "INFO", "ruri": "sip:192.0.2.9", "furi": '"Desk" <sip:desk@pbx.example>',
        "hdrs": "X-One: 1\r\nX-Two: 2\r\n", "auser": "alice", "cseqno": 5,
    }
    assert order.who == "anna" and order.secret.reveal() == PASSWORD
    page = answered(web, sent["Location"])
    assert "404 Not Found from udp:192.0.2.9:5060, after 12 ms" in page and "12.0 ms" in page
    assert "Warning: &lt;b&gt;bold&lt;/b&gt;" in page and "&lt;i&gt;body&lt;/i&gt;" in page
    assert "INFO sip:192.0.2.9" in page and "X-Two: 2" in page
    assert 'name="ruri"' not in page, "what was sent cannot be edited"
    listed = web.get(LIST).content.decode()
    assert "INFO sip:192.0.2.9" in listed and "anna" in listed
    assert PASSWORD not in page + listed
    assert not Order.objects.get().secret


def test_an_account_and_a_credential_are_chosen(web: Client) -> None:
    trunk("berlin", node())
    credential = Credential.objects.create(username="u", password=PASSWORD, realm="r.example")
    Credential.objects.create(username="other", password=PASSWORD, account_id="berlin")
    page = web.get(ADD).content.decode()
    assert "u in r.example" in page and "other in any realm" not in page and PASSWORD not in page
    web.post(ADD, fields(account="berlin"))
    web.post(ADD, fields(credential=str(credential.pk)))
    payloads = list(Order.objects.order_by("pk").values_list("payload", flat=True))
    assert (payloads[0]["l_uuid"], payloads[1]["credential"]) == ("berlin", credential.pk)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"ruri": "192.0.2.9"}, "Is no URI, such as sip:user@example.net."),
        ({"hdrs": "From: <sip:x>"}, "May not hold From, which is made of the other keys."),
        ({"hdrs": "nonsense"}, "Has no `Name: value` in line 1"),
        ({"body": "hi"}, "Body needs a Content-Type line in hdrs."),
        ({"apasswd": PASSWORD}, "Apasswd is set and auser is not."),
        ({"timeout": "500"}, "Enter seconds from 1 to 120."),
    ],
)
def test_what_cannot_be_sent_comes_back_with_its_reason(web: Client, values: dict[str, str], problem: str) -> None:
    node()
    page = web.post(ADD, fields(**values)).content.decode()
    assert problem in page
    assert PASSWORD not in page
    assert not Order.objects.exists()


def test_without_a_worker_the_form_says_so(web: Client) -> None:
    assert "No SIP worker runs" in web.post(ADD, fields()).content.decode()


def test_one_that_nobody_took_says_so(web: Client) -> None:
    node()
    web.post(ADD, fields(timeout="1"))
    time.sleep(1.05)
    assert "No SIP worker took it in time." in web.get(f"{LIST}{Order.objects.get().pk}/change/").content.decode()


def test_only_those_who_may_send(client: Client) -> None:
    node()
    user = User.objects.create_user("clerk", is_staff=True)
    client.force_login(user)
    assert client.get(ADD).status_code == 403 and client.post(ADD, fields()).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="view_siprequest"))
    assert client.get(LIST).status_code == 200 and client.post(ADD, fields()).status_code == 403
    assert not Order.objects.exists()
    user.user_permissions.add(Permission.objects.get(codename="add_siprequest"))
    assert client.post(ADD, fields()).status_code == 302
    assert Order.objects.get().who == "clerk"


def test_other_orders_are_not_among_them(web: Client) -> None:
    order = Order.objects.create(node=node(), verb="dump", deadline="2020-01-01T00:00:00Z")
    assert web.get(f"{LIST}{order.pk}/change/").status_code == 302
    assert reverse("admin:trunkmgr_siprequest_change", args=[order.pk]) not in web.get(LIST).content.decode()
