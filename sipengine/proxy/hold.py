"""Requests of a call that wait until one before them, which was challenged, has gone through (RFC 3261 §12.2.2).

The challenged one goes out again with a higher number: what overtakes it makes it look like a thing of the past.
ACK, CANCEL and PRACK never wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipengine.dialog.cseq import Numbering
from sipengine.timerqueue import NEVER
from sipengine.transaction.server import COMPLETED

if TYPE_CHECKING:
    from sipengine.proxy.context import ResponseContext
    from sipengine.proxy.core import ProxyCore

LONGEST = 2.0


class Hold:
    __slots__ = ("_core", "_numbering", "_waiting", "due")

    def __init__(self, core: ProxyCore, numbering: Numbering, now: float) -> None:
        self._core = core
        self._numbering = numbering
        self._waiting: list[ResponseContext] = []
        self.due = NEVER
        core.queue.arm(self, LONGEST, now)

    def take(self, context: ResponseContext) -> None:
        self._waiting.append(context)

    def on_timer(self, now: float) -> None:
        self.end(now)

    def end(self, now: float) -> None:
        """Let all go, in the order in which they came."""
        self.due = NEVER
        if self._numbering.hold is self:
            self._numbering.hold = None
        waiting, self._waiting = self._waiting, []
        for context in waiting:
            auth, server = context.auth, context.server
            if server is None or server.state >= COMPLETED or auth is None or auth.numbers is None:
                continue  # it was cancelled meanwhile
            if self._core.authenticator.take_number(context, auth, auth.numbers, now):
                self._core.go_on_within(context, now)
