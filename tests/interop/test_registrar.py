"""Accounts at a real registrar: what is entered in the admin or by a command is what Kamailio's `ul.dump` then says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.interop.conftest import Place
from tests.interop.peers import Registrar
from tests.interop.product import Admin, Embedded
from tests.interop.programs import eventually

pytestmark = pytest.mark.interop("kamailio")


@dataclass
class Stand:
    registrar: Registrar
    product: Embedded
    admin: Admin


@pytest.fixture(scope="module")
def stand(kamailio_registrar: Callable[..., Registrar], trunkmgr_up: Callable[..., Embedded], place: Place) -> Stand:
    """A product whose administrator has entered a provider and a PBX, and nothing else."""
    registrar = kamailio_registrar()
    product = trunkmgr_up()
    admin = product.admin()
    admin.add("provider", name="RheinTel", domain=registrar.realm, proxy=registrar.uri, addresses=place.provider)
    admin.add("domain", l_domain="pbx.example", next_hop=f"sip:{place.pbx}:5060")
    return Stand(registrar, product, admin)


def enter(stand: Stand, l_uuid: str, password: str = "secret", **more: str) -> None:
    stand.admin.add(
        "uacreg",
        l_uuid=l_uuid,
        l_username=l_uuid,
        l_domain="pbx.example",
        r_username=l_uuid,
        r_domain=stand.registrar.realm,
        auth_username=l_uuid,
        auth_password=password,
        auth_proxy=stand.registrar.uri,
        **more,
    )


def test_an_account_saved_in_the_admin_is_registered_within_two_seconds(stand: Stand) -> None:
    start = time.monotonic()
    enter(stand, "alice")
    eventually(lambda: stand.registrar.binding("alice"), 2 - (time.monotonic() - start), "alice is registered")
    binding = stand.registrar.binding("alice")
    assert binding is not None
    assert binding.contact == f"sip:alice@127.0.0.1:{stand.product.sip[1]}"
    assert binding.expires > 3500
    eventually(lambda: stand.product.registration("alice")["state"] == "registered", 2, "the table says registered")
    assert "Registered" in stand.admin.get("/status/alice/")


def test_a_changed_password_registers_again(stand: Stand) -> None:
    enter(stand, "bob")
    eventually(lambda: stand.registrar.binding("bob"), 2, "bob is registered")
    before = stand.registrar.binding("bob")
    stand.registrar.set_password("bob", "changed")
    (key,) = stand.product.query("SELECT id FROM uacreg WHERE l_uuid = 'bob'")[0]
    stand.admin.change("uacreg", key, auth_password="changed")
    eventually(lambda: stand.registrar.binding("bob") != before, 2, "bob is registered with the new password")
    assert [seen.authenticated for seen in stand.registrar.seen("bob")][-1]
    assert stand.product.registration("bob")["state"] in ("registered", "registering", "refreshing")


def test_a_disabled_account_is_unregistered_and_an_enabled_one_comes_back(stand: Stand) -> None:
    enter(stand, "carol")
    eventually(lambda: stand.registrar.binding("carol"), 2, "carol is registered")
    stand.product.manage("uacreg", "disable", "carol")
    eventually(lambda: not stand.registrar.binding("carol"), 2, "carol is un-registered")
    assert stand.registrar.seen("carol")[-1].expires == 0
    eventually(lambda: stand.product.registration("carol")["state"] == "disabled", 2, "the table says disabled")
    stand.product.manage("uacreg", "enable", "carol")
    eventually(lambda: stand.registrar.binding("carol"), 2, "carol is registered again")


def test_disabling_in_the_admin_unregisters(stand: Stand) -> None:
    enter(stand, "dave")
    eventually(lambda: stand.registrar.binding("dave"), 2, "dave is registered")
    (key,) = stand.product.query("SELECT id FROM uacreg WHERE l_uuid = 'dave'")[0]
    stand.admin.change("uacreg", key, drop=("enabled",), note="off")
    eventually(lambda: not stand.registrar.binding("dave"), 2, "dave is un-registered")


def test_a_deleted_account_is_unregistered(stand: Stand) -> None:
    enter(stand, "erin")
    eventually(lambda: stand.registrar.binding("erin"), 2, "erin is registered")
    stand.product.manage("uacreg", "remove", "--yes", "erin")
    eventually(lambda: not stand.registrar.binding("erin"), 2, "erin is un-registered")
    assert stand.product.query("SELECT count(*) FROM uacreg WHERE l_uuid = 'erin'") == [(0,)]


def test_an_edited_user_leaves_no_binding_behind(stand: Stand) -> None:
    enter(stand, "frank")
    eventually(lambda: stand.registrar.binding("frank"), 2, "frank is registered")
    stand.product.manage("uacreg", "edit", "frank", "--r-username", "frances", "--auth-username", "frances")
    eventually(lambda: stand.registrar.binding("frances"), 2, "frances is registered")
    eventually(lambda: not stand.registrar.binding("frank"), 2, "the binding of frank is ended")


def test_orders_of_an_operator_are_answered(stand: Stand) -> None:
    enter(stand, "gina")
    eventually(lambda: stand.registrar.binding("gina"), 2, "gina is registered")
    done = stand.product.manage("uacreg", "unregister", "gina")
    assert "gina" in done.out
    assert not stand.registrar.binding("gina")
    stand.product.manage("uacreg", "register", "gina")
    assert stand.registrar.binding("gina")
    assert [event["trigger"] for event in stand.product.events("gina")][-1] == "operator"


def test_a_registrar_that_does_not_know_outbound_takes_the_binding_all_the_same(stand: Stand) -> None:
    enter(stand, "henry")
    eventually(lambda: stand.registrar.binding("henry"), 2, "henry is registered")
    before = stand.registrar.binding("henry")
    stand.product.manage("uacreg", "edit", "henry", "--outbound")
    eventually(lambda: stand.registrar.binding("henry") != before, 2, "henry is registered by instance and flow")
    stand.product.manage("uacreg", "disable", "henry")
    eventually(lambda: not stand.registrar.binding("henry"), 2, "henry is un-registered")


def test_a_standby_registrar_serves_while_the_first_is_frozen(
    stand: Stand, kamailio_registrar: Callable[..., Registrar], place: Place
) -> None:
    first = kamailio_registrar(place.provider_2)
    enter(stand, "jack")
    eventually(lambda: stand.registrar.binding("jack"), 2, "jack is registered")
    stand.product.manage("uacreg", "edit", "jack", "--auth-proxy", first.uri, "--registrars", stand.registrar.uri)
    eventually(lambda: first.binding("jack"), 5, "jack is registered at the first")
    eventually(lambda: not stand.registrar.binding("jack"), 5, "and nowhere else")
    first.freeze()
    try:
        stand.product.manage("uacreg", "register", "jack")
        assert stand.registrar.binding("jack"), "the standby has it after 6 s"
    finally:
        first.thaw()
    eventually(lambda: stand.product.registration("jack")["state"] == "registered", 2, "the table says registered")


def test_an_account_is_bound_at_all_its_registrars_at_once(
    stand: Stand, kamailio_registrar: Callable[..., Registrar], place: Place
) -> None:
    other = kamailio_registrar(place.provider_2)
    enter(stand, "kate")
    stand.product.manage("uacreg", "edit", "kate", "--registrars", other.uri, "--at-once")
    eventually(lambda: stand.registrar.binding("kate") and other.binding("kate"), 5, "kate is registered at both")
    eventually(lambda: f"{other.uri}: Registered" in stand.admin.get("/status/kate/"), 3, "the page says so")
    stand.product.manage("uacreg", "edit", "kate", "--no-at-once")
    eventually(lambda: not other.binding("kate"), 5, "kate is un-registered at the second")
    assert stand.registrar.binding("kate")
    stand.product.manage("uacreg", "edit", "kate", "--at-once")
    eventually(lambda: other.binding("kate"), 5, "kate is registered at both again")
    stand.product.manage("uacreg", "remove", "--yes", "kate")
    eventually(lambda: not (stand.registrar.binding("kate") or other.binding("kate")), 5, "kate is un-registered")
