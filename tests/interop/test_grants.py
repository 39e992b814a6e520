"""Two minutes of 20-second grants: who causes each refresh, and that no binding ever lapses at the registrar.

Both set-ups run at once, because most of the time is waiting; the account with the wrong password waits along.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.interop.conftest import Place
from tests.interop.peers import Registrar
from tests.interop.product import Cluster, Embedded, Product
from tests.interop.programs import eventually

pytestmark = [pytest.mark.interop("kamailio", "postgresql", "redis"), pytest.mark.timeout(300)]

GRANT = 20
SECONDS = 120
BEAT_STOPS = 50
"""When beat of the four-process set-up is stopped; the one process has it to the end."""
PLANNED = 16
"""Seconds after its last tick in which what beat has planned is still sent for it: an interval and five."""


def enter(product: Product, registrar: Registrar, place: Place, *users: str, **more: str) -> None:
    product.provision(
        registrar.uri,
        domain=registrar.realm,
        addresses=place.provider,
        next_hop=(place.pbx, 5060),
        accounts=[{"l_uuid": user, **more} for user in users],
    )
    eventually(lambda: set(users) <= set(registrar.bindings()), 5, f"{users} are registered")


def watch(registrar: Registrar, users: set[str], seconds: float) -> None:
    """Ask the registrar four times a second whether every binding stands."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        lapsed = users - set(registrar.bindings())
        assert not lapsed, f"{lapsed} lapsed at the registrar {end - time.monotonic():.1f} s before the end."
        time.sleep(0.25)


def refreshes(product: Product, users: tuple[str, ...], skip: int = 0) -> list[str]:
    """Return what caused each refresh of these accounts, their first registration left out."""
    return [
        str(event["trigger"])
        for user in users
        for event in [event for event in product.events(user) if event["code"] == 200][1 + skip :]
    ]


def mostly_beat(product: Product, users: tuple[str, ...], seconds: float) -> float:
    """Hold that beat caused 95 % of the refreshes of these seconds; return its share."""
    causes = refreshes(product, users)
    assert len(causes) >= len(users) * (seconds // GRANT), causes
    share = causes.count("beat") / len(causes)
    assert share >= 0.95, f"{type(product).__name__}: {causes}"
    return share


def test_beat_refreshes_and_the_guard_stands_in(
    kamailio_registrar: Callable[..., Registrar],
    trunkmgr_up: Callable[..., Embedded],
    trunkmgr_cluster: Callable[..., Cluster],
    place: Place,
    record_property: Callable[[str, object], None],
) -> None:
    registrar = kamailio_registrar(max_expires=GRANT)
    registrar.set_password("wrong", "another")
    one, four = ("one-a", "one-b", "one-c"), ("four-a", "four-b", "four-c")
    embedded, cluster = trunkmgr_up(), trunkmgr_cluster()
    enter(embedded, registrar, place, *one)
    enter(cluster, registrar, place, *four)
    words = "--l-username wrong --l-domain pbx.example --r-username wrong --provider RheinTel --password-stdin"
    embedded.manage("uacreg", "add", "wrong", *words.split(), "--r-domain", registrar.realm, stdin="not-it\n")
    users = {*one, *four}
    watch(registrar, users, BEAT_STOPS)
    beats = {user: len(refreshes(cluster, (user,))) for user in four}
    mostly_beat(cluster, four, BEAT_STOPS)
    cluster.stop_one("beat")
    watch(registrar, users, PLANNED)

    # A wrong password is not tried again and again: providers ban for that.
    tries = [seen.time for seen in registrar.seen("wrong")]
    assert 1 <= len([time_ for time_ in tries if time_ - tries[0] <= 60]) <= 3, tries
    assert embedded.registration("wrong")["cause"] == "wrong_password"
    page = embedded.admin().get("/status/wrong/")
    assert "The provider does not accept the password." in page

    planned = {user: len(refreshes(cluster, (user,))) for user in four}
    watch(registrar, users, SECONDS - BEAT_STOPS - PLANNED)
    share = mostly_beat(embedded, one, SECONDS)
    for user in four:
        assert planned[user] - beats[user] <= 2
        causes = refreshes(cluster, (user,), skip=planned[user])
        assert len(causes) >= 2
        assert set(causes) == {"guard"}, f"{user}: {causes}"
    record_property("figure", f"{GRANT}-second grants for {SECONDS} s: {share:.0%} of refreshes by beat, no lapse")
