"""One copy of a request goes out (RFC 3261 §16.6): Request-URI, identities, Record-Route, Via, client transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipengine.events import Target
from sipengine.exceptions import ResolutionError, TransportError
from sipengine.message.fields import CALL_ID, COMPACT, CONTENT_LENGTH, CSEQ, FROM, RECORD_ROUTE, ROUTE, TO, VIA
from sipengine.message.message import Message
from sipengine.message.values import params_at
from sipengine.proxy import route
from sipengine.proxy.hooks import BRANCH_ROUTE, log
from sipengine.transaction.client import InviteClient, NonInviteClient
from sipengine.transaction.oversize import LONGEST_DATAGRAM
from sipengine.transport.flow import SECURE, Flow

IDENTITY = COMPACT[b"y"]
OPENS_DIALOG = frozenset({b"INVITE", b"SUBSCRIBE", b"REFER", b"NOTIFY"})
"""NOTIFY: one that nobody subscribed to (RFC 3261 §16.6 step 4; RFC 6665 §4.4.1 for REFER's)."""

if TYPE_CHECKING:
    from sipengine.dialog.record import DialogRecord
    from sipengine.proxy.branch import Branch
    from sipengine.proxy.context import ResponseContext
    from sipengine.proxy.core import ProxyCore


SENT = Message(b"", [], [])
NO_NAMES: frozenset[bytes] = frozenset()
"""Stands for a request that has left for good."""


def forward(core: ProxyCore, context: ResponseContext, branch: Branch, flow: Flow, now: float) -> None:
    """Send the request to one address of a branch."""
    pristine = message = context.message
    method = context.method
    if (
        context.on_reply is None and not branch.targets and len(context.branches) == 1
        and context.failure_hook is None and context.on_branch is None and context.auth is None
    ):  # fmt: skip
        context.message = SENT  # nobody needs it again, and 32 s of requests are a lot of memory
        context.names = NO_NAMES
        context.routing = None
    else:
        message = pristine.copy()
    message.start = b"%b %b SIP/2.0" % (method, branch.ruri)
    if context.on_branch is not None:
        _branch_route(core, context, branch, message, flow, now)
    elif not context.direction:
        _first_request(core, context, message, flow, now)
    keys, lines = message.keys, message.lines
    i = keys.index(VIA)
    if context.auth is not None:
        core.authenticator.stamp(context, branch, message, flow.remote, now)
    if keys[-1] is not CONTENT_LENGTH and CONTENT_LENGTH not in keys:
        lines.append(b"Content-Length: %d" % len(message.body))
        keys.append(CONTENT_LENGTH)
    branch_id = core.identifiers.hex() + b"%08x" % context.loop
    own_via = b"%b%b;rport" % (flow.via, branch_id)
    lines.insert(i, own_via)
    keys.insert(i, VIA)
    wire = message.serialize()
    layer = core.transactions
    if len(wire) > LONGEST_DATAGRAM:
        oversize, datagrams = layer.oversize, flow
        flow = oversize.flow_for(flow, now)
        if flow is not datagrams:
            over_udp = own_via
            lines[i] = own_via = b"%b%b;rport" % (flow.via, branch_id)
            oversize.second[branch_id] = datagrams, own_via, over_udp
            wire = message.serialize()
    client: InviteClient | NonInviteClient
    if method == b"INVITE":
        head = [own_via, lines[keys.index(FROM)], lines[keys.index(CALL_ID)]]
        if ROUTE in keys:
            head += [line for key, line in zip(keys, lines, strict=True) if key is ROUTE]
        number = lines[keys.index(CSEQ)].partition(b":")[2].split()[0]
        client = InviteClient(layer, branch_id, flow, wire, branch, branch.ruri, head, lines[keys.index(TO)], number)
    else:
        client = NonInviteClient(layer, branch_id, method, flow, wire, branch)
    layer.clients[branch_id] = client
    branch.client = client
    client.start(now)


def _branch_route(
    core: ProxyCore, context: ResponseContext, branch: Branch, message: Message, flow: Flow, now: float
) -> None:
    """Let the hook edit the copy of a branch; the Request-URI, From and To that it sets are this branch's alone."""
    pristine, names, ruri, route = context.message, context.names, context._ruri, context.route
    new_from, new_to = context.new_from, context.new_to
    context.message, context.pristine = message, pristine
    context._ruri, context.route = branch.ruri, BRANCH_ROUTE
    try:
        context.on_branch(context)
    except Exception as error:
        core.counters.hook_failures += 1
        log.error("branch_route failed for call %s: %s", context.call_id, error, exc_info=error)
    branch.ruri = context._ruri
    message.start = b"%b %b SIP/2.0" % (context.method, branch.ruri)
    _first_request(core, context, message, flow, now)
    context.message, context.names, context._ruri, context.route = pristine, names, ruri, route
    context.new_from, context.new_to = new_from, new_to


def _first_request(core: ProxyCore, context: ResponseContext, message: Message, flow: Flow, now: float) -> None:
    """What only a request outside a dialog gets: other identities, and a Record-Route that remembers them."""
    keys, lines = message.keys, message.lines
    if context.breadth:
        message.replace(b"Max-Breadth", b"%d" % context.breadth_share)
    opens = context.method in OPENS_DIALOG
    record = core.note_call(context, now) if opens and (context.record_routed or context.marks is not None) else None
    call_id = context._call_id
    if record is not None and flow.remote[0] not in record.sides:
        record.sides += (flow.remote[0],)
    if context.auth is not None or (record is not None and record.numbering is not None):
        core.authenticator.count(context, record)
    if context.new_from:
        i = keys.index(FROM)
        line = lines[i]
        end = context.from_end() if line is context.from_line else params_at(line)
        lines[i] = b"From: " + context.new_from + line[end:]
        context.restore_from = core.storing
        if IDENTITY in keys:
            message.remove(IDENTITY)  # RFC 8224 §4.1: it signs the From that was, and it would name the caller
        if record is not None and core.storing:
            record.from_line, record.from_hidden = line, lines[i]
    if context.new_to:
        i = keys.index(TO)
        line = lines[i]
        lines[i] = b"To: " + context.new_to + line[params_at(line) :]
        context.restore_to = core.storing
    if context.contact_hidden:
        core.within.hide_contacts(message, call_id, record)
    if not context.record_routed or not opens:
        return
    params = b""
    if record is not None:
        if not record.token and core.storing:
            record.token = core.token_of(record, call_id, context.from_tag)
            core.dialogs.found_by_token(record)
        params = record.token
    came, goes = context.flow.route, flow.route
    if flow.listener.transport in SECURE and b" sips:" in message.start.lower():
        # §16.6 step 4; who came without TLS must find us as they did
        goes = goes.replace(b"<sip:", b"<sips:", 1)
        came = came.replace(b"<sip:", b"<sips:", 1) if context.flow.secure else came
    # §16.6 step 4: before any that is there; Kamailio writes its own above Via.
    i = keys.index(RECORD_ROUTE) if RECORD_ROUTE in keys else keys.index(VIA)
    if came == goes:
        lines.insert(i, b"Record-Route: %b%b>" % (goes, params))
        keys.insert(i, RECORD_ROUTE)
    else:  # RFC 5658 §5: each side must be able to reach us by its own value
        lines[i:i] = [
            b"Record-Route: %b%b%b>" % (goes, route.PAIR, params),
            b"Record-Route: %b%b%b>" % (came, route.PAIR, params if core.codec.doubled else b""),
        ]
        keys[i:i] = [RECORD_ROUTE, RECORD_ROUTE]


def forward_ack(
    core: ProxyCore, message: Message, ruri: bytes, record: DialogRecord | None, flow: Flow, base: bytes, now: float
) -> None:
    """Pass an ACK for 2xx on without a transaction; a repeated one gets the same branch (§16.11)."""
    hop = ruri
    if ROUTE in message.keys:
        ruri, hop = route.next_hop(message, ruri)
    message.start = b"ACK %b SIP/2.0" % ruri
    if message.keys[-1] is not CONTENT_LENGTH and CONTENT_LENGTH not in message.keys:
        message.append(b"Content-Length: %d" % len(message.body))
    targets = core.locator.known(hop)
    if targets is not None:
        _send_ack(core, message, record, flow, base, targets, now)
    else:
        core.locator.locate(hop, lambda found, at: _send_ack(core, message, record, flow, base, found, at), now)


def _send_ack(
    core: ProxyCore, message: Message, record: DialogRecord | None, flow: Flow, base: bytes,
    targets: list[Target] | ResolutionError, now: float,
) -> None:  # fmt: skip
    if isinstance(targets, ResolutionError):
        core.counters.transport_errors += 1
        return
    if record is not None:
        targets = core.within.reachable(record, targets)
        if not targets:
            return
    # The INVITE went past a server that rests; nothing would tell us that its ACK did not arrive.
    rests = core.locator.rests
    target = rests.order(targets, now, new=False)[0] if rests.resting else targets[0]
    try:
        listener = core.transport.listener_for(
            target.transport, target.address[0], flow.listener, target.address[1]
        )
    except TransportError:
        core.counters.transport_errors += 1
        return
    to = core.transport.flow_for(listener, target.address, target.names)
    i = message.keys.index(VIA)
    branch_id = core.transactions.own_tag(base)
    message.lines.insert(i, b"%b%b;rport" % (to.via, branch_id))
    message.keys.insert(i, VIA)
    wire = message.serialize()
    if len(wire) > LONGEST_DATAGRAM:
        datagrams, to = to, core.transactions.oversize.flow_for(to, now)
        if to is not datagrams:
            message.lines[i] = b"%b%b;rport" % (to.via, branch_id)
            wire = message.serialize()
    core.transactions.out.append((wire, to))
