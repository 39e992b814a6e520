"""The SIP endpoint: bytes, time and verdicts in; bytes, events and one deadline out (sans-I/O, as h11 does it).

The host calls a verb, then drains `out` and `events` and asks `next_at()`.  Receiving never raises for what a peer
sent. Times are seconds of any clock that only goes forward.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from sipengine.configuration import Configuration
from sipengine.counters import Counters
from sipengine.dialog import state as dialog_state
from sipengine.dialog.seal import Sealer
from sipengine.events import Event, ResolutionWanted, Target
from sipengine.exceptions import (
    LocalProtocolError,
    ParseError,
    RemoteProtocolError,
    ResolutionError,
    SipError,
    TransportError,
)
from sipengine.identifiers import Identifiers
from sipengine.message import build
from sipengine.message.fields import CALL_ID, CSEQ, FROM, MAX_FORWARDS, ROUTE, TO, VIA
from sipengine.message.message import Message, parse
from sipengine.overload import Overload
from sipengine.proxy.abandoned import Abandoned
from sipengine.proxy.authentication import CredentialsOf
from sipengine.proxy.core import Application, ProxyCore, Resume
from sipengine.proxy.hooks import log
from sipengine.proxy.validation import refusal, salvage
from sipengine.registrar.location import Location
from sipengine.registrar.registrar import Registrar
from sipengine.timerqueue import TimerQueue
from sipengine.transaction.client import ClientTransaction, InviteClient, NonInviteClient
from sipengine.transaction.layer import TransactionLayer
from sipengine.transaction.oversize import LONGEST_DATAGRAM
from sipengine.transaction.server import COMPLETED
from sipengine.transaction.timers import Timers
from sipengine.transport.flow import WEBSOCKET, Address, Flow, Listener
from sipengine.transport.layer import LocalAddress, TransportLayer, no_local_address
from sipengine.transport.locate import Locator, OnTargets
from sipengine.transport.peers import PeerBook
from sipengine.transport.rests import Rests
from sipengine.transport.stream import PING, PONG, StreamFramer
from sipengine.uac.digest import FindCredentials
from sipengine.uac.nonces import Nonces
from sipengine.uac.probe import Probe
from sipengine.uac.registrations import Registrations
from sipengine.uac.restore import KamailioCodec, RestoreCodec, SealedCodec
from sipengine.uac.send import UacRequests
from sipengine.uac.strength import Strength

LocalRoute = Callable[[Message, Flow], None]
Defer = Callable[[Callable[[float], None]], None]


class Endpoint:
    """One SIP element: proxy core, registrations, and all that lies below them.

    `application` is called with the response context of each new request and must see to it that `context.routed` is
    called once.  `admission` is asked before a request is looked at; responses are matched by branch.  `entropy(n)`
    gives n random bytes. `local_address(transport, remote_host)` names the local address of the route there; needed
    only for wildcard listeners.  `peers` knows which addresses stay on UDP and which belong together.
    """

    def __init__(
        self, configuration: Configuration, *, application: Application, admission: Callable[[Flow], bool],
        entropy: Callable[[int], bytes], local_address: LocalAddress = no_local_address,
        peers: PeerBook | None = None,
    ) -> None:
        self.configuration = configuration
        self.entropy = entropy
        self.out: list[tuple[bytes, Flow]] = []
        """What is to be sent, in order; the host drains it after each verb."""
        self.events: deque[Event] = deque()
        self.counters = Counters()
        self.local_route: LocalRoute | None = None
        """The fifth hook: may edit a request of our own before it leaves (Kamailio's event_route[tm:local-request])."""
        self.defer: Defer = _no_defer
        """Runs a verb in its turn, once what runs now has returned: `defer(verb)` calls `verb(now)`, then drains; the
        host sets it.
        """
        self.identifiers = Identifiers(entropy)
        self.queue = TimerQueue()
        self.transport = TransportLayer(local_address)
        for alias in configuration.aliases:
            self.transport.add_alias(alias)
        timers = Timers(configuration.t1, configuration.t2, configuration.t4)
        self.transactions = TransactionLayer(
            self.transport, self.queue, timers, self.out, self.counters, self.identifiers.hex(), peers
        )
        self.rests = Rests(self.queue)
        self.overload = Overload()
        """The host measures with its gauges; new INVITEs are refused while a queue stands."""
        self._locator = Locator(self.events, self.rests)
        sealer = Sealer(configuration.seal_keys or (entropy(32),), self.identifiers.nonce)
        names = configuration.rr_from_store_param, configuration.rr_to_store_param
        codec: RestoreCodec = SealedCodec(sealer, *names, self.counters)
        if configuration.restore_codec == "kamailio":
            codec = KamailioCodec(configuration.restore_passwd, *names)
        self.proxy = ProxyCore(
            configuration, application, self.transport, self.transactions, self._locator, self.identifiers, sealer,
            codec, self.events, self.overload,
        )
        self._admission = admission
        self.registrations = Registrations(self)
        self.registrations.pacing.budget = lambda address: self.transactions.peers.budget(address[0])
        self.uac_requests = self.proxy.uac_requests = UacRequests(self, self.registrations.requests)
        self.rests.probe = Probe(self, self.rests)
        self.location = Location(self.queue, self.events, self._locator)
        self.registrar = Registrar(self.location, self.transport, self.identifiers, self.counters, entropy(32))
        self.room: int | None = None
        """Bytes that the answer to the message at hand may have, None for any number: the length of a datagram of
        somebody who has proven nothing, not even his address.
        """
        self.may_register: Callable[[Flow], bool] = _nobody
        """Whether a source that is not admitted may send REGISTER all the same, and nothing else; the host sets it."""
        self.on_denied: Callable[[Flow], None] = _unheard
        """Hears of each request, and each connection, that was not admitted; the host sets it."""

    @property
    def strength(self) -> Strength:
        """Which realms are known to take a strong digest; calls and registrations share it."""
        return self.proxy.strength

    @property
    def nonces(self) -> Nonces:
        """What servers have challenged with; calls and registrations share it."""
        return self.proxy.authenticator.nonces

    @property
    def resume(self) -> Resume:
        """How a hook that finished late gets back in; the host sets it: `resume(verb)` calls `verb(now)`, then drains.
        """
        return self.proxy.resume

    @resume.setter
    def resume(self, resume: Resume) -> None:
        self.proxy.resume = resume

    @property
    def credentials_of(self) -> CredentialsOf:
        """Credentials of an account, for challenges within its calls; the host sets it."""
        return self.proxy.authenticator.credentials_of

    @credentials_of.setter
    def credentials_of(self, credentials_of: CredentialsOf) -> None:
        self.proxy.authenticator.credentials_of = credentials_of

    @property
    def live(self) -> dict[str, int]:
        """How many there are of what must not pile up."""
        layer = self.transactions
        return {
            "server_transactions": len(layer.servers),
            "client_transactions": len(layer.clients) + len(layer.cancels),
            "dialogs": len(self.proxy.dialogs),
            "registrations": len(self.registrations),
            "bindings": len(self.location),
        }

    # listeners and flows
    @property
    def listeners(self) -> list[Listener]:
        return self.transport.listeners

    def add_listener(self, transport: str, host: str, port: int, sent_by: bytes | None = None) -> Listener:
        """Declare a bound socket.  `sent_by`: what peers call it; on a wildcard address it follows the route to the
        peer.
        """
        return self.transport.add_listener(transport, host, port, sent_by)

    def flow_for(self, listener: Listener, remote: Address, names: tuple[str, ...] = ()) -> Flow:
        """UDP: the flow to that address.  Stream: the live connection to it, or one that the host opens when it sends.
        `names` as those of a `Target`.
        """
        return self.transport.flow_for(listener, remote, names)

    def accept(self, listener: Listener, remote: Address) -> Flow | None:
        """The flow of a connection that a peer opened; None when that source is not admitted."""
        flow = Flow(listener, remote, accepted=True)
        if not self._admission(flow) and not self.may_register(flow):
            self.counters.denied += 1
            self.on_denied(flow)
            return None
        self.transport.name(flow)
        if listener.transport not in WEBSOCKET:
            flow.framer = StreamFramer()
        listener.flows[remote] = flow
        return flow

    def calls_of(self, l_uuid: str) -> int:
        """Calls of an account that go on; after a restart those that were stored or have spoken since."""
        return self.proxy.within.going_on.get(l_uuid, 0)

    @property
    def calls(self) -> int:
        """Calls that go on, of all accounts."""
        return sum(self.proxy.within.going_on.values())

    @property
    def unanswered(self) -> int:
        """Requests without a final response yet: what a drain waits for."""
        return sum(server.state < COMPLETED for server in self.transactions.servers.values())

    # in
    def receive_stream(self, data: bytes, flow: Flow, now: float) -> None:
        """Take bytes of a connection; `flow.closed` afterwards means that its framing is lost and the host closes it.

        Of a WebSocket connection take one message: frames tell where it ends (RFC 7118 §5).
        """
        if flow.listener.transport in WEBSOCKET:
            if data == PING:
                self.counters.received += 1
                self.out.append((PONG, flow))
            else:
                self.receive(data, flow, now)
            return
        framer = flow.framer
        if framer is None:
            framer = flow.framer = StreamFramer()
            self.transport.name(flow)
            flow.listener.flows.setdefault(flow.remote, flow)
        try:
            for message in framer.feed(data):
                if message == PING:
                    self.counters.received += 1
                    self.out.append((PONG, flow))
                elif not flow.closed:
                    self.receive(message, flow, now, True)
            if framer.error is not None:
                raise framer.error
        except ParseError as error:
            # RFC 3261 §18.3: where one message ends nobody knows any more; a 400, and the connection ends.
            self.counters.bad += 1
            self._answer_bad(framer.rest(), flow, error)
            self.transport.close(flow)

    def receive(self, data: bytes, flow: Flow, now: float, stream: bool = False) -> None:
        """Take one datagram, or one framed message of a stream."""
        counters = self.counters
        counters.received += 1
        before = len(self.out)
        if data[:1] < b"!":
            data = data.lstrip(b"\r\n\0")
            if not data:
                return  # a keep-alive
        response = data[:8] == b"SIP/2.0 " or data[:4].upper() == b"SIP/"
        self.room = None
        if not response and not self._admission(flow):
            if data[:9] != b"REGISTER " or not self.may_register(flow):
                counters.denied += 1
                self.on_denied(flow)
                return
            if not flow.reliable:
                self.room = len(data)
        try:
            message = parse(data, stream)
            if response:
                self.transactions.on_response(message, flow, now)
            else:
                self.proxy.on_request(message, flow, now)
        except (RemoteProtocolError, ValueError, IndexError) as error:
            counters.bad += 1
            if not response:
                self._answer_bad(data, flow, error)
        except Exception as error:
            # A fault of ours must not stop the others' calls; the message that showed it is in the trace.
            counters.bad += 1
            log.error("A message from %s could not be served: %s", flow, error, exc_info=error)
        if self.room is not None:
            self._keep_small(before, self.room)
        counters.sent += len(self.out) - before

    def _keep_small(self, before: int, room: int) -> None:
        """Whoever is said to have sent this datagram gets no answer that is longer: it may be somebody whom another
        floods by us.  A 2xx goes to one that has read our nonce.
        """
        kept = [x for x in self.out[before:] if len(x[0]) <= room or x[0].startswith(b"SIP/2.0 2")]
        self.counters.too_small += len(self.out) - before - len(kept)
        self.out[before:] = kept

    def _answer_bad(self, data: bytes, flow: Flow, error: Exception) -> None:
        """Answer 400 where what a response copies can be found, else drop (RFC 3261 §16.3 step 1, §8.2.6.2)."""
        try:
            message = salvage(data)
            if message is None:
                return
            i = message.keys.index(VIA)
            tag = self.transactions.own_tag(message.lines[i])
            _, reply_flow = self.transport.receive_via(message, i, flow)
            cause = error if isinstance(error, ParseError) else ParseError("a mandatory field is missing or broken")
            self.out.append((refusal(message, cause, tag), reply_flow))
            self.counters.rejected += 1
        except (ParseError, ValueError, IndexError):
            return

    def flow_failed(self, flow: Flow, error: TransportError, now: float) -> None:
        """A connection ended or could not be opened, or a datagram could not be sent."""
        if flow.reliable:
            self.transport.close(flow)
        self.transactions.flow_failed(flow, error, now)
        self.registrations.flow_lost(flow, now)

    def handle_timer(self, now: float) -> None:
        before = len(self.out)
        self.queue.expire(now)
        self.proxy.expire_calls(now)
        self.registrations.handle_timer(now)
        self.counters.sent += len(self.out) - before

    def next_at(self) -> float:
        """When `handle_timer` is due, inf when nothing is."""
        at, other = self.queue.next_at(), self.registrations.next_at()
        return at if at < other else other  # asked after each datagram, where min() would cost as much as the rest

    # calls of an earlier process
    def load_dialogs(self, states: Iterable[tuple[str, str, float]], now: float) -> int:
        """Take up calls of `DialogShifted` events: `(key, state, expires_at)` each, before anything is received.

        Returns how many; a state that no seal key opens is left out, its call goes by its token.
        """
        proxy = self.proxy
        count = sum([dialog_state.read(key, state, at, proxy.sealer, proxy.dialogs, now) for key, state, at in states])
        for record in proxy.dialogs.records.values():
            if record.mark:
                proxy.within.begin(record)
        return count

    # addresses
    def locate(self, uri: bytes | str, on_targets: OnTargets, now: float) -> None:
        """Find where a URI leads: `on_targets(targets or ResolutionError, now)`, at once for numeric hosts."""
        self._locator.locate(uri, on_targets, now)

    def resolved(self, query: ResolutionWanted, targets: list[Target] | ResolutionError, now: float) -> None:
        """Answer a ResolutionWanted event."""
        before = len(self.out)
        self._locator.resolved(query, targets, now)
        self.counters.sent += len(self.out) - before

    # requests of our own
    def send_request(
        self, method: bytes, ruri: bytes, headers: Iterable[tuple[bytes, bytes] | bytes], body: bytes = b"", *,
        flow: Flow, now: float, on_response: Callable[[int, Message, float], None],
        on_failure: Callable[[SipError, float], None],
    ) -> ClientTransaction:
        """Send a request of our own: Via, Max-Forwards, User-Agent and Content-Length are added.

        `on_response(status, message, now)` gets every response, provisional ones too; `on_failure` a timeout or a flow
        that failed.  Raises ParseError or LocalProtocolError for a request that must not be sent.
        """
        message = build.request(method, ruri, headers, body)
        keys, lines = message.keys, message.lines
        for key in (FROM, TO, CALL_ID, CSEQ):
            if key not in keys:
                raise LocalProtocolError(f"a {method.decode()} needs {key.decode()}")
        branch = self.identifiers.hex() + self.identifiers.hex()[:8]
        own_via = b"%b%b;rport" % (flow.via, branch)
        lines.insert(0, own_via)
        keys.insert(0, VIA)
        if MAX_FORWARDS not in keys:
            lines.insert(1, b"Max-Forwards: 70")
            keys.insert(1, MAX_FORWARDS)
        if b"user-agent" not in keys and self.configuration.user_agent:
            message.append(b"User-Agent: " + self.configuration.user_agent.encode())
        if self.local_route is not None:
            self._run_local_route(message, flow)
        user = _LocalUser(on_response, on_failure)
        wire = message.serialize()
        layer = self.transactions
        if len(wire) > LONGEST_DATAGRAM:
            oversize, datagrams = layer.oversize, flow
            flow = oversize.flow_for(flow, now)
            if flow is not datagrams:
                over_udp = own_via
                lines[0] = own_via = b"%b%b;rport" % (flow.via, branch)
                oversize.second[branch] = datagrams, own_via, over_udp
                wire = message.serialize()
        client: ClientTransaction
        if method == b"INVITE":
            head = [own_via, message.line(FROM), message.line(CALL_ID)]
            head += [line for key, line in zip(keys, lines, strict=True) if key is ROUTE]
            number = b"%d" % message.cseq[0]
            client = InviteClient(layer, branch, flow, wire, user, ruri, head, message.line(TO), number)
        else:
            client = NonInviteClient(layer, branch, method, flow, wire, user)
        layer.clients[branch] = client
        self.counters.sent += 1
        client.start(now)
        return client

    def _run_local_route(self, message: Message, flow: Flow) -> None:
        assert self.local_route is not None
        try:
            self.local_route(message, flow)
        except Exception as error:
            self.counters.hook_failures += 1
            log.error("local_route failed for a %s: %s", message.method.decode(), error, exc_info=error)

    def hang_up(
        self, client: ClientTransaction, now: float, answer: Message | None, find: FindCredentials,
        lines: tuple[bytes, ...],
    ) -> None:
        """End an INVITE of our own that nobody waits for: CANCEL, and ACK and BYE for the 2xx that came (`answer`) and
        for each that still comes; `find` and `lines` as `Abandoned` takes them.
        """
        assert isinstance(client, InviteClient)
        abandoned = Abandoned(self.proxy, client, now, find, lines)
        if answer is not None:
            abandoned.on_response(client, answer.status, answer, now)


def _unheard(flow: Flow) -> None: ...


def _no_defer(verb: Callable[[float], None]) -> None:
    raise LocalProtocolError("something is to be sent in its turn, but Endpoint.defer is not set")


def _nobody(flow: Flow) -> bool:
    return False


class _LocalUser:
    """Transaction user of a request of our own."""

    __slots__ = ("_on_failure", "_on_response")

    def __init__(
        self, on_response: Callable[[int, Message, float], None], on_failure: Callable[[SipError, float], None]
    ) -> None:
        self._on_response = on_response
        self._on_failure = on_failure

    def on_response(self, client: ClientTransaction, status: int, message: Message, now: float) -> None:
        if VIA not in message.keys:  # RFC 3261 §8.1.3.3: more than one Via means that it is not for us
            self._on_response(status, message, now)

    def on_failure(self, client: ClientTransaction, error: SipError, now: float) -> None:
        self._on_failure(error, now)
