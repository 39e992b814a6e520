"""Secrets: sealed at rest, silent in Python, and never lost."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from trunkmgr.exceptions import UndecryptableSecret
from trunkmgr.models import UacReg
from trunkmgr.models.credential import PREFIX, Secret, rotate_secrets

pytestmark = pytest.mark.django_db

CLEAR = "pa55-wörd"
OTHER_KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


def make(number: int = 1, **values: Any) -> UacReg:
    names = {"l_uuid": f"u{number}", "l_username": "a", "l_domain": "b", "r_username": "c", "r_domain": "d"}
    return UacReg.objects.create(**names, **values)


def column(name: str = "auth_password") -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {name} FROM uacreg ORDER BY id")
        return [row[0] for row in cursor.fetchall()]


def write_column(value: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE uacreg SET auth_password = %s", [value])


def test_at_rest_is_a_token_and_comes_back() -> None:
    make(auth_password=CLEAR)
    (stored,) = column()
    assert stored.startswith(PREFIX)
    assert CLEAR not in stored
    assert UacReg.objects.get().auth_password.reveal() == CLEAR


def test_nothing_shows_it() -> None:
    account = make(auth_password=CLEAR)
    loaded = UacReg.objects.get()
    for secret in (account.auth_password, loaded.auth_password, Secret(CLEAR)):
        shown = f"{secret} {secret!r} {secret!s} {[secret]} {vars(account)}" + "%s" % secret  # noqa: UP031
        assert CLEAR not in shown
        assert "<secret: set>" in shown
        assert CLEAR.encode() not in pickle.dumps(secret)
        assert pickle.loads(pickle.dumps(secret)).reveal() == CLEAR
        assert copy.deepcopy(secret).reveal() == CLEAR
    with pytest.raises(TypeError):
        json.dumps(secret)


def test_no_statement_and_no_log_line_carries_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with CaptureQueriesContext(connection) as queries:
        account = make(auth_password=CLEAR)
        account.auth_password = CLEAR + "2"
        account.save()
        UacReg.objects.update(auth_ha1=CLEAR)
        logging.getLogger("trunkmgr").error("Cannot take %s: %r", account, vars(account))
    assert any(PREFIX in query["sql"] for query in queries)
    assert not any(CLEAR in query["sql"] for query in queries)
    assert PREFIX not in caplog.records[-1].getMessage()
    assert CLEAR not in "".join(record.getMessage() for record in caplog.records)


def test_empty_is_not_set() -> None:
    account = make()
    assert not account.auth_password
    assert column() == [""]
    assert str(UacReg.objects.get().auth_password) == "<secret: not set>"
    assert UacReg.objects.get().auth_password.reveal() == ""


def test_clear_text_rows_stay_readable_and_are_sealed_when_saved() -> None:
    make()
    write_column("kamailio-clear")
    account = UacReg.objects.get()
    assert account.auth_password.reveal() == "kamailio-clear"
    assert "kamailio" not in repr(account.auth_password)
    account.save()
    assert column()[0].startswith(PREFIX)
    assert UacReg.objects.get().auth_password.reveal() == "kamailio-clear"


def test_a_typed_password_may_begin_like_a_token() -> None:
    account = make()
    account.auth_password = "enc1:really"
    account.save()
    assert UacReg.objects.get().auth_password.reveal() == "enc1:really"


def test_a_wrong_key_names_cause_and_cure_and_takes_nothing_else_down(settings: Any) -> None:
    make(1, auth_password=CLEAR)
    settings.FIELD_KEYS = [OTHER_KEY]
    make(2, auth_password="fine")
    first, second = UacReg.objects.order_by("id")
    assert second.auth_password.reveal() == "fine"
    assert bool(first.auth_password) is True
    with pytest.raises(UndecryptableSecret, match="another key.*TRUNKMGR_FIELD_KEYS.*enter the password again"):
        first.auth_password.reveal()


def test_saving_an_unopened_row_keeps_its_token(settings: Any) -> None:
    make(auth_password=CLEAR)
    before = column()
    keys = settings.FIELD_KEYS
    settings.FIELD_KEYS = [OTHER_KEY]
    account = UacReg.objects.get()
    account.realm = "changed"
    account.full_clean()
    account.save()
    assert column() == before
    settings.FIELD_KEYS = keys
    assert UacReg.objects.get().auth_password.reveal() == CLEAR


@pytest.mark.parametrize("token", ["enc1:", "enc1:garbage", "enc1:gAAAAA==", "enc1:ü"])
def test_a_damaged_token_is_an_error_and_never_a_password(token: str) -> None:
    make()
    write_column(token)
    with pytest.raises(UndecryptableSecret):
        UacReg.objects.get().auth_password.reveal()


def test_bulk_ways_seal_too() -> None:
    UacReg.objects.bulk_create([UacReg(l_uuid="x", auth_password="one", auth_ha1="h")])
    UacReg.objects.update(auth_password="two")
    account = UacReg.objects.get()
    account.auth_ha1 = "three"
    UacReg.objects.bulk_update([account], ["auth_ha1"])
    assert column()[0].startswith(PREFIX)
    assert column("auth_ha1")[0].startswith(PREFIX)
    account = UacReg.objects.get()
    assert (account.auth_password.reveal(), account.auth_ha1.reveal()) == ("two", "three")


def test_deferred_and_refreshed() -> None:
    make(auth_password=CLEAR)
    account = UacReg.objects.defer("auth_password").get()
    assert "auth_password" in account.get_deferred_fields()
    assert account.auth_password.reveal() == CLEAR
    account.auth_password = "typed"
    account.refresh_from_db()
    assert account.auth_password.reveal() == CLEAR


def test_lookups_are_refused_but_for_emptiness() -> None:
    make(1, auth_password=CLEAR)
    make(2)
    assert UacReg.objects.get(auth_password="").l_uuid == "u2"
    assert UacReg.objects.exclude(auth_password="").get().l_uuid == "u1"
    assert not UacReg.objects.filter(auth_password__isnull=True).exists()
    for lookup in ({"auth_password": CLEAR}, {"auth_password__contains": "p"}, {"auth_password__in": ["", "x"]}):
        with pytest.raises(TypeError):
            UacReg.objects.filter(**lookup).count()


def test_dumpdata_emits_tokens_and_loaddata_takes_them(tmp_path: Path) -> None:
    make(auth_password=CLEAR)
    write = io.StringIO()
    call_command("dumpdata", "trunkmgr.uacreg", stdout=write)
    assert CLEAR not in write.getvalue()
    assert json.loads(write.getvalue())[0]["fields"]["auth_password"] == column()[0]
    UacReg.objects.all().delete()
    (tmp_path / "dump.json").write_text(write.getvalue())
    call_command("loaddata", str(tmp_path / "dump.json"), verbosity=0)
    assert UacReg.objects.get().auth_password.reveal() == CLEAR


class TestRotation:
    def test_every_row_moves_to_the_newest_key_and_the_old_one_is_useless(self, settings: Any) -> None:
        for number in range(7):
            make(number, auth_password=f"p{number}", auth_ha1="h" if number % 2 else "")
        write_column_of = UacReg.objects.filter(l_uuid="u3")
        with connection.cursor() as cursor:
            cursor.execute("UPDATE uacreg SET auth_password = 'clear' WHERE l_uuid = 'u3'")
        settings.FIELD_KEYS = [OTHER_KEY, *django_settings.FIELD_KEYS]
        assert rotate_secrets(chunk=2) == (10, 0)
        assert rotate_secrets(chunk=2) == (0, 0)
        settings.FIELD_KEYS = [OTHER_KEY]
        values = [account.auth_password.reveal() for account in UacReg.objects.order_by("id")]
        assert values == ["p0", "p1", "p2", "clear", "p4", "p5", "p6"]
        assert write_column_of.get().auth_ha1.reveal() == "h"
        assert column("auth_ha1")[0] == ""

    def test_what_no_key_opens_is_left_and_counted(self, settings: Any) -> None:
        make(auth_password=CLEAR)
        before = column()
        settings.FIELD_KEYS = [OTHER_KEY]
        assert rotate_secrets() == (0, 1)
        assert column() == before
        with pytest.raises(CommandError, match="1 secret is opened by no key and left as it is"):
            call_command("rotate_secrets", stdout=io.StringIO())

    def test_the_command_says_how_many(self) -> None:
        make()
        write_column("clear")
        out = io.StringIO()
        call_command("rotate_secrets", stdout=out)
        assert out.getvalue() == "1 secret was re-encrypted.\n"
        assert column()[0].startswith(PREFIX)

    @pytest.mark.django_db(transaction=True)
    def test_a_concurrent_save_wins(self, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        make(auth_password="old")
        settings.FIELD_KEYS = [OTHER_KEY, *django_settings.FIELD_KEYS]
        reveal = Secret.reveal

        def save_meanwhile(secret: Secret) -> str:
            monkeypatch.setattr(Secret, "reveal", reveal)

            def save() -> None:
                UacReg.objects.update(auth_password="new")
                connection.close()

            thread = threading.Thread(target=save)
            thread.start()
            thread.join(10)
            return secret.reveal()

        monkeypatch.setattr(Secret, "reveal", save_meanwhile)
        assert rotate_secrets() == (0, 0)
        assert UacReg.objects.get().auth_password.reveal() == "new"
