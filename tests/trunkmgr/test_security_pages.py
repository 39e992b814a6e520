"""The pages "Security" and "Check a call", and bans in the admin."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from trunkmgr.models import Ban, Node, Order
from trunkmgr.services import bans, nodes, orders

pytestmark = pytest.mark.django_db
CHECK = "/admin/trunkmgr/ban/check-a-call/"
ASKED = {"source": "203.0.113.66", "method": "INVITE", "transport": "udp", "furi": "", "ruri": "sip:100@x"}


@pytest.fixture
def node() -> Node:
    node = nodes.start("one")
    nodes.heartbeat(node, load={"rules": {"stranger": 4711, "other_provider": 2}})
    now = timezone.now()
    bans.record(node, [
        ("203.0.113.66", "stranger", now, now + timedelta(minutes=10)),
        ("203.0.113.67", "authentication", now - timedelta(hours=1), now - timedelta(minutes=50)),
    ])
    return node


def staff(*permissions: str) -> Client:
    user = get_user_model().objects.create_user("ada", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def test_security_says_what_is_banned_and_what_was_refused_by_which_rule(node: Node) -> None:
    text = staff("change_ban").get("/status/security/").content.decode()
    assert "1 address banned" in text and "4713 requests and connections refused" in text
    assert text.index("203.0.113.66") < text.index("4711") < text.index("other_provider") < text.index("203.0.113.67")
    assert "Connected again and again" in text and "no provider and no PBX: it gets no answer" in text
    assert "Lift bans" in text


def test_nothing_happened_yet() -> None:
    text = staff().get("/status/security/").content.decode()
    assert "No address is banned" in text and "Nothing was refused" in text and "Lift bans" not in text


def test_strangers_log_in_first(client: Client) -> None:
    for path in ("/status/security/", CHECK):
        assert client.get(path).status_code == 302


def test_bans_are_lifted_by_who_may(node: Node) -> None:
    ban = Ban.objects.get(address="203.0.113.66")
    data = {"action": "lift", "_selected_action": [ban.pk]}
    looking = staff("view_ban")
    looking.post("/admin/trunkmgr/ban/", data)
    assert bans.standing().count() == 1
    get_user_model().objects.get().user_permissions.add(Permission.objects.get(codename="change_ban"))
    answer = looking.post("/admin/trunkmgr/ban/", data, follow=True).content.decode()
    assert "1 ban lifted." in answer and not bans.standing() and "lifted by ada" in answer
    assert Order.objects.get().payload == {"addresses": ["203.0.113.66"]}
    assert "None of these bans holds" in looking.post("/admin/trunkmgr/ban/", data, follow=True).content.decode()


def test_a_call_is_checked_by_a_worker(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(order: Order, timeout: float) -> dict[str, Any]:
        assert (order.verb, order.who, order.payload["source"]) == ("dry_run", "ada", "203.0.113.66")
        return {
            "ok": True, "message": "It goes to udp:192.0.2.20:5060. A provider calls.", "rule": "inbound",
            "says": "", "account": "berlin", "goes_to": "udp:192.0.2.20:5060", "answer": "",
            "request": "INVITE sip:100@pbx.example SIP/2.0", "shown_as": "<sip:<b>@x>",
        }

    monkeypatch.setattr(orders, "wait", wait)
    web = staff()
    assert "Nothing is sent." in web.get(CHECK).content.decode()
    text = web.post(CHECK, ASKED).content.decode()
    for part in ("It goes to udp:192.0.2.20:5060.", "inbound", "berlin", "INVITE sip:100@pbx.example SIP/2.0"):
        assert part in text
    assert "<b>" not in text and 'value="203.0.113.66"' in text, "the form keeps what was asked"


def test_what_is_no_request_is_said_at_its_field(node: Node) -> None:
    text = staff().post(CHECK, {**ASKED, "source": "nowhere", "ruri": "100"}).content.decode()
    assert "is no IP address" in text and "Write a URI such as" in text and not Order.objects.exists()


def test_no_worker_is_said() -> None:
    assert "No SIP worker runs" in staff().post(CHECK, ASKED).content.decode()
