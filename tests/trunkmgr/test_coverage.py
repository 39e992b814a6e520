"""The covered ratio brought up to now, and cut to a window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from trunkmgr import coverage
from trunkmgr.coverage import Covered
from trunkmgr.models import Registration, RegistrationEvent

NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
SINCE = NOW - timedelta(hours=24)
HOUR = 3600.0


def hours_ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


def registration(state: str = "registered", bound_for: float = 0.1) -> Registration:
    """Counted an hour ago: 90 hours of 100; the binding holds for `bound_for` hours from now."""
    return Registration(
        state=state, covered=90 * HOUR, coverable=100 * HOUR, counted_time=hours_ago(1),
        bound_until_time=hours_ago(-bound_for),
    )


def event(hours: float, covered: float, coverable: float, **values: object) -> RegistrationEvent:
    told = {"state": "registered", "covered": covered * HOUR, "coverable": coverable * HOUR, **values}
    return RegistrationEvent(l_uuid="one", time=hours_ago(hours), **told)


def test_what_passed_since_the_last_answer_counts() -> None:
    assert coverage.until(registration(), NOW) == Covered(91 * HOUR, 101 * HOUR)
    assert coverage.until(registration(bound_for=-0.5), NOW) == Covered(90.5 * HOUR, 101 * HOUR)
    assert coverage.until(registration("failing"), NOW) == Covered(90 * HOUR, 100 * HOUR)


def test_a_window_begins_amid_a_state() -> None:
    found = coverage.within(registration(), [event(30, 66, 71)], SINCE, NOW)
    assert found == Covered(91 * HOUR - 72 * HOUR, 101 * HOUR - 77 * HOUR)


def test_a_lapse_before_the_window_is_not_its() -> None:
    events = [event(30, 66, 71), event(20, 68, 81, lapsed_time=hours_ago(28))]
    found = coverage.within(registration(), events, SINCE, NOW)
    assert found == Covered(91 * HOUR - 68 * HOUR, 101 * HOUR - 77 * HOUR)


def test_a_young_account_and_one_of_which_nothing_was_counted() -> None:
    assert coverage.within(registration(), [event(5, 0, 0)], SINCE, NOW) == Covered(91 * HOUR, 101 * HOUR)
    assert str(coverage.until(Registration(), NOW)) == ""


def test_a_loss_is_never_rounded_away() -> None:
    assert str(Covered(30 * 86400 - 1, 30 * 86400)) == "99.999 %"
    assert str(Covered(60, 60)) == "100 %"
    assert str(Covered(0, 60)) == "0.000 %"
