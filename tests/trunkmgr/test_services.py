"""Services write a row, its line in the change log and its consequences in one transaction."""

from __future__ import annotations

import os
import socket
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.utils import timezone

from trunkmgr import selectors
from trunkmgr.exceptions import NodeTaken, NoWorker
from trunkmgr.models import (
    Call,
    Change,
    Dialog,
    Domain,
    Node,
    Order,
    Provider,
    Registration,
    RegistrationEvent,
    UacReg,
    UacRegOptions,
)
from trunkmgr.services import accounts, calls, dialogs, domains, nodes, orders, providers, registrations, wake

pytestmark = pytest.mark.django_db


def account(number: int = 1, **values: Any) -> UacReg:
    return UacReg(**{
        "l_uuid": f"uuid-{number}", "l_username": f"user{number}", "l_domain": "pbx.example",
        "r_username": f"remote{number}", "r_domain": "sip.provider.example", "auth_password": "s3cret", **values,
    })


def node(name: str = "a", **values: Any) -> Node:
    now = timezone.now()
    return Node.objects.create(name=name, **{"heartbeat_time": now, "started_time": now, "instance": "x", **values})


def change(l_uuid: str, fence: int, **values: Any) -> dict[str, Any]:
    return {"l_uuid": l_uuid, "fence": fence, "time": timezone.now(), "state": "registered", **values}


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    calls: list[list[str]] = []
    monkeypatch.setattr(wake, "wake", lambda names: calls.append(list(names)))
    return calls


