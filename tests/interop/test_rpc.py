"""The seed's RPCs by name, against a real registrar; and what that names in its 200."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.interop.peers import Registrar
from tests.interop.product import Embedded
from tests.interop.programs import eventually

pytestmark = pytest.mark.interop("kamailio")


@dataclass
class Stand:
    registrar: Registrar
    product: Embedded

    def uac(self, *words: str, stdin: str | None = None, fails: bool = False) -> str:
        done = self.product.manage("uac", *words, stdin=stdin, check=not fails)
        assert bool(done.code) == fails
        return done.out + done.err

    def add(self, user: str, expires: int = 600) -> None:
        self.uac(
            "reg_add", user, user, "pbx.example", user, self.registrar.realm, ".", user, "-", ".", self.registrar.uri,
            str(expires), "0", "0", ".", ".", stdin="secret\n",
        )

    def record(self, user: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.uac("reg_info", "l_uuid", user, "--json"))
        return found


@pytest.fixture(scope="module")
def stand(kamailio_registrar: Callable[..., Registrar], trunkmgr_up: Callable[..., Embedded]) -> Stand:
    return Stand(kamailio_registrar(), trunkmgr_up())


def test_add_unregister_register_remove(stand: Stand) -> None:
    stand.add("anna")
    eventually(lambda: stand.registrar.binding("anna"), 2, "anna is registered")
    eventually(lambda: stand.record("anna")["state"] == "Registered", 3, "the record says so")
    record = stand.record("anna")
    assert (record["flags"], record["auth_password"], record["granted"]) == (4 + 16, "***", 600)
    assert 590 < record["diff_expires"] <= 600
    assert "anna" in stand.uac("reg_unregister", "r_username", "anna")
    assert not stand.registrar.binding("anna")
    assert "200 OK" in stand.uac("reg_register", "l_username", "anna")
    assert stand.registrar.binding("anna")
    assert "409" in stand.uac("reg_add", *["anna"] * 7, "-", *["."] * 2, "6", "0", "0", ".", ".", stdin="x", fails=True)
    stand.uac("reg_remove", "anna")
    eventually(lambda: not stand.registrar.binding("anna"), 2, "anna is gone")
    assert "404" in stand.uac("reg_info", "l_uuid", "anna", fails=True)


def test_reg_active_keeps_all_silent_but_orders_and_outlives_a_restart(stand: Stand) -> None:
    stand.uac("reg_active", "0")
    try:
        stand.add("berta")
        time.sleep(1.5)
        assert not stand.registrar.binding("berta")
        stand.product.stop()
        stand.product.start()
        time.sleep(1.5)
        assert not stand.registrar.binding("berta")
        assert "Registrations are stopped" in stand.product.manage("status").out
        assert stand.record("berta")["why"] == "Sending of registrations is switched off for all trunks."
        assert "200 OK" in stand.uac("reg_register", "l_uuid", "berta")
        assert stand.registrar.binding("berta")
        stand.add("carla")
    finally:
        stand.uac("reg_active", "1")
    eventually(lambda: stand.registrar.binding("carla"), 3, "what was held back is served")


def test_service_route_and_identities_are_kept_over_a_restart(stand: Stand) -> None:
    stand.add("ims", expires=3600)
    eventually(lambda: stand.record("ims")["service_route"], 5, "the Service-Route is known")
    host, port = stand.registrar.host, stand.registrar.port
    for _ in range(2):
        record = stand.record("ims")
        assert record["service_route"] == f"<sip:{host}:{port};lr>"
        assert record["associated_uris"] == f"<sip:+493023125010@{stand.registrar.realm}>, <tel:+493023125011>"
        seen = len(stand.registrar.seen("ims"))
        stand.product.kill()
        stand.product.start()
        time.sleep(1.0)
        assert len(stand.registrar.seen("ims")) == seen, "the binding stands, nothing is asked anew"


def test_reload_finds_what_sql_wrote(stand: Stand) -> None:
    stand.add("dora")
    eventually(lambda: stand.registrar.binding("dora"), 2, "dora is registered")
    assert " 0 differed" in stand.uac("reg_reload")
    with sqlite3.connect(stand.product.data / "trunkmgr.sqlite3", timeout=10) as database:
        database.execute("UPDATE uacreg SET expires = 700 WHERE l_uuid = 'dora'")
    assert " 1 differed" in stand.uac("reg_reload")
    eventually(lambda: stand.registrar.seen("dora")[-1].expires == 700, 2, "dora asks for 700 s")
