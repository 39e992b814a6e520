"""A registration's history as people read it: spans of one state, outages, and single events in words.

Works on rows of `RegistrationEvent` and asks no database.  Refreshes that changed nothing have no row: a registered
state lasts until the next row, unless that tells that the binding had lapsed before; then nobody knows, and the span
between is Unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from trunkmgr.causes import CAUSES, Shown, answer, explain
from trunkmgr.models import RegistrationEvent
from trunkmgr.models.registration import State, Trigger
from trunkmgr.payloads import duration, shown_state

WINDOWS = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30)}
#: Width of the drawing, and the least width of a span: a short outage must stay visible.
WIDTH, NARROWEST = 1000, 5
#: A refresh may be late by a retransmission or two before the binding counts as lapsed.
GRACE = timedelta(seconds=5)
_HEIGHTS = {
    Shown.REGISTERED: 20, Shown.REFRESHING: 24, Shown.FAILING: 36, Shown.REFUSED: 47, Shown.DISABLED: 8,
    Shown.UNKNOWN: 20,
}
FULL_HEIGHT = 48


@dataclass(frozen=True, slots=True)
class Span:
    """One state from `start` to `end`."""

    shown: Shown
    start: datetime
    end: datetime
    detail: str

    @property
    def seconds(self) -> float:
        return (self.end - self.start).total_seconds()


def event_shown(event: RegistrationEvent) -> Shown:
    if event.trigger == Trigger.OPTIONS and event.cause in CAUSES:
        return CAUSES[event.cause].shown
    return shown_state(event.state, event.cause, 0, planned=False)


def spans(
    events: Sequence[RegistrationEvent], since: datetime, until: datetime, silent_since: datetime | None,
    bound_until: datetime | None = None,
) -> list[Span]:
    """Turn events (oldest first, beginning with the last one before `since`) into spans within the window.

    `bound_until`: when the binding of now ends, that is of the last event.
    """
    pieces: list[Span] = []
    ends = [*(event.time for event in events[1:]), until]
    lapses = [*(event.lapsed_time for event in events[1:]), bound_until]
    for event, end, lapsed in zip(events, ends, lapses, strict=False):
        shown, detail = event_shown(event), event_title(event)
        if shown is Shown.REGISTERED and lapsed is not None and lapsed + GRACE < end:
            pieces.append(Span(shown, event.time, max(lapsed, event.time), detail))
            pieces.append(Span(Shown.UNKNOWN, max(lapsed, event.time), end, "No news after the binding lapsed"))
        else:
            pieces.append(Span(shown, event.time, end, detail))
    if silent_since is not None:
        pieces = [Span(p.shown, p.start, min(p.end, silent_since), p.detail) for p in pieces]
        pieces.append(Span(Shown.UNKNOWN, silent_since, until, "The worker is silent"))
    merged: list[Span] = []
    for piece in pieces:
        start, end = max(piece.start, since), min(piece.end, until)
        if start >= end:
            continue
        last = merged[-1] if merged else None
        if last and last.shown is piece.shown and (last.detail == piece.detail or piece.shown is Shown.REGISTERED):
            merged[-1] = Span(last.shown, last.start, end, piece.detail)
        else:
            merged.append(Span(piece.shown, start, end, piece.detail))
    return merged


def summary(parts: Sequence[Span]) -> str:
    """`2 outages, 1 h 23 min in all`; neighbouring bad spans are one outage."""
    bad = [part.shown in (Shown.FAILING, Shown.REFUSED) for part in parts]
    number = sum(1 for now, before in zip(bad, [False, *bad], strict=False) if now and not before)
    if not parts:
        return "No history yet"
    if not number:
        return "no outage"
    lost = sum(part.seconds for part, is_bad in zip(parts, bad, strict=True) if is_bad)
    return f"{number} outage{'' if number == 1 else 's'}, {duration(lost)} in all"


@dataclass(frozen=True, slots=True)
class Mark:
    """A span as drawn."""

    shown: Shown
    x: float
    width: float
    height: int
    title: str
    detail: str

    @property
    def y(self) -> int:
        return FULL_HEIGHT - self.height


def marks(parts: Iterable[Span], since: datetime, until: datetime, now: datetime) -> list[Mark]:
    """Place spans on the drawing; bad ones are drawn last and never narrower than `NARROWEST`."""
    whole = (until - since).total_seconds()
    drawn = []
    for part in parts:
        width = part.seconds / whole * WIDTH
        x = (part.start - since).total_seconds() / whole * WIDTH
        if width < NARROWEST:
            x, width = max(0.0, min(x, WIDTH - NARROWEST)), float(NARROWEST)
        began, ended = stamp(part.start, now), "now" if part.end >= until else stamp(part.end, now)
        drawn.append(Mark(
            part.shown, round(x, 1), round(width, 1), _HEIGHTS[part.shown],
            f"{part.shown.label}, {duration(part.seconds)}", f"{began} – {ended}, {part.detail}",
        ))
    return sorted(drawn, key=lambda mark: (mark.shown.needs_attention, mark.x))


def axis(since: datetime, until: datetime, now: datetime) -> list[str]:
    """Five labels under the drawing, the last one `now`."""
    step = (until - since) / 4
    return [stamp(since + step * at, now) for at in range(4)] + ["now"]


def stamp(moment: datetime, now: datetime) -> str:
    """`14:02` for today, `yesterday 14:02`, else `15 Nov 14:02`."""
    local, today = timezone.localtime(moment), timezone.localtime(now).date()
    if local.date() == today:
        return local.strftime("%H:%M")
    return local.strftime("yesterday %H:%M" if local.date() == today - timedelta(days=1) else "%-d %b %H:%M")


def event_title(event: RegistrationEvent) -> str:
    """What happened, cause before code."""
    shown = event_shown(event)
    if shown is Shown.REGISTERED and event.trigger != Trigger.OPTIONS:
        return f"Registered, {event.granted} s granted" if event.granted else "Registered"
    if shown in (Shown.REFUSED, Shown.FAILING):
        return explain(event.cause, event.code, event.reason, {}).short
    if event.cause in CAUSES:
        return explain(event.cause, event.code, event.reason, {}).short
    return State(event.state).label if event.state in State.values else event.state


def event_detail(event: RegistrationEvent) -> str:
    """Answer, time it took, target and what caused it, as far as the row tells."""
    told = [
        answer(event.code, event.reason), f"{event.round_trip * 1000:.0f} ms" if event.round_trip else "", event.target,
        event.get_trigger_display() if event.trigger else "", f"by {event.who}" if event.who else "",
    ]
    return " · ".join(part for part in told if part)


@dataclass(frozen=True, slots=True)
class Line:
    """One or more like events in a row."""

    time: datetime
    shown: Shown
    title: str
    detail: str
    times: int
    first: datetime


def lines(events: Iterable[RegistrationEvent]) -> list[Line]:
    """Tell events (newest first) one by one, like ones in a row once: a day of refreshes is one line."""
    told: list[Line] = []
    for event in events:
        line = Line(event.time, event_shown(event), event_title(event), event_detail(event), 1, event.time)
        last = told[-1] if told else None
        if last and (last.shown, last.title) == (line.shown, line.title):
            told[-1] = Line(last.time, last.shown, last.title, last.detail, last.times + 1, event.time)
        else:
            told.append(line)
    return told