class TestAccounts:
    def test_save_creates_options_registration_and_change(
        self, woken: list[list[str]], django_capture_on_commit_callbacks: Any,
    ) -> None:
        worker = node()
        with django_capture_on_commit_callbacks(execute=True):
            accounts.save(account(), who="anna")
        row = Registration.objects.get()
        assert (row.account_id, row.owner, row.state) == ("uuid-1", worker, "unregistered")
        assert UacRegOptions.objects.get().inbound_identity == "keep"
        assert [(c.table, c.key, c.who) for c in Change.objects.all()] == [("uacreg", "uuid-1", "anna")]
        assert woken == [["a"]]

    def test_many_writes_of_one_transaction_wake_once(
        self, woken: list[list[str]], django_capture_on_commit_callbacks: Any,
    ) -> None:
        node()
        with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
            for number in range(5):
                accounts.save(account(number))
        assert woken == [["a"]]

    def test_blank_columns_get_their_usual_values(self) -> None:
        Domain.objects.create(l_domain="only.example", next_hop="sip:127.0.0.3")
        provider = Provider.objects.create(name="P", domain="p.example")
        saved = accounts.save(
            UacReg(r_username="alice", auth_password="x"),
            UacRegOptions(provider=provider, inbound_identity="anonymous"),
        )
        saved.refresh_from_db()
        assert (saved.l_username, saved.auth_username, saved.r_domain, saved.l_domain) == (
            "alice", "alice", "p.example", "only.example",
        )
        assert len(saved.l_uuid) == 16
        assert saved.options.inbound_identity == "anonymous"

    def test_a_domain_is_not_guessed_among_two(self) -> None:
        for name in ("one.example", "two.example"):
            Domain.objects.create(l_domain=name, next_hop="sip:127.0.0.3")
        with pytest.raises(ValidationError) as caught:
            accounts.save(account(l_domain=""))
        assert "l_domain" in caught.value.message_dict

    @pytest.mark.parametrize(("column", "value"), [
        ("auth_password", ""), ("auth_ha1", "123"), ("auth_proxy", "proxy.example"), ("auth_proxy", "sip:"),
        ("r_domain", "sip:provider.example"), ("r_username", "a b"), ("realm", "x\r\nEvil: 1"), ("expires", -1),
        ("auth_username", "a\r\nb"), ("auth_password", "a\nb"), ("socket", "udp:5060"), ("contact_addr", "a@b"),
        ("l_uuid", "a@b"), ("l_domain", "host:99999"),
    ])
    @pytest.mark.checklist("M10")
    def test_bad_values_are_refused_by_column_and_nothing_is_written(self, column: str, value: Any) -> None:
        with pytest.raises(ValidationError) as caught:
            accounts.save(account(**{column: value}))
        assert list(caught.value.message_dict) == [column]
        assert not UacReg.objects.exists()
        assert not Change.objects.exists()

    @pytest.mark.parametrize(("column", "value"), [
        ("auth_ha1", "0123456789abcdefABCDEF0123456789"), ("auth_proxy", "sip:127.0.0.2:5070;transport=tcp;lr"),
        ("auth_proxy", "sips:u@[::1]:5061"), ("r_domain", "127.0.0.2:5070"), ("socket", "udp:127.0.0.1:5060"),
        ("contact_addr", "192.0.2.1:5060;transport=tcp"), ("r_username", "+4930%2012345"), ("realm", 'a "b"'),
    ])
    def test_good_values_are_taken(self, column: str, value: str) -> None:
        accounts.save(account(**{column: value}))

    def test_l_uuid_is_unique_and_stays(self) -> None:
        saved = accounts.save(account())
        with pytest.raises(ValidationError):
            accounts.save(account())
        saved.l_uuid = "other"
        with pytest.raises(ValidationError) as caught:
            accounts.save(saved)
        assert "cannot be changed" in str(caught.value)
        assert UacReg.objects.get().l_uuid == "uuid-1"

    def test_of_two_that_add_one_l_uuid_the_second_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        accounts.save(account())
        monkeypatch.setattr(UacReg, "full_clean", lambda self: None)  # both looked before either wrote
        with pytest.raises(ValidationError, match="added meanwhile"):
            accounts.save(account())
        assert UacReg.objects.count() == 1

    def test_an_edit_of_a_deleted_account_does_not_bring_it_back(self) -> None:
        saved = accounts.save(account())
        stale = UacReg.objects.get(pk=saved.pk)
        accounts.remove("uuid-1")
        with pytest.raises(ValidationError, match="deleted meanwhile"):
            accounts.save(stale)
        assert not UacReg.objects.exists()

    def test_an_edit_without_options_keeps_them_and_the_registration(self) -> None:
        saved = accounts.save(account(), UacRegOptions(note="mine"))
        Registration.objects.update(state="registered", generation=7)
        saved.r_username = "new"
        accounts.save(UacReg.objects.get())
        assert UacRegOptions.objects.get().note == "mine"
        assert Registration.objects.get().generation == 7

    def test_remove_leaves_history_only(self) -> None:
        accounts.save(account())
        RegistrationEvent.objects.create(l_uuid="uuid-1", time=timezone.now(), state="registered")
        assert accounts.remove("uuid-1", "anna") is True
        assert accounts.remove("uuid-1", "anna") is False
        left = [model.objects.count() for model in (UacReg, UacRegOptions, Registration, RegistrationEvent)]
        assert left == [0, 0, 0, 1]
        assert [c.key for c in Change.objects.all()] == ["uuid-1", "uuid-1"]

    def test_set_enabled_touches_one_bit_and_no_other_column(self) -> None:
        accounts.save(account(flags=4))
        assert accounts.set_enabled("uuid-1", False) is True
        assert accounts.set_enabled("uuid-1", False) is False
        stored = UacReg.objects.get()
        assert (stored.flags, stored.enabled, stored.auth_password.reveal()) == (5, False, "s3cret")
        accounts.set_enabled("uuid-1", True)
        assert UacReg.objects.get().flags == 4
        assert Change.objects.count() == 3
        assert accounts.set_enabled("nobody", True) is False

    def test_a_failure_undoes_the_row_and_its_change_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Change.objects, "bulk_create", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            accounts.save(account())
        assert not UacReg.objects.exists()


