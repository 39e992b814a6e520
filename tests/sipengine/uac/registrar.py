"""A registrar by script on a virtual clock: an endpoint, numeric time, and whoever answers its REGISTERs."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import md5

from sipengine.configuration import Configuration
from sipengine.endpoint import Endpoint
from sipengine.events import Departed, QualifyChanged, RegistrationChanged, ResolutionWanted
from sipengine.message import Message, parse
from sipengine.transport.flow import Flow
from sipengine.uac.account import UacAccount

REALM = "provider.example"
PASSWORD = "s3cret"
Reply = tuple[int, str, list[str]] | None
Answer = Callable[[Message], Reply]


def account(number: int = 1, **changes: object) -> UacAccount:
    row: dict[str, object] = {
        "l_uuid": f"acc{number:06d}", "l_username": f"user{number}", "l_domain": "pbx.example",
        "r_username": f"trunk{number}", "r_domain": REALM, "auth_username": f"auth{number}",
        "auth_password": PASSWORD, "auth_proxy": "sip:192.0.2.9:5070", "expires": 600,
    }
    return UacAccount(**{**row, **changes})  # type: ignore[arg-type]


@dataclass
class Sent:
    """A REGISTER as the registrar saw it."""

    at: float
    message: Message
    remote: tuple[str, int]
    flow: Flow

    @property
    def expires(self) -> int:
        return int(self.message.get(b"Expires") or b"-1")

    @property
    def authorized(self) -> bool:
        return b"authorization" in self.message.keys or b"proxy-authorization" in self.message.keys

    @property
    def contact(self) -> str:
        return (self.message.get(b"Contact") or b"").decode()


@dataclass
class Network:
    """One endpoint and its registrars, by remote address; a delay of `latency` each way."""

    answer: Answer | None = None
    latency: float = 0.01
    now: float = 1000.0
    configuration: Configuration = field(default_factory=Configuration)
    seed: int = 0
    sent: list[Sent] = field(default_factory=list)
    events: list[RegistrationChanged] = field(default_factory=list)
    departed: list[str] = field(default_factory=list)
    """Call-IDs."""
    wanted: list[ResolutionWanted] = field(default_factory=list)
    qualified: list[QualifyChanged] = field(default_factory=list)

    def __post_init__(self) -> None:
        counter = itertools.count(self.seed)

        def entropy(size: int) -> bytes:
            raw = b"".join(md5(b"%d" % next(counter)).digest() for _ in range(size // 16 + 1))
            return raw[:size]

        self.endpoint = Endpoint(
            self.configuration, application=lambda context: None, admission=lambda flow: True, entropy=entropy
        )
        self.endpoint.add_listener("udp", "192.0.2.1", 5060)
        self.registrations = self.endpoint.registrations
        self.answers: dict[tuple[str, int], Answer] = {}
        self.seen_branches: dict[bytes, int] = defaultdict(int)
        self._inbox: list[tuple[float, bytes, Flow]] = []

    def settle(self) -> None:
        """Deliver what left; collect what was told."""
        while self.endpoint.out:
            out = self.endpoint.out[:]
            self.endpoint.out.clear()
            for data, flow in out:
                self._deliver(data, flow)
        while self.endpoint.events:
            event = self.endpoint.events.popleft()
            if isinstance(event, RegistrationChanged):
                self.events.append(event)
            elif isinstance(event, QualifyChanged):
                self.qualified.append(event)
            elif isinstance(event, Departed):
                self.departed.append(event.call_id)
            elif isinstance(event, ResolutionWanted):
                self.wanted.append(event)

    def _deliver(self, data: bytes, flow: Flow) -> None:
        message = parse(data)
        branch = message.via.branch
        self.seen_branches[branch] += 1
        if self.seen_branches[branch] == 1:
            self.sent.append(Sent(self.now, message, flow.remote, flow))
        answer = self.answers.get(flow.remote, self.answer)
        reply = answer(message) if answer else None
        if reply is None:
            return
        code, reason, headers = reply
        lines = [f"SIP/2.0 {code} {reason}".encode()]
        for key, line in zip(message.keys, message.lines, strict=True):
            if key in (b"via", b"from", b"call-id", b"cseq"):
                lines.append(line)
            elif key == b"to":
                lines.append(line + b";tag=registrar")
        lines += [header.encode() for header in headers] + [b"Content-Length: 0", b"", b""]
        self._inbox.append((self.now + 2 * self.latency, b"\r\n".join(lines), flow))

    def run(self, seconds: float) -> None:
        """Let time pass, at each moment at which something is due."""
        end = self.now + seconds
        self.settle()
        while True:
            self._inbox.sort(key=lambda entry: entry[0])
            arrival = self._inbox[0][0] if self._inbox else float("inf")
            at = min(arrival, self.endpoint.next_at())
            if at > end:
                break
            self.now = max(self.now, at)
            if self._inbox and self._inbox[0][0] <= self.now:
                _, data, flow = self._inbox.pop(0)
                self.endpoint.receive(data, flow, self.now)
            else:
                self.endpoint.handle_timer(self.now)
            self.settle()
        self.now = end

    def last(self, number: int = 1) -> RegistrationChanged:
        return [event for event in self.events if event.l_uuid == f"acc{number:06d}"][-1]

    @property
    def retransmissions(self) -> int:
        return sum(self.seen_branches.values()) - len(self.seen_branches)


def granting(seconds: int | None = None) -> Answer:
    """Answers 200 with our Contact; without `seconds` what was asked for."""

    def answer(message: Message) -> Reply:
        granted = seconds if seconds is not None else int(message.get(b"Expires") or b"0")
        contact = (message.get(b"Contact") or b"").partition(b">")[0].decode()
        return 200, "OK", [f"Contact: {contact}>;expires={granted}"] if message.get(b"Expires") != b"0" else []

    return answer


def challenging(
    then: Answer, password: str = PASSWORD, code: int = 401, realm: str = REALM, prefix: str = "n"
) -> Answer:
    """Asks for digest (MD5, qop auth, a new nonce each time) and hands what is right on to `then`."""
    nonces = itertools.count()
    name = "WWW-Authenticate" if code == 401 else "Proxy-Authenticate"
    answer_name = b"Authorization" if code == 401 else b"Proxy-Authorization"

    def answer(message: Message) -> Reply:
        value = message.get(answer_name)
        if value is not None and is_right(value.decode(), password, message.method.decode()):
            return then(message)
        return code, "Unauthorized", [f'{name}: Digest realm="{realm}", nonce="{prefix}{next(nonces)}", qop="auth"']

    return answer


def is_right(value: str, password: str, method: str = "REGISTER") -> bool:
    """Check a digest with code of our own: MD5, qop auth or none (RFC 2069)."""
    field = dict(re.findall(r'(\w+)="?([^",]*)"?', value))
    ha1 = _md5(f"{field['username']}:{field['realm']}:{password}")
    ha2 = _md5(f"{method}:{field['uri']}")
    middle = ":".join(field[name] for name in ("nonce", "nc", "cnonce", "qop") if name in field)
    return field["response"] == _md5(f"{ha1}:{middle}:{ha2}")


def _md5(text: str) -> str:
    return md5(text.encode()).hexdigest()
