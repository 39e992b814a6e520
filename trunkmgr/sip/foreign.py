"""Follows the accounts of a foreign Kamailio database, in a thread of its own: one that hangs holds nothing else up."""

from __future__ import annotations

import asyncio
import logging

from trunkmgr import selectors
from trunkmgr.exceptions import ForeignDatabaseError
from trunkmgr.services.mirror import Mirror
from trunkmgr.sip.database import DatabaseThread

log = logging.getLogger("trunkmgr.sip")


class ForeignAccounts:
    """One a worker; only the first live worker looks, because one is enough."""

    def __init__(self, node: str, interval: float) -> None:
        self._node = node
        self._interval = interval
        self._database = DatabaseThread()
        self._mirror = Mirror()
        self._dead = ""
        """What was said of a database that cannot be read; the same is not said again."""
        self.notice = ""
        """What an operator must know; empty while all is well."""

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Take over what differs.  A database that cannot be read keeps the last picture."""
        try:
            self.notice = await self._database.run(self._look)
        except ForeignDatabaseError as error:
            self.notice = f"{error} Its accounts stay as they were read last."
            if self._dead != self.notice:
                log.error("%s", self.notice)
            self._dead = self.notice
        except Exception:
            log.exception("The accounts of UAC_REG_DB_URL cannot be taken over; it is tried again.")
        else:
            if self._dead:
                log.warning("The database of UAC_REG_DB_URL is read again.")
            self._dead = ""

    async def close(self) -> None:
        """End the thread, unless the database holds it."""
        await self._database.close()

    def _look(self) -> str:
        first = selectors.live_nodes().first()
        return self._mirror.look() if first is not None and first.name == self._node else ""
