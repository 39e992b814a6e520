"""Where requests go: a provider's calls to the PBX of the account that was called, everything else nowhere.

The five hooks run by the engine's rules (RFC 3261 §16); names are Kamailio's.  No outbound calls yet, and no table is
read here.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from sipengine.exceptions import Reject
from trunkmgr.sip.consumers import SipConsumer
from trunkmgr.sip.middleware import PROVIDER
from trunkmgr.sip.uac import UacFunctions, user_and_line

log = logging.getLogger("trunkmgr.sip")

ANONYMOUS = b"sip:anonymous@anonymous.invalid"

#: Headers that name the caller; a call that shall be anonymous goes on without them.
IDENTITY_HEADERS = (
    b"P-Asserted-Identity", b"P-Preferred-Identity", b"Remote-Party-ID", b"Diversion", b"History-Info", b"Reply-To",
    b"Identity",  # RFC 8224: its token holds the caller's number, and the new From voids its signature anyway
)

ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, REFER, NOTIFY, SUBSCRIBE, MESSAGE"


class Refusals:
    """Counts why calls were refused, and logs each cause at most once a minute."""

    EVERY = 60.0

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._logged: dict[str, float] = {}

    def note(self, cause: str, text: str) -> None:
        self.counts[cause] += 1
        now = time.monotonic()
        if now - self._logged.get(cause, -self.EVERY) >= self.EVERY:
            self._logged[cause] = now
            log.warning("%s (%d so far.)", text, self.counts[cause])


refusals = Refusals()


class TrunkRouting(UacFunctions, SipConsumer):
    """The routing of a trunk manager."""

    async def request_route(self, context: Any) -> None:
        """Sort requests: within a call, questions to us, from a provider, from a PBX."""
        if context.has_totag():
            self.within_dialog(context)
        elif context.method == b"OPTIONS":
            context.sl_send_reply(200, "OK")
        elif self.scope["sip.peer"] & PROVIDER:
            self.from_provider(context)
        else:
            raise Reject(403, "Outbound calls are not offered")

    def within_dialog(self, context: Any) -> None:
        """Relay along the route set; comes here in restore_mode manual only, elsewhere the engine does this itself."""
        if not context.is_in_dialog():
            raise Reject(481, "Call/Transaction Does Not Exist")
        context.uac_restore_from()
        context.t_relay()

    def from_provider(self, context: Any) -> None:
        """Give a call from outside to the PBX of the account it came for."""
        if context.method in (b"REGISTER", b"PUBLISH"):
            raise Reject(405, "Method Not Allowed", [("Allow", ALLOW)])
        snapshot = self.scope["sip.snapshot"]
        row = snapshot.table.uac_reg_lookup(*user_and_line(context.ruri))
        if row is None:
            raise Reject(404, "Not Found")
        account = row.account
        next_hop = snapshot.next_hop(account.l_domain)
        if next_hop is None:
            refusals.note(
                "no_next_hop",
                f"A call for {account.l_uuid} is answered 480: the local domain {account.l_domain} has no next hop. "
                f"Set it under Domains or with `domain set {account.l_domain} --next-hop sip:HOST:PORT`.",
            )
            raise Reject(480, "No next hop for the local domain")
        anonymous = snapshot.trunks[account.l_uuid].anonymous
        caller = context.from_uri
        context.ruri = row.contact_uri
        context.du = next_hop
        if anonymous:
            context.uac_replace_from(b"", ANONYMOUS)
            context.remove_hf(*IDENTITY_HEADERS)
            context.hide_contact()
        if context.method == b"INVITE":
            context.record_route()
            context.mark_call(account.l_uuid, "in", caller, f"{account.l_username}@{account.l_domain}", anonymous)
        context.t_relay()


def routing_class() -> type[TrunkRouting]:
    """Import the class that TRUNKMGR_ROUTING names; ImproperlyConfigured says what is wrong with it."""
    path = settings.TRUNKMGR.routing
    try:
        found = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(
            f"TRUNKMGR_ROUTING: {path!r} cannot be imported: {error}. Write module.Class, and put the module's folder "
            "into PYTHONPATH."
        ) from error
    if not isinstance(found, type) or not issubclass(found, TrunkRouting):
        raise ImproperlyConfigured(
            f"TRUNKMGR_ROUTING: {path!r} is no subclass of trunkmgr.sip.routing.TrunkRouting; derive it from that."
        )
    return found
