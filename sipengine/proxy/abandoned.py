"""An INVITE that got no answer in time, after its branch went on to the next target: whoever answers late is hung up.

A late provisional gets CANCEL; a late 2xx gets ACK and BYE, written by us in place of the caller, who hears of one
answer only (RFC 3261 §9.1, §13.2.2.4, §15; RFC 3263 §4.3).  Dialogs that a fork opened are each ended.  So is every
dialog of an INVITE of our own: nobody is there to talk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipengine.events import Target
from sipengine.exceptions import ResolutionError, SipError, TransportError
from sipengine.message.build import request
from sipengine.message.fields import RECORD_ROUTE, TO
from sipengine.message.message import Message, parse
from sipengine.message.values import tag_of
from sipengine.proxy import route
from sipengine.transaction.client import ClientTransaction, InviteClient, NonInviteClient
from sipengine.transport.flow import Flow
from sipengine.uac.digest import FindCredentials, answer, pair

if TYPE_CHECKING:
    from sipengine.proxy.core import ProxyCore


class Abandoned:
    """Transaction user of an INVITE that nobody waits for any more."""

    def __init__(
        self, core: ProxyCore, client: InviteClient, now: float, find: FindCredentials | None = None,
        lines: tuple[bytes, ...] = (),
    ) -> None:
        """`find` has what a challenge of the BYE is answered with; `lines` proved the INVITE, and so prove its ACK."""
        self._core = core
        self._find = find
        self._lines = lines
        # Our own requests, which may be answered already, have none.
        self._routes = len(parse(client.wire).get_list(RECORD_ROUTE)) if client.wire else 0
        self._acks: dict[bytes, tuple[bytes, Flow] | None] = {}
        """What each dialog that came into being was acknowledged with; None until it is known where to."""
        client.user = self
        client.cancel(now)
        # No repetition: a server that comes back shall not ring for a call which is elsewhere. Timer B still ends it.
        client.wait = client.layer.timers.timeout
        client.layer.queue.arm(client, client.wait, now)

    def on_response(self, client: ClientTransaction, status: int, message: Message, now: float) -> None:
        if not 200 <= status < 300 or not isinstance(client, InviteClient):
            return
        tag = tag_of(message.line(TO))
        if tag in self._acks:
            again = self._acks[tag]
            if again is not None:
                self._core.transactions.out.append(again)
            return
        self._acks[tag] = None
        self._hang_up(client, tag, message, now)

    def on_failure(self, client: ClientTransaction, error: SipError, now: float) -> None:
        """It stayed silent, as was feared."""

    def _hang_up(self, client: InviteClient, tag: bytes, message: Message, now: float) -> None:
        contacts = message.contacts
        if not contacts:
            self._core.counters.bad += 1
            return
        # RFC 3261 §12.1.2: what was added behind us, read backwards; the rest leads to the caller.
        values = message.get_list(RECORD_ROUTE)
        behind = values[: max(0, len(values) - self._routes)]
        lines = list(client.head[1:3])
        lines.append(message.line(TO))
        if behind:
            lines.append(b"Route: " + b", ".join(reversed(behind)))
        lines.append(b"Max-Forwards: 70")
        ack = request(b"ACK", contacts[0].uri, [*lines, b"CSeq: %b ACK" % client.cseq, *self._lines])
        bye = request(b"BYE", contacts[0].uri, [*lines, b"CSeq: %d BYE" % (int(client.cseq) + 1)])
        hop = contacts[0].uri
        for sent in (ack, bye):
            ruri, hop = route.next_hop(sent, contacts[0].uri)
            sent.start = sent.start.partition(b" ")[0] + b" " + ruri + b" SIP/2.0"

        def located(targets: list[Target] | ResolutionError, at: float) -> None:
            if isinstance(targets, ResolutionError):
                self._core.counters.transport_errors += 1
            else:
                self._send(client, tag, ack, bye, targets[0], at)

        self._core.locator.locate(hop, located, now)

    def _send(
        self, client: InviteClient, tag: bytes, ack: Message, bye: Message, target: Target, now: float
    ) -> None:
        core = self._core
        layer = core.transactions
        try:
            listener = core.transport.listener_for(target.transport, target.address[0], client.flow.listener)
        except TransportError:
            core.counters.transport_errors += 1
            return
        flow = core.transport.flow_for(listener, target.address, target.names)
        ack.insert(0, b"%b%ba;rport" % (flow.via, core.identifiers.hex()))
        self._acks[tag] = ack.serialize(), flow
        layer.out.append((ack.serialize(), flow))
        _Bye(core, bye, self._find).send(flow, now)


class _Bye:
    """A BYE of ours and, where it is challenged and we have the means, its one repeat (§22.2)."""

    def __init__(self, core: ProxyCore, message: Message, find: FindCredentials | None) -> None:
        self._core = core
        self._message = message
        self._find = find

    def send(self, flow: Flow, now: float) -> None:
        layer, branch = self._core.transactions, self._core.identifiers.hex() + b"b"
        message = self._message.copy()
        message.insert(0, b"%b%b;rport" % (flow.via, branch))
        client = layer.clients[branch] = NonInviteClient(layer, branch, b"BYE", flow, message.serialize(), self)
        client.start(now)

    def on_response(self, client: ClientTransaction, status: int, message: Message, now: float) -> None:
        find, self._find = self._find, None if status >= 200 else self._find
        if status not in (401, 407) or find is None:
            return
        bye = self._message
        chosen = pair(message.get_all(b"WWW-Authenticate"), message.get_all(b"Proxy-Authenticate"), find)
        if not chosen:
            return
        for challenge, credentials in chosen:
            line = answer(challenge, credentials, b"BYE", bye.ruri, cnonce=self._core.identifiers.hex())
            bye.append(b"%b: %b" % line)
        bye.replace(b"CSeq", b"%d BYE" % (bye.cseq[0] + 1))
        self.send(client.flow, now)

    def on_failure(self, client: ClientTransaction, error: SipError, now: float) -> None:
        """The far side is gone, and with it the call."""
