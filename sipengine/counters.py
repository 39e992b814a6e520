"""Plain numbers since start, read by the host; nothing here names a peer."""

from __future__ import annotations


class Counters:
    __slots__ = (
        "bad", "calls", "cancel_elsewhere", "denied", "foreign", "forged", "hook_failures", "insecure", "not_a_side",
        "overload",
        "received", "rejected", "retransmissions", "sent", "stray", "third_party", "timeouts", "token_too_long",
        "too_small", "transport_errors", "unasked_challenges", "unauthorized", "unsent",
    )  # fmt: skip

    def __init__(self) -> None:
        self.received = 0
        """Messages, keep-alives included."""
        self.sent = 0
        self.bad = 0
        """Messages that broke the rules: dropped, or answered 400."""
        self.stray = 0
        """Responses that match no client transaction, and requests of no dialog of ours."""
        self.denied = 0
        """Requests of sources that are not admitted."""
        self.not_a_side = 0
        """Requests within a call that came from neither of its sides."""
        self.third_party = 0
        """Requests within a call that a side wanted sent to somebody who is neither."""
        self.insecure = 0
        """Requests for a sips: URI whose next hop is not over TLS."""
        self.cancel_elsewhere = 0
        """CANCELs that did not come from where their INVITE came."""
        self.foreign = 0
        """Responses from another address than their request went to."""
        self.rejected = 0
        """Requests that we answered with 3xx to 6xx ourselves."""
        self.retransmissions = 0
        """Requests received again."""
        self.timeouts = 0
        self.transport_errors = 0
        self.hook_failures = 0
        self.forged = 0
        """Restore tokens that did not open."""
        self.token_too_long = 0
        """Calls whose identities did not fit into a token: they are restored from memory only."""
        self.unasked_challenges = 0
        """Challenges of an address that is no provider's: they are not answered."""
        self.overload = 0
        self.unauthorized = 0
        """REGISTERs with credentials that prove nothing."""
        self.too_small = 0
        """Datagrams of unproven addresses that are shorter than any answer to them."""
        self.unsent = 0
        """Requests from script beyond the bound of those under way."""
        self.calls = 0

    def as_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}
