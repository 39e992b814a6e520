"""The rules that say who may do what, by name; and how often each refused something.

The names stand in counters, events, answers of `manage.py routes` and on the page "Security".  Who is asked when is
said where the rules are: `middleware`, `routing`, and the engine for what belongs to a call.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NoReturn

from sipengine.counters import Counters
from sipengine.exceptions import Reject

log = logging.getLogger("trunkmgr.sip")

#: What each rule says. The first ones let a request pass; all others refuse it.
RULES = {
    "options": "A question whether we are there is answered here.",
    "inbound": "A provider calls one of its accounts: the call goes to the PBX of the account's local domain.",
    "outbound": "A PBX calls by one of its accounts: the call goes to the account's provider.",
    "register": "A device of ours may register once it has proven itself.",
    "stranger": "The address is no provider and no PBX: it gets no answer, and no connection.",
    "listener": "The socket is not for this kind of peer (TRUNKMGR_SIP_SOURCES): no answer, no connection.",
    "banned": "The address is banned for a time: no connection.",
    "rate": "The address, or its network, sends more new requests than TRUNKMGR_SIP_RATE allows: 503.",
    "stopping": "The SIP worker is about to stop: 503.",
    "method": "This method is none that a provider or a PBX may begin with: 405.",
    "unknown_account": "The Request-URI names no account: 404.",
    "other_provider": "The account takes calls from its own provider only, and this is another: 404.",
    "no_next_hop": "The local domain of the account has no next hop: 480.",
    "no_device": "The local domain of the account has no next hop, and no device is called so: 404.",
    "unregistered": "The account's device has registered nothing, so nobody can be called: 480.",
    "unknown_caller": "From names no account of this PBX: 403.",
    "disabled": "The account is disabled: 403.",
    "number": "The account may not call this number: 403.",
    "calls": "The account has as many calls as it may: 503 to its PBX, 486 to its provider.",
    "calls_a_second": "The account begins more calls a second than it may: 503.",
    "no_way": "No address of the next hop is known, or none of our sockets leads there: 500.",
    "no_number": "The Request-URI holds no number: 484.",
    "challenge": "The provider refused the account's credentials: 403.",
    "not_a_side": "A request within a call came from neither of its sides: 481.",
    "third_party": "A side of a call names a target that is neither side's: 403.",
    "insecure": "The call is to be secure on every hop (sips:), and its next hop is not over TLS: 480.",
    "cancel_elsewhere": "A CANCEL did not come from where its INVITE came: 481.",
    "unauthorized": "A wrong answer to our challenge: 401, and a ban for many over a connection.",
    "too_small": "A REGISTER over UDP from an unproven address is shorter than any answer to it: none is given.",
    "stray": "A request within a call belongs to no call of ours: 481.",
    "crowded": "One connection too many, of its address or of all: it is refused.",
    "handshake": "A connection came to no TLS, or to no SIP over WebSocket: it is ended.",
    "origin": "A web page whose origin is not in TRUNKMGR_WS_ORIGINS wanted to connect: 403.",
    "frames": "A WebSocket frame was broken or too large: its connection is ended.",
    "slow": "No whole message came in time, or the peer did not read: its connection is ended.",
}

#: Rules that the engine holds, by its counters.
_OF_ENGINE = {
    "stranger": "denied", "not_a_side": "not_a_side", "third_party": "third_party",
    "cancel_elsewhere": "cancel_elsewhere", "stray": "stray", "unauthorized": "unauthorized",
    "too_small": "too_small", "insecure": "insecure",
}


class Refusals:
    """Counts by rule what was refused, and logs each rule at most once a minute; `quiet` never."""

    EVERY = 60.0

    def __init__(self, quiet: bool = False) -> None:
        self.counts: Counter[str] = Counter()
        self.quiet = quiet
        self._logged: dict[str, float] = {}

    def note(self, rule: str, text: str = "") -> None:
        self.counts[rule] += 1
        if self.quiet or not text:
            return
        now = time.monotonic()
        if now - self._logged.get(rule, -self.EVERY) >= self.EVERY:
            self._logged[rule] = now
            log.warning("%s (%d so far.)", text, self.counts[rule])

    def refuse(
        self, rule: str, status: int, reason: str, text: str = "", headers: Sequence[tuple[str, str]] = ()
    ) -> NoReturn:
        """Refuse a request: raises Reject.  `text` says to the operator what to do, where there is something."""
        self.note(rule, text)
        raise Reject(status, reason, headers)


refusals = Refusals()
"""Of this process."""


def counted(counters: Counters, of_routing: Counter[str], of_connections: Mapping[str, int]) -> dict[str, int]:
    """How often each rule refused something since the start, without those that never did."""
    counts = {rule: getattr(counters, name) for rule, name in _OF_ENGINE.items()} | dict(of_connections)
    for rule, count in of_routing.items():
        counts[rule] = counts.get(rule, 0) + count
    return {rule: counts[rule] for rule in (*RULES, *sorted(counts.keys() - RULES.keys())) if counts.get(rule)}
