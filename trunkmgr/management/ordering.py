"""Commands that order something of the SIP workers and show their answers."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandError

from trunkmgr.exceptions import NoWorker
from trunkmgr.management.output import OperatorCommand, clean, operator

#: Seconds that an order has: a REGISTER gives up after 32 (RFC 3261 §17.1.2.2), and a challenge comes before it.
#: At their end the worker says that it is still trying.
ORDER_TIMEOUT = 40.0


class OrderCommand(OperatorCommand):
    """A command that waits for workers."""

    def order(self, verb: str, payload: dict[str, Any]) -> None:
        """Place an order and write what came of it.  Raises CommandError with the answers of those that failed."""
        from trunkmgr.services import orders

        try:
            placed = orders.place(verb, payload, operator(), ORDER_TIMEOUT)
        except NoWorker as error:
            raise CommandError(str(error)) from None
        refused: list[str] = []
        for order in placed:
            result = orders.wait(order, ORDER_TIMEOUT + 1.0, self._dot)
            text = clean(str(result.get("message") or "Done."))
            if result["ok"]:
                self.stdout.write(text)
            else:
                refused.append(text)
        if refused:
            raise CommandError("\n".join(refused))

    def _dot(self) -> None:
        """Say on a terminal that the answer is still awaited."""
        if sys.stderr.isatty():
            self.stderr.write(".", ending="")
            self.stderr.flush()
