"""The transaction layer: tables of transactions and how messages find theirs (RFC 3261 §17.1.3, §17.2.3)."""

from __future__ import annotations

from sipengine.counters import Counters
from sipengine.exceptions import ParseError, TransportError
from sipengine.message.fields import CALL_ID, CSEQ, FROM, VIA
from sipengine.message.message import Message
from sipengine.message.values import param, tag_of
from sipengine.timerqueue import TimerQueue
from sipengine.transaction.client import ClientTransaction
from sipengine.transaction.oversize import Oversize
from sipengine.transaction.server import ServerTransaction
from sipengine.transaction.timers import Timers
from sipengine.transport.flow import Flow
from sipengine.transport.layer import TransportLayer
from sipengine.transport.peers import PeerBook

COOKIE = b"z9hG4bK"
_STATUS = {b"SIP/2.0 %d " % status: status for status in range(100, 700)}


def _status(start: bytes) -> int:
    """Status of a line that is not spelled as usual: `sip/2.0`, or no reason and no space before it (§7.2)."""
    status = _STATUS.get(start[:12].upper().ljust(12))
    if status is None:
        raise ParseError("a status line holds no version 2.0 or no status code")
    return status


class TransactionLayer:
    def __init__(
        self, transport: TransportLayer, queue: TimerQueue, timers: Timers, out: list[tuple[bytes, Flow]],
        counters: Counters, tag_key: bytes, peers: PeerBook | None = None,
    ) -> None:
        self.transport = transport
        self.peers = peers or PeerBook()
        self.oversize = Oversize(transport, self.peers)
        self.queue = queue
        self.timers = timers
        self.out = out
        self.counters = counters
        self.servers: dict[bytes, ServerTransaction] = {}
        self.clients: dict[bytes, ClientTransaction] = {}
        self.cancels: dict[bytes, ClientTransaction] = {}
        self._tag_key = tag_key

    def __len__(self) -> int:
        return len(self.servers) + len(self.clients) + len(self.cancels)

    def own_tag(self, key: bytes) -> bytes:
        """To tag of our own answers: the same for each repetition of a request, unknown beforehand."""
        return b"%016x" % (hash((self._tag_key, key)) & 0xFFFFFFFFFFFFFFFF)

    def forget_client(self, client: ClientTransaction) -> None:
        table = self.cancels if client.method == b"CANCEL" else self.clients
        if table.get(client.branch) is client:
            del table[client.branch]
            if self.oversize.second:
                self.oversize.second.pop(client.branch, None)

    def on_response(self, message: Message, flow: Flow, now: float) -> None:
        """Give a response to its client transaction; one that matches none is dropped (RFC 6026 §7.3, RFC 4320 §4.2).

        Raises ParseError or ValueError for what is no proper response.
        """
        start = message.start
        status = _STATUS.get(start[:12]) or _status(start)
        keys, lines = message.keys, message.lines
        i = keys.index(VIA)
        via_line = lines[i]
        branch = self.transport.own_branch(via_line, flow)
        method = lines[keys.index(CSEQ)].rsplit(None, 1)[-1]
        client = self.cancels.get(branch) if method == b"CANCEL" else self.clients.get(branch)
        if client is None or client.method != method:
            self.counters.stray += 1
            return
        sent = client.flow
        # Who guessed or read a branch still has to answer from where the request went (docs/decisions/0004).
        if sent is not flow and sent.remote[0] != flow.remote[0] and not self._related(sent, flow):
            self.counters.foreign += 1
            return
        comma = via_line.find(b",")
        if comma < 0:
            del lines[i], keys[i]
        else:
            lines[i] = b"Via:" + via_line[comma + 1 :]
        client.via_line = via_line
        client.receive(status, message, now)

    def _related(self, sent: Flow, flow: Flow) -> bool:
        return self.peers.same_peer(sent.remote[0], flow.remote[0])

    def flow_failed(self, flow: Flow, error: TransportError, now: float) -> None:
        """Requests that went over this flow are answered as by 503 (§17.1.4); UDP: all to that address that would still
        be repeated, for a ringing call has nothing to send.
        """
        if flow.reliable:
            self.oversize.tcp_failed(flow, now)
            for client in [client for client in self.clients.values() if client.flow is flow]:
                if not self.oversize.fall_back(client, now):
                    client.fail(error, now)
            for client in [client for client in self.cancels.values() if client.flow is flow]:
                client.fail(error, now)
            return
        remote, listener = flow.remote, flow.listener
        for table in (self.clients, self.cancels):
            for client in list(table.values()):
                if client.wire and client.flow.remote == remote and client.flow.listener is listener:
                    client.fail(error, now)


def base_key(message: Message, via_line: bytes, sent_by: bytes, ruri: bytes) -> bytes:
    """What identifies a request's transaction up to its method: branch and sent-by, or the fields of RFC 2543
    (§17.2.3).

    `via_line` is the line as received, before `received` and `rport` were noted.
    """
    i = via_line.find(b";branch=z9hG4bK")
    first = via_line
    if i >= 0 and via_line.find(b",") < 0:
        branch = via_line[i + 8 :].partition(b";")[0]
        if len(branch) > len(COOKIE) and branch[-1] > 32:  # no white space to strip
            return branch + b" " + sent_by
    else:
        first = via_line.partition(b",")[0]
        branch = param(first.partition(b";")[2], b"branch") or b""
    branch = branch.strip()
    if len(branch) > len(COOKIE) and branch[:7].lower() == b"z9hg4bk":
        return branch + b" " + sent_by
    if first.find(b";;") >= 0:
        raise ParseError("Via has an empty parameter")
    line = message.line
    number = line(CSEQ).partition(b":")[2].split()[0]
    return b"|".join((ruri, tag_of(line(FROM)), line(CALL_ID), number, first))