class TestDomainsAndProviders:
    def test_domain(self) -> None:
        saved = domains.save(Domain(l_domain="one.example", next_hop="sip:127.0.0.3:5070"), "anna")
        saved.l_domain = "two.example"
        domains.save(saved)
        assert domains.remove("two.example") is True
        assert domains.remove("two.example") is False
        assert Change.objects.order_by("pk")[0].key == "one.example"
        assert {c.key for c in Change.objects.all()} == {"one.example", "two.example"}
        with pytest.raises(ValidationError) as caught:
            domains.save(Domain(l_domain="x", next_hop="127.0.0.3"))
        assert "sip:" in str(caught.value)

    def test_provider_addresses_are_checked_line_by_line(self) -> None:
        with pytest.raises(ValidationError, match="Line 2: '300.1.1.1'"):
            providers.save(Provider(name="P", domain="p.example", addresses="192.0.2.1\n300.1.1.1"))
        providers.save(Provider(name="P", domain="p.example", addresses="192.0.2.1\n\n198.51.100.0/24\n2001:db8::/32"))

    def test_removing_a_provider_tells_of_its_accounts(self) -> None:
        provider = providers.save(Provider(name="P", domain="p.example"))
        accounts.save(account(), UacRegOptions(provider=provider))
        pk = provider.pk
        Change.objects.all().delete()
        assert providers.remove(pk) is True
        assert {(c.table, c.key) for c in Change.objects.all()} == {("provider", str(pk)), ("uacreg", "uuid-1")}
        assert UacRegOptions.objects.get().provider is None


class TestNodes:
    def test_a_live_second_worker_is_refused(self) -> None:
        node("n", host="elsewhere", pid=4711)
        with pytest.raises(NodeTaken, match=r"n already runs on elsewhere \(process 4711\).*TRUNKMGR_NODE"):
            nodes.start("n")

    def test_a_silent_one_elsewhere_is_replaced(self) -> None:
        node("n", host="elsewhere", pid=1, heartbeat_time=timezone.now() - timedelta(seconds=16))
        assert nodes.start("n").host == socket.gethostname()

    def test_a_dead_predecessor_here_is_replaced_at_once_a_live_one_not(self) -> None:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        row = node("n", host=socket.gethostname(), pid=child)
        started = nodes.start("n", ["udp:127.0.0.1:5060"])
        assert (started.pk, started.pid, started.listen) == (row.pk, os.getpid(), ["udp:127.0.0.1:5060"])
        Node.objects.update(pid=os.getppid())
        with pytest.raises(NodeTaken):
            nodes.start("n")

    def test_an_orderly_stop_frees_the_name(self) -> None:
        started = nodes.start("n")
        Node.objects.update(host="elsewhere")
        nodes.stopped(started)
        assert not selectors.live_nodes().exists()
        nodes.start("n")

    def test_a_replaced_instance_learns_it(self) -> None:
        first = nodes.start("n")
        assert nodes.heartbeat(first, ["udp:127.0.0.1:1"]) is True
        nodes.start("n")
        assert nodes.heartbeat(first) is False
        nodes.stopped(first)
        assert selectors.live_nodes().exists()

    def test_start_ends_orphaned_calls(self) -> None:
        now = timezone.now()
        for key, name in (("k1", "n"), ("k2", "other")):
            calls.record(name, [{"key": key, "call_id": "c", "l_uuid": "u", "direction": "in", "started_time": now}])
        nodes.start("n")
        assert [call.key for call in selectors.calls_going_on()] == ["k2"]


class TestCalls:
    def test_start_answer_and_end_in_any_batch(self) -> None:
        now = timezone.now()
        started = {
            "key": "k1", "call_id": "c1", "l_uuid": "u", "direction": "in", "caller": "+4930", "callee": "200",
            "anonymous": True, "started_time": now,
        }
        assert calls.record("w", [started]) == 1
        assert [call.key for call in selectors.calls_going_on()] == ["k1"]
        assert calls.record("w", [
            {"key": "k1", "answered_time": now + timedelta(seconds=1)},
            {"key": "k1", "ended_time": now + timedelta(seconds=2), "code": 200, "reason": "OK"},
            {**started, "key": "k2", "ended_time": now, "code": 486, "reason": "Busy"},
            {"key": "lost", "ended_time": now},
        ]) == 2
        call = Call.objects.get(key="k1")
        assert (call.caller, call.anonymous, call.code, call.node) == ("+4930", True, 200, "w")
        assert call.answered_time == now + timedelta(seconds=1)
        assert Call.objects.count() == 2
        assert selectors.calls_going_on() == []

    def test_texts_of_the_network_are_made_fit_each_for_itself(self) -> None:
        usual = {"call_id": "c", "l_uuid": "u", "direction": "in", "started_time": timezone.now()}
        calls.record("w", [
            {**usual, "key": "k1", "caller": "+4930"}, {**usual, "key": "k2", "caller": "Zoë\0"},
            {**usual, "key": "k3", "caller": "x" * 300},
        ])
        stored = Call.objects.order_by("key").values_list("caller", flat=True)
        assert list(stored) == ["+4930", "Zoë", "x" * 128]


