"""Requests of our own outside any dialog, until their last answer (RFC 3261 §8.1, §22; RFC 3263 §4.3).

An exchange locates its targets, waits its turn in the pacing of the target, answers challenges, and goes on to the next
target when one does not answer.  Does not know what the request is for; `registration` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from ipaddress import ip_address
from math import ceil
from typing import Any, Protocol

from sipengine.events import Target
from sipengine.exceptions import ProtocolError, ResolutionError, SipError, TlsError, TransactionTimeout, TransportError
from sipengine.message import Message, SipUri
from sipengine.timerqueue import NEVER, TimerQueue
from sipengine.transaction.client import ClientTransaction
from sipengine.transport.flow import Address, Flow, Listener
from sipengine.transport.layer import TransportLayer
from sipengine.transport.rests import Rests, asked_rest
from sipengine.uac.binding import retry_after
from sipengine.uac.digest import Challenge, Credentials, FindCredentials, choose, pair
from sipengine.uac.nonces import Nonces
from sipengine.uac.pacing import Pacing, Priority
from sipengine.uac.strength import Strength
from sipengine.uac.submission import Submission

NOTHING = Submission({}, {}, False)
BEFORE_A_CHALLENGE = frozenset({400, 403})
Headers = list[tuple[bytes, bytes]]
OpenListener = Callable[[str, str, int], Listener | None]
"""`(transport, host, port)` → a listener for one local address that a wildcard socket covers; the host provides it."""

MAX_REPEATS = 5
"""Requests of one exchange to one target: 401, 407 and a stale nonce for each, and no more."""


class Agent(Protocol):
    """What an exchange needs of the endpoint."""

    transport: TransportLayer
    rests: Rests
    queue: TimerQueue

    @property
    def strength(self) -> Strength: ...

    @property
    def nonces(self) -> Nonces: ...

    @property
    def listeners(self) -> list[Listener]: ...

    @property
    def entropy(self) -> Callable[[int], bytes]: ...

    def flow_for(self, listener: Listener, remote: Address, names: tuple[str, ...] = ()) -> Flow: ...

    def locate(
        self, uri: bytes, on_targets: Callable[[list[Target] | ResolutionError, float], None], now: float
    ) -> None: ...

    def send_request(
        self, method: bytes, ruri: bytes, headers: Any, body: bytes = b"", *, flow: Flow, now: float,
        on_response: Callable[[int, Message, float], None], on_failure: Callable[[SipError, float], None],
    ) -> ClientTransaction: ...

    def hang_up(
        self, client: ClientTransaction, now: float, answer: Message | None, find: FindCredentials,
        lines: tuple[bytes, ...],
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an exchange ended.  `cause` is set where the end is not the far side's answer itself."""

    at: float
    cause: str = ""
    message: Message | None = None
    code: int | None = None
    sent_at: float | None = None
    target: Target | None = None
    flow: Flow | None = None
    """What it was answered over."""
    via_line: bytes = b""
    """Our Via as the answer showed it; with an answer."""
    realm_seen: str = ""
    retry_after: int = 0
    detail: str = ""
    """Our own sentence where no answer came."""
    digest: str = ""
    """Algorithm of the answer that was taken."""

    @property
    def reason(self) -> str:
        return (self.detail if self.message is None else self.message.reason.decode("utf-8", "replace"))[:120]


class Repeat(Enum):
    """What became of a challenge."""

    ANSWERED = "answered"
    REFUSED = "wrong_password"
    OTHER_REALM = "realm_mismatch"
    NO_MEANS = "no_password"
    UNKNOWN = "auth_unsupported"
    WEAKER = "weaker_digest"


@dataclass(slots=True)
class Request:
    """What is to be sent."""

    method: bytes
    ruri: bytes
    route: bytes
    """URI that decides where it goes; never written into the message."""
    headers: Callable[[Flow], Headers]
    """Asked anew for each repeat: CSeq rises, and Contact depends on the flow."""
    credentials: Credentials
    realm: str = ""
    """The only realm that may be answered with them; empty: any."""
    socket: str = ""
    """``proto:ip:port`` to send from; empty: the first listener that reaches the target."""
    priority: Priority = Priority.ROUTINE
    body: bytes = b""
    timeout: float = 0.0
    """Seconds that each target has for its final answer (an INVITE: for any answer); 0: timers B and F."""
    hurry: float = 0.0
    """Seconds that a target has for any answer while there is another to ask; it rests then.  0: as long as `timeout`.
    """
    invite_timeout: float = 0.0
    """Seconds from the first provisional answer to an INVITE to its end."""
    others: tuple[Credentials, ...] = ()
    """For what `credentials` do not answer."""
    targets: tuple[Target, ...] = ()
    """The servers to send it to, one after the other; empty: those that `route` leads to."""
    standby: tuple[bytes, ...] = ()
    """Like `route`, one after the other, where nobody there serves."""
    kept: Target | None = None
    """The server that has to do with it already: asked first where it is one of them and does not rest."""
    kept_unlisted: bool = False
    """Ask it also where it is none of them any more."""


