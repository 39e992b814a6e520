"""`manage.py domain`, `provider`, `status` and `calls`."""

from __future__ import annotations

import io
import json
import threading
import time
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from trunkmgr.management.commands import status
from trunkmgr.models import Call, Change, Domain, Node, Provider, Registration, UacReg
from trunkmgr.services import accounts, orders

pytestmark = pytest.mark.django_db


def run(*words: str) -> str:
    out = io.StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


def account(l_uuid: str, **values: object) -> None:
    accounts.save(UacReg(
        l_uuid=l_uuid, l_username="alice", l_domain="pbx.example", r_username="4989", r_domain="sip.example",
        auth_password="secret", **values,
    ))


class TestDomain:
    def test_set_list_remove(self) -> None:
        assert "No domains yet" in run("domain", "list")
        run("domain", "set", "pbx.example", "--next-hop", "sip:192.0.2.20:5060", "--address", "192.0.2.21",
            "--address", "198.51.100.0/24")
        assert Domain.objects.get().addresses == "192.0.2.21\n198.51.100.0/24"
        assert "sip:192.0.2.20:5060" in run("domain", "list")
        run("domain", "set", "pbx.example", "--next-hop", "sip:192.0.2.22")
        assert json.loads(run("domain", "list", "--json")) == [{
            "l_domain": "pbx.example", "next_hop": "sip:192.0.2.22", "addresses": ["192.0.2.21", "198.51.100.0/24"],
        }]
        run("domain", "set", "pbx.example", "--address", "")
        assert Domain.objects.get().addresses == ""
        run("domain", "remove", "pbx.example")
        assert not Domain.objects.exists()
        assert set(Change.objects.values_list("table", "key")) == {("domain", "pbx.example")}

    def test_a_new_domain_needs_its_next_hop(self) -> None:
        with pytest.raises(CommandError, match="--next-hop"):
            run("domain", "set", "pbx.example")

    @pytest.mark.parametrize(("words", "option"), [
        (["--next-hop", "192.0.2.20"], "--next-hop"),
        (["--next-hop", "sip:192.0.2.20", "--address", "nowhere"], "--address:"),
    ])
    def test_a_bad_value_names_its_option(self, words: list[str], option: str) -> None:
        with pytest.raises(CommandError, match=option):
            run("domain", "set", "pbx.example", *words)
        assert not Domain.objects.exists()

    def test_remove_asks_while_accounts_lead_there(self) -> None:
        account("1")
        run("domain", "set", "pbx.example", "--next-hop", "sip:192.0.2.20")
        with pytest.raises(CommandError, match="1 accounts lead to"):
            run("domain", "remove", "pbx.example")
        run("domain", "remove", "pbx.example", "--yes")
        with pytest.raises(CommandError, match="No domain"):
            run("domain", "remove", "pbx.example")


class TestProvider:
    def test_set_list_remove(self) -> None:
        assert "No providers yet" in run("provider", "list")
        run("provider", "set", "RheinTel", "--domain", "sip.example", "--proxy", "sip:192.0.2.1",
            "--address", "192.0.2.1")
        run("provider", "set", "RheinTel", "--address", "192.0.2.2")
        assert json.loads(run("provider", "list", "--json")) == [{
            "name": "RheinTel", "domain": "sip.example", "proxy": "sip:192.0.2.1", "registrars": "", "socket": "",
            "addresses": ["192.0.2.2"], "size_rule": "rfc", "reg_rate": 0,
            "tls_name": "domain", "tls_wildcard": False, "tls_fingerprint": "",
            "tls_client_certificate": False, "profile": "", "profile_version": None, "accounts": 0,
        }]
        assert "RheinTel" in run("provider", "list")
        run("provider", "set", "RheinTel", "--size-rule", "udp-only")
        run("provider", "set", "RheinTel", "--proxy", "sip:192.0.2.1")
        assert Provider.objects.get().size_rule == "udp-only", "what is not given stays"
        assert "udp-only" in run("provider", "list")
        run("provider", "set", "RheinTel", "--socket", "udp:192.0.2.5:5062")
        assert json.loads(run("provider", "list", "--json"))[0]["socket"] == "udp:192.0.2.5:5062"
        with pytest.raises(CommandError, match="PROTOCOL:IP:PORT"):
            run("provider", "set", "RheinTel", "--socket", "192.0.2.5")
        run("provider", "set", "RheinTel", "--socket", "")
        assert not Provider.objects.get().socket
        run("provider", "set", "RheinTel", "--tls-name", "srv-target", "--tls-wildcard", "--tls-fingerprint", "ab" * 32)
        run("provider", "set", "RheinTel", "--tls-client-certificate", "--no-tls-wildcard")
        row = Provider.objects.get()
        assert (row.tls_name, row.tls_wildcard, row.tls_fingerprint, row.tls_client_certificate) == (
            "srv-target", False, "ab" * 32, True,
        )
        with pytest.raises(CommandError, match="SHA-256 fingerprint"):
            run("provider", "set", "RheinTel", "--tls-fingerprint", "ab:cd")
        with pytest.raises(CommandError, match="udp-only"):
            run("provider", "set", "RheinTel", "--size-rule", "tcp")
        run("provider", "remove", "RheinTel")
        assert not Provider.objects.exists()

    def test_a_new_provider_needs_its_domain(self) -> None:
        with pytest.raises(CommandError, match="--domain"):
            run("provider", "set", "RheinTel")

    def test_remove_asks_while_accounts_belong_to_it(self) -> None:
        account("1")
        run("provider", "set", "RheinTel", "--domain", "sip.example")
        call_command("uacreg", "edit", "1", "--provider", "RheinTel", stdout=io.StringIO())
        with pytest.raises(CommandError, match="1 accounts belong to"):
            run("provider", "remove", "RheinTel")
        run("provider", "remove", "RheinTel", "--yes")
        assert UacReg.objects.get().options.provider is None


