"""Accounts of a foreign Kamailio database: read, mirrored, compared; written there only where that is allowed."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.management import call_command
from django.db import connections, router
from django.db.utils import ConnectionHandler
from django.test import Client

from trunkmgr import foreign as reach
from trunkmgr.env import Env
from trunkmgr.exceptions import ForeignDatabaseError
from trunkmgr.models import Change, Provider, Registration, UacReg, UacRegOptions
from trunkmgr.models.kamailio import KamailioUacReg
from trunkmgr.services import accounts, exchange, foreign
from trunkmgr.services.exchange_file import ImportRefused
from trunkmgr.services.mirror import Mirror, digest
from trunkmgr.sip.changes import read_snapshot

pytestmark = pytest.mark.django_db(transaction=True)

PASSWORD = "clear-as-kamailio-4711"
COLUMNS = """
    id INTEGER PRIMARY KEY NOT NULL, l_uuid VARCHAR(64) DEFAULT '' NOT NULL UNIQUE,
    l_username VARCHAR(64) DEFAULT '' NOT NULL, l_domain VARCHAR(64) DEFAULT '' NOT NULL,
    r_username VARCHAR(64) DEFAULT '' NOT NULL, r_domain VARCHAR(64) DEFAULT '' NOT NULL,
    realm VARCHAR(64) DEFAULT '' NOT NULL, auth_username VARCHAR(64) DEFAULT '' NOT NULL,
    auth_password VARCHAR(64) DEFAULT '' NOT NULL, auth_ha1 VARCHAR(128) DEFAULT '' NOT NULL,
    auth_proxy VARCHAR(255) DEFAULT '' NOT NULL, expires INTEGER DEFAULT 0 NOT NULL, flags INTEGER DEFAULT 0 NOT NULL,
    reg_delay INTEGER DEFAULT 0 NOT NULL, contact_addr VARCHAR(255) DEFAULT '' NOT NULL,
    socket VARCHAR(128) DEFAULT '' NOT NULL
