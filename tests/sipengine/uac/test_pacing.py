"""The pace of our own requests, on a numeric clock."""

from __future__ import annotations

import pytest

from sipengine.uac.pacing import Pacing, Priority


def served(pacing: Pacing, until: float) -> None:
    while pacing.next_at() <= until:
        pacing.handle_timer(pacing.next_at())


def test_rate_holds_and_order_is_kept() -> None:
    pacing = Pacing(500)
    sent: list[tuple[float, int]] = []
    for number in range(1000):
        pacing.submit("a", lambda now, number=number: sent.append((now, number)), 0.0)
    assert len(sent) == 20  # 40 ms worth at once
    served(pacing, 10.0)
    assert [number for _, number in sent] == list(range(1000))
    assert sent[-1][0] == pytest.approx(980 / 500, rel=0.01)
    assert pacing.next_at() == float("inf") and pacing.waiting == 0


def test_targets_do_not_hold_each_other_up() -> None:
    pacing = Pacing(10)
    sent: list[str] = []
    for _ in range(50):
        pacing.submit("slow", lambda now: sent.append("slow"), 0.0)
    pacing.submit("other", lambda now: sent.append("other"), 0.0)
    assert "other" in sent


def test_orders_and_answers_jump_the_queue() -> None:
    pacing = Pacing(10)
    sent: list[str] = []
    for _ in range(5):
        pacing.submit("a", lambda now: sent.append("routine"), 0.0)
    pacing.submit("a", lambda now: sent.append("answer"), 0.0, Priority.ANSWER)
    pacing.submit("a", lambda now: sent.append("operator"), 0.0, Priority.OPERATOR)
    served(pacing, 10.0)
    assert sent == ["routine", "operator", "answer", *["routine"] * 4]


@pytest.mark.rfc("3261", "21.5.4")
def test_trouble_halves_the_rate_once_a_second_and_it_recovers() -> None:
    pacing = Pacing(500, floor=10, recovery=60)
    pacing.submit("a", lambda now: None, 0.0)
    for _ in range(5):
        pacing.slow_down("a", 1.0)
    assert pacing.rate_of("a", 1.0) == 250
    pacing.slow_down("a", 2.5)
    assert pacing.rate_of("a", 2.5) < 140
    for second in range(3, 40):
        pacing.slow_down("a", float(second) + 0.6)
    assert 10 <= pacing.rate_of("a", 39.6) <= 20
    assert pacing.rate_of("a", 60.0) < 300
    assert pacing.rate_of("a", 110.0) == 500


def test_late_timers_lose_nothing() -> None:
    pacing = Pacing(500)
    sent: list[float] = []
    for _ in range(1000):
        pacing.submit("a", sent.append, 0.0)
    now = 0.0
    while pacing.waiting:
        now += 0.01
        pacing.handle_timer(now)
    assert now == pytest.approx(1.96, abs=0.02)


def test_many_targets_are_forgotten() -> None:
    pacing = Pacing()
    for number in range(10_000):
        pacing.submit(number, lambda now: None, float(number))
    assert len(pacing._buckets) <= 4096


@pytest.mark.checklist("H11")
def test_a_target_with_a_budget_gets_no_more_and_a_new_budget_counts_at_once() -> None:
    pacing = Pacing(500.0)
    budget = {"small": 2.0}
    pacing.budget = lambda target: budget.get(target, 0.0)
    sent: dict[str, list[float]] = {"small": [], "large": []}
    for name, times in sent.items():
        for _ in range(20):
            pacing.submit(name, times.append, 0.0)
    now = 0.0
    while pacing.waiting and now < 30:
        now = max(now + 0.001, pacing.next_at())
        pacing.handle_timer(now)
        if now > 5 and budget["small"] == 2.0:
            budget["small"] = 10.0
            pacing.submit("small", sent["small"].append, now)
    assert sent["large"][-1] < 0.1, "its neighbour is not held up"
    early = [at for at in sent["small"] if at <= 5]
    assert len(early) == 11 and len(sent["small"]) == 21 and sent["small"][-1] < 12


def test_a_small_budget_is_not_raised_to_the_floor_by_an_outage() -> None:
    pacing = Pacing(500.0, floor=10.0)
    pacing.budget = lambda target: 2.0
    pacing.submit("x", lambda at: None, 0.0)
    pacing.slow_down("x", 1.0)
    assert pacing.rate_of("x", 1.0) <= 2.0 and pacing.rate_of("x", 1000.0) == 2.0
