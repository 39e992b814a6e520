"""A registration's history: spans, outages, marks and lines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from trunkmgr.models import RegistrationEvent
from trunkmgr.views import timeline

NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
SINCE = NOW - timedelta(hours=24)


def event(hours_ago: float, state: str = "registered", **values: Any) -> RegistrationEvent:
    usual = {"granted": 3600, "code": 200, "reason": "OK"} if state == "registered" else {}
    return RegistrationEvent(l_uuid="one", time=NOW - timedelta(hours=hours_ago), state=state, **{**usual, **values})


def spans(
    *events: RegistrationEvent, silent_since: datetime | None = None, bound_until: datetime | None = None,
) -> list[tuple[str, float]]:
    found = timeline.spans(events, SINCE, NOW, silent_since, bound_until)
    return [(span.shown.value, round(span.seconds / 3600, 2)) for span in found]


def test_a_registered_state_lasts_and_begins_with_the_window() -> None:
    assert spans(event(30)) == [("ok", 24.0)]
    assert spans(event(30), event(5, trigger="operator"), bound_until=NOW + timedelta(hours=1)) == [("ok", 24.0)]


def test_a_binding_that_lapsed_unseen_is_unknown_from_then() -> None:
    lapsed_time = NOW - timedelta(hours=9)
    assert spans(event(10), event(5, lapsed_time=lapsed_time)) == [("ok", 1.0), ("unk", 4.0), ("ok", 5.0)]
    assert spans(event(10), bound_until=lapsed_time) == [("ok", 1.0), ("unk", 9.0)]


def test_a_refresh_that_came_a_moment_late_is_no_gap() -> None:
    assert spans(event(10), event(5, lapsed_time=NOW - timedelta(hours=5, seconds=3))) == [("ok", 10.0)]


def test_failures_last_until_the_next_event() -> None:
    found = spans(
        event(3), event(2.5, "failing", cause="timeout"), event(2, "refused", cause="wrong_password", code=401),
        event(1), event(0.5, "disabled", cause="disabled"),
    )
    assert found == [("ok", 0.5), ("fail", 0.5), ("ref", 1.0), ("ok", 0.5), ("off", 0.5)]


def test_a_silent_worker_ends_what_was_known() -> None:
    assert spans(event(1.0, granted=7200), silent_since=NOW - timedelta(minutes=30)) == [("ok", 0.5), ("unk", 0.5)]


def test_no_history() -> None:
    assert spans() == []
    assert timeline.summary([]) == "No history yet"


def test_neighbouring_failures_are_one_outage() -> None:
    parts = timeline.spans([
        event(3), event(2.5, "failing", cause="timeout"), event(2, "refused", cause="wrong_password"), event(1),
        event(0.5, "failing", cause="timeout"),
    ], SINCE, NOW, None)
    assert timeline.summary(parts) == "2 outages, 2 h 00 min in all"
    assert timeline.summary(parts[:1]) == "no outage"


def test_short_outages_stay_visible_and_on_the_drawing() -> None:
    parts = timeline.spans([
        event(3), event(2, "failing", cause="timeout"), event(1.9999),
        event(0.0001, "failing", cause="busy_503", code=503, reason="Service Unavailable"),
    ], SINCE, NOW, None)
    drawn = timeline.marks(parts, SINCE, NOW, NOW)
    assert all(mark.width >= 5 for mark in drawn)
    assert all(mark.x >= 0 and mark.x + mark.width <= timeline.WIDTH for mark in drawn)
    assert drawn[-1].title == "Failing, 0 s"
    assert drawn[-1].detail == "13:59 – now, Provider asks to wait"


def test_axis_and_stamps() -> None:
    assert timeline.axis(SINCE, NOW, NOW) == ["yesterday 14:00", "yesterday 20:00", "02:00", "08:00", "now"]
    assert timeline.stamp(NOW - timedelta(days=9), NOW) == "13 Nov 14:00"


def test_like_events_are_told_once() -> None:
    refused = {"cause": "wrong_password", "code": 401, "reason": "Unauthorized"}
    told = timeline.lines([
        event(1, "refused", **refused), event(2, "refused", **refused), event(3), event(4, "refused", **refused),
    ])
    assert [(line.title, line.times, line.first) for line in told] == [
        ("Password refused", 2, NOW - timedelta(hours=2)),
        ("Registered, 3600 s granted", 1, NOW - timedelta(hours=3)),
        ("Password refused", 1, NOW - timedelta(hours=4)),
    ]


def test_what_options_told_is_said_in_its_own_words() -> None:
    told = timeline.lines([
        event(1, cause="options_answered", trigger="options"),
        event(2, cause="options_silent", trigger="options", code=None, reason="no route to host"),
    ])
    assert [(line.title, line.shown) for line in told] == [
        ("Answers OPTIONS again", "ok"), ("No answer to OPTIONS", "work"),
    ]
    assert told[1].detail == "no route to host · Told by OPTIONS"


def test_details_tell_answer_time_target_and_trigger() -> None:
    told = timeline.event_detail(event(1, round_trip=0.0434, target="udp:192.0.2.7:5060", trigger="guard", who="op"))
    assert told == "200 OK · 43 ms · udp:192.0.2.7:5060 · Sent by the worker's guard · by op"