"""


@dataclasses.dataclass
class Kamailio:
    """Its database file, and what its own tools do to it."""

    path: Path

    def sql(self, text: str, *values: object) -> list[Any]:
        with sqlite3.connect(self.path) as database:
            return database.execute(text, values).fetchall()

    def add(self, l_uuid: str, **columns: object) -> None:
        row = {
            "l_uuid": l_uuid, "l_username": "100", "l_domain": "pbx.example", "r_username": f"4930{l_uuid}",
            "r_domain": "sip.example", "auth_username": f"4930{l_uuid}", "auth_password": PASSWORD,
            "auth_proxy": "sip:192.0.2.9", "expires": 600, **columns,
        }
        self.sql(f"INSERT INTO uacreg ({','.join(row)}) VALUES ({','.join('?' * len(row))})", *row.values())

    @property
    def sum(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


@pytest.fixture(params=[5, 6])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def kamailio(tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kamailio]:
    there = Kamailio(tmp_path / "kama ilio.sqlite")
    there.sql("CREATE TABLE version (table_name VARCHAR(32) NOT NULL, table_version INTEGER DEFAULT 0 NOT NULL)")
    more = ", contact_user VARCHAR(255) DEFAULT '' NOT NULL" if version == 6 else ""
    there.sql(f"CREATE TABLE uacreg ({COLUMNS}{more})")
    there.sql("INSERT INTO version VALUES ('uacreg', ?)", version)
    yield from connected(there, monkeypatch, write=False)


@pytest.fixture
def writable(kamailio: Kamailio, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kamailio]:
    yield from connected(kamailio, monkeypatch, write=True)


def connected(there: Kamailio, monkeypatch: pytest.MonkeyPatch, *, write: bool) -> Iterator[Kamailio]:
    url = f"sqlite:///{there.path}"
    env = dataclasses.replace(settings.TRUNKMGR, reg_db_url=url, reg_db_write=write)
    monkeypatch.setattr(settings, "TRUNKMGR", env)
    # Django's test cases allow connections that are made by hand.
    known = ConnectionHandler({"default": {}, reach.ALIAS: reach.database(url, write=write)})
    connections[reach.ALIAS] = known.create_connection(reach.ALIAS)
    yield there
    if hasattr(connections._connections, reach.ALIAS):
        connections[reach.ALIAS].close()
        del connections[reach.ALIAS]


def mirrored(mirror: Mirror | None = None) -> list[str]:
    assert (mirror or Mirror()).look() == ""
    return sorted(UacReg.objects.values_list("l_uuid", flat=True))


class TestMirror:
    def test_rows_are_accounts_with_all_that_belongs_to_one(self, kamailio: Kamailio, version: int) -> None:
        more = {"contact_user": "4930"} if version == 6 else {}
        more |= {"contact_addr": "c.example", "socket": "udp:1.2.3.4:5"}
        kamailio.add("a", realm="r.example", flags=21, reg_delay=5, **more)
        before = kamailio.sum
        assert mirrored() == ["a"]
        row = UacReg.objects.get()
        assert (row.r_username, row.realm, row.expires, row.reg_delay, row.contact_addr, row.socket) == (
            "4930a", "r.example", 600, 5, "c.example", "udp:1.2.3.4:5",
        )
        assert (row.flags, row.contact_user) == (1, more.get("contact_user", ""))
        assert row.auth_password.reveal() == PASSWORD and row.auth_password.sealed().startswith("enc1:")
        assert foreign.is_foreign(row) and Registration.objects.filter(account=row).exists()
        assert list(Change.objects.values_list("table", "key", "who")) == [("uacreg", "a", "UAC_REG_DB_URL")]
        assert read_snapshot().trunks["a"].account.auth_password == PASSWORD
        assert kamailio.sum == before

    def test_only_rows_that_differ_are_written(self, kamailio: Kamailio) -> None:
        mirror = Mirror()
        for l_uuid in "abc":
            kamailio.add(l_uuid)
        mirrored(mirror)
        Change.objects.all().delete()
        mirrored(mirror)
        assert mirrored(Mirror()) == ["a", "b", "c"] and not Change.objects.exists(), "after a restart neither"
        kamailio.sql("UPDATE uacreg SET auth_password = 'other' WHERE l_uuid = 'b'")
        mirrored(mirror)
        assert list(Change.objects.values_list("key", flat=True)) == ["b"]
        assert UacReg.objects.get(l_uuid="b").auth_password.reveal() == "other"

    def test_a_row_that_is_gone_twice_leaves_and_our_options_wait_for_it(self, kamailio: Kamailio) -> None:
        mirror = Mirror()
        kamailio.add("a"), kamailio.add("b")
        mirrored(mirror)
        UacRegOptions.objects.filter(account_id="a").update(note="kept")
        kamailio.sql("DELETE FROM uacreg WHERE l_uuid = 'a'")
        assert mirrored(mirror) == ["a", "b"], "who rebuilds the table may be half-way through it"
        assert mirrored(mirror) == ["b"]
        assert not Registration.objects.filter(account_id="a").exists()
        kamailio.add("a")
        assert mirrored(mirror) == ["a", "b"]
        assert UacRegOptions.objects.get(account_id="a").note == "kept"

    def test_accounts_of_ours_stay_ours(self, kamailio: Kamailio) -> None:
        own = {"l_username": "1", "l_domain": "x", "r_username": "2", "r_domain": "y"}
        accounts.save(UacReg(l_uuid="a", auth_password="own", **own))
        kamailio.add("a"), kamailio.add("b")
        assert "an account of our own has this l_uuid" in Mirror().look()
        ours, theirs = UacReg.objects.order_by("l_uuid")
        assert ours.auth_password.reveal() == "own"
        assert not foreign.is_foreign(ours) and foreign.is_foreign(theirs)
        kamailio.sql("DELETE FROM uacreg")
        mirror = Mirror()
        mirror.look(), mirror.look()
        assert list(UacReg.objects.values_list("l_uuid", flat=True)) == ["a"]

    @pytest.mark.parametrize(("columns", "cause"), [
        ({"l_uuid": ""}, "l_uuid is empty"), ({"expires": "soon"}, "expires is no number"), ({"flags": -1}, "below 0"),
        ({"l_domain": "x" * 65}, "longer than 64"), ({"realm": "a\0b"}, "NUL"),
    ])
    def test_a_row_that_cannot_be_used_is_told_once_and_stops_no_other(
        self, kamailio: Kamailio, caplog: pytest.LogCaptureFixture, columns: dict[str, Any], cause: str,
    ) -> None:
        kamailio.add("good")
        kamailio.add(**{"l_uuid": "bad", **columns})
        mirror = Mirror()
        assert cause in mirror.look() and cause in mirror.look()
        assert list(UacReg.objects.values_list("l_uuid", flat=True)) == ["good"]
        assert len([line for line in caplog.messages if cause in line]) == 1
        assert PASSWORD not in caplog.text

    def test_one_that_was_good_stays_while_its_row_cannot_be_used(self, kamailio: Kamailio) -> None:
        kamailio.add("a")
        mirror = Mirror()
        mirrored(mirror)
        kamailio.sql("UPDATE uacreg SET expires = 'x'")
        for _ in range(3):
            assert "expires is no number" in mirror.look()
        assert UacReg.objects.get().expires == 600

    def test_digests_need_our_key(self, settings: Any) -> None:
        row = ("a", PASSWORD)
        before = digest(row)
        settings.FIELD_KEYS = (b"another key, 44 characters of base64 really.",)
        assert digest(row) != before


class TestFaults:
    @pytest.mark.parametrize(("sql", "cause"), [
        ("UPDATE version SET table_version = 4", "is version 4; versions 5 and 6 are read"),
        ("UPDATE version SET table_version = 7", "is version 7"),
        ("ALTER TABLE uacreg RENAME TO elsewhere", "no table uacreg. Make it with kamdbctl, or set UAC_REG_DB_TABLE"),
        ("ALTER TABLE uacreg DROP COLUMN contact_addr", "lacks contact_addr"),
    ])
    def test_another_form_is_an_error_with_its_cure_and_changes_nothing(
        self, kamailio: Kamailio, sql: str, cause: str,
    ) -> None:
        kamailio.add("a")
        mirror = Mirror()
        mirrored(mirror)
        kamailio.sql(sql)
        with pytest.raises(ForeignDatabaseError) as error:
            mirror.look()
        assert cause in str(error.value)
        assert UacReg.objects.filter(l_uuid="a").exists()

    def test_a_file_that_is_gone_is_no_new_file(self, kamailio: Kamailio) -> None:
        connections[reach.ALIAS].close()
        kamailio.path.unlink()
        with pytest.raises(ForeignDatabaseError, match="does not answer as it should"):
            Mirror().look()
        assert not kamailio.path.exists()

    @pytest.mark.parametrize(("url", "cure"), [
        ("oracle://u:secret@h/x", "write sqlite:///"), ("sqlite:///", "name the file"), ("/var/x.db", "write sqlite:///"),
        ("mysql://u:secret@h/x", "mysqlclient"),
    ])
    def test_a_bad_url_is_refused_without_being_repeated(self, url: str, cure: str) -> None:
        if url.startswith("mysql") and reach.find_spec("MySQLdb"):
            pytest.skip("mysqlclient is installed")
        with pytest.raises(ImproperlyConfigured) as error:
            Env.read({"UAC_REG_DB_URL": url})
        assert cure in str(error.value) and "secret" not in str(error.value) and "/var" not in str(error.value)

    def test_forms_of_urls(self) -> None:
        for url in ("sqlite:///var/k.db", "sqlite:////var/k.db"):
            assert reach.database(url, write=False)["NAME"] == "file:/var/k.db?mode=ro"
        assert reach.database("sqlite:///a b?.db", write=True)["NAME"] == "file:/a%20b%3F.db?mode=rw"
        postgres = reach.database("postgres://u:p@h:5/k", write=False)
        assert (postgres["NAME"], postgres["PORT"]) == ("k", 5)
        assert "default_transaction_read_only=on" in postgres["OPTIONS"]["options"]
        assert "read_only" not in reach.database("postgres://u:p@h/k", write=True)["OPTIONS"]["options"]

    def test_nothing_is_migrated_there_and_nothing_of_ours_is_led_there(self) -> None:
        assert router.allow_migrate(reach.ALIAS, "trunkmgr") is False and router.allow_migrate("default", "trunkmgr")
        assert router.db_for_write(UacReg) == "default" and router.db_for_write(KamailioUacReg) == reach.ALIAS


class TestOnlyRead:
    def test_edits_are_refused_with_the_cure_and_our_options_are_taken(self, kamailio: Kamailio) -> None:
        kamailio.add("a")
        mirrored()
        before = kamailio.sum
        account = UacReg.objects.get()
        account.expires = 60
        with pytest.raises(ValidationError, match="UAC_REG_DB_WRITE=1"):
            accounts.save(account)
        account = UacReg.objects.get()
        account.auth_password = "new"
        with pytest.raises(ValidationError, match="only read here"):
            accounts.save(account)
        with pytest.raises(ValidationError, match="only read here"):
            accounts.remove("a")
        account = UacReg.objects.get()
        options = account.get_options()
        options.provider, options.note = Provider.objects.create(name="P", domain="p.example"), "seen"
        accounts.save(account, options)
        assert UacRegOptions.objects.get().note == "seen"
        assert mirrored() == ["a"] and UacReg.objects.get().expires == 600
        with pytest.raises(ImportRefused, match="UAC_REG_DB_URL"):
            exchange.import_accounts("l_uuid,expires\na,60\n")
        assert kamailio.sum == before

    def test_switched_off_here_until_its_row_changes(self, kamailio: Kamailio) -> None:
        kamailio.add("a")
        mirror = Mirror()
        mirrored(mirror)
        assert accounts.set_enabled("a", False)
        mirrored(mirror), mirrored(Mirror())
        assert not UacReg.objects.get().enabled
        kamailio.sql("UPDATE uacreg SET expires = 700")
        mirrored(mirror)
        assert UacReg.objects.get().enabled and UacReg.objects.get().expires == 700

    def test_the_admin_shows_the_row_and_edits_our_options(self, kamailio: Kamailio, client: Client) -> None:
        kamailio.add("a")
        mirrored()
        client.force_login(User.objects.create_superuser("ada"))
        row = UacReg.objects.get()
        path = f"/admin/trunkmgr/uacreg/{row.pk}/change/"
        page = client.get(path).content.decode()
        assert "stands in the database of UAC_REG_DB_URL" in page and "4930a" in page
        assert PASSWORD not in page and 'name="r_username"' not in page and "auth_password" not in page
        values = {"enabled": "on", "provider": "", "inbound_identity": "anonymous",
                  "inbound_from": "provider", "note": "from the page"}
        values["expires"] = "5"
        assert client.post(path, values).status_code == 302
        assert UacRegOptions.objects.get().note == "from the page" and UacReg.objects.get().expires == 600
        assert client.post(f"/admin/trunkmgr/uacreg/{row.pk}/delete/", {"post": "yes"}).status_code == 403
        assert "another database" in client.get("/status/a/").content.decode()
        out = io.StringIO()
        call_command("uacreg", "show", "a", stdout=out)
        assert "UAC_REG_DB_URL" in out.getvalue()

    def test_without_the_url_what_was_mirrored_last_is_ours(
        self, kamailio: Kamailio, monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        kamailio.add("a")
        mirrored()
        monkeypatch.setattr(settings, "TRUNKMGR", dataclasses.replace(settings.TRUNKMGR, reg_db_url=""))
        account = UacReg.objects.get()
        account.expires = 60
        accounts.save(account)
        assert UacReg.objects.get().expires == 60


class TestWriting:
    def test_edits_are_written_there_in_clear_text_with_a_warning(
        self, writable: Kamailio, caplog: pytest.LogCaptureFixture,
    ) -> None:
        writable.add("a"), writable.add("b")
        mirrored()
        account = UacReg.objects.get(l_uuid="a")
        account.auth_password, account.expires = "new secret", 60
        accounts.save(account, who="ada")
        assert writable.sql("SELECT l_uuid, auth_password, expires FROM uacreg ORDER BY l_uuid") == [
            ("a", "new secret", 60), ("b", PASSWORD, 600),
        ]
        assert "goes in clear text" in caplog.text and "new secret" not in caplog.text
        assert accounts.set_enabled("b", False)
        assert writable.sql("SELECT flags FROM uacreg WHERE l_uuid = 'b'") == [(1,)]
        Change.objects.all().delete()
        mirrored()
        assert UacReg.objects.get(l_uuid="a").auth_password.reveal() == "new secret"
        assert not UacReg.objects.get(l_uuid="b").enabled
        assert accounts.remove("a")
        assert writable.sql("SELECT l_uuid FROM uacreg") == [("b",)]
        assert mirrored() == ["b"]

    def test_bad_values_never_reach_it(self, writable: Kamailio) -> None:
        writable.add("a")
        mirrored()
        account = UacReg.objects.get()
        account.auth_proxy = "no uri"
        with pytest.raises(ValidationError):
            accounts.save(account)
        assert writable.sql("SELECT auth_proxy FROM uacreg") == [("sip:192.0.2.9",)]

    def test_a_database_that_is_gone_is_told_and_nothing_changes(self, writable: Kamailio, client: Client) -> None:
        writable.add("a")
        mirrored()
        writable.sql("ALTER TABLE uacreg RENAME TO elsewhere")
        with pytest.raises(ValidationError, match="does not answer as it should"):
            accounts.remove("a")
        client.force_login(User.objects.create_superuser("ada"))
        row = UacReg.objects.get()
        for path, values in (
            (f"/admin/trunkmgr/uacreg/{row.pk}/delete/", {"post": "yes"}),
            ("/admin/trunkmgr/uacreg/", {"action": "disable", "_selected_action": row.pk}),
        ):
            page = client.post(path, values, follow=True).content.decode()
            assert "does not answer as it should" in page
        assert UacReg.objects.get().enabled
        assert UacReg.objects.exists()
