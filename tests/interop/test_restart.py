"""The service dies without warning and comes back: bindings are used again, and calls that were up end well."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.deployment import value
from tests.interop.conftest import Place
from tests.interop.peers import Registrar, Sipp, assert_clean
from tests.interop.product import Embedded
from tests.interop.programs import eventually

pytestmark = pytest.mark.interop("kamailio", "sipp")


@dataclass
class Stand:
    product: Embedded
    registrar: Registrar
    pbx: tuple[str, int]
    place: Place


@pytest.fixture(scope="module")
def stand(kamailio_registrar: Callable[..., Registrar], trunkmgr_up: Callable[..., Embedded], place: Place) -> Stand:
    registrar, product, pbx = kamailio_registrar(), trunkmgr_up(), place.pbx_port()
    product.provision(
        registrar.uri,
        domain=registrar.realm,
        addresses=place.provider,
        next_hop=pbx,
        accounts=[{"l_uuid": name} for name in ("alice", "bob", "carol")],
    )
    eventually(lambda: len(registrar.bindings()) == 3, 3, "the accounts are registered")
    eventually(
        lambda: product.query("SELECT count(*) FROM trunkmgr_registration WHERE state = 'registered'") == [(3,)],
        3,
        "the table says so",
    )
    return Stand(product, registrar, pbx, place)


@pytest.mark.parametrize(
    ("caller", "callee"),
    [("caller", "callee"), ("caller_hears_bye", "callee_hangs_up")],
    ids=["caller ends", "callee ends"],
)
def test_a_call_that_was_up_survives_a_crash(stand: Stand, sipp: Callable[..., Sipp], caller: str, callee: str) -> None:
    """The BYE comes after the restart; both scenarios still look for the caller's identity in it."""
    talk = 10.0
    far = sipp(callee, stand.pbx, count=3, talk=talk, seconds=40)
    near = sipp(
        caller,
        stand.place.provider_port(),
        stand.product.sip,
        count=3,
        rate=10,
        users=["alice", "bob"],
        talk=talk,
        seconds=40,
    )
    eventually(lambda: far.messages.count("ACK sip:") >= 3, 5, "the calls are up")
    time.sleep(1.5)  # what is written behind is written within a second
    stand.product.kill()
    stand.product.start()
    result = near.result()
    far_result = far.result()
    assert_clean(far_result, 3)
    assert_clean(result, 3)


def test_bindings_are_used_again_after_a_crash(stand: Stand) -> None:
    before, count = stand.registrar.bindings(), len(stand.registrar.seen())
    stand.product.kill()
    stand.product.start()
    time.sleep(3)
    assert len(stand.registrar.seen()) == count, "REGISTERs were sent though every binding stood"
    assert stand.registrar.bindings().keys() == before.keys()
    assert stand.product.registration("alice")["state"] == "registered"

    # The next REGISTER goes on where the last one stopped (RFC 3261 §10.2.4).
    stand.product.manage("uacreg", "register", "alice")
    after = stand.registrar.binding("alice")
    assert after is not None
    assert after.call_id == before["alice"][0].call_id
    assert after.cseq > before["alice"][0].cseq


def test_a_killed_service_is_at_work_again_within_five_seconds(
    stand: Stand, record_property: Callable[[str, object], None]
) -> None:
    """The test stands in for systemd, which has Restart=always and this RestartSec."""
    stand.product.kill()
    killed = time.monotonic()
    time.sleep(float(value("trunkmgr.service", "Service", "RestartSec")))
    stand.product.start()
    took = time.monotonic() - killed
    assert took <= 5, f"It was back after {took:.1f} s."
    record_property("figure", f"service in one process killed: ready again after {took:.1f} s")


def test_an_orderly_stop_keeps_the_bindings_too(stand: Stand) -> None:
    before, count = stand.registrar.bindings(), len(stand.registrar.seen())
    stand.product.stop()
    assert stand.registrar.bindings().keys() == before.keys(), "stopping un-registered accounts"
    stand.product.start()
    time.sleep(2)
    assert len(stand.registrar.seen()) == count


def test_a_change_made_while_it_was_down_takes_effect_at_the_start(stand: Stand) -> None:
    stand.product.stop()
    stand.product.manage("uacreg", "disable", "bob")
    stand.product.start()
    eventually(lambda: not stand.registrar.binding("bob"), 3, "bob is un-registered")
    assert stand.registrar.binding("alice")


def test_what_is_deleted_or_renamed_while_it_was_down_is_taken_back_at_the_start(stand: Stand) -> None:
    """With the old user and password: whoever has only the new ones cannot end the old binding."""
    stand.product.stop()
    stand.product.manage("uacreg", "remove", "--yes", "alice")
    stand.product.manage("uacreg", "edit", "carol", "--r-username", "claire", "--auth-username", "claire")
    stand.registrar.set_password("claire", "new secret")
    stand.product.manage("uacreg", "edit", "carol", "--password-stdin", stdin="new secret\n")
    assert {"alice", "carol"} <= stand.registrar.bindings().keys()
    stand.product.start()
    eventually(lambda: not stand.registrar.binding("alice"), 5, "the deleted account is un-registered")
    eventually(lambda: not stand.registrar.binding("carol"), 5, "the old name is un-registered")
    eventually(lambda: stand.registrar.binding("claire"), 5, "the new name is registered")
    eventually(
        lambda: stand.product.query("SELECT count(*) FROM trunkmgr_departure") == [(0,)], 2, "nothing is kept of them"
    )
