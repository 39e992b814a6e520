"""One account's success ends the wait of those that failed with it, and of nobody else (RFC 3261 §21.5.4)."""

from __future__ import annotations

from itertools import pairwise

from sipengine.message import Message
from sipengine.uac.recovery import Recovery
from tests.sipengine.uac.registrar import Network, Reply, account, granting


def failing(code: int, *headers: str, users: tuple[str, ...] = ("trunk1", "trunk2", "trunk3")) -> Network:
    """Three accounts whose registrar answers `code` to `users` until `network.answer` is changed."""
    serve = granting(600)

    def answer(message: Message) -> Reply:
        user = (message.to.sip_uri.user or b"").decode()
        return (code, "Trouble", list(headers)) if user in users else serve(message)

    network = Network(answer)
    for number in (1, 2, 3):
        network.registrations.load(account(number), None, network.now)
    return network


def at(network: Network, number: int) -> list[float]:
    return [sent.at for sent in network.sent if sent.message.to.sip_uri.user == f"trunk{number}".encode()]


def test_all_come_back_at_once_when_one_is_served_again() -> None:
    network = failing(500)
    network.run(3000)
    network.answer = granting(600)
    network.run(900)
    last = [at(network, number)[-1] for number in (1, 2, 3)]
    back = [next(event.at for event in network.events if event.l_uuid == f"acc{n:06d}" and event.code == 200)
            for n in (1, 2, 3)]  # fmt: skip
    assert len(last) == 3
    assert max(back) - min(back) < 0.1
    assert network.last(1).failures == network.last(2).failures == 0


def test_a_retry_after_is_kept_all_the_same() -> None:
    serve, trouble = granting(600), failing(500).answer
    network = failing(500)

    def second_is_told_to_wait(message: Message) -> Reply:
        if message.to.sip_uri.user == b"trunk2":
            return 480, "Later", ["Retry-After: 700"]
        return trouble(message) if trouble else None

    network.answer = second_is_told_to_wait
    network.run(30)
    told_at = at(network, 2)[-1]
    network.answer = serve
    network.run(600)
    assert network.last(1).code == network.last(3).code == 200
    assert at(network, 2)[-1] == told_at
    network.run(120)
    assert 700 <= at(network, 2)[-1] - told_at < 705


def test_an_account_that_fails_alone_backs_off_though_others_are_served() -> None:
    network = failing(500, users=("trunk2",))
    network.run(3600)
    tries = at(network, 2)
    waits = [later - before for before, later in pairwise(tries)]
    assert len(at(network, 1)) > 5
    assert all(wait > 0.79 * min(5 * 2**n, 900) for n, wait in enumerate(waits))
    assert waits[-1] > 700


def test_an_account_that_is_unknown_is_not_tried_for_it() -> None:
    network = failing(404, users=("trunk1", "trunk2"))
    network.run(10)
    network.registrations.change(account(4), network.now)
    network.run(20)
    assert len(at(network, 1)) == len(at(network, 2)) == 1


def test_who_began_to_fail_before_the_last_success_is_not_named() -> None:
    recovery: Recovery[str] = Recovery()
    recovery.failed(b"p", "a", 1.0, down=True)
    recovery.failed(b"q", "x", 1.0, down=True)
    assert recovery.served(b"p", "b", 2.0) == ["a"]
    recovery.failed(b"p", "a", 3.0, down=True)
    assert recovery.served(b"p", "b", 4.0) == []
    assert recovery.served(b"p", "a", 5.0) == []
    recovery.failed(b"p", "a", 6.0, down=True)
    recovery.failed(b"p", "c", 6.0, down=True)
    recovery.forget(b"p", "c")
    assert recovery.served(b"p", "b", 7.0) == ["a"]


def test_of_many_one_asks_for_all_and_the_others_stay_away() -> None:
    network = Network(lambda message: (500, "Down", []))
    for number in range(1, 11):
        network.registrations.load(account(number), None, network.now)
    network.run(3600)
    times = [at(network, number) for number in range(1, 11)]
    [probing, *others] = sorted(times, key=len, reverse=True)
    waits = [later - before for before, later in pairwise(probing)]
    assert max(waits) <= 63 and len(probing) >= 60, "back within a minute, whenever it is"
    assert all(len(tries) <= 10 for tries in others), [len(tries) for tries in others]
    network.answer = granting(600)
    back_at = network.now
    network.run(70)
    assert all(network.last(number).code == 200 for number in range(1, 11))
    assert max(event.at for event in network.events if event.code == 200) - back_at <= 63


def test_two_accounts_that_fail_keep_to_their_own_pauses() -> None:
    recovery: Recovery[str] = Recovery()
    for account_ in ("a", "b"):
        recovery.failed(b"p", account_, 1.0, down=True)
        assert recovery.pause(b"p", account_, 300.0, 900.0) == 300.0
    recovery.failed(b"p", "c", 2.0, down=True)
    assert [recovery.pause(b"p", each, 300.0, 900.0) for each in "abc"] == [60.0, 900.0, 900.0]
    recovery.failed(b"p", "a", 3.0, down=False)
    recovery.failed(b"p", "d", 3.0, down=True)
    assert recovery.pause(b"p", "b", 5.0, 900.0) == 5.0, "another asks when the first is told to ask less"
    recovery.served(b"p", "d", 4.0)
    assert recovery.pause(b"p", "b", 300.0, 900.0) == 300.0


def test_an_answer_that_refuses_one_says_to_the_others_that_it_is_well() -> None:
    network = failing(500)
    network.run(900)
    serve = granting(600)

    def answer(message: Message) -> Reply:
        return (404, "Unknown", []) if message.to.sip_uri.user == b"trunk1" else serve(message)

    network.answer = answer
    network.registrations.register("acc000001", network.now)
    network.run(1)
    assert network.last(1).code == 404
    assert network.last(2).code == network.last(3).code == 200


def test_another_asks_for_all_when_the_first_is_switched_off() -> None:
    network = Network(lambda message: (500, "Down", []))
    for number in (1, 2, 3, 4):
        network.registrations.load(account(number), None, network.now)
    network.run(600)
    first = max((1, 2, 3, 4), key=lambda number: len(at(network, number)))
    network.registrations.change(account(first, enabled=False), network.now)
    network.run(1800)
    counts = [len([when for when in at(network, number) if when > 1600]) for number in (1, 2, 3, 4) if number != first]
    assert max(counts) > 15, counts
