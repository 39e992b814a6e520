"""The covered ratio: which seconds count, and for whom."""

from __future__ import annotations

import pytest

from sipengine.events import RegistrationState as State
from sipengine.message import Message
from sipengine.uac.coverage import Coverage
from tests.sipengine.uac.registrar import Network, Reply, account, challenging, granting


def told(network: Network) -> tuple[float, float]:
    last = network.last()
    return round(last.covered, 1), round(last.coverable, 1)


def test_refreshes_in_time_cover_every_second() -> None:
    network = Network(challenging(granting(60)))
    network.registrations.change(account(), network.now)
    network.run(3600)
    covered, coverable = told(network)
    assert covered > 3500 and coverable - covered <= 0.1, "only the first round trips are missing"


def test_seconds_are_ours_to_lose_from_the_last_refusal_to_the_success() -> None:
    up = True
    granted = granting(60)

    def answer(message: Message) -> Reply:
        return granted(message) if up else (500, "Down", [])

    network = Network(answer)
    network.registrations.change(account(), network.now)
    network.run(20)
    up = False
    network.run(600)
    up = True
    failures = [event for event in network.events if event.state is State.FAILING]
    network.run(900)
    success = next(event for event in network.events if event.at > failures[-1].at and event.state is State.REGISTERED)
    assert success.coverable - success.covered == pytest.approx(success.at - failures[-1].at, abs=0.2)
    assert failures[-1].covered == pytest.approx(60, abs=0.1), "what stood, stood"
    assert failures[-1].coverable == pytest.approx(failures[-1].covered, abs=0.2), "nobody is bound at a dead server"


def test_retry_after_is_not_ours() -> None:
    coverage = Coverage()
    coverage.begin(0)
    coverage.sent(0)
    coverage.failed(130, 10)
    coverage.begin(130)
    coverage.sent(131)
    coverage.bound(200, 132)
    assert (coverage.covered, coverage.coverable) == (0, 1), "one second of an unanswered request"


def test_a_turn_in_the_budget_is_not_ours() -> None:
    coverage = Coverage()
    coverage.begin(0)
    coverage.sent(7)
    coverage.bound(100, 8)
    assert (coverage.covered, coverage.coverable) == (0, 1)


def test_a_lapse_is_ours_and_told_with_the_next_success() -> None:
    coverage = Coverage(50, 50, counted_to=0, until=30)
    coverage.begin(40)
    coverage.sent(40)
    coverage.bound(100, 41)
    assert (coverage.covered, coverage.coverable, coverage.lapsed_at) == (80, 91, 30)


def test_nothing_counts_while_no_binding_is_wanted() -> None:
    network = Network(granting(60))
    network.registrations.change(account(), network.now)
    network.run(100)
    network.registrations.change(account(enabled=False), network.now)
    network.run(1)
    rested = told(network)
    network.run(10_000)
    network.registrations.change(account(), network.now)
    network.run(1)
    assert told(network)[1] - rested[1] <= 0.1
    assert network.last().lapsed_at is None


def test_a_connection_that_ended_covers_nobody() -> None:
    coverage = Coverage(counted_to=0, until=100)
    coverage.lost(10)
    coverage.begin(12)
    coverage.sent(12)
    coverage.bound(112, 12.5)
    assert (coverage.covered, coverage.coverable) == (10, 12.5)


def test_a_refresh_that_changes_nothing_is_no_news() -> None:
    network = Network(granting(60))
    network.registrations.change(account(), network.now)
    network.run(600)
    ends = [event for event in network.events if event.final]
    assert len(ends) > 10
    # The first names the account as registered; trigger, Contact and target are those of all that follow.
    assert [event.unchanged for event in ends] == [False] + [True] * (len(ends) - 1)


@pytest.mark.parametrize("change", ["grant", "operator", "answer"])
def test_what_changed_is_news(change: str) -> None:
    grant, code = 60, 200

    def answer(message: Message) -> Reply:
        found = granting(grant)(message)
        return found if found is None else (code, *found[1:])

    network = Network(answer)
    network.registrations.change(account(), network.now)
    network.run(300)
    if change == "grant":
        grant = 30
    elif change == "answer":
        code = 202
    else:
        network.registrations.register("acc000001", network.now)
    count = len(network.events)
    network.run(60)
    ends = [event.unchanged for event in network.events[count:] if event.final]
    assert ends[0] is False and set(ends[1:]) <= {True}
