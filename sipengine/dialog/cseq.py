"""CSeq of one direction of a call whose far side asks who we are (RFC 3261 §12.2.1.1, §22.2): two ways of counting.

A request that is sent again with credentials takes a number that its sender knows nothing of.  From then on the numbers
of this direction differ on our two sides.  The difference may grow, so no message is translated by it alone: each
request keeps the number that it got.
"""

from __future__ import annotations

from typing import Any

from sipengine.message.values import MAX_CSEQ

JUMP = 1000
"""Added once after a restart: the last numbers before it may not have been stored; gaps are legal (§12.2.2)."""


class SentInvite:
    """What an INVITE became: its ACK and PRACKs are translated by it (§13.2.2.4, RFC 3262 §7.2)."""

    __slots__ = ("lines", "number", "over_at")

    def __init__(self, number: int, lines: tuple[bytes, ...]) -> None:
        self.number = number
        self.lines = lines
        """Its credentials: the ACK for a 2xx carries the same."""
        self.over_at = float("inf")
        """When no ACK can come any more."""


class Sequence:
    """Numbers as the sender counts them (`last_a`) and as the far side sees them (`last_b`), the highest of each."""

    __slots__ = ("earlier", "invites", "jump", "last_a", "last_b")

    def __init__(self, last_a: int, last_b: int, earlier: int = 0) -> None:
        self.last_a = last_a
        self.last_b = last_b
        self.earlier = earlier
        """Shift of an INVITE that is not remembered."""
        self.invites: dict[tuple[bytes, int], SentInvite] = {}
        """By the far side's tag (b"" while it has none) and the sender's number."""
        self.jump = 0

    @property
    def shift(self) -> int:
        return self.last_b - self.last_a

    def take(self, number: int) -> int:
        """The far side's number for a new request; above `MAX_CSEQ` it cannot be sent."""
        shift = self.shift
        if shift or self.jump:
            sent = max(number + shift, self.last_b + 1) + self.jump
            self.jump = 0
        else:
            sent = number  # nobody ever asked: also a number out of order is none of our business
        self.note(number, sent)
        return sent

    def note(self, number: int, sent: int) -> None:
        self.last_a = max(self.last_a, number)
        self.last_b = max(self.last_b, sent)

    def again(self) -> int:
        """The number of a request that is sent once more, now with credentials."""
        self.last_b += 1
        return self.last_b

    def remember(self, tag: bytes, number: int, sent: int, lines: tuple[bytes, ...]) -> SentInvite:
        invite = self.invites[tag, number] = SentInvite(sent, lines)
        return invite

    def invite(self, tag: bytes, number: int) -> SentInvite | None:
        """What became of the INVITE with the sender's `number` in the dialog with `tag`."""
        return self.invites.get((tag, number)) or self.invites.get((b"", number))

    def number_of(self, tag: bytes, number: int) -> int:
        """The far side's number of that INVITE."""
        invite = self.invite(tag, number)
        return invite.number if invite is not None else min(number + self.earlier, MAX_CSEQ)

    def prune(self, now: float) -> None:
        """Forget INVITEs whose ACK cannot come any more."""
        for key, invite in list(self.invites.items()):
            if invite.over_at <= now:
                self.earlier = invite.number - key[1]
                del self.invites[key]


class Numbering:
    """How a call is counted, in each direction whose far side asks who we are."""

    __slots__ = ("directions", "hold", "stored", "told")

    def __init__(self) -> None:
        self.directions: dict[int, Sequence] = {}
        self.hold: Any = None
        """Requests that wait for a challenged one (`proxy.hold`)."""
        self.told = 0
        """The shift that the call's token tells."""
        self.stored = ""
        """Key under which the host keeps this call, "" while the token says all that a restart needs."""

    @classmethod
    def recovered(cls, direction: int, shift: int) -> Numbering:
        """What a token tells after a restart."""
        numbering = cls()
        numbering.told = shift
        sequence = numbering.directions[direction] = Sequence(0, shift, shift)
        sequence.jump = JUMP
        return numbering

    def prune(self, now: float) -> None:
        for sequence in self.directions.values():
            sequence.prune(now)
