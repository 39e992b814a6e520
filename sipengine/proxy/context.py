"""The response context: one request from its arrival to its last response, and what its hooks may do (RFC 3261 §16).

Names are Kamailio's.  Verdicts (`t_relay`, `sl_send_reply`, `drop`) take effect when the hook returns.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from sipengine.dialog.record import DialogRecord
from sipengine.dialog.views import HIDEABLE_BITS, Views
from sipengine.events import Target
from sipengine.exceptions import InvalidState, ParseError, Reject, RemoteProtocolError
from sipengine.message.build import response
from sipengine.message.fields import CACHE_LIMIT, CANONICAL, CONTACT, FROM, TO
from sipengine.message.message import Message
from sipengine.message.uri import SipUri
from sipengine.message.values import name_addr_of, params_at, tag_of, uri_of
from sipengine.proxy.hooks import (
    BRANCH_ROUTE,
    FAILURE_ROUTE,
    ONREPLY_ROUTE,
    REQUEST_ROUTE,
    Step,
    Verdict,
    log,
    step_at_once,
)
from sipengine.proxy.variables import Store, Variables, looked_at, status_of
from sipengine.transport.flow import Address, Flow
from sipengine.uac.digest import Credentials
from sipengine.uac.replace import replaced
from sipengine.uac.uac_req import UacRequest

if TYPE_CHECKING:
    from sipengine.proxy.authentication import Authentication
    from sipengine.proxy.branch import Branch
    from sipengine.proxy.core import ProxyCore
    from sipengine.transaction.server import ServerTransaction

_NO_URI = re.compile(rb"[\x00-\x20<>]")

DOWN, UP = 1, 2
"""Direction within a call: from its caller to its callee, and back."""


class Marks:
    """What the events of a call say; given by `mark_call`."""

    __slots__ = ("anonymous", "callee", "caller", "direction", "ended", "key", "l_uuid")

    def __init__(self, key: str, l_uuid: str, direction: str, caller: str, callee: str, anonymous: bool) -> None:
        self.key = key
        self.l_uuid = l_uuid
        self.direction = direction
        self.caller = caller
        self.callee = callee
        self.anonymous = anonymous
        self.ended = False


class ResponseContext(Variables):
    __slots__ = (
        "_call_id", "_du", "_from_end", "_key", "_ruri", "_store", "_uac_req", "affinity", "appended", "auth",
        "branches", "breadth", "breadth_share", "cancelled", "contact_hidden", "core", "credentials", "dialog_views",
        "direction", "failure_hook", "flow", "from_line", "from_tag", "hidden", "loop", "marks", "message", "method",
        "names", "new_from", "new_to", "on_branch", "on_failure", "on_reply", "pristine", "record", "record_routed",
        "reply", "response", "restore_from", "restore_to", "route", "routing", "server", "status", "step", "stepping",
        "timer_c", "to_line", "verdict",
    )  # fmt: skip

    _call_id: bytes
    _du: bytes
    flow: Flow
    method: bytes
    pristine: Message
    """The request besides the copy that `branch_route` edits; set there alone."""
    response: Message | None
    """The message in `onreply_route`, the best one in `failure_route`; set there alone."""
    route: str
    """Which hook runs."""

    def __init__(
        self, core: ProxyCore, message: Message, method: bytes, ruri: bytes, flow: Flow, server: ServerTransaction,
        from_line: bytes, to_line: bytes, call_id: bytes, from_tag: bytes, names: set[bytes],
    ) -> None:
        self.core = core
        self.message = message
        self.method = method
        self.flow = flow
        self.server: ServerTransaction | None = server
        self.from_line = from_line
        """From as received: what every response of this request shows."""
        self.to_line = to_line
        self.from_tag = from_tag
        self.names: set[bytes] | frozenset[bytes] = names
        """Canonical names of the fields that may be there: asking a set is cheaper than searching a list."""
        self.failure_hook: Any = None
        self.branches: list[Branch] = []
        self.direction = 0
        self.record: DialogRecord | None = None
        self.routing: Any = None
        self.auth: Authentication | None = None
        """Kept by a request that may be challenged."""
        self.cancelled = False
        self.restore_from = False
        """Whether responses get From (or To) of the request back."""
        self.restore_to = False
        self.new_from = b""
        self.new_to = b""
        self.hidden = 0
        self.contact_hidden = False
        self.loop = 0
        self.timer_c = core.configuration.timer_c
        self.marks: Marks | None = None
        self.on_branch: Any = None
        self.on_reply: Any = None
        self._ruri = ruri
        self._call_id = call_id
        self._from_end = 0

    def prepare(self) -> None:
        """Fields that only a request with hooks needs."""
        self._du = b""
        self._key = ""
        self._uac_req: UacRequest | None = None
        self._store: Store | None = None
        self.dialog_views: Views | None = None
        self.appended: tuple[tuple[bytes, bytes], ...] = ()
        self.on_failure = ""
        self.credentials: Sequence[Credentials] = ()
        """What `uac_auth` may answer challenges with, the first that fit; set by the routing with the target."""
        self.affinity: Target | None = None
        """The server among those of the next hop that is asked first: the one that holds the account's binding."""
        self.breadth = 0
        """Max-Breadth of the request once it matters, and what each branch gets of it (RFC 5393 §5.3)."""
        self.breadth_share = 0
        self.record_routed = False
        self.reply: tuple[int, bytes, tuple[bytes, ...]] | None = None
        self.status = 0
        """Best final status so far; set while `failure_route` runs."""
        self.step: Step = step_at_once
        self.stepping = False
        self.verdict = Verdict.NONE
        self.route = REQUEST_ROUTE

    # what came
    @property
    def request(self) -> Message:
        """The request as it goes on; in `branch_route` the copy of that branch.

        Gone (an empty message) once it was sent, where neither a hook nor another target can need it again.
        """
        return self.message

    @property
    def source(self) -> Address:
        return self.flow.remote

    @property
    def call_id(self) -> str:
        return self._call_id.decode(errors="replace")

    @property
    def key(self) -> str:
        """Sixteen hex digits that name this request in events and rows."""
        if not self._key:
            self._key = self.core.identifiers.key()
        return self._key

    @property
    def ruri(self) -> bytes:
        return self._ruri

    @ruri.setter
    def ruri(self, uri: bytes | str) -> None:
        self._ruri = _uri(uri)

    @property
    def du(self) -> str:
        """URI of the next hop where it is not the Request-URI."""
        return self._du.decode(errors="replace")

    @du.setter
    def du(self, uri: bytes | str) -> None:
        if self.route is BRANCH_ROUTE:
            raise InvalidState("where a branch goes is settled before branch_route; set du in request_route")
        self._du = _uri(uri) if uri else b""

    @property
    def rU(self) -> str:  # noqa: N802 - Kamailio's $rU
        """User part of the Request-URI, "" without one."""
        rest = self._ruri.partition(b":")[2]
        user, at, _ = rest.partition(b"@")
        return user.decode(errors="replace") if at else ""

    @rU.setter
    def rU(self, user: str) -> None:  # noqa: N802
        uri = SipUri.parse(self._ruri)
        self.ruri = bytes(SipUri(uri.scheme, user.encode() or None, uri.host, uri.port, uri.parameters, uri.headers))

    @property
    def from_uri(self) -> str:
        return uri_of(self.from_line, self.from_end()).decode(errors="replace")

    @property
    def to_uri(self) -> str:
        return uri_of(self.to_line).decode(errors="replace")

    def has_totag(self) -> bool:
        return bool(tag_of(self.to_line))

    def is_method(self, names: str) -> bool:
        """Whether the method is one of `names`: `is_method("INVITE|BYE")`."""
        return self.method.decode(errors="replace") in names.split("|")

    def is_present_hf(self, name: bytes | str) -> bool:
        return CANONICAL[name.encode() if isinstance(name, str) else name] in looked_at(self).keys

    def t_check_status(self, pattern: str) -> bool:
        """Whether the status in `onreply_route` or `failure_route` matches: `t_check_status("401|407")`."""
        status = status_of(self)
        return bool(status) and re.search(pattern, str(status)) is not None

    def t_is_canceled(self) -> bool:
        return self.cancelled

    def is_in_dialog(self) -> bool:
        """Whether the request belongs to a call that goes through us."""
        return self.direction != 0

    def is_own_uri(self) -> bool:
        """Whether the Request-URI names this endpoint (Kamailio's `uri == myself`)."""
        return self.core.is_own_uri(self._ruri)

    # edits
    def uac_replace_from(self, display_or_uri: bytes | str, uri: bytes | str | None = None) -> bool:
        """Show the callee another From: `uac_replace_from(display, uri)`, or `uac_replace_from(uri)`.

        An empty display name removes the name, an empty URI leaves the URI; one argument leaves the name.  A second
        call changes what the first one made; in `branch_route` what is set holds for that branch alone.
        """
        self._check_editing("uac_replace_from")
        current = b"From: " + self.new_from if self.new_from else self.from_line
        new = replaced(current, display_or_uri, uri)
        if self.core.restore_from_avp:
            self._keep_original(FROM)
        if self.direction:
            return self.core.within.replace(self, FROM, new)
        self.new_from = new
        return True

    def uac_replace_to(self, display_or_uri: bytes | str, uri: bytes | str | None = None) -> bool:
        """Show the callee another To; as `uac_replace_from`."""
        self._check_editing("uac_replace_to")
        new = replaced(b"To: " + self.new_to if self.new_to else self.to_line, display_or_uri, uri)
        if self.core.restore_to_avp:
            self._keep_original(TO)
        if self.direction:
            return self.core.within.replace(self, TO, new)
        self.new_to = new
        return True

    def uac_restore_from(self) -> bool:
        """`restore_mode` manual: give the receiver of this request within a call its own view of From.

        Its responses get back what came.  False where there is nothing to restore.
        """
        return self._restore("uac_restore_from", FROM)

    def uac_restore_to(self) -> bool:
        """As `uac_restore_from`, for To."""
        return self._restore("uac_restore_to", TO)

    def _restore(self, name: str, key: bytes) -> bool:
        if self.route is not REQUEST_ROUTE:
            raise InvalidState(f"{name} may be called in request_route, not in {self.route}")
        restored = self.core.within.restore(self, key)
        if restored:
            self._keep_original(key)
        return restored

    def _keep_original(self, key: bytes) -> None:
        """`restore_from_avp`, `restore_to_avp`: the name-addr as it came."""
        core = self.core
        name, line = (
            (core.restore_from_avp, self.from_line) if key is FROM else (core.restore_to_avp, self.to_line)
        )
        if name:
            self.avp.setdefault(name, name_addr_of(line).decode(errors="replace"))

    def hide_contact(self) -> None:
        """Replace the user of the caller's Contact for the whole call; put it back in requests that come for it."""
        self._check_editing("hide_contact")
        if self.direction:
            raise InvalidState("the Contact of a request within a call follows from its first request")
        self.contact_hidden = CONTACT in self.message.keys or self.contact_hidden

    def remove_hf(self, *fields: bytes | str) -> int:
        """Remove header fields in all their spellings; for those that name the caller this holds for the whole call.

        Of the response in `onreply_route`, as `append_hf`.
        """
        keys, bits = _fields(fields)
        if self.route is ONREPLY_ROUTE:
            return sum([looked_at(self).remove(key) for key in keys])
        self.hidden |= bits
        if keys.isdisjoint(self.names):
            return 0
        return sum([self.message.remove(key) for key in keys if key in self.names])

    def append_hf(self, line: bytes | str) -> None:
        """Add a whole `Name: value` line; raises ParseError when it would break out of its line.

        A line end behind it, which Kamailio wants, may be there.
        """
        line = (line.encode() if isinstance(line, str) else line).rstrip(b"\r\n")
        looked_at(self).append(line)
        self.names = {*self.names, CANONICAL[line.partition(b":")[0]]}

    def append_branch(self, uri: bytes | str = b"", du: bytes | str = b"") -> None:
        """Add a target that `t_relay` tries at the same time as the Request-URI; without `uri` the one of now."""
        if not uri:
            uri, du = self._ruri, self._du
        if len(self.appended) >= self.core.configuration.max_targets:
            raise InvalidState("more branches than max_targets")
        self.appended += ((_uri(uri), _uri(du) if du else b""),)

    def record_route(self) -> None:
        """Stay in the path of the call (§16.6 step 4)."""
        self.record_routed = True

    @property
    def uac_req(self) -> UacRequest:
        """Kamailio's $uac_req(...), this request's own: `context.uac_req.method = "OPTIONS"` or by name."""
        if self._uac_req is None:
            self._uac_req = UacRequest()
        return self._uac_req

    def uac_req_send(self) -> bool:
        """Send the request that `uac_req` describes; False when too many are under way.  Never waits.

        Raises ValueError when it describes none.  `event_uac_reply` hears of its end if `evroute` says so.
        """
        return self.core.uac_requests.send(self.uac_req)

    def mark_call(self, l_uuid: str, direction: str, caller: str, callee: str, anonymous: bool) -> None:
        """Say whose call this is ("in": its provider calls, "out": its PBX): challenges within it are answered for that
        account, and, where it is an INVITE, CallStarted, CallAnswered and CallEnded flow.
        """
        key = self.key if self.method == b"INVITE" else ""
        self.marks = Marks(key, l_uuid, direction, caller, callee, anonymous)

    def t_set_fr(self, fr_inv_timeout: float) -> None:
        """Let this call ring longer or shorter than `timer_c` without a word from the far side (§16.6 step 11).

        Seconds, above 180; ValueError otherwise.
        """
        if not fr_inv_timeout > 180:
            raise ValueError("timer C is not above 180 s; RFC 3261 §16.6 asks for more than three minutes")
        self.timer_c = fr_inv_timeout

    def t_on_branch(self, name: str) -> None:
        """Name the method of the routing that edits each branch; without it `branch_route`."""
        self.on_branch = getattr(self.routing, name)

    def t_on_reply(self, name: str) -> None:
        self.on_reply = getattr(self.routing, name)

    def t_on_failure(self, name: str) -> None:
        """Name the method that is asked when all branches have failed; without it `failure_route`."""
        hook = getattr(self.routing, name)
        if self.failure_hook is None:
            self.failure_hook = hook
        self.on_failure = name

    # authentication
    def uac_auth(self, mode: int = 0) -> bool:
        """Have `t_relay` send the challenged branches again, with credentials and the next CSeq; False when there are
        none for these challenges, when they were refused already, or when it is not for this address to ask.

        Only in a failure_route.  `mode` 1: what `credentials` hold as passwords are HA1.
        """
        if self.route is not FAILURE_ROUTE or self.verdict is not Verdict.NONE:
            raise InvalidState("uac_auth answers a challenge that came: call it in a failure_route, before t_relay")
        return self.core.authenticator.uac_auth(self, mode)

    def uac_auth_mode(self, mode: int) -> bool:
        """`uac_auth` under the seed's other name."""
        return self.uac_auth(mode)

    # verdicts
    def t_relay(self) -> Verdict:
        """Forward statefully to `du`, else to `ruri`, and to every appended branch."""
        self.verdict = Verdict.RELAY
        return self.verdict

    def sl_send_reply(self, code: int, reason: str | bytes = b"", headers: Any = ()) -> Verdict:
        """Answer the request; `headers` are `(name, value)` pairs or whole lines."""
        lines = []
        for header in headers:
            if isinstance(header, tuple):
                name, value = (x.encode() if isinstance(x, str) else x for x in header)
                header = name + b": " + value
            elif isinstance(header, str):
                header = header.encode()
            if b"\r" in header or b"\n" in header:
                raise ParseError("a header line holds CR or LF")
            lines.append(header)
        reason = reason.encode() if isinstance(reason, str) else reason
        self.reply = (code, reason.replace(b"\r", b" ").replace(b"\n", b" "), tuple(lines))
        self.verdict = Verdict.REPLY
        return self.verdict

    t_reply = send_reply = sl_send_reply
    """There is no difference here: each answer belongs to the request's transaction."""

    def drop(self) -> Verdict:
        """Say nothing: the request and its repetitions vanish."""
        self.verdict = Verdict.DROP
        return self.verdict

    # running the hooks
    def run_route(self, application: Any) -> None:
        """Ask the application; `routed` is called now, or by the step that finishes it later."""
        self.stepping = True
        try:
            application(self)
        except Exception as error:
            self.routed(error)
        finally:
            self.stepping = False

    def run_hook(self, hook: Any) -> None:
        """Run a failure_route, a coroutine or not."""
        self.stepping = True
        self.route = FAILURE_ROUTE
        try:
            result = hook(self)
            if inspect.iscoroutine(result):
                self.step(result, self.routed)
            else:
                self.routed(None)
        except Exception as error:
            self.routed(error)
        finally:
            self.stepping = False

    def routed(self, error: BaseException | None = None) -> None:
        """A hook ended: act on its verdict.  Late, this runs as a verb of its own through `Endpoint.resume`."""
        core = self.core
        if self.stepping:
            core.on_routed(self, error, core.now)
        else:
            core.resume(partial(core.on_routed, self, error))

    def _check_editing(self, name: str) -> None:
        if self.route is not REQUEST_ROUTE and self.route is not BRANCH_ROUTE:
            raise InvalidState(f"{name} may be called in request_route and branch_route, not in {self.route}")

    # small services for the core
    def from_end(self) -> int:
        """Where the parameters of From begin."""
        if not self._from_end:
            self._from_end = params_at(self.from_line)
        return self._from_end

    def views(self) -> Views | None:
        """What the two sides see, None when nothing was changed."""
        new_from, new_to = self.new_from, self.new_to
        if not (new_from or new_to or self.hidden or self.contact_hidden):
            return None
        return Views(
            name_addr_of(self.from_line, self.from_end()) if new_from else b"", new_from,
            name_addr_of(self.to_line) if new_to else b"", new_to, self.hidden, self.contact_hidden,
        )

    def answer(self, status: int, now: float, reason: bytes = b"", extra: tuple[bytes, ...] = ()) -> None:
        """Answer with a response of our own."""
        server = self.server
        if server is None:
            return
        if status >= 300:
            if status == 408 and not server.invite:
                server.vanish(now)  # RFC 4320 §4.2: no 408 to a request other than INVITE
                return
            self.core.counters.rejected += 1
        tag = server.layer.own_tag(server.key) if status > 100 else b""
        server.respond(status, response(server.head, status, reason, tag, extra), now)
        if status >= 200:
            self.core.on_answered(self, status, reason, now)

    def reject(self, error: BaseException, now: float) -> None:
        """Answer for a hook that raised: its Reject, 400 for a field of the peer's, or 500 and a line in the log."""
        if isinstance(error, Reject):
            extra = tuple(f"{name}: {value}".encode() for name, value in error.headers)
            self.answer(error.status, now, error.reason.encode(), extra)
            return
        if isinstance(error, RemoteProtocolError):  # the hook read, or the forwarding met, what the peer wrote badly
            log.info("A request of call %s is answered %d: %s", self.call_id, error.status, error)
            self.answer(error.status, now)
            return
        self.core.counters.hook_failures += 1
        log.error("A route hook failed for call %s: %s", self.call_id, error, exc_info=error)
        self.answer(500, now)

    def on_server_terminated(self) -> None:
        """The server transaction ended: let go of everything, so that nothing is kept by a cycle."""
        self.server = None
        # An ASGI application and its hooks know their scope, and that knows us.
        self.routing = self.on_branch = self.on_reply = self.failure_hook = None
        for branch in self.branches:
            branch.release()
        self.branches.clear()

    def __repr__(self) -> str:
        return f"<ResponseContext {self.method.decode(errors='replace')} {self.call_id}>"


@lru_cache(CACHE_LIMIT)
def _fields(names: tuple[bytes | str, ...]) -> tuple[frozenset[bytes], int]:
    """Canonical names, and which of them name the caller."""
    keys = frozenset(CANONICAL[name.encode() if isinstance(name, str) else name] for name in names)
    return keys, sum(HIDEABLE_BITS.get(key, 0) for key in keys)


@lru_cache(CACHE_LIMIT)
def _uri(uri: bytes | str) -> bytes:
    text = uri.encode() if isinstance(uri, str) else uri
    if _NO_URI.search(text) or text.find(b":") < 1:
        raise ParseError(f"{text.decode(errors='replace')!r} is no URI")
    return text

