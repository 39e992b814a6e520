"""How long a binding stood, of the time in which one could have stood: the covered ratio of one account.

Reckoned from our own exchanges, to our disadvantage.  A second is coverable unless nobody wants a binding then, a
request waits for its turn in the provider's budget, or the provider showed that it gives none: from the first failed
attempt to the last one in a row, and until its Retry-After is over.  From there to the success that follows counts
against us, since the provider may have been well again all that time.  What a registrar forgets without a word cannot
be seen from here; `make sim` measures that from the registrar's side.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

Span = tuple[float, float]


@dataclass(slots=True)
class Coverage:
    covered: float = 0.0
    """Seconds."""
    coverable: float = 0.0
    counted_to: float | None = None
    """None while no binding is wanted."""
    until: float = -inf
    """The binding stands until then."""
    failing: bool = False
    wait_until: float = -inf
    """A Retry-After ends then."""
    lapsed_at: float | None = None
    """When the binding before the last one had ended, where nothing told so at the time."""
    began_at: float = inf
    """The request waits for its turn since then."""
    sent_at: float = inf

    def begin(self, now: float) -> None:
        """A binding is wanted, and its request gets in line."""
        if self.counted_to is None:
            self.counted_to = now
        self.began_at, self.sent_at = now, inf

    def sent(self, now: float) -> None:
        self.sent_at = now

    def bound(self, until: float, now: float) -> None:
        """A binding was granted."""
        silent = -inf < self.until < now and not self.failing and self.counted_to is not None
        self.lapsed_at = self.until if silent else None
        self._count(now, (-inf, self.wait_until), (max(self.began_at, self.wait_until), self.sent_at))
        self.until, self.failing, self.wait_until = until, False, -inf

    def failed(self, wait_until: float, now: float) -> None:
        """The provider gave none, for whatever reason; it asks for a pause until `wait_until`."""
        self._count(now, (-inf if self.failing else self.began_at, now))
        self.failing, self.wait_until = True, wait_until

    def lost(self, now: float) -> None:
        """The binding is of no use any more."""
        self._count(now)
        self.until = min(self.until, now)

    def rest(self, now: float) -> None:
        """No binding is wanted any more."""
        self._count(now)
        self.counted_to, self.failing, self.until = None, False, -inf

    def _count(self, now: float, *excused: Span) -> None:
        if self.counted_to is None:
            return
        begin, self.counted_to = self.counted_to, now
        gap_from = min(max(self.until, begin), now)
        self.covered += gap_from - begin
        self.coverable += now - begin - sum(max(0.0, min(last, now) - max(first, gap_from)) for first, last in excused)