class Requests:
    """Sends requests for the user agents of an endpoint at the pace of each target, which rests as it does for calls.
    """

    def __init__(self, agent: Agent, pacing: Pacing, default_socket: str = "") -> None:
        self.agent = agent
        self.pacing = pacing
        self.default_socket = default_socket
        self.open_listener: OpenListener = _none_opened

    def failed(self, target: Target, now: float, asked: float = 0.0, *, missed: bool = False) -> None:
        """Let it rest; `missed`: what it did not serve goes elsewhere."""
        self.agent.rests.failed(target.transport, target.address, now, asked)
        if missed:
            self.agent.rests.miss(target)
        self.pacing.slow_down(target.address, now)

    def answered(self, target: Target) -> None:
        self.agent.rests.answered(target.transport, target.address)

    def listener_for(self, target: Target, socket: str) -> Listener | None:
        """The local socket for `target`: the named one, else the default where it reaches it, else the first that does;
        TransportError where nothing is sent.
        """
        remote = target.address[0]
        fitting = [x for x in self.agent.listeners if x.transport == target.transport and reaches(x.host, remote)]
        if socket:
            return self._named(target, socket, fitting)
        if self.default_socket and (listener := self._named(target, self.default_socket, fitting)) is not None:
            return listener
        if not fitting:
            return None
        # The endpoint knows which of several the kernel's route to the target leaves from.
        preferred = self.agent.transport.listener_for(target.transport, remote, None, target.address[1])
        return preferred if preferred in fitting else fitting[0]

    def _named(self, target: Target, socket: str, fitting: list[Listener]) -> Listener | None:
        """The listener `proto:ip:port`; None where it does not lead to the target."""
        transport, _, rest = socket.lower().partition(":")
        host, _, port = rest.rpartition(":")
        host = host.strip("[]")
        if transport != target.transport or not port.isdigit() or not _numeric(host):
            return None
        if not reaches(host, target.address[0]):
            return None
        for listener in fitting:
            if (listener.host, listener.port) == (host, int(port)):
                return listener
        return self.open_listener(transport, host, int(port))


def _none_opened(transport: str, host: str, port: int) -> Listener | None:
    return None


def _numeric(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=4096)
def reaches(local: str, remote: str) -> bool:
    """Whether a socket bound to `local` can send to `remote`: same family, and loopback stays on the host."""
    here, there = ip_address(local), ip_address(remote.partition("%")[0])
    return here.version == there.version and (not here.is_loopback or there.is_loopback)


