"""`make sim` in small: the engine as it is passes, and each rule that is broken on purpose is named.

The same code as the long runs; hours instead of weeks.
"""

from __future__ import annotations

import pytest

from simulation import sim, weather
from simulation.carrier import Carrier, Mood
from simulation.coverage import Ledger, Outage, latest_refresh
from simulation.registrar import Listing, Registrar
from sipengine.message.build import request
from sipengine.testing import Wire
from sipengine.uac.coverage import Coverage

SMALL = (
    sim.Cast("udp", (30, 60, 300), (weather.SILENT, weather.RESTART, weather.OVERLOADED), nonce_seconds=100),
    sim.Cast("busy", (60, 120), (weather.THROTTLED, weather.FAILING), listing=Listing.AMONG_OTHERS),
    sim.Cast("tcp", (120, 600), (weather.DROP, weather.REALM), transport="tcp", servers=2),
)


@pytest.fixture(autouse=True)
def no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Each outage is told a hundred times."""
    caplog.set_level("ERROR", logger="sipengine")


def quiet(line: str) -> None: ...


def rules(simulation: sim.Simulation) -> set[str]:
    return {fault.partition(":")[0] for fault in simulation.faults()}


def small() -> sim.Simulation:
    return sim.month(3, 0.5, say=quiet, casts=SMALL)


def test_the_engine_covers_every_coverable_second_and_no_provider_sees_too_much() -> None:
    simulation = small()
    assert simulation.faults() == []
    classes = simulation.by_class()
    assert {"granted", "challenged", "unanswered", "overloaded", "throttled", "failing"} <= set(classes)
    assert sum(len(carrier.outages) for carrier in simulation.carriers) >= 4
    assert len(list(simulation.ledgers)) == 7
    assert simulation.ratio() >= sim.WANTED


@pytest.mark.parametrize(
    ("fault", "rule"),
    [("late_refresh", "covered"), ("no_backoff", "back_off"), ("ignore_retry_after", "retry_after")],
)
def test_a_broken_rule_is_named(fault: str, rule: str) -> None:
    with sim.broken(fault):
        assert rule in rules(small())


def test_what_the_engine_counts_as_covered_is_checked_against_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    with sim.broken("late_refresh"):
        simulation = small()
        assert "measured" not in rules(simulation), "the engine saw its own lapses"
        assert simulation.own_ratio() < 0.98

        def flatter(self: Coverage, now: float, *excused: object) -> None:
            self.covered, self.coverable = self.covered + 1.0, self.coverable + 1.0

        monkeypatch.setattr(Coverage, "_count", flatter)
        assert "measured" in rules(small())


def test_a_fault_is_taken_back() -> None:
    from sipengine.uac import registration

    before = registration.back_off
    with sim.broken("no_backoff"):
        assert registration.back_off is not before
    assert registration.back_off is before


@pytest.mark.parametrize(("name", "value"), [("SIM_FAULT", "typo"), ("SIM_SHORT", "2"), ("SIM_SEED", "x")])
def test_a_value_that_means_nothing_is_refused_in_words(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    assert sim.main() == 2
    assert capsys.readouterr().err.startswith(f"{name} is '{value}'; it is ")


def test_a_run_ends_with_the_covered_ratio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sim.SIZES, "ci", (0.05, 100))
    monkeypatch.setenv("SIM_SHORT", "ci")
    monkeypatch.setenv("SIM_SEED", "4")
    assert sim.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "SIM_SEED=4 SIM_SHORT=ci"
    assert lines[1].startswith("REGISTERs: ") and " granted" in lines[1]
    assert any("worst account" in line for line in lines)
    assert lines[-1].startswith("sim: ") and lines[-1].endswith("% of the coverable seconds")


def test_many_accounts_start_pass_an_outage_and_come_back_within_the_budget() -> None:
    simulation = sim.many(5, 400, say=quiet)
    assert simulation.faults() == []
    assert all(ledger.covered > 2000 for _, ledger in simulation.ledgers)


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = (sim.month(8, 0.1, say=quiet, casts=SMALL[:1]) for _ in range(2))
    assert first.by_class() == second.by_class()
    assert [ledger.covered for _, ledger in first.ledgers] == [ledger.covered for _, ledger in second.ledgers]


# what is counted
def test_a_gap_of_ours_counts() -> None:
    ledger = Ledger(0.0, drain=1.0)
    ledger.bound(0.5, 60, [])
    ledger.bound(70.5, 60, [])
    ledger.count_to(100.0, [])
    assert (ledger.covered, ledger.lost) == (pytest.approx(89.5), pytest.approx(10.0))


@pytest.mark.parametrize(
    ("outage", "bound_at", "lost"),
    [
        (Outage(50, 200, 210.0), 211.0, 0.0),
        (Outage(50, 200, 210.0), 231.0, 20.0),
        (Outage(50, 200, None), 1100.0, 0.0),
        (Outage(50, 200, None), 1200.0, 55.0),
        (Outage(90, 200, 200.0), 201.0, 29.5),
    ],
)
def test_an_outage_is_excused_until_its_end_was_known_and_the_budget_served(
    outage: Outage, bound_at: float, lost: float
) -> None:
    ledger = Ledger(0.0, drain=1.0)
    ledger.bound(0.5, 60, [])
    ledger.bound(bound_at, 60, [outage])
    assert ledger.lost == pytest.approx(lost)


def test_what_a_registrar_forgot_counts_from_the_next_refresh_and_is_told_apart() -> None:
    ledger = Ledger(0.0, drain=1.0)
    ledger.bound(0.0, 600, [])
    ledger.dropped(100.0, [], signalled=False)
    ledger.bound(600.0, 600, [])
    assert ledger.unsignalled == pytest.approx(latest_refresh(600) + 1 - 100)
    assert ledger.lost == pytest.approx(500 - ledger.unsignalled)
    ledger.dropped(700.0, [], signalled=True)
    ledger.count_to(730.0, [])
    assert ledger.lost == pytest.approx(530 - ledger.unsignalled)


def test_a_retry_after_is_excused_to_its_end() -> None:
    ledger = Ledger(0.0, drain=1.0)
    ledger.must_wait(300.0)
    ledger.bound(310.0, 60, [])
    assert ledger.lost == pytest.approx(10.0)


# what a provider notes
def carrier() -> Carrier:
    wire = Wire()
    return Carrier(wire, "p", Registrar(b"p.example", {b"a": b"x"}), ["198.51.100.1"], budget=3)


def register(carrier: Carrier, number: int) -> None:
    to = b"<sip:a@p.example>"
    message = request(
        b"REGISTER", b"sip:p.example",
        [
            (b"Via", b"SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK%d" % number), (b"To", to), (b"From", to + b";tag=1"),
            (b"Call-ID", b"c"), (b"CSeq", b"%d REGISTER" % number), (b"Contact", b"<sip:l@192.0.2.1>"),
        ],
    )  # fmt: skip
    carrier.wire.station("192.0.2.1", 5060).send(message.serialize(), ("198.51.100.1", 5060))
    carrier.wire.run(0.01)


def test_more_than_the_budget_in_a_second_is_noted_and_a_repeat_is_not_counted() -> None:
    there = carrier()
    for number in (1, 2, 3, 3, 3):
        register(there, number)
    assert not there.broken
    register(there, 4)
    assert there.broken == {"budget": 1}


def test_an_account_that_comes_too_early_is_noted() -> None:
    there = carrier()
    there.begin(Mood(503, 60))
    register(there, 1)
    there.wire.run(59.0)
    register(there, 2)
    assert there.broken == {"retry_after": 1}
    there.begin(Mood(0))
    there.wire.run(61.0)
    register(there, 3)
    there.wire.run(1.0)
    register(there, 4)
    assert there.broken == {"retry_after": 1, "back_off": 1}


def test_an_account_that_never_comes_back_is_stuck() -> None:
    there = carrier()
    there.wire.run(2000.0)
    there.close_books()
    assert set(there.broken) == {"stuck"}
