"""The page of a check: who may begin one, and what it shows before, during and after."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from tests.trunkmgr.pages import node, trunk
from trunkmgr.models import Order

pytestmark = pytest.mark.django_db

PAGE = "/status/berlin/doctor/"
STEP = {"name": "dns", "title": "Where REGISTER goes", "state": "good", "detail": "Found.", "lines": ["A x: <b>"],
        "seconds": 0.25, "cause": "", "code": None, "reason": ""}


@pytest.fixture
def ada(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada", password="x"))
    return client


def text(client: Client, **more: Any) -> str:
    return client.get(PAGE, **more).content.decode()


def test_a_check_is_ordered_of_the_owner_and_told_as_it_goes(ada: Client) -> None:
    trunk("berlin", node())
    assert PAGE in ada.get("/status/berlin/").content.decode()
    assert 'id="check"' in text(ada) and "http-equiv" not in text(ada)
    assert ada.post(PAGE).status_code == 302
    order = Order.objects.get()
    assert (order.verb, order.payload, order.who) == ("doctor", {"l_uuid": "berlin", "trial": True}, "ada")
    Order.objects.update(progress=[STEP, {**STEP, "state": "running", "seconds": None, "detail": ""}])
    shown = text(ada)
    assert 'http-equiv="refresh"' in shown and "A x: &lt;b&gt;" in shown and "250 ms" in shown and "under way" in shown
    Order.objects.update(result={
        "ok": False, "verdict": "No <answer>.", "fix": "Ask them.", "message": "…", "steps": [{**STEP, "state": "bad"}],
    })
    shown = text(ada)
    assert "No &lt;answer&gt;." in shown and "Ask them." in shown and "http-equiv" not in shown
    ada.post(PAGE, {"trial": "no"})
    assert Order.objects.first().payload["trial"] is False  # type: ignore[union-attr]


def test_a_worker_that_is_gone_is_told(ada: Client) -> None:
    trunk("berlin", node(silent=60))
    assert "does not run" in ada.post(PAGE, follow=True).content.decode()
    assert not Order.objects.exists()
    order_of = node("edge-2")
    past = timezone.now() - timedelta(seconds=1)
    Order.objects.create(node=order_of, verb="doctor", payload={"l_uuid": "berlin"}, deadline=past)
    assert "The worker has not answered" in text(ada) and "http-equiv" not in text(ada)


def test_who_may_only_look_begins_none(client: Client) -> None:
    trunk("berlin", node())
    client.force_login(User.objects.create_user("bob", password="x", is_staff=True))
    assert 'id="check"' not in text(client)
    client.post(PAGE)
    assert not Order.objects.exists() and client.get("/status/nobody/doctor/").status_code == 404
