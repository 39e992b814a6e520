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


class Refreshes:
    """What caused each refresh of some accounts, as their rows told while it was watched."""

    def __init__(self, product: Product, users: tuple[str, ...]) -> None:
        self.product, self.users = product, users
        self._triggers: dict[str, dict[int, str]] = {user: {} for user in users}
        self.look()
        self._first = {user: max(seen) for user, seen in self._triggers.items()}

    def look(self) -> None:
        for user in self.users:
            row = self.product.registration(user)
            if row["state"] == "registered":
                self._triggers[user][int(str(row["generation"]))] = str(row["trigger"])

    def of(self, user: str, skip: int = 0) -> list[str]:
        """Return the causes, the first registration and `skip` refreshes left out."""
        first = self._first[user]
        return [trigger for generation, trigger in sorted(self._triggers[user].items()) if generation > first][skip:]

    def mostly_beat(self, seconds: float) -> float:
        """Hold that beat caused 95 % of the refreshes of these seconds; return its share."""
        causes = [cause for user in self.users for cause in self.of(user)]
        assert len(causes) >= len(self.users) * (seconds // GRANT), causes
        share = causes.count("beat") / len(causes)
        assert share >= 0.95, f"{type(self.product).__name__}: {causes}"
        return share


def watch(registrar: Registrar, users: set[str], seconds: float, *refreshes: Refreshes) -> None:
    """Ask the registrar four times a second whether every binding stands."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        lapsed = users - set(registrar.bindings())
        assert not lapsed, f"{lapsed} lapsed at the registrar {end - time.monotonic():.1f} s before the end."
        for seen in refreshes:
            seen.look()
        time.sleep(0.25)


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
    of_one, of_four = Refreshes(embedded, one), Refreshes(cluster, four)
    watch(registrar, users, BEAT_STOPS, of_one, of_four)
    beats = {user: len(of_four.of(user)) for user in four}
    of_four.mostly_beat(BEAT_STOPS)
    cluster.stop_one("beat")
    watch(registrar, users, PLANNED, of_one, of_four)

    # A wrong password is not tried again and again: providers ban for that.
    tries = [seen.time for seen in registrar.seen("wrong")]
    assert 1 <= len([time_ for time_ in tries if time_ - tries[0] <= 60]) <= 3, tries
    assert embedded.registration("wrong")["cause"] == "wrong_password"
    page = embedded.admin().get("/status/wrong/")
    assert "The provider does not accept the password." in page

    planned = {user: len(of_four.of(user)) for user in four}
    watch(registrar, users, SECONDS - BEAT_STOPS - PLANNED, of_one, of_four)
    share = of_one.mostly_beat(SECONDS)
    for user in four:
        assert planned[user] - beats[user] <= 2
        causes = of_four.of(user, skip=planned[user])
        assert len(causes) >= 2
        assert set(causes) == {"guard"}, f"{user}: {causes}"
    for user in one:
        assert len(embedded.events(user)) == 1, "a refresh that changes nothing is no history"
    record_property("figure", f"{GRANT}-second grants for {SECONDS} s: {share:.0%} of refreshes by beat, no lapse")
