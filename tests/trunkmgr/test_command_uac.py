"""`manage.py uac`: the seed's RPCs by name, with its filters, its fields and its codes in words."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from tests.trunkmgr.test_command_uacreg import HA1, PASSWORD, account, manage, run, worker  # noqa: F401 - fixtures
from trunkmgr.models import Change, Node, Order, Parameter, Registration, UacReg
from trunkmgr.services import accounts, orders

# ruff: noqa: F811 - fixtures again

pytestmark = pytest.mark.django_db

FIELDS = (
    "l_uuid l_username l_domain r_username r_domain realm auth_username auth_password auth_ha1 auth_proxy expires "
    "flags diff_expires timer_expires reg_init reg_delay contact_addr socket contact_user"
).split()
ADD = "4712 bob pbx.example 49895550112 sip.rheintel.example . 49895550112 - . . 600 0 5 . .".split()


class TestRecords:
    def test_a_record_has_the_fields_of_the_seed_in_its_order(self, run: Any, worker: Node) -> None:
        bound = timezone.now() + timedelta(seconds=100)
        Registration.objects.update(state="registered", bound_until_time=bound, generation=1, granted=600, code=200)
        shown = json.loads(run("uac", "reg_info", "l_uuid", "4711", "--json"))
        assert list(shown)[:19] == FIELDS
        assert (shown["auth_password"], shown["auth_ha1"], shown["auth_proxy"], shown["contact_user"]) == (
            "***", "none", "none", "none",
        )
        assert (shown["flags"], shown["expires"], shown["granted"]) == (4 + 16, 3600, 600)
        assert 98 <= shown["diff_expires"] <= 100
        assert shown["timer_expires"] == round(bound.timestamp())
        assert shown["reg_init"] == round(worker.started_time.timestamp())
        assert shown["state"] == "Registered"
        assert "auth_password      ***" in run("uac", "reg_info", "l_uuid", "4711")

    @pytest.mark.parametrize(("state", "disabled", "flags"), [
        ("registering", False, 2), ("disabled", True, 1), ("failing", False, 16), ("unregistered", False, 0),
    ])
    def test_flags_are_the_bits_of_the_seed(
        self, run: Any, worker: Node, state: str, disabled: bool, flags: int,
    ) -> None:
        Registration.objects.update(state=state, generation=int(state == "failing"))
        UacReg.objects.update(flags=int(disabled))
        assert json.loads(run("uac", "reg_info", "l_uuid", "4711", "--json"))["flags"] == flags

    def test_dump_shows_all(self, run: Any, account: UacReg) -> None:
        run("uac", "reg_add", *ADD, stdin=PASSWORD)
        assert [each["l_uuid"] for each in json.loads(run("uac", "reg_dump", "--json"))] == ["4711", "4712"]
        assert run("uac", "reg_dump").count("l_uuid ") == 2

    @pytest.mark.parametrize(("attr", "val"), [
        ("l_uuid", "4711"), ("l_username", "alice"), ("r_username", "49895550100"), ("auth_username", "49895550100"),
    ])
    def test_filters(self, run: Any, account: UacReg, attr: str, val: str) -> None:
        assert "l_uuid             4711" in run("uac", "reg_info", attr, val)

    def test_of_several_the_first_is_meant_and_the_others_are_told(self, run: Any, account: UacReg) -> None:
        accounts.save(UacReg(
            l_uuid="4710", l_username="alice", l_domain="x.example", r_username="1", r_domain="y.example",
            auth_password=PASSWORD,
        ))
        said = run("uac", "reg_disable", "l_username", "alice")
        assert "4710 is disabled now." in said and "1 more match" in said
        assert UacReg.objects.get(l_uuid="4711").enabled


class TestFaults:
    @pytest.mark.parametrize("verb", ["reg_info", "reg_enable", "reg_disable", "reg_register", "reg_unregister"])
    @pytest.mark.parametrize(("words", "code"), [
        ((), "400 Invalid parameters"), (("l_uuid",), "400 Invalid parameters"),
        (("realm", "x"), "400 Unsupported filter attribute 'realm'"), (("l_uuid", "471"), "Did you mean '4711'?"),
        (("r_username", "nobody"), "404 Record not found"),
    ])
    def test_a_fault_says_its_code_in_words(
        self, run: Any, account: UacReg, verb: str, words: tuple[str, ...], code: str,
    ) -> None:
        assert code in run("uac", verb, *words, fails=True)

    def test_one_that_is_there_is_not_replaced(self, run: Any, account: UacReg) -> None:
        assert "409 Record already exists" in run("uac", "reg_add", "4711", *ADD[1:], stdin=PASSWORD, fails=True)

    @pytest.mark.parametrize(("words", "said"), [
        (ADD[:14], "400 Invalid parameters: 14 values"), ([*ADD, "a", "b"], "17 values"),
        ([*ADD[:7], PASSWORD, *ADD[8:]], "auth_password stands in the arguments"),
        ([*ADD[:7], ".", HA1, *ADD[9:]], "auth_ha1 stands in the arguments"),
        ([*ADD[:7], "-", "-", *ADD[9:]], "not both"), ([*ADD[:7], ".", ".", *ADD[9:]], "500 Invalid password or HA1"),
        ([*ADD[:10], "x", *ADD[11:]], "expires is 'x'"),
        ([*ADD[:9], "proxy", *ADD[10:]], "500 Failed to add the record"),
    ])
    def test_add_refuses_what_it_cannot_use(self, run: Any, words: list[str], said: str) -> None:
        assert said in run("uac", "reg_add", *words, stdin=PASSWORD, fails=True)
        assert not UacReg.objects.exists()

    def test_no_worker_is_a_500(self, run: Any, account: UacReg) -> None:
        for words in (("reg_register", "l_uuid", "4711"), ("reg_unregister", "l_uuid", "4711"), ("reg_reload",)):
            assert run("uac", *words, fails=True).startswith("500 No SIP worker")

    def test_no_password_on_stdin(self, run: Any) -> None:
        assert "stdin holds no auth_password" in run("uac", "reg_add", *ADD, fails=True)


class TestDoing:
    def test_add_takes_the_positions_of_the_seed(self, run: Any) -> None:
        run("uac", "reg_add", *ADD[:13], "udp:192.0.2.1:5060", "192.0.2.1:5060", "49895550112", stdin=f"{PASSWORD}\n")
        row = UacReg.objects.get()
        names = (row.l_uuid, row.l_username, row.l_domain, row.r_username, row.r_domain, row.realm, row.auth_username)
        assert names == ("4712", "bob", "pbx.example", "49895550112", "sip.rheintel.example", "", "49895550112")
        assert (row.expires, row.flags, row.reg_delay, row.socket, row.contact_addr, row.contact_user) == (
            600, 0, 5, "udp:192.0.2.1:5060", "192.0.2.1:5060", "49895550112",
        )
        assert row.auth_password.reveal() == PASSWORD and Registration.objects.filter(account=row).exists()
        run("uac", "reg_add", "4713", *ADD[1:7], ".", "-", *ADD[9:], stdin=HA1)
        assert UacReg.objects.get(l_uuid="4713").auth_ha1.reveal() == HA1

    def test_enable_disable_refresh_remove(self, run: Any, account: UacReg) -> None:
        assert "4711 is disabled now." in run("uac", "reg_disable", "l_uuid", "4711")
        assert not UacReg.objects.get().enabled
        assert "4711 is enabled now." in run("uac", "reg_enable", "r_username", "49895550100")
        Change.objects.all().delete()
        run("uac", "reg_refresh", "4711")
        assert list(Change.objects.values_list("table", "key")) == [("uacreg", "4711")]
        assert "404" in run("uac", "reg_refresh", "4799", fails=True)
        run("uac", "reg_remove", "4711")
        assert not UacReg.objects.exists()
        assert "404" in run("uac", "reg_remove", "4711", fails=True)

    @pytest.mark.parametrize(("words", "verb", "payload"), [
        (["reg_register", "l_username", "alice"], "register", {"l_uuids": ["4711"]}),
        (["reg_unregister", "l_uuid", "4711"], "unregister", {"l_uuids": ["4711"]}), (["reg_reload"], "reload", {}),
    ])
    @pytest.mark.django_db(transaction=True)
    def test_an_order_waits_for_the_worker(
        self, run: Any, worker: Node, words: list[str], verb: str, payload: dict[str, Any],
    ) -> None:
        def work() -> None:
            while not (claimed := orders.claim("test")):
                time.sleep(0.01)
            orders.finish(claimed[0].pk, {"ok": True, "message": f"answer {claimed[0].verb}"})
            connection.close()

        thread = threading.Thread(target=work)
        thread.start()
        assert f"answer {verb}" in run("uac", *words)
        thread.join()
        assert Order.objects.get().payload == payload

    def test_reg_active_is_kept_and_shown(self, run: Any) -> None:
        assert run("uac", "reg_active") == "mode  1\n"
        assert run("uac", "reg_active", "0") == "omode  1\nnmode  0\n"
        assert run("uac", "reg_active") == "mode  0\n"
        assert Parameter.objects.get().who.endswith("(command)")
        assert "400 Invalid parameters" in run("uac", "reg_active", "2", fails=True)


def test_every_rpc_has_help_with_an_example() -> None:
    verbs = (
        "reg_dump reg_info reg_enable reg_disable reg_reload reg_refresh reg_add reg_remove reg_active reg_register "
        "reg_unregister"
    ).split()
    shown = manage("uac", "--help").stdout
    assert all(f"    {verb} " in shown for verb in verbs)
    for verb in ("reg_add", "reg_info"):
        assert f"manage.py uac {verb}" in manage("uac", verb, "--help").stdout
