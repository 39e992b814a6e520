"""Selectors read a fixed number of times, whatever the size of the tables."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from trunkmgr import selectors
from trunkmgr.models import Change, Domain, Node, Provider, Registration, RegistrationEvent, UacReg, UacRegOptions
from trunkmgr.services import accounts

pytestmark = pytest.mark.django_db


@pytest.fixture
def filled() -> None:
    worker = Node.objects.create(name="w", heartbeat_time=timezone.now())
    provider = Provider.objects.create(name="P", domain="p.example", proxy="sip:127.0.0.2")
    Domain.objects.create(l_domain="pbx.example", next_hop="sip:127.0.0.3")
    for number in range(12):
        accounts.save(
            UacReg(l_uuid=f"u{number:02}", r_username=f"r{number}", auth_password="secret-text"),
            UacRegOptions(provider=provider),
        )
    Registration.objects.update(owner=worker)


def test_the_snapshot_takes_three_queries(filled: None, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(3):
        snapshot = selectors.load_snapshot()
        first = snapshot.accounts[0].get_options()
        assert first.provider is not None
        assert first.provider.proxy == "sip:127.0.0.2"
        assert snapshot.accounts[0].auth_password.reveal() == "secret-text"
    assert (len(snapshot.accounts), len(snapshot.providers), len(snapshot.domains)) == (12, 1, 1)
    assert [a.l_uuid for a in selectors.load_snapshot(["u03", "gone"]).accounts] == ["u03"]


def test_a_row_without_options_has_the_defaults(django_assert_num_queries: Any) -> None:
    UacReg.objects.create(l_uuid="foreign", r_username="x")
    with django_assert_num_queries(3):
        (account,) = selectors.load_snapshot().accounts
        assert account.get_options().inbound_identity == "keep"


def test_the_board_takes_one_query_and_no_secret(filled: None) -> None:
    with CaptureQueriesContext(connection, ) as queries:
        rows = selectors.board_rows()
        for row in rows:
            assert row.owner is not None
            assert row.account.options.provider is not None
    assert len(queries) == 1
    assert "auth_password" not in queries[0]["sql"]
    assert [row.account_id for row in rows] == [f"u{number:02}" for number in range(12)]
    assert [row.account_id for row in selectors.board_rows(["u05"])] == ["u05"]
    one = selectors.trunk("u05")
    assert one is not None
    assert one.account.r_username == "r5"
    assert selectors.trunk("nobody") is None


def test_accounts_take_one_query(filled: None, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        for account in selectors.accounts():
            assert account.registration.owner.name == "w"
            assert account.get_options().provider.name == "P"


def test_the_timeline_is_newest_first_and_bounded() -> None:
    now = timezone.now()
    for minutes in range(5):
        moment = now - timedelta(minutes=minutes)
        RegistrationEvent.objects.create(l_uuid="u", time=moment, state="registered", code=minutes)
    RegistrationEvent.objects.create(l_uuid="other", time=now, state="registered")
    assert [e.code for e in selectors.timeline("u", now - timedelta(minutes=3))] == [0, 1, 2, 3]
    assert [e.code for e in selectors.timeline("u", now - timedelta(days=1), limit=2)] == [0, 1]


def test_a_history_begins_before_its_window_and_has_nothing_of_options() -> None:
    now = timezone.now()
    for minutes, trigger in enumerate(("options", "beat", "options", "beat", "options", "beat")):
        moment = now - timedelta(minutes=minutes)
        RegistrationEvent.objects.create(l_uuid="u", time=moment, state="registered", code=minutes, trigger=trigger)
    assert [e.code for e in selectors.history("u", now - timedelta(minutes=2), 10)] == [3, 1]
    assert [e.code for e in selectors.history("u", now - timedelta(minutes=9), 2)] == [3, 1], "the oldest are left out"


def test_changes_come_by_id() -> None:
    for key in "abc":
        Change.objects.create(table="uacreg", key=key)
    first = Change.objects.order_by("pk")[0].pk
    assert [change.key for change in selectors.changes_since(first)] == ["b", "c"]


def test_live_workers() -> None:
    now = timezone.now()
    Node.objects.create(name="live", heartbeat_time=now)
    Node.objects.create(name="never")
    Node.objects.create(name="silent", heartbeat_time=now - timedelta(seconds=16))
    Node.objects.create(name="stopped", heartbeat_time=now, stopped_time=now)
    assert [node.name for node in selectors.live_nodes()] == ["live"]
    assert [node.name for node in Node.objects.all() if selectors.is_live(node)] == ["live"]