class TestDialogs:
    def row(self, key: str, **columns: Any) -> dict[str, Any]:
        now = timezone.now()
        usual = {"call_id": "c", "l_uuid": "a", "state": "s", "expires_time": now + timedelta(hours=1)}
        return {"key": key, "changed_time": now, **usual, **columns}

    def test_the_newest_state_holds_until_it_is_over_or_expired(self) -> None:
        past = timezone.now() - timedelta(seconds=1)
        dialogs.record("n1", [self.row("a", state="old"), self.row("b", call_id="x" * 300), self.row("c")])
        dialogs.record("n1", [self.row("a", state="new"), self.row("late", expires_time=past)])
        dialogs.record("n2", [self.row("other"), self.row("late too", expires_time=past)])
        dialogs.forget(["c", "never there"])
        assert [(row.key, row.state) for row in dialogs.going_on("n1")] == [("b", "s"), ("a", "new")]
        assert set(Dialog.objects.values_list("key", flat=True)) == {"a", "b", "other"}
        assert Dialog.objects.get(key="b").call_id == "x" * 255

    def test_calls_that_are_taken_up_are_not_ended_by_a_restart(self) -> None:
        now = timezone.now()
        for key, node in (("a", "n1"), ("b", "n1"), ("c", "n1"), ("d", "n2")):
            Call.objects.create(key=key, call_id=key, l_uuid="x", direction="out", started_time=now, node=node)
        dialogs.record("n1", [self.row("a"), self.row("b", expires_time=now - timedelta(seconds=1))])
        dialogs.record("n2", [self.row("c")])
        nodes.start("n1")
        assert set(Call.objects.filter(ended_time=None).values_list("key", flat=True)) == {"a", "d"}


class TestOrders:
    def test_orders_go_to_the_owners(self, django_capture_on_commit_callbacks: Any, woken: list[list[str]]) -> None:
        first, second = node("one"), node("two")
        for number in range(3):
            accounts.save(account(number))
        Registration.objects.filter(account_id="uuid-2").update(owner=second)
        with django_capture_on_commit_callbacks(execute=True):
            placed = orders.place(Order.Verb.REGISTER, {"l_uuids": ["uuid-0", "uuid-2"]}, "anna")
        assert {(o.node, tuple(o.payload["l_uuids"])) for o in placed} == {(first, ("uuid-0",)), (second, ("uuid-2",))}
        assert woken[-1] == ["one", "two"]

    def test_nobody_to_carry_it_out_is_said(self) -> None:
        with pytest.raises(NoWorker, match="No SIP worker runs"):
            orders.place(Order.Verb.DUMP, {})
        accounts.save(account())
        with pytest.raises(NoWorker, match="owns uuid-1"):
            orders.place(Order.Verb.REGISTER, {"l_uuids": ["uuid-1"]})
        worker = node("w", host="sip1", stopped_time=timezone.now())
        Registration.objects.update(owner=worker)
        with pytest.raises(NoWorker, match="w, which owns uuid-1, does not run on sip1"):
            orders.place(Order.Verb.REGISTER, {"l_uuids": ["uuid-1"]})
        assert not Order.objects.exists()

    def test_an_order_is_claimed_once_and_not_past_its_deadline(self) -> None:
        node("w")
        (order,) = orders.place(Order.Verb.DUMP, {})
        late, = orders.place(Order.Verb.DUMP, {})
        Order.objects.filter(pk=late.pk).update(deadline=timezone.now() - timedelta(seconds=1))
        assert orders.claim("other") == []
        assert [o.pk for o in orders.claim("w")] == [order.pk]
        assert orders.claim("w") == []

    def test_the_caller_gets_the_result(self) -> None:
        node("w")
        (order,) = orders.place(Order.Verb.DUMP, {})
        late = orders.wait(order, 0.05)
        assert late["ok"] is False
        assert late["message"].startswith("The SIP worker w has not answered in 0")
        orders.finish(order.pk, {"ok": True, "message": "done"})
        orders.finish(order.pk, {"ok": False, "message": "too late"})
        assert orders.wait(order, 1) == {"ok": True, "message": "done"}