class Exchange:
    """One request and its repeats.  `on_sent` is called when the first leaves, `on_done` once at the end."""

    def __init__(
        self, requests: Requests, request: Request, on_sent: Callable[[float], None], on_done: Callable[[Outcome], None]
    ) -> None:
        self.requests = requests
        self.request = request
        self.on_sent = on_sent
        self.on_done = on_done
        self.ended = False
        self.due = NEVER
        self.sent_at: float | None = None
        self._client: ClientTransaction | None = None
        self._via_line = b""
        self._submission = NOTHING
        """What proves the request that is under way."""
        self._ringing = self._hurried = False
        self._routes: list[bytes] = []
        """Those that were not asked for their targets yet."""
        self._targets: list[Target] = []
        self._target: Target | None = None
        self._flow: Flow | None = None
        self._listener: Listener | None = None
        self._means = (replace(request.credentials, realm=request.realm.encode()), *request.others)
        self._sent_to_target = 0
        self._realm_seen = ""
        self._digest = ""
        self._last: Outcome | None = None

    def start(self, now: float) -> None:
        try:
            SipUri.parse(self.request.route)
        except (ProtocolError, ValueError):
            self._end(Outcome(now, "bad_proxy"))
            return
        if self.request.targets:
            self._located(list(self.request.targets), now)
        else:
            self._routes = [self.request.route, *self.request.standby]
            self._locate(now)

    def _locate(self, now: float) -> None:
        self.requests.agent.locate(self._routes.pop(0), self._located, now)

    def cancel(self) -> bool:
        """Forget a request of which nothing was sent; False when one is under way."""
        if self.sent_at is not None:
            return False
        self.ended = True
        return True

    def abandon(self, now: float) -> None:
        """End it at once; whatever is still answered goes nowhere, and a call that comes of it is hung up."""
        if not self.ended:
            self._stop(now)
            self._end(self._outcome(now, "timeout"))

    def on_timer(self, now: float) -> None:
        """The request's own time has passed.  Not the target's fault, so it does not rest unless it had to hurry."""
        if self.ended:
            return
        if self._hurried and self._target is not None:
            self.requests.failed(self._target, now, missed=True)
        self._stop(now)
        self._last = self._outcome(now, "timeout")
        if self._ringing:
            self._end(self._last)
        else:
            self._next_target(now)

    @property
    def _has_others(self) -> bool:
        return bool(self._targets or self._routes)

    def _stop(self, now: float) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        if client.method == b"INVITE":
            self._hang_up(client, now, None)
        else:
            client.terminate()

    def _hang_up(self, client: ClientTransaction, now: float, answer: Message | None) -> None:
        self.requests.agent.hang_up(client, now, answer, self._strong_enough, self._submission.lines)

    def _located(self, targets: list[Target] | ResolutionError, now: float) -> None:
        if self.ended:
            return
        rests = self.requests.agent.rests
        if isinstance(targets, ResolutionError):
            self._last = self._last or Outcome(now, "dns_empty", detail=str(targets))
            targets = []
        found = [*self._targets, *(target for target in targets if target not in self._targets)]
        self._targets = rests.order(found, now, new=self.request.priority is not Priority.OPERATOR)
        if self._routes and (not self._targets or rests.holds(self._targets[0])):
            self._locate(now)
            return
        if found and not self._targets:
            # RFC 3261 §21.5.4: every target answered 503 and named a time; asking now would prolong its trouble.
            wait = rests.silent_for(found, now)
            self._end(Outcome(now, "busy_503", retry_after=ceil(wait), detail="It asked for a pause (Retry-After)."))
            return
        self._keep()
        self._next_target(now)

    def _keep(self) -> None:
        """Ask the server first that is to be kept."""
        kept = self.request.kept
        if kept is None or self.requests.agent.rests.holds(kept):
            return
        at = next((target for target in self._targets if target.is_server_of(kept)), None)
        if at is not None:
            self._targets.remove(at)
        elif not self.request.kept_unlisted or kept.lacks_names:
            return
        self._targets.insert(0, at or kept)

    def _next_target(self, now: float) -> None:
        request = self.request
        while self._targets:
            target = self._targets.pop(0)
            try:
                listener = self.requests.listener_for(target, request.socket)
            except TransportError as error:
                self._last = Outcome(now, "unreachable", target=target, detail=str(error))
                continue
            if listener is None:
                self._last = self._last or Outcome(now, "no_socket", target=target)
                continue
            self._target, self._listener = target, listener
            self._submission = self._known(target, now)
            self._sent_to_target = 0
            self.requests.pacing.submit(target.address, self._send, now, request.priority)
            return
        if self._routes:
            self._locate(now)
        else:
            self._end(self._last or Outcome(now, "dns_empty"))

    def _send(self, now: float) -> None:
        if self.ended:
            return
        assert self._target is not None and self._listener is not None
        request, agent = self.request, self.requests.agent
        flow = self._flow = agent.flow_for(self._listener, self._target.address, self._target.names)
        headers = request.headers(flow)
        for line in self._submission.write(
            request.method, request.ruri, agent.entropy(12).hex().encode(), request.body
        ):
            name, _, value = line.partition(b": ")
            headers.append((name, value))
        first = self.sent_at is None
        self.sent_at = now
        self._sent_to_target += 1
        if first:
            self.on_sent(now)
        try:
            self._client = agent.send_request(
                request.method, request.ruri, headers, request.body, flow=flow, now=now,
                on_response=self._response, on_failure=self._failure,
            )
        except ProtocolError:
            # The row's own text does not fit into a header line.
            self._end(self._outcome(now, "bad_row"))
            return
        self._hurried = request.hurry > 0 and self._has_others
        if seconds := request.hurry if self._hurried else request.timeout:
            agent.queue.arm_at(self, now + seconds)

    def _outcome(
        self, now: float, cause: str = "", message: Message | None = None, code: int | None = None, detail: str = ""
    ) -> Outcome:
        return Outcome(
            now, cause, message, code, self.sent_at, self._target, self._flow, self._via_line, self._realm_seen,
            0 if message is None else retry_after(message), detail, self._digest,
        )

    def _response(self, code: int, message: Message, now: float) -> None:
        if self.ended:
            return
        if code < 200:
            if self._hurried:
                # It is there, and has as long as any.
                self._hurried, self.due = False, NEVER
                if self.request.timeout:
                    self.requests.agent.queue.arm_at(self, now + self.request.timeout)
            if self.request.invite_timeout and self.request.method == b"INVITE" and not self._ringing:
                self._ringing = True
                self.requests.agent.queue.arm_at(self, now + self.request.invite_timeout)
            return
        assert self._target is not None and self._client is not None
        client, self._client, self._ringing, self.due = self._client, None, False, NEVER
        self._via_line = client.via_line
        if client.method == b"INVITE" and code < 300:
            # Nobody is there to talk: the call is taken and ended.
            self._hang_up(client, now, message)
        if code == 503:
            # RFC 3261 §21.5.4, RFC 3263 §4.3: leave this one alone and try the next.
            self.requests.failed(self._target, now, asked_rest(message), missed=self._has_others)
            self._last = self._outcome(now, "", message, code)
            self._next_target(now)
            return
        self.requests.answered(self._target)
        if code in (401, 407):
            verdict = self._challenged(message, now)
            if verdict is Repeat.ANSWERED:
                priority = min(self.request.priority, Priority.ANSWER)
                self.requests.pacing.submit(self._target.address, self._send, now, priority)
            else:
                self._end(self._outcome(now, verdict.value, message, code))
            return
        agent, submission = self.requests.agent, self._submission
        if submission.unasked and submission.answers and code in BEFORE_A_CHALLENGE:
            # Some servers refuse a nonce that they have forgotten as they refuse a wrong password.
            submission.disbelieved(now)
            self._submission = NOTHING
            self.requests.pacing.submit(self._target.address, self._send, now, Priority.ANSWER)
            return
        if code < 300 and submission.answers:
            submission.accepted(message, agent.nonces, now)
            agent.strength.took([(x.challenge, x.credentials) for x in submission.answers.values()])
            taken = next(iter(submission.answers.values())).challenge
            self._digest, self._realm_seen = taken.algorithm.decode(), taken.realm.decode("utf-8", "replace")
        self._end(self._outcome(now, "", message, code))

    def _failure(self, error: SipError, now: float) -> None:
        if self.ended:
            return
        assert self._target is not None
        self._client, self.due = None, NEVER
        self.requests.failed(self._target, now, missed=self._has_others)
        if isinstance(error, TlsError):
            self._last = self._outcome(now, error.cause, detail=error.detail)
        elif isinstance(error, TransactionTimeout):
            self._last = self._outcome(now, "timeout")
        else:
            self._last = self._outcome(now, "unreachable", detail=str(error))
        self._next_target(now)

    def _challenged(self, message: Message, now: float) -> Repeat:
        """Take up the challenges of a 401 or 407 (RFC 3261 §22.2, §22.3)."""
        www, proxy = message.get_all(b"WWW-Authenticate"), message.get_all(b"Proxy-Authenticate")
        if not any(self._means):
            return Repeat.NO_MEANS
        # Credentials are for one realm, if they name one: nobody else may have a digest of the password.
        chosen = pair(www, proxy, self._strong_enough)
        if not chosen:
            if pair(www, proxy, self._credentials_of):
                return Repeat.WEAKER
            unanswered = choose(www, proxy, self.request.credentials)
            self._realm_seen = unanswered[0].realm.decode("utf-8", "replace") if unanswered else self._realm_seen
            return Repeat.OTHER_REALM if unanswered else Repeat.UNKNOWN
        self._realm_seen = chosen[0][0].realm.decode("utf-8", "replace")
        if self._sent_to_target >= MAX_REPEATS:
            return Repeat.REFUSED
        assert self._target is not None
        agent = self.requests.agent
        submission = self._submission.challenged(chosen, agent.nonces, self._target.address, now)
        if submission is None:
            return Repeat.REFUSED
        self._submission = submission
        return Repeat.ANSWERED

    def _known(self, target: Target, now: float) -> Submission:
        """What this server took before, with credentials that still serve it."""
        agent = self.requests.agent
        submission = Submission.of_known(agent.nonces, target.address, self._means, now)
        for realm, learnt in list(submission.answers.items()):
            if not agent.strength.allows(learnt.challenge, learnt.credentials):
                del submission.answers[realm]
        return submission

    def _credentials_of(self, challenge: Challenge) -> Credentials | None:
        return next((credentials for credentials in self._means if credentials.answers(challenge)), None)

    def _strong_enough(self, challenge: Challenge) -> Credentials | None:
        credentials = self._credentials_of(challenge)
        allowed = credentials is not None and self.requests.agent.strength.allows(challenge, credentials)
        return credentials if allowed else None

    def _end(self, outcome: Outcome) -> None:
        self.ended = True
        self.due = NEVER
        self.on_done(outcome)
