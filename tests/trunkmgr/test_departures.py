"""A binding outlives its account in the tables until it is taken back, whoever deletes or renames the account."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from sipengine.uac.account import UacAccount
from trunkmgr.models import Departure, Node, Provider, Registration, UacReg, UacRegOptions
from trunkmgr.models.credential import rotate_secrets
from trunkmgr.services import accounts, departures, exchange, mirror, providers, registrations
from trunkmgr.sip.snapshot import departing_account

pytestmark = pytest.mark.django_db


def account(l_uuid: str = "alice", bound: float = 600, provider: Provider | None = None, **values: Any) -> UacReg:
    """An account with a binding that stands for `bound` seconds more."""
    saved = accounts.save(UacReg(**{
        "l_uuid": l_uuid, "l_username": "100", "l_domain": "pbx.example", "r_username": l_uuid,
        "r_domain": "sip.example", "auth_password": "s3cret", "realm": "r", "socket": "udp:127.0.0.1:5060", **values,
    }), UacRegOptions(provider=provider))
    Registration.objects.filter(account_id=l_uuid).update(
        state="registered", call_id=f"{l_uuid}@1", cseq=7, from_tag="tag", contact=f"sip:{l_uuid}@127.0.0.1:5060",
        bound_until_time=timezone.now() + timedelta(seconds=bound), granted=600, generation=3, digest="SHA-256",
        covered=100.0, coverable=100.0, counted_time=timezone.now(),
    )
    return UacReg.objects.get(pk=saved.pk)


def left() -> list[str]:
    return [row.call_id for row in Departure.objects.order_by("call_id")]


def test_a_deleted_account_leaves_all_that_its_un_register_needs() -> None:
    account(auth_proxy="sip:127.0.0.2:5070", contact_user="n", contact_addr="192.0.2.1", auth_username="a")
    worker = Node.objects.create(name="w")
    Registration.objects.update(owner=worker)
    bound = Registration.objects.get().bound_until_time
    assert accounts.remove("alice")
    row = Departure.objects.get()
    assert (row.call_id, row.from_tag, row.cseq, row.contact) == ("alice@1", "tag", 7, "sip:alice@127.0.0.1:5060")
    assert (row.owner, row.bound_until_time) == (worker, bound)
    assert departing_account(row) == UacAccount(
        l_uuid="alice", l_username="", l_domain="", r_username="alice", r_domain="sip.example", realm="r",
        auth_username="a", auth_password="s3cret", auth_proxy="sip:127.0.0.2:5070", contact_addr="192.0.2.1",
        contact_user="n", socket="udp:127.0.0.1:5060", digest_minimum="SHA-256",
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT auth_password FROM trunkmgr_departure")
        assert cursor.fetchone()[0].startswith("enc1:")


@pytest.mark.parametrize("column", ["r_username", "r_domain", "contact_user", "contact_addr", "auth_proxy", "socket"])
def test_a_changed_identity_leaves_the_old_one_with_the_old_password(column: str) -> None:
    row = account()
    values = {"auth_proxy": "sip:127.0.0.9", "socket": "udp:127.0.0.1:5062"}
    setattr(row, column, values.get(column, "new.example"))
    row.auth_password = "other"
    accounts.save(row)
    gone = departing_account(Departure.objects.get())
    assert (gone.r_username, gone.r_domain, gone.auth_password) == ("alice", "sip.example", "s3cret")
    now = Registration.objects.get()
    assert (now.call_id, now.bound_until_time, now.granted, now.state) == ("", None, None, "unregistered")
    assert (now.generation, now.covered) == (3, 100.0)


def test_a_bulk_registration_that_is_switched_off_is_taken_back_as_one() -> None:
    row = account()
    accounts.save(row, UacRegOptions(account=row, gin=True))
    Registration.objects.update(
        call_id="alice@2", contact="sip:127.0.0.1:5060;bnc;line=alice",
        bound_until_time=timezone.now() + timedelta(seconds=60),
    )
    row = UacReg.objects.get()
    row.options.gin = False
    accounts.save(row, row.options)
    gone = {row.call_id: departing_account(row).gin for row in Departure.objects.all()}
    assert gone == {"alice@1": False, "alice@2": True}


def test_names_of_a_binding_are_those_of_the_engine() -> None:
    """`UacAccount.same_binding` is the one that counts."""
    one = UacAccount("u", "l", "d", "r", "rd")
    naming = {
        each.name for each in fields(UacAccount)
        if each.name not in ("l_uuid", "enabled")
        and not one.same_binding(UacAccount(**{**{x.name: getattr(one, x.name) for x in fields(one)}, each.name: "x"}))
    }
    assert naming == {*departures.NAMES, "auth_proxy", "socket", "gin", "instance"}


@pytest.mark.parametrize("change", [
    lambda row: setattr(row, "auth_password", "other"), lambda row: setattr(row, "expires", 60),
    lambda row: setattr(row, "flags", 1), lambda row: setattr(row, "l_domain", "other.example"),
])
def test_what_names_the_same_binding_keeps_it(change: Callable[[UacReg], None]) -> None:
    row = account()
    change(row)
    accounts.save(row)
    assert accounts.set_enabled("alice", not row.enabled)
    assert left() == [] and Registration.objects.get().call_id == "alice@1"


def test_where_nothing_is_bound_nothing_is_left() -> None:
    account(bound=-1)
    accounts.remove("alice")
    accounts.save(UacReg(
        l_uuid="bob", l_username="1", l_domain="pbx.example", r_username="b", r_domain="x.example", auth_password="x",
    ))
    accounts.remove("bob")
    assert left() == []


def test_each_change_leaves_its_own() -> None:
    row = account()
    for name in ("second", "third"):
        row.r_username = name
        accounts.save(row)
    assert left() == ["alice@1"], "what was never registered leaves nothing"
    Registration.objects.update(call_id="alice@2", bound_until_time=timezone.now() + timedelta(seconds=60))
    row.r_username = "fourth"
    accounts.save(row)
    assert left() == ["alice@1", "alice@2"]


def test_a_provider_that_moves_its_proxy_or_goes_takes_the_old_bindings_along() -> None:
    provider = providers.save(Provider(name="P", domain="p.example", proxy="sip:127.0.0.2"))
    account("alice", provider=provider)
    account("bob", provider=provider, auth_proxy="sip:127.0.0.3")
    provider.addresses = "127.0.0.2"
    providers.save(provider)
    assert left() == []
    provider.proxy = "sip:127.0.0.4"
    providers.save(provider)
    assert left() == ["alice@1"] and Departure.objects.get().auth_proxy == "sip:127.0.0.2"
    Registration.objects.filter(account_id="alice").update(
        call_id="alice@2", bound_until_time=timezone.now() + timedelta(seconds=60),
    )
    providers.remove(provider.pk)
    assert left() == ["alice@1", "alice@2"]


def test_a_provider_that_moves_its_socket_takes_along_who_has_none_of_his_own() -> None:
    provider = providers.save(Provider(name="P", domain="p.example", socket="udp:127.0.0.1:5064"))
    account("alice", provider=provider, socket="")
    account("bob", provider=provider)
    provider.socket = "udp:127.0.0.1:5066"
    providers.save(provider)
    assert left() == ["alice@1"] and Departure.objects.get().socket == "udp:127.0.0.1:5064"


def test_an_import_leaves_what_it_renames() -> None:
    account("alice")
    account("bob")
    exchange.import_accounts("l_uuid,r_username,expires\nalice,new,3600\nbob,bob,60\n", "csv")
    assert left() == ["alice@1"]


def test_rows_of_a_foreign_database_too() -> None:
    account("alice")
    account("bob")
    UacRegOptions.objects.update(mirror="x")
    values = ("bob", "100", "pbx.example", "new", "sip.example", "", "", "y", "", "", 60, 0, 0, "", "", "")
    mirror._store({"bob": (values, "digest")})
    assert left() == ["bob@1"] and Departure.objects.get().auth_password.reveal() == "s3cret"
    mirror._remove("alice")
    assert left() == ["alice@1", "bob@1"]


def test_a_write_that_fails_leaves_nothing() -> None:
    account()
    with pytest.raises(ZeroDivisionError), departures.kept(["alice"]):
        1 / 0  # noqa: B018
    assert left() == []


def test_a_row_goes_with_its_binding() -> None:
    worker = Node.objects.create(name="w")
    for name, bound in (("alice", 600), ("bob", 600), ("carol", 600)):
        account(name, bound)
        accounts.remove(name)
    Departure.objects.update(owner=worker)
    Departure.objects.filter(l_uuid="bob").update(bound_until_time=timezone.now())
    assert [row.l_uuid for row in departures.of_node(worker)] == ["alice", "carol"]
    departures.forget(["alice@1"])
    assert left() == ["carol@1"]


def test_what_a_silent_worker_left_is_taken_over() -> None:
    now = timezone.now()
    silent = Node.objects.create(name="silent", heartbeat_time=now - timedelta(minutes=1))
    lively = Node.objects.create(name="lively", heartbeat_time=now)
    for name, owner in (("alice", silent), ("bob", lively), ("carol", None)):
        account(name)
        accounts.remove(name)
        Departure.objects.filter(l_uuid=name).update(owner=owner)
    new = Node.objects.create(name="new", heartbeat_time=now)
    registrations.claim_ownership("new")
    assert [row.l_uuid for row in departures.of_node(new)] == ["alice", "carol"]


def test_rotation_of_keys_knows_the_row(settings: Any) -> None:
    account(auth_ha1="")
    accounts.remove("alice")
    old = settings.FIELD_KEYS
    settings.FIELD_KEYS = ["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", *old]
    assert rotate_secrets() == (1, 0)
    settings.FIELD_KEYS = settings.FIELD_KEYS[:1]
    assert departing_account(Departure.objects.get()).auth_password == "s3cret"