class TestWake:
    def test_one_byte_reaches_the_socket(self) -> None:
        if not settings.TRUNKMGR.embedded:
            pytest.skip("only the embedded set-up has node.sock")
        path = settings.TRUNKMGR.node_socket
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
            unix.bind(str(path))
            unix.settimeout(2)
            wake.wake(["test"])
            assert unix.recv(16) == b"\0"
        path.unlink()

    def test_a_worker_that_is_away_is_said_once_and_never_raises(self, caplog: pytest.LogCaptureFixture) -> None:
        wake._lost = False
        wake.wake(["test"]) if settings.TRUNKMGR.embedded else pytest.skip("only the embedded set-up has node.sock")
        wake.wake(["test"])
        assert len(caplog.records) == 1
        assert "looks by itself" in caplog.text


@pytest.mark.django_db(transaction=True)
class TestConcurrency:
    """Real transactions in real threads."""

    def together(self, *work: Any) -> list[Any]:
        results: list[Any] = [None] * len(work)
        barrier = threading.Barrier(len(work))

        def run(index: int) -> None:
            try:
                barrier.wait(5)
                results[index] = work[index]()
            except Exception as error:
                results[index] = error
            finally:
                connection.close()

        threads = [threading.Thread(target=run, args=(index,)) for index in range(len(work))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return results

    def test_each_registration_is_claimed_by_one_worker(self) -> None:
        UacReg.objects.bulk_create(account(n) for n in range(450))
        accounts.add_registrations([f"uuid-{n}" for n in range(450)])
        node("a"), node("b")
        a, b = self.together(
            lambda: registrations.claim_ownership("a"), lambda: registrations.claim_ownership("b"),
        )
        assert not set(a) & set(b)
        assert len(a) + len(b) == 450
        assert set(Registration.objects.values_list("fence", flat=True)) == {1}

    def test_each_order_is_claimed_once(self) -> None:
        node("w")
        for _ in range(20):
            orders.place(Order.Verb.DUMP, {})
        got = self.together(*[lambda: [o.pk for o in orders.claim("w")]] * 3)
        claimed = [pk for one in got for pk in one]
        assert sorted(claimed) == sorted(Order.objects.values_list("pk", flat=True))

    def test_of_two_workers_of_one_new_name_one_starts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nodes.os, "getpid", lambda: threading.get_ident() % 2**31)
        monkeypatch.setattr(nodes, "_runs", lambda pid: True)
        results = self.together(lambda: nodes.start("n"), lambda: nodes.start("n"))
        assert sorted(type(result).__name__ for result in results) == ["Node", "NodeTaken"]

    def test_enabling_and_recording_do_not_undo_each_other(self) -> None:
        node("w")
        for number in range(5):
            accounts.save(account(number))
        batch = [change(f"uuid-{n}", 1, generation=3) for n in range(5)]
        results = self.together(
            lambda: [registrations.record("w", batch) for _ in range(5)],
            lambda: [accounts.set_enabled(f"uuid-{n}", False) for n in range(5)],
            lambda: [accounts.save(UacReg.objects.get(l_uuid=f"uuid-{n}"), UacRegOptions(note="x")) for n in range(5)],
        )
        assert [result for result in results if isinstance(result, Exception)] == []
        assert set(Registration.objects.values_list("generation", "state")) == {(3, "registered")}
