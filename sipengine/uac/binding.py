"""What the answers to a REGISTER mean: lifetimes, refresh times, back-off, causes (RFC 3261 §10.2, §10.3, §20.33).

Pure functions and values; `registration` drives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import floor

from sipengine.events import Reachability
from sipengine.message import Message
from sipengine.uac.contacts import Listed
from sipengine.uac.routes import NO_ROUTES, Routes

TIMER_F = 32.0
"""64*T1: a refresh begun this long before the end of the binding may time out and still leave it standing."""

TOGETHER = 0.25
"""Seconds between the moments at which refreshes leave.  Those of one moment share the wake-up, the turn of sends and
mostly that of reads: a quarter less CPU than one by one, at a hundred a second.
"""
MAX_BACK_OFF = 900.0
MAX_RETRY_AFTER = 4 * 3600
"""A Retry-After above this is taken for a fault of the far side: an account must not be lost over one header."""
MAX_MIN_EXPIRES = 7 * 86400


@dataclass(frozen=True, slots=True)
class BindingRecord:
    """What outlives a restart of the service; times are engine clock, converted by the host."""

    call_id: str
    from_tag: str
    cseq: int
    contact: str = ""
    granted: int | None = None
    bound_until_at: float | None = None
    next_attempt_at: float | None = None
    generation: int = 0
    failures: int = 0
    target: str = ""
    realm_seen: str = ""
    code: int | None = None
    reason: str = ""
    round_trip: float | None = None
    routes: Routes = NO_ROUTES
    digest: str = ""
    """Algorithm of the last answer that was taken."""
    covered: float = 0.0
    coverable: float = 0.0
    counted_to: float | None = None
    local_address: str = ""
    seen_address: str = ""
    reachability: Reachability = Reachability.UNKNOWN


def refresh_after(granted: int, jitter: float) -> float:
    """Seconds from sending a REGISTER to its refresh; `jitter` in [0, 1) moves it earlier only.

    Short grants: at 55 to 65 %.  Others: at 90 % or Timer F before the end, whichever is earlier, and up to 5 % of the
    grant before that.
    """
    if granted <= 2 * TIMER_F:
        return granted * (0.65 - 0.1 * jitter)
    return min(granted - TIMER_F, 0.9 * granted) - 0.05 * granted * jitter


def refresh_at(granted: int, sent_at: float, jitter: float) -> float:
    """When to refresh what a REGISTER sent at `sent_at` was granted: after `refresh_after`, or just before."""
    return floor((sent_at + refresh_after(granted, jitter)) / TOGETHER) * TOGETHER


class Failure(Enum):
    """Why a REGISTER did not succeed: how long the first pause is, in seconds; each further one is twice as long."""

    TRANSIENT = 5.0
    """No answer, 408, 5xx, DNS, sockets: it may work again any moment."""
    THROTTLED = 30.0
    """429, 503 with Retry-After, a 403 after a success: we ask too much, or are kept out for a time."""
    NO_BINDING = 60.0
    """A 200 that grants nothing."""
    REFUSED = 75.0
    """Wrong data: a person is needed, and asking often ends in a ban."""


def back_off(failures: int, kind: Failure, jitter: float, longest: float = 0.0) -> float:
    """Seconds to the next attempt after `failures` in a row.

    None is longer than `longest`, 15 min where that is 0.  `jitter` in [0, 1) spreads accounts that failed together.
    """
    return min(kind.value * 2.0 ** min(failures - 1, 16), longest or MAX_BACK_OFF) * (1.0 - 0.2 * jitter)


def guard_delay(granted: int | None) -> float:
    """How long a computed time may pass unserved: 2 s, less where that would eat a short grant."""
    return 2.0 if granted is None else min(2.0, 0.1 * granted)


def judge(code: int, asked_to_wait: bool, granted_before: bool) -> tuple[Failure, str]:
    """Class and cause of a final answer that is neither 2xx nor a challenge.

    `asked_to_wait`: it has a Retry-After; `granted_before`: the same account was granted a binding with this data.
    """
    if code == 403:
        # What was right yesterday is right today: we are kept out, mostly for having asked too often.
        return (Failure.THROTTLED, "throttled_403") if granted_before else (Failure.REFUSED, "banned_403")
    if code in (404, 604):
        return Failure.REFUSED, "unknown_user"
    if code == 429:
        return Failure.THROTTLED, "throttled"
    if code == 503:
        return (Failure.THROTTLED if asked_to_wait else Failure.TRANSIENT), "busy_503"
    if code == 423:
        return Failure.TRANSIENT, "interval_423"
    if code < 400:
        return Failure.TRANSIENT, "redirected"
    if code in (408, 480, 486, 487, 491) or 500 <= code < 600:
        return Failure.TRANSIENT, "answer"
    return Failure.REFUSED, "answer"


def number_of(message: Message, name: bytes) -> int | None:
    """Leading number of a header such as Expires, Min-Expires or Retry-After (which may carry a comment)."""
    value = message.get(name)
    if value is None:
        return None
    digits = value[: len(value) - len(value.lstrip(b"0123456789"))]
    return int(digits[:10]) if digits else None


def retry_after(message: Message) -> int:
    return min(number_of(message, b"Retry-After") or 0, MAX_RETRY_AFTER)


def granted_seconds(message: Message, own: Sequence[Listed], asked: int) -> int | None:
    """Seconds that a 200 grants the Contacts that are ours (`contacts.ours`); None when there is none.

    By its own parameter, else by the header Expires, else what was asked for.  Where several rewritten ones may be ours
    the shortest counts: a refresh too early costs a REGISTER, one too late the binding.
    """
    general = number_of(message, b"Expires")
    usual = asked if general is None else general
    grants = [usual if each.expires is None else each.expires for each in own]
    return min((min(seconds, MAX_MIN_EXPIRES) for seconds in grants if seconds), default=None)
