"""Credentials for challenged calls: what is refused, who writes them, and no secret on any way out."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.urls import reverse

from trunkmgr.models import Change, Credential, Provider, UacReg
from trunkmgr.models.credential import rotate_secrets
from trunkmgr.services import accounts, credentials, providers

pytestmark = pytest.mark.django_db

PASSWORD = "pw-that-must-not-show"
HA1 = "0123456789abcdef0123456789abcdef"
OTHER_KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


@pytest.fixture
def account() -> UacReg:
    return accounts.save(UacReg(
        l_uuid="4711", l_username="alice", l_domain="pbx.example", r_username="4930", r_domain="sip.example",
        auth_password="own",
    ))


@pytest.fixture
def provider() -> Provider:
    return providers.save(Provider(name="Alpen", domain="sip.example"))


def logged() -> list[str]:
    return list(Change.objects.filter(table="credential").order_by("pk").values_list("key", flat=True))


def columns() -> list[tuple[str, str]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT password, ha1 FROM trunkmgr_credential ORDER BY id")
        return list(cursor.fetchall())


@pytest.mark.parametrize(("values", "column", "text"), [
    ({}, "password", "neither password nor HA1; enter one of them"),
    ({"password": "x", "ha1": HA1}, "password", "both a password and an HA1; keep one of them"),
    ({"ha1": HA1, "realm": ""}, "realm", "An HA1 is made for one realm"),
    ({"ha1": "abc"}, "ha1", "32 hex digits"),
    ({"password": "a\r\nb"}, "password", "line break"),
    ({"password": "x", "realm": ""}, "realm", "it would answer whoever asks"),
    ({"password": "x", "username": ""}, "username", "cannot be blank"),
    ({"password": "x", "realm": "a\nb"}, "realm", "line break"),
    ({"password": "x", "account": True, "provider": True}, "account", "not both"),
])
def test_what_makes_no_sense_is_refused_at_its_column(
    account: UacReg, provider: Provider, values: dict[str, Any], column: str, text: str,
) -> None:
    values = {"realm": "example.net", "username": "alice", **values}
    values |= {name: row for name, row in (("account", account), ("provider", provider)) if name in values}
    with pytest.raises(ValidationError) as caught:
        credentials.save(Credential(**values))
    assert text in " ".join(caught.value.message_dict[column])
    assert logged() == []


def test_one_for_each_realm_user_and_owner(account: UacReg, provider: Provider) -> None:
    same = {"realm": "example.net", "username": "alice", "password": "x"}
    first = credentials.save(Credential(**same))
    credentials.save(Credential(**same, account=account))
    credentials.save(Credential(**same, provider=provider))
    credentials.save(first)
    with pytest.raises(ValidationError, match="alice in example.net of account 4711 already"):
        credentials.save(Credential(**same, account=account))
    assert Credential.objects.count() == 3


def test_it_is_sealed_and_rotated_and_told_to_the_workers(settings: Any) -> None:
    row = credentials.save(Credential(realm="example.net", username="alice", password=PASSWORD), "anna")
    other = credentials.save(Credential(realm="example.org", username="alice", ha1=HA1))
    assert logged() == [str(row.pk), str(other.pk)]
    assert Change.objects.get(key=str(row.pk), table="credential").who == "anna"
    assert PASSWORD not in repr(columns()) and HA1 not in repr(columns())
    settings.FIELD_KEYS = (OTHER_KEY, *django_settings.FIELD_KEYS)
    before = columns()
    assert rotate_secrets() == (2, 0)
    assert before != columns()
    settings.FIELD_KEYS = (OTHER_KEY,)
    assert Credential.objects.get(pk=row.pk).password.reveal() == PASSWORD


def test_it_goes_with_its_owner(account: UacReg, provider: Provider) -> None:
    """Left behind it would answer for every account."""
    mine = credentials.save(Credential(username="a", password="x", account=account))
    theirs = credentials.save(Credential(username="b", password="x", provider=provider))
    everybodys = credentials.save(Credential(realm="example.net", username="c", password="x"))
    Change.objects.all().delete()
    accounts.remove("4711")
    providers.remove(provider.pk)
    assert logged() == [str(mine.pk), str(theirs.pk)]
    assert list(Credential.objects.all()) == [everybodys]
    assert credentials.remove(everybodys.pk) and not credentials.remove(everybodys.pk)


def test_it_waits_for_an_account_that_vanished_from_kamailios_table(account: UacReg) -> None:
    row = credentials.save(Credential(username="a", password="x", account=account))
    UacReg.objects.all().delete()  # as `services.mirror` does, without the service
    row = Credential.objects.get()
    assert (row.scope, str(row)) == ("account 4711", "a in any realm")


class TestCommand:
    @pytest.fixture
    def run(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        def run(*words: str, stdin: str = "", fails: bool = False) -> str:
            monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
            out, failure = io.StringIO(), ""
            try:
                call_command("credential", *words, stdout=out, stderr=out)
            except CommandError as error:
                failure = str(error)
            said = out.getvalue() + failure
            assert PASSWORD not in said and HA1 not in said
            assert bool(failure) == fails, said
            return said
        return run

    def test_add_list_remove(self, run: Any, account: UacReg, provider: Provider) -> None:
        assert "No credentials besides" in run("list")
        said = run("add", "4930", "--realm", "sbc.example", "--provider", "Alpen", "--password-stdin", stdin=PASSWORD)
        (row,) = Credential.objects.all()
        assert said == f"{row.pk} is added: 4930 in sbc.example, for provider Alpen.\n"
        assert row.password.reveal() == PASSWORD
        run("add", "alice", "--account", "4711", "--realm", "r", "--ha1", "--password-stdin", "--note", "n", stdin=HA1)
        ha1 = Credential.objects.get(account=account)
        assert ha1.ha1.reveal() == HA1 and not ha1.password
        table = run("list")
        assert "provider Alpen" in table and "account 4711" in table and "HA1" in table
        assert json.loads(run("list", "--json"))[0] == {
            "id": ha1.pk, "username": "alice", "realm": "r", "account": "4711", "provider": None, "secret": "HA1",
            "note": "n",
        }
        assert "say --yes" in run("remove", str(row.pk), fails=True)
        assert "4930 in sbc.example" in run("remove", str(row.pk), "--yes")
        assert "No credential has the id" in run("remove", str(row.pk), "--yes", fails=True)
        assert list(Credential.objects.all()) == [ha1]
        assert Change.objects.filter(table="credential").last().who.endswith("(command)")

    @pytest.mark.parametrize(("words", "text"), [
        (("alice",), "neither password nor HA1"),
        (("alice", "--password-stdin"), "--realm: Without realm, account and provider"),
        (("alice", "--account", "471", "--password-stdin"), "Did you mean '4711'?"),
        (("alice", "--provider", "Alpin", "--password-stdin"), "No provider is called 'Alpin'"),
    ])
    def test_refusals_name_the_option(self, run: Any, account: UacReg, words: tuple[str, ...], text: str) -> None:
        assert text in run("add", *words, stdin=PASSWORD, fails=True)


class TestAdmin:
    @pytest.fixture
    def web(self, client: Client) -> Client:
        client.force_login(User.objects.create_superuser("anna", password="x"))
        return client

    def test_a_secret_goes_in_and_never_comes_out(self, web: Client, account: UacReg) -> None:
        add = reverse("admin:trunkmgr_credential_add")
        assert "clear_password" not in web.get(add).content.decode()
        data = {
            "username": "alice", "password": PASSWORD, "ha1": "", "realm": "", "account": account.l_uuid,
            "provider": "", "note": "",
        }
        response = web.post(add, data, follow=True)
        row = Credential.objects.get()
        assert (row.account, row.password.reveal()) == (account, PASSWORD)
        assert Change.objects.get(table="credential").who == "anna"
        assert "account 4711" in response.content.decode()
        change = reverse("admin:trunkmgr_credential_change", args=[row.pk])
        page = web.get(change).content.decode()
        assert "Set. Left blank: stays as it is." in page and "clear_password" in page
        assert PASSWORD not in page + response.content.decode()
        web.post(change, {**data, "password": "", "note": "kept"})
        row.refresh_from_db()
        assert (row.note, row.password.reveal()) == ("kept", PASSWORD)
        web.post(change, {**data, "password": "", "clear_password": "on", "ha1": HA1, "realm": "example.net"})
        row.refresh_from_db()
        assert not row.password and row.ha1.reveal() == HA1

    def test_what_is_wrong_is_said_at_its_field(self, web: Client) -> None:
        page = web.post(reverse("admin:trunkmgr_credential_add"), {"username": "alice", "password": PASSWORD})
        assert "it would answer whoever asks" in page.content.decode()
        assert PASSWORD not in page.content.decode()

    def test_deleting_goes_through_the_service(self, web: Client) -> None:
        rows = [credentials.save(Credential(realm="r", username=name, password="x")) for name in "abc"]
        web.post(reverse("admin:trunkmgr_credential_delete", args=[rows[0].pk]), {"post": "yes"})
        web.post(reverse("admin:trunkmgr_credential_changelist"), {
            "action": "delete_selected", "_selected_action": [row.pk for row in rows[1:]], "post": "yes",
        })
        assert sorted(logged()) == sorted(2 * [str(row.pk) for row in rows])
        assert not Credential.objects.exists()
