"""The proxy core: a received request on its way to a response context, its branches, or its call (RFC 3261 §16).

Reads like §16.3 to §16.6; §16.7 is `response`, §12 is `within`.  The application decides about each new request; ACK,
CANCEL, retransmissions, and requests within a call (except in restore_mode manual) do not ask it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from sipengine.configuration import Configuration
from sipengine.counters import Counters
from sipengine.dialog.record import DialogRecord, DialogTable
from sipengine.dialog.seal import Sealer
from sipengine.dialog.views import Views
from sipengine.events import CallStarted, Event, Target
from sipengine.exceptions import (
    BadExtension,
    LocalProtocolError,
    LoopDetected,
    ParseError,
    ProtocolError,
    ResolutionError,
    TooManyHops,
)
from sipengine.identifiers import Identifiers
from sipengine.message.build import COPIED
from sipengine.message.build import response as build_response
from sipengine.message.fields import CACHE_KEY, CACHE_LIMIT, CALL_ID, CSEQ, FROM, PROXY_REQUIRE, ROUTE, TO, VIA
from sipengine.message.message import Message
from sipengine.message.values import Via
from sipengine.overload import Overload, retry_after
from sipengine.proxy import response, route, validation
from sipengine.proxy.authentication import Authenticator
from sipengine.proxy.branch import Branch
from sipengine.proxy.context import DOWN, UP, ResponseContext
from sipengine.proxy.forward import forward_ack
from sipengine.proxy.hooks import Verdict
from sipengine.proxy.variables import avp_name
from sipengine.proxy.within import WithinDialog
from sipengine.timerqueue import TimerQueue
from sipengine.transaction.layer import TransactionLayer, base_key
from sipengine.transaction.server import (
    ACCEPTED,
    COMPLETED,
    TERMINATED,
    InviteServer,
    NonInviteServer,
    ServerTransaction,
)
from sipengine.transaction.timers import Timers
from sipengine.transport.flow import Flow
from sipengine.transport.layer import TransportLayer
from sipengine.transport.locate import Locator
from sipengine.uac.restore import ForgedToken, RestoreCodec
from sipengine.uac.send import UacRequests
from sipengine.uac.strength import Strength

Application = Callable[[ResponseContext], None]
Resume = Callable[[Callable[[float], None]], None]

TIMESTAMP = b"timestamp"
MAX_BREADTH = b"max-breadth"
METHODS = (
    b"OPTIONS", b"REGISTER", b"MESSAGE", b"SUBSCRIBE", b"NOTIFY", b"PUBLISH", b"REFER", b"INFO", b"BYE", b"UPDATE",
    b"PRACK",
)  # fmt: skip
"""Whose transaction a senseless CANCEL may name."""
MAX_BREADTH_DEFAULT = 60
"""RFC 5393 §5.3.3.1."""


class ProxyCore:
    def __init__(
        self, configuration: Configuration, application: Application, transport: TransportLayer,
        transactions: TransactionLayer, locator: Locator, identifiers: Identifiers, sealer: Sealer,
        codec: RestoreCodec, events: deque[Event], overload: Overload,
    ) -> None:
        self.configuration = configuration
        self.application = application
        self.transport = transport
        self.transactions = transactions
        self.servers = transactions.servers
        self.locator = locator
        self.identifiers = identifiers
        self.sealer = sealer
        self.codec = codec
        self.events = events
        self.overload = overload
        self.queue: TimerQueue = transactions.queue
        self.timers: Timers = transactions.timers
        self.counters: Counters = transactions.counters
        self.dialogs = DialogTable(self.queue)
        self._busy = configuration.max_transactions
        self._many_calls = configuration.max_dialogs
        self.within = WithinDialog(self)
        self.strength = Strength()
        self.authenticator = Authenticator(self)
        self.storing = configuration.restore_mode != "none"
        self.knows_all = self.storing and configuration.restore_codec == "sealed"
        """Whether each call that stands has a record or a token: a request without either is of no call of ours."""
        self.automatic = configuration.restore_mode == "auto"
        self.asks_within = configuration.restore_mode == "manual"
        self.restore_from_avp = avp_name(configuration.restore_from_avp) if self.storing else ""
        self.restore_to_avp = avp_name(configuration.restore_to_avp) if self.storing else ""
        self.auth_avps = configuration.auth_realm_avp, configuration.auth_username_avp, configuration.auth_password_avp
        self.secret_variables = {configuration.auth_password_avp, avp_name(configuration.auth_password_avp)}
        self.now = 0.0
        self.resume: Resume = _no_resume
        self.uac_requests: UacRequests
        """The endpoint's, for the hooks that send requests of their own."""
        self._clean: dict[bytes, bytes] = {}
        self._served: dict[bytes, ServerTransaction] = {}
        """Requests that we answered 2xx as their UAS, by Call-ID, From tag and CSeq."""
        self._served_limit = 64

    # §16.3, §16.4
    def on_request(self, message: Message, flow: Flow, now: float) -> None:
        """Take a parsed request of an admitted source; ParseError or ValueError mean that it is to be answered 400."""
        method, ruri = validation.split_request_line(message.start)
        keys, lines = message.keys, message.lines
        i_via = keys.index(VIA)
        via_line = lines[i_via]
        sent_by, reply_flow = self.transport.receive_via(message, i_via, flow)
        base = base_key(message, via_line, sent_by, ruri)
        server: ServerTransaction | None
        if method == b"ACK":
            server = self.servers.get(base + b"INVITE")
            if isinstance(server, InviteServer) and server.state != ACCEPTED:
                server.on_ack(now)
                return
            key = b""
        else:
            key = base + method
            server = self.servers.get(key)
            if server is not None:
                server.on_retransmission(now)
                return
        names = set(keys)
        if len(names) != len(keys):
            validation.check_once(keys)
        from_line, to_line, call_line = lines[keys.index(FROM)], lines[keys.index(TO)], lines[keys.index(CALL_ID)]
        cseq_line = lines[keys.index(CSEQ)]
        number = validation.check_cseq(cseq_line, method)
        call_id = call_line.partition(b":")[2].strip()
        if not call_id:
            raise ParseError("Call-ID is empty")
        to_tag = validation.tag_of_proper(to_line)
        from_tag = validation.tag_of_proper(from_line)
        if not key:
            self._on_ack(message, ruri, flow, base, call_id, from_tag, to_tag, now)
            return
        several = via_line.find(b",") >= 0 or (len(names) != len(keys) and keys.count(VIA) > 1)
        if not several:
            head = [lines[i_via], from_line, to_line, call_line, cseq_line]
        else:
            head = [line for k, line in zip(keys, lines, strict=True) if k in COPIED]
        if (
            self.overload.share or len(self.servers) >= self._busy or len(self.dialogs.records) >= self._many_calls
        ) and self._too_much(key, method, ruri, to_tag, now):
            self.counters.overload += 1
            tag, wait = self.transactions.own_tag(key), retry_after(hash(key))
            self.transactions.out.append((build_response(head, 503, b"", tag, (wait,)), reply_flow))
            return
        if TIMESTAMP in names:
            head.append(lines[keys.index(TIMESTAMP)])  # §8.2.6.1: our 100 gives it back
        if method == b"INVITE":
            server = InviteServer(self.transactions, key, reply_flow, head)
        elif method == b"CANCEL":
            invite = self.servers.get(base + b"INVITE")
            if invite is not None and isinstance(invite.user, ResponseContext) and (
                invite.user.flow.remote[0] != flow.remote[0]
            ):
                # Who read a branch on the way ends no call by it; and no transaction of it takes the true one's place.
                self.counters.cancel_elsewhere += 1
                tag = self.transactions.own_tag(key)
                self.transactions.out.append((build_response(head, 481, b"", tag, ()), reply_flow))
                return
            server = self.servers[key] = NonInviteServer(self.transactions, key, reply_flow, head)
            self._on_cancel(server, base, message, now)
            return
        else:
            server = NonInviteServer(self.transactions, key, reply_flow, head)
            server.expect_answer(now)
        self.servers[key] = server
        context = ResponseContext(
            self, message, method, ruri, flow, server, from_line, to_line, call_id, from_tag, names
        )
        server.user = context
        try:
            self._serve(context, several, to_tag, number, now)
        except BadExtension as error:
            self._refuse(server, error, now, (b"Unsupported: " + str(error).encode(),))
        except ProtocolError as error:
            self._refuse(server, error, now)
        except (ValueError, IndexError):
            self._refuse(server, ParseError("a field is broken"), now)
        except Exception:
            server.own_response(500, now)  # a transaction that nobody answers would stay for ever
            raise

    def _too_much(self, key: bytes, method: bytes, ruri: bytes, to_tag: bytes, now: float) -> bool:
        """Whether to refuse before there is a transaction (§8.2.7): at a cap, or as one of the share under overload.

        What ends a transaction or belongs to a call is served up to a quarter above the cap.
        """
        servers = len(self.servers)
        if to_tag or method == b"CANCEL":
            return servers >= self._busy * 5 // 4
        if servers >= self._busy:
            return True
        if method != b"INVITE":
            return False
        if len(self.dialogs.records) >= self._many_calls:
            return True
        return self.overload.refuses(hash(key), now) and ruri[:15].lower() != b"urn:service:sos"

    def _serve(self, context: ResponseContext, several: bool, to_tag: bytes, number: bytes, now: float) -> None:
        """Validate, take our Route off, and send the request its way: into its call, or to the application."""
        message, flow, ruri, names = context.message, context.flow, context._ruri, context.names
        ruri = self._clean.get(ruri) or self._clean_ruri(ruri)
        validation.count_hop(message)
        if ruri.find(b";maddr=") >= 0:
            ruri = route.strip_own_maddr(ruri, flow, self.transport)
        params: bytes | None = None
        if ROUTE in names:
            if ruri.find(b";lr") >= 0:
                ruri = route.undo_strict_router(message, ruri, self.transport)
            params = route.take_own_routes(message, flow, self.transport)
        context._ruri = ruri
        context.loop = hash((ruri, context._call_id, context.from_tag, to_tag, number, params)) & 0xFFFFFFFF
        if several and not to_tag and self._looped(message, context.loop):
            raise LoopDetected("our own Via is in it for the same decision")
        if PROXY_REQUIRE in names:
            validation.check_proxy_require(message)
        if to_tag:
            self._on_within(context, to_tag, params, now)
            return
        if ROUTE in names:
            message.remove(ROUTE)  # no open relay: a stranger's route set is not followed, the hook alone decides where
        if context.method == b"INVITE":
            context.answer(100, now)
        context.prepare()
        self.now = now
        context.run_route(self.application)

    def _clean_ruri(self, ruri: bytes) -> bytes:
        clean = validation.clean_ruri(ruri)
        if len(self._clean) < CACHE_LIMIT and len(ruri) <= CACHE_KEY:
            self._clean[ruri] = clean
        return clean

    def _refuse(
        self, server: ServerTransaction, error: ProtocolError, now: float, extra: tuple[bytes, ...] = ()
    ) -> None:
        self.counters.rejected += 1
        server.own_response(error.status, now, b"", extra)

    def _looped(self, message: Message, loop: int) -> bool:
        """Whether a Via of ours, of any of our listeners, was made for the same decision (RFC 5393 §4.2)."""
        mark = b"%08x" % loop
        for value in message.get_list(VIA):
            if value.find(mark) >= 0:
                via = Via.parse(value)
                if via.branch.endswith(mark) and self.transport.is_own(via.host, via.port):
                    return True
        return False

    def is_own_uri(self, uri: bytes) -> bool:
        return route.own_uri_params(self.transport, uri) is not None

    # §16.10
    def _on_cancel(self, server: ServerTransaction, base: bytes, message: Message, now: float) -> None:
        invite = self.servers.get(base + b"INVITE")
        if invite is None:
            # §9.2: a request of another method is found all the same, and goes on as if nothing had happened
            found = any(base + method in self.servers for method in METHODS)
            server.own_response(200 if found else 481, now)
            return
        server.own_response(200, now)
        context = invite.user
        if isinstance(context, ResponseContext) and invite.state < COMPLETED:
            reasons = b"".join([b"Reason: %b\r\n" % value for value in message.get_all(b"Reason")])  # RFC 3326 §1
            self.cancel(context, now, reasons)

    def cancel(self, context: ResponseContext, now: float, reasons: bytes = b"") -> None:
        """The client gave up: CANCEL every branch that is under way; 487 at once when none is."""
        if context.cancelled:
            return
        context.cancelled = True
        waiting = False
        for branch in context.branches:
            if not branch.status:
                branch.cancel(now, reasons)
                waiting = waiting or not branch.status
        if not waiting:
            context.answer(487, now)

    # §13.2.2.4: an ACK for 2xx is no transaction; same branch for each repetition
    def _on_ack(
        self, message: Message, ruri: bytes, flow: Flow, base: bytes, call_id: bytes, from_tag: bytes, to_tag: bytes,
        now: float,
    ) -> None:
        if not to_tag:
            self.counters.stray += 1
            return
        try:
            validation.count_hop(message)
        except TooManyHops:  # an ACK has no answer
            self.counters.bad += 1
            return
        if ruri.find(b";lr") >= 0:
            ruri = route.undo_strict_router(message, ruri, self.transport)
        params = route.take_own_routes(message, flow, self.transport) if ROUTE in message.keys else None
        if params is None:
            params = self._without_route(ruri, call_id, from_tag, to_tag)
        if params is None:
            self.counters.stray += 1
            return
        try:
            record, direction, recovered = self.within.find(message, call_id, from_tag, to_tag, params, now)
        except ForgedToken:
            self.counters.forged += 1
            return
        if record is None and recovered is None and self.knows_all:
            self.counters.stray += 1
            return
        if record is not None and flow.remote[0] not in record.sides and not self.within.is_side(record, flow):
            return
        views = recovered.views if recovered is not None else record.views if record is not None else None
        if views is not None:
            # Nobody is asked about an ACK, in restore_mode manual either: it gets the view that its INVITE got.
            self.within.translate(message, views, direction, call_id, record, True)
            ruri = self.within.reveal_ruri(ruri, views, direction, call_id)
        if record is not None and record.numbering is not None:
            self.authenticator.ack(message, record.numbering, direction, to_tag if direction == DOWN else from_tag)
        forward_ack(self, message, ruri, record, flow, base, now)

    # §12.2, §16.4
    def _on_within(self, context: ResponseContext, to_tag: bytes, params: bytes | None, now: float) -> None:
        """A request with To tag: relay it along its route set when the call is ours."""
        server = context.server
        assert server is not None
        call_id = context._call_id
        if params is None:
            params = self._without_route(context._ruri, call_id, context.from_tag, to_tag)
        if params is None:
            self._refuse_stray(server, now)
            return
        try:
            record, direction, recovered = self.within.find(
                context.message, call_id, context.from_tag, to_tag, params, now
            )
        except ForgedToken as error:
            self.counters.forged += 1
            self._refuse(server, error, now)
            return
        if record is None and recovered is None and self.knows_all:
            # our name in a Route is no proof; and after a restart a call without token would show its caller
            self._refuse_stray(server, now)
            return
        flow = context.flow
        if record is not None and flow.remote[0] not in record.sides and not self.within.is_side(record, flow):
            self._refuse_stray(server, now)
            return
        context.record = record
        context.direction = direction or DOWN
        views = recovered.views if recovered is not None else record.views if record is not None else None
        if views is not None:
            context.restore_from, context.restore_to = self.within.translate(
                context.message, views, direction, call_id, record, self.automatic
            )
            context._ruri = self.within.reveal_ruri(context._ruri, views, direction, call_id)
        if self.asks_within:
            context.prepare()
            context.dialog_views = views
        if record is not None:
            callee_tag = to_tag if direction == DOWN else context.from_tag
            self.within.on_request(record, context.method, callee_tag, now)
            challengeable = record.provider == context.direction or record.numbering is not None
            if challengeable and not self.authenticator.within(context, record, callee_tag, now):
                return
        self.go_on_within(context, now)

    def go_on_within(self, context: ResponseContext, now: float) -> None:
        if self.asks_within:
            self.now = now
            context.run_route(self.application)
        else:
            self.relay_within(context, now)

    def _without_route(self, ruri: bytes, call_id: bytes, from_tag: bytes, to_tag: bytes) -> bytes | None:
        """Parameters of a Route that is not there: a user agent lost ours, but speaks within a call that we know.

        Its Call-ID and both tags are those of a record here, and it does not lead back to us.
        """
        if not self.within.knows(call_id, from_tag, to_tag) or self.is_own_uri(ruri):
            return None
        return b""

    def _refuse_stray(self, server: ServerTransaction, now: float) -> None:
        self.counters.stray += 1
        self.counters.rejected += 1
        server.own_response(481, now)

    def relay_within(self, context: ResponseContext, now: float) -> None:
        ruri = hop = context._ruri
        if ROUTE in context.message.keys:
            ruri, hop = route.next_hop(context.message, ruri)
        self._add_branch(context, ruri, hop, now)

    # the application's verdict
    def on_routed(self, context: ResponseContext, error: BaseException | None, now: float) -> None:
        if context.server is None or context.server.state >= COMPLETED:
            return
        if context.cancelled:
            if not context.branches:
                return
            response.send_best(context, now)
        elif error is not None:
            context.reject(error, now)
        elif context.verdict is Verdict.RELAY:
            if context.direction:
                self.relay_within(context, now)
            else:
                self._relay(context, now)
        elif context.verdict is Verdict.REPLY:
            assert context.reply is not None
            if context.reply[0] < 300 and not context.direction and self._merged(context):
                context.answer(482, now)
            else:
                context.answer(context.reply[0], now, context.reply[1], context.reply[2])
        elif context.branches:
            response.send_best(context, now)
        elif context.verdict is Verdict.DROP:
            context.server.vanish(now)
        else:
            context.reject(LookupError("the route decided nothing: t_relay, sl_send_reply or drop"), now)

    def _merged(self, context: ResponseContext) -> bool:
        """Whether we serve this very request already, having got it on another way (§8.2.2.2)."""
        server = context.server
        assert server is not None
        served = self._served
        if len(served) >= self._served_limit:
            self._served = served = {key: other for key, other in served.items() if other.state != TERMINATED}
            self._served_limit = max(64, 2 * len(served))
        cseq = context.message.line(CSEQ)
        other = served.setdefault(b"%b %b %b" % (context._call_id, context.from_tag, cseq), server)
        if other.state == TERMINATED:
            served[b"%b %b %b" % (context._call_id, context.from_tag, cseq)] = other = server
        return other is not server

    # §16.5, §16.6
    def _relay(self, context: ResponseContext, now: float) -> None:
        """Open a branch for each target of the target set."""
        routing = context.routing
        if routing is not None:
            if context.on_branch is None:
                context.on_branch = getattr(routing, "branch_route", None)
            if context.on_reply is None:
                context.on_reply = getattr(routing, "onreply_route", None)
            if context.failure_hook is None:
                context.failure_hook = getattr(routing, "failure_route", None)
        if context.auth is not None:
            if self.authenticator.relay(context, now):
                return
        elif context.credentials:
            self.authenticator.open(context)
        targets = [(context._ruri, context._du or context._ruri)]
        targets += [(uri, du or uri) for uri, du in context.appended]
        if (MAX_BREADTH in context.names or len(targets) > 1) and not self._share_breadth(context, len(targets)):
            context.answer(440, now, b"Max-Breadth Exceeded")
            return
        if len(targets) > 1:
            branches = [Branch(context, uri, hop) for uri, hop in targets]
            context.branches += branches
            for branch in branches:
                self.locator.locate(branch.next_hop, branch.located, now)
        elif context.affinity is not None:
            branch = Branch(context, *targets[0])
            context.branches.append(branch)
            self.locator.locate(branch.next_hop, partial(_located_first, branch, context.affinity), now)
        else:
            self._add_branch(context, *targets[0], now)

    def _share_breadth(self, context: ResponseContext, targets: int) -> bool:
        """Divide Max-Breadth among the branches that go out together (RFC 5393 §5.3.3); False: too many of them."""
        value = context.breadth
        if not value:
            field = context.message.get(MAX_BREADTH)
            value = MAX_BREADTH_DEFAULT
            if field is not None:
                value = int(field) if field.isdigit() and len(field) < 7 else 0
        context.breadth = value
        context.breadth_share = value // targets
        return context.breadth_share > 0

    def _add_branch(self, context: ResponseContext, ruri: bytes, hop: bytes, now: float) -> None:
        branch = Branch(context, ruri, hop)
        context.branches.append(branch)
        targets = self.locator.known(hop)
        if targets is not None:
            branch.located(targets, now)
        else:
            self.locator.locate(hop, branch.located, now)

    # the call's record
    def note_call(self, context: ResponseContext, now: float) -> DialogRecord | None:
        """Make or renew the record of the call that a first request opens; None when there is nothing to remember."""
        views = context.views()
        if views is not None and not self.storing:
            views = Views(hidden=views.hidden, contact=views.contact)
        marks = context.marks
        record = context.record
        if record is not None:
            record.show(views or Views())
            if marks is not None and marks.l_uuid != record.l_uuid:
                self.authenticator.other_provider(context, record, marks)
            return record
        if views is None and marks is None and not (self.knows_all and context.record_routed):
            return None
        expires_at = now + self.configuration.dialog_lifetime
        record = self.dialogs.add(context._call_id, context.from_tag, views or Views(), expires_at, now)
        record.sides = (context.flow.remote[0],)
        context.record = record
        if marks is not None:
            record.mark = marks.key
            if record.numbering is not None and record.l_uuid != marks.l_uuid:
                record.numbering = None  # it was another provider that counted so
            record.l_uuid = marks.l_uuid
            record.provider = DOWN if marks.direction == "out" else UP
            if marks.key:
                self.counters.calls += 1
                self.within.begin(record)
                self.events.append(
                    CallStarted(
                        marks.key, context.call_id, marks.l_uuid, marks.direction, marks.caller, marks.callee,
                        marks.anonymous, now,
                    )
                )
        return record

    def token_of(self, record: DialogRecord, call_id: bytes, caller_tag: bytes) -> bytes:
        """Record-Route parameters that tell a later process of this call."""
        shift = record.numbering.told if record.numbering is not None else 0
        return self.codec.write(
            record.views, call_id, caller_tag, record.mark, record.l_uuid, record.provider == UP, shift
        )

    def on_answered(self, context: ResponseContext, status: int, reason: bytes, now: float) -> None:
        """The final response of a request left: a call that failed is over."""
        record = context.record
        if status >= 300 and record is not None and not context.direction and not record.answered:
            record.end(self.timers.timeout, now)
            self.within.end(record, status, reason.decode("utf-8", "replace"), now)

    def expire_calls(self, now: float) -> None:
        """Calls without a BYE for `dialog_lifetime`."""
        expired = self.dialogs.expired
        if expired:
            self.dialogs.expired = []
            for record in expired:
                self.within.end(record, 408, "No BYE", now)


def _located_first(branch: Branch, first: Target, found: list[Target] | ResolutionError, now: float) -> None:
    others = [] if isinstance(found, ResolutionError) else [target for target in found if target != first]
    branch.located([first, *others], now)


def _no_resume(verb: Callable[[float], None]) -> None:
    raise LocalProtocolError("a hook finished later, but Endpoint.resume is not set")
