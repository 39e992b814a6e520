"""`manage.py uacreg`: every verb against a real database, and no secret on any way out."""

from __future__ import annotations

import getpass
import io
import json
import os
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from trunkmgr.management import ordering
from trunkmgr.models import Change, Node, Order, Provider, Registration, UacReg
from trunkmgr.services import accounts, orders

pytestmark = pytest.mark.django_db

PASSWORD = "geheim-4711-XYZ"
HA1 = "0123456789abcdef0123456789abcdef"
ROOT = Path(__file__).resolve().parents[2]


class Input(io.BytesIO):
    terminal = False

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run one command line; all it wrote is searched for the password."""
    def run(*words: str, stdin: str = "", fails: bool = False, terminal: bool = False) -> str:
        raw = Input(stdin.encode())
        raw.terminal = terminal
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw, encoding="utf-8"))
        out, err = io.StringIO(), io.StringIO()
        failure = ""
        try:
            call_command(words[0], *words[1:], stdout=out, stderr=err)
        except CommandError as error:
            failure = str(error)
        said = out.getvalue() + err.getvalue() + failure + "".join(capsys.readouterr())
        assert PASSWORD not in said and HA1 not in said
        assert bool(failure) == fails, said
        return said
    return run


@pytest.fixture
def account() -> UacReg:
    return accounts.save(UacReg(
        l_uuid="4711", l_username="alice", l_domain="pbx.example", r_username="49895550100",
        r_domain="sip.rheintel.example", auth_password=PASSWORD,
    ))


@pytest.fixture
def worker(account: UacReg) -> Node:
    now = timezone.now()
    node = Node.objects.create(name="test", host="here", started_time=now, heartbeat_time=now)
    Registration.objects.update(owner=node, fence=1)
    return node


ADD = ("--l-username", "bob", "--l-domain", "pbx.example", "--r-username", "49895550199", "--r-domain", "sip.example")


class TestAdd:
    def test_takes_the_password_from_stdin(self, run: Any) -> None:
        run("uacreg", "add", "4712", *ADD, "--password-stdin", stdin=f"{PASSWORD}\n")
        assert UacReg.objects.get(l_uuid="4712").auth_password.reveal() == PASSWORD
        assert Change.objects.get().key == "4712" and "(command)" in Change.objects.get().who

    def test_takes_the_password_from_a_file(self, run: Any, tmp_path: Path) -> None:
        (tmp_path / "password").write_text(f"{PASSWORD}\nsecond line")
        run("uacreg", "add", "4712", *ADD, "--password-file", str(tmp_path / "password"))
        assert UacReg.objects.get().auth_password.reveal() == PASSWORD

    def test_takes_the_password_from_the_environment(self, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRUNK_PASSWORD", PASSWORD)
        run("uacreg", "add", "--l-uuid", "4712", *ADD, "--password-env", "TRUNK_PASSWORD")
        assert UacReg.objects.get().auth_password.reveal() == PASSWORD

    def test_takes_an_ha1(self, run: Any) -> None:
        run("uacreg", "add", "4712", *ADD, "--password-stdin", "--ha1", stdin=HA1)
        stored = UacReg.objects.get()
        assert (stored.auth_ha1.reveal(), stored.auth_password.reveal()) == (HA1, "")

    def test_takes_every_column(self, run: Any) -> None:
        Provider.objects.create(name="RheinTel", domain="sip.example")
        values = {
            "realm": "example", "auth_username": "auth", "auth_proxy": "sip:192.0.2.1:5060", "expires": 600, "flags": 1,
            "reg_delay": 3, "contact_addr": "192.0.2.9:5070", "contact_user": "cu", "socket": "udp:127.0.0.1:5060",
        }
        words = [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        run(
            "uacreg", "add", "4712", *ADD, *words, "--provider", "RheinTel", "--inbound-identity", "anonymous",
            "--note", "front desk", "--qualify", "30", "--password-stdin", stdin=PASSWORD,
        )
        stored = UacReg.objects.get()
        assert {name: getattr(stored, name) for name in values} == values
        own = stored.options
        assert (own.provider.name, own.inbound_identity, own.note) == ("RheinTel", "anonymous", "front desk")
        assert own.qualify == 30

    @pytest.mark.parametrize("words", [
        ["--auth-password", PASSWORD], [f"--auth-password={PASSWORD}"], ["--password", PASSWORD], ["--auth-ha1", HA1],
    ])
    def test_refuses_a_password_on_the_command_line(self, run: Any, words: list[str]) -> None:
        assert "shows in ps" in run("uacreg", "add", "4712", *ADD, *words, fails=True)
        assert not UacReg.objects.exists()

    def test_without_password_names_the_cause(self, run: Any) -> None:
        assert "neither password nor HA1" in run("uacreg", "add", "4712", *ADD, fails=True)

    @pytest.mark.parametrize("authentication", ["empty", "none"])
    def test_without_password_where_that_is_meant(self, run: Any, authentication: str) -> None:
        run("uacreg", "add", "4712", *ADD, "--authentication", authentication)
        stored = UacReg.objects.get()
        assert (stored.options.authentication, bool(stored.auth_password)) == (authentication, False)
        said = run("uacreg", "edit", "4712", "--password-stdin", stdin=PASSWORD, fails=True)
        assert "remove it, or set its authentication to password" in said
        run("uacreg", "edit", "4712", "--authentication", "password", "--password-stdin", stdin=PASSWORD)
        run("uacreg", "edit", "4712", "--authentication", authentication)
        assert not UacReg.objects.get().auth_password, "who says that there is none means the stored one too"

    def test_names_the_option_of_a_bad_value(self, run: Any) -> None:
        said = run("uacreg", "add", "4712", *ADD, "--auth-proxy", "x", "--password-stdin", stdin=PASSWORD, fails=True)
        assert "--auth-proxy: A SIP URI starts with sip:" in said
        more = ("--auth-proxy", "sip:192.0.2.1;transport=WSS", "--password-stdin")
        said = run("uacreg", "add", "4712", *ADD, *more, stdin=PASSWORD, fails=True)
        assert "--auth-proxy: Nobody is called over WebSocket" in said

    @pytest.mark.parametrize("words", [[], ["--auth-password"]])
    def test_asks_at_a_terminal(self, run: Any, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
        monkeypatch.setattr(getpass, "getpass", lambda prompt: PASSWORD)
        run("uacreg", "add", "4712", *ADD, *words, terminal=True)
        assert UacReg.objects.get().auth_password.reveal() == PASSWORD

    def test_asks_nobody_where_nobody_is(self, run: Any) -> None:
        assert "Nobody can be asked" in run("uacreg", "add", "4712", *ADD, "--auth-password", fails=True)

    @pytest.mark.parametrize(("words", "cause"), [
        (["--password-env", "NO_SUCH_VARIABLE"], "no variable NO_SUCH_VARIABLE"),
        (["--password-file", "/no/such/file"], "No such file"),
        (["--password-stdin"], "empty"), (["--ha1"], "from where"),
    ])
    def test_a_way_that_yields_no_password_says_why(self, run: Any, words: list[str], cause: str) -> None:
        assert cause in run("uacreg", "add", "4712", *ADD, *words, fails=True)

    def test_refuses_an_account_that_is_there(self, run: Any, account: UacReg) -> None:
        assert "there already" in run("uacreg", "add", "4711", *ADD, "--password-stdin", stdin="x", fails=True)


class TestEdit:
    def test_changes_what_is_given_only(self, run: Any, account: UacReg) -> None:
        run("uacreg", "edit", "4711", "--expires", "600", "--inbound-identity", "anonymous")
        stored = UacReg.objects.get()
        assert (stored.expires, stored.l_username, stored.options.inbound_identity) == (600, "alice", "anonymous")
        assert stored.auth_password.reveal() == PASSWORD

    def test_an_ha1_takes_the_password_s_place(self, run: Any, account: UacReg) -> None:
        run("uacreg", "edit", "4711", "--password-stdin", "--ha1", stdin=HA1)
        stored = UacReg.objects.get()
        assert (stored.auth_ha1.reveal(), stored.auth_password.reveal()) == (HA1, "")

    def test_nothing_given_changes_nothing(self, run: Any, account: UacReg) -> None:
        Change.objects.all().delete()
        assert "stays as it was" in run("uacreg", "edit", "4711")
        assert not Change.objects.exists()

    def test_a_misspelt_id_is_answered_with_the_nearest(self, run: Any, account: UacReg) -> None:
        assert "Did you mean '4711'?" in run("uacreg", "edit", "471", "--expires", "60", fails=True)

    def test_a_misspelt_provider_is_answered_with_the_nearest(self, run: Any, account: UacReg) -> None:
        Provider.objects.create(name="RheinTel", domain="sip.example")
        assert "Did you mean 'RheinTel'?" in run("uacreg", "edit", "4711", "--provider", "Rheintel", fails=True)


class TestShow:
    def test_list_finds_by_state_provider_and_text(self, run: Any, worker: Node) -> None:
        Registration.objects.update(state="refused", cause="wrong_password", code=401, reason="Un\x1b[2Jauthorized")
        said = run("uacreg", "list")
        assert "Refused" in said and "Password refused" in said and "4711" in said
        assert "\x1b" not in said, "a provider's reason phrase must not drive the terminal"
        assert "4711" in run("uacreg", "list", "--state", "refused", "--state", "failing")
        assert "No account matches" in run("uacreg", "list", "--state", "registered")
        assert "4711" in run("uacreg", "list", "--search", "5550100")
        assert "No account matches" in run("uacreg", "list", "--search", "5550101")
        Provider.objects.create(name="RheinTel", domain="sip.example")
        assert "No account matches" in run("uacreg", "list", "--provider", "RheinTel")

    def test_list_as_json(self, run: Any, worker: Node) -> None:
        Registration.objects.update(state="registered", bound_until_time=timezone.now() + timedelta(hours=1))
        [row] = json.loads(run("uacreg", "list", "--json"))
        assert (row["l_uuid"], row["state"], row["worker"]) == ("4711", "Registered", "test")
        assert row["bound_until_time"].endswith("+00:00")

    def test_a_silent_worker_makes_the_state_unknown(self, run: Any, worker: Node) -> None:
        Registration.objects.update(state="registered", state_time=timezone.now())
        Node.objects.update(heartbeat_time=timezone.now() - timedelta(seconds=60))
        [row] = json.loads(run("uacreg", "list", "--json"))
        assert (row["state"], row["was"]) == ("Unknown", "Registered")

    @pytest.mark.checklist("M11")
    def test_show_tells_all_but_the_secret(self, run: Any, worker: Node) -> None:
        Registration.objects.update(state="refused", cause="wrong_password", code=403, reason="Forbidden")
        said = run("uacreg", "show", "4711")
        for text in ("alice", "403 Forbidden", "The provider does not accept the password.", "Enter the SIP password"):
            assert text in said
        assert "password          set" in said and "enc1:" not in said
        shown = json.loads(run("uacreg", "show", "4711", "--json"))
        assert shown["password"] == "set" and shown["registration"]["code"] == 403

    def test_show_tells_what_the_provider_named(self, run: Any, worker: Node) -> None:
        Registration.objects.update(service_route="<sip:edge.example;lr>", associated_uris="<tel:+49>")
        said = run("uacreg", "show", "4711")
        assert "calls go by (Service-Route)    <sip:edge.example;lr>" in said and "<tel:+49>" in said
        assert json.loads(run("uacreg", "show", "4711", "--json"))["registration"]["associated_uris"] == "<tel:+49>"

    def test_bulk_registration_is_switched_on_and_off(self, run: Any, worker: Node) -> None:
        for option, gin in (("--gin", True), ("--no-gin", False)):
            run("uacreg", "edit", "4711", option)
            assert json.loads(run("uacreg", "show", "4711", "--json"))["gin"] is gin

    def test_show_tells_what_options_told(self, run: Any, worker: Node) -> None:
        answered = timezone.now() - timedelta(seconds=12)
        Registration.objects.update(qualify_state="reachable", qualify_round_trip=0.0234, qualify_time=answered)
        assert "OPTIONS" not in run("uacreg", "show", "4711")
        run("uacreg", "edit", "4711", "--qualify", "30")
        assert "Reachable, 23 ms (OPTIONS 12 s ago)" in run("uacreg", "show", "4711")
        shown = json.loads(run("uacreg", "show", "4711", "--json"))
        assert shown["qualify"] == 30
        live = shown["registration"]
        assert (live["qualify_state"], live["qualify_round_trip"]) == ("reachable", 0.0234)

    def test_a_row_by_foreign_hands_shows(self, run: Any) -> None:
        with connection.cursor() as cursor:
            columns = [field.column for field in UacReg._meta.concrete_fields if field.name != "id"]
            values = ["9", "a", "b", "c", "d", "", "", PASSWORD, "", "", 60, 0, 0, "", "", ""]
            marks = ",".join(["%s"] * len(columns))
            cursor.execute(f"INSERT INTO uacreg ({','.join(columns)}) VALUES ({marks})", values)
        assert "Unknown" in run("uacreg", "list")
        assert "No worker" in run("uacreg", "list")
        run("uacreg", "show", "9")


class TestOrders:
    def test_enable_and_disable(self, run: Any, account: UacReg) -> None:
        assert "disabled now" in run("uacreg", "disable", "4711")
        assert not UacReg.objects.get().enabled
        assert "disabled already" in run("uacreg", "disable", "4711")
        assert "enabled now" in run("uacreg", "enable", "4711")
        assert UacReg.objects.get().enabled

    def test_remove_asks(self, run: Any, account: UacReg) -> None:
        assert "--yes" in run("uacreg", "remove", "4711", fails=True)
        assert UacReg.objects.exists()
        run("uacreg", "remove", "4711", "--yes")
        assert not UacReg.objects.exists() and not Registration.objects.exists()

    def test_remove_takes_all_or_none(self, run: Any, account: UacReg) -> None:
        run("uacreg", "remove", "4711", "4712", "--yes", fails=True)
        assert UacReg.objects.exists()

    def test_refresh_tells_the_worker(self, run: Any, account: UacReg) -> None:
        Change.objects.all().delete()
        run("uacreg", "refresh", "4711")
        assert list(Change.objects.values_list("table", "key")) == [("uacreg", "4711")]

    def test_register_without_worker_says_how_to_start_one(self, run: Any, account: UacReg) -> None:
        assert "make run" in run("uacreg", "register", "4711", fails=True)
        assert not Order.objects.exists()

    @pytest.mark.parametrize("verb", ["register", "unregister"])
    @pytest.mark.parametrize("ok", [True, False])
    @pytest.mark.django_db(transaction=True)
    def test_an_order_waits_for_the_worker(self, run: Any, worker: Node, verb: str, ok: bool) -> None:
        def work() -> None:
            while not (claimed := orders.claim("test")):
                time.sleep(0.01)
            orders.finish(claimed[0].pk, {"ok": ok, "message": f"4711: answer {claimed[0].verb}"})
            connection.close()

        thread = threading.Thread(target=work)
        thread.start()
        said = run("uacreg", verb, "4711", fails=not ok)
        thread.join()
        assert f"4711: answer {verb}" in said
        assert Order.objects.get().payload == {"l_uuids": ["4711"]}

    def test_an_order_that_nobody_takes_ends(
        self, run: Any, worker: Node, monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(ordering, "ORDER_TIMEOUT", 0.1)
        assert "has not answered" in run("uacreg", "register", "4711", fails=True)


class TestFiles:
    def test_export_and_import(self, run: Any, account: UacReg, tmp_path: Path) -> None:
        path = tmp_path / "accounts.json"
        run("uacreg", "export", "--output", str(path), "--with-encrypted-secrets")
        assert path.stat().st_mode & 0o777 == 0o600 and PASSWORD not in path.read_text()
        run("uacreg", "remove", "4711", "--yes")
        assert "1 added, 0 changed, 0 unchanged. Dry run" in run("uacreg", "import", str(path), "--dry-run")
        assert not UacReg.objects.exists()
        assert "1 added" in run("uacreg", "import", str(path))
        assert UacReg.objects.get().auth_password.reveal() == PASSWORD
        assert "1 unchanged" in run("uacreg", "import", "-", stdin=run("uacreg", "export"))

    def test_a_refused_file_says_where_and_that_nothing_was_imported(self, run: Any) -> None:
        said = run("uacreg", "import", "-", stdin=f"l_uuid,expires,auth_password\n1,x,{PASSWORD}\n", fails=True)
        assert "line 2, column expires: This is no whole number." in said and "Nothing was imported." in said

    def test_a_missing_file(self, run: Any) -> None:
        assert "No such file" in run("uacreg", "import", "/no/such/file", fails=True)
        assert "cannot be written" in run("uacreg", "export", "--output", "/no/such/file", fails=True)


def manage(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), *words], capture_output=True, text=True, timeout=30, check=False,
        env={**os.environ, **environ},
    )


def test_a_command_starts_quickly_and_says_what_is_wrong_with_the_database(tmp_path: Path) -> None:
    """It aims at 0.7 s; the bound is generous, because a loaded machine is no fault."""
    start = time.monotonic()
    done = manage("uacreg", "list", TRUNKMGR_DATA_DIR=str(tmp_path), DATABASE_URL="")
    assert time.monotonic() - start < 4
    assert done.returncode == 1
    assert "manage.py migrate" in done.stderr and "Traceback" not in done.stderr


def test_a_command_imports_neither_the_web_part_nor_the_engine() -> None:
    """What `manage.py uacreg list` pays for at every start."""
    code = (
        "import sys, django; django.setup(); from django.core.management import load_command_class as load; "
        "load('trunkmgr', 'uacreg'); load('trunkmgr', 'status'); "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=30,
    )
    assert "django" in done.stdout.split()
    assert {"sipengine", "uvicorn", "rich", "dns", "redis"}.isdisjoint(done.stdout.split())


def test_every_verb_has_help() -> None:
    done = manage("uacreg", "--help")
    verbs = "list show add edit remove enable disable register unregister refresh import export"
    assert all(f"    {verb} " in done.stdout for verb in verbs.split())
    assert "Examples:" in manage("uacreg", "import", "--help").stdout
    assert settings.TRUNKMGR.node == "test"
