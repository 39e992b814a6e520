"""Where requests go: a provider's calls to the PBX of the account that was called, a PBX's calls to the provider of the
account that calls.

The five hooks run by the engine's rules (RFC 3261 §16); names are Kamailio's.  No table is read here.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from sipengine.exceptions import Reject
from sipengine.message.values import first_value, uri_of
from sipengine.uac.lookup import AccountRow, unescape_user
from trunkmgr.sip.consumers import SipConsumer
from trunkmgr.sip.middleware import PBX, PROVIDER
from trunkmgr.sip.registrar import RegistrarFunctions
from trunkmgr.sip.rules import Refusals, refusals
from trunkmgr.sip.snapshot import Trunk
from trunkmgr.sip.uac import UacFunctions, user_and_line

ANONYMOUS = b"sip:anonymous@anonymous.invalid"

#: Headers that name the caller; a call that shall be anonymous goes on without them.
IDENTITY_HEADERS = (
    b"P-Asserted-Identity", b"P-Preferred-Identity", b"Remote-Party-ID", b"Diversion", b"History-Info", b"Reply-To",
    b"Identity",  # RFC 8224: its token holds the caller's number, and the new From voids its signature anyway
)

PREFERRED_IDENTITY = b"P-Preferred-Identity"

#: What a PBX may begin at a provider; requests within a call follow their call.
CALLS_OUT = frozenset({b"INVITE", b"MESSAGE", b"SUBSCRIBE", b"REFER"})

ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, REFER, NOTIFY, SUBSCRIBE, MESSAGE"


class TrunkRouting(UacFunctions, RegistrarFunctions, SipConsumer):
    """The routing of a trunk manager."""

    @property
    def refusals(self) -> Refusals:
        """Where refusals are counted: those of the process, or of the question what would happen."""
        found: Refusals = self.scope.get("sip.refusals", refusals)
        return found

    async def request_route(self, context: Any) -> None:
        """Sort requests: within a call, questions to us, from a provider, from a PBX."""
        if context.has_totag():
            self.within_dialog(context)
        elif context.method == b"OPTIONS":
            context.sl_send_reply(200, "OK")
        elif self.is_inbound(context):
            self.from_provider(context)
        else:
            self.from_pbx(context)

    def is_inbound(self, context: Any) -> bool:
        """Whether a provider sent this; an address that is a PBX too calls in where it names an account."""
        peer = self.scope["sip.peer"]
        if not peer & PBX or not peer & PROVIDER:
            return bool(peer & PROVIDER)
        return self.scope["sip.snapshot"].table.uac_reg_lookup(*user_and_line(context.ruri)) is not None

    def within_dialog(self, context: Any) -> None:
        """Relay along the route set; comes here in restore_mode manual only, elsewhere the engine does this itself."""
        if not context.is_in_dialog():
            raise Reject(481, "Call/Transaction Does Not Exist")
        context.uac_restore_from()
        context.t_relay()

    def from_provider(self, context: Any) -> None:
        """Give a call from outside to the PBX of the account it came for."""
        if context.method in (b"REGISTER", b"PUBLISH"):
            self.refusals.refuse("method", 405, "Method Not Allowed", headers=[("Allow", ALLOW)])
        snapshot = self.scope["sip.snapshot"]
        user, line = user_and_line(context.ruri)
        row = snapshot.table.uac_reg_lookup(user, line) or self.of_number(user, context.source[0])
        if row is None:
            self.refusals.refuse("unknown_account", 404, "Not Found")
        account = row.account
        trunk = snapshot.trunks[account.l_uuid]
        if not trunk.from_any and not self.scope["sip.worker"].admission.brings(trunk, context.source[0]):
            # The answer is that for no account: another provider is not told whose customers are here.
            self.refusals.refuse(
                "other_provider", 404, "Not Found",
                f"A call for {account.l_uuid} from {context.source[0]} is answered 404: this address is not of the "
                "account's provider. Add it to the provider's addresses, choose the account's provider, or let the "
                "account be called by any provider (inbound_from).",
            )
        if self.is_full(context, trunk):
            self.refusals.refuse("calls", 486, "Too many calls of this account")
        next_hop = snapshot.next_hop(account.l_domain)
        if next_hop is None:
            self.refusals.refuse(
                "no_next_hop", 480, "No next hop for the local domain",
                f"A call for {account.l_uuid} is answered 480: the local domain {account.l_domain} has no next hop. "
                f"Set it under Domains or with `domain set {account.l_domain} --next-hop sip:HOST:PORT`.",
            )
        anonymous = trunk.anonymous
        caller = context.from_uri
        context.ruri = as_secure(context.ruri, row.contact_uri)
        if next_hop:
            context.du = next_hop
        else:
            self.to_devices(row)
        if anonymous:
            context.uac_replace_from(b"", ANONYMOUS)
            context.remove_hf(*IDENTITY_HEADERS)
            context.hide_contact()
        if context.method == b"INVITE":
            context.record_route()
            context.mark_call(account.l_uuid, "in", caller, f"{row.user}@{account.l_domain}", anonymous)
        context.t_relay()

    def of_number(self, user: bytes, source: str) -> AccountRow | None:
        """Find the account that a number was called of, where the provider left `line` out: the only one of this
        provider that registers all numbers of a PBX (`gin`).
        """
        if not user:
            return None
        snapshot, admission = self.scope["sip.snapshot"], self.scope["sip.worker"].admission
        rows: list[AccountRow] = [
            row for row in snapshot.table.gin
            if row.account.enabled and admission.brings(snapshot.trunks[row.l_uuid], source)
        ]
        return rows[0].called(user) if len(rows) == 1 else None

    def to_devices(self, row: AccountRow) -> None:
        """Ring what the local user that is called has registered."""
        account = row.account
        aor = f"{row.user}@{account.l_domain.lower()}"
        if aor not in self.scope["sip.snapshot"].devices:
            self.refusals.refuse(
                "no_device", 404, "No such device",
                f"A call for {account.l_uuid} is answered 404: its domain has no next hop, and no device is called "
                f"{aor}. Add one under Devices or with `device add {aor}`.",
            )
        if not self.lookup("location"):
            self.refusals.refuse("unregistered", 480, "Nobody is registered")

    def from_pbx(self, context: Any) -> None:
        """Send a call of a PBX out by the account that its From names; register a device."""
        if context.method not in CALLS_OUT:
            if context.method == b"REGISTER" and self.scope["sip.snapshot"].devices:
                self.save("location")
                return
            self.refusals.refuse("method", 405, "Method Not Allowed", headers=[("Allow", ALLOW)])
        trunk = self.calling_trunk(context)
        dialled = dialled_user(context.ruri)
        if not dialled:
            self.refusals.refuse("no_number", 484, "No number dialled")
        # %30900 calls 0900 (RFC 3261 §19.1.4).
        self.keep_limits(context, trunk, unescape_user(dialled).decode(errors="replace"))
        caller = context.from_uri
        context.ruri = as_secure(context.ruri, b"sip:%b@%b" % (dialled, trunk.account.r_domain.encode()))
        context.credentials = self.scope["sip.snapshot"].credentials_for(trunk)
        self.way_out(context, trunk)
        if caller.endswith("@anonymous.invalid"):  # RFC 3323 §4.1.1.3: it shall stay so; the provider needs the account
            context.remove_hf(PREFERRED_IDENTITY)
            context.append_hf(b"P-Preferred-Identity: <%b>" % trunk.aor)
        else:
            context.uac_replace_from(trunk.aor)
        if context.method != b"MESSAGE":
            context.record_route()
        context.mark_call(trunk.account.l_uuid, "out", caller, dialled.decode(errors="replace"), False)
        context.t_on_failure("answer_challenge")
        context.t_relay()

    def calling_trunk(self, context: Any) -> Trunk:
        """Find the account that a PBX calls by: its `l_uuid` or `l_username` is the user of From, else of
        P-Preferred-Identity.

        A PBX has the accounts of its own local domains and no others: somebody else pays for those.
        """
        snapshot, source = self.scope["sip.snapshot"], context.source[0]
        admission = self.scope["sip.worker"].admission
        trunk = snapshot.calling_trunk(context.from_uri, admission.serves, source)
        for identity in context.request.get_list(PREFERRED_IDENTITY) if trunk is None else ():
            trunk = trunk or snapshot.calling_trunk(
                uri_of(identity).decode(errors="replace"), admission.serves, source
            )
        if trunk is None:
            self.refusals.refuse(
                "unknown_caller", 403, "From names no account of this PBX",
                f"A call from {source} is answered 403: the user of its From names no account of a local domain "
                "whose PBX has this address. See the account's local user and Domains.",
            )
        if not trunk.account.enabled:
            self.refusals.refuse("disabled", 403, "Account is disabled")
        return trunk

    def keep_limits(self, context: Any, trunk: Trunk, dialled: str) -> None:
        """Refuse a call that the account may not make: to this number, now, or one more."""
        limits, l_uuid = trunk.limits, trunk.account.l_uuid
        if not limits.reach(dialled):
            self.refusals.refuse(
                "number", 403, "This account may not call this number",
                f"A call of {l_uuid} is answered 403: the account's numbers do not let it call what was dialled.",
            )
        if self.is_full(context, trunk):
            self.refusals.refuse(
                "calls", 503, "Too many calls of this account",
                f"A call of {l_uuid} is answered 503: {limits.calls} calls go on, which is all that the account may.",
            )
        begins = limits.rate and context.method == b"INVITE" and "sip.refusals" not in self.scope
        if begins and not self.scope["sip.worker"].pace.allows(l_uuid, limits.rate, context.core.now):
            self.refusals.refuse(
                "calls_a_second", 503, "Too many calls of this account a second",
                f"A call of {l_uuid} is answered 503: more than {limits.rate} begin in a second.",
                headers=[("Retry-After", "1")],
            )

    def is_full(self, context: Any, trunk: Trunk) -> bool:
        """Whether the account has as many calls as it may."""
        limit = trunk.limits.calls
        if not limit or context.method != b"INVITE":
            return False
        return bool(self.scope["sip.worker"].endpoint.calls_of(trunk.account.l_uuid) >= limit)

    def way_out(self, context: Any, trunk: Trunk) -> None:
        """Set the next hop: the account's outbound proxy, else the provider's Service-Route, else the server that took
        the REGISTER and, should it fail, the others of its name.
        """
        registrations = self.scope["sip.worker"].endpoint.registrations
        service_route = registrations.service_route(trunk.account.l_uuid)
        if service_route:
            context.append_hf(b"Route: " + service_route)
        if trunk.outbound_proxy:
            context.du = trunk.outbound_proxy
        elif service_route:
            context.du = uri_of(first_value(service_route))
        else:
            context.du = trunk.registrar_uri
            context.affinity = registrations.target(trunk.account.l_uuid)

    def answer_challenge(self, context: Any) -> None:
        """Answer for the PBX, a failure_route: it has no credentials of the provider's, so it sees no challenge."""
        if context.status not in (401, 407):
            return
        if context.uac_auth():
            context.t_relay()
            return
        self.refusals.note(
            "challenge",
            f"A call is answered 403: {context.source[0]} called by an account whose provider refused its credentials, "
            "asked for another realm, or asked from an address that is not the provider's.",
        )
        context.sl_send_reply(403, "Provider refused the credentials")


def as_secure(asked: bytes, uri: bytes) -> bytes:
    """A sip: URI in place of one that was asked for: sips: where that was (RFC 5630 §3.1.1: never downgraded)."""
    return b"sips" + uri[3:] if asked[:5].lower() == b"sips:" else uri


def dialled_user(uri: bytes) -> bytes:
    """The number or name that a Request-URI calls, empty where it has none."""
    scheme, _, rest = uri.partition(b":")
    if scheme.lower() == b"tel":
        return rest.partition(b";")[0]
    return user_and_line(uri)[0]


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
