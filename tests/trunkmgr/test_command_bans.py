"""`manage.py bans` and `manage.py routes`."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from trunkmgr.models import Ban, Node, Order
from trunkmgr.services import bans, nodes, orders

pytestmark = pytest.mark.django_db


@pytest.fixture
def node() -> Node:
    node = nodes.start("one")
    now = timezone.now()
    bans.record(node, [
        ("203.0.113.66", "stranger", now, now + timedelta(minutes=10)),
        ("203.0.113.67", "stranger", now - timedelta(hours=1), now - timedelta(minutes=50)),
    ])
    return node


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def test_the_bans_that_hold_are_listed(node: Node) -> None:
    text = run("bans", "list")
    assert "203.0.113.66" in text and "stranger" in text and "203.0.113.67" not in text
    (ban,) = json.loads(run("bans", "list", "--json"))
    assert (ban["address"], ban["node"]) == ("203.0.113.66", "one")


def test_a_ban_is_ended_and_the_workers_are_told(node: Node) -> None:
    assert run("bans", "remove", "203.0.113.66") == "1 ban ended.\n"
    (order,) = Order.objects.all()
    assert (order.verb, order.payload) == ("unban", {"addresses": ["203.0.113.66"]})
    ban = Ban.objects.get(address="203.0.113.66")
    assert ban.lifted_time and ban.who.endswith("(command)"), "the row stays as what happened"
    assert "No address is banned." in run("bans", "list") and not bans.of_node(node)
    with pytest.raises(CommandError, match="No ban of"):
        run("bans", "remove", "203.0.113.66")


def test_a_worker_that_starts_again_takes_up_what_holds(node: Node) -> None:
    assert [row[:2] for row in bans.of_node(node)] == [("203.0.113.66", "stranger")]


def test_routes_says_rule_and_answer(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(order: Order, timeout: float) -> dict[str, Any]:
        assert order.payload["source"] == "203.0.113.66" and order.payload["method"] == "OPTIONS"
        return {
            "ok": True, "message": "It gets no answer.", "rule": "stranger", "says": "The address is nobody's.",
            "account": "", "goes_to": "", "answer": "", "request": "", "shown_as": "",
        }

    monkeypatch.setattr(orders, "wait", wait)
    arguments = ("routes", "--source", "203.0.113.66", "--ruri", "sip:100@x", "--method", "options")
    text = run(*arguments)
    assert "stranger" in text and "answer    none" in text
    assert json.loads(run(*arguments, "--json"))["rule"] == "stranger"


def test_routes_names_what_is_wrong(node: Node) -> None:
    with pytest.raises(CommandError, match="--source: 'nowhere' is no IP address"):
        run("routes", "--source", "nowhere", "--ruri", "sip:100@x")


def test_routes_needs_a_worker() -> None:
    with pytest.raises(CommandError, match="No SIP worker runs"):
        run("routes", "--source", "192.0.2.1", "--ruri", "sip:100@x")
