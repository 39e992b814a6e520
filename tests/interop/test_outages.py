"""One part after the other is away, and nothing lapses at the registrar (Kamailio; grants of 20 to 60 s).

`OUTAGE_SECONDS` says for how long each is away: 25 in CI, where it waits beside the other tests; 600 by hand.
The registrar's own table is asked (`ul.dump`), never ours.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.deployment import value
from tests.interop.conftest import Place
from tests.interop.peers import Registrar
from tests.interop.product import Cluster
from tests.interop.programs import eventually

SECONDS = float(os.environ.get("OUTAGE_SECONDS", "25"))
pytestmark = [
    pytest.mark.interop("kamailio", "postgresql", "redis"),
    pytest.mark.timeout(int(6 * SECONDS + 300)),
]

SHORT, LONG = (20, 30, 45), (60, 60, 120)
"""Seconds that the accounts ask for and get."""
USERS = tuple(f"acc{number}" for number in range(len(SHORT + LONG)))
RESTART = 5.0
"""Seconds after which a killed worker is at work again; the test stands in for systemd (Restart=always)."""
READY = "trunkmgr ready"


class Watch(threading.Thread):
    """Asks the registrar four times a second which bindings it holds."""

    def __init__(self, registrar: Registrar, users: set[str]) -> None:
        super().__init__(daemon=True)
        self.registrar, self.users = registrar, users
        self.lapsed: list[tuple[float, set[str]]] = []
        self.looked = 0
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.25):
            missing = self.users - set(self.registrar.bindings())
            self.looked += 1
            if missing:
                self.lapsed.append((time.time(), missing))

    def end(self) -> None:
        self._over.set()
        self.join(15)


@contextmanager
def nothing_lapses(registrar: Registrar, users: set[str]) -> Iterator[None]:
    watch = Watch(registrar, users)
    watch.start()
    try:
        yield
    finally:
        watch.end()
    assert watch.looked > 0
    assert not watch.lapsed, f"Lapsed at the registrar: {watch.lapsed[:5]}"


@pytest.fixture(scope="module")
def registrar(kamailio_registrar: Callable[..., Registrar]) -> Registrar:
    return kamailio_registrar(max_expires=120)


@pytest.fixture(scope="module")
def cluster(trunkmgr_cluster: Callable[..., Cluster], registrar: Registrar, place: Place) -> Cluster:
    cluster = trunkmgr_cluster()
    cluster.provision(
        registrar.uri,
        domain=registrar.realm,
        addresses=place.provider,
        next_hop=(place.pbx, 5060),
        accounts=[
            {"l_uuid": user, "expires": str(grant)} for user, grant in zip(USERS, SHORT + LONG, strict=True)
        ],
    )
    eventually(lambda: set(USERS) <= set(registrar.bindings()), 10, "all accounts are registered")
    return cluster


def refreshed(registrar: Registrar, user: str, since: float) -> int:
    return sum(seen.time > since for seen in registrar.seen(user))


@pytest.mark.parametrize("part", ["beat", "worker", "redis", "postgres"])
def test_a_part_is_away_and_nothing_lapses(
    cluster: Cluster, registrar: Registrar, part: str, record_property: Callable[[str, object], None]
) -> None:
    service = {"redis": cluster.redis, "postgres": cluster.postgres}.get(part)
    since = time.time()
    with nothing_lapses(registrar, set(USERS)):
        if service is None:
            cluster.stop_one(part)
        else:
            service.halt()
        time.sleep(SECONDS)
        if service is None:
            cluster.start_one(part)
        else:
            service.resume()
        time.sleep(5)
    sent = {user: refreshed(registrar, user, since) for user in USERS}
    if SECONDS >= 25:
        assert all(sent[user] for user in USERS[: len(SHORT)]), sent
    assert cluster.programs["runsip"].code is None
    count = sum(sent.values())
    record_property("figure", f"{part} away for {SECONDS:g} s: nothing lapsed, {count} REGISTERs meanwhile")


def test_a_killed_worker_is_restarted_and_no_grant_of_a_minute_lapses(
    cluster: Cluster, registrar: Registrar, record_property: Callable[[str, object], None]
) -> None:
    with nothing_lapses(registrar, set(USERS[len(SHORT) :])):
        cluster.programs["runsip"].kill()
        killed, said = time.monotonic(), cluster.programs["runsip"].text.count(READY)
        time.sleep(float(value("trunkmgr-sip@.service", "Service", "RestartSec")))
        cluster.start_one("runsip")
        eventually(lambda: cluster.programs["runsip"].text.count(READY) > said, 20, "the worker is ready again")
        took = time.monotonic() - killed
        time.sleep(10)
    assert took <= RESTART, f"The worker was back after {took:.1f} s."
    eventually(lambda: set(USERS) <= set(registrar.bindings()), 10, "all accounts are registered")
    record_property("figure", f"worker killed: ready again after {took:.1f} s, no grant of 60 s lapsed")


def test_after_a_long_absence_what_stands_is_used_again_and_the_rest_comes_back(
    cluster: Cluster, registrar: Registrar, record_property: Callable[[str, object], None]
) -> None:
    """Away until the shorter grants are over; in the long form until all are."""
    eventually(lambda: registrar.bindings()[USERS[-1]][0].expires > 90, 90, "the longest grant is fresh", 0.25)
    time.sleep(3)  # refreshes are written every 2 s; what is not when a worker is killed is asked for again
    cluster.programs["runsip"].kill()
    if SECONDS > 60:
        time.sleep(SECONDS)
    else:
        eventually(lambda: not set(registrar.bindings()) & set(USERS[:1]), 30, "the shortest grant is over", 0.25)
    # Those whose refresh is not due yet; the others are to be sent though they stand.
    due = {user: 0.45 * grant if grant <= 64 else 38 for user, grant in zip(USERS, SHORT + LONG, strict=True)}
    standing = {user for user, [binding] in registrar.bindings().items() if binding.expires > due[user] + 5}
    assert standing if SECONDS <= 60 else not standing
    since = time.time()
    cluster.start_one("runsip")
    took = eventually(lambda: set(USERS) <= set(registrar.bindings()), 20, "all accounts are registered")
    ready = time.time()
    needless = [user for user in standing if any(since < seen.time <= ready for seen in registrar.seen(user))]
    assert took <= 10 + RESTART, f"All were back after {took:.1f} s."
    assert not needless, f"{needless} were sent though their bindings stood."
    record_property("figure", f"worker away: {len(standing)} bindings used again, the rest back after {took:.1f} s")
