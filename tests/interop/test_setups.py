"""The main job in both set-ups: one process on SQLite, and four on PostgreSQL and Redis.

An account registers, an edit and an order reach the wire within 0.1 s, a call comes in and goes out anonymized.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from tests.interop.conftest import Place
from tests.interop.peers import Registrar, Sipp, assert_clean
from tests.interop.product import Cluster, Embedded, Product
from tests.interop.programs import eventually

pytestmark = pytest.mark.interop("kamailio", "sipp")

EDITS = 5
COMMAND = 0.7
"""Seconds in which a command is done."""


@dataclass
class Stand:
    product: Product
    registrar: Registrar
    pbx: tuple[str, int]
    place: Place


@pytest.fixture(scope="module", params=["embedded", "postgresql-redis"])
def stand(request: pytest.FixtureRequest, kamailio_registrar: Callable[..., Registrar], place: Place) -> Stand:
    make: Callable[..., Embedded | Cluster]
    make = request.getfixturevalue("trunkmgr_up" if request.param == "embedded" else "trunkmgr_cluster")
    product, registrar, pbx = make(), kamailio_registrar(), place.pbx_port()
    product.provision(
        registrar.uri,
        domain=registrar.realm,
        addresses=place.provider,
        next_hop=pbx,
        accounts=[{"l_uuid": "alice"}, {"l_uuid": "bob"}],
    )
    eventually(lambda: {"alice", "bob"} <= set(registrar.bindings()), 3, "both accounts are registered")
    return Stand(product, registrar, pbx, place)


def wall(value: object) -> float:
    """Seconds since 1970 of a database time; SQLite gives text in UTC."""
    time_ = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return (time_ if time_.tzinfo else time_.replace(tzinfo=UTC)).timestamp()


def on_the_wire(stand: Stand, user: str, already: int) -> float:
    """Return when the registrar got the next REGISTER of a user."""
    eventually(lambda: len(stand.registrar.seen(user)) > already, 2, f"{user} sends REGISTER")
    return stand.registrar.seen(user)[already].time


def test_an_account_saved_in_the_admin_is_registered_within_two_seconds(stand: Stand) -> None:
    admin = stand.product.admin()
    start = time.monotonic()
    admin.add(
        "uacreg",
        l_uuid="carol",
        l_username="carol",
        l_domain="pbx.example",
        r_username="carol",
        r_domain=stand.registrar.realm,
        auth_username="carol",
        auth_password="secret",
        auth_proxy=stand.registrar.uri,
    )
    eventually(lambda: stand.registrar.binding("carol"), 2 - (time.monotonic() - start), "carol is registered")
    eventually(lambda: stand.product.registration("carol")["state"] == "registered", 2, "the table says so")
    page = admin.get("/status/carol/")
    assert "Registered" in page
    assert "carol" in admin.get("/status/")


def test_an_edit_reaches_the_wire_within_a_tenth_of_a_second(
    stand: Stand, record_property: Callable[[str, object], None]
) -> None:
    waits, commands = [], []
    for number in range(EDITS):
        already = len(stand.registrar.seen("alice"))
        done = stand.product.manage("uacreg", "edit", "alice", "--expires", str(1800 + number))
        sent = on_the_wire(stand, "alice", already)
        ((written,),) = stand.product.query('SELECT max("time") FROM trunkmgr_change WHERE "key" = ?', "alice")
        waits.append(sent - wall(written))  # the row's time is taken before the commit: this is an upper bound
        commands.append((done.seconds, done.cpu))
        time.sleep(0.2)
    assert statistics.median(waits) <= 0.1, f"seconds from the change to the wire: {waits}"
    assert max(waits) <= 0.8, f"one waited for the safety net's poll: {waits}"
    # On a machine that others keep busy the clock says little; then its own CPU time must fit.
    seconds, cpu = (min(column) for column in zip(*commands, strict=True))
    assert seconds <= COMMAND or cpu <= COMMAND, f"seconds and CPU seconds that `uacreg edit` took: {commands}"
    record_property(
        "figure",
        f"{type(stand.product).__name__}: edit to wire {statistics.median(waits) * 1000:.0f} ms, "
        f"`uacreg edit` {seconds:.2f} s (CPU {cpu:.2f} s)",
    )


def test_an_order_reaches_the_wire_within_a_tenth_of_a_second(
    stand: Stand, record_property: Callable[[str, object], None]
) -> None:
    waits = []
    for _ in range(EDITS):
        already = len(stand.registrar.seen("bob"))
        stand.product.manage("uacreg", "register", "bob")
        sent = on_the_wire(stand, "bob", already)
        ((placed,),) = stand.product.query("SELECT max(created_time) FROM trunkmgr_order WHERE verb = 'register'")
        waits.append(sent - wall(placed))
    assert statistics.median(waits) <= 0.1, f"seconds from the order to the wire: {waits}"
    assert stand.product.events("bob")[-1]["trigger"] == "operator"
    record_property("figure", f"{type(stand.product).__name__}: order to wire {statistics.median(waits) * 1000:.0f} ms")


def test_calls_come_in_anonymized(stand: Stand, sipp: Callable[..., Sipp]) -> None:
    far = sipp("callee", stand.pbx, count=20)
    near = sipp("caller", stand.place.provider_port(), stand.product.sip, count=20, rate=20, users=["alice", "bob"])
    result = near.result()
    far_result = far.result()
    assert_clean(far_result, 20)
    assert_clean(result, 20)
    eventually(
        lambda: stand.product.query("SELECT count(*) FROM trunkmgr_call WHERE ended_time IS NOT NULL") == [(20,)],
        3,
        "the calls are in the call table, ended",
    )


def test_a_disabled_account_is_unregistered(stand: Stand) -> None:
    stand.product.manage("uacreg", "disable", "bob")
    eventually(lambda: not stand.registrar.binding("bob"), 2, "bob is un-registered")
