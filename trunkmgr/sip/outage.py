"""One log line when something stops to answer, and one when it is back."""

from __future__ import annotations

import logging


class Outage:
    """State of one thing we depend on; a repeated failure is counted, not logged again."""

    def __init__(self, log: logging.Logger, subject: str, consequence: str) -> None:
        self._log = log
        self._subject = subject
        self._consequence = consequence
        self.failures = 0
        """Failures in a row; 0 while all is well."""

    def failed(self, error: BaseException) -> None:
        self.failures += 1
        if self.failures == 1:
            cause = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            self._log.error("%s does not answer: %s. %s", self._subject, cause, self._consequence)

    def worked(self) -> None:
        if self.failures:
            self._log.warning("%s answers again after %d failed tries.", self._subject, self.failures)
            self.failures = 0

    @property
    def pause(self) -> float:
        """Seconds to wait before the next try: 0.5, 1, 2 … 15."""
        return float(min(15.0, 0.5 * 2 ** min(self.failures - 1, 5))) if self.failures else 0.0
