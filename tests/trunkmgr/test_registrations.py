"""Who owns a registration, what is written of it, and what falls due (`services.registrations`)."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.trunkmgr.test_services import account, change, node
from trunkmgr.models import Node, Registration, RegistrationEvent, UacReg
from trunkmgr.services import accounts, nodes, registrations

pytestmark = pytest.mark.django_db


class TestOwnership:
    def test_ownerless_and_silent_ones_are_claimed_with_a_higher_fence(self) -> None:
        for number in range(3):
            accounts.save(account(number))
        silent = node("silent", heartbeat_time=timezone.now() - timedelta(seconds=31))
        busy = node("busy")
        Registration.objects.filter(account_id="uuid-1").update(owner=silent, fence=4)
        Registration.objects.filter(account_id="uuid-2").update(owner=busy, fence=9)
        node("me")
        assert registrations.claim_ownership("me") == {"uuid-0": 1, "uuid-1": 5}
        assert registrations.claim_ownership("me") == {}
        assert nodes.owned(Node.objects.get(name="me")) == {"uuid-0": 1, "uuid-1": 5}
        assert Registration.objects.get(account_id="uuid-2").fence == 9

    def test_rows_that_somebody_else_wrote_are_taken_too(self) -> None:
        account().save()
        account(2, l_uuid="").save()
        worker = nodes.start("n")
        registrations.claim_ownership("n")
        assert nodes.owned(worker) == {"uuid-1": 1}

    def test_new_accounts_go_to_the_first_live_worker_only(self) -> None:
        node("stopped", stopped_time=timezone.now())
        node("silent", heartbeat_time=timezone.now() - timedelta(minutes=1))
        live = node("live")
        node("later")
        accounts.save(account())
        assert Registration.objects.get().owner == live


class TestRecord:
    @pytest.fixture
    def worker(self) -> Node:
        worker = node("w")
        for number in range(3):
            accounts.save(account(number))
        return worker

    def test_state_and_history(self, worker: Node) -> None:
        now = timezone.now()
        refused = registrations.record("w", [
            change("uuid-0", 1, state="registering", trigger="beat", time=now),
            change("uuid-0", 1, state="registered", news=True, code=200, reason="OK", granted=60, trigger="beat",
                   bound_until_time=now + timedelta(seconds=60), time=now + timedelta(seconds=1), generation=2),
            change("uuid-1", 1, state="refused", cause="wrong_password", code=401, news=True, who="anna"),
        ])
        assert refused == []
        row = Registration.objects.get(account_id="uuid-0")
        assert (row.state, row.granted, row.generation) == ("registered", 60, 2)
        assert row.state_time == now + timedelta(seconds=1)
        events = {e.l_uuid: e for e in RegistrationEvent.objects.all()}
        assert set(events) == {"uuid-0", "uuid-1"}
        assert (events["uuid-0"].trigger, events["uuid-0"].code, events["uuid-0"].node) == ("beat", 200, "w")
        assert (events["uuid-1"].who, events["uuid-1"].cause) == ("anna", "wrong_password")

    def test_the_state_time_is_that_of_the_last_real_change(self, worker: Node) -> None:
        now = timezone.now()
        registrations.record("w", [change("uuid-0", 1, time=now)])
        registrations.record("w", [change("uuid-0", 1, time=now + timedelta(seconds=5))])
        assert Registration.objects.get(account_id="uuid-0").state_time == now

    def test_a_lost_owner_changes_nothing(self, worker: Node) -> None:
        Registration.objects.filter(account_id="uuid-0").update(fence=2)
        Registration.objects.filter(account_id="uuid-1").update(owner=node("other"))
        accounts.remove("uuid-2")
        refused = registrations.record("w", [change(f"uuid-{n}", 1, news=True) for n in range(3)])
        assert sorted(refused) == ["uuid-0", "uuid-1", "uuid-2"]
        assert set(Registration.objects.values_list("state", flat=True)) == {"unregistered"}
        assert not RegistrationEvent.objects.exists()
        assert Registration.objects.count() == 2

    def test_what_a_peer_sends_fits_the_columns(self, worker: Node) -> None:
        hostile = "x\0\udcff" + "ü" * 500
        registrations.record("w", [change(
            "uuid-0", 1, state="failing", reason=hostile, realm_seen=hostile, contact=hostile * 3, news=True,
        )])
        row = Registration.objects.get(account_id="uuid-0")
        assert row.reason.startswith("x?ü")
        assert (len(row.reason), len(row.realm_seen), len(row.contact)) == (120, 128, 512)

    def test_ownership_survives_a_write(self, worker: Node) -> None:
        registrations.record("w", [change("uuid-0", 1)])
        row = Registration.objects.get(account_id="uuid-0")
        assert (row.owner, row.fence) == (worker, 1)

    def test_a_thousand_rows_are_written_in_short_transactions(self, worker: Node) -> None:
        UacReg.objects.bulk_create(account(n) for n in range(10, 1010))
        accounts.add_registrations([f"uuid-{n}" for n in range(10, 1010)])
        batch = [change(f"uuid-{n}", 1, news=True, contact="sip:x@192.0.2.1:5060") for n in range(10, 1010)]
        registrations.record("w", batch[:200])
        took = []
        for start in range(0, 1000, 200):
            before = time.perf_counter()
            registrations.record("w", batch[start:start + 200])
            took.append(time.perf_counter() - before)
        # One chunk is one transaction. The bound of the house is 50 ms; the margin is for a loaded machine.
        assert min(took) < 0.15
        assert RegistrationEvent.objects.count() == 1200

    def test_a_chunk_takes_few_queries(self, worker: Node, django_assert_max_num_queries: Any) -> None:
        batch = [change(f"uuid-{n}", 1, news=True) for n in range(3)]
        with django_assert_max_num_queries(6):
            registrations.record("w", batch)


class TestRecordQualify:
    @staticmethod
    def told(fence: int = 1, cause: str = "", state: str = "reachable", **values: Any) -> dict[str, Any]:
        now = timezone.now()
        return {
            "l_uuid": "uuid-1", "fence": fence, "time": now, "qualify_state": state, "qualify_round_trip": 0.023,
            "qualify_time": now, "cause": cause, "code": None, "reason": "", "target": "udp:192.0.2.1:5060",
            "round_trip": None, **values,
        }

    @pytest.fixture(autouse=True)
    def bound(self) -> None:
        node("w")
        accounts.save(account())
        registrations.record("w", [change("uuid-1", 1, cause="short_grant", code=200, round_trip=0.5)])

    def test_the_state_is_written_beside_the_registration_s(self) -> None:
        registrations.record_qualify("w", [self.told()])
        row = Registration.objects.get()
        assert (row.qualify_state, row.qualify_round_trip) == ("reachable", 0.023) and row.qualify_time is not None
        assert (row.state, row.cause, row.code, row.round_trip) == ("registered", "short_grant", 200, 0.5)
        assert not RegistrationEvent.objects.exists(), "a round trip is no history"
        registrations.record("w", [change("uuid-1", 1)])
        assert Registration.objects.get().qualify_state == "reachable"

    def test_each_turn_is_a_row_of_history(self) -> None:
        registrations.record_qualify("w", [
            self.told(cause="options_silent", state="unreachable", reason="no route to host"),
            self.told(cause="options_answered", code=405, reason="Method Not Allowed", round_trip=0.023),
        ])
        assert Registration.objects.get().qualify_state == "reachable"
        answered, silent = RegistrationEvent.objects.all()
        assert (silent.state, silent.trigger, silent.cause) == ("registered", "options", "options_silent")
        assert (silent.reason, silent.code, silent.covered, silent.node) == ("no route to host", None, None, "w")
        assert (answered.cause, answered.code, answered.round_trip) == ("options_answered", 405, 0.023)

    def test_a_lost_owner_changes_nothing(self) -> None:
        registrations.record_qualify("w", [self.told(fence=0, cause="options_silent", state="unreachable")])
        registrations.record_qualify("other", [self.told(cause="options_silent", state="unreachable")])
        assert Registration.objects.get().qualify_state == "unknown" and not RegistrationEvent.objects.exists()


class TestPlan:
    def test_plans_what_falls_due_before_the_next_tick_and_five_seconds(self) -> None:
        node("w")
        now = timezone.now()
        dues = {1: 14.9, 2: 15.1, 3: -10.0, 4: 1.0, 5: 1.0, 6: 1.0}
        for number, seconds in dues.items():
            accounts.save(account(number))
            Registration.objects.filter(account_id=f"uuid-{number}").update(
                state="registered", next_attempt_time=now + timedelta(seconds=seconds), generation=number,
            )
        accounts.set_enabled("uuid-4", False)
        Registration.objects.filter(account_id="uuid-5").update(state="refreshing")
        Registration.objects.filter(account_id="uuid-6").update(owner=None)
        plans = registrations.plan_refreshes(now)
        assert plans == {"w": [
            ["uuid-3", 3, (now - timedelta(seconds=10)).isoformat()],
            ["uuid-1", 1, (now + timedelta(seconds=14.9)).isoformat()],
        ]}

    def test_nothing_is_planned_for_a_worker_that_is_away(self) -> None:
        worker = node("w")
        accounts.save(account())
        Registration.objects.update(state="failing", next_attempt_time=timezone.now())
        assert registrations.plan_refreshes()
        nodes.stopped(worker)
        assert not registrations.plan_refreshes()