class TestStatus:
    def test_says_first_what_needs_a_person(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(status, "DUMP_TIMEOUT", 0.05)
        now = timezone.now()
        node = Node.objects.create(name="sip1", host="here", heartbeat_time=now, listen=["udp:127.0.0.1:5060"])
        for l_uuid, state, cause in (
            ("a", "registered", ""), ("b", "failing", "timeout"), ("c", "refused", "wrong_password"),
        ):
            account(l_uuid)
            Registration.objects.filter(pk=l_uuid).update(owner=node, state=state, cause=cause)
        said = run("status")
        assert said.startswith("2 of 3 trunks need attention.")
        assert said.index("Password refused") < said.index("No answer in 32 s")
        assert "sip1" in said and "running" in said
        told = json.loads(run("status", "--json"))
        assert told["totals"] == {
            "Refused": 1, "Failing": 1, "Unknown": 0, "Refreshing": 0, "Registered": 1, "Disabled": 0,
        }
        assert [row["l_uuid"] for row in told["attention"]] == ["c", "b"]
        assert told["nodes"][0]["live"] is True

    def test_does_not_call_well_what_is_on_its_way(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(status, "DUMP_TIMEOUT", 0.05)
        node = Node.objects.create(name="sip1", host="here", heartbeat_time=timezone.now())
        for l_uuid, state in (("a", "registered"), ("b", "registering")):
            account(l_uuid)
            Registration.objects.filter(pk=l_uuid).update(owner=node, state=state)
        assert run("status").startswith("1 of 2 trunks are being registered or refreshed, the others are well.")
        Registration.objects.update(state="registered")
        assert run("status").startswith("All 2 trunks are well.")

    @pytest.mark.django_db(transaction=True)
    def test_a_worker_tells_what_it_counted(self) -> None:
        Node.objects.create(name="sip1", host="here", heartbeat_time=timezone.now())
        counters = dict.fromkeys(status.COUNTERS, 0) | {"received": 12345, "bad": 7}

        def work() -> None:
            while not (claimed := orders.claim("sip1")):
                time.sleep(0.01)
            orders.finish(claimed[0].pk, {"ok": True, "message": "", "counters": counters})
            connection.close()

        thread = threading.Thread(target=work)
        thread.start()
        said = run("status")
        thread.join()
        assert "unreadable" in said and "12,345" in said and said.split()[-8:][3] == "7"

    @pytest.mark.parametrize(("share", "said"), [(0.45, "refuses 45% of new calls"), (0, "refused 1,234 requests")])
    def test_overload_is_told(self, monkeypatch: pytest.MonkeyPatch, share: float, said: str) -> None:
        load = {"share": share, "wait": 0.3, "times": 1, "refused": 1234}
        monkeypatch.setattr(status, "_dumps", lambda: {"sip1": {"load": load}})
        Node.objects.create(name="sip1", host="here", heartbeat_time=timezone.now())
        assert said in run("status")
        assert json.loads(run("status", "--json"))["nodes"][0]["load"] == load

    def test_a_worker_that_hangs_holds_nothing_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(status, "DUMP_TIMEOUT", 0.05)
        Node.objects.create(name="sip1", host="here", heartbeat_time=timezone.now())
        assert run("status").split()[-2:] == ["?", "?"]

    def test_a_silent_worker_leaves_nothing_known(self) -> None:
        account("a")
        node = Node.objects.create(name="sip1", host="here", heartbeat_time=timezone.now() - timedelta(minutes=2))
        Registration.objects.update(owner=node, state="registered", state_time=timezone.now())
        said = run("status")
        assert "1 of 1 trunks need attention." in said and "silent" in said and "Worker silent" in said

    def test_nothing_yet(self) -> None:
        said = run("status")
        assert "No trunks yet." in said and "No SIP worker has run yet" in said


class TestCalls:
    def test_shows_the_calls_going_on(self) -> None:
        assert "No calls are going on." in run("calls")
        now = timezone.now()
        Call.objects.create(
            key="1", call_id="x@y", l_uuid="4711", direction="in", caller="sip:+4989@sip.example", callee="sip:a@pbx",
            anonymous=True, started_time=now - timedelta(seconds=65), node="sip1",
        )
        Call.objects.create(
            key="2", call_id="over", l_uuid="4711", direction="in", started_time=now, ended_time=now,
        )
        said = run("calls")
        assert "sip:+4989@sip.example (hidden)" in said and "1 min 5 s" in said and "ringing" in said
        assert "over" not in said
        assert [row["call_id"] for row in json.loads(run("calls", "--json"))] == ["x@y"]
