"""Refreshes that found all as it was: one statement, for rows that the worker still owns."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from trunkmgr.models import FurtherRegistration, Node, Registration, RegistrationEvent, UacReg
from trunkmgr.services import accounts, registrations

pytestmark = pytest.mark.django_db


@pytest.fixture
def now() -> datetime:
    now = timezone.now()
    for name in ("w", "other"):
        Node.objects.create(name=name, heartbeat_time=now, started_time=now, instance="x")
    for number in range(3):
        accounts.save(UacReg(
            l_uuid=f"uuid-{number}", l_username="u", l_domain="pbx.example", r_username="u",
            r_domain="sip.provider.example", auth_password="s3cret",
        ))
    Registration.objects.update(
        owner=Node.objects.get(name="w"), fence=3, state="registered", state_time=now, contact="sip:x", code=200,
    )
    return now


def refresh(l_uuid: str, at: datetime, **values: Any) -> dict[str, Any]:
    return {
        "l_uuid": l_uuid, "fence": 3, "time": at, "bound_until_time": at + timedelta(seconds=60),
        "next_attempt_time": at + timedelta(seconds=36), "counted_time": None, "trigger": "beat", "reason": "OK",
        "granted": 60, "generation": 7, "call_id": "c", "cseq": 9, "round_trip": 0.02, "covered": 30.0,
        "coverable": 31.0, "local_address": "192.0.2.9:5060", "seen_address": "192.0.2.9:5060", **values,
    }


def test_what_it_moves_is_written_and_nothing_else(now: datetime) -> None:
    at = now + timedelta(seconds=36)
    told = refresh("uuid-0", at, reason="x\0\udcff" + "ü" * 500, counted_time=at)
    assert registrations.record_refreshes("w", [told, refresh("uuid-1", at)]) == 2
    row, other = Registration.objects.get(account_id="uuid-0"), Registration.objects.get(account_id="uuid-1")
    for name in told.keys() - {"l_uuid", "fence", "time", "reason"}:
        assert getattr(row, name) == told[name], name
    assert row.reason.startswith("x?ü") and len(row.reason) == 120
    assert (row.state, row.state_time, row.contact, row.code, row.owner.name) == ("registered", now, "sip:x", 200, "w")
    assert other.counted_time is None
    assert Registration.objects.get(account_id="uuid-2").generation == 0
    assert not RegistrationEvent.objects.exists()


def test_a_state_that_was_shown_meanwhile_ends_with_it(now: datetime) -> None:
    at = now + timedelta(seconds=36)
    Registration.objects.filter(account_id="uuid-0").update(state="refreshing")
    registrations.record_refreshes("w", [refresh("uuid-0", at)])
    row = Registration.objects.get(account_id="uuid-0")
    assert (row.state, row.state_time) == ("registered", at)


def test_a_lost_owner_changes_nothing(now: datetime) -> None:
    Registration.objects.filter(account_id="uuid-0").update(fence=4)
    Registration.objects.filter(account_id="uuid-1").update(owner=Node.objects.get(name="other"))
    accounts.remove("uuid-2")
    assert registrations.record_refreshes("w", [refresh(f"uuid-{number}", now) for number in range(3)]) == 0
    assert set(Registration.objects.values_list("generation", flat=True)) == {0}


def test_it_takes_one_statement(now: datetime, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(3):  # and the savepoint of the test
        registrations.record_refreshes("w", [refresh(f"uuid-{number}", now) for number in range(3)])


def test_bindings_at_further_registrars_are_kept_and_forgotten(db: None) -> None:
    change = {
        "l_uuid": "a", "registrar": "sip:b.example", "gone": False, "state": "registered", "cause": "", "code": 200,
        "reason": "OK", "granted": 60, "bound_until_time": timezone.now(), "next_attempt_time": None,
    }
    registrations.record_further([change, {**change, "registrar": "sip:c.example"}])
    registrations.record_further([{**change, "state": "failing", "code": None}])
    assert list(FurtherRegistration.objects.values_list("registrar", "state", "code")) == [
        ("sip:b.example", "failing", None), ("sip:c.example", "registered", 200),
    ]
    registrations.record_further([{**change, "gone": True}])
    assert FurtherRegistration.objects.get().registrar == "sip:c.example"
