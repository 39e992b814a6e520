"""What the proxy remembers of a call: the two views and the marks of its events (RFC 3261 §12; not a UA's dialog).

One record holds for all forks of a call, also where they show different identities: each of those has its token.
"""

from __future__ import annotations

from sipengine.dialog.cseq import Numbering
from sipengine.dialog.views import Views
from sipengine.timerqueue import NEVER, TimerQueue

LOOK = 32.0
"""A record looks every 32 s whether it is over, so that an entry of the timer queue never pins it for hours."""


class DialogRecord:
    __slots__ = (
        "answered", "contact_line", "counted", "due", "expires_at", "forks", "from_hidden", "from_line", "hidden_line",
        "key", "l_uuid", "lifetime", "mark", "numbering", "over", "provider", "sides", "table", "tags", "token",
        "views",
    )  # fmt: skip

    def __init__(self, table: DialogTable, key: bytes, views: Views, expires_at: float) -> None:
        self.table = table
        self.key = key
        self.views = views
        self.token = b""
        """Record-Route parameters that carry the views, as sent."""
        self.forks: dict[bytes, Views] | None = None
        """Views of branches of a fork that went out with other identities than `views`, by their tokens."""
        self.counted = ""
        """Account among whose calls it is counted as going on, "" when it is not."""
        self.mark = ""
        """Key of the call's events, "" when nobody marked it."""
        self.l_uuid = ""
        """Account of the call: whose credentials answer its provider."""
        self.provider = 0
        """Direction of the requests that reach the provider, 0 where none does."""
        self.numbering: Numbering | None = None
        """How its CSeq is counted, where a far side may ask who we are."""
        self.answered = False
        self.over = False
        """The first request failed, or the last BYE went by: kept only for what comes late."""
        self.sides: tuple[str, ...] = ()
        """Addresses that the call came from and went to; after a restart those that spoke first."""
        self.tags: tuple[bytes, ...] = ()
        """Tags of callees that answered 2xx and have not said BYE."""
        self.contact_line = b""
        """The caller's Contact line last hidden, and its hidden form."""
        self.hidden_line = b""
        self.from_line = b""
        """The same for From."""
        self.from_hidden = b""
        self.lifetime = 0.0
        """Seconds that a request within the call adds."""
        self.expires_at = expires_at
        self.due = NEVER

    def show(self, views: Views) -> None:
        """Another branch goes out; where it shows other identities, it needs a token of its own."""
        if views == self.views:
            return
        if self.forks is None:
            self.forks = {}
        self.forks[self.token] = self.views
        self.views = views
        self.token = b""

    def end(self, after: float, now: float) -> None:
        """The call is over: go in `after` seconds, which is 64*T1, and not with the look after that."""
        self.over = True
        self.expires_at = now + after
        self.table.queue.arm(self, after, now)

    def on_timer(self, now: float) -> None:
        if now >= self.expires_at:
            self.table.expire(self, now)
            return
        if self.numbering is not None:
            self.numbering.prune(now)
        self.table.queue.arm(self, LOOK, now)


class DialogTable:
    """Records by Call-ID and caller tag; a second leg of the same call through us also by its token."""

    __slots__ = ("expired", "queue", "records")

    def __init__(self, queue: TimerQueue) -> None:
        self.queue = queue
        self.records: dict[bytes, DialogRecord] = {}
        self.expired: list[DialogRecord] = []
        """Records over their lifetime without a BYE, until `take_expired`."""

    def __len__(self) -> int:
        return len(self.records)

    def add(self, call_id: bytes, caller_tag: bytes, views: Views, expires_at: float, now: float) -> DialogRecord:
        """A new record; where a living one has this call's key, the new one is found once `found_by_token` was called.
        """
        key = call_id + b" " + caller_tag
        record = DialogRecord(self, key, views, expires_at)
        record.lifetime = expires_at - now
        other = self.records.get(key)
        if other is None or other.over:
            self.records[key] = record
            if other is not None and other.numbering is not None:
                # The caller asks again after a failure: its far side goes on counting (sip-requirements I-1, row 21).
                record.l_uuid, record.numbering = other.l_uuid, other.numbering
        self.queue.arm(record, LOOK, now)
        return record

    def put_back(self, record: DialogRecord, now: float) -> None:
        """Take up a record of an earlier process."""
        self.records[record.key] = record
        self.queue.arm(record, LOOK, now)

    def find(self, call_id: bytes, caller_tag: bytes, token: bytes = b"") -> DialogRecord | None:
        """The record of a call; with `token` that of a second leg."""
        key = call_id + b" " + caller_tag
        return self.records.get(key + b" " + token if token else key)

    def found_by_token(self, record: DialogRecord) -> None:
        """Keep the record of a second leg under its token: the plain key is the first leg's."""
        if self.records.get(record.key) is not record:
            record.key += b" " + record.token
            self.records[record.key] = record

    def expire(self, record: DialogRecord, now: float) -> None:
        if self.records.get(record.key) is record:
            del self.records[record.key]
        if record.mark or (record.numbering is not None and record.numbering.stored):
            self.expired.append(record)
