"""`uac_req_send()` and what `event_route[uac:reply]` hears: requests from script on their way (kamailio-uac c.2).

What was sent is a copy that nobody else can change.  Does not find targets, answer challenges or judge answers:
`request.Exchange` does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from sipengine.counters import Counters
from sipengine.message import Message
from sipengine.uac.digest import Credentials
from sipengine.uac.request import Agent, Exchange, Outcome, Requests
from sipengine.uac.uac_req import UacRequest

log = logging.getLogger("sipengine")

MAX_UNDER_WAY = 1000
"""Requests without their last answer; beyond it `uac_req_send` gives False."""


@dataclass(frozen=True, slots=True)
class UacReply:
    """The end of a request: what `event_route[uac:reply]` gets, once for each request."""

    uac_req: UacRequest
    """A copy of what was sent, with `evcode` and `evtype`."""
    message: Message | None
    """The last answer; None when there is none."""
    outcome: Outcome
    requests: UacRequests

    @property
    def evcode(self) -> int:
        return self.uac_req.evcode

    @property
    def evtype(self) -> int:
        return self.uac_req.evtype

    @property
    def evparam(self) -> str:
        return self.uac_req.evparam

    @property
    def reason(self) -> str:
        """The answer's reason phrase, or our own sentence."""
        outcome, target = self.outcome, self.outcome.target
        if self.message is not None or outcome.detail:
            return outcome.reason
        if outcome.cause == "timeout":
            return "No final answer came in time."
        if outcome.cause == "no_socket" and target is not None:
            at = f"{target.transport}:{target.address[0]}:{target.address[1]}"
            return f"No socket of ours reaches {at}" + (f" from {self.uac_req.sock}." if self.uac_req.sock else ".")
        return "It could not be sent."

    def uac_req_send(self) -> bool:
        """Send what `uac_req` holds now as a new request."""
        return self.requests.send(self.uac_req)


class ScriptAgent(Agent, Protocol):
    """What requests from script need of the endpoint."""

    counters: Counters

    def defer(self, verb: Callable[[float], None]) -> None: ...


class UacRequests:
    """The requests from script of an endpoint."""

    def __init__(self, agent: ScriptAgent, requests: Requests) -> None:
        self._agent = agent
        self._requests = requests
        self.under_way = 0
        self.event_uac_reply: Callable[[UacReply], None] | None = None
        """Kamailio's event_route[uac:reply]; may not await."""

    def send(self, uac_req: UacRequest) -> bool:
        """Send a copy as soon as what runs now has returned; False when too many are under way.

        Raises ValueError when the keys make no request.
        """
        return self.begin(uac_req) is not None

    def begin(
        self, uac_req: UacRequest, on_reply: Callable[[UacReply], None] | None = None,
        credentials: Sequence[Credentials] = (),
    ) -> Exchange | None:
        """As `send`, for whoever waits: `on_reply` hears of the end whatever `evroute` says, `Exchange.abandon` brings
        it about.  `credentials` stand for `auser` and `apasswd`; the first that answers a challenge is taken.
        """
        uac_req.check()
        if self.under_way >= MAX_UNDER_WAY:
            self._agent.counters.unsent += 1
            return None
        self.under_way += 1
        sent = uac_req.copy()
        request = sent.request(self._agent.entropy)
        if credentials:
            request.credentials, request.realm = credentials[0], credentials[0].realm.decode()
            request.others = tuple(credentials[1:])
        exchange = Exchange(self._requests, request, _ignore, partial(self._ended, sent, on_reply))
        # Not from within whatever runs now: a hook of a request may send, and so may the local_route of what it sends.
        self._agent.defer(exchange.start)
        return exchange

    def _ended(self, sent: UacRequest, on_reply: Callable[[UacReply], None] | None, outcome: Outcome) -> None:
        self.under_way -= 1
        sent.ended(outcome)
        reply = UacReply(sent, outcome.message, outcome, self)
        if on_reply is not None:
            on_reply(reply)
        hook = self.event_uac_reply
        if hook is None or not sent.evroute or (sent.evroute == 2 and sent.evcode < 300):
            return
        try:
            hook(reply)
        except Exception as error:
            self._agent.counters.hook_failures += 1
            log.error("event_route[uac:reply] failed for %r: %s", sent, error, exc_info=error)


def _ignore(now: float) -> None:
    """Nobody waits for it to leave."""
