"""Engine clock and wall time."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

from trunkmgr.sip.clock import Clock


def test_both_ways() -> None:
    clock = Clock(lambda: 100.0, lambda: 1_700_000_100.0)
    assert clock.time(160.0) == datetime.fromtimestamp(1_700_000_160, UTC)
    assert clock.at(clock.time(160.0)) == 160.0
    assert clock.optional_time(None) is None


def test_a_step_of_the_wall_clock_is_told_and_followed(caplog: pytest.LogCaptureFixture) -> None:
    now, wall = [100.0], [1000.0]
    clock = Clock(lambda: now[0], lambda: wall[0])
    now[0], wall[0] = 102.0, 1002.1
    assert clock.compare() == pytest.approx(0.1)
    assert not caplog.records
    now[0], wall[0] = 104.0, 1064.1
    with caplog.at_level(logging.WARNING):
        assert clock.compare() == pytest.approx(60.0)
    assert "stepped by +60.0 s" in caplog.text
    assert clock.time(104.0).timestamp() == pytest.approx(1064.1)
