"""The seed's functions on accounts, as methods of the routing class: `self.uac_reg_lookup("$rU", "$ru")`.

They find the account in the picture of this request and never wait: REGISTERs leave through the engine of this process,
what changes a row is written behind by the database thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, overload

from django.conf import settings

from sipengine.events import RegistrationState
from sipengine.exceptions import LocalProtocolError, ProtocolError
from sipengine.message import SipUri
from sipengine.uac.lookup import escape_user
from sipengine.uac.uac_req import UacRequest
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


WAITING = ReturnCode(-99)
STATUS = {
    RegistrationState.REGISTERED: ReturnCode(1), RegistrationState.REFRESHING: ReturnCode(1),
    RegistrationState.REGISTERING: ReturnCode(-2), RegistrationState.UNREGISTERING: ReturnCode(-2),
    RegistrationState.DISABLED: ReturnCode(-3),
}
"""What `uac_reg_status` returns; any other state waits for its next try."""

OK, FAILED, NOT_FOUND, BAD_ATTRIBUTE = ReturnCode(1), ReturnCode(-1), ReturnCode(-2), ReturnCode(-3)


class UacFunctions:
    """Mixin of a routing class; `scope` holds what the request may know."""

    scope: dict[str, Any]
    context: Any
    way_out: Callable[[Any, Trunk], None]

    @overload
    def uac_reg_lookup(self, uuid: str) -> str: ...
    @overload
    def uac_reg_lookup(self, uuid: str, dst: str) -> ReturnCode: ...
    def uac_reg_lookup(self, uuid: str, dst: str = "") -> ReturnCode | str:
        """Set `dst` ("$ru") to the local URI of the account that was called; -1 when `uuid` ("$rU") is none.

        Without `dst` the URI is returned, "" for none.  Where `uuid` is the user that was called, an account is found
        by its `contact_user` and by the `line` of the Request-URI too.
        """
        user, line = user_and_line(self.context.ruri)
        wanted = self._value(uuid).encode()
        row = self.scope["sip.snapshot"].table.uac_reg_lookup(wanted, line if wanted == user else b"")
        return self._found("" if row is None else row.contact_uri.decode(), dst)

    @overload
    def uac_reg_lookup_uri(self, uri: str) -> str: ...
    @overload
    def uac_reg_lookup_uri(self, uri: str, dst: str) -> ReturnCode: ...
    def uac_reg_lookup_uri(self, uri: str, dst: str = "") -> ReturnCode | str:
        """Set `dst` to the `l_uuid` of the account that `uri` is the local URI of; -1: none, -2: no SIP URI.

        Without `dst` it is returned, "" for none.  `UAC_REG_USE_DOMAIN` says whether the host counts; where several
        accounts match, none is found.
        """
        try:
            parsed = SipUri.parse(self._value(uri))
        except ProtocolError:
            return NOT_FOUND if dst else ""
        trunk = self._by_local_uri(parsed)
        return self._found("" if trunk is None else trunk.account.l_uuid, dst)

    def uac_reg_status(self, uuid: str) -> ReturnCode:
        """1: registered; -2: under way; -3: disabled; -99: waiting; -1: no such account.

        A refresh that is under way leaves the binding standing: 1, where the seed says -2.  For an account that
        another worker registers, what this one knows is that it waits.
        """
        trunk = self.scope["sip.snapshot"].trunks.get(self._value(uuid))
        if trunk is None:
            return FAILED
        if not trunk.account.enabled:
            return STATUS[RegistrationState.DISABLED]
        state = self.scope["sip.worker"].endpoint.registrations.snapshot(trunk.account.l_uuid)
        return WAITING if state is None else STATUS.get(state.state, WAITING)

    def uac_reg_request_to(self, user: str, mode: int = 0) -> ReturnCode:
        """Make the request one of an account to its provider: Request-URI, next hop, credentials for `uac_auth`.

        `user` ("$fU") is the `l_uuid`; with bit 1 of `mode` the `l_username`, with `UAC_REG_USE_DOMAIN` the local URI.
        Bit 2 takes HA1s instead of passwords.  The call is the account's from then on, in the table of calls too.  -1:
        no such account, or no such mode; -2: no SIP URI.
        """
        context, snapshot = self.context, self.scope["sip.snapshot"]
        if not 0 <= mode <= 3:
            return FAILED
        value = self._value(user)
        if not mode & 1:
            trunk = snapshot.trunks.get(value)
        elif settings.TRUNKMGR.reg_use_domain:
            try:
                trunk = self._by_local_uri(SipUri.parse(value))
            except ProtocolError:
                return NOT_FOUND
        else:
            trunk = self._by_local_uri(SipUri(b"sip", value.encode(), b""))
        credentials = () if trunk is None else snapshot.credentials_for(trunk)
        if mode & 2:
            credentials = tuple(replace(each, password=b"") for each in credentials if each.ha1)
        if trunk is None or not (credentials or trunk.by_address):
            return FAILED
        context.mark_call(trunk.account.l_uuid, "out", context.fu, context.oU, False)
        context.ruri = b"sip:%b@%b" % (escape_user(trunk.account.r_username), trunk.account.r_domain.encode())
        self.way_out(context, trunk)
        context.credentials = credentials
        if not credentials:
            return OK
        env, first = settings.TRUNKMGR, credentials[0]
        for name, known in (
            (env.auth_realm_avp, first.realm), (env.auth_username_avp, first.username),
            (env.auth_password_avp, first.ha1 if mode & 2 else first.password),
        ):
            if name:
                context.set_pv(name, known.decode())
        return OK

    def uac_req_send(self, uac_req: UacRequest) -> ReturnCode:
        """Send a request where there is no response context, as in `local_route`; elsewhere `context.uac_req_send()`.

        -1 when too many are under way; ValueError when the keys make no request.
        """
        return OK if self.scope["sip.worker"].endpoint.uac_requests.send(uac_req) else FAILED

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

    def _value(self, text: str) -> str:
        """A pseudo-variable's value; any other text is itself."""
        if text.startswith("$"):
            try:
                value = self.context.pv(text)
            except LocalProtocolError:
                return text  # a user that was called may begin with a dollar sign
            return "" if value is None else str(value)
        return text

    def _found(self, value: str, dst: str) -> ReturnCode | str:
        if not dst:
            return value
        if not value:
            return FAILED
        self.context.set_pv(dst, value)
        return OK

    def _by_local_uri(self, uri: SipUri) -> Trunk | None:
        snapshot = self.scope["sip.snapshot"]
        host = uri.host if settings.TRUNKMGR.reg_use_domain else b""
        row = snapshot.table.uac_reg_lookup_uri((uri.user or b"").partition(b":")[0], host)
        found: Trunk | None = None if row is None else snapshot.trunks.get(row.l_uuid)
        return found

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


def user_and_line(uri: bytes) -> tuple[bytes, bytes]:
    """User part and `line` parameter of a Request-URI, empty where it has none."""
    user, at, rest = uri.partition(b":")[2].partition(b"@")
    line = b""
    if rest.lower().find(b";line=") >= 0:  # `in` on bytes raises and catches an exception inside: five times the price
        line = SipUri.parse(uri).param(b"line") or b""
    return (user.partition(b":")[0] if at else b""), line
