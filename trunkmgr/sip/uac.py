"""The seed's functions on accounts, as methods of the routing class: `self.uac_reg_disable("l_uuid", "berlin")`.

They find the account in the picture of this request and never wait: REGISTERs leave through the engine of this process,
what changes a row is written behind by the database thread.
"""

from __future__ import annotations

from typing import Any

from trunkmgr.models import Change
from trunkmgr.services import accounts, changes
from trunkmgr.sip.snapshot import Trunk

#: Filters of the seed; each names one account, the first that matches.
ATTRIBUTES = ("l_uuid", "l_username", "r_username", "auth_username")

#: Who changed a row, where a routing script did.
WHO = "routing"


class ReturnCode(int):
    """What a function of the seed returns: as in its scripts, only what is above zero is true."""

    def __bool__(self) -> bool:
        return self > 0


OK, FAILED, NOT_FOUND, BAD_ATTRIBUTE = ReturnCode(1), ReturnCode(-1), ReturnCode(-2), ReturnCode(-3)


class UacFunctions:
    """Mixin of a routing class; `scope` holds what the request may know."""

    scope: dict[str, Any]

    def uac_reg_enable(self, attr: str, val: str) -> ReturnCode:
        """Switch an account on; it registers at once.  -1: empty argument, -2: not found, -3: unknown attribute."""
        return self._set_enabled(attr, val, True)

    def uac_reg_disable(self, attr: str, val: str) -> ReturnCode:
        """Switch an account off; its binding is taken back.  Returns as `uac_reg_enable`."""
        return self._set_enabled(attr, val, False)

    def uac_reg_refresh(self, l_uuid: str) -> ReturnCode:
        """Have a row read again that somebody else wrote; -1 when nothing more can be taken on."""
        if not l_uuid:
            return FAILED
        return self._write(changes.log, Change.Table.UACREG, l_uuid, WHO)

    def uac_reg_send_register(self, attr: str, val: str) -> ReturnCode:
        """Send REGISTER now; -1 when no such account is in use at this worker."""
        return self._send("register", attr, val)

    def uac_reg_send_unregister(self, attr: str, val: str) -> ReturnCode:
        """Take the binding back now; -1 when no such account is at this worker."""
        return self._send("unregister", attr, val)

    def _set_enabled(self, attr: str, val: str, enabled: bool) -> ReturnCode:
        if not attr or not val:
            return FAILED
        if attr not in ATTRIBUTES:
            return BAD_ATTRIBUTE
        trunk = self._find(attr, val)
        return NOT_FOUND if trunk is None else self._write(accounts.set_enabled, trunk.account.l_uuid, enabled, WHO)

    def _send(self, verb: str, attr: str, val: str) -> ReturnCode:
        trunk = self._find(attr, val)
        if trunk is None:
            return FAILED
        worker = self.scope["sip.worker"]
        sent = worker.call(getattr(worker.endpoint.registrations, verb), trunk.account.l_uuid)
        return OK if sent else FAILED

    def _find(self, attr: str, val: str) -> Trunk | None:
        """Find an account of the picture that holds for this request; only `l_uuid` is found without a search."""
        trunks = self.scope["sip.snapshot"].trunks
        if attr == "l_uuid":
            found: Trunk | None = trunks.get(val)
            return found
        if attr not in ATTRIBUTES:
            return None
        return next((trunk for trunk in trunks.values() if getattr(trunk.account, attr) == val), None)

    def _write(self, service: Any, *args: Any) -> ReturnCode:
        return OK if self.scope["sip.worker"].writes.put(service, *args) else FAILED
